// Losses of rows, on threads.
#pragma once

#include "losses/contract.hpp"

namespace pyrnn {

// The mean over M rows of V logits, weighted by `weights` [M] (null: ones), and its gradient dlogits [M,V], written. 0
// where the weights add up to 0; a row of weight 0 is not read.
template <class T>
double cross_entropy(const LossKernels<T>&, const T* logits, const i64* targets, const T* weights, i64 M, i64 V,
                     T* dlogits);

}  // namespace pyrnn
