// Layer normalisation (Ba et al. 2016) and its gradients. A row's sums are over its own numbers, in one order.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/simd.hpp"
#include "norm/contract.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct LayerNormLoop {
  static constexpr int L = lanes<T>;

  // The sum over a row of value(load), where load(a) are numbers of the arrays at the same places: vectors, then what
  // is left one by one.
  template <class Value> static T total(i64 E, Value value) {
    Vec<T> sums{};
    i64 i = 0;
    for (; i + L <= E; i += L) sums += value([&](const T* a) { return load(a + i); });
    T all = sum<T>(sums);
    for (; i < E; ++i) all += value([&](const T* a) { return a[i]; });
    return all;
  }

  // out = value(load) of a whole row.
  template <class Value> static void write(i64 E, T* out, Value value) {
    i64 i = 0;
    for (; i + L <= E; i += L) store(out + i, Vec<T>(value([&](const T* a) { return load(a + i); })));
    for (; i < E; ++i) out[i] = value([&](const T* a) { return a[i]; });
  }

  static void forward(const LayerNorm<T>& n, i64 begin, i64 end) {
    for (i64 m = begin; m < end; ++m) {
      const T* x = n.x + m * n.E;
      T* y = n.y + m * n.E;
      const T mean = total(n.E, [&](auto at) { return at(x); }) / T(n.E);
      const T squares = total(n.E, [&](auto at) { return (at(x) - mean) * (at(x) - mean); });
      const T inverse = T(1) / std::sqrt(squares / T(n.E) + n.eps);
      if (n.inverse) n.inverse[m] = inverse;
      if (n.normal) write(n.E, n.normal + m * n.E, [&](auto at) { return (at(x) - mean) * inverse; });
      if (n.bias)
        write(n.E, y, [&](auto at) { return (at(x) - mean) * inverse * at(n.weight) + at(n.bias); });
      else
        write(n.E, y, [&](auto at) { return (at(x) - mean) * inverse * at(n.weight); });
    }
  }

  static void backward(const LayerNormGrads<T>& n, i64 begin, i64 end) {
    for (i64 m = begin; m < end; ++m) {
      const T *dy = n.dy + m * n.E, *normal = n.normal + m * n.E, inverse = n.inverse[m];
      const T centre = total(n.E, [&](auto at) { return at(dy) * at(n.weight); }) / T(n.E);
      const T along = total(n.E, [&](auto at) { return at(dy) * at(n.weight) * at(normal); }) / T(n.E);
      write(n.E, n.dx + m * n.E,
            [&](auto at) { return (at(dy) * at(n.weight) - centre - at(normal) * along) * inverse; });
    }
  }

  // Sums over the rows are of doubles.
  static void weights(const LayerNormGrads<T>& n, i64 begin, i64 end) {
    constexpr i64 columns = 64;
    for (i64 j = begin; j < end; j += columns) {
      const i64 count = std::min(columns, end - j);
      double weight[columns] = {}, bias[columns] = {};
      for (i64 m = 0; m < n.M; ++m) {
        const T *dy = n.dy + m * n.E + j, *normal = n.normal + m * n.E + j;
        for (i64 i = 0; i < count; ++i) {
          weight[i] += double(dy[i] * normal[i]);
          bias[i] += double(dy[i]);
        }
      }
      for (i64 i = 0; i < count; ++i) n.dweight[j + i] = T(weight[i]), n.dbias[j + i] = T(bias[i]);
    }
  }

  static constexpr NormKernels<T> kernels{forward, backward, weights};
};

}  // namespace pyrnn::PYRNN_ISA
