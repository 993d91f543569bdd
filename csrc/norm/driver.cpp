// Threads share the rows, and of the weights' gradients the features.
#include "norm/driver.hpp"

#include <algorithm>

#include "base/threads.hpp"

namespace pyrnn {

template <class T> void layer_norm(const NormKernels<T>& k, const LayerNorm<T>& n) {
  Team team(8 * n.M * n.E);
  in_slices(team, n.M, [&](const Slice& rows) { k.forward(n, rows.begin, rows.end); });
}

template <class T> void layer_norm_backward(const NormKernels<T>& k, const LayerNormGrads<T>& n) {
  Team team(12 * n.M * n.E);
  in_slices(team, n.M, [&](const Slice& rows) { k.backward(n, rows.begin, rows.end); });
  constexpr i64 line = 16;  // threads read whole cache lines of features
  in_slices(team, ceil_div(n.E, line),
            [&](const Slice& lines) { k.weights(n, line * lines.begin, std::min(line * lines.end, n.E)); });
}

#define PYRNN_INSTANTIATE(T)                                            \
  template void layer_norm(const NormKernels<T>&, const LayerNorm<T>&); \
  template void layer_norm_backward(const NormKernels<T>&, const LayerNormGrads<T>&);
PYRNN_INSTANTIATE(float)
PYRNN_INSTANTIATE(double)
#undef PYRNN_INSTANTIATE

}  // namespace pyrnn
