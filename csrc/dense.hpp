// What the kernels around a recurrent layer are given: linear maps, losses and optimiser steps. The functions live in
// linear.hpp, cross_entropy.hpp and optim.hpp, compiled per instruction set.
#pragma once

#include <cstdint>

namespace pyrnn {

using i64 = std::int64_t;

inline constexpr i64 linear_block = 256;  // rows whose share of a weight gradient is summed before it is added
inline constexpr i64 norm_block = 16384;  // elements whose squares are summed before they are added

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
  void (*input_grads)(const Linear<T>&, const T* panels, T* dx, int part, int parts);
  void (*weight_grads)(const Linear<T>&, T* dweight, T* dbias, T* scratch, const T** rows, int part, int parts);
};

struct AdamStep {
  double lr, beta1, beta2, eps, weight_decay;
  std::int64_t step;  // from 1
  bool decoupled;     // weight decay of the parameters themselves, not of the gradient
};

struct SgdStep {
  double lr, momentum, weight_decay;
  bool nesterov;
};

struct RmspropStep {
  double lr, keep, add, eps, weight_decay, momentum;
};

template <class T> struct DenseKernels {
  LinearKernels<T> linear;
  // Rows [begin, end): loss[m] = w_m (logsumexp(logits_m) - logits_m[target_m]), dlogits its gradient times `scale`.
  // weights may be null (ones); rows of weight 0 are not read and get 0.
  void (*cross_entropy)(const T* logits, const i64* targets, const T* weights, i64 V, double scale, double* loss,
                        T* dlogits, i64 begin, i64 end);
  void (*adam)(T* params, const T* grads, T* m, T* v, i64 n, const AdamStep&);
  void (*sgd)(T* params, const T* grads, T* velocity, i64 n, const SgdStep&);
  void (*rmsprop)(T* params, const T* grads, T* square, T* velocity, i64 n, const RmspropStep&);
  double (*sum_of_squares)(const T* x, i64 n);  // n <= norm_block
};

}  // namespace pyrnn
