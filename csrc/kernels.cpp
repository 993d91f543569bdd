// The list of cells and kernels, compiled once per instruction set (PYRNN_ISA) and dtype (PYRNN_REAL).
#include "attention_loop.hpp"
#include "cells/gru.hpp"
#include "cells/lstm.hpp"
#include "cells/rnn.hpp"
#include "cross_entropy.hpp"
#include "dispatch.hpp"
#include "hopfield.hpp"
#include "linear.hpp"
#include "machine.hpp"
#include "optim.hpp"
#include "time_loop.hpp"

namespace pyrnn::PYRNN_ISA {

template <class Cell, class Second = NoSecond> constexpr CellKernels<PYRNN_REAL> cell() {
  return TimeLoop<PYRNN_REAL, Cell, Second>::kernels;
}

// In the order of CellKind.
extern const Kernels<PYRNN_REAL> PYRNN_TABLE;
const Kernels<PYRNN_REAL> PYRNN_TABLE{{
                                          cell<Rnn<Nonlinearity::tanh>>(),
                                          cell<Rnn<Nonlinearity::relu>>(),
                                          cell<Rnn<Nonlinearity::sigmoid>>(),
                                          cell<Lstm<false>>(),
                                          cell<Lstm<true>>(),
                                          cell<Lstm<false>, Projection>(),
                                          cell<Lstm<true>, Projection>(),
                                          cell<GruResetAfter>(),
                                          cell<GruResetBefore, Candidate>(),
                                      },
                                      {LinearLoop<PYRNN_REAL>::kernels, cross_entropy<PYRNN_REAL>, adam<PYRNN_REAL>,
                                       sgd<PYRNN_REAL>, rmsprop<PYRNN_REAL>, sum_of_squares<PYRNN_REAL>},
                                      HopfieldLoop<PYRNN_REAL>::kernels,
                                      AttentionLoop<PYRNN_REAL>::kernels,
                                      fma_loop<PYRNN_REAL>,
                                      read_loop<PYRNN_REAL>};

}  // namespace pyrnn::PYRNN_ISA
