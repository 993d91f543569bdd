// The long short-term memory (Hochreiter and Schmidhuber 1997; forget gate and peepholes: Gers, Schraudolph and
// Schmidhuber 2002; projection: Sak, Senior and Beaufays 2014). Equations only, on vectors of units.
//
//   i, f, o = sigmoid(W x + b + R h + d [+ p_i c, p_f c, p_o c']), g = tanh(W x + b + R h + d)
//   c' = f c + i g, h' = o tanh(c'); with a projection h' = W_hr (o tanh(c'))
#pragma once

#include "../panels.hpp"

namespace pyrnn::PYRNN_ISA {

template <bool peephole> struct Lstm {
  enum { i, f, g, o };
  static constexpr int gates = 4, slots = 4;
  static constexpr int x_first = 0, h_first = 0;
  static constexpr std::array<int, 4> x_gates{i, f, g, o};
  static constexpr std::array<int, 4> h_gates{i, f, g, o};
  static constexpr int unit_weights = peephole ? 3 : 0;  // p_i, p_f, p_o
  static constexpr bool cell_state = true, reads_hidden = false;

  // record: the four gates after their activation
  template <class T> static void forward(Vec<T>* a, const Vec<T>* p, Vec<T>, Vec<T>& c, Vec<T>& h) {
    if constexpr (peephole) {
      a[i] = fma(p[0], c, a[i]);
      a[f] = fma(p[1], c, a[f]);
    }
    a[i] = sigmoid<T>(a[i]);
    a[f] = sigmoid<T>(a[f]);
    a[g] = tanh<T>(a[g]);
    c = fma(a[f], c, a[i] * a[g]);
    if constexpr (peephole) a[o] = fma(p[2], c, a[o]);
    a[o] = sigmoid<T>(a[o]);
    h = a[o] * tanh<T>(c);
  }

  template <class T>
  static void backward(Vec<T>* a, const Vec<T>* p, Vec<T>, Vec<T> c_prev, Vec<T> c, Vec<T> dh, Vec<T>& dc, Vec<T>&) {
    const Vec<T> one = splat(T(1)), t = tanh<T>(c);
    const Vec<T> gate_i = a[i], gate_f = a[f], gate_g = a[g], gate_o = a[o];
    a[o] = dh * t * (gate_o * (one - gate_o));
    dc = fma(dh * gate_o, one - t * t, dc);
    if constexpr (peephole) dc = fma(a[o], p[2], dc);
    a[i] = dc * gate_g * (gate_i * (one - gate_i));
    a[f] = dc * c_prev * (gate_f * (one - gate_f));
    a[g] = dc * gate_i * (one - gate_g * gate_g);
    dc = dc * gate_f;
    if constexpr (peephole) dc = fma(a[f], p[1], fma(a[i], p[0], dc));
  }

  // What one step adds to the gradients of the unit weights.
  template <class T> static void unit_grads(const Vec<T>* da, Vec<T>, Vec<T> c_prev, Vec<T> c, Vec<T>* dp) {
    dp[0] = fma(da[i], c_prev, dp[0]);
    dp[1] = fma(da[f], c_prev, dp[1]);
    dp[2] = fma(da[o], c, dp[2]);
  }
};

// The second product of a step with a projection: h' = W_hr m, m = o tanh(c'). It has a record of its own, since it has
// P units and not H.
struct Projection {
  static constexpr bool own_record = true;
  static constexpr std::array<int, 1> gates{0};

  template <class T> static void forward(Vec<T>* a, Vec<T>, Vec<T>& h) { h = a[0]; }
  template <class T> static void backward(Vec<T>* a, Vec<T>, Vec<T> dh, Vec<T>& dh_prev) {
    a[0] = dh;
    dh_prev = Vec<T>{};
  }
};

}  // namespace pyrnn::PYRNN_ISA
