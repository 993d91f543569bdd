// The table of kernels, compiled once per instruction set (PYRNN_ISA) and dtype (PYRNN_DTYPE). Those of the cells are
// compiled by themselves, recurrent/kernel.cpp.
#include "alignment/kernel.hpp"
#include "associative/kernel.hpp"
#include "attention/additive.hpp"
#include "attention/kernel.hpp"
#include "base/machine.hpp"
#include "convolution/kernel.hpp"
#include "dispatch.hpp"
#include "linear/kernel.hpp"
#include "losses/kernel.hpp"
#include "norm/kernel.hpp"
#include "optimisers/kernel.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> const CellKernels<T>* const* cell_table();
template <> const CellKernels<PYRNN_DTYPE>* const* cell_table();

template <class T> const Kernels<T>& kernel_table();
template <> const Kernels<PYRNN_DTYPE>& kernel_table() {
  using T = PYRNN_DTYPE;
  static const Kernels<T> table{cell_table<T>(),
                                LinearLoop<T>::kernels,
                                ConvolutionLoop<T>::kernels,
                                {cross_entropy<T>},
                                LayerNormLoop<T>::kernels,
                                alignment_kernels<T>,
                                {adam<T>, sgd<T>, rmsprop<T>, sum_of_squares<T>},
                                HopfieldLoop<T>::kernels,
                                attention_kernels<T>,
                                AdditiveLoop<T>::kernels,
                                fma_loop<T>,
                                read_loop<T>};
  return table;
}

}  // namespace pyrnn::PYRNN_ISA
