// The kernels of all cells, compiled once per instruction set (PYRNN_ISA) and dtype (PYRNN_DTYPE).
#include "recurrent/cells.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> const CellKernels<T>* const* cell_table();
template <> const CellKernels<PYRNN_DTYPE>* const* cell_table() { return cells<PYRNN_DTYPE>.data(); }

}  // namespace pyrnn::PYRNN_ISA
