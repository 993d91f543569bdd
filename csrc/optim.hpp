// Optimiser steps and the squared norm on flat arrays, one pass each.
#pragma once

#include <cmath>

#include "dense.hpp"
#include "simd.hpp"

namespace pyrnn::PYRNN_ISA {

// Kingma and Ba 2015, with the bias corrections folded into the step size, as torch.optim.Adam computes it.
template <class T> void adam(T* params, const T* grads, T* m, T* v, i64 n, const AdamStep& s) {
  const double correction1 = 1 - std::pow(s.beta1, double(s.step)), correction2 = 1 - std::pow(s.beta2, double(s.step));
  const T beta1 = T(s.beta1), beta2 = T(s.beta2), rest1 = T(1 - s.beta1), rest2 = T(1 - s.beta2), eps = T(s.eps);
  const T size = T(s.lr / correction1), root = T(std::sqrt(correction2)), decay = T(s.weight_decay);
  for (i64 i = 0; i < n; ++i) {
    const T g = grads[i] + decay * params[i];
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * (g * g);
    params[i] -= size * m[i] / (std::sqrt(v[i]) / root + eps);
  }
}

// As torch.optim.SGD, without dampening. velocity is null without momentum.
template <class T> void sgd(T* params, const T* grads, T* velocity, i64 n, const SgdStep& s) {
  const T lr = T(s.lr), momentum = T(s.momentum), decay = T(s.weight_decay);
  for (i64 i = 0; i < n; ++i) {
    T g = grads[i] + decay * params[i];
    if (velocity) {
      velocity[i] = momentum * velocity[i] + g;
      g = s.nesterov ? g + momentum * velocity[i] : velocity[i];
    }
    params[i] -= lr * g;
  }
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
