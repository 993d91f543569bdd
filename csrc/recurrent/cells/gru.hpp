// The gated recurrent unit (Cho et al. 2014), in its two forms. Equations only, on vectors of units.
//
//   r, z = sigmoid(W x + b + R h + d), h' = (1 - z) n + z h
//   reset after:  n = tanh(W x + b + r (R h + d))     one product, the recurrent part of n apart from the rest
//   reset before: n = tanh(W x + b + R (r h) + d)     r h is what the product of a second stage reads
//
// Slots are ordered so that what x reaches and what h reaches are both runs: n (from x), r, z, q (n's part from h).
#pragma once

#include <tuple>

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

struct GruResetAfter {
  enum State { h };
  enum Slot { n, r, z, q };
  static constexpr int gates = 3, slots = 4, states = 1, unit_weights = 0;
  static constexpr int x_first = n;
  static constexpr std::array<int, 3> x_gates{2, 0, 1};  // torch's order is r, z, n

  struct Units {
    static constexpr Product product = Product::output;
    static constexpr std::array<int, 3> gates{0, 1, 2};
    static constexpr int first = r;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = bit(h);

    // record: n, r, z and q
    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      Vec<T>* const a = s.a;
      a[r] = sigmoid<T>(a[r]);
      a[z] = sigmoid<T>(a[z]);
      a[n] = tanh<T>(fma(a[r], a[q], a[n]));
      s.after[h] = fma(a[z], s.before[h], (splat(T(1)) - a[z]) * a[n]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      Vec<T>* const a = s.a;
      const Vec<T> one = splat(T(1)), gate_n = a[n], gate_r = a[r], gate_z = a[z], dh = s.d[h];
      s.d_before[h] = dh * gate_z;
      a[z] = dh * (s.before[h] - gate_n) * (gate_z * (one - gate_z));
      a[n] = dh * (one - gate_z) * (one - gate_n * gate_n);
      a[r] = a[n] * a[q] * (gate_r * (one - gate_r));
      a[q] = a[n] * gate_r;
    }
  };

  using Stages = std::tuple<Units>;
};

struct GruResetBefore {
  enum State { h };
  enum Slot { n, r, z };
  static constexpr int gates = 3, slots = 3, states = 1, unit_weights = 0;
  static constexpr int x_first = n;
  static constexpr std::array<int, 3> x_gates{2, 0, 1};

  struct Reset {
    static constexpr Product product = Product::output;
    static constexpr std::array<int, 2> gates{0, 1};
    static constexpr int first = r;
    static constexpr bool projects = false;
    static constexpr unsigned sets = 0, reads = bit(h);

    // record: r and z; n is still to come
    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      s.a[r] = sigmoid<T>(s.a[r]);
      s.a[z] = sigmoid<T>(s.a[z]);
      s.inner = s.a[r] * s.before[h];
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      const Vec<T> gate_r = s.a[r];
      s.a[r] = s.inner * s.before[h] * (gate_r * (splat(T(1)) - gate_r));
      s.d_before[h] = fma(s.inner, gate_r, s.d_before[h]);
    }
  };

  struct Candidate {
    static constexpr Product product = Product::inner;
    static constexpr std::array<int, 1> gates{2};
    static constexpr int first = n;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h), reads = bit(h);

    template <class T> PYRNN_INLINE static void forward(Step<T, 1>& s) {
      s.a[n] = tanh<T>(s.a[n]);
      s.after[h] = fma(s.a[z], s.before[h], (splat(T(1)) - s.a[z]) * s.a[n]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      const Vec<T> one = splat(T(1)), gate_n = s.a[n], gate_z = s.a[z], dh = s.d[h];
      s.a[n] = dh * (one - gate_z) * (one - gate_n * gate_n);
      s.a[z] = dh * (s.before[h] - gate_n) * (gate_z * (one - gate_z));
      s.d_before[h] = dh * gate_z;
    }
  };

  using Stages = std::tuple<Reset, Candidate>;
};

}  // namespace pyrnn::PYRNN_ISA
