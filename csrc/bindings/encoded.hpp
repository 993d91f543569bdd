// Matrices in the forms of base/forms.hpp, as ops are given them: an array (R, K) of uint16, the upper halves of
// floats, is one of bfloat16; a pair of int8 (R, K) and a scale for each row, float32 (R,), one of int8.
#pragma once

#include <string>
#include <string_view>

#include "bindings/arrays.hpp"
#include "dispatch.hpp"

namespace pyrnn {

// The arrays behind a matrix, kept alive, and what they say.
template <class T> struct GivenMatrix {
  py::array numbers = no_array();  // (R, K)
  py::array scale = no_array();
  Matrix<const T> matrix;
};

// Whether it is an array of uint16, or a pair.
bool is_encoded(py::handle object);

// A matrix of T, or of float and encoded: TypeError for what is neither, ValueError for a scale of another length and
// for more columns than sums are exact for. That it has two axes is still to be seen.
template <class T> GivenMatrix<T> to_any_matrix(const std::string& call, const std::string& name, py::handle object);

// What `precision` says: 'float32', or 'bfloat16' where the factors of products are rounded to it. And the form of a
// matrix then: TypeError and ValueError for one that is no plain one of float.
bool is_rounded(const std::string& call, std::string_view precision);
template <class T> void round_products(const std::string& call, const std::string& name, Matrix<const T>& matrix);

// float where it is encoded, else the dtype of the array: f<float>() or f<double>().
template <class F> auto with_dtype_of_matrix(const std::string& call, const std::string& name, py::handle object, F f) {
  if (is_encoded(object)) return f.template operator()<float>();
  return with_dtype(call, name, object, f);
}

}  // namespace pyrnn
