// Aligning and tagging sequences: work memory and threads around the kernels. Arrays are those of contract.hpp.
#pragma once

#include "alignment/contract.hpp"

namespace pyrnn {

// losses [N], infinity for a row without any alignment; dlogits [steps, N, V], the gradient of their mean.
template <class T> void ctc(const AlignmentKernels<T>&, const Ctc<T>&, double* losses, const Steps<T>& dlogits);

// losses [N], and the gradients of their mean: dscores [steps, N, V], of the weights as they are.
template <class T>
void crf(const AlignmentKernels<T>&, const Crf<T>&, double* losses, const Steps<T>& dscores, T* dtransitions, T* dstart,
         T* dend);

// marginals [steps, N, V] and log partition functions [N]; no tags are looked at.
template <class T>
void crf_marginals(const AlignmentKernels<T>&, const Crf<T>&, double* log_partitions, const Steps<T>& marginals);

// tags [steps, N] and their scores [N].
template <class T> void crf_decode(const AlignmentKernels<T>&, const Crf<T>&, double* best, const Steps<i64>& tags);

}  // namespace pyrnn
