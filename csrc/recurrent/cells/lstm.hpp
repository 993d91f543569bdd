// The long short-term memory (Hochreiter and Schmidhuber 1997; forget gate and peepholes: Gers, Schraudolph and
// Schmidhuber 2002; projection: Sak, Senior and Beaufays 2014). Equations only, on vectors of units.
//
//   i, f, o = sigmoid(W x + b + R h + d [+ p_i c, p_f c, p_o c']), g = tanh(W x + b + R h + d)
//   c' = f c + i g, h' = o tanh(c'); with a projection h' = W_hr (o tanh(c'))
#pragma once

#include <tuple>

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

template <bool peephole, bool projected> struct Lstm {
  enum State { h, c };
  enum Gate { i, f, g, o };
  static constexpr int gates = 4, slots = 4, states = 2;
  static constexpr int unit_weights = peephole ? 3 : 0;  // p_i, p_f, p_o
  static constexpr int x_first = i;
  static constexpr std::array<int, 4> x_gates{i, f, g, o};

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
      if constexpr (peephole) {
        a[i] = fma(s.p[0], before, a[i]);
        a[f] = fma(s.p[1], before, a[f]);
      }
      a[i] = sigmoid<T>(a[i]);
      a[f] = sigmoid<T>(a[f]);
      a[g] = tanh<T>(a[g]);
      s.after[c] = fma(a[f], before, a[i] * a[g]);
      if constexpr (peephole) a[o] = fma(s.p[2], s.after[c], a[o]);
      a[o] = sigmoid<T>(a[o]);
      (projected ? s.inner : s.after[h]) = a[o] * tanh<T>(s.after[c]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 2>& s) {
      Vec<T>* const a = s.a;
      const Vec<T> one = splat(T(1)), t = tanh<T>(s.after[c]), dh = projected ? s.inner : s.d[h];
      const Vec<T> gate_i = a[i], gate_f = a[f], gate_g = a[g], gate_o = a[o];
      a[o] = dh * t * (gate_o * (one - gate_o));
      Vec<T> dc = fma(dh * gate_o, one - t * t, s.d[c]);
      if constexpr (peephole) dc = fma(a[o], s.p[2], dc);
      a[i] = dc * gate_g * (gate_i * (one - gate_i));
      a[f] = dc * s.before[c] * (gate_f * (one - gate_f));
      a[g] = dc * gate_i * (one - gate_g * gate_g);
      dc = dc * gate_f;
      if constexpr (peephole) dc = fma(a[f], s.p[1], fma(a[i], s.p[0], dc));
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
