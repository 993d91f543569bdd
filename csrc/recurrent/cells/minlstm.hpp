// The minimal long short-term memory (Feng et al. 2024), whose gates see x alone. Equations only, on vectors of units.
//
//   i, f = sigmoid(W x + b), h' = (f h + i (W_n x + b_n)) / (f + i)
//
// Of the two gates only the share s = f / (f + i) matters. It is the sigmoid of log f - log i, where log sigmoid(a) is
// min(a, 0) - log(1 + exp(-|a|)): finite for all finite a, where f and i themselves may both be 0.
#pragma once

#include <tuple>

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

struct MinLstm {
  enum State { h };
  enum Gate { i, f, n };
  static constexpr int gates = 3, slots = 3, states = 1, unit_weights = 0;
  static constexpr int x_first = i;
  static constexpr std::array<int, 3> x_gates{i, f, n};

  struct Units {
    static constexpr Product product = Product::none;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = bit(h);

    // record: the pre-activations, from which the share is made once more
    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      const Vec<T> share = share_kept<T>(s.a[i], s.a[f]);
      s.after[h] = fma(share, s.before[h], (splat(T(1)) - share) * s.a[n]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      const Vec<T> one = splat(T(1)), share = share_kept<T>(s.a[i], s.a[f]), dh = s.d[h];
      const Vec<T> dlog = dh * (s.before[h] - s.a[n]) * (share * (one - share));  // of log f - log i
      s.a[f] = dlog * (one - sigmoid<T>(s.a[f]));
      s.a[i] = -dlog * (one - sigmoid<T>(s.a[i]));
      s.a[n] = dh * (one - share);
      s.d_before[h] = dh * share;
    }

    template <class T> PYRNN_INLINE static Vec<T> share_kept(Vec<T> a_i, Vec<T> a_f) {
      return sigmoid<T>(log_sigmoid<T>(a_f) - log_sigmoid<T>(a_i));
    }
  };

  using Stages = std::tuple<Units>;
};

}  // namespace pyrnn::PYRNN_ISA
