// Softmax cross-entropy of rows of logits, and its gradient, in one pass over each row.
#pragma once

#include <cmath>

#include "base/simd.hpp"
#include "losses/contract.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T>
void cross_entropy(const T* logits, const i64* targets, const T* weights, i64 V, double scale, double* loss, T* dlogits,
                   i64 begin, i64 end) {
  constexpr int L = lanes<T>;
  const i64 whole = V / L * L;
  for (i64 m = begin; m < end; ++m) {
    const T* row = logits + m * V;
    T* out = dlogits + m * V;
    const T weight = weights ? weights[m] : T(1);
    if (weight == 0) {
      loss[m] = 0;
      for (i64 i = 0; i < V; ++i) out[i] = 0;
      continue;
    }
    // The largest logit; a NaN compares false and stays out of it, but enters the sum below.
    T largest = row[0];
    Vec<T> most = splat(largest);
    for (i64 i = 0; i < whole; i += L) most = max(load(row + i), most);
    largest = PYRNN_ISA::reduce_max<T>(most);
    for (i64 i = whole; i < V; ++i) largest = row[i] > largest ? row[i] : largest;
    const Vec<T> shift = splat(largest);
    Vec<T> sums{};
    for (i64 i = 0; i < whole; i += L) {
      const Vec<T> e = exp<T>(load(row + i) - shift);
      store(out + i, e);
      sums += e;
    }
    T total = sum<T>(sums);
    if (whole < V) {
      const Vec<T> e = exp<T>(load(row + whole, V - whole) - shift);
      store(out + whole, e, V - whole);
      for (i64 i = 0; i < V - whole; ++i) total += e[i];
    }
    loss[m] = double(weight) * (std::log(double(total)) - (double(row[targets[m]]) - double(largest)));
    const T factor = T(double(weight) * scale);
    const T inverse = T(1) / total;
    for (i64 i = 0; i < V; ++i) out[i] = out[i] * inverse * factor;
    out[targets[m]] -= factor;
  }
}

}  // namespace pyrnn::PYRNN_ISA
