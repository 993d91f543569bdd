// A linear map of rows, as its kernel (kernel.hpp, compiled per instruction set) is given it.
#pragma once

#include "base/integers.hpp"

namespace pyrnn {

inline constexpr i64 linear_block = 256;  // rows whose share of a weight gradient is summed before it is added
inline constexpr i64 few_rows = 3;        // at most, of a product that packs nothing

template <class T> struct Linear {
  i64 M = 0, I = 0, O = 0;
  const T *weight = nullptr, *bias = nullptr;  // [O,I], [O] or null
  const T *x = nullptr, *dy = nullptr;         // [M,I], [M,O]
  i64 x_row = 0, dy_row = 0;
};

template <class T> struct LinearKernels {
  int lanes;
  void (*pack)(const Linear<T>&, T* panels, int part, int parts);
  void (*pack_transposed)(const Linear<T>&, T* panels, int part, int parts);
  void (*forward)(const Linear<T>&, const T* panels, T* y, int part, int parts);
  void (*forward_few)(const Linear<T>&, T* y);  // M <= few_rows
  void (*input_grads)(const Linear<T>&, const T* panels, T* dx, int part, int parts);
  void (*weight_grads)(const Linear<T>&, T* dweight, T* dbias, T* scratch, const T** rows, int part, int parts);
};

}  // namespace pyrnn
