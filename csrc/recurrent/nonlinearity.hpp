// The nonlinearities of simple cells, and the way back through them from what came out.
#pragma once

#include "base/simd.hpp"

namespace pyrnn::PYRNN_ISA {

enum class Nonlinearity { tanh, relu, sigmoid };

template <Nonlinearity act, class T> PYRNN_INLINE Vec<T> activate(Vec<T> a) {
  if constexpr (act == Nonlinearity::tanh) return tanh<T>(a);
  if constexpr (act == Nonlinearity::relu) return select<T>(a < splat(T(0)), Vec<T>{}, a);
  if constexpr (act == Nonlinearity::sigmoid) return sigmoid<T>(a);
}

// The gradient of a, where y came out and dy is its gradient.
template <Nonlinearity act, class T> PYRNN_INLINE Vec<T> activate_back(Vec<T> y, Vec<T> dy) {
  const Vec<T> one = splat(T(1));
  if constexpr (act == Nonlinearity::tanh) return dy * (one - y * y);
  if constexpr (act == Nonlinearity::relu) return select<T>(y <= Vec<T>{}, Vec<T>{}, dy);  // NaN lets dy through
  if constexpr (act == Nonlinearity::sigmoid) return dy * (y * (one - y));
}

}  // namespace pyrnn::PYRNN_ISA
