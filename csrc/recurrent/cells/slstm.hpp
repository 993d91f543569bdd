// The sLSTM (Beck et al. 2024): exponential gates, and a state m that keeps them in range. Equations only, on vectors
// of units.
//
//   l = log sigmoid(a_f) + m, m' = max(l, a_i), i = exp(a_i - m'), f = exp(l - m')
//   c' = f c + i tanh(a_g), n' = f n + i, h' = sigmoid(a_o) c' / n',   a = W x + b + R h + d
//
// A unit whose n is 0 has no past: m' = a_i and f = 0.
#pragma once

#include <tuple>

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

struct Slstm {
  enum State { h, c, n, m };
  enum Gate { i, f, g, o };
  static constexpr int gates = 4, slots = 4, states = 4, unit_weights = 0;
  static constexpr int x_first = i;
  static constexpr std::array<int, 4> x_gates{i, f, g, o};

  // The two exponential gates, and where m' comes from the past.
  template <class T> struct Exponential {
    Vec<T> input, forget, c_before;  // c as it counts
    IntVec<T> past;

    PYRNN_INLINE Exponential(const Step<T, 4>& s, Vec<T>& m_next) {
      const Vec<T> l = log_sigmoid<T>(s.a[f]) + s.before[m];
      const IntVec<T> none = s.before[n] == Vec<T>{};
      past = ~none & (l > s.a[i]);
      m_next = select<T>(past, l, s.a[i]);
      input = exp<T>(s.a[i] - m_next);
      forget = select<T>(none, Vec<T>{}, exp<T>(l - m_next));
      c_before = select<T>(none, Vec<T>{}, s.before[c]);
    }
  };

  struct Units {
    static constexpr Product product = Product::output;
    static constexpr std::array<int, 4> gates{i, f, g, o};
    static constexpr int first = i;
    static constexpr bool projects = false;
    static constexpr unsigned sets = bit(h) | bit(c) | bit(n) | bit(m), reads = bit(c) | bit(n) | bit(m);

    // record: a_i and a_f as they are, g and o after their activation
    template <class T> PYRNN_INLINE static void forward(Step<T, 4>& s) {
      const Exponential<T> gate(s, s.after[m]);
      s.a[g] = tanh<T>(s.a[g]);
      s.a[o] = sigmoid<T>(s.a[o]);
      s.after[c] = fma(gate.forget, gate.c_before, gate.input * s.a[g]);
      s.after[n] = fma(gate.forget, s.before[n], gate.input);
      s.after[h] = s.a[o] * (s.after[c] / s.after[n]);
    }

    template <class T> PYRNN_INLINE static void backward(Step<T, 4>& s) {
      Vec<T> m_next;
      const Exponential<T> gate(s, m_next);
      const Vec<T> one = splat(T(1)), gate_g = s.a[g], gate_o = s.a[o], dh = s.d[h];
      const Vec<T> ratio = s.after[c] / s.after[n], dratio = dh * gate_o / s.after[n];
      const Vec<T> dc = s.d[c] + dratio, dn = s.d[n] - dratio * ratio;
      const Vec<T> di = fma(dc, gate_g, dn) * gate.input;  // of the exponents
      const Vec<T> df = fma(dc, gate.c_before, dn * s.before[n]) * gate.forget;
      const Vec<T> dm = s.d[m] - di - df, dl = df + select<T>(gate.past, dm, Vec<T>{});
      s.a[o] = dh * ratio * (gate_o * (one - gate_o));
      s.a[g] = dc * gate.input * (one - gate_g * gate_g);
      s.a[i] = di + select<T>(gate.past, Vec<T>{}, dm);
      s.a[f] = dl * (one - sigmoid<T>(s.a[f]));
      s.d_before[c] = dc * gate.forget;
      s.d_before[n] = dn * gate.forget;
      s.d_before[m] = dl;
    }
  };

  using Stages = std::tuple<Units>;
};

}  // namespace pyrnn::PYRNN_ISA
