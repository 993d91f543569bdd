// Layer normalisation on threads.
#pragma once

#include "norm/contract.hpp"

namespace pyrnn {

template <class T> void layer_norm(const NormKernels<T>&, const LayerNorm<T>&);
template <class T> void layer_norm_backward(const NormKernels<T>&, const LayerNormGrads<T>&);

}  // namespace pyrnn
