// pyrnn.kernels.hopfield: Hebbian weights, local fields and sweeps of associative memories.
#include "associative/driver.hpp"
#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

using i8 = std::int8_t;
using i32 = std::int32_t;
using u32 = std::uint32_t;

const PatternKernels& pattern_kernels() { return kernels<float>().hopfield; }

// A matrix of one dtype that is read; `columns` is -1 where any number will do.
template <class T>
py::array_t<T> to_table(const std::string& call, const std::string& name, py::handle object, i64 columns,
                        const char* expected) {
  py::array_t<T> a = to_packed<T>(call, name, object);
  if (a.ndim() != 2 || (columns >= 0 && a.shape(1) != columns)) wrong_shape(call, name, a, expected);
  return a;
}

template <class T>
py::array_t<T> to_vector(const std::string& call, const std::string& name, py::handle object, i64 length) {
  py::array_t<T> a = to_packed<T>(call, name, object);
  check_shape(call, name, a, {length});
  return a;
}

// A matrix that is changed in place.
template <class T>
T* to_changed(const std::string& call, const std::string& name, py::handle object, i64 rows, i64 columns) {
  T* data = to_gradient<T>(call, name, object, {rows, columns});
  if (!data) wrong_type(call, name, object, "an array");
  return data;
}

// Patterns and what keeps their memory alive.
struct Held {
  Patterns patterns;
  py::array_t<u32> bits = no_array<py::array_t<u32>>();
  std::vector<u32> negative;
};

Held to_patterns(const std::string& call, py::handle bits_, py::handle negative_) {
  Held held;
  const py::array_t<bool> negative = to_packed<bool>(call, "negative", negative_);
  if (negative.ndim() != 1) wrong_shape(call, "negative", negative, "(P,)");
  Patterns& p = held.patterns;
  p.P = negative.shape(0), p.words = ceil_div(p.P, word_bits);
  held.bits = to_packed<u32>(call, "bits", bits_);
  if (held.bits.ndim() != 2 || held.bits.shape(1) != p.words)
    wrong_shape(call, "bits", held.bits, "(n, " + std::to_string(p.words) + ")");
  p.n = held.bits.shape(0);
  if (p.n > most_units)
    wrong_value(call, "bits has " + std::to_string(p.n) + " units, expected at most " + std::to_string(most_units));
  held.negative.resize(std::size_t(p.words));
  p.signs = p.P;
  for (i64 k = 0; k < p.P; ++k)
    if (negative.data()[k]) {
      held.negative[std::size_t(k / word_bits)] |= u32(1) << (k % word_bits);
      p.signs -= 2;
    }
  p.bits = held.bits.data(), p.negative = held.negative.data();
  return held;
}

// A sweep and what keeps its memory alive.
struct HeldSweep {
  Sweep sweep;
  std::vector<i64> order;
  py::array_t<double> threshold = no_array<py::array_t<double>>(), external = threshold;
};

HeldSweep to_sweep(const std::string& call, i64 N, i64 n, py::handle order_, py::handle threshold_,
                   py::handle external_) {
  HeldSweep held;
  held.sweep.n = n;
  const py::array_t<i64> order = to_vector<i64>(call, "order", order_, n);
  held.order.assign(order.data(), order.data() + n);  // a copy: the caller may change its array meanwhile
  std::vector<bool> seen(std::size_t(n), false);
  for (const i64 i : held.order) {
    if (i < 0 || i >= n || seen[std::size_t(i)])
      wrong_value(call, "order holds " + std::to_string(i) + (i < 0 || i >= n ? "" : " twice") +
                            ", expected a permutation of 0 to " + std::to_string(n - 1));
    seen[std::size_t(i)] = true;
  }
  held.sweep.order = held.order.data();
  if (!threshold_.is_none()) {
    held.threshold = to_vector<double>(call, "threshold", threshold_, n);
    held.sweep.threshold = held.threshold.data();
  }
  if (!external_.is_none()) {
    held.external = to_packed<double>(call, "external", external_);
    if (!has_shape(held.external, {n}) && !has_shape(held.external, {N, n}))
      wrong_shape(call, "external", held.external, shape_words({n}) + " or " + shape_words({N, n}));
    held.sweep.external = held.external.data();
    held.sweep.external_row = held.external.ndim() == 2 ? n : 0;
  }
  return held;
}

i64 rows_of(const std::string& call, py::handle state_, i64 n) {
  const py::array state = to_typed<i8>(call, "state", state_);
  if (state.ndim() != 2 || state.shape(1) != n) wrong_shape(call, "state", state, "(N, " + std::to_string(n) + ")");
  return state.shape(0);
}

int to_off(const std::string& call, py::handle off) { return int(to_integer(call, "off", off, -1, 0)); }

py::array pack(py::handle on_) {
  const std::string call = "hopfield.pack";
  const py::array_t<bool> on = to_table<bool>(call, "on", on_, -1, "(P, n)");
  const i64 P = on.shape(0), n = on.shape(1);
  py::array_t<u32> bits = empty<u32>({n, ceil_div(P, word_bits)});
  const auto* from = reinterpret_cast<const std::uint8_t*>(on.data());
  u32* to = bits.mutable_data();
  const WithoutGil released;
  hopfield_pack(pattern_kernels(), from, P, n, to);
  return bits;
}

template <class T> py::array hebbian_of(const Held& held) {
  py::array_t<T> weights = empty<T>({held.patterns.n, held.patterns.n});
  T* out = weights.mutable_data();
  const WithoutGil released;
  hopfield_hebbian(kernels<T>().hopfield, held.patterns, out);
  return weights;
}

py::array hebbian(py::handle bits, py::handle negative, const std::string& dtype) {
  const std::string call = "hopfield.hebbian";
  const Held held = to_patterns(call, bits, negative);
  if (dtype == "float32") return hebbian_of<float>(held);
  if (dtype == "float64") return hebbian_of<double>(held);
  wrong_value(call, "dtype is " + shown(py::str(dtype)) + ", expected 'float32' or 'float64'");
}

py::array overlaps(py::handle bits, py::handle negative, py::handle state_) {
  const std::string call = "hopfield.overlaps";
  const Held held = to_patterns(call, bits, negative);
  const Patterns& p = held.patterns;
  const py::array_t<i8> state = to_table<i8>(call, "state", state_, p.n, "(N, n)");
  const i64 N = state.shape(0);
  py::array_t<i32> result = empty<i32>({N, p.words * word_bits});
  const i8* from = state.data();
  i32* to = result.mutable_data();
  const WithoutGil released;
  hopfield_overlaps(pattern_kernels(), p, N, from, to);
  return result;
}

py::array pattern_fields(py::handle bits, py::handle negative, py::handle overlaps_, py::handle state_) {
  const std::string call = "hopfield.pattern_fields";
  const Held held = to_patterns(call, bits, negative);
  const Patterns& p = held.patterns;
  const py::array_t<i8> state = to_table<i8>(call, "state", state_, p.n, "(N, n)");
  const i64 N = state.shape(0);
  const py::array_t<i32> overlaps = to_packed<i32>(call, "overlaps", overlaps_);
  check_shape(call, "overlaps", overlaps, {N, p.words * word_bits});
  py::array_t<double> fields = empty<double>({N, p.n});
  const i8* from = state.data();
  const i32* m = overlaps.data();
  double* to = fields.mutable_data();
  const WithoutGil released;
  hopfield_pattern_fields(pattern_kernels(), p, N, m, from, to);
  return fields;
}

// States that a sweep over stored patterns changes, and their overlaps with these.
struct Swept {
  const Held held;
  const Patterns& patterns = held.patterns;
  const i64 N;
  i8* const state;
  i32* const overlaps;

  Swept(const std::string& call, py::handle bits, py::handle negative, py::handle overlaps_, py::handle state_)
      : held(to_patterns(call, bits, negative)),
        N(rows_of(call, state_, patterns.n)),
        state(to_changed<i8>(call, "state", state_, N, patterns.n)),
        overlaps(to_changed<i32>(call, "overlaps", overlaps_, N, patterns.words * word_bits)) {}
};

py::array pattern_sweep(py::handle bits, py::handle negative, py::handle overlaps, py::handle state, py::handle order,
                        py::handle threshold, py::handle external, py::handle off) {
  const std::string call = "hopfield.pattern_sweep";
  const Swept rows(call, bits, negative, overlaps, state);
  if (threshold.is_none()) wrong_type(call, "threshold", threshold, "an array");
  HeldSweep sweep = to_sweep(call, rows.N, rows.patterns.n, order, threshold, external);
  sweep.sweep.off = to_off(call, off);
  py::array_t<i64> flips = empty<i64>({rows.N});
  i64* counted = flips.mutable_data();
  const WithoutGil released;
  hopfield_pattern_sweep(pattern_kernels(), rows.patterns, sweep.sweep, rows.N, rows.overlaps, rows.state, counted);
  return flips;
}

py::array dense_sweep(py::handle bits, py::handle negative, py::handle overlaps, py::handle state, py::handle order,
                      py::handle gap_, py::handle external, bool relative) {
  const std::string call = "hopfield.dense_sweep";
  const Swept rows(call, bits, negative, overlaps, state);
  const py::array_t<double> table = to_vector<double>(call, "gap", gap_, 2 * rows.patterns.n + 1);
  const HeldSweep sweep = to_sweep(call, rows.N, rows.patterns.n, order, py::none(), external);
  const Gap gap{table.data(), relative};
  py::array_t<i64> flips = empty<i64>({rows.N});
  i64* counted = flips.mutable_data();
  const WithoutGil released;
  hopfield_dense_sweep(pattern_kernels(), rows.patterns, gap, sweep.sweep, rows.N, rows.overlaps, rows.state, counted);
  return flips;
}

template <class T> py::array_t<T> to_weights(const std::string& call, py::handle object) {
  py::array_t<T> weights = to_packed<T>(call, "weights", object);
  if (weights.ndim() != 2 || weights.shape(0) != weights.shape(1)) wrong_shape(call, "weights", weights, "(n, n)");
  return weights;
}

py::array fields(py::handle weights_, py::handle state_) {
  const std::string call = "hopfield.fields";
  return with_dtype(call, "weights", weights_, [&]<class T>() -> py::array {
    const py::array_t<T> weights = to_weights<T>(call, weights_);
    const i64 n = weights.shape(0);
    const py::array_t<i8> state = to_table<i8>(call, "state", state_, n, "(N, n)");
    const i64 N = state.shape(0);
    py::array_t<double> result = empty<double>({N, n});
    const T* w = weights.data();
    const i8* from = state.data();
    double* to = result.mutable_data();
    const WithoutGil released;
    hopfield_fields(kernels<T>().hopfield, w, n, N, from, to);
    return result;
  });
}

py::array sweep(py::handle weights_, py::handle fields_, py::handle state_, py::handle order, py::handle threshold,
                py::handle external, py::handle off) {
  const std::string call = "hopfield.sweep";
  return with_dtype(call, "weights", weights_, [&]<class T>() -> py::array {
    const py::array_t<T> weights = to_weights<T>(call, weights_);
    const i64 n = weights.shape(0), N = rows_of(call, state_, n);
    i8* state = to_changed<i8>(call, "state", state_, N, n);
    double* field = to_changed<double>(call, "fields", fields_, N, n);
    if (threshold.is_none()) wrong_type(call, "threshold", threshold, "an array");
    HeldSweep held = to_sweep(call, N, n, order, threshold, external);
    held.sweep.off = to_off(call, off);
    py::array_t<i64> flips = empty<i64>({N});
    const T* w = weights.data();
    i64* counted = flips.mutable_data();
    const WithoutGil released;
    hopfield_sweep(kernels<T>().hopfield, w, held.sweep, N, field, state, counted);
    return flips;
  });
}

}  // namespace

void bind_hopfield(py::module_& parent) {
  const py::none none;
  py::module_ m = parent.def_submodule("hopfield", "Associative memories, compiled.");
  m.def(
      "pack", [](py::object on) { return pack(on); }, py::arg("on"),
      "on (P, n) -> bits (n, ceil(P / 32)) uint32: bit p % 32 of word p / 32 is on[p].");
  m.def(
      "hebbian",
      [](py::object bits, py::object negative, const std::string& dtype) { return hebbian(bits, negative, dtype); },
      py::arg("bits"), py::arg("negative"), py::arg("dtype") = "float32",
      "bits (n, words), negative (P,) -> weights (n, n): the signed sum of x_i x_j, i != j.");
  m.def(
      "overlaps",
      [](py::object bits, py::object negative, py::object state) { return overlaps(bits, negative, state); },
      py::arg("bits"), py::arg("negative"), py::arg("state"),
      "state (N, n) int8 -> (N, 32 words) int32: sign_p sum_i x_pi s_i, 0 beyond P.");
  m.def(
      "pattern_fields",
      [](py::object bits, py::object negative, py::object overlaps, py::object state) {
        return pattern_fields(bits, negative, overlaps, state);
      },
      py::arg("bits"), py::arg("negative"), py::arg("overlaps"), py::arg("state"),
      "The local fields (N, n) float64 of a state under the Hebbian weights, from its overlaps.");
  m.def(
      "pattern_sweep",
      [](py::object bits, py::object negative, py::object overlaps, py::object state, py::object order,
         py::object threshold, py::object external,
         py::object off) { return pattern_sweep(bits, negative, overlaps, state, order, threshold, external, off); },
      py::arg("bits"), py::arg("negative"), py::arg("overlaps"), py::arg("state"), py::arg("order"),
      py::arg("threshold"), py::arg("external") = none, py::arg("off") = -1,
      "One asynchronous sweep: changes overlaps and state in place, returns the flips of each row (N,).");
  m.def(
      "dense_sweep",
      [](py::object bits, py::object negative, py::object overlaps, py::object state, py::object order, py::object gap,
         py::object external,
         bool relative) { return dense_sweep(bits, negative, overlaps, state, order, gap, external, relative); },
      py::arg("bits"), py::arg("negative"), py::arg("overlaps"), py::arg("state"), py::arg("order"), py::arg("gap"),
      py::arg("external") = none, py::arg("relative") = false,
      "One asynchronous sweep under an energy -sum_p F(overlap_p), gap (2 n + 1,): its differences F(r + 1) - F(r - "
      "1).");
  m.def(
      "fields", [](py::object weights, py::object state) { return fields(weights, state); }, py::arg("weights"),
      py::arg("state"), "weights (n, n), state (N, n) int8 -> local fields (N, n) float64.");
  m.def(
      "sweep",
      [](py::object weights, py::object fields, py::object state, py::object order, py::object threshold,
         py::object external,
         py::object off) { return sweep(weights, fields, state, order, threshold, external, off); },
      py::arg("weights"), py::arg("fields"), py::arg("state"), py::arg("order"), py::arg("threshold"),
      py::arg("external") = none, py::arg("off") = -1,
      "One asynchronous sweep: changes fields and state in place, returns the flips of each row (N,).");
}

}  // namespace pyrnn
