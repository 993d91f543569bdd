// Which compiled kernels this process uses: the best instruction set the CPU has, or a lower one by PYRNN_ISA.
#pragma once

#include <vector>

#include "alignment/contract.hpp"
#include "associative/contract.hpp"
#include "attention/contract.hpp"
#include "base/forms.hpp"
#include "convolution/contract.hpp"
#include "linear/contract.hpp"
#include "losses/contract.hpp"
#include "norm/contract.hpp"
#include "optimisers/contract.hpp"
#include "recurrent/cells.hpp"
#include "recurrent/contract.hpp"

namespace pyrnn {

template <class T> struct Kernels {
  const CellKernels<T>* const* cells;  // [CellKind]
  LinearKernels<T> linear;
  ConvolutionKernels<T> convolution;
  LossKernels<T> losses;
  NormKernels<T> norm;
  AlignmentKernels<T> alignment;
  OptimiserKernels<T> optimisers;
  HopfieldKernels<T> hopfield;
  AttentionKernels<T> attention;
  AdditiveKernels<T> additive_attention;
  // The machine's limits (machine.hpp): multiply-adds done, and a pass over memory.
  i64 (*fma_loop)(i64 rounds, T* sink);
  void (*read_loop)(const T* data, i64 n, T* sink);
};

// The tables are functions, which no CPU calls that lacks the instruction set they are compiled for.
struct InstructionSet {
  const char* name;
  bool (*supported)();
  const Kernels<float>& (*float32)();
  const Kernels<double>& (*float64)();
  const Forms<float>& (*bfloat16)();  // of each the form that it is called by
  const Forms<float>& (*int8)();
  const Forms<float>& (*rounded)();
};

// Chosen at the first call; throws std::invalid_argument for a PYRNN_ISA that is unknown or beyond this CPU.
const InstructionSet& instruction_set();

// The names of all that this build holds, best first.
std::vector<const char*> instruction_sets();

template <class T> const Kernels<T>& kernels();
template <> const Kernels<float>& kernels<float>();
template <> const Kernels<double>& kernels<double>();

// Of matrices in fewer bits, which floats alone are multiplied with.
const Forms<float>& forms();

}  // namespace pyrnn
