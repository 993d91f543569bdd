// Matrices in fewer bits than the numbers they are multiplied with: in which forms they come, and how those are packed
// and multiplied. A form belongs to a matrix, not to a layer: whoever multiplies asks the packed matrix.
//
//   bfloat16   rows of bfloat16, each the upper half of a float: the sums are chains of multiply-adds of floats, with
//              the bits of the same matrix of floats
//   int8       rows of whole numbers, and a scale for each row. A vector is brought to the same form
//              first, with a scale of its own, max |v| / 127. Sums of products of whole numbers are exact
//   rounded    rows of floats, which are rounded to bfloat16, and so is a vector: rounded.hpp. It has a way back
#pragma once

#include <span>
#include <type_traits>

#include "base/integers.hpp"

namespace pyrnn {

template <class T> struct Form;

// A matrix as a caller holds it, row-major. Numbers of T; or, where there is a form, what that says lies at `data`, and
// `scale` has a number for each row, or is null.
template <class T> struct Matrix {
  T* data = nullptr;
  const Form<std::remove_const_t<T>>* form = nullptr;
  const std::remove_const_t<T>* scale = nullptr;

  Matrix() = default;
  PYRNN_INLINE Matrix(T* numbers) : data(numbers) {}
  PYRNN_INLINE operator T*() const { return data; }
};

// Its panels (panels.hpp), or those of its form.
template <class T> struct PackedMatrix {
  T* panels = nullptr;
  const Form<T>* form = nullptr;

  PackedMatrix() = default;
  PYRNN_INLINE PackedMatrix(T* panels, const Form<T>* form = nullptr) : panels(panels), form(form) {}
  PYRNN_INLINE operator T*() const { return panels; }
};

// One form, compiled for one instruction set. Sizes are in numbers of T, whatever lies there.
template <class T> struct Form {
  i64 bits;  // of an element
  // Of the panel of one unit group.
  i64 (*panel_size)(i64 vectors, i64 columns);
  // As `pack` in panels.hpp.
  void (*pack)(const Matrix<const T>& weight, std::span<const int> gate, i64 units, i64 columns, i64 g0, i64 g1,
               T* panels);
  // What `accumulate` reads of a vector: 0 and null where that is the vector itself.
  i64 (*vector_size)(i64 columns);
  void (*prepare)(const T* vector, i64 columns, T* to);
  // As `accumulate` in panels.hpp, for one segment. Result r begins at start[r].
  void (*accumulate)(int vectors, int rows, const T* const* a, i64 columns, const T* panels, const T* const* start,
                     T* const* c, i64 c_group, i64 groups);
  // The way back, null where there is none. A vector of `count` runs of `length` numbers, a multiple of a register's,
  // prepared.
  void (*gather)(const T* from, i64 count, i64 length, i64 stride, T* to) = nullptr;
  // As `transpose_panels` in panels.hpp, from panels of `pack`.
  void (*transpose)(int vectors, const T* panels, i64 units, i64 columns, i64 g0, i64 g1, T* to) = nullptr;
  // The panel of one unit group whose k are n rows, `step` apart, of `vectors` registers, `width` numbers at most.
  void (*pack_rows)(const T* from, i64 step, i64 n, i64 width, i64 vectors, T* panel) = nullptr;
  // Each column of n rows as a prepared vector of n numbers.
  void (*turn)(const T* const* rows, i64 n, i64 columns, T* to) = nullptr;
};

// The most columns whose sums of products of whole numbers are sure to fit 32 bits.
inline constexpr i64 most_int8_columns = 0x7fffffff / (128 * 127);

template <class T> struct Forms {
  Form<T> bfloat16, int8, rounded;
};

// The numbers of T that a packed matrix takes, of so many unit groups; those that a vector takes which it meets.
template <class T> i64 packed_size(const Form<T>* form, i64 vectors, i64 columns, i64 groups, i64 lanes) {
  return groups * (form && vectors ? form->panel_size(vectors, columns) : columns * vectors * lanes);
}
template <class T> i64 prepared_size(const Form<T>* form, i64 columns) {
  return form && form->prepare ? form->vector_size(columns) : 0;
}

}  // namespace pyrnn
