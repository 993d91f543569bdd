// Convolutions over time: panels, buffers and threads around the kernels, and a convolution that is fed step by step.
#pragma once

#include <memory>
#include <vector>

#include "convolution/contract.hpp"

namespace pyrnn {

// x [T,N,C] with `before` and `after` zeros around it, y [U,N,O]; rows of x may be shorter.
template <class T> struct Convolution {
  ConvolutionSizes size;
  const T *weight = nullptr, *bias = nullptr;  // [O, C / groups, K], [O] or null
  i64 steps = 0, N = 0, before = 0, after = 0;
  Steps<const T> x;
  const i64* lengths = nullptr;                                      // [N], or null: all steps
  i64 counted() const { return size.count(steps, before + after); }  // U
};

// y, written; 0 behind the rows' ends.
template <class T> void convolution_forward(const ConvolutionKernels<T>&, const Convolution<T>&, Steps<T> y);

// dx, written; dweight and dbias (or null), added to, or left as they were where the call is interrupted.
template <class T>
void convolution_backward(const ConvolutionKernels<T>&, const Convolution<T>&, Steps<const T> dy, Steps<T> dx,
                          T* dweight, T* dbias);

// Weights packed once.
template <class T> struct PackedConvolution {
  PackedConvolution(const ConvolutionKernels<T>&, const ConvolutionSizes&, const T* weight, const T* bias);
  const ConvolutionKernels<T>& kernels;
  const ConvolutionSizes size;
  Buffer<T> panels, start;
};

// N rows that are given x piece by piece. At first `before` steps of zeros count as seen.
template <class T> class ConvolutionStream {
 public:
  using Packed = std::shared_ptr<const PackedConvolution<T>>;
  ConvolutionStream(Packed, i64 batch, i64 before);
  ConvolutionStream taken(const std::vector<i64>& rows) const;

  const ConvolutionSizes& size() const { return packed_->size; }
  i64 batch() const { return N_; }
  i64 first_due() const { return first_due_; }
  i64 due() const { return due_; }  // after so many more steps y has its next

  // How many steps of y so many of x complete, where the next is due after so many.
  i64 counted(i64 steps, i64 due) const { return steps < due ? 0 : (steps - due) / size().stride + 1; }
  // One step: x [N,C], y [N,O], which is written where it completes one.
  void step(const T* x, i64 x_row, T* y);
  void run(i64 steps, Steps<const T> x, Steps<T> y);

  void get_past(T* past) const;           // [reach,N,C]
  void set_past(const T* past, i64 due);  // due is at least 1
  void forget(i64 row);                   // its past
  void begin_anew();                      // all rows, and what is due

 private:
  i64 step_work() const;
  T* row(i64 n) const { return past_.get() + n * capacity_ * size().C; }

  Packed packed_;
  i64 N_, first_due_, due_, capacity_, end_;  // end_: steps in the buffer, of which the last `reach` are the past
  Buffer<T> past_;                            // [N,capacity,C]
  std::vector<i64> ends_, ones_;              // as a product of one window of each row takes them
  std::vector<Stretch> stretches_;
  Buffer<char> memory_;
  std::vector<ConvolutionScratch<T>> scratch_;  // of each thread that a step is worth
};

}  // namespace pyrnn
