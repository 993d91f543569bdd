// pyrnn.kernels.linear.packed: a linear map, or a convolution over one axis, with weights that are packed once.
#include <algorithm>
#include <variant>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/encoded.hpp"
#include "dispatch.hpp"
#include "linear/driver.hpp"

namespace pyrnn {

namespace {

const std::string packed_call = "linear.packed", windowed_call = "linear.windowed";

// f(), which takes so many multiply-adds: with the GIL where others would gain nothing from having it meanwhile.
template <class F> void with_gil_for_little(i64 work, F f) {
  if (work <= 1 << 16) return f();
  const WithoutGil released;
  f();
}

// Windows over x (N, C, T) with zeros around it, as rows of K * C numbers, channels side by side.
struct Window {
  i64 K, stride, dilation, before, after;
  i64 count(i64 T_steps) const {
    const i64 free = T_steps + before + after - dilation * (K - 1) - 1;
    return free < 0 ? 0 : free / stride + 1;
  }
};

// A caller's x (N, C, T), wherever its numbers lie.
template <class T> struct Channels {
  const T* data;
  i64 N, C, steps, batch, channel, step;  // the last three are distances

  explicit Channels(const py::array& x)
      : data(static_cast<const T*>(x.data())),
        N(x.shape(0)),
        C(x.shape(1)),
        steps(x.shape(2)),
        batch(x.strides(0) / i64(sizeof(T))),
        channel(x.strides(1) / i64(sizeof(T))),
        step(x.strides(2) / i64(sizeof(T))) {}

  bool lies_by_steps() const { return (channel == 1 || C == 1) && (step == C || steps == 1); }

  // Step t of row n, or zeros where there is none, to C numbers side by side.
  void copy_step(i64 n, i64 t, T* to) const {
    if (t < 0 || t >= steps) return (void)std::fill_n(to, C, T(0));
    const T* from = data + n * batch + t * step;
    for (i64 c = 0; c < C; ++c) to[c] = from[c * channel];
  }
};

// Where the rows of windows are: in x itself, where it lies so, else in `memory`.
template <class T> struct WindowRows {
  const T* data;
  i64 batch, row;
  Buffer<T> memory;

  WindowRows(const Channels<T>& x, i64 U, const Window& w) : data(x.data), batch(x.batch), row(w.stride * x.C) {
    const bool apart = w.dilation > 1;  // then each row is written out
    if (!apart && !w.before && !w.after && x.lies_by_steps()) return;
    const i64 steps = apart ? U * w.K : x.steps + w.before + w.after;
    if (apart) row = w.K * x.C;
    i64 count;
    if (__builtin_mul_overflow(x.N * x.C, steps, &count) || count > i64(1) << 59)
      throw NoMemory(double(x.N * x.C) * double(steps) * sizeof(T));
    memory = Buffer<T>(count);
    batch = steps * x.C, data = memory.get();
    T* to = memory.get();
    for (i64 n = 0; n < x.N; ++n)
      for (i64 k = 0; k < steps; ++k, to += x.C)
        x.copy_step(n, (apart ? k / w.K * w.stride + k % w.K * w.dilation : k) - w.before, to);
  }
};

template <class F, class Linear> auto of_either(const Linear& linear, F f) {
  return std::visit([&](auto& own) { return f(*own); }, linear);
}

using Either = std::variant<std::unique_ptr<PackedLinear<float>>, std::unique_ptr<PackedLinear<double>>>;

class PackedObject {
 public:
  explicit PackedObject(Either linear) : linear_(std::move(linear)) {}

  py::object forward(py::handle x_) const {
    return of_either(linear_, [&]<class T>(const PackedLinear<T>& linear) -> py::object {
      py::array x = to_typed<T>(packed_call, "x", x_);
      if (x.ndim() < 1 || x.shape(x.ndim() - 1) != linear.I)
        wrong_shape(packed_call, "x", x, "(..., " + std::to_string(linear.I) + ")");
      if (x.ndim() != 2 || !has_plain_rows<T>(x)) x = to_packed<T>(packed_call, "x", x);
      Shape shape(x);
      i64 M = 1;
      for (int k = 0; k + 1 < shape.size(); ++k) M *= x.shape(k);
      shape.back() = linear.O;
      const i64 row = x.ndim() == 2 ? row_distance<T>(x) : linear.I;
      py::array_t<T> y = empty<T>(shape);
      const T* from = static_cast<const T*>(x.data());
      T* to = y.mutable_data();
      with_gil_for_little(M * linear.O * linear.I, [&] { linear.forward(from, 1, 0, M, row, to); });
      return y;
    });
  }

 private:
  Either linear_;
};

class WindowedObject {
 public:
  WindowedObject(Either linear, const Window& window, i64 C) : linear_(std::move(linear)), window_(window), C_(C) {}

  py::array forward(py::handle x) const {
    return of_either(linear_,
                     [&]<class T>(const PackedLinear<T>& linear) { return run(linear, to_channels<T>("x", x)); });
  }

  py::tuple continued(py::handle past_, py::handle x_) const {
    return of_either(linear_, [&]<class T>(const PackedLinear<T>& linear) -> py::tuple {
      const py::array kept[] = {to_channels<T>("past", past_), to_channels<T>("x", x_)};
      const Channels<T> past(kept[0]), x(kept[1]);
      if (past.N != x.N) wrong_shape(windowed_call, "past", kept[0], "(" + std::to_string(x.N) + ", C, T)");
      py::array_t<T> joined = by_steps<T>(x.N, past.steps + x.steps, C_);
      T* to = joined.mutable_data();
      for (i64 n = 0; n < x.N; ++n) {
        for (i64 t = 0; t < past.steps; ++t, to += C_) past.copy_step(n, t, to);
        for (i64 t = 0; t < x.steps; ++t, to += C_) x.copy_step(n, t, to);
      }
      return py::make_tuple(run(linear, joined), joined);
    });
  }

 private:
  template <class T> py::array run(const PackedLinear<T>& linear, const py::array& x_) const {
    const Channels<T> x(x_);
    const i64 U = window_.count(x.steps);
    py::array_t<T> y = by_steps<T>(x.N, U, linear.O);
    T* to = y.mutable_data();
    with_gil_for_little(x.N * U * linear.O * linear.I, [&] {
      const WindowRows<T> rows(x, U, window_);
      linear.forward(rows.data, x.N, rows.batch, U, rows.row, to);
    });
    return y;
  }

  template <class T> py::array to_channels(const char* name, py::handle object) const {
    py::array x = to_typed<T>(windowed_call, name, object);
    if (x.ndim() != 3 || x.shape(1) != C_) wrong_shape(windowed_call, name, x, "(N, " + std::to_string(C_) + ", T)");
    bool whole = x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    for (int axis = 0; axis < 3; ++axis) whole = whole && x.strides(axis) % py::ssize_t(sizeof(T)) == 0;
    return whole ? x : py::array(x.attr("copy")("C"));
  }

  // (N, C, T), uninitialised, in memory that is [N, T, C].
  template <class T> static py::array_t<T> by_steps(i64 N, i64 steps, i64 C) {
    constexpr i64 size = sizeof(T);
    return py::array_t<T>({N, C, steps}, {steps * C * size, size, C * size}, nullptr);
  }

  Either linear_;
  Window window_;
  i64 C_;
};

Activation to_activation(const std::string& call, const std::string& name) {
  const std::pair<const char*, Activation> known[] = {
      {"identity", Activation::identity}, {"relu", Activation::relu},       {"sigmoid", Activation::sigmoid},
      {"tanh", Activation::tanh},         {"softmax", Activation::softmax}, {"log_softmax", Activation::log_softmax}};
  for (const auto& [word, activation] : known)
    if (name == word) return activation;
  wrong_value(call, "activation is " + shown(py::str(name)) +
                        ", expected identity, relu, sigmoid, tanh, softmax or log_softmax");
}

// Of the numbers, or rows, of an array.
py::object activated(py::handle x_, const std::string& activation) {
  const std::string call = "linear.activated";
  const Activation act = to_activation(call, activation);
  return with_dtype(call, "x", x_, [&]<class T>() -> py::object {
    const bool rows = act == Activation::softmax || act == Activation::log_softmax;
    const py::array x = to_typed<T>(call, "x", x_);
    if (rows && (x.ndim() == 0 || x.shape(x.ndim() - 1) == 0)) wrong_shape(call, "x", x, "(..., O)");
    constexpr int plain = int(py::array::c_style) | int(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    py::array y = no_array();
    if ((x.flags() & plain) == plain) {
      y = empty<T>(Shape(x));
      std::copy_n(static_cast<const T*>(x.data()), x.size(), static_cast<T*>(y.mutable_data()));
    } else {
      y = py::array(x.attr("copy")(rows ? "C" : "K"));  // numbers one by one may lie in any order
    }
    T* numbers = static_cast<T*>(y.mutable_data());
    const i64 size = y.size(), O = rows ? y.shape(y.ndim() - 1) : size;
    with_gil_for_little(16 * size, [&] { kernels<T>().linear.activate(act, numbers, size / std::max<i64>(O, 1), O); });
    return y;
  });
}

// weight [O,I] as it is, or in the order of the rows of windows.
template <class T>
Either packed(const std::string& call, const Matrix<const T>& weight, i64 O, i64 I, py::handle bias_,
              const std::string& activation) {
  py::array_t<T> bias = no_array<py::array_t<T>>();
  if (!bias_.is_none()) {
    bias = to_packed<T>(call, "bias", bias_);
    check_shape(call, "bias", bias, {O});
  }
  const T* added = bias_.is_none() ? nullptr : bias.data();
  return std::make_unique<PackedLinear<T>>(kernels<T>().linear, I, O, weight, added, to_activation(call, activation));
}

py::object packed_linear(py::handle weight_, py::handle bias, const std::string& activation) {
  return with_dtype_of_matrix(packed_call, "weight", weight_, [&]<class T>() -> py::object {
    const GivenMatrix<T> given = to_any_matrix<T>(packed_call, "weight", weight_);
    const py::array& weight = given.numbers;
    if (weight.ndim() != 2) wrong_shape(packed_call, "weight", weight, "(O, I)");
    return py::cast(std::make_unique<PackedObject>(
        packed<T>(packed_call, given.matrix, weight.shape(0), weight.shape(1), bias, activation)));
  });
}

py::object windowed(py::handle weight_, py::handle bias, const std::string& activation, Window window) {
  constexpr i64 most = i64(1) << 31;
  const i64 least = std::min({window.stride - 1, window.dilation - 1, window.before, window.after});
  if (least < 0 || std::max({window.stride, window.dilation, window.before, window.after}) > most)
    wrong_value(windowed_call, "stride, dilation, before and after are " + std::to_string(window.stride) + ", " +
                                   std::to_string(window.dilation) + ", " + std::to_string(window.before) + " and " +
                                   std::to_string(window.after));
  return with_dtype(windowed_call, "weight", weight_, [&]<class T>() -> py::object {
    const py::array_t<T> weight = to_packed<T>(windowed_call, "weight", weight_);
    if (weight.ndim() != 3 || weight.size() == 0) wrong_shape(windowed_call, "weight", weight, "(O, C, K)");
    const i64 O = weight.shape(0), C = weight.shape(1), K = weight.shape(2);
    window.K = K;
    const Buffer<T> rows(O * C * K);
    for (i64 o = 0; o < O; ++o)
      for (i64 k = 0; k < K; ++k)
        for (i64 c = 0; c < C; ++c) rows.get()[(o * K + k) * C + c] = weight.data()[(o * C + c) * K + k];
    return py::cast(
        std::make_unique<WindowedObject>(packed<T>(windowed_call, rows.get(), O, K * C, bias, activation), window, C));
  });
}

}  // namespace

void bind_packed(py::module_& m, py::module_& linear) {
  py::class_<PackedObject> map(m, "PackedLinear", "A linear map whose weights are packed once.");
  map.attr("__new__") = never_made();
  map.def("forward", &PackedObject::forward, py::arg("x"), "(..., I) -> (..., O).");
  py::class_<WindowedObject> windows(m, "WindowedLinear", "A linear map of windows over steps: a convolution.");
  windows.attr("__new__") = never_made();
  windows.def("forward", &WindowedObject::forward, py::arg("x"), "x (N, C, T) -> (N, O, U).")
      .def("continued", &WindowedObject::continued, py::arg("past"), py::arg("x"),
           "The same of past (N, C, P) and x (N, C, T) end to end, and these: y, (N, C, P + T).");
  linear.def(
      "packed",
      [](py::object weight, py::object bias, const std::string& activation) {
        return packed_linear(weight, bias, activation);
      },
      py::arg("weight"), py::arg("bias"), py::arg("activation") = "identity",
      "weight (O, I), bias (O,) or None; activation: identity, relu, sigmoid, tanh, softmax or log_softmax of "
      "what comes out.");
  linear.def(
      "windowed",
      [](py::object weight, py::object bias, const std::string& activation, i64 stride, i64 dilation, i64 before,
         i64 after) { return windowed(weight, bias, activation, {1, stride, dilation, before, after}); },
      py::arg("weight"), py::arg("bias"), py::arg("activation") = "identity", py::arg("stride") = 1,
      py::arg("dilation") = 1, py::arg("before") = 0, py::arg("after") = 0,
      "weight (O, C, K): the map of windows of K steps, with zeros before and after x.");
  linear.def(
      "activated", [](py::object x, const std::string& activation) { return activated(x, activation); }, py::arg("x"),
      py::arg("activation"), "x (..., O) -> such a function of its numbers, or of its rows.");
}

}  // namespace pyrnn
