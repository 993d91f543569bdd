// The table of what aligns and tags sequences.
#pragma once

#include "alignment/crf.hpp"
#include "alignment/ctc.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T>
inline constexpr AlignmentKernels<T> alignment_kernels{
    double_lanes,      CtcLoop<T>::bytes, CtcLoop<T>::row,    CrfLoop<T>::weights_and_powers, CrfLoop<T>::weights,
    CrfLoop<T>::bytes, CrfLoop<T>::row,   CrfLoop<T>::add_up, CrfLoop<T>::decode_bytes,       CrfLoop<T>::decode};

}  // namespace pyrnn::PYRNN_ISA
