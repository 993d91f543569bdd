// Linear maps of rows and rows of a table: buffers and threads around the kernels.
#pragma once

#include "linear/contract.hpp"

namespace pyrnn {

// y [M,O], written. A small one is done at once, by the calling thread alone.
template <class T> void linear_forward(const LinearKernels<T>&, const Linear<T>&, T* y);

// dx [M,I], written; dweight [O,I] and dbias [O] (or null), added to, or left as they were where the call is
// interrupted.
template <class T> void linear_backward(const LinearKernels<T>&, const Linear<T>&, T* dx, T* dweight, T* dbias);

// Weights packed once, for models that run many times.
template <class T> class PackedLinear {
 public:
  PackedLinear(const LinearKernels<T>&, i64 I, i64 O, const Matrix<const T>& weight, const T* bias, Activation);
  // y [N,U,O], written, of N times U rows: row u of n begins at x + n * x_batch + u * x_row. They may overlap.
  void forward(const T* x, i64 N, i64 x_batch, i64 U, i64 x_row, T* y) const;

  const i64 I, O;

 private:
  const LinearKernels<T>& kernels_;
  const Form<T>* const form_;
  const Activation activation_;
  Buffer<T> panels_, bias_;
};

// Row ids[m] of a table [V,E] to row m of y [M,E].
template <class T> void embedding_forward(const T* table, const i64* ids, i64 M, i64 E, T* y);

// The same of a table of bfloat16, and of one of int8 with a scale for each row (base/forms.hpp).
void embedding_forward(const std::uint16_t* table, const i64* ids, i64 M, i64 E, float* y);
void embedding_forward(const std::int8_t* table, const float* scale, const i64* ids, i64 M, i64 E, float* y);

// The way back: row m of dy, whose rows lie dy_row apart, is added to row ids[m] of dtable [V,E].
template <class T> void embedding_backward(const T* dy, i64 dy_row, const i64* ids, i64 M, i64 E, T* dtable);

}  // namespace pyrnn
