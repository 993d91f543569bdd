// Optimiser steps and norms of flat arrays of n numbers, on threads.
#pragma once

#include "optimisers/contract.hpp"

namespace pyrnn {

// One step changes the parameters and the optimiser's state in place. velocity is null without momentum.
template <class T> void adam(const OptimiserKernels<T>&, T* params, const T* grads, T* m, T* v, i64 n, const AdamStep&);
template <class T> void sgd(const OptimiserKernels<T>&, T* params, const T* grads, T* velocity, i64 n, const SgdStep&);
template <class T>
void rmsprop(const OptimiserKernels<T>&, T* params, const T* grads, T* square, T* velocity, i64 n, const RmspropStep&);

// The Euclidean norm, summed in double, the same for any number of threads.
template <class T> double l2_norm(const OptimiserKernels<T>&, const T* x, i64 n);

}  // namespace pyrnn
