// pyrnn.kernels.conv1d: convolution over time, its gradients, and its stream.
#include <atomic>
#include <memory>
#include <variant>

#include "bindings/arrays.hpp"
#include "bindings/bindings.hpp"
#include "bindings/exclusive.hpp"
#include "convolution/driver.hpp"
#include "dispatch.hpp"

namespace pyrnn {

namespace {

constexpr i64 most_steps = (i64(1) << 31) - 1;

// weight (O, C / groups, K) and bias, kept alive, and what they and the numbers say of a convolution.
template <class T> struct ConvolutionWeights {
  py::array_t<T> weight, bias = no_array<py::array_t<T>>();
  ConvolutionSizes size;

  ConvolutionWeights(const std::string& call, py::handle weight_, py::handle bias_, py::handle stride,
                     py::handle dilation, py::handle groups)
      : weight(to_packed<T>(call, "weight", weight_)) {
    if (weight.ndim() != 3 || weight.size() == 0) wrong_shape(call, "weight", weight, "(O, C / groups, K)");
    size.groups = to_integer(call, "groups", groups, 1, most_steps);
    size.stride = to_integer(call, "stride", stride, 1, most_steps);
    size.dilation = to_integer(call, "dilation", dilation, 1, most_steps);
    size.O = weight.shape(0), size.C = weight.shape(1) * size.groups, size.K = weight.shape(2);
    if (size.O % size.groups)
      wrong_value(call, "weight has " + std::to_string(size.O) + " channels of y, expected a multiple of groups, " +
                            std::to_string(size.groups));
    if (size.K > most_steps || size.reach() > most_steps)
      wrong_value(call, "dilation * (K - 1) is " + std::to_string(size.reach()) + ", expected at most " +
                            std::to_string(most_steps));
    if (bias_.is_none()) return;
    bias = to_packed<T>(call, "bias", bias_);
    check_shape(call, "bias", bias, {size.O});
  }
};

// Everything forward and backward have in common, checked.
template <class T> struct ConvolutionCall {
  ConvolutionWeights<T> weights;
  py::array x;
  std::vector<i64> lengths;
  Convolution<T> convolution;

  ConvolutionCall(const std::string& call, py::handle x_, py::handle weight, py::handle bias, py::handle stride,
                  py::handle dilation, py::handle groups, py::handle before, py::handle after, py::handle lengths_)
      : weights(call, weight, bias, stride, dilation, groups), x(to_typed<T>(call, "x", x_)) {
    Convolution<T>& c = convolution;
    c.size = weights.size, c.weight = weights.weight.data();
    if (!bias.is_none()) c.bias = weights.bias.data();
    if (x.ndim() != 3 || x.shape(2) != c.size.C) wrong_shape(call, "x", x, "(T, N, " + std::to_string(c.size.C) + ")");
    c.steps = x.shape(0), c.N = x.shape(1);
    c.before = to_integer(call, "before", before, 0, most_steps);
    c.after = to_integer(call, "after", after, 0, most_steps);
    lengths = to_lengths(call, lengths_, c.steps, c.N);
    if (!lengths_.is_none()) c.lengths = lengths.data();
    c.x = to_steps<T>(x);
  }
};

py::object convolve(py::handle x, py::handle weight, py::handle bias, py::handle stride, py::handle dilation,
                    py::handle groups, py::handle before, py::handle after, py::handle lengths) {
  const std::string name = "conv1d.forward";
  return with_dtype(name, "x", x, [&]<class T>() -> py::object {
    const ConvolutionCall<T> call(name, x, weight, bias, stride, dilation, groups, before, after, lengths);
    const Convolution<T>& c = call.convolution;
    py::array y = laid_out_as<T>(call.x, c.counted(), c.size.O);
    const Steps<T> steps = writable_steps<T>(y);
    const WithoutGil released;
    convolution_forward(kernels<T>().convolution, c, steps);
    return y;
  });
}

py::object convolve_back(py::handle dy_, py::handle x, py::handle weight, py::handle dweight_, py::handle dbias_,
                         py::handle stride, py::handle dilation, py::handle groups, py::handle before, py::handle after,
                         py::handle lengths) {
  const std::string name = "conv1d.backward";
  return with_dtype(name, "x", x, [&]<class T>() -> py::object {
    const ConvolutionCall<T> call(name, x, weight, py::none(), stride, dilation, groups, before, after, lengths);
    const Convolution<T>& c = call.convolution;
    py::array dy = to_typed<T>(name, "dy", dy_);
    check_shape(name, "dy", dy, {c.counted(), c.N, c.size.O});
    const Steps<const T> dy_steps = to_steps<T>(dy);
    T* dweight = to_gradient<T>(name, "dweight", dweight_, {c.size.O, c.size.inputs(), c.size.K});
    if (!dweight) wrong_type(name, "dweight", dweight_, "an array");
    T* dbias = to_gradient<T>(name, "dbias", dbias_, {c.size.O});
    py::array dx = laid_out_as<T>(call.x, c.steps, c.size.C);
    const Steps<T> dx_steps = writable_steps<T>(dx);
    const WithoutGil released;
    convolution_backward(kernels<T>().convolution, c, dy_steps, dx_steps, dweight, dbias);
    return dx;
  });
}

class ConvolutionStreamObject {
  template <class T> using Pointer = std::unique_ptr<ConvolutionStream<T>>;

  template <class F> auto visit(F f) {
    return std::visit([&](auto& s) { return f(*s); }, stream_);
  }

 public:
  template <class T>
  explicit ConvolutionStreamObject(Pointer<T> stream) : due_(stream->due()), stream_(std::move(stream)) {}

  ~ConvolutionStreamObject() {
    if (user_.broken()) std::visit([](auto& s) { (void)s.release(); }, stream_);
  }

  py::object step(py::handle x) {
    return visit([&]<class T>(ConvolutionStream<T>& s) -> py::object {
      const ConvolutionSizes& size = s.size();
      py::array a = to_typed<T>(call, "x", x);
      const bool single = a.ndim() == 1 && s.batch() == 1 && a.shape(0) == size.C;
      if (!single) check_shape(call, "x", a, {s.batch(), size.C});
      if (!has_plain_rows<T>(a)) a = to_packed<T>(call, "x", py::array(a.attr("copy")("C")));
      const T* in = static_cast<const T*>(a.data());
      const i64 row = single ? 0 : a.strides(0) / i64(sizeof(T));
      py::object y = py::none();
      completing(
          s, 1,
          [&](i64 count) -> T* {
            if (count == 0) return nullptr;
            py::array_t<T> made = single ? empty<T>({size.O}) : empty<T>({s.batch(), size.O});
            T* out = made.mutable_data();
            y = std::move(made);
            return out;
          },
          [&](T* out) { s.step(in, row, out); });
      return y;
    });
  }

  py::object run(py::handle x) {
    return visit([&]<class T>(ConvolutionStream<T>& s) -> py::object {
      py::array a = to_typed<T>(call, "x", x);
      if (a.ndim() != 3 || a.shape(1) != s.batch() || a.shape(2) != s.size().C)
        wrong_shape(call, "x", a, "(T, " + std::to_string(s.batch()) + ", " + std::to_string(s.size().C) + ")");
      const Steps<const T> in = to_steps<T>(a);
      const i64 steps = a.shape(0);
      py::array y = no_array();
      completing(
          s, steps,
          [&](i64 count) {
            y = empty<T>({count, s.batch(), s.size().O});
            return writable_steps<T>(y);
          },
          [&](Steps<T> out) { s.run(steps, in, out); });
      return y;
    });
  }

  py::tuple get_state() {
    return visit([&]<class T>(ConvolutionStream<T>& s) -> py::tuple {
      py::array_t<T> past = empty<T>({s.size().reach(), s.batch(), s.size().C});
      T* to = past.mutable_data();
      i64 due = 0;
      user_.locked([&] { s.get_past(to), due = s.due(); });
      return py::make_tuple(past, due);
    });
  }

  void set_state(const py::sequence& state) {
    visit([&]<class T>(ConvolutionStream<T>& s) {
      if (py::len(state) != 2)
        wrong_value(call, "state has " + std::to_string(py::len(state)) + " entries, expected 2");
      const py::array_t<T> past = to_packed<T>(call, at("state", 0), py::object(state[0]));
      check_shape(call, at("state", 0), past, {s.size().reach(), s.batch(), s.size().C});
      const i64 due = to_integer(call, at("state", 1), py::object(state[1]), 1, 2 * most_steps);
      const T* from = past.data();
      user_.locked([&] { s.set_past(from, due), due_ = s.due(); });
      return 0;
    });
  }

  void reset(py::handle rows) {
    visit([&]<class T>(ConvolutionStream<T>& s) {
      if (rows.is_none()) {
        user_.locked([&] { s.begin_anew(), due_ = s.due(); });
      } else {
        const std::vector<i64> chosen = to_rows(call, rows, s.batch());
        i64 due = 0;
        user_.locked([&] {
          due = s.due();
          if (due == s.first_due())
            for (const i64 n : chosen) s.forget(n);
        });
        if (due != s.first_due())
          wrong_value(call, "rows that begin anew have their next step of y after " + std::to_string(s.first_due()) +
                                " of x, the others after " + std::to_string(due) + ": reset all of them");
      }
      return 0;
    });
  }

  std::unique_ptr<ConvolutionStreamObject> take(py::handle rows) {
    return visit([&]<class T>(ConvolutionStream<T>& s) {
      const std::vector<i64> chosen = to_rows(call, rows, s.batch());
      if (chosen.empty()) wrong_value(call, "rows is empty, expected at least one");
      Pointer<T> other;
      user_.locked([&] { other = std::make_unique<ConvolutionStream<T>>(s.taken(chosen)); });
      return std::make_unique<ConvolutionStreamObject>(std::move(other));
    });
  }

  static constexpr const char* call = "conv1d.stream";

 private:
  // What so many steps complete is made first, then the steps are. Another thread may come in between: once more.
  template <class T, class Make, class Run> void completing(ConvolutionStream<T>& s, i64 steps, Make make, Run run) {
    for (bool done = false; !done;) {
      const i64 due = due_;
      const auto out = make(s.counted(steps, due));
      user_.locked([&] {
        done = s.due() == due;
        if (done) run(out);
        due_ = s.due();
      });
    }
  }

  Exclusive user_{call};
  std::atomic<i64> due_;  // the stream's, for those who do not have it to themselves
  std::variant<Pointer<float>, Pointer<double>> stream_;
};

py::object convolution_stream(py::handle weight, py::handle bias, py::handle batch_, py::handle stride,
                              py::handle dilation, py::handle groups, py::handle before_) {
  const std::string name = ConvolutionStreamObject::call;
  const i64 batch = to_integer(name, "batch", batch_, 1, most_steps);
  return with_dtype(name, "weight", weight, [&]<class T>() -> py::object {
    const ConvolutionWeights<T> weights(name, weight, bias, stride, dilation, groups);
    const i64 before = to_integer(name, "before", before_, 0, weights.size.reach());
    const double past = double(weights.size.reach()) * double(batch) * double(weights.size.C) * sizeof(T);
    if (past > 0x1p60) throw NoMemory(past);
    const T *w = weights.weight.data(), *b = bias.is_none() ? nullptr : weights.bias.data();
    std::unique_ptr<ConvolutionStream<T>> stream;
    {
      const WithoutGil released;
      auto packed = std::make_shared<const PackedConvolution<T>>(kernels<T>().convolution, weights.size, w, b);
      stream = std::make_unique<ConvolutionStream<T>>(std::move(packed), batch, before);
    }
    return py::cast(std::make_unique<ConvolutionStreamObject>(std::move(stream)));
  });
}

}  // namespace

void bind_convolution(py::module_& parent) {
  py::module_ m = parent.def_submodule("conv1d", "Convolution over time, compiled.");
  m.def(
      "forward",
      [](py::object x, py::object weight, py::object bias, py::object stride, py::object dilation, py::object groups,
         py::object before, py::object after,
         py::object lengths) { return convolve(x, weight, bias, stride, dilation, groups, before, after, lengths); },
      py::arg("x"), py::arg("weight"), py::arg("bias"), py::kw_only(), py::arg("stride") = 1, py::arg("dilation") = 1,
      py::arg("groups") = 1, py::arg("before") = 0, py::arg("after") = 0, py::arg("lengths") = py::none(),
      "x (T, N, C), weight (O, C / groups, K), bias (O,) or None -> y (U, N, O).");
  m.def(
      "backward",
      [](py::object dy, py::object x, py::object weight, py::object dweight, py::object dbias, py::object stride,
         py::object dilation, py::object groups, py::object before, py::object after, py::object lengths) {
        return convolve_back(dy, x, weight, dweight, dbias, stride, dilation, groups, before, after, lengths);
      },
      py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("dweight"), py::arg("dbias"), py::kw_only(),
      py::arg("stride") = 1, py::arg("dilation") = 1, py::arg("groups") = 1, py::arg("before") = 0,
      py::arg("after") = 0, py::arg("lengths") = py::none(), "Returns dx (T, N, C); dweight and dbias are added to.");
  m.def(
      "stream",
      [](py::object weight, py::object bias, py::object batch, py::object stride, py::object dilation,
         py::object groups,
         py::object before) { return convolution_stream(weight, bias, batch, stride, dilation, groups, before); },
      py::arg("weight"), py::arg("bias"), py::arg("batch"), py::kw_only(), py::arg("stride") = 1,
      py::arg("dilation") = 1, py::arg("groups") = 1, py::arg("before") = 0,
      "A convolution of `batch` rows that is given x in pieces.");

  py::class_<ConvolutionStreamObject> stream(parent, "ConvolutionStream", "Packed weights and the last steps of x.");
  stream.attr("__new__") = never_made();
  stream
      .def("step", &ConvolutionStreamObject::step, py::arg("x"),
           "(N, C) -> (N, O), or (C,) -> (O,) where N is 1; None where it completes no step of y.")
      .def("run", &ConvolutionStreamObject::run, py::arg("x"), "(T, N, C) -> the steps of y that it completes.")
      .def("get_state", &ConvolutionStreamObject::get_state,
           "Copies of the last steps of x (dilation (K - 1), N, C), and after how many more the next of y is due.")
      .def("set_state", &ConvolutionStreamObject::set_state, py::arg("state"))
      .def("take", &ConvolutionStreamObject::take, py::arg("rows"), "A stream of these rows on the same weights.")
      .def("reset", &ConvolutionStreamObject::reset, py::arg("rows") = py::none(),
           "Begins rows (all by default) anew.");
}

}  // namespace pyrnn
