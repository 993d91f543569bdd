// Which compiled kernels this process uses: the best instruction set the CPU has, or a lower one by PYRNN_ISA.
#pragma once

#include "associative.hpp"
#include "attention.hpp"
#include "dense.hpp"
#include "recurrence.hpp"

namespace pyrnn {

enum class CellKind {
  rnn_tanh,
  rnn_relu,
  rnn_sigmoid,
  lstm,
  lstm_peephole,
  lstm_projected,
  lstm_peephole_projected,
  gru_reset_after,
  gru_reset_before,
  count
};

template <class T> struct Kernels {
  CellKernels<T> cells[int(CellKind::count)];
  DenseKernels<T> dense;
  HopfieldKernels<T> hopfield;
  AttentionKernels<T> attention;
  // The machine's limits (machine.hpp): multiply-adds done, and a pass over memory.
  i64 (*fma_loop)(i64 rounds, T* sink);
  void (*read_loop)(const T* data, i64 n, T* sink);
};

struct InstructionSet {
  const char* name;
  bool (*supported)();
  const Kernels<float>* single;
  const Kernels<double>* real;
};

// Chosen at the first call; throws std::invalid_argument for a PYRNN_ISA that is unknown or beyond this CPU.
const InstructionSet& instruction_set();

template <class T> const Kernels<T>& kernels();
template <> inline const Kernels<float>& kernels<float>() { return *instruction_set().single; }
template <> inline const Kernels<double>& kernels<double>() { return *instruction_set().real; }

}  // namespace pyrnn
