// pyrnn.kernels.linear, embedding, cross_entropy, adam, sgd, rmsprop and norm: what a model needs around its recurrent
// layers.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/memory.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

// f(part, parts) on as many threads as the work is worth.
template <class F> void in_parts(i64 work, F f) {
  Team team(work);
  pyrnn::in_parts(team, f);
}

template <class T>
py::array to_matrix(const std::string& call, const std::string& name, py::handle object, i64 columns) {
  py::array a = to_typed<T>(call, name, object);
  if (a.ndim() != 2 || (columns >= 0 && a.shape(1) != columns))
    wrong_shape(call, name, a, columns >= 0 ? "(M, " + std::to_string(columns) + ")" : "(M, V)");
  if (!has_plain_rows<T>(a)) a = to_packed<T>(call, name, py::array(a.attr("copy")("C")));
  return a;
}

template <class T>
py::array_t<T> to_weight(const std::string& call, const std::string& name, py::handle object, const char* expected) {
  py::array_t<T> a = to_packed<T>(call, name, object);
  if (a.ndim() != 2) wrong_shape(call, name, a, expected);
  return a;
}

// A small call takes less time than its checks: what lies plain is looked at as it is, without a Python object made,
// and worked on with the GIL held.
constexpr i64 small_call = 1 << 14;  // multiply-adds or numbers
constexpr int small_axes = 8;

using Raw = const py::detail::PyArray_Proxy;

// Null unless it is NumPy's own array, C-ordered and aligned.
Raw* plain_array(py::handle object) {
  const auto& numpy = py::detail::npy_api::get();
  if (Py_TYPE(object.ptr()) != numpy.PyArray_Type_) return nullptr;
  Raw* a = py::detail::array_proxy(object.ptr());
  constexpr int wanted = int(py::array::c_style) | int(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  return (a->flags & wanted) == wanted && a->nd <= small_axes ? a : nullptr;
}

template <class T> bool holds(Raw* a) {
  const auto* dtype = py::detail::array_descriptor1_proxy(a->descr);
  return dtype->type_num == py::detail::npy_format_descriptor<T>::value && dtype->byteorder == '=';
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

// The least rows, and columns in units of a register, of a part: fewer read the weights or rows too often.
constexpr i64 least_rows = 48, group_lanes = 4;

// The product of a few rows, or null where it is not small, plain and right.
template <class T> py::object linear_small(Raw* x, Raw* weight, Raw* bias) {
  if (!weight || !holds<T>(weight) || weight->nd != 2 || x->nd < 1) return {};
  Linear<T> m;
  m.O = weight->dimensions[0], m.I = m.x_row = weight->dimensions[1], m.M = 1;
  if (x->dimensions[x->nd - 1] != m.I) return {};
  if (bias && (!holds<T>(bias) || bias->nd != 1 || bias->dimensions[0] != m.O)) return {};
  for (int axis = 0; axis + 1 < x->nd; ++axis)
    if (x->dimensions[axis] > few_rows || (m.M *= x->dimensions[axis]) > few_rows) return {};
  if (m.O > small_call || m.I > small_call || m.O * m.I > small_call) return {};
  m.x = reinterpret_cast<const T*>(x->data), m.weight = reinterpret_cast<const T*>(weight->data);
  if (bias) m.bias = reinterpret_cast<const T*>(bias->data);
  py::array y = new_array(x, x->nd - 1, m.O, x);
  kernels<T>().linear.forward_few(m, static_cast<T*>(y.mutable_data()));
  return y;
}

// x [..., I] -> y [..., O]
py::object linear_forward(py::handle x_, py::handle weight_, py::handle bias_) {
  Raw *plain_x = plain_array(x_), *plain_bias = bias_.is_none() ? nullptr : plain_array(bias_);
  if (plain_x && (plain_bias || bias_.is_none())) {
    py::object y;
    if (holds<float>(plain_x))
      y = linear_small<float>(plain_x, plain_array(weight_), plain_bias);
    else if (holds<double>(plain_x))
      y = linear_small<double>(plain_x, plain_array(weight_), plain_bias);
    if (y) return y;
  }
  const std::string call = "linear.forward";
  return with_real(call, "x", x_, [&]<class T>() -> py::object {
    const py::array_t<T> weight = to_weight<T>(call, "weight", weight_, "(O, I)");
    Linear<T> m;
    m.O = weight.shape(0), m.I = weight.shape(1), m.weight = weight.data();
    py::array x = to_typed<T>(call, "x", x_);
    if (x.ndim() < 1 || x.shape(x.ndim() - 1) != m.I) wrong_shape(call, "x", x, "(..., " + std::to_string(m.I) + ")");
    if (x.ndim() != 2 || !has_plain_rows<T>(x)) x = to_packed<T>(call, "x", x);
    std::vector<py::ssize_t> shape(x.shape(), x.shape() + x.ndim());
    shape.back() = m.O;
    m.M = m.I ? x.size() / m.I : std::accumulate(shape.begin(), shape.end() - 1, i64(1), std::multiplies<>());
    m.x = static_cast<const T*>(x.data()), m.x_row = x.ndim() == 2 ? x.strides(0) / i64(sizeof(T)) : m.I;
    py::array_t<T> bias;
    if (!bias_.is_none()) {
      bias = to_packed<T>(call, "bias", bias_);
      check_shape(call, "bias", bias, {m.O});
      m.bias = bias.data();
    }
    py::array_t<T> y = empty<T>(shape);
    T* out = y.mutable_data();
    const WithoutGil released;
    const LinearKernels<T>& k = kernels<T>().linear;
    const Buffer<T> panels((m.O + k.lanes) * m.I);
    in_parts(m.O * m.I, [&](int part, int parts) { k.pack(m, panels.get(), part, parts); });
    const i64 work = m.M * m.O * m.I;
    Team team(work);
    Watch watch;
    in_watched_parts(team, work, m.M / least_rows, watch,
                     [&](int, i64 part, i64 parts) { k.forward(m, panels.get(), out, int(part), int(parts)); });
    return y;
  });
}

py::array linear_backward(py::handle dy_, py::handle x_, py::handle weight_, py::handle dweight_, py::handle dbias_) {
  const std::string call = "linear.backward";
  return with_real(call, "x", x_, [&]<class T>() -> py::array {
    const py::array_t<T> weight = to_weight<T>(call, "weight", weight_, "(O, I)");
    Linear<T> m;
    m.O = weight.shape(0), m.I = weight.shape(1), m.weight = weight.data();
    const py::array x = to_matrix<T>(call, "x", x_, m.I), dy = to_matrix<T>(call, "dy", dy_, m.O);
    m.M = x.shape(0);
    check_shape(call, "dy", dy, {m.M, m.O});
    m.x = static_cast<const T*>(x.data()), m.x_row = x.strides(0) / i64(sizeof(T));
    m.dy = static_cast<const T*>(dy.data()), m.dy_row = dy.strides(0) / i64(sizeof(T));
    T* dweight = to_gradient<T>(call, "dweight", dweight_, {m.O, m.I});
    if (!dweight) wrong_type(call, "dweight", dweight_, "an array");
    T* dbias = to_gradient<T>(call, "dbias", dbias_, {m.O});
    py::array_t<T> dx = empty<T>({m.M, m.I});
    T* out = dx.mutable_data();
    const WithoutGil released;
    const LinearKernels<T>& k = kernels<T>().linear;
    const Buffer<T> panels((m.I + k.lanes) * (m.O + k.lanes));
    k.pack_transposed(m, panels.get(), 0, 1);
    Team team(2 * m.M * m.O * m.I);
    const i64 scratch_size = std::max(linear_block * 4 * k.lanes, m.O);
    const Buffer<T> scratch(scratch_size * team.size());
    const Buffer<const T*> rows(linear_block * team.size());
    const i64 work = m.M * m.O * m.I;
    Watch watch;
    in_watched_parts(team, work, m.M / least_rows, watch,
                     [&](int, i64 part, i64 parts) { k.input_grads(m, panels.get(), out, int(part), int(parts)); });
    // The gradients are added up in place: as they were before, should a long sum be left in the middle.
    const bool is_long = work > 8 * Watch::work_between;  // below that nobody looks
    const Buffer<T> before(is_long ? m.O * m.I + m.O : 0);
    if (is_long) {
      std::copy_n(dweight, m.O * m.I, before.get());
      if (dbias) std::copy_n(dbias, m.O, before.get() + m.O * m.I);
    }
    try {
      in_watched_parts(team, work, m.I / (group_lanes * k.lanes), watch, [&](int thread, i64 part, i64 parts) {
        k.weight_grads(m, dweight, dbias, scratch.get() + thread * scratch_size, rows.get() + thread * linear_block,
                       int(part), int(parts));
      });
    } catch (const Interrupted&) {
      if (!is_long) throw;
      std::copy_n(before.get(), m.O * m.I, dweight);
      if (dbias) std::copy_n(before.get() + m.O * m.I, m.O, dbias);
      throw;
    }
    return dx;
  });
}

// Class numbers below `limit`; where `weights` (or null) is 0 a number is not looked at.
template <class T = float>
py::array_t<i64> to_ids(const std::string& call, const std::string& name, py::handle object, i64 M, i64 limit,
                        const T* weights = nullptr) {
  // A copy: the caller may change its array while the kernel reads these.
  py::array_t<i64> ids(py::array(to_packed<i64>(call, name, object).attr("copy")()));
  if (ids.ndim() != 1 || (M >= 0 && ids.shape(0) != M))
    wrong_shape(call, name, ids, M >= 0 ? shape_words({M}) : "(M,)");
  for (i64 i = 0; i < ids.size(); ++i)
    if ((!weights || weights[i] != 0) && (ids.data()[i] < 0 || ids.data()[i] >= limit))
      wrong_value(call, name + "[" + std::to_string(i) + "] is " + std::to_string(ids.data()[i]) + ", expected 0 to " +
                            std::to_string(limit - 1));
  return ids;
}

// A few rows of a table, or null as in linear_small.
template <class T> py::object embedding_small(Raw* ids, Raw* weight) {
  constexpr i64 few_ids = 64;
  i64 M = 1, known[few_ids];
  for (int axis = 0; axis < ids->nd; ++axis)
    if (ids->dimensions[axis] > few_ids || (M *= ids->dimensions[axis]) > few_ids) return {};
  if (ids->nd == small_axes || weight->nd != 2) return {};
  const i64 V = weight->dimensions[0], E = weight->dimensions[1];
  if (E > small_call / few_ids) return {};
  std::copy_n(reinterpret_cast<const i64*>(ids->data), M, known);  // nobody changes what has been checked
  for (i64 m = 0; m < M; ++m)
    if (known[m] < 0 || known[m] >= V) return {};
  py::array y = new_array(ids, ids->nd, E, weight);
  T* out = static_cast<T*>(y.mutable_data());
  for (i64 m = 0; m < M; ++m) std::copy_n(reinterpret_cast<const T*>(weight->data) + known[m] * E, E, out + m * E);
  return y;
}

// ids [...] -> y [..., E]
py::object embedding_forward(py::handle ids_, py::handle weight_) {
  if (Raw* ids = plain_array(ids_), *weight = plain_array(weight_); ids && weight && holds<i64>(ids)) {
    py::object y;
    if (holds<float>(weight))
      y = embedding_small<float>(ids, weight);
    else if (holds<double>(weight))
      y = embedding_small<double>(ids, weight);
    if (y) return y;
  }
  const std::string call = "embedding.forward";
  return with_real(call, "weight", weight_, [&]<class T>() -> py::object {
    const py::array_t<T> weight = to_weight<T>(call, "weight", weight_, "(V, E)");
    const i64 E = weight.shape(1);
    const py::array given = to_typed<i64>(call, "ids", ids_);
    std::vector<py::ssize_t> shape(given.shape(), given.shape() + given.ndim());
    shape.push_back(E);
    const py::array_t<i64> ids = to_ids(call, "ids", given.attr("reshape")(-1), -1, weight.shape(0));
    py::array_t<T> y = empty<T>(shape);
    const T* from = weight.data();
    const i64* id = ids.data();
    T* out = y.mutable_data();
    const WithoutGil released;
    for (i64 m = 0; m < ids.size(); ++m) std::copy_n(from + id[m] * E, E, out + m * E);
    return y;
  });
}

void embedding_backward(py::handle dy_, py::handle ids_, py::handle dweight_) {
  const std::string call = "embedding.backward";
  with_real(call, "dy", dy_, [&]<class T>() {
    const py::array target = to_array(call, "dweight", dweight_);
    if (target.ndim() != 2) wrong_shape(call, "dweight", target, "(V, E)");
    const i64 V = target.shape(0), E = target.shape(1);
    T* dweight = to_gradient<T>(call, "dweight", dweight_, {V, E});
    const py::array dy = to_matrix<T>(call, "dy", dy_, E);
    const py::array_t<i64> ids = to_ids(call, "ids", ids_, dy.shape(0), V);
    const T* from = static_cast<const T*>(dy.data());
    const i64 row = dy.strides(0) / i64(sizeof(T));
    const i64* id = ids.data();
    const WithoutGil released;
    for (i64 m = 0; m < ids.size(); ++m)
      for (i64 i = 0; i < E; ++i) dweight[id[m] * E + i] += from[m * row + i];
  });
}

py::tuple cross_entropy_forward(py::handle logits_, py::handle targets_, py::handle weights_) {
  const std::string call = "cross_entropy.forward";
  return with_real(call, "logits", logits_, [&]<class T>() -> py::tuple {
    const py::array_t<T> logits = to_packed<T>(call, "logits", to_matrix<T>(call, "logits", logits_, -1));
    const i64 M = logits.shape(0), V = logits.shape(1);
    if (V == 0) wrong_shape(call, "logits", logits, "(M, V) with at least one class");
    py::array_t<T> weights;
    if (!weights_.is_none()) {
      weights = to_packed<T>(call, "weights", weights_);
      check_shape(call, "weights", weights, {M});
    }
    const py::array_t<i64> targets =
        to_ids(call, "targets", targets_, M, V, weights_.is_none() ? nullptr : weights.data());
    py::array_t<T> dlogits = empty<T>({M, V});
    const T *in = logits.data(), *w = weights_.is_none() ? nullptr : weights.data();
    const i64* target = targets.data();
    T* out = dlogits.mutable_data();
    double loss = 0;
    {
      const WithoutGil released;
      double total = w ? 0 : double(M);
      if (w)
        for (i64 m = 0; m < M; ++m) total += double(w[m]);
      const Buffer<double> losses(M);
      const double scale = total != 0 ? 1 / total : 0;
      in_parts(8 * M * V, [&](int part, int parts) {
        kernels<T>().losses.cross_entropy(in, target, w, V, scale, losses.get(), out, M * part / parts,
                                          M * (part + 1) / parts);
      });
      for (i64 m = 0; m < M; ++m) loss += losses.get()[m];
      loss *= scale;
    }
    return py::make_tuple(loss, dlogits);
  });
}

// Flat arrays of one length, changed in place.
template <class T> T* to_flat(const std::string& call, const std::string& name, py::handle object, i64 n) {
  T* data = to_gradient<T>(call, name, object, {n});
  if (!data) wrong_type(call, name, object, "an array");
  return data;
}

i64 flat_size(const std::string& call, py::handle object) {
  const py::array a = to_array(call, "params", object);
  if (a.ndim() != 1) wrong_shape(call, "params", a, "(n,)");
  return a.shape(0);
}

template <class F> void over_elements(i64 n, F f) {
  in_parts(2 * n, [&](int part, int parts) {
    // Multiples of a cache line, so that threads do not write into each other's.
    const i64 begin = n * part / parts / 16 * 16, end = part + 1 == parts ? n : n * (part + 1) / parts / 16 * 16;
    f(begin, end - begin);
  });
}

void adam_step(py::handle params_, py::handle grads_, py::handle m_, py::handle v_, double lr, double beta1,
               double beta2, double eps, double weight_decay, i64 step, bool decoupled) {
  const std::string call = "adam.step";
  if (step < 1) wrong_value(call, "step is " + std::to_string(step) + ", expected at least 1");
  with_real(call, "params", params_, [&]<class T>() {
    const i64 n = flat_size(call, params_);
    T *params = to_flat<T>(call, "params", params_, n), *m = to_flat<T>(call, "m", m_, n),
      *v = to_flat<T>(call, "v", v_, n);
    const py::array_t<T> grads = to_packed<T>(call, "grads", grads_);
    check_shape(call, "grads", grads, {n});
    const T* g = grads.data();
    const AdamStep s{lr, beta1, beta2, eps, weight_decay, step, decoupled};
    const WithoutGil released;
    over_elements(n,
                  [&](i64 i, i64 count) { kernels<T>().optimisers.adam(params + i, g + i, m + i, v + i, count, s); });
  });
}

void sgd_step(py::handle params_, py::handle grads_, py::handle velocity_, double lr, double momentum,
              double weight_decay, bool nesterov) {
  const std::string call = "sgd.step";
  with_real(call, "params", params_, [&]<class T>() {
    const i64 n = flat_size(call, params_);
    T* params = to_flat<T>(call, "params", params_, n);
    T* velocity = to_gradient<T>(call, "velocity", velocity_, {n});
    if (!velocity && momentum != 0) wrong_value(call, "momentum needs a velocity");
    const py::array_t<T> grads = to_packed<T>(call, "grads", grads_);
    check_shape(call, "grads", grads, {n});
    const T* g = grads.data();
    const SgdStep s{lr, momentum, weight_decay, nesterov};
    const WithoutGil released;
    over_elements(n, [&](i64 i, i64 count) {
      kernels<T>().optimisers.sgd(params + i, g + i, velocity ? velocity + i : nullptr, count, s);
    });
  });
}

void rmsprop_step(py::handle params_, py::handle grads_, py::handle square_, py::handle velocity_, double lr,
                  double keep, double add, double eps, double weight_decay, double momentum) {
  const std::string call = "rmsprop.step";
  with_real(call, "params", params_, [&]<class T>() {
    const i64 n = flat_size(call, params_);
    T *params = to_flat<T>(call, "params", params_, n), *square = to_flat<T>(call, "square", square_, n);
    T* velocity = to_gradient<T>(call, "velocity", velocity_, {n});
    if (!velocity && momentum != 0) wrong_value(call, "momentum needs a velocity");
    const py::array_t<T> grads = to_packed<T>(call, "grads", grads_);
    check_shape(call, "grads", grads, {n});
    const T* g = grads.data();
    const RmspropStep s{lr, keep, add, eps, weight_decay, momentum};
    const WithoutGil released;
    over_elements(n, [&](i64 i, i64 count) {
      kernels<T>().optimisers.rmsprop(params + i, g + i, square + i, velocity ? velocity + i : nullptr, count, s);
    });
  });
}

double l2(py::handle x_) {
  const std::string call = "norm.l2";
  return with_real(call, "flat", x_, [&]<class T>() {
    const py::array_t<T> x = to_packed<T>(call, "flat", x_);
    if (x.ndim() != 1) wrong_shape(call, "flat", x, "(n,)");
    const T* data = x.data();
    const i64 n = x.size(), blocks = (n + norm_block - 1) / norm_block;
    const WithoutGil released;
    const Buffer<double> sums(blocks);
    in_parts(n, [&](int part, int parts) {
      for (i64 b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b)
        sums.get()[b] =
            kernels<T>().optimisers.sum_of_squares(data + b * norm_block, std::min(norm_block, n - b * norm_block));
    });
    double total = 0;
    for (i64 b = 0; b < blocks; ++b) total += sums.get()[b];
    return std::sqrt(total);
  });
}

}  // namespace

void bind_dense(py::module_& parent) {
  const py::none none;
  py::module_ linear = parent.def_submodule("linear", "A linear map of rows, compiled.");
  linear.def(
      "forward", [](py::object x, py::object weight, py::object bias) { return linear_forward(x, weight, bias); },
      py::arg("x"), py::arg("weight"), py::arg("bias"), "x (..., I), weight (O, I), bias (O,) or None -> (..., O).");
  linear.def(
      "backward",
      [](py::object dy, py::object x, py::object weight, py::object dweight, py::object dbias) {
        return linear_backward(dy, x, weight, dweight, dbias);
      },
      py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("dweight"), py::arg("dbias"),
      "Returns dx (M, I); dweight and dbias are added to.");

  py::module_ embedding = parent.def_submodule("embedding", "Rows of a table, compiled.");
  embedding.def(
      "forward", [](py::object ids, py::object weight) { return embedding_forward(ids, weight); }, py::arg("ids"),
      py::arg("weight"), "ids (...), weight (V, E) -> (..., E).");
  embedding.def(
      "backward", [](py::object dy, py::object ids, py::object dweight) { embedding_backward(dy, ids, dweight); },
      py::arg("dy"), py::arg("ids"), py::arg("dweight"), "dweight is added to.");

  py::module_ cross_entropy = parent.def_submodule("cross_entropy", "Softmax cross-entropy, compiled.");
  cross_entropy.def(
      "forward",
      [](py::object logits, py::object targets, py::object weights) {
        return cross_entropy_forward(logits, targets, weights);
      },
      py::arg("logits"), py::arg("targets"), py::arg("weights") = none,
      "logits (M, V), targets (M,), weights (M,) or None -> (loss, dlogits).");

  py::module_ adam = parent.def_submodule("adam", "The Adam step, compiled.");
  adam.def(
      "step",
      [](py::object params, py::object grads, py::object m, py::object v, double lr, double beta1, double beta2,
         double eps, double weight_decay, i64 step,
         bool decoupled) { adam_step(params, grads, m, v, lr, beta1, beta2, eps, weight_decay, step, decoupled); },
      py::arg("params"), py::arg("grads"), py::arg("m"), py::arg("v"), py::kw_only(), py::arg("lr"), py::arg("beta1"),
      py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("step"), py::arg("decoupled") = false,
      "Changes params, m and v in place.");

  py::module_ sgd = parent.def_submodule("sgd", "The SGD step, compiled.");
  sgd.def(
      "step",
      [](py::object params, py::object grads, py::object velocity, double lr, double momentum, double weight_decay,
         bool nesterov) { sgd_step(params, grads, velocity, lr, momentum, weight_decay, nesterov); },
      py::arg("params"), py::arg("grads"), py::arg("velocity"), py::kw_only(), py::arg("lr"), py::arg("momentum"),
      py::arg("weight_decay"), py::arg("nesterov"), "Changes params and velocity in place.");

  py::module_ rmsprop = parent.def_submodule("rmsprop", "The RMSprop and Adagrad steps, compiled.");
  rmsprop.def(
      "step",
      [](py::object params, py::object grads, py::object square, py::object velocity, double lr, double keep,
         double add, double eps, double weight_decay, double momentum) {
        rmsprop_step(params, grads, square, velocity, lr, keep, add, eps, weight_decay, momentum);
      },
      py::arg("params"), py::arg("grads"), py::arg("square"), py::arg("velocity"), py::kw_only(), py::arg("lr"),
      py::arg("keep"), py::arg("add"), py::arg("eps"), py::arg("weight_decay"), py::arg("momentum"),
      "Changes params, square and velocity in place.");

  py::module_ norm = parent.def_submodule("norm", "Norms, compiled.");
  norm.def(
      "l2", [](py::object flat) { return l2(flat); }, py::arg("flat"),
      "The Euclidean norm of a flat array, summed in float64.");
}

}  // namespace pyrnn
