// What the optimisers' kernels (kernel.hpp, compiled per instruction set) are given: flat arrays of n numbers.
#pragma once

#include "base/integers.hpp"

namespace pyrnn {

inline constexpr i64 norm_block = 16384;  // elements whose squares are summed before they are added

struct AdamStep {
  double lr, beta1, beta2, eps, weight_decay;
  i64 step;        // from 1
  bool decoupled;  // weight decay of the parameters themselves, not of the gradient
};

struct SgdStep {
  double lr, momentum, weight_decay;
  bool nesterov;
};

struct RmspropStep {
  double lr, keep, add, eps, weight_decay, momentum;
};

template <class T> struct OptimiserKernels {
  void (*adam)(T* params, const T* grads, T* m, T* v, i64 n, const AdamStep&);
  void (*sgd)(T* params, const T* grads, T* velocity, i64 n, const SgdStep&);
  void (*rmsprop)(T* params, const T* grads, T* square, T* velocity, i64 n, const RmspropStep&);
  double (*sum_of_squares)(const T* x, i64 n);  // n <= norm_block
};

}  // namespace pyrnn
