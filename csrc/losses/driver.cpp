// Weights and sums of losses, and how threads share the rows.
#include "losses/driver.hpp"

#include "base/memory.hpp"
#include "base/threads.hpp"

namespace pyrnn {

template <class T>
double cross_entropy(const LossKernels<T>& k, const T* logits, const i64* targets, const T* weights, i64 M, i64 V,
                     T* dlogits) {
  double total = weights ? 0 : double(M);
  if (weights)
    for (i64 m = 0; m < M; ++m) total += double(weights[m]);
  const double scale = total != 0 ? 1 / total : 0;
  const Buffer<double> losses(M);
  Team team(8 * M * V);
  in_slices(team, M, [&](const Slice& rows) {
    k.cross_entropy(logits, targets, weights, V, scale, losses.get(), dlogits, rows.begin, rows.end);
  });
  double loss = 0;
  for (i64 m = 0; m < M; ++m) loss += losses.get()[m];
  return loss * scale;
}

template double cross_entropy(const LossKernels<float>&, const float*, const i64*, const float*, i64, i64, float*);
template double cross_entropy(const LossKernels<double>&, const double*, const i64*, const double*, i64, i64, double*);

}  // namespace pyrnn
