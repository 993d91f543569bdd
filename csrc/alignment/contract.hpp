// What the kernels of sequences that are aligned or tagged (kernel.hpp, compiled per instruction set) are given by the
// driver. Sums over paths are of doubles, whatever the dtype.
#pragma once

#include "base/memory.hpp"
#include "base/steps.hpp"

namespace pyrnn {

// N rows of logits and their targets. Row n has lengths[n] steps and target_lengths[n] ids; nothing beyond is read.
template <class T> struct Ctc {
  Steps<const T> logits;
  i64 steps = 0, N = 0, V = 0, S = 0, blank = 0;
  const i64* targets = nullptr;  // [N, S]
  const i64 *lengths = nullptr, *target_lengths = nullptr;
};

// N rows of scores, and the tags they should have or null.
template <class T> struct Crf {
  Steps<const T> scores;
  i64 steps = 0, N = 0, V = 0;
  const T *transitions = nullptr, *start = nullptr, *end = nullptr;  // [V, V] from, to; [V]
  const i64 *tags = nullptr, *lengths = nullptr;                     // [steps, N], [N]
};

// The weights of a Crf, each less the largest of its kind, with rows padded to `width`. Both products are powers whose
// largest in a column is within 1/2 to 1.
struct CrfWeights {
  PYRNN_INLINE CrfWeights(Carver& carver, i64 V, i64 width) : V(V), width(width) {
    for (double** a : {&transitions, &forward, &backward}) *a = carver.take<double>(V * width);
    for (double** a : {&column, &row, &start, &end}) *a = carver.take<double>(width);
  }
  i64 V, width;
  double* transitions;       // [from, to]
  double *forward, *column;  // [from, to] e^transitions = forward 2^column[to]
  double *backward, *row;    // [to, from]                = backward 2^row[from]
  double *start, *end;
  double most = 0, most_ends = 0;  // the largest transition; the largest of start and of end, added up; in units
};

// The gradients of the weights, of some rows added up: of a transition forward * products + others.
struct CrfGradients {
  PYRNN_INLINE CrfGradients(Carver& carver, i64 V, i64 width) {
    for (double** a : {&products, &others}) *a = carver.take<double>(V * width);
    for (double** a : {&start, &end}) *a = carver.take<double>(width);
  }
  double *products, *others, *start, *end;
};

// `work` is the thread's own, of as many bytes as is said for the longest row.
template <class T> struct AlignmentKernels {
  int lanes;  // of double
  i64 (*ctc_bytes)(i64 steps, i64 V, i64 S);
  // loss = -log p(target), infinity where there is no alignment; dlogits its gradient / N, 0 beyond the row's steps.
  void (*ctc)(const Ctc<T>&, i64 n, char* work, double* loss, const Steps<T>& dlogits);

  void (*crf_weights)(const Crf<T>&, CrfWeights&);
  void (*crf_logarithms)(const Crf<T>&, CrfWeights&);  // the same without powers, for crf_decode
  i64 (*crf_bytes)(i64 steps, i64 V);
  // Without tags the marginals of a row and its log partition function. With tags loss = log partition - score of the
  // tags, and its gradient / N; that of the weights is added to `gradients`. 0 beyond the row's steps.
  void (*crf)(const Crf<T>&, const CrfWeights&, i64 n, char* work, double* loss, const Steps<T>& dscores,
              CrfGradients* gradients);
  // gradients [parts] of all rows, added up in order and divided by N.
  void (*crf_gradients)(const CrfWeights&, const CrfGradients* gradients, i64 parts, i64 N, T* dtransitions, T* dstart,
                        T* dend);
  i64 (*crf_decode_bytes)(i64 steps, i64 V);
  // The tags of the largest score, the first of equal ones from the end on, and that score; NaN and tags of 0 where
  // one of the numbers is NaN or infinity.
  void (*crf_decode)(const Crf<T>&, const CrfWeights&, i64 n, char* work, const Steps<i64>& tags, double* best);
};

}  // namespace pyrnn
