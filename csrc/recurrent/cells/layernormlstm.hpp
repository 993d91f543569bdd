// The LSTM with layer normalisation (Ba, Kiros and Hinton 2016, equations 20 to 22). Equations only, on vectors of
// units.
//
//   a = s N(W x) + t N(R h) + b, c' = sigmoid(a_f) c + sigmoid(a_i) tanh(a_g), h' = sigmoid(a_o) tanh(u N(c') + v)
//
// N makes mean 0 and variance 1 of a row's numbers, those of all gates or of c'.
#pragma once

#include <tuple>

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

struct LayerNormLstm {
  enum State { h, c };
  enum Slot { of_x = 0, of_h = 4, i = 8, f, g, o, of_c, d_of_x, d_of_h = 17, d_of_c = 21, d_bent };
  enum UnitWeight { norm_ih = 0, norm_hh = 4, bias = 8, norm_c = 12, bias_c };
  static constexpr int gates = 4, slots = 23, back_slots = 10, states = 2, unit_weights = 14;
  static constexpr int x_first = of_x;
  static constexpr std::array<int, 4> x_gates{0, 1, 2, 3};

  struct Gates {
    static constexpr Product product = Product::output;
    static constexpr std::array<int, 4> gates{0, 1, 2, 3};
    static constexpr int first = of_h;
    static constexpr std::array<Norm, 2> norms{{{of_x, 4, d_of_x}, {of_h, 4, d_of_h}}};
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(c), reads = bit(c);

    // record: N(W x), N(R h), the four gates after their activation, c'
    template <class T> PYRNN_INLINE static void forward(Step<T, 2>& s) {
      Vec<T>* const a = s.a;
      for (int k = 0; k < 4; ++k)
        a[i + k] = fma(s.p[norm_ih + k], a[of_x + k], fma(s.p[norm_hh + k], a[of_h + k], s.p[bias + k]));
      a[i] = sigmoid<T>(a[i]);
      a[f] = sigmoid<T>(a[f]);
      a[g] = tanh<T>(a[g]);
      a[o] = sigmoid<T>(a[o]);
      s.after[c] = a[of_c] = fma(a[f], s.before[c], a[i] * a[g]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 2>& s) {
      Vec<T>* const a = s.a;
      const Vec<T> one = splat(T(1)), gate_i = a[i], gate_f = a[f], gate_g = a[g], dc = s.d[c] + a[d_of_c];
      a[i] = dc * gate_g * (gate_i * (one - gate_i));
      a[f] = dc * s.before[c] * (gate_f * (one - gate_f));
      a[g] = dc * gate_i * (one - gate_g * gate_g);
      for (int k = 0; k < 4; ++k) {
        a[d_of_x + k] = s.p[norm_ih + k] * a[i + k];
        a[d_of_h + k] = s.p[norm_hh + k] * a[i + k];
      }
      s.d_before[c] = dc * gate_f;
    }
  };

  struct Output {
    static constexpr Product product = Product::none;
    static constexpr std::array<Norm, 1> norms{{{of_c, 1, d_of_c}}};
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = 0;

    template <class T> PYRNN_INLINE static Vec<T> bent(const Step<T, 2>& s) {
      return tanh<T>(fma(s.p[norm_c], s.a[of_c], s.p[bias_c]));
    }

    // record: N(c')
    template <class T> PYRNN_INLINE static void forward(Step<T, 2>& s) { s.after[h] = s.a[o] * bent(s); }

    template <class T> PYRNN_INLINE static void backward(Step<T, 2>& s) {
      const Vec<T> one = splat(T(1)), t = bent(s), gate_o = s.a[o], dh = s.d[h];
      s.a[o] = dh * t * (gate_o * (one - gate_o));
      s.a[d_bent] = dh * gate_o * (one - t * t);
      s.a[d_of_c] = s.p[norm_c] * s.a[d_bent];
    }
  };

  using Stages = std::tuple<Gates, Output>;

  template <class T> static void unit_grads(const Step<T, 2>& s, Vec<T>* dp) {
    for (int k = 0; k < 4; ++k) {
      const Vec<T> d = s.a[i + k];
      dp[norm_ih + k] = fma(d, s.a[of_x + k], dp[norm_ih + k]);
      dp[norm_hh + k] = fma(d, s.a[of_h + k], dp[norm_hh + k]);
      dp[bias + k] += d;
    }
    dp[norm_c] = fma(s.a[d_bent], s.a[of_c], dp[norm_c]);
    dp[bias_c] += s.a[d_bent];
  }
};

}  // namespace pyrnn::PYRNN_ISA
