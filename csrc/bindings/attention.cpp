// pyrnn.kernels.attention and additive_attention, forward and backward.
#include <algorithm>
#include <cmath>
#include <span>

#include "attention/contract.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

constexpr i64 most = (i64(1) << 31) - 1;  // of one axis: sizes of work memory do not overflow
constexpr i64 far = i64(1) << 40;         // beyond every key; sums of a few such do not overflow

__extension__ using Wide = __int128;  // holds sums of any two of Python's integers below

// How far a window reaches to one side, -1 where it is open. What is beyond every offset is as good as open.
Wide to_reach(const std::string& call, const std::string& name, py::handle object) {
  if (!PyIndex_Check(object.ptr()) || py::isinstance<py::bool_>(object)) wrong_type(call, name, object, "an integer");
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const i64 value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow < 0 || (!overflow && value < -1))
    wrong_value(call, name + " is " + std::string(py::str(number)) + ", expected at least -1");
  if (!overflow) return value;
  const unsigned long long large = PyLong_AsUnsignedLongLong(number.ptr());
  if (!PyErr_Occurred()) return large;
  PyErr_Clear();
  return -1;
}

double to_number(const std::string& call, const std::string& name, py::handle object) {
  const double number = PyFloat_AsDouble(object.ptr());
  if (number == -1 && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
    PyErr_Clear();
    wrong_type(call, name, object, "a number");
  }
  return number;
}

// What a call says beside its arrays.
struct Options {
  double scale = 0, softcap = 0;
  Wide left = -1, right = -1;
  py::handle offsets = Py_None, lengths = Py_None;
};

// How each of them is read.
struct Option {
  const char* name;
  void (*read)(Options&, const std::string& call, const std::string& name, py::handle value);
};
constexpr Option options[] = {
    {"scale", [](auto& o, auto& call, auto& name, auto value) { o.scale = to_number(call, name, value); }},
    {"left", [](auto& o, auto& call, auto& name, auto value) { o.left = to_reach(call, name, value); }},
    {"right", [](auto& o, auto& call, auto& name, auto value) { o.right = to_reach(call, name, value); }},
    {"softcap", [](auto& o, auto& call, auto& name, auto value) { o.softcap = to_number(call, name, value); }},
    {"offsets", [](auto& o, auto&, auto&, auto value) { o.offsets = value; }},
    {"lengths", [](auto& o, auto&, auto&, auto value) { o.lengths = value; }}};

Options to_options(const std::string& call, const py::kwargs& given) {
  Options read;
  bool scaled = false;
  for (const auto& [key, value] : given) {
    const auto* option = std::find_if(std::begin(options), std::end(options), [key = key](const Option& o) {
      return PyUnicode_CompareWithASCIIString(key.ptr(), o.name) == 0;
    });
    if (option == std::end(options)) throw py::type_error(call + ": there is no option " + shown(key));
    option->read(read, call, option->name, value);
    scaled |= option == options;
  }
  if (!scaled) throw py::type_error(call + ": " + options[0].name + " is missing");
  if (!(read.softcap >= 0) || !std::isfinite(read.softcap))
    wrong_value(call, "softcap is " + std::to_string(read.softcap) + ", expected at least 0");
  return read;
}

// The axes before the last three, as one.
struct Batch {
  Shape shape{};
  i64 size = 1;
};

Batch batch_of(const py::array& a) {
  Batch batch;
  for (py::ssize_t i = 0; i + 3 < a.ndim(); ++i) batch.shape.add(a.shape(i)), batch.size *= a.shape(i);
  return batch;
}

bool same_batch(const Batch& batch, const py::array& a) {
  if (a.ndim() != batch.shape.size() + 3) return false;
  return std::equal(batch.shape.begin(), batch.shape.end(), a.shape());
}

// Where each element of the batch begins, in elements of T.
template <class T> void batch_offsets(const Batch& batch, const py::array& a, std::vector<i64>& offsets) {
  offsets.assign(std::size_t(batch.size), 0);
  i64 repeat = 1;  // elements of the batch for one step along an axis
  for (int axis = batch.shape.size(); axis-- > 0;) {
    const i64 n = batch.shape.begin()[axis], stride = a.strides(axis) / i64(sizeof(T));
    for (i64 b = 0; b < batch.size; ++b) offsets[std::size_t(b)] += b / repeat % n * stride;
    repeat *= n;
  }
}

// All strides whole numbers of elements, and memory aligned; with `plain_rows` the last axis side by side.
template <class T> bool has_plain_strides(const py::array& a, bool plain_rows) {
  if (plain_rows && !has_plain_rows<T>(a)) return false;
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
  for (py::ssize_t i = 0; i < a.ndim(); ++i)
    if (a.strides(i) % py::ssize_t(sizeof(T)) != 0) return false;
  return true;
}

template <class T> i64 stride(const py::array& a, int from_end) {
  return a.strides(a.ndim() - from_end) / i64(sizeof(T));
}

void check_sizes(const std::string& call, std::initializer_list<i64> sizes) {
  for (const i64 size : sizes)
    if (size > most)
      wrong_value(call, "an axis has " + std::to_string(size) + " elements, expected at most " + std::to_string(most));
}

void check_lengths(const std::string& call, std::span<const i64> lengths, i64 keys) {
  for (const i64 length : lengths)
    if (length < 0 || length > keys)
      wrong_value(call, "lengths holds " + std::to_string(length) + ", expected 0 to " + std::to_string(keys));
}

// The arguments of one call, checked; arrays are read where they lie, or from copies where their rows do not lie plain.
template <class T> struct AttentionCall {
  Attention<T> a;
  Batch batch;
  i64 Hq = 0;
  py::array query = no_array(), key = query, value = query, mask = query;
  std::vector<typename Attention<T>::Place> places;
  std::vector<i64> lengths;

  AttentionCall(const std::string& call, py::handle query_, py::handle key_, py::handle value_, py::handle mask_,
                const py::kwargs& given) {
    const Options said = to_options(call, given);
    query = take(call, "query", query_);
    if (query.ndim() < 3) wrong_shape(call, "query", query, "(..., Hq, S, E)");
    batch = batch_of(query);
    key = take(call, "key", key_);
    value = take(call, "value", value_);
    const py::ssize_t n = query.ndim();
    Hq = query.shape(n - 3), a.S = query.shape(n - 2), a.E = query.shape(n - 1);
    if (!same_batch(batch, key) || key.shape(n - 1) != a.E)
      wrong_shape(call, "key", key,
                  "(..., Hk, K, " + std::to_string(a.E) + ") as query, which has shape " + shape_text(query));
    a.Hk = key.shape(n - 3), a.K = key.shape(n - 2);
    if (!same_batch(batch, value) || value.shape(n - 3) != a.Hk || value.shape(n - 2) != a.K)
      wrong_shape(call, "value", value, "(..., Hk, K, Ev) as key, which has shape " + shape_text(key));
    a.Ev = value.shape(n - 1);
    check_sizes(call, {a.S, a.K, a.E, a.Ev});
    if (a.Hk == 0 ? Hq != 0 : Hq % a.Hk != 0)
      wrong_shape(call, "key", key, "heads that divide those of query, which has shape " + shape_text(query));
    a.B = batch.size, a.G = a.Hk ? Hq / a.Hk : 0;
    a.query = static_cast<const T*>(query.data()), a.key = static_cast<const T*>(key.data());
    a.value = static_cast<const T*>(value.data());
    a.query_head = stride<T>(query, 3), a.query_row = stride<T>(query, 2);
    a.key_head = stride<T>(key, 3), a.key_row = stride<T>(key, 2);
    a.value_head = stride<T>(value, 3), a.value_row = stride<T>(value, 2);

    places.resize(std::size_t(batch.size));
    std::vector<i64> from;
    const auto place = [&](i64 Attention<T>::Place::* which) {
      for (std::size_t b = 0; b < places.size(); ++b) places[b].*which = from[b];
    };
    batch_offsets<T>(batch, query, from), place(&Attention<T>::Place::query);
    batch_offsets<T>(batch, key, from), place(&Attention<T>::Place::key);
    batch_offsets<T>(batch, value, from), place(&Attention<T>::Place::value);
    if (!mask_.is_none()) {
      mask = to_array(call, "mask", mask_);
      if (!same_batch(batch, mask) || mask.shape(n - 3) != Hq || mask.shape(n - 2) != a.S || mask.shape(n - 1) != a.K)
        wrong_shape(
            call, "mask", mask,
            "(..., " + std::to_string(Hq) + ", " + std::to_string(a.S) + ", " + std::to_string(a.K) + ") as query");
      if (py::isinstance<py::array_t<bool>>(mask)) {
        a.seen = static_cast<const std::uint8_t*>(mask.data());
        mask_strides<std::uint8_t>(from);
      } else if (py::isinstance<py::array_t<T>>(mask)) {
        if (!has_plain_strides<T>(mask, false)) mask = py::array(mask.attr("copy")("C"));
        a.bias = static_cast<const T*>(mask.data());
        mask_strides<T>(from);
      } else {
        wrong_type(call, "mask", mask, std::string("dtype bool or ") + dtype_name<T>());
      }
      place(&Attention<T>::Place::mask);
    }
    a.places = places.data();

    a.scale = T(said.scale), a.softcap = T(said.softcap);
    a.left = i64(std::min<Wide>(said.left, far)), a.right = i64(std::min<Wide>(said.right, far));
    std::vector<i64> offsets(places.size(), 0);
    if (!said.offsets.is_none()) numbers(call, "offsets", said.offsets, offsets);
    for (std::size_t b = 0; b < places.size(); ++b) {
      // Clamped once they are added up: far to one side and as far back is near.
      places[b].low = said.left < 0 ? -far : i64(std::clamp<Wide>(offsets[b] - said.left, -far, far));
      places[b].high = said.right < 0 ? far : i64(std::clamp<Wide>(offsets[b] + said.right, -far, far));
    }
    if (!said.lengths.is_none()) {
      numbers(call, "lengths", said.lengths, lengths);
      check_lengths(call, lengths, a.K);
      a.lengths = lengths.data();
    }
  }

  Shape shape(i64 heads, i64 rows, i64 features) const {
    Shape shape = batch.shape;
    for (const i64 length : {heads, rows, features}) shape.add(length);
    return shape;
  }

 private:
  static py::array take(const std::string& call, const std::string& name, py::handle object) {
    py::array array = to_typed<T>(call, name, object);
    if (array.ndim() && !has_plain_strides<T>(array, true)) array = py::array(array.attr("copy")("C"));
    return array;
  }

  template <class M> void mask_strides(std::vector<i64>& from) {
    batch_offsets<M>(batch, mask, from);
    a.mask_head = stride<M>(mask, 3), a.mask_row = stride<M>(mask, 2), a.mask_key = stride<M>(mask, 1);
  }

  // One integer for each element of the batch.
  void numbers(const std::string& call, const std::string& name, py::handle object, std::vector<i64>& out) const {
    const py::array_t<i64> array = to_packed<i64>(call, name, object);
    if (!has_shape(array, batch.shape)) wrong_shape(call, name, array, shape_words(batch.shape));
    out.assign(array.data(), array.data() + array.size());
  }
};

py::tuple forward(const py::object& query, const py::object& key, const py::object& value, const py::object& mask,
                  const py::kwargs& named) {
  const std::string name = "attention.forward";
  return with_dtype(name, "query", query, [&]<class T>() -> py::tuple {
    const AttentionCall<T> call(name, query, key, value, mask, named);
    py::array_t<T> out = empty<T>(call.shape(call.Hq, call.a.S, call.a.Ev)),
                   stats = empty<T>(call.shape(call.Hq, call.a.S, 2));
    T *out_data = out.mutable_data(), *stats_data = stats.mutable_data();
    {
      const WithoutGil released;
      attention_forward(kernels<T>().attention, call.a, out_data, stats_data);
    }
    return py::make_tuple(out, stats);
  });
}

py::tuple backward(const py::object& dout_, const py::object& query, const py::object& key, const py::object& value,
                   const py::object& out_, const py::object& stats_, const py::object& mask, const py::kwargs& named) {
  const std::string name = "attention.backward";
  return with_dtype(name, "query", query, [&]<class T>() -> py::tuple {
    const AttentionCall<T> call(name, query, key, value, mask, named);
    const Attention<T>& a = call.a;
    const auto given = [&](const char* what, py::handle object, i64 features) {
      const py::array_t<T> array = to_packed<T>(name, what, object);
      check_shape(name, what, array, call.shape(call.Hq, a.S, features));
      return array;
    };
    const py::array_t<T> dout = given("dout", dout_, a.Ev), out = given("out", out_, a.Ev),
                         stats = given("stats", stats_, 2);
    py::array_t<T> dquery = empty<T>(call.shape(call.Hq, a.S, a.E)), dkey = empty<T>(call.shape(a.Hk, a.K, a.E)),
                   dvalue = empty<T>(call.shape(a.Hk, a.K, a.Ev));
    T *dq = dquery.mutable_data(), *dk = dkey.mutable_data(), *dv = dvalue.mutable_data();
    {
      const WithoutGil released;
      attention_backward(kernels<T>().attention, a, dout.data(), out.data(), stats.data(), dq, dk, dv);
    }
    return py::make_tuple(dquery, dkey, dvalue);
  });
}

// Additive attention's arguments, checked, as C-ordered arrays.
template <class T> struct AdditiveCall {
  AdditiveAttention<T> a;
  py::array_t<T> query = no_array<py::array_t<T>>(), key = query, value = query, score = query;
  std::vector<i64> lengths;

  AdditiveCall(const std::string& call, py::handle query_, py::handle key_, py::handle value_, py::handle score_,
               py::handle lengths_) {
    // Shapes before copies: a broadcast array may be larger than any memory.
    const py::array q = to_typed<T>(call, "query", query_), k = to_typed<T>(call, "key", key_),
                    v = to_typed<T>(call, "value", value_);
    if (q.ndim() != 3) wrong_shape(call, "query", q, "(N, S, H)");
    a.N = q.shape(0), a.S = q.shape(1), a.H = q.shape(2);
    if (k.ndim() != 3 || k.shape(0) != a.N || k.shape(2) != a.H)
      wrong_shape(call, "key", k, "(N, K, H) as query, which has shape " + shape_text(q));
    a.K = k.shape(1);
    if (v.ndim() != 3 || v.shape(0) != a.N || v.shape(1) != a.K)
      wrong_shape(call, "value", v, "(N, K, Ev) as key, which has shape " + shape_text(k));
    a.Ev = v.shape(2);
    check_sizes(call, {a.S, a.K, a.H, a.Ev});
    query = to_packed<T>(call, "query", q), key = to_packed<T>(call, "key", k), value = to_packed<T>(call, "value", v);
    score = to_packed<T>(call, "score", score_);
    check_shape(call, "score", score, {a.H});
    a.query = query.data(), a.key = key.data(), a.value = value.data(), a.score = score.data();
    if (!lengths_.is_none()) {
      const py::array_t<i64> given = to_packed<i64>(call, "lengths", lengths_);
      check_shape(call, "lengths", given, {a.N});
      lengths.assign(given.data(), given.data() + a.N);
      check_lengths(call, lengths, a.K);
      a.lengths = lengths.data();
    }
  }
};

py::tuple additive_forward(const py::object& query, const py::object& key, const py::object& value,
                           const py::object& score, const py::object& lengths) {
  const std::string name = "additive_attention.forward";
  return with_dtype(name, "query", query, [&]<class T>() -> py::tuple {
    const AdditiveCall<T> call(name, query, key, value, score, lengths);
    const AdditiveAttention<T>& a = call.a;
    py::array_t<T> out = empty<T>({a.N, a.S, a.Ev}), weights = empty<T>({a.N, a.S, a.K});
    T *out_data = out.mutable_data(), *weights_data = weights.mutable_data();
    {
      const WithoutGil released;
      additive_attention_forward(kernels<T>().additive_attention, a, out_data, weights_data);
    }
    return py::make_tuple(out, weights);
  });
}

py::tuple additive_backward(const py::object& dout_, const py::object& query, const py::object& key,
                            const py::object& value, const py::object& score, const py::object& weights_,
                            const py::object& dscore_, const py::object& lengths) {
  const std::string name = "additive_attention.backward";
  return with_dtype(name, "query", query, [&]<class T>() -> py::tuple {
    const AdditiveCall<T> call(name, query, key, value, score, lengths);
    const AdditiveAttention<T>& a = call.a;
    const py::array_t<T> dout = to_packed<T>(name, "dout", dout_), weights = to_packed<T>(name, "weights", weights_);
    check_shape(name, "dout", dout, {a.N, a.S, a.Ev});
    check_shape(name, "weights", weights, {a.N, a.S, a.K});
    if (dscore_.is_none()) wrong_type(name, "dscore", dscore_, "a NumPy array");
    T* dscore = to_gradient<T>(name, "dscore", dscore_, {a.H});
    py::array_t<T> dquery = empty<T>({a.N, a.S, a.H}), dkey = empty<T>({a.N, a.K, a.H}),
                   dvalue = empty<T>({a.N, a.K, a.Ev});
    T *dq = dquery.mutable_data(), *dk = dkey.mutable_data(), *dv = dvalue.mutable_data();
    {
      const WithoutGil released;
      additive_attention_backward(kernels<T>().additive_attention, a, dout.data(), weights.data(), dq, dk, dv, dscore);
    }
    return py::make_tuple(dquery, dkey, dvalue);
  });
}

}  // namespace

void bind_attention(py::module_& parent) {
  const py::none none;
  py::module_ attention = parent.def_submodule("attention", "Scaled dot-product attention, compiled.");
  py::list names;
  for (const Option& option : options) names.append(option.name);
  attention.attr("OPTIONS") = py::tuple(names);
  attention.def(
      "forward", &forward, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("mask") = none,
      "query (..., Hq, S, E), key (..., Hk, K, E), value (..., Hk, K, Ev) -> out (..., Hq, S, Ev), stats (..., Hq, S, "
      "2). By name: scale, and the other OPTIONS.");
  attention.def("backward", &backward, py::arg("dout"), py::arg("query"), py::arg("key"), py::arg("value"),
                py::arg("out"), py::arg("stats"), py::arg("mask") = none,
                "Returns dquery, dkey, dvalue, shaped as query, key and value.");
  py::module_ additive = parent.def_submodule("additive_attention", "Additive attention, compiled.");
  additive.def("forward", &additive_forward, py::arg("query"), py::arg("key"), py::arg("value"), py::arg("score"),
               py::arg("lengths") = none,
               "query (N, S, H), key (N, K, H), value (N, K, Ev), score (H,), lengths (N,) -> out (N, S, Ev), weights "
               "(N, S, K).");
  additive.def("backward", &additive_backward, py::arg("dout"), py::arg("query"), py::arg("key"), py::arg("value"),
               py::arg("score"), py::arg("weights"), py::arg("dscore"), py::arg("lengths") = none,
               "Returns dquery, dkey, dvalue, shaped as query, key and value; adds to dscore (H,).");
}

}  // namespace pyrnn
