// The losses that have kernels (kernel.hpp, compiled per instruction set).
#pragma once

#include "base/integers.hpp"

namespace pyrnn {

template <class T> struct LossKernels {
  // Rows [begin, end): loss[m] = w_m (logsumexp(logits_m) - logits_m[target_m]), dlogits its gradient times `scale`.
  // weights may be null (ones); rows of weight 0 are not read and get 0.
  void (*cross_entropy)(const T* logits, const i64* targets, const T* weights, i64 V, double scale, double* loss,
                        T* dlogits, i64 begin, i64 end);
};

}  // namespace pyrnn
