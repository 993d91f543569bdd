// Optimiser steps and the squared norm on flat arrays, one pass each.
#pragma once

#include <cmath>

#include "base/simd.hpp"
#include "optimisers/contract.hpp"

namespace pyrnn::PYRNN_ISA {

// Calls f(i, n) for vectors of n elements (the last may be short) up to `count`.
template <class T, class F> void each_vector(i64 count, F f) {
  for (i64 i = 0; i < count; i += lanes<T>) f(i, count - i);
}

// Kingma and Ba 2015, with the bias corrections folded into the step size, as torch.optim.Adam computes it; decoupled:
// torch.optim.AdamW.
template <class T> void adam(T* params, const T* grads, T* m, T* v, i64 count, const AdamStep& s) {
  const double correction1 = 1 - std::pow(s.beta1, double(s.step)), correction2 = 1 - std::pow(s.beta2, double(s.step));
  const Vec<T> beta1 = splat(T(s.beta1)), beta2 = splat(T(s.beta2)), eps = splat(T(s.eps));
  const Vec<T> rest1 = splat(T(1 - s.beta1)), rest2 = splat(T(1 - s.beta2));
  const Vec<T> decay = splat(T(s.decoupled ? 0 : s.weight_decay));
  const Vec<T> keep = splat(T(s.decoupled ? 1 - s.lr * s.weight_decay : 1));
  const Vec<T> size = splat(T(s.lr / correction1)), unroot = splat(T(1 / std::sqrt(correction2)));
  each_vector<T>(count, [&](i64 i, i64 n) {
    const Vec<T> p = load(params + i, n), g = fma(decay, p, load(grads + i, n));
    const Vec<T> mean = fma(beta1, load(m + i, n), rest1 * g), square = fma(beta2, load(v + i, n), rest2 * (g * g));
    store(m + i, mean, n);
    store(v + i, square, n);
    store(params + i, keep * p - size * mean / fma(sqrt(square), unroot, eps), n);
  });
}

// As torch.optim.SGD, without dampening. velocity is null without momentum.
template <class T> void sgd(T* params, const T* grads, T* velocity, i64 count, const SgdStep& s) {
  const Vec<T> lr = splat(T(s.lr)), momentum = splat(T(s.momentum)), decay = splat(T(s.weight_decay));
  each_vector<T>(count, [&](i64 i, i64 n) {
    const Vec<T> p = load(params + i, n);
    Vec<T> g = fma(decay, p, load(grads + i, n));
    if (velocity) {
      const Vec<T> moved = fma(momentum, load(velocity + i, n), g);
      store(velocity + i, moved, n);
      g = s.nesterov ? fma(momentum, moved, g) : moved;
    }
    store(params + i, p - lr * g, n);
  });
}

// square = keep square + add g^2: torch.optim.RMSprop, and with keep = add = 1 torch.optim.Adagrad. velocity is null
// without momentum.
template <class T> void rmsprop(T* params, const T* grads, T* square, T* velocity, i64 count, const RmspropStep& s) {
  const Vec<T> lr = splat(T(s.lr)), keep = splat(T(s.keep)), add = splat(T(s.add)), eps = splat(T(s.eps));
  const Vec<T> decay = splat(T(s.weight_decay)), momentum = splat(T(s.momentum));
  each_vector<T>(count, [&](i64 i, i64 n) {
    const Vec<T> p = load(params + i, n), g = fma(decay, p, load(grads + i, n));
    const Vec<T> sum = fma(keep, load(square + i, n), add * (g * g));
    store(square + i, sum, n);
    Vec<T> move = g / (sqrt(sum) + eps);
    if (velocity) {
      move = fma(momentum, load(velocity + i, n), move);
      store(velocity + i, move, n);
    }
    store(params + i, p - lr * move, n);
  });
}

template <class T> double sum_of_squares(const T* x, i64 n) {
  double total[16] = {};
  i64 i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; ++j) total[j] += double(x[i + j]) * double(x[i + j]);
  for (; i < n; ++i) total[0] += double(x[i]) * double(x[i]);
  double all = 0;
  for (double t : total) all += t;
  return all;
}

}  // namespace pyrnn::PYRNN_ISA
