// NumPy arrays at the border: the checks every binding makes, and the words of their errors.
//
// Messages name the call, the argument, what came and what was expected:
// "lstm.forward: x has shape (5, 3, 7), expected (T, N, 8)".
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/memory.hpp"
#include "base/steps.hpp"

namespace pyrnn {

namespace py = pybind11;

// An entry's name in an error.
inline std::string at(const std::string& name, std::size_t i) { return name + "[" + std::to_string(i) + "]"; }

std::string shown(py::handle value);  // in an error, cut where it is long
std::string shape_text(const py::array& a);
std::string type_text(py::handle object);

[[noreturn]] void wrong_type(const std::string& call, const std::string& name, py::handle came,
                             const std::string& expected);
[[noreturn]] void wrong_shape(const std::string& call, const std::string& name, const py::array& came,
                              const std::string& expected);
[[noreturn]] void wrong_value(const std::string& call, const std::string& message);

// Gives the GIL up. As pybind11's, but Python may end this thread when it is asked for the GIL again while the process
// shuts down. It does so by unwinding the stack, over objects that need the Python that is no more; so the thread stays
// here until the process is gone, as it would in Python 3.14.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// A Python integer in [low, high], else TypeError or ValueError.
i64 to_integer(const std::string& call, const std::string& name, py::handle object, i64 low, i64 high);

py::array to_array(const std::string& call, const std::string& name, py::handle object);

template <class T> const char* dtype_name();
template <> inline const char* dtype_name<float>() { return "float32"; }
template <> inline const char* dtype_name<double>() { return "float64"; }
template <> inline const char* dtype_name<i64>() { return "int64"; }
template <> inline const char* dtype_name<bool>() { return "bool"; }
template <> inline const char* dtype_name<std::int8_t>() { return "int8"; }
template <> inline const char* dtype_name<std::uint16_t>() { return "uint16"; }
template <> inline const char* dtype_name<std::int32_t>() { return "int32"; }
template <> inline const char* dtype_name<std::uint32_t>() { return "uint32"; }

// An array as NumPy has it, without a Python object made.
using Raw = const py::detail::PyArray_Proxy;

template <class T> bool holds(Raw* a) {
  const auto* dtype = py::detail::array_descriptor1_proxy(a->descr);
  return dtype->type_num == py::detail::npy_format_descriptor<T>::value && dtype->byteorder == '=';
}

// The same for every dtype that is as good to NumPy, which is asked last, as that takes time.
template <class T> bool is_of(const py::array& a) {
  return holds<T>(py::detail::array_proxy(a.ptr())) ||
         (a.itemsize() == py::ssize_t(sizeof(T)) && py::isinstance<py::array_t<T>>(a));
}

// An array of exactly this dtype, else TypeError. No copy.
template <class T> py::array to_typed(const std::string& call, const std::string& name, py::handle object) {
  py::array a = to_array(call, name, object);
  if (!is_of<T>(a)) wrong_type(call, name, a, std::string("dtype ") + dtype_name<T>());
  return a;
}

// The same, C-ordered and aligned: a copy where it was not.
template <class T> py::array_t<T> to_packed(const std::string& call, const std::string& name, py::handle object) {
  py::array a = to_typed<T>(call, name, object);
  constexpr int plain = int(py::array::c_style) | int(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  if ((a.flags() & plain) == plain) return py::reinterpret_steal<py::array_t<T>>(a.release());
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) a = py::array(a.attr("copy")("C"));
  return py::array_t<T, py::array::c_style | py::array::forcecast>(a);
}

// Can be read or written in place as rows of side-by-side features, any distance apart.
template <class T> bool has_plain_rows(const py::array& a) {
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
  for (py::ssize_t i = 0; i + 1 < a.ndim(); ++i)
    if (a.strides(i) % py::ssize_t(sizeof(T)) != 0) return false;
  return a.shape(a.ndim() - 1) <= 1 || a.strides(a.ndim() - 1) == py::ssize_t(sizeof(T));
}

// In elements, of the axis that is the so manieth from the end.
template <class T> i64 axis_distance(const py::array& a, int axis) {
  return a.strides(a.ndim() + axis) / py::ssize_t(sizeof(T));
}

// [T, N, features] as the time loop reads it, the first of several where `a` has an axis more; `a` is replaced by a
// copy where it has no plain rows.
template <class T> Steps<const T> to_steps(py::array& a) {
  if (!has_plain_rows<T>(a))
    a = py::array_t<T, py::array::c_style | py::array::forcecast>(py::array(a.attr("copy")("C")));
  return {static_cast<const T*>(a.data()), axis_distance<T>(a, -3), axis_distance<T>(a, -2)};
}

template <class T> Steps<T> writable_steps(py::array& a) {
  return {static_cast<T*>(a.mutable_data()), axis_distance<T>(a, -3), axis_distance<T>(a, -2)};
}

// [M, columns], any number of them where that is negative, with rows of side-by-side numbers.
template <class T>
py::array to_matrix(const std::string& call, const std::string& name, py::handle object, i64 columns) {
  py::array a = to_typed<T>(call, name, object);
  if (a.ndim() != 2 || (columns >= 0 && a.shape(1) != columns))
    wrong_shape(call, name, a, columns >= 0 ? "(M, " + std::to_string(columns) + ")" : "(M, V)");
  if (!has_plain_rows<T>(a)) a = to_packed<T>(call, name, py::array(a.attr("copy")("C")));
  return a;
}

template <class T> i64 row_distance(const py::array& matrix) { return matrix.strides(0) / i64(sizeof(T)); }

// No array. What pybind11 makes by default is one without numbers, which takes as long as any other.
template <class A = py::array> A no_array() { return py::reinterpret_steal<A>(py::handle()); }

// The lengths of an array's axes, on the stack.
class Shape {
 public:
  Shape(std::initializer_list<i64> lengths) : size_(int(lengths.size())) {
    std::copy(lengths.begin(), lengths.end(), lengths_);
  }
  explicit Shape(const py::array& a) : size_(int(a.ndim())) { std::copy_n(a.shape(), size_, lengths_); }

  void add(i64 length) { lengths_[size_++] = length; }
  // With one axis more in front.
  Shape behind(i64 length) const {
    Shape all{length};
    for (const py::ssize_t own : *this) all.add(own);
    return all;
  }

  int size() const { return size_; }
  const py::ssize_t* begin() const { return lengths_; }
  const py::ssize_t* end() const { return lengths_ + size_; }
  py::ssize_t& back() { return lengths_[size_ - 1]; }

 private:
  py::ssize_t lengths_[64 + 4];  // NumPy has at most 64, and refuses what has a few more
  int size_;
};

inline bool has_shape(const py::array& a, const Shape& shape) {
  return a.ndim() == shape.size() && std::equal(shape.begin(), shape.end(), a.shape());
}

std::string shape_words(const Shape& shape);

inline void check_shape(const std::string& call, const std::string& name, const py::array& a, const Shape& shape) {
  if (!has_shape(a, shape)) wrong_shape(call, name, a, shape_words(shape));
}

inline void check_writable(const std::string& call, const std::string& name, const py::array& a) {
  if (!a.writeable()) wrong_value(call, name + " is read-only");
}

// A gradient that is added to in place: C-ordered, aligned, writable.
template <class T>
T* to_gradient(const std::string& call, const std::string& name, py::handle object, const Shape& shape) {
  if (object.is_none()) return nullptr;
  py::array a = to_typed<T>(call, name, object);
  check_shape(call, name, a, shape);
  check_writable(call, name, a);
  if (!(a.flags() & py::array::c_style) || !(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    wrong_value(call, name + " is not C-ordered");
  return static_cast<T*>(a.mutable_data());
}

// A flat array of n numbers that is changed in place.
template <class T> T* to_flat(const std::string& call, const std::string& name, py::handle object, i64 n) {
  T* data = to_gradient<T>(call, name, object, {n});
  if (!data) wrong_type(call, name, object, "an array");
  return data;
}

// Class numbers [M] below `limit`, any number of them where M is negative; where `weights` (or null) is 0 a number may
// be anything, and becomes 0. A copy: the caller may change its arrays while a kernel reads these.
template <class T = float>
py::array_t<i64> to_ids(const std::string& call, const std::string& name, py::handle object, i64 M, i64 limit,
                        const T* weights = nullptr) {
  py::array_t<i64> ids(py::array(to_packed<i64>(call, name, object).attr("copy")()));
  if (ids.ndim() != 1 || (M >= 0 && ids.shape(0) != M))
    wrong_shape(call, name, ids, M >= 0 ? shape_words({M}) : "(M,)");
  i64* all = ids.mutable_data();
  for (i64 i = 0; i < ids.size(); ++i) {
    if (weights && weights[i] == 0) all[i] = 0;
    if (all[i] < 0 || all[i] >= limit)
      wrong_value(call, at(name, std::size_t(i)) + " is " + std::to_string(all[i]) + ", expected 0 to " +
                            std::to_string(limit - 1));
  }
  return ids;
}

// Valid steps of each of N rows, a copy; of None nothing.
std::vector<i64> to_lengths(const std::string& call, py::handle object, i64 steps, i64 N);

// Rows of a stream, a copy.
std::vector<i64> to_rows(const std::string& call, py::handle object, i64 batch);

// The __new__ of a class that only vjp or stream make, for which object's would leave it without anything inside.
py::object never_made();

// f<float>() or f<double>() by the dtype of an argument.
template <class F> auto with_dtype(const std::string& call, const std::string& name, py::handle object, F f) {
  const py::array a = to_array(call, name, object);
  if (is_of<float>(a)) return f.template operator()<float>();
  if (is_of<double>(a)) return f.template operator()<double>();
  wrong_type(call, name, a, "dtype float32 or float64");
}

// A result. A large one lies in memory that results before it have given back: the system's would be mapped, and its
// pages met one by one, anew at every call. Where there is no memory NumPy is asked, whose error names the shape.
template <class T> py::array_t<T> empty(const Shape& shape) {
  const auto from_numpy = [&] {
    const auto& numpy = py::detail::npy_api::get();
    py::dtype dtype = py::dtype::of<T>();
    PyObject* made = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, dtype.release().ptr(), shape.size(),
                                                 shape.begin(), nullptr, nullptr, 0, nullptr);
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::array_t<T>>(made);
  };
  constexpr std::size_t large = 128 << 10;
  std::size_t bytes = sizeof(T);
  for (const py::ssize_t n : shape)
    if (n < 0 || __builtin_mul_overflow(bytes, std::size_t(n), &bytes)) return from_numpy();
  if (bytes < large) return from_numpy();
  std::unique_ptr<Buffer<T>> memory;
  try {
    memory = std::make_unique<Buffer<T>>(i64(bytes / sizeof(T)), bytes / 8);
  } catch (const std::bad_alloc&) {
    return from_numpy();
  }
  const T* data = memory->get();
  const py::capsule owner(memory.get(), [](void* kept) { delete static_cast<Buffer<T>*>(kept); });
  memory.release();
  return py::array_t<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()), data, owner);
}

// (steps, N, features), uninitialised: the rows one after the other in memory where those of x are, or the steps.
template <class T> py::array laid_out_as(const py::array& x, i64 steps, i64 features) {
  if (x.strides(1) > x.strides(0)) return empty<T>({x.shape(1), steps, features}).attr("swapaxes")(0, 1);
  return empty<T>({steps, x.shape(1), features});
}

template <class T> py::array_t<T> zeros(const Shape& shape) {
  py::array_t<T> a = empty<T>(shape);
  std::memset(a.mutable_data(), 0, std::size_t(a.nbytes()));
  return a;
}

}  // namespace pyrnn
