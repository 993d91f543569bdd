// A linear map of rows, as its kernel (kernel.hpp, compiled per instruction set) is given it by the driver.
#pragma once

#include "base/forms.hpp"
#include "base/memory.hpp"

namespace pyrnn {

inline constexpr i64 linear_block = 256;  // rows whose share of a weight gradient is summed before it is added

template <class T> struct Linear {
  i64 M = 0, I = 0, O = 0;
  Matrix<const T> weight;               // [O,I]
  const T* bias = nullptr;              // [O] or null
  const T *x = nullptr, *dy = nullptr;  // [M,I], [M,O]
  i64 x_row = 0, dy_row = 0;
  bool after_relu = false;  // x came out of a ReLU, and dx is to be the gradient of what went into that

  // So little that a product packs nothing: it takes neither memory nor threads.
  static constexpr i64 few_rows = 3, few_weights = 1 << 14;
  bool is_small() const {
    return !weight.form && M <= few_rows && O <= few_weights && I <= few_weights && O * I <= few_weights;
  }
};

// Of what comes out of a packed map; the last two over the numbers of a row.
enum class Activation { identity, relu, sigmoid, tanh, softmax, log_softmax };

// What a thread works with on weight gradients: of a block of rows, `columns` columns of x side by side, where the rows
// of dy begin, and where these are whole pages apart, some columns side by side: they would lie in the same few sets of
// a cache. And the sum of a bias gradient. Where products are of a form, panels of x and some columns of dy, turned.
template <class T> struct LinearScratch {
  static constexpr i64 page = 4096, outputs = 96, side_by_side = 384, side_row = side_by_side + 64 / i64(sizeof(T));
  LinearScratch(Carver& from, i64 columns, i64 O, i64 dy_row, const Form<T>* form, i64 groups)
      : x(from.take<T>(linear_block * columns)),
        dy(from.take<const T*>(linear_block)),
        beside(form || dy_row * i64(sizeof(T)) % page ? nullptr : from.take<T>(linear_block * side_row)),
        dbias(from.take<T>(O)),
        panels(from.take<T>(form ? groups * form->panel_size(1, linear_block) : 0)),
        turned(from.take<T>(form ? outputs * form->vector_size(linear_block) : 0)) {}
  T* x;                // [linear_block,columns]
  const T** dy;        // [linear_block]
  T* beside;           // [linear_block,side_row], or null
  T* dbias;            // [O]
  T *panels, *turned;  // [Ip/L][.], [outputs][.]
};

template <class T> struct LinearKernels {
  int lanes, max_rows, columns;                                               // columns: of a LinearScratch
  void (*pack)(const Linear<T>&, T* panels, int part, int parts);             // W to [Op/L][I][L], for `forward`
  void (*pack_transposed)(const Linear<T>&, T* panels, int part, int parts);  // W to [Ip/L][Op][L], for `input_grads`
  // `prepared` [M,.] is memory for what the form of the weight, if it has one, makes of the rows of x, or of dy.
  // Rows of y and dx are `y_row` and `dx_row` apart.
  void (*forward)(const Linear<T>&, const T* panels, T* prepared, T* y, i64 y_row);
  void (*forward_few)(const Linear<T>&, T* y);       // of a small one
  void (*activate)(Activation, T* y, i64 M, i64 O);  // in place
  void (*input_grads)(const Linear<T>&, const T* panels, T* prepared, T* dx, i64 dx_row);
  // Of some groups of columns, and a like share of the biases (or null): they are added to.
  void (*weight_grads)(const Linear<T>&, T* dweight, T* dbias, const LinearScratch<T>&, const Slice& groups);
};

}  // namespace pyrnn
