// The stream of a recurrent op: one user at a time, forks, and the C functions behind pyrnn/cython_stream.pyx.
#include <stdexcept>
#include <variant>

#include "bindings/bindings.hpp"
#include "bindings/encoded.hpp"
#include "bindings/exclusive.hpp"
#include "bindings/weights.hpp"
#include "recurrent/driver.hpp"
#include "recurrent/stream_api.h"

namespace pyrnn {

namespace {

// Of each model.
template <class T> using Streams = std::vector<std::unique_ptr<Stream<T>>>;

// Of several models all arrays have an axis of models in front.
class StreamObject {
  // f(the first model's stream, all of them)
  template <class F> auto visit(F f) {
    return std::visit([&](auto& streams) { return f(*streams.front(), streams); }, streams_);
  }

  template <class F> void locked(F f) { user_.locked(f); }

  // act(stream, model) for each of them, or for none: then undo(stream) for those that have come to an end.
  template <class T, class Act, class Undo> void all_or_none(Streams<T>& streams, i64 steps, Act act, Undo undo) {
    locked([&] {
      if (streams.size() == 1) return act(*streams.front(), i64(0));
      std::vector<char> done(streams.size());
      try {
        each_model(models_.count * steps * streams.front()->step_work(), models_.count, [&](i64 k) {
          act(*streams[std::size_t(k)], k);
          done[std::size_t(k)] = true;
        });
      } catch (...) {
        for (std::size_t k = 0; k < streams.size(); ++k)
          if (done[k]) undo(*streams[k]);
        throw;
      }
    });
  }

  void refuse_models(const char* method) const {
    if (models_.axis) wrong_value(call_, std::string(method) + " is for a stream of one model");
  }

 public:
  template <class T>
  StreamObject(const RecurrentOp& op, const Models& models, Streams<T> streams)
      : op_(op), call_(std::string(op.name) + ".stream"), models_(models), user_(call_), streams_(std::move(streams)) {}

  ~StreamObject() {
    if (!user_.broken()) return;
    std::visit([](auto& streams) { new auto(std::move(streams)); }, streams_);
  }

  py::object step(py::handle x) {
    return visit([&]<class T>(Stream<T>& s, Streams<T>& all) -> py::object {
      const Sizes &first = s.layers().front().size, &last = s.layers().back().size;
      py::array a = to_typed<T>(call_, "x", x);
      const bool single = a.ndim() == 1 + models_.axis && s.batch() == 1 && has_shape(a, models_.shape({first.I}));
      if (!single) check_shape(call_, "x", a, models_.shape({s.batch(), first.I}));
      if (!has_plain_rows<T>(a)) a = to_packed<T>(call_, "x", py::array(a.attr("copy")("C")));
      py::array_t<T> y = empty<T>(single ? models_.shape({last.P}) : models_.shape({s.batch(), last.P}));
      const T* in = static_cast<const T*>(a.data());
      T* out = y.mutable_data();
      const i64 row = single ? 0 : axis_distance<T>(a, -2), distance = models_.distance<T>(a);
      all_or_none(
          all, 1,
          [&](Stream<T>& own, i64 k) { own.step(in + k * distance, row, out + k * own.batch() * last.P, last.P); },
          [](Stream<T>& own) { own.undo_step(); });
      return y;
    });
  }

  py::object run(py::handle x) {
    return visit([&]<class T>(Stream<T>& s, Streams<T>& all) -> py::object {
      const Sizes &first = s.layers().front().size, &last = s.layers().back().size;
      py::array a = to_typed<T>(call_, "x", x);
      const i64 steps = a.ndim() == 3 + models_.axis ? a.shape(models_.axis) : -1;
      if (steps < 0 || !has_shape(a, models_.shape({steps, s.batch(), first.I})))
        wrong_shape(call_, "x", a,
                    (models_.axis ? "(" + std::to_string(models_.count) + ", T, " : "(T, ") +
                        std::to_string(s.batch()) + ", " + std::to_string(first.I) + ")");
      const Steps<const T> in = to_steps<T>(a);
      py::array y = empty<T>(models_.shape({steps, s.batch(), last.P}));
      const Steps<T> out = writable_steps<T>(y);
      const i64 x_distance = models_.distance<T>(a), y_distance = models_.distance<T>(y);
      all_or_none(
          all, steps,
          [&](Stream<T>& own, i64 k) {
            own.run(steps, {in.data + k * x_distance, in.step, in.row}, {out.data + k * y_distance, out.step, out.row});
          },
          [](Stream<T>& own) { own.undo_run(); });
      return y;
    });
  }

  // A step from another state than the stream's own, which stays what it is.
  py::tuple step_from(py::handle x, py::handle state) {
    refuse_models("step_from");
    return visit([&]<class T>(Stream<T>& s, Streams<T>&) -> py::tuple {
      const Sizes &first = s.layers().front().size, &last = s.layers().back().size;
      py::array a = to_typed<T>(call_, "x", x);
      check_shape(call_, "x", a, {s.batch(), first.I});
      if (!has_plain_rows<T>(a)) a = to_packed<T>(call_, "x", py::array(a.attr("copy")("C")));
      const Given<T> given = given_state(s, state);
      States<T> to{};
      const py::tuple after = new_state<T>(op_, {i64(s.layers().size()), s.batch()}, last, to);
      py::array_t<T> y = empty<T>({s.batch(), last.P});
      const T* in = static_cast<const T*>(a.data());
      T* out = y.mutable_data();
      const i64 row = a.strides(0) / i64(sizeof(T));
      locked([&] { s.step_from(given.pointers, in, row, out, last.P, to); });
      return py::make_tuple(y, after);
    });
  }

  // Neither reads nor changes the stream's own state, so that any number of threads can call it at once.
  py::tuple forward(py::handle x, py::handle state, py::handle ids, py::handle lengths, py::handle reset, bool reverse,
                    py::handle out) {
    refuse_models("forward");
    return visit([&]<class T>(Stream<T>& s, Streams<T>&) {
      if (s.layers().size() > 1) wrong_value(call_, "forward is for a stream of one layer");
      return packed_forward<T>(call_, op_, s.layers().front(), x, state, ids, lengths, reset, reverse, out);
    });
  }

  py::tuple get_state() {
    return visit([&]<class T>(Stream<T>& s, Streams<T>& all) {
      States<T> to{};
      const i64 layers = i64(s.layers().size());
      const py::tuple state = new_state<T>(op_, models_.shape({layers, s.batch()}), s.layers().back().size, to);
      locked([&] {
        for (std::size_t k = 0; k < all.size(); ++k) all[k]->get_state(state_of(s, to, k));
      });
      return state;
    });
  }

  void set_state(py::handle state) {
    visit([&]<class T>(Stream<T>& s, Streams<T>& all) {
      const Given<T> given = given_state(s, state);
      locked([&] {
        for (std::size_t k = 0; k < all.size(); ++k) all[k]->set_state(state_of(s, given.pointers, k));
      });
      return 0;
    });
  }

  // For pyrnn_stream_api: f(stream) by a caller who does not hold the GIL. What f throws becomes a Python error.
  template <class T, class F> int from_c(F f) noexcept {
    try {
      user_.held([&] { f(*std::get<Streams<T>>(streams_).front()); });
      return 0;
    } catch (const Interrupted&) {  // by a handler, whose error is set
      const py::gil_scoped_acquire gil;
      if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
      return -1;
    } catch (const std::exception& error) {
      const py::gil_scoped_acquire gil;
      PyErr_SetString(dynamic_cast<const std::out_of_range*>(&error) ? PyExc_IndexError
                      : dynamic_cast<const std::bad_alloc*>(&error)  ? PyExc_MemoryError
                                                                     : PyExc_RuntimeError,
                      error.what());
      return -1;
    }
  }

  template <class T> static int step_from_c(void* stream, const T* x, T* y) {
    return static_cast<StreamObject*>(stream)->from_c<T>(
        [&](Stream<T>& s) { s.step(x, s.layers().front().size.I, y, s.layers().back().size.P); });
  }

  static int reset_from_c(void* stream, Py_ssize_t row) {
    auto& self = *static_cast<StreamObject*>(stream);
    auto reset = [&](auto& s) {
      if (row < 0 || row >= s.batch())
        throw std::out_of_range(self.call_ + ": row is " + std::to_string(row) + ", expected 0 to " +
                                std::to_string(s.batch() - 1));
      s.reset(row);
    };
    return self.doubles() ? self.from_c<double>(reset) : self.from_c<float>(reset);
  }

  static void* borrow(PyObject* compiled, int doubles, Py_ssize_t sizes[3]) {
    try {
      auto& self = py::handle(compiled).cast<StreamObject&>();
      self.refuse_models("borrow");
      self.visit([&](auto& s, auto&) {
        sizes[0] = s.batch(), sizes[1] = s.layers().front().size.I, sizes[2] = s.layers().back().size.P;
      });
      if (self.doubles() == bool(doubles)) return &self;
      throw py::type_error(self.call_ + ": the stream's dtype is " + (doubles ? "float32" : "float64") + ", expected " +
                           (doubles ? "float64" : "float32"));
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_TypeError, error.what());
      return nullptr;
    }
  }

  void reset(py::handle rows) {
    visit([&](auto& s, auto& all) {
      std::vector<i64> chosen;
      if (rows.is_none())
        for (i64 n = 0; n < s.batch(); ++n) chosen.push_back(n);
      else
        chosen = to_rows(call_, rows, s.batch());
      locked([&] {
        for (auto& own : all)
          for (i64 n : chosen) own->reset(n);
      });
      return 0;
    });
  }

  std::unique_ptr<StreamObject> take(py::handle rows) {
    return visit([&]<class T>(Stream<T>& s, Streams<T>& all) {
      const std::vector<i64> chosen = to_rows(call_, rows, s.batch());
      if (chosen.empty()) wrong_value(call_, "rows is empty, expected at least one");
      Streams<T> others;
      locked([&] {
        for (const auto& own : all) others.push_back(std::make_unique<Stream<T>>(own->taken(chosen)));
      });
      return std::make_unique<StreamObject>(op_, models_, std::move(others));
    });
  }

 private:
  template <class T> struct Given {
    std::vector<py::array_t<T>> kept;
    States<const T> pointers{};
  };

  // The entries of a state, [layers, N, width] each.
  template <class T> Given<T> given_state(const Stream<T>& s, py::handle state) const {
    const py::sequence entries = to_sequence(call_, "state", state, op_.states.size());
    Given<T> given;
    for (std::size_t k = 0; k < op_.states.size(); ++k) {
      given.kept.push_back(to_packed<T>(call_, at("state", k), py::object(entries[k])));
      check_shape(call_, at("state", k), given.kept[k],
                  models_.shape({i64(s.layers().size()), s.batch(), s.layers().back().size.of_state(int(k))}));
      given.pointers[k] = given.kept[k].data();
    }
    return given;
  }

  // Of a model, out of those of all, one after the other.
  template <class T, class U> States<U> state_of(const Stream<T>& s, States<U> all, std::size_t model) const {
    const i64 rows = i64(s.layers().size()) * s.batch();
    for (std::size_t k = 0; k < op_.states.size(); ++k)
      all[k] += i64(model) * rows * s.layers().back().size.of_state(int(k));
    return all;
  }

  bool doubles() const { return streams_.index() == 1; }

  const RecurrentOp& op_;
  std::string call_;
  const Models models_;
  Exclusive user_;
  std::variant<Streams<float>, Streams<double>> streams_;
};

}  // namespace

py::object recurrent_stream(const RecurrentOp& op, Chosen chosen, py::handle layers, py::handle batch_) {
  const std::string name = std::string(op.name) + ".stream";
  const i64 batch = to_integer(name, "batch", batch_, 1, i64(1) << 31);
  if (!py::isinstance<py::sequence>(layers) || py::len(layers) == 0)
    wrong_type(name, "layers", layers, "a sequence of weight tuples");
  const auto given = py::reinterpret_borrow<py::sequence>(layers);
  const py::sequence first = to_sequence(name, "layers[0]", py::object(given[0]), op.weights.size());
  return with_dtype_of_matrix(name, "weight_ih", py::object(first[0]), [&]<class T>() -> py::object {
    std::vector<ParsedWeights<T>> parsed;
    for (std::size_t i = 0; i < given.size(); ++i) {
      parsed.push_back(parse_weights<T>(name, at("layers", i), op, chosen, py::object(given[i])));
      const Sizes &size = parsed[i].size, &before = parsed[i ? i - 1 : 0].size;
      if (i && (size.I != before.P || size.P != before.P || size.H != before.H))
        wrong_value(name, at("layers", i) + " does not fit the layer before it");
      const Models &own = parsed[i].models, &others = parsed.front().models;
      if (own.axis != others.axis || own.count != others.count)
        wrong_value(name, at("layers", i) + " is of other models than the layer before it");
    }
    const Models models = parsed.front().models;
    Streams<T> streams(std::size_t(models.count));
    {
      const WithoutGil released;
      for (std::size_t k = 0; k < streams.size(); ++k) {
        std::vector<Layer<T>> packed;
        for (const auto& w : parsed) packed.emplace_back(cell_kernels<T>(w.kind), w.size, w.of(op, i64(k)));
        streams[k] =
            std::make_unique<Stream<T>>(std::make_shared<const std::vector<Layer<T>>>(std::move(packed)), batch);
      }
    }
    return py::cast(std::make_unique<StreamObject>(op, models, std::move(streams)));
  });
}

void bind_stream(py::module_& m) {
  py::class_<StreamObject> stream(m, "Stream", "Packed weights and a state, one step at a time.");
  stream.attr("__new__") = never_made();
  stream.def("step", &StreamObject::step, py::arg("x"), "(N, I) -> (N, H), or (I,) -> (H,) where N is 1.")
      .def("run", &StreamObject::run, py::arg("x"), "(T, N, I) -> (T, N, H).")
      .def("step_from", &StreamObject::step_from, py::arg("x"), py::arg("state"),
           "(N, I) and a state as of get_state -> (N, H) and the state after it; the stream's own is not touched.")
      .def("forward", &StreamObject::forward, py::arg("x"), py::arg("state"), py::kw_only(),
           py::arg("ids") = py::none(), py::arg("lengths") = py::none(), py::arg("reset") = py::none(),
           py::arg("reverse") = false, py::arg("out") = py::none(),
           "As the op's forward, on the packed weights; the state of the stream is not touched.")
      .def("get_state", &StreamObject::get_state, "Copies of the states, (layers, N, H) each.")
      .def("set_state", &StreamObject::set_state, py::arg("state"))
      .def("take", &StreamObject::take, py::arg("rows"), "A stream of these rows on the same packed weights.")
      .def("reset", &StreamObject::reset, py::arg("rows") = py::none(), "Sets rows (all by default) to zero.");
  static pyrnn_stream_api api{StreamObject::borrow, StreamObject::step_from_c<float>, StreamObject::step_from_c<double>,
                              StreamObject::reset_from_c};
  m.attr("_stream_api") = py::capsule(&api, "pyrnn._core._stream_api");
}

}  // namespace pyrnn
