// Normalisation of rows (kernel.hpp, compiled per instruction set).
#pragma once

#include "base/integers.hpp"

namespace pyrnn {

// Rows of E numbers, C-ordered: y = normal * weight + bias, normal = (x - mean) * inverse, inverse = 1 / sqrt(variance
// + eps). What may be null is not wanted.
template <class T> struct LayerNorm {
  i64 M = 0, E = 0;
  T eps = 0;
  const T *x = nullptr, *weight = nullptr, *bias = nullptr;  // [M, E], [E], [E] or null
  T *y = nullptr, *normal = nullptr, *inverse = nullptr;     // [M, E], [M, E] or null, [M] or null
};

template <class T> struct LayerNormGrads {
  i64 M = 0, E = 0;
  const T *dy = nullptr, *normal = nullptr, *inverse = nullptr, *weight = nullptr;
  T *dx = nullptr, *dweight = nullptr, *dbias = nullptr;  // [M, E], [E], [E], written
};

template <class T> struct NormKernels {
  void (*forward)(const LayerNorm<T>&, i64 begin, i64 end);        // rows
  void (*backward)(const LayerNormGrads<T>&, i64 begin, i64 end);  // dx of rows
  void (*weights)(const LayerNormGrads<T>&, i64 begin, i64 end);   // dweight and dbias of features, over all rows
};

}  // namespace pyrnn
