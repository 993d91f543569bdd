// The simple recurrent network (Elman 1990): h' = act(W x + b + R h + d). Equations only, on vectors of units.
#pragma once

#include <tuple>

#include "recurrent/nonlinearity.hpp"
#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

template <Nonlinearity act> struct Rnn {
  enum State { h };
  static constexpr int gates = 1, slots = 1, states = 1, unit_weights = 0;
  static constexpr int x_first = 0;
  static constexpr std::array<int, 1> x_gates{0};

  struct Units {
    static constexpr Product product = Product::output;
    static constexpr std::array<int, 1> gates{0};
    static constexpr int first = 0;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = 0;

    // record: h'
    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      s.after[h] = s.a[0] = activate<act, T>(s.a[0]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      s.a[0] = activate_back<act, T>(s.a[0], s.d[h]);
    }
  };

  using Stages = std::tuple<Units>;
};

}  // namespace pyrnn::PYRNN_ISA
