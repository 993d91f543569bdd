// The words of the errors: see arrays.hpp.
#include "arrays.hpp"

namespace pyrnn {

std::string shape_text(const py::array& a) { return py::str(a.attr("shape")); }

std::string shape_words(std::initializer_list<i64> shape) {
  std::string text = "(";
  for (i64 n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string type_text(py::handle object) {
  if (py::isinstance<py::array>(object)) return "dtype " + std::string(py::str(object.attr("dtype")));
  return "type " + std::string(py::str(py::type::handle_of(object).attr("__name__")));
}

void wrong_type(const std::string& call, const std::string& name, py::handle came, const std::string& expected) {
  throw py::type_error(call + ": " + name + " has " + type_text(came) + ", expected " + expected);
}

void wrong_shape(const std::string& call, const std::string& name, const py::array& came, const std::string& expected) {
  throw py::value_error(call + ": " + name + " has shape " + shape_text(came) + ", expected " + expected);
}

void wrong_value(const std::string& call, const std::string& message) { throw py::value_error(call + ": " + message); }

py::array to_array(const std::string& call, const std::string& name, py::handle object) {
  if (!py::isinstance<py::array>(object)) wrong_type(call, name, object, "a NumPy array");
  return py::reinterpret_borrow<py::array>(object);
}

}  // namespace pyrnn
