// Checks, allocations and the release of the GIL around layers, recordings and streams (layer.hpp).
#include "bindings/recurrent.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <variant>

#include "bindings/bindings.hpp"
#include "recurrent/layer.hpp"
#include "recurrent/stream_api.h"

namespace pyrnn {

namespace {

std::string at(const std::string& name, std::size_t i) { return name + "[" + std::to_string(i) + "]"; }

// The arrays of one layer's weights, kept alive, and what they say about its sizes.
template <class T> struct ParsedWeights {
  std::vector<py::object> arrays;  // as passed; None where absent
  Weights<const T> pointers;
  Sizes size;
  CellKind kind;
};

py::sequence to_sequence(const std::string& call, const std::string& name, py::handle object, std::size_t length) {
  if (!py::isinstance<py::sequence>(object) || py::isinstance<py::array>(object) || py::isinstance<py::str>(object))
    wrong_type(call, name, object, "a tuple");
  auto sequence = py::reinterpret_borrow<py::sequence>(object);
  if (sequence.size() != length)
    wrong_value(call,
                name + " has " + std::to_string(sequence.size()) + " entries, expected " + std::to_string(length));
  return sequence;
}

template <class T> const CellKernels<T>& cell_kernels(CellKind kind) { return kernels<T>().cells[int(kind)]; }

bool has(const RecurrentOp& op, Role role) {
  return std::any_of(op.weights.begin(), op.weights.end(), [&](const CellWeight& w) { return w.role == role; });
}

// f(place, weight, where among the numbers of units it begins) for each of an op's weights.
template <class F> void each_weight(const RecurrentOp& op, F f) {
  i64 unit = 0;
  for (std::size_t i = 0; i < op.weights.size(); ++i) {
    f(i, op.weights[i], unit);
    if (op.weights[i].role == Role::unit) unit += op.weights[i].vectors(op.gates);
  }
}

// Makes `data`, of this weight, part of `w`.
template <class T> void put(Weights<T>& w, const CellWeight& weight, i64 unit, T* data, int gates, i64 H) {
  switch (weight.role) {
    case Role::ih: w.ih = data; break;
    case Role::hh: w.hh = data; break;
    case Role::b_ih: w.b_ih = data; break;
    case Role::b_hh: w.b_hh = data; break;
    case Role::hr: w.hr = data; break;
    case Role::unit:
      for (i64 v = 0; v < weight.vectors(gates); ++v) w.unit[std::size_t(unit + v)] = data ? data + v * H : nullptr;
  }
}

template <class T>
ParsedWeights<T> parse_weights(const std::string& call, const std::string& what, const RecurrentOp& op, Chosen chosen,
                               py::handle object) {
  const py::sequence given = to_sequence(call, what, object, op.weights.size());
  ParsedWeights<T> w;
  for (std::size_t i = 0; i < op.weights.size(); ++i) {
    const py::object entry = given[i];
    w.arrays.push_back(entry.is_none() ? entry : py::object(to_packed<T>(call, op.weights[i].name, entry)));
  }
  auto present = [&](Role role) {
    for (std::size_t i = 0; i < op.weights.size(); ++i)
      if (op.weights[i].role == role && !w.arrays[i].is_none()) return true;
    return false;
  };
  auto array = [&](std::size_t i) {
    if (w.arrays[i].is_none())
      wrong_type(call, op.weights[i].name, py::none(), std::string("an array of dtype ") + dtype_name<T>());
    return py::reinterpret_borrow<py::array>(w.arrays[i]);
  };
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64) {
    if (weight.role == Role::ih) {
      const py::array ih = array(i);
      const i64 rows = ih.ndim() == 2 ? ih.shape(0) : 0;
      if (rows == 0 || rows % op.gates) wrong_shape(call, weight.name, ih, "(" + std::to_string(op.gates) + "*H, I)");
      w.size = {ih.shape(1), rows / op.gates, rows / op.gates};
    }
  });
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64) {
    if (weight.role != Role::hr || w.arrays[i].is_none()) return;
    const py::array hr = array(i);
    if (hr.ndim() != 2 || hr.shape(1) != w.size.H || hr.shape(0) == 0)
      wrong_shape(call, weight.name, hr, "(P, " + std::to_string(w.size.H) + ")");
    w.size.P = hr.shape(0);
  });
  if (has(op, Role::b_hh) && present(Role::b_ih) != present(Role::b_hh))
    wrong_value(call, "bias_ih and bias_hh come both or not at all");
  w.kind = op.with ? op.with(present(Role::hr), present(Role::unit)) : chosen.kind;
  w.pointers.eps = T(chosen.eps);
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64 unit) {
    if (weight.optional && w.arrays[i].is_none()) return;
    check_shape(call, weight.name, array(i), weight.shape(op.gates, w.size));
    put(w.pointers, weight, unit, static_cast<const T*>(array(i).data()), op.gates, w.size.H);
  });
  return w;
}

Rows parse_rows(const std::string& call, i64 T_steps, i64 N, py::handle lengths, py::handle reset, bool reverse) {
  py::array kept_lengths, kept_reset;
  const i64* length = nullptr;
  if (!lengths.is_none()) {
    kept_lengths = to_packed<i64>(call, "lengths", lengths);
    check_shape(call, "lengths", kept_lengths, {N});
    length = static_cast<const i64*>(kept_lengths.data());
    for (i64 n = 0; n < N; ++n)
      if (length[n] < 0 || length[n] > T_steps)
        wrong_value(call, at("lengths", std::size_t(n)) + " is " + std::to_string(length[n]) + ", expected 0 to " +
                              std::to_string(T_steps));
  }
  const std::uint8_t* mark = nullptr;
  i64 mark_step = 0, mark_row = 0;
  if (!reset.is_none()) {
    kept_reset = to_typed<bool>(call, "reset", reset);
    check_shape(call, "reset", kept_reset, {T_steps, N});
    mark = static_cast<const std::uint8_t*>(kept_reset.data());
    mark_step = kept_reset.strides(0), mark_row = kept_reset.strides(1);
  }
  return Rows(T_steps, N, length, mark, mark_step, mark_row, reverse);
}

// A state tuple, None, or None for an entry; arrays are kept alive in `kept`.
template <class T>
States<const T> parse_state(const std::string& call, const std::string& name, const RecurrentOp& op, py::handle object,
                            i64 N, const Sizes& size, std::vector<py::object>& kept) {
  States<const T> state{};
  if (object.is_none()) return state;
  const py::sequence given = to_sequence(call, name, object, op.states.size());
  for (std::size_t k = 0; k < given.size(); ++k) {
    py::object entry = given[k];
    if (entry.is_none()) continue;
    py::array_t<T> a = to_packed<T>(call, at(name, k), entry);
    check_shape(call, at(name, k), a, {N, size.of_state(int(k))});
    state[k] = a.data();
    kept.push_back(a);
  }
  return state;
}

// New arrays for the states, [lead..., width] each.
template <class T>
py::tuple new_state(const RecurrentOp& op, std::vector<i64> lead, const Sizes& size, States<T>& pointers) {
  py::tuple state(op.states.size());
  lead.push_back(0);
  for (std::size_t k = 0; k < op.states.size(); ++k) {
    lead.back() = size.of_state(int(k));
    py::array_t<T> a = empty<T>(lead);
    pointers[k] = a.mutable_data();
    state[k] = a;
  }
  return state;
}

// Where y is written: a new array, the caller's `out`, or a stand-in that is copied there.
template <class T> struct Output {
  py::array y, target;
  Steps<T> steps;

  Output(const std::string& call, py::handle out, i64 T_steps, i64 N, i64 P, const Rows& rows) {
    const bool padding = rows.steps < T_steps || rows.first[std::size_t(rows.steps)] < T_steps * N;
    if (out.is_none()) {
      y = target = padding ? zeros<T>({T_steps, N, P}) : empty<T>({T_steps, N, P});
    } else {
      target = to_typed<T>(call, "out", out);
      check_shape(call, "out", target, {T_steps, N, P});
      check_writable(call, "out", target);
      const bool direct = has_plain_rows<T>(target);
      y = direct ? target : py::array(zeros<T>({T_steps, N, P}));
      if (direct && padding) target.attr("__setitem__")(py::ellipsis(), 0);
    }
    steps = writable_steps<T>(y);
  }

  py::array finish() {
    if (y.ptr() != target.ptr()) target.attr("__setitem__")(py::ellipsis(), y);
    return target;
  }
};

// x [T,N,I]; or a table [V,I] and ids [T,N]. Of a table the rows that are read are copied, and ids then counts those,
// so that nobody can change a number that has been checked.
template <class T> struct Given {
  py::array x;
  py::array_t<i64> ids;
  std::vector<i64> read;  // row of x -> row of the table
  i64 table_rows = 0;     // V
  bool looked_up = false;

  Given() = default;
  Given(const std::string& call, py::handle x_, py::handle ids_)
      : x(to_typed<T>(call, "x", x_)), looked_up(!ids_.is_none()) {
    if (!looked_up) return;
    const py::array given = to_typed<i64>(call, "ids", ids_);
    if (given.ndim() != 2) wrong_shape(call, "ids", given, "(T, N)");
    ids = py::array_t<i64>(given.attr("copy")("C"));
  }

  i64 steps() const { return looked_up ? ids.shape(0) : x.shape(0); }
  i64 batch() const { return looked_up ? ids.shape(1) : x.shape(1); }

  void check_width(const std::string& call, i64 I) const {
    if (x.ndim() != (looked_up ? 2 : 3) || x.shape(x.ndim() - 1) != I)
      wrong_shape(call, "x", x, (looked_up ? "(V, " : "(T, N, ") + std::to_string(I) + ")");
  }

  void look_up(const std::string& call, const Rows& rows) {
    if (!looked_up) return;
    table_rows = x.shape(0);
    if (table_rows <= 16 * ids.size() + 4096)
      number(call, rows, std::vector<i64>(std::size_t(table_rows), -1));
    else
      number(call, rows, std::unordered_map<i64, i64>());
    const i64 I = x.shape(1), row = x.strides(0), column = x.strides(1);
    py::array_t<T> rows_read = empty<T>({i64(read.size()), I});
    T* to = rows_read.mutable_data();
    for (const i64 id : read) {
      const char* from = static_cast<const char*>(x.data()) + id * row;
      for (i64 i = 0; i < I; ++i, ++to, from += column) std::memcpy(to, from, sizeof(T));
    }
    x = rows_read;
  }

  // Checks the ids and numbers them in the order in which they are met; `place` says where an id is in `read`.
  template <class Place> void number(const std::string& call, const Rows& rows, Place place) {
    auto find = [&](i64 id) -> i64& {
      if constexpr (std::is_same_v<Place, std::vector<i64>>)
        return place[std::size_t(id)];
      else
        return place.try_emplace(id, -1).first->second;
    };
    i64* all = ids.mutable_data();
    for (i64 j = 0; j < rows.N; ++j)
      for (i64 t = 0, n = rows.order[std::size_t(j)]; t < rows.length[std::size_t(j)]; ++t) {
        i64& id = all[t * rows.N + n];
        if (id < 0 || id >= table_rows)
          wrong_value(call, "ids[" + std::to_string(t) + ", " + std::to_string(n) + "] is " + std::to_string(id) +
                                ", expected 0 to " + std::to_string(table_rows - 1));
        i64& here = find(id);
        if (here < 0) here = i64(read.size()), read.push_back(id);
        id = here;
      }
  }

  Inputs<T> inputs() {
    if (!looked_up) return {to_steps<T>(x), {}, 0};
    return {{static_cast<const T*>(x.data()), 0, x.shape(1)}, {ids.data(), ids.shape(1), 1}, x.shape(0)};
  }

  // The gradients of the rows that were read, into that of the table.
  void put_rows(const T* dx, py::array& table) const {
    const i64 I = x.shape(1);
    T* out = static_cast<T*>(table.mutable_data());
    for (std::size_t v = 0; v < read.size(); ++v) std::copy_n(dx + i64(v) * I, I, out + read[v] * I);
  }
};

// Everything forward and vjp have in common, checked.
template <class T> struct Call {
  Given<T> given;
  ParsedWeights<T> weights;
  Rows rows;
  std::vector<py::object> kept;
  States<const T> state_in{};
  States<T> state_out{};
  Output<T> output;
  py::tuple state;

  Call(const std::string& call, const RecurrentOp& op, Chosen chosen, py::handle x, py::handle state_,
       py::handle weights_, py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out)
      : given(call, x, ids),
        weights(parse_weights<T>(call, "weights", op, chosen, weights_)),
        rows(checked_rows(call, lengths, reset, reverse)),
        output(call, out, given.steps(), given.batch(), weights.size.P, rows) {
    state_in = parse_state<T>(call, "state", op, state_, given.batch(), weights.size, kept);
    state = new_state<T>(op, {given.batch()}, weights.size, state_out);
  }

  Rows checked_rows(const std::string& call, py::handle lengths, py::handle reset, bool reverse) {
    given.check_width(call, weights.size.I);
    Rows rows = parse_rows(call, given.steps(), given.batch(), lengths, reset, reverse);
    given.look_up(call, rows);
    return rows;
  }
};

// ------------------------------------------------------------------------------------------------------ pullback

class Pullback {
 public:
  template <class T>
  Pullback(const RecurrentOp& op, Given<T> given, std::unique_ptr<Recording<T>> recording)
      : op_(op), call_(std::string(op.name) + ".pullback"), kept_(Kept<T>{std::move(given), std::move(recording)}) {}

  py::tuple call(py::handle dy, py::handle dstate, py::handle grads) {
    return std::visit([&](auto& kept) { return run(kept, dy, dstate, grads); }, kept_);
  }

 private:
  template <class T> struct Kept {
    Given<T> given;  // the recording reads it
    std::unique_ptr<Recording<T>> recording;
  };

  // Looking at the arguments may run other threads and other code, so what is kept is taken out first, for this call
  // alone, and put back if they are refused.
  template <class T> py::tuple run(Kept<T>& kept, py::handle dy, py::handle dstate, py::handle grads) {
    if (!kept.recording) throw std::runtime_error(call_ + ": this pullback has been used; call vjp again for another");
    Kept<T> mine = std::move(kept);
    bool used = false;
    try {
      return run(mine.given, *mine.recording, dy, dstate, grads, used);
    } catch (...) {
      if (!used) kept = std::move(mine);
      throw;
    }
  }

  template <class T>
  py::tuple run(const Given<T>& given, Recording<T>& recording, py::handle dy_, py::handle dstate_, py::handle grads_,
                bool& used) {
    const Rows& rows = recording.rows();
    const Sizes size = recording.layer().size;
    std::vector<py::object> kept;
    Steps<const T> dy;
    py::array dy_array;
    if (!dy_.is_none()) {
      dy_array = to_typed<T>(call_, "dy", dy_);
      check_shape(call_, "dy", dy_array, {rows.T, rows.N, size.P});
      dy = to_steps<T>(dy_array);
    }
    const States<const T> dstate = parse_state<T>(call_, "dstate", op_, dstate_, rows.N, size, kept);
    const py::tuple g(to_sequence(call_, "grads", grads_, op_.weights.size()));
    const CellKernels<T>& cell = recording.layer().cell;
    Weights<T> grads;
    each_weight(op_, [&](std::size_t i, const CellWeight& weight, i64 unit) {
      const bool present = weight.role == Role::hr ? cell.projects : weight.role != Role::unit || cell.unit_weights > 0;
      if (!present && !py::object(g[i]).is_none())
        wrong_value(call_, at("grads", i) + " is given, but there is no " + weight.name);
      T* data = to_gradient<T>(call_, at("grads", i), py::object(g[i]), weight.shape(op_.gates, size));
      put(grads, weight, unit, data, op_.gates, size.H);
    });
    const bool padding = !given.looked_up && rows.first[std::size_t(rows.steps)] < rows.T * rows.N;
    const std::vector<py::ssize_t> shape(given.x.shape(), given.x.shape() + given.x.ndim());
    py::array dx = padding ? zeros<T>(shape) : empty<T>(shape), dtable;
    if (given.looked_up) dtable = zeros<T>({given.table_rows, size.I});
    States<T> out{};
    const py::tuple dstate_out = new_state<T>(op_, {rows.N}, size, out);
    Steps<T> dx_steps{static_cast<T*>(dx.mutable_data()), 0, size.I};
    if (!given.looked_up) dx_steps = writable_steps<T>(dx);
    used = true;
    {
      const WithoutGil released;
      recording.backward(dy, dstate, dx_steps, out, grads);
    }
    if (given.looked_up) given.put_rows(dx_steps.data, dtable);
    return py::make_tuple(given.looked_up ? dtable : dx, dstate_out);
  }

  const RecurrentOp& op_;
  std::string call_;
  std::variant<Kept<float>, Kept<double>> kept_;
};

// -------------------------------------------------------------------------------------------------------- stream

class StreamObject {
  template <class F> auto visit(F f) {
    return std::visit([&](auto& s) { return f(*s); }, stream_);
  }

  // In a child of fork the lock may be held by a thread that is gone, in the middle of a step: such a stream is refused
  // from then on. Needs the GIL.
  void check_fork() {
    if (generation_ == fork_generation()) return;
    if (!lock_.try_lock()) throw std::runtime_error(call_ + ": another thread was using this stream at the fork");
    lock_.unlock();
    generation_ = fork_generation();
  }

  // One thread at a time. A signal's handler may run in the middle of a call and call again.
  template <class F> void exclusively(F f) {
    const std::thread::id me = std::this_thread::get_id();
    if (user_ == me) throw std::runtime_error(call_ + ": a signal handler used the stream that it had interrupted");
    const std::lock_guard<std::mutex> hold(lock_);
    const struct User {
      explicit User(std::atomic<std::thread::id>& user) : user(user) { user = std::this_thread::get_id(); }
      ~User() { user = std::thread::id(); }
      std::atomic<std::thread::id>& user;
    } mine(user_);
    f();
  }

  template <class F> void locked(F f) {
    check_fork();
    const WithoutGil released;
    exclusively(f);
  }

 public:
  template <class T>
  StreamObject(const RecurrentOp& op, std::unique_ptr<Stream<T>> stream)
      : op_(op), call_(std::string(op.name) + ".stream"), stream_(std::move(stream)) {}

  // A stream cut short by a fork may own its buffers twice; it is left alone.
  ~StreamObject() {
    if (generation_ != fork_generation() && !lock_.try_lock()) std::visit([](auto& s) { (void)s.release(); }, stream_);
  }

  py::object step(py::handle x) {
    return visit([&]<class T>(Stream<T>& s) -> py::object {
      const Sizes &first = s.layers().front().size, &last = s.layers().back().size;
      py::array a = to_typed<T>(call_, "x", x);
      const bool single = a.ndim() == 1 && s.batch() == 1 && a.shape(0) == first.I;
      if (!single) check_shape(call_, "x", a, {s.batch(), first.I});
      if (!has_plain_rows<T>(a)) a = to_packed<T>(call_, "x", py::array(a.attr("copy")("C")));
      py::array_t<T> y = single ? empty<T>({last.P}) : empty<T>({s.batch(), last.P});
      const T* in = static_cast<const T*>(a.data());
      T* out = y.mutable_data();
      const i64 row = single ? 0 : a.strides(0) / i64(sizeof(T));
      locked([&] { s.step(in, row, out, last.P); });
      return y;
    });
  }

  py::object run(py::handle x) {
    return visit([&]<class T>(Stream<T>& s) -> py::object {
      const Sizes &first = s.layers().front().size, &last = s.layers().back().size;
      py::array a = to_typed<T>(call_, "x", x);
      if (a.ndim() != 3 || a.shape(1) != s.batch() || a.shape(2) != first.I)
        wrong_shape(call_, "x", a, "(T, " + std::to_string(s.batch()) + ", " + std::to_string(first.I) + ")");
      const Steps<const T> in = to_steps<T>(a);
      py::array y = empty<T>({a.shape(0), s.batch(), last.P});
      const Steps<T> out = writable_steps<T>(y);
      const i64 steps = a.shape(0);
      locked([&] { s.run(steps, in, out); });
      return y;
    });
  }

  py::tuple get_state() {
    return visit([&]<class T>(Stream<T>& s) {
      States<T> to{};
      const py::tuple state = new_state<T>(op_, {i64(s.layers().size()), s.batch()}, s.layers().back().size, to);
      locked([&] { s.get_state(to); });
      return state;
    });
  }

  void set_state(py::handle state) {
    visit([&]<class T>(Stream<T>& s) {
      const py::sequence given = to_sequence(call_, "state", state, op_.states.size());
      std::vector<py::array_t<T>> kept;
      States<const T> from{};
      for (std::size_t k = 0; k < op_.states.size(); ++k) {
        kept.push_back(to_packed<T>(call_, at("state", k), py::object(given[k])));
        check_shape(call_, at("state", k), kept[k],
                    {i64(s.layers().size()), s.batch(), s.layers().back().size.of_state(int(k))});
        from[k] = kept[k].data();
      }
      locked([&] { s.set_state(from); });
      return 0;
    });
  }

  // For pyrnn_stream_api: f(stream) by a caller who does not hold the GIL. What f throws becomes a Python error.
  template <class T, class F> int from_c(F f) noexcept {
    try {
      if (generation_ != fork_generation()) {
        const py::gil_scoped_acquire gil;
        check_fork();
      }
      exclusively([&] { f(*std::get<std::unique_ptr<Stream<T>>>(stream_)); });
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
      self.visit([&](auto& s) {
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
    visit([&]<class T>(Stream<T>& s) {
      std::vector<i64> chosen;
      if (rows.is_none()) {
        for (i64 n = 0; n < s.batch(); ++n) chosen.push_back(n);
      } else {
        const py::array_t<i64> a = to_packed<i64>(call_, "rows", rows);
        for (i64 i = 0; i < a.size(); ++i) {
          const i64 n = a.data()[i];
          if (n < 0 || n >= s.batch())
            wrong_value(call_, at("rows", std::size_t(i)) + " is " + std::to_string(n) + ", expected 0 to " +
                                   std::to_string(s.batch() - 1));
          chosen.push_back(n);
        }
      }
      locked([&] {
        for (i64 n : chosen) s.reset(n);
      });
      return 0;
    });
  }

 private:
  bool doubles() const { return stream_.index() == 1; }

  const RecurrentOp& op_;
  std::string call_;
  std::mutex lock_;
  std::atomic<std::thread::id> user_{};  // the thread that has the lock
  std::atomic<int> generation_ = fork_generation();
  std::variant<std::unique_ptr<Stream<float>>, std::unique_ptr<Stream<double>>> stream_;
};

}  // namespace

i64 CellWeight::vectors(int gates) const {
  if (letters[0] == 'G') return gates;
  return letters[0] == 'H' ? 1 : letters[0] - '0';
}

std::vector<i64> CellWeight::shape(int gates, const Sizes& size) const {
  std::vector<i64> shape;
  i64 factor = 1;
  for (const char* letter = letters; *letter; ++letter) {
    if (*letter >= '1' && *letter <= '9') {
      factor = *letter - '0';
      continue;
    }
    const i64 length = *letter == 'G' ? gates * size.H : *letter == 'I' ? size.I : *letter == 'P' ? size.P : size.H;
    shape.push_back(factor * length);
    factor = 1;
  }
  return shape;
}

py::tuple recurrent_forward(const RecurrentOp& op, Chosen chosen, py::handle x, py::handle state, py::handle weights,
                            py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out) {
  const std::string name = std::string(op.name) + ".forward";
  return with_real(name, "x", x, [&]<class T>() {
    Call<T> call(name, op, chosen, x, state, weights, ids, lengths, reset, reverse, out);
    const Inputs<T> inputs = call.given.inputs();
    {
      const WithoutGil released;
      const Layer<T> layer(cell_kernels<T>(call.weights.kind), call.weights.size, call.weights.pointers);
      layer.forward(call.rows, inputs, call.state_in, call.output.steps, call.state_out);
    }
    return py::make_tuple(call.output.finish(), call.state);
  });
}

py::tuple recurrent_vjp(const RecurrentOp& op, Chosen chosen, py::handle x, py::handle state, py::handle weights,
                        py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle checkpoint_every,
                        py::handle out) {
  const std::string name = std::string(op.name) + ".vjp";
  constexpr i64 most = i64(1) << 60;
  const i64 every = checkpoint_every.is_none() ? 0 : to_integer(name, "checkpoint_every", checkpoint_every, 1, most);
  return with_real(name, "x", x, [&]<class T>() {
    Call<T> call(name, op, chosen, x, state, weights, ids, lengths, reset, reverse, out);
    const Inputs<T> inputs = call.given.inputs();
    std::unique_ptr<Recording<T>> recording;
    {
      const WithoutGil released;
      Layer<T> layer(cell_kernels<T>(call.weights.kind), call.weights.size, call.weights.pointers);
      recording = std::make_unique<Recording<T>>(std::move(layer), std::move(call.rows), inputs, every);
      recording->forward(call.state_in, call.output.steps, call.state_out);
    }
    return py::make_tuple(py::make_tuple(call.output.finish(), call.state),
                          py::cast(std::make_unique<Pullback>(op, std::move(call.given), std::move(recording))));
  });
}

py::object recurrent_stream(const RecurrentOp& op, Chosen chosen, py::handle layers, py::handle batch_) {
  const std::string name = std::string(op.name) + ".stream";
  const i64 batch = to_integer(name, "batch", batch_, 1, i64(1) << 31);
  if (!py::isinstance<py::sequence>(layers) || py::len(layers) == 0)
    wrong_type(name, "layers", layers, "a sequence of weight tuples");
  const auto given = py::reinterpret_borrow<py::sequence>(layers);
  const py::sequence first = to_sequence(name, "layers[0]", py::object(given[0]), op.weights.size());
  return with_real(name, "weight_ih", py::object(first[0]), [&]<class T>() -> py::object {
    std::vector<ParsedWeights<T>> parsed;
    for (std::size_t i = 0; i < given.size(); ++i) {
      parsed.push_back(parse_weights<T>(name, at("layers", i), op, chosen, py::object(given[i])));
      const Sizes &size = parsed[i].size, &before = parsed[i ? i - 1 : 0].size;
      if (i && (size.I != before.P || size.P != before.P || size.H != before.H))
        wrong_value(name, at("layers", i) + " does not fit the layer before it");
    }
    std::unique_ptr<Stream<T>> stream;
    {
      const WithoutGil released;
      std::vector<Layer<T>> packed;
      for (const auto& w : parsed) packed.emplace_back(cell_kernels<T>(w.kind), w.size, w.pointers);
      stream = std::make_unique<Stream<T>>(std::move(packed), batch);
    }
    return py::cast(std::make_unique<StreamObject>(op, std::move(stream)));
  });
}

void bind_recurrent(py::module_& m) {
  // Neither can be made from Python, not even through __new__, which would leave it without anything inside.
  const py::object never =
      py::module_::import("builtins").attr("staticmethod")(py::cpp_function([](py::args, py::kwargs) -> py::object {
        throw py::type_error("made by vjp and stream only");
      }));
  py::class_<Pullback> pullback(m, "Pullback",
                                "The way back of one vjp call: pullback(dy, dstate, grads) -> (dx, dstate).");
  pullback.def("__call__", &Pullback::call, py::arg("dy"), py::arg("dstate"), py::arg("grads"));
  pullback.attr("__new__") = never;
  py::class_<StreamObject> stream(m, "Stream", "Packed weights and a state, one step at a time.");
  stream.attr("__new__") = never;
  stream.def("step", &StreamObject::step, py::arg("x"), "(N, I) -> (N, H), or (I,) -> (H,) where N is 1.")
      .def("run", &StreamObject::run, py::arg("x"), "(T, N, I) -> (T, N, H).")
      .def("get_state", &StreamObject::get_state, "Copies of the states, (layers, N, H) each.")
      .def("set_state", &StreamObject::set_state, py::arg("state"))
      .def("reset", &StreamObject::reset, py::arg("rows") = py::none(), "Sets rows (all by default) to zero.");
  static pyrnn_stream_api api{StreamObject::borrow, StreamObject::step_from_c<float>, StreamObject::step_from_c<double>,
                              StreamObject::reset_from_c};
  m.attr("_stream_api") = py::capsule(&api, "pyrnn._core._stream_api");
}

}  // namespace pyrnn
