// pyrnn.kernels.linear and embedding: maps of rows, and rows of a table.
#include <algorithm>
#include <functional>
#include <numeric>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/encoded.hpp"
#include "dispatch.hpp"
#include "linear/driver.hpp"

namespace pyrnn {

namespace {

template <class T> py::array_t<T> to_weight(const std::string& call, py::handle object, const char* expected) {
  py::array_t<T> a = to_packed<T>(call, "weight", object);
  if (a.ndim() != 2) wrong_shape(call, "weight", a, expected);
  return a;
}

// A small call takes less time than its checks: what lies plain is looked at as it is, without a Python object made,
// and worked on with the GIL held.
constexpr int small_axes = 8;

// Null unless it is NumPy's own array, C-ordered and aligned.
Raw* plain_array(py::handle object) {
  const auto& numpy = py::detail::npy_api::get();
  if (Py_TYPE(object.ptr()) != numpy.PyArray_Type_) return nullptr;
  Raw* a = py::detail::array_proxy(object.ptr());
  constexpr int wanted = int(py::array::c_style) | int(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  return (a->flags & wanted) == wanted && a->nd <= small_axes ? a : nullptr;
}

// Uninitialised: [the first `lead` axes of `like`, last], of the dtype of `typed`.
py::array new_array(Raw* like, int lead, i64 last, Raw* typed) {
  const auto& numpy = py::detail::npy_api::get();
  Py_intptr_t shape[small_axes + 1];
  std::copy_n(like->dimensions, lead, shape);
  shape[lead] = last;
  Py_INCREF(typed->descr);
  PyObject* made =
      numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, typed->descr, lead + 1, shape, nullptr, nullptr, 0, nullptr);
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(made);
}

// small.operator()<T>() where `typed` holds floats or doubles; null where it holds something else, or small says so.
template <class Small> py::object of_dtype(Raw* typed, Small small) {
  if (holds<float>(typed)) return small.template operator()<float>();
  if (holds<double>(typed)) return small.template operator()<double>();
  return {};
}

// Null where it is not small, plain and right. `bias` may be null.
template <class T> py::object linear_small(Raw* x, Raw* weight, Raw* bias) {
  if (!weight || !holds<T>(weight) || weight->nd != 2 || x->nd < 1) return {};
  Linear<T> m;
  m.O = weight->dimensions[0], m.I = m.x_row = weight->dimensions[1], m.M = 1;
  if (x->dimensions[x->nd - 1] != m.I) return {};
  if (bias && (!holds<T>(bias) || bias->nd != 1 || bias->dimensions[0] != m.O)) return {};
  for (int axis = 0; axis + 1 < x->nd; ++axis)
    if (x->dimensions[axis] > m.few_rows || (m.M *= x->dimensions[axis]) > m.few_rows) return {};
  if (!m.is_small()) return {};
  m.x = reinterpret_cast<const T*>(x->data), m.weight.data = reinterpret_cast<const T*>(weight->data);
  if (bias) m.bias = reinterpret_cast<const T*>(bias->data);
  py::array y = new_array(x, x->nd - 1, m.O, x);
  linear_forward(kernels<T>().linear, m, static_cast<T*>(y.mutable_data()));
  return y;
}

// Of an array [P, ...]: from one model's numbers to the next one's. It becomes a copy where these do not lie plain.
template <class T> i64 model_distance(py::array& a) {
  const py::array first = a[py::int_(0)];
  const bool plain = (first.flags() & py::array::c_style) && a.strides(0) % py::ssize_t(sizeof(T)) == 0 &&
                     (a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  if (!plain) a = py::array(a.attr("copy")("C"));
  return a.strides(0) / py::ssize_t(sizeof(T));
}

// What a call for several models is given: x [P, ..., I], weight [P, O, I], bias [P, O] or None.
template <class T> struct Maps {
  py::array x, weight, bias = no_array();
  i64 P, x_distance, weight_distance, bias_distance = 0;
  Linear<T> first;

  Maps(const std::string& call, py::handle x_, py::handle weight_, py::handle bias_, bool rounded)
      : x(to_typed<T>(call, "x", x_)), weight(to_typed<T>(call, "weight", weight_)), P(weight.shape(0)) {
    first.O = weight.shape(1), first.I = first.x_row = weight.shape(2), first.M = 1;
    if (P == 0) wrong_value(call, "there are no models");
    if (x.ndim() < 2 || x.shape(0) != P || x.shape(x.ndim() - 1) != first.I)
      wrong_shape(call, "x", x, "(" + std::to_string(P) + ", ..., " + std::to_string(first.I) + ")");
    for (int axis = 1; axis + 1 < x.ndim(); ++axis) first.M *= x.shape(axis);
    if (!bias_.is_none()) {
      bias = to_typed<T>(call, "bias", bias_);
      check_shape(call, "bias", bias, {P, first.O});
      bias_distance = model_distance<T>(bias);
      first.bias = static_cast<const T*>(bias.data());
    }
    if (rounded) round_products(call, "weight", first.weight);
    x_distance = model_distance<T>(x), weight_distance = model_distance<T>(weight);
    first.x = static_cast<const T*>(x.data()), first.weight.data = static_cast<const T*>(weight.data());
  }

  Linear<T> of(i64 model) const {
    Linear<T> m = first;
    m.x += model * x_distance, m.weight.data += model * weight_distance;
    if (m.bias) m.bias += model * bias_distance;
    return m;
  }
  Shape shape(i64 features) const {
    Shape like_x(x);
    like_x.back() = features;
    return like_x;
  }
  i64 work() const { return P * first.M * first.O * first.I; }
};

template <class T>
py::array models_forward(const std::string& call, py::handle x, py::handle weight, py::handle bias, bool rounded) {
  const Maps<T> maps(call, x, weight, bias, rounded);
  py::array_t<T> y = empty<T>(maps.shape(maps.first.O));
  T* out = y.mutable_data();
  const WithoutGil released;
  each_model(maps.work(), maps.P, [&](i64 k) {
    const Linear<T> m = maps.of(k);
    linear_forward(kernels<T>().linear, m, out + k * m.M * m.O);
  });
  return y;
}

// dy [P, ..., O] -> dx like x; dweight and dbias, like weight and bias, are added to.
template <class T>
py::array models_backward(const std::string& call, py::handle dy_, py::handle x, py::handle weight, py::handle dweight_,
                          py::handle dbias_, bool rounded, bool after_relu) {
  Maps<T> maps(call, x, weight, py::none(), rounded);
  maps.first.after_relu = after_relu;
  const i64 O = maps.first.O, I = maps.first.I;
  py::array dy = to_typed<T>(call, "dy", dy_);
  check_shape(call, "dy", dy, maps.shape(O));
  const i64 dy_distance = model_distance<T>(dy);
  auto first_of = [&](const char* name, py::handle object, const Shape& of_one, i64& distance) -> T* {
    if (object.is_none()) return nullptr;
    const py::array a = to_typed<T>(call, name, object);
    if (a.ndim() == 0 || a.shape(0) != maps.P) wrong_shape(call, name, a, "(" + std::to_string(maps.P) + ", ...)");
    distance = a.strides(0) / i64(sizeof(T));
    return to_gradient<T>(call, name, py::object(a[py::int_(0)]), of_one);
  };
  i64 dweight_distance = 0, dbias_distance = 0;
  T* const dweight = first_of("dweight", dweight_, {O, I}, dweight_distance);
  if (!dweight) wrong_type(call, "dweight", dweight_, "an array");
  T* const dbias = first_of("dbias", dbias_, {O}, dbias_distance);
  py::array_t<T> dx = empty<T>(maps.shape(I));
  const T* const of_y = static_cast<const T*>(dy.data());
  T* out = dx.mutable_data();
  const WithoutGil released;
  each_model(2 * maps.work(), maps.P, [&](i64 k) {
    Linear<T> m = maps.of(k);
    m.dy = of_y + k * dy_distance, m.dy_row = O;
    linear_backward(kernels<T>().linear, m, out + k * m.M * I, dweight + k * dweight_distance,
                    dbias ? dbias + k * dbias_distance : nullptr);
  });
  return dx;
}

template <class T> bool of_models(py::handle weight) {
  return py::isinstance<py::array_t<T>>(weight) && py::reinterpret_borrow<py::array>(weight).ndim() == 3;
}

// x [..., I] -> y [..., O]
py::object forward(py::handle x_, py::handle weight_, py::handle bias_, std::string_view precision) {
  const std::string call = "linear.forward";
  const bool rounded = is_rounded(call, precision);
  Raw *plain_x = plain_array(x_), *plain_bias = bias_.is_none() ? nullptr : plain_array(bias_);
  if (plain_x && (plain_bias || bias_.is_none()) && !rounded)
    if (py::object y =
            of_dtype(plain_x, [&]<class T>() { return linear_small<T>(plain_x, plain_array(weight_), plain_bias); }))
      return y;
  return with_dtype(call, "x", x_, [&]<class T>() -> py::object {
    if (of_models<T>(weight_)) return models_forward<T>(call, x_, weight_, bias_, rounded);
    GivenMatrix<T> given = to_any_matrix<T>(call, "weight", weight_);
    if (rounded) round_products(call, "weight", given.matrix);
    const py::array& weight = given.numbers;
    if (weight.ndim() != 2) wrong_shape(call, "weight", weight, "(O, I)");
    Linear<T> m;
    m.O = weight.shape(0), m.I = weight.shape(1), m.weight = given.matrix;
    py::array x = to_typed<T>(call, "x", x_);
    if (x.ndim() < 1 || x.shape(x.ndim() - 1) != m.I) wrong_shape(call, "x", x, "(..., " + std::to_string(m.I) + ")");
    if (x.ndim() != 2 || !has_plain_rows<T>(x)) x = to_packed<T>(call, "x", x);
    Shape shape(x);
    shape.back() = m.O;
    m.M = m.I ? x.size() / m.I : std::accumulate(shape.begin(), shape.end() - 1, i64(1), std::multiplies<>());
    m.x = static_cast<const T*>(x.data()), m.x_row = x.ndim() == 2 ? row_distance<T>(x) : m.I;
    py::array_t<T> bias = no_array<py::array_t<T>>();
    if (!bias_.is_none()) {
      bias = to_packed<T>(call, "bias", bias_);
      check_shape(call, "bias", bias, {m.O});
      m.bias = bias.data();
    }
    py::array_t<T> y = empty<T>(shape);
    T* out = y.mutable_data();
    const WithoutGil released;
    linear_forward(kernels<T>().linear, m, out);
    return y;
  });
}

py::array backward(py::handle dy_, py::handle x_, py::handle weight_, py::handle dweight_, py::handle dbias_,
                   std::string_view precision, bool after_relu) {
  const std::string call = "linear.backward";
  const bool rounded = is_rounded(call, precision);
  return with_dtype(call, "x", x_, [&]<class T>() -> py::array {
    if (of_models<T>(weight_)) return models_backward<T>(call, dy_, x_, weight_, dweight_, dbias_, rounded, after_relu);
    const py::array_t<T> weight = to_weight<T>(call, weight_, "(O, I)");
    Linear<T> m;
    m.O = weight.shape(0), m.I = weight.shape(1), m.weight = weight.data();
    if (rounded) round_products(call, "weight", m.weight);
    const py::array x = to_matrix<T>(call, "x", x_, m.I), dy = to_matrix<T>(call, "dy", dy_, m.O);
    m.M = x.shape(0);
    check_shape(call, "dy", dy, {m.M, m.O});
    m.x = static_cast<const T*>(x.data()), m.x_row = row_distance<T>(x);
    m.dy = static_cast<const T*>(dy.data()), m.dy_row = row_distance<T>(dy), m.after_relu = after_relu;
    T* dweight = to_gradient<T>(call, "dweight", dweight_, {m.O, m.I});
    if (!dweight) wrong_type(call, "dweight", dweight_, "an array");
    T* dbias = to_gradient<T>(call, "dbias", dbias_, {m.O});
    py::array_t<T> dx = empty<T>({m.M, m.I});
    T* out = dx.mutable_data();
    const WithoutGil released;
    linear_backward(kernels<T>().linear, m, out, dweight, dbias);
    return dx;
  });
}

// A few rows of a table, or null as in linear_small.
template <class T> py::object embedding_small(Raw* ids, Raw* weight) {
  constexpr i64 few_ids = 64, few_numbers = 256;
  i64 M = 1, known[few_ids];
  for (int axis = 0; axis < ids->nd; ++axis)
    if (ids->dimensions[axis] > few_ids || (M *= ids->dimensions[axis]) > few_ids) return {};
  if (ids->nd == small_axes || weight->nd != 2) return {};
  const i64 V = weight->dimensions[0], E = weight->dimensions[1];
  if (E > few_numbers) return {};
  std::copy_n(reinterpret_cast<const i64*>(ids->data), M, known);  // nobody changes what has been checked
  for (i64 m = 0; m < M; ++m)
    if (known[m] < 0 || known[m] >= V) return {};
  py::array y = new_array(ids, ids->nd, E, weight);
  embedding_forward(reinterpret_cast<const T*>(weight->data), known, M, E, static_cast<T*>(y.mutable_data()));
  return y;
}

// ids [...] -> y [..., E]
py::object look_up(py::handle ids_, py::handle weight_) {
  if (Raw* ids = plain_array(ids_), *weight = plain_array(weight_); ids && weight && holds<i64>(ids))
    if (py::object y = of_dtype(weight, [&]<class T>() { return embedding_small<T>(ids, weight); })) return y;
  const std::string call = "embedding.forward";
  return with_dtype_of_matrix(call, "weight", weight_, [&]<class T>() -> py::object {
    const GivenMatrix<T> table = to_any_matrix<T>(call, "weight", weight_);
    const py::array& weight = table.numbers;
    if (weight.ndim() != 2) wrong_shape(call, "weight", weight, "(V, E)");
    const i64 E = weight.shape(1);
    const py::array given = to_typed<i64>(call, "ids", ids_);
    Shape shape(given);
    shape.add(E);
    const py::array_t<i64> ids = to_ids(call, "ids", given.attr("reshape")(-1), -1, weight.shape(0));
    py::array_t<T> y = empty<T>(shape);
    const i64 *id = ids.data(), M = ids.size();
    T* out = y.mutable_data();
    const void* const numbers = weight.data();
    const WithoutGil released;
    if constexpr (std::is_same_v<T, float>) {
      if (table.matrix.form == &forms().bfloat16)
        embedding_forward(static_cast<const std::uint16_t*>(numbers), id, M, E, out);
      if (table.matrix.form == &forms().int8)
        embedding_forward(static_cast<const std::int8_t*>(numbers), table.matrix.scale, id, M, E, out);
    }
    if (!table.matrix.form) embedding_forward(static_cast<const T*>(numbers), id, M, E, out);
    return y;
  });
}

void look_up_backward(py::handle dy_, py::handle ids_, py::handle dweight_) {
  const std::string call = "embedding.backward";
  with_dtype(call, "dy", dy_, [&]<class T>() {
    const py::array target = to_array(call, "dweight", dweight_);
    if (target.ndim() != 2) wrong_shape(call, "dweight", target, "(V, E)");
    const i64 V = target.shape(0), E = target.shape(1);
    T* dweight = to_gradient<T>(call, "dweight", dweight_, {V, E});
    const py::array dy = to_matrix<T>(call, "dy", dy_, E);
    const py::array_t<i64> ids = to_ids(call, "ids", ids_, dy.shape(0), V);
    const T* from = static_cast<const T*>(dy.data());
    const i64 row = row_distance<T>(dy), *id = ids.data(), M = ids.size();
    const WithoutGil released;
    embedding_backward(from, row, id, M, E, dweight);
  });
}

}  // namespace

void bind_linear(py::module_& parent) {
  py::module_ linear = parent.def_submodule("linear", "A linear map of rows, compiled.");
  linear.def(
      "forward",
      [](py::object x, py::object weight, py::object bias, std::string_view precision) {
        return forward(x, weight, bias, precision);
      },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::kw_only(), py::arg("precision") = "float32",
      "x (..., I), weight (O, I), bias (O,) or None -> (..., O). Of several models all have an axis of models in "
      "front.");
  linear.def(
      "backward",
      [](py::object dy, py::object x, py::object weight, py::object dweight, py::object dbias,
         std::string_view precision,
         bool after_relu) { return backward(dy, x, weight, dweight, dbias, precision, after_relu); },
      py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("dweight"), py::arg("dbias"), py::kw_only(),
      py::arg("precision") = "float32", py::arg("after_relu") = false,
      "Returns dx (M, I); dweight and dbias are added to. With after_relu x came out of a ReLU, and dx is 0 where x "
      "is.");
  bind_packed(parent, linear);

  py::module_ embedding = parent.def_submodule("embedding", "Rows of a table, compiled.");
  embedding.def(
      "forward", [](py::object ids, py::object weight) { return look_up(ids, weight); }, py::arg("ids"),
      py::arg("weight"), "ids (...), weight (V, E) -> (..., E).");
  embedding.def(
      "backward", [](py::object dy, py::object ids, py::object dweight) { look_up_backward(dy, ids, dweight); },
      py::arg("dy"), py::arg("ids"), py::arg("dweight"), "dweight is added to.");
}

}  // namespace pyrnn
