// The minimal gated recurrent unit (Feng et al. 2024), whose gates see x alone. Equations only, on vectors of units.
//
//   z = sigmoid(W_z x + b_z), h' = (1 - z) h + z (W_n x + b_n)
#pragma once

#include <tuple>

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

struct MinGru {
  enum State { h };
  enum Gate { z, n };
  static constexpr int gates = 2, slots = 2, states = 1, unit_weights = 0;
  static constexpr int x_first = z;
  static constexpr std::array<int, 2> x_gates{z, n};

  struct Units {
    static constexpr Product product = Product::none;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = bit(h);

    // record: z and n
    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      s.a[z] = sigmoid<T>(s.a[z]);
      s.after[h] = fma(s.a[z], s.a[n], (splat(T(1)) - s.a[z]) * s.before[h]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      const Vec<T> rest = splat(T(1)) - s.a[z], gate_z = s.a[z], dh = s.d[h];
      s.a[z] = dh * (s.a[n] - s.before[h]) * (gate_z * rest);
      s.a[n] = dh * gate_z;
      s.d_before[h] = dh * rest;
    }
  };

  using Stages = std::tuple<Units>;
};

}  // namespace pyrnn::PYRNN_ISA
