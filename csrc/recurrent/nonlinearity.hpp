// The nonlinearities of cells, and the way back through them from what came out; chosen when a cell is compiled, or,
// for gated cells with other activations than the usual ones, at run time.
#pragma once

#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

// min(max(a * slope + 1/2, 0), 1); NaN stays.
template <class T> PYRNN_INLINE Vec<T> hard_sigmoid(Vec<T> a, T slope) {
  return max(min(fma(splat(slope), a, splat(T(0.5))), T(1)), T(0));
}

template <Nonlinearity act, class T> PYRNN_INLINE Vec<T> activate(Vec<T> a) {
  if constexpr (act == Nonlinearity::tanh) return tanh<T>(a);
  if constexpr (act == Nonlinearity::relu) return max(a, T(0));
  if constexpr (act == Nonlinearity::sigmoid) return sigmoid<T>(a);
  if constexpr (act == Nonlinearity::softsign) {
    // Beyond 2^60 the quotient is 1 to rounding, and at infinity it would be NaN.
    const T large = T(1LL << 60);
    const Vec<T> held = max(min(a, large), -large);
    return held / (splat(T(1)) + abs<T>(held));
  }
  if constexpr (act == Nonlinearity::identity) return a;
  if constexpr (act == Nonlinearity::hard_sigmoid) return hard_sigmoid<T>(a, T(0.2));
  if constexpr (act == Nonlinearity::hard_sigmoid_6) return hard_sigmoid<T>(a, T(1) / T(6));
}

// The gradient of a, where y came out and dy is its gradient. Where relu and the hard sigmoids are cut off, and at the
// cut, there is none, of an infinite dy neither; NaN lets dy through.
template <Nonlinearity act, class T> PYRNN_INLINE Vec<T> activate_back(Vec<T> y, Vec<T> dy) {
  const Vec<T> one = splat(T(1)), zero{};
  [[maybe_unused]] const auto inside = [&](T slope) {
    return select<T>(y <= zero, zero, select<T>(y >= one, zero, dy * splat(slope)));
  };
  if constexpr (act == Nonlinearity::tanh) return dy * (one - y * y);
  if constexpr (act == Nonlinearity::relu) return select<T>(y <= zero, zero, dy);
  if constexpr (act == Nonlinearity::sigmoid) return dy * (y * (one - y));
  if constexpr (act == Nonlinearity::softsign) return dy * ((one - abs<T>(y)) * (one - abs<T>(y)));
  if constexpr (act == Nonlinearity::identity) return dy;
  if constexpr (act == Nonlinearity::hard_sigmoid) return inside(T(0.2));
  if constexpr (act == Nonlinearity::hard_sigmoid_6) return inside(T(1) / T(6));
}

// f(std::integral_constant) of a nonlinearity that is known at run time.
template <class F> PYRNN_INLINE auto with(Nonlinearity act, F f) {
  using enum Nonlinearity;
  switch (act) {
    case relu: return f(std::integral_constant<Nonlinearity, relu>());
    case sigmoid: return f(std::integral_constant<Nonlinearity, sigmoid>());
    case softsign: return f(std::integral_constant<Nonlinearity, softsign>());
    case identity: return f(std::integral_constant<Nonlinearity, identity>());
    case hard_sigmoid: return f(std::integral_constant<Nonlinearity, hard_sigmoid>());
    case hard_sigmoid_6: return f(std::integral_constant<Nonlinearity, hard_sigmoid_6>());
    default: return f(std::integral_constant<Nonlinearity, tanh>());
  }
}

// The activations of a gated cell: `gate` of its gates, `act` of its candidate and output, and the ways back. The usual
// ones, sigmoid and tanh,
struct Usual {
  template <class T> PYRNN_INLINE static Vec<T> gate(const CellOptions&, Vec<T> a) { return sigmoid<T>(a); }
  template <class T> PYRNN_INLINE static Vec<T> act(const CellOptions&, Vec<T> a) { return tanh<T>(a); }
  template <class T> PYRNN_INLINE static Vec<T> gate_back(const CellOptions&, Vec<T> y, Vec<T> dy) {
    return activate_back<Nonlinearity::sigmoid, T>(y, dy);
  }
  template <class T> PYRNN_INLINE static Vec<T> act_back(const CellOptions&, Vec<T> y, Vec<T> dy) {
    return activate_back<Nonlinearity::tanh, T>(y, dy);
  }
  // Added to `sum`.
  template <class T> PYRNN_INLINE static Vec<T> act_back(const CellOptions&, Vec<T> y, Vec<T> dy, Vec<T> sum) {
    return fma(dy, splat(T(1)) - y * y, sum);
  }
};

// and those that the options name.
struct Activated {
  template <class T> PYRNN_INLINE static Vec<T> gate(const CellOptions& o, Vec<T> a) {
    return with(o.gate_activation, [&](auto act) { return activate<act, T>(a); });
  }
  template <class T> PYRNN_INLINE static Vec<T> act(const CellOptions& o, Vec<T> a) {
    return with(o.activation, [&](auto act) { return activate<act, T>(a); });
  }
  template <class T> PYRNN_INLINE static Vec<T> gate_back(const CellOptions& o, Vec<T> y, Vec<T> dy) {
    return with(o.gate_activation, [&](auto act) { return activate_back<act, T>(y, dy); });
  }
  template <class T> PYRNN_INLINE static Vec<T> act_back(const CellOptions& o, Vec<T> y, Vec<T> dy) {
    return with(o.activation, [&](auto act) { return activate_back<act, T>(y, dy); });
  }
  template <class T> PYRNN_INLINE static Vec<T> act_back(const CellOptions& o, Vec<T> y, Vec<T> dy, Vec<T> sum) {
    return sum + act_back<T>(o, y, dy);
  }
};

}  // namespace pyrnn::PYRNN_ISA
