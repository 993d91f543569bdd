// The gated recurrent unit (Cho et al. 2014), in its two forms. Equations only, on vectors of units.
//
//   r, z = sigmoid(W x + b + R h + d), h' = (1 - z) n + z h
//   reset after:  n = tanh(W x + b + r (R h + d))     one product, the recurrent part of n apart from the rest
//   reset before: n = tanh(W x + b + R (r h) + d)     r h is the input of a second product
//
// Slots are ordered so that what x reaches and what h reaches are both runs: n (from x), r, z, q (n's part from h).
#pragma once

#include "../panels.hpp"

namespace pyrnn::PYRNN_ISA {

struct GruResetAfter {
  enum { n, r, z, q };
  static constexpr int gates = 3, slots = 4;
  static constexpr int x_first = n, h_first = r;
  static constexpr std::array<int, 3> x_gates{2, 0, 1};
  static constexpr std::array<int, 3> h_gates{0, 1, 2};  // torch's order is r, z, n
  static constexpr int unit_weights = 0;
  static constexpr bool cell_state = false, reads_hidden = true;

  // record: n, r, z and q
  template <class T> static void forward(Vec<T>* a, const Vec<T>*, Vec<T> h_prev, Vec<T>&, Vec<T>& h) {
    a[r] = sigmoid<T>(a[r]);
    a[z] = sigmoid<T>(a[z]);
    a[n] = tanh<T>(fma(a[r], a[q], a[n]));
    h = fma(a[z], h_prev, (splat(T(1)) - a[z]) * a[n]);
  }

  template <class T>
  static void backward(Vec<T>* a, const Vec<T>*, Vec<T> h_prev, Vec<T>, Vec<T>, Vec<T> dh, Vec<T>&, Vec<T>& dh_prev) {
    const Vec<T> one = splat(T(1)), gate_n = a[n], gate_r = a[r], gate_z = a[z];
    dh_prev = dh * gate_z;
    a[z] = dh * (h_prev - gate_n) * (gate_z * (one - gate_z));
    a[n] = dh * (one - gate_z) * (one - gate_n * gate_n);
    a[r] = a[n] * a[q] * (gate_r * (one - gate_r));
    a[q] = a[n] * gate_r;
  }
};

struct GruResetBefore {
  enum { n, r, z };
  static constexpr int gates = 3, slots = 3;
  static constexpr int x_first = n, h_first = r;
  static constexpr std::array<int, 3> x_gates{2, 0, 1};
  static constexpr std::array<int, 2> h_gates{0, 1};
  static constexpr int unit_weights = 0;
  static constexpr bool cell_state = false, reads_hidden = true;

  // record: r and z; n is still to come
  template <class T> static void forward(Vec<T>* a, const Vec<T>*, Vec<T> h_prev, Vec<T>&, Vec<T>& rh) {
    a[r] = sigmoid<T>(a[r]);
    a[z] = sigmoid<T>(a[z]);
    rh = a[r] * h_prev;
  }

  template <class T>
  static void backward(Vec<T>* a, const Vec<T>*, Vec<T> h_prev, Vec<T>, Vec<T>, Vec<T> drh, Vec<T>&, Vec<T>& dh_prev) {
    const Vec<T> gate_r = a[r];
    a[r] = drh * h_prev * (gate_r * (splat(T(1)) - gate_r));
    dh_prev = fma(drh, gate_r, dh_prev);
  }
};

// The second product of a step that resets before: the candidate n, into the same record.
struct Candidate {
  enum { n, r, z };
  static constexpr bool own_record = false;
  static constexpr std::array<int, 1> gates{2};

  template <class T> static void forward(Vec<T>* a, Vec<T> h_prev, Vec<T>& h) {
    a[n] = tanh<T>(a[n]);
    h = fma(a[z], h_prev, (splat(T(1)) - a[z]) * a[n]);
  }

  template <class T> static void backward(Vec<T>* a, Vec<T> h_prev, Vec<T> dh, Vec<T>& dh_prev) {
    const Vec<T> one = splat(T(1)), gate_n = a[n], gate_z = a[z];
    a[n] = dh * (one - gate_z) * (one - gate_n * gate_n);
    a[z] = dh * (h_prev - gate_n) * (gate_z * (one - gate_z));
    dh_prev = dh * gate_z;
  }
};

}  // namespace pyrnn::PYRNN_ISA
