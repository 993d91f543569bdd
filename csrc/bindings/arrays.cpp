// The words of the errors: see arrays.hpp.
#include "bindings/arrays.hpp"

namespace pyrnn {

namespace {

// pyrnn.core.checks words the same errors above: what it has for them serves here too.
py::object words(const char* name) { return py::module_::import("pyrnn.core.checks").attr(name); }

}  // namespace

std::string shown(py::handle value) { return py::str(words("shown")(value)); }

std::string shape_text(const py::array& a) { return py::str(a.attr("shape")); }

std::string shape_words(const Shape& shape) {
  std::string text = "(";
  for (i64 n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string type_text(py::handle object) {
  if (py::isinstance<py::array>(object)) return "dtype " + std::string(py::str(words("cut")(object.attr("dtype"))));
  return "type " + std::string(py::str(py::type::handle_of(object).attr("__name__")));
}

void wrong_type(const std::string& call, const std::string& name, py::handle came, const std::string& expected) {
  throw py::type_error(call + ": " + name + " has " + type_text(came) + ", expected " + expected);
}

void wrong_shape(const std::string& call, const std::string& name, const py::array& came, const std::string& expected) {
  throw py::value_error(call + ": " + name + " has shape " + shape_text(came) + ", expected " + expected);
}

void wrong_value(const std::string& call, const std::string& message) { throw py::value_error(call + ": " + message); }

i64 to_integer(const std::string& call, const std::string& name, py::handle object, i64 low, i64 high) {
  if (!PyIndex_Check(object.ptr()) || py::isinstance<py::bool_>(object)) wrong_type(call, name, object, "an integer");
  if (!PyLong_Check(object.ptr())) words("refuse_hidden")(call, name, object);
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const i64 value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow || value < low || value > high)
    wrong_value(call,
                name + " is " + shown(number) + ", expected " + std::to_string(low) + " to " + std::to_string(high));
  return value;
}

py::array to_array(const std::string& call, const std::string& name, py::handle object) {
  if (!py::isinstance<py::array>(object)) wrong_type(call, name, object, "a NumPy array");
  // A subclass may say anything of itself and copy itself in its own way: what it holds is looked at as a plain array,
  // unless it hides some of it.
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_)
    return py::array(words("any_array")(call, name, object));
  return py::reinterpret_borrow<py::array>(object);
}

std::vector<i64> to_lengths(const std::string& call, py::handle object, i64 steps, i64 N) {
  if (object.is_none()) return {};
  const py::array_t<i64> a = to_packed<i64>(call, "lengths", object);
  check_shape(call, "lengths", a, {N});
  std::vector<i64> lengths(a.data(), a.data() + N);
  for (std::size_t n = 0; n < lengths.size(); ++n)
    if (lengths[n] < 0 || lengths[n] > steps)
      wrong_value(call,
                  at("lengths", n) + " is " + std::to_string(lengths[n]) + ", expected 0 to " + std::to_string(steps));
  return lengths;
}

std::vector<i64> to_rows(const std::string& call, py::handle object, i64 batch) {
  const py::array_t<i64> a = to_packed<i64>(call, "rows", object);
  std::vector<i64> rows(a.data(), a.data() + a.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (rows[i] < 0 || rows[i] >= batch)
      wrong_value(call,
                  at("rows", i) + " is " + std::to_string(rows[i]) + ", expected 0 to " + std::to_string(batch - 1));
  return rows;
}

py::object never_made() {
  return py::module_::import("builtins").attr("staticmethod")(py::cpp_function([](py::args, py::kwargs) -> py::object {
    throw py::type_error("made by vjp and stream only");
  }));
}

}  // namespace pyrnn
