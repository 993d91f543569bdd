// The long short-term memory (Hochreiter and Schmidhuber 1997; forget gate and peepholes: Gers, Schraudolph and
// Schmidhuber 2002; projection: Sak, Senior and Beaufays 2014). Equations only, on vectors of units.
//
//   i, f, o = sigmoid(W x + b + R h + d [+ p_i c, p_f c, p_o c']), g = tanh(W x + b + R h + d)
//   c' = f c + i g, h' = o tanh(c'); with a projection h' = W_hr (o tanh(c'))
//
// Activated: other functions in the places of sigmoid and tanh, and peepholes, are what the options say.
#pragma once

#include <tuple>

#include "recurrent/nonlinearity.hpp"

namespace pyrnn::PYRNN_ISA {

template <bool peephole, bool projected, class Act = Usual> struct Lstm {
  enum State { h, c };
  enum Gate { i, f, g, o };
  static constexpr int gates = 4, slots = 4, states = 2;
  static constexpr int unit_weights = peephole ? 3 : 0;  // p_i, p_f, p_o
  static constexpr int x_first = i;
  static constexpr std::array<int, 4> x_gates{i, f, g, o};

  // Whether there are peepholes.
  template <class T> PYRNN_INLINE static bool looks(const Step<T, 2>& s) {
    return std::is_same_v<Act, Usual> || s.options.peephole;
  }

  struct Gates {
    static constexpr Product product = Product::output;
    static constexpr std::array<int, 4> gates{i, f, g, o};
    static constexpr int first = i;
    static constexpr bool projects = false;
    static constexpr unsigned sets = projected ? bit(c) : bit(h) | bit(c), reads = bit(c);

    // record: the four gates after their activation
    template <class T> PYRNN_INLINE static void forward(Step<T, 2>& s) {
      Vec<T>* const a = s.a;
      const Vec<T> before = s.before[c];
      if constexpr (peephole)
        if (looks(s)) {
          a[i] = fma(s.p[0], before, a[i]);
          a[f] = fma(s.p[1], before, a[f]);
        }
      a[i] = Act::template gate<T>(s.options, a[i]);
      a[f] = Act::template gate<T>(s.options, a[f]);
      a[g] = Act::template act<T>(s.options, a[g]);
      s.after[c] = fma(a[f], before, a[i] * a[g]);
      if constexpr (peephole)
        if (looks(s)) a[o] = fma(s.p[2], s.after[c], a[o]);
      a[o] = Act::template gate<T>(s.options, a[o]);
      (projected ? s.inner : s.after[h]) = a[o] * Act::template act<T>(s.options, s.after[c]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 2>& s) {
      Vec<T>* const a = s.a;
      const Vec<T> bent = Act::template act<T>(s.options, s.after[c]), dh = projected ? s.inner : s.d[h];
      const Vec<T> gate_i = a[i], gate_f = a[f], gate_g = a[g], gate_o = a[o];
      a[o] = Act::template gate_back<T>(s.options, gate_o, dh * bent);
      Vec<T> dc = Act::template act_back<T>(s.options, bent, dh * gate_o, s.d[c]);
      if constexpr (peephole)
        if (looks(s)) dc = fma(a[o], s.p[2], dc);
      a[i] = Act::template gate_back<T>(s.options, gate_i, dc * gate_g);
      a[f] = Act::template gate_back<T>(s.options, gate_f, dc * s.before[c]);
      a[g] = Act::template act_back<T>(s.options, gate_g, dc * gate_i);
      dc = dc * gate_f;
      if constexpr (peephole)
        if (looks(s)) dc = fma(a[f], s.p[1], fma(a[i], s.p[0], dc));
      s.d_before[c] = dc;
    }
  };

  // h' = W_hr m, m = o tanh(c')
  struct Projection {
    static constexpr Product product = Product::inner;
    static constexpr std::array<int, 1> gates{0};
    static constexpr int first = 0;
    static constexpr bool projects = true;
    static constexpr unsigned sets = bit(h), reads = 0;

    template <class T> PYRNN_INLINE static void forward(Step<T, 2>& s) { s.after[h] = s.a[0]; }
    template <class T> PYRNN_INLINE static void backward(Step<T, 2>& s) { s.a[0] = s.d[h]; }
  };

  using Stages = std::conditional_t<projected, std::tuple<Gates, Projection>, std::tuple<Gates>>;

  template <class T> static void unit_grads(const Step<T, 2>& s, Vec<T>* dp) {
    dp[0] = fma(s.a[i], s.before[c], dp[0]);
    dp[1] = fma(s.a[f], s.before[c], dp[1]);
    dp[2] = fma(s.a[o], s.after[c], dp[2]);
  }
};

}  // namespace pyrnn::PYRNN_ISA
