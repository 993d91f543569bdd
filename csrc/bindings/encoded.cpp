// What arrays say of a matrix in fewer bits: see encoded.hpp.
#include "bindings/encoded.hpp"

namespace pyrnn {

bool is_encoded(py::handle object) {
  return (py::isinstance<py::tuple>(object) && py::len(object) == 2) ||
         (py::isinstance<py::array>(object) && is_of<std::uint16_t>(py::reinterpret_borrow<py::array>(object)));
}

template <class T> GivenMatrix<T> to_any_matrix(const std::string& call, const std::string& name, py::handle object) {
  GivenMatrix<T> given;
  if (!is_encoded(object)) {
    const py::array_t<T> numbers = to_packed<T>(call, name, object);
    given.numbers = numbers, given.matrix.data = numbers.data();
    return given;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (!py::isinstance<py::tuple>(object)) {
      given.numbers = to_packed<std::uint16_t>(call, name, object);
      given.matrix.form = &forms().bfloat16;
    } else {
      const auto pair = py::reinterpret_borrow<py::tuple>(object);
      const py::array_t<std::int8_t> numbers = to_packed<std::int8_t>(call, at(name, 0), py::object(pair[0]));
      const py::array_t<float> scale = to_packed<float>(call, at(name, 1), py::object(pair[1]));
      check_shape(call, at(name, 1), scale, {numbers.ndim() > 0 ? numbers.shape(0) : 0});
      if (numbers.ndim() == 2 && numbers.shape(1) > most_int8_columns)
        wrong_shape(call, at(name, 0), numbers, "at most " + std::to_string(most_int8_columns) + " columns");
      given.numbers = numbers, given.scale = scale;
      given.matrix.form = &forms().int8, given.matrix.scale = scale.data();
    }
    given.matrix.data = static_cast<const float*>(given.numbers.data());
    return given;
  } else {
    wrong_type(call, name, object, std::string("an array of dtype ") + dtype_name<T>());
  }
}

bool is_rounded(const std::string& call, std::string_view precision) {
  if (precision != "float32" && precision != "bfloat16")
    wrong_value(call, "precision is " + shown(py::str(std::string(precision))) + ", expected 'float32' or 'bfloat16'");
  return precision == "bfloat16";
}

template <class T> void round_products(const std::string& call, const std::string& name, Matrix<const T>& matrix) {
  if (matrix.form) wrong_value(call, "precision is 'bfloat16', expected 'float32': " + name + " has fewer bits itself");
  if constexpr (std::is_same_v<T, float>)
    matrix.form = &forms().rounded;
  else
    wrong_value(call, "precision is 'bfloat16', expected 'float32': " + name + " is of float64");
}

template void round_products(const std::string&, const std::string&, Matrix<const float>&);
template void round_products(const std::string&, const std::string&, Matrix<const double>&);
template GivenMatrix<float> to_any_matrix(const std::string&, const std::string&, py::handle);
template GivenMatrix<double> to_any_matrix(const std::string&, const std::string&, py::handle);

}  // namespace pyrnn
