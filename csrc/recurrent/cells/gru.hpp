// The gated recurrent unit (Cho et al. 2014), in its two forms. Equations only, on vectors of units.
//
//   r, z = sigmoid(W x + b + R h + d), h' = (1 - z) n + z h
//   reset after:  n = tanh(W x + b + r (R h + d))     one product, the recurrent part of n apart from the rest
//   reset before: n = tanh(W x + b + R (r h) + d)     r h is what the product of a second stage reads
//
// Activated: other functions in the places of sigmoid and tanh, as the options say.
//
// Slots are ordered so that what x reaches and what h reaches are both runs: n (from x), r, z, q (n's part from h).
#pragma once

#include <tuple>

#include "recurrent/nonlinearity.hpp"

namespace pyrnn::PYRNN_ISA {

template <class Act = Usual> struct GruResetAfter {
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
      a[r] = Act::template gate<T>(s.options, a[r]);
      a[z] = Act::template gate<T>(s.options, a[z]);
      a[n] = Act::template act<T>(s.options, fma(a[r], a[q], a[n]));
      s.after[h] = fma(a[z], s.before[h], (splat(T(1)) - a[z]) * a[n]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      Vec<T>* const a = s.a;
      const Vec<T> one = splat(T(1)), gate_n = a[n], gate_r = a[r], gate_z = a[z], dh = s.d[h];
      s.d_before[h] = dh * gate_z;
      a[z] = Act::template gate_back<T>(s.options, gate_z, dh * (s.before[h] - gate_n));
      a[n] = Act::template act_back<T>(s.options, gate_n, dh * (one - gate_z));
      a[r] = Act::template gate_back<T>(s.options, gate_r, a[n] * a[q]);
      a[q] = a[n] * gate_r;
    }
  };

  using Stages = std::tuple<Units>;
};

template <class Act = Usual> struct GruResetBefore {
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
      s.a[r] = Act::template gate<T>(s.options, s.a[r]);
      s.a[z] = Act::template gate<T>(s.options, s.a[z]);
      s.inner = s.a[r] * s.before[h];
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      const Vec<T> gate_r = s.a[r];
      s.a[r] = Act::template gate_back<T>(s.options, gate_r, s.inner * s.before[h]);
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
      s.a[n] = Act::template act<T>(s.options, s.a[n]);
      s.after[h] = fma(s.a[z], s.before[h], (splat(T(1)) - s.a[z]) * s.a[n]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 1>& s) {
      const Vec<T> one = splat(T(1)), gate_n = s.a[n], gate_z = s.a[z], dh = s.d[h];
      s.a[n] = Act::template act_back<T>(s.options, gate_n, dh * (one - gate_z));
      s.a[z] = Act::template gate_back<T>(s.options, gate_z, dh * (s.before[h] - gate_n));
      s.d_before[h] = dh * gate_z;
    }
  };

  using Stages = std::tuple<Reset, Candidate>;
};

}  // namespace pyrnn::PYRNN_ISA
