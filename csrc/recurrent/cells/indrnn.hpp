// The independently recurrent network (Li et al. 2018): h' = act(W x + b + u h), no unit sees another. Equations only,
// on vectors of units.
#pragma once

#include <tuple>

#include "recurrent/nonlinearity.hpp"
#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

template <Nonlinearity act> struct IndRnn {
  enum State { h };
  static constexpr int gates = 1, slots = 1, states = 1;
  static constexpr int unit_weights = 1;  // u
  static constexpr int x_first = 0;
  static constexpr std::array<int, 1> x_gates{0};

  struct Units {
    static constexpr Product product = Product::none;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = bit(h);

    // record: h'
    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      s.after[h] = s.a[0] = activate<act, T>(fma(s.p[0], s.before[h], s.a[0]));
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      s.a[0] = activate_back<act, T>(s.a[0], s.d[h]);
      s.d_before[h] = s.a[0] * s.p[0];
    }
  };

  using Stages = std::tuple<Units>;

  template <class T> static void unit_grads(const Step<T, 1>& s, Vec<T>* dp) {
    dp[0] = fma(s.a[0], s.before[h], dp[0]);
  }
};

}  // namespace pyrnn::PYRNN_ISA
