// How threads share flat arrays.
#include "optimisers/driver.hpp"

#include <algorithm>
#include <cmath>

#include "base/memory.hpp"
#include "base/threads.hpp"

namespace pyrnn {

namespace {

// f(first, count) over n elements: cut where cache lines end, so that threads do not write into each other's.
template <class F> void over_elements(i64 n, F f) {
  constexpr i64 line = 16;
  Team team(2 * n);
  in_slices(team, ceil_div(n, line), [&](const Slice& lines) {
    const i64 begin = line * lines.begin;
    f(begin, std::min(line * lines.end, n) - begin);
  });
}

}  // namespace

template <class T>
void adam(const OptimiserKernels<T>& k, T* params, const T* grads, T* m, T* v, i64 n, const AdamStep& s) {
  over_elements(n, [&](i64 i, i64 count) { k.adam(params + i, grads + i, m + i, v + i, count, s); });
}

template <class T>
void sgd(const OptimiserKernels<T>& k, T* params, const T* grads, T* velocity, i64 n, const SgdStep& s) {
  over_elements(n,
                [&](i64 i, i64 count) { k.sgd(params + i, grads + i, velocity ? velocity + i : nullptr, count, s); });
}

template <class T>
void rmsprop(const OptimiserKernels<T>& k, T* params, const T* grads, T* square, T* velocity, i64 n,
             const RmspropStep& s) {
  over_elements(n, [&](i64 i, i64 count) {
    k.rmsprop(params + i, grads + i, square + i, velocity ? velocity + i : nullptr, count, s);
  });
}

template <class T> double l2_norm(const OptimiserKernels<T>& k, const T* x, i64 n) {
  const i64 blocks = ceil_div(n, norm_block);
  const Buffer<double> sums(blocks);
  Team team(n);
  in_slices(team, blocks, [&](const Slice& mine) {
    for (i64 b = mine.begin; b < mine.end; ++b)
      sums.get()[b] = k.sum_of_squares(x + b * norm_block, std::min(norm_block, n - b * norm_block));
  });
  double total = 0;
  for (i64 b = 0; b < blocks; ++b) total += sums.get()[b];
  return std::sqrt(total);
}

template void adam(const OptimiserKernels<float>&, float*, const float*, float*, float*, i64, const AdamStep&);
template void adam(const OptimiserKernels<double>&, double*, const double*, double*, double*, i64, const AdamStep&);
template void sgd(const OptimiserKernels<float>&, float*, const float*, float*, i64, const SgdStep&);
template void sgd(const OptimiserKernels<double>&, double*, const double*, double*, i64, const SgdStep&);
template void rmsprop(const OptimiserKernels<float>&, float*, const float*, float*, float*, i64, const RmspropStep&);
template void rmsprop(const OptimiserKernels<double>&, double*, const double*, double*, double*, i64,
                      const RmspropStep&);
template double l2_norm(const OptimiserKernels<float>&, const float*, i64);
template double l2_norm(const OptimiserKernels<double>&, const double*, i64);

}  // namespace pyrnn
