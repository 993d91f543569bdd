// forward and vjp of the recurrent ops, and the pullback that vjp returns, around a layer and a recording (driver.hpp).
#include "bindings/recurrent.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <unordered_map>
#include <variant>

#include "bindings/bindings.hpp"
#include "bindings/weights.hpp"
#include "recurrent/driver.hpp"

namespace pyrnn {

namespace {

SharedRows parse_rows(const std::string& call, i64 T_steps, i64 N, py::handle lengths, py::handle reset, bool reverse) {
  const std::vector<i64> length = to_lengths(call, lengths, T_steps, N);
  py::array kept_reset = no_array();
  const std::uint8_t* mark = nullptr;
  i64 mark_step = 0, mark_row = 0;
  if (!reset.is_none()) {
    kept_reset = to_typed<bool>(call, "reset", reset);
    check_shape(call, "reset", kept_reset, {T_steps, N});
    mark = static_cast<const std::uint8_t*>(kept_reset.data());
    mark_step = kept_reset.strides(0), mark_row = kept_reset.strides(1);
  }
  return std::make_shared<const Rows>(T_steps, N, lengths.is_none() ? nullptr : length.data(), mark, mark_step,
                                      mark_row, reverse);
}

// Of one model, or the same of all, or of each where `lengths` or `reset` have an axis of models.
std::vector<SharedRows> parse_rows(const std::string& call, const Models& models, i64 T_steps, i64 N,
                                   py::handle lengths, py::handle reset, bool reverse) {
  auto has_axis = [&](py::handle object, py::ssize_t axes) {
    return models.axis && !object.is_none() && to_array(call, "lengths or reset", object).ndim() > axes;
  };
  const bool own_lengths = has_axis(lengths, 1), own_reset = has_axis(reset, 2);
  for (const auto& [own, name, object] : {std::tuple(own_lengths, "lengths", lengths), {own_reset, "reset", reset}})
    if (own && py::len(object) != std::size_t(models.count))
      wrong_shape(call, name, to_array(call, name, object), "(" + std::to_string(models.count) + ", ...)");
  std::vector<SharedRows> rows;
  for (i64 k = 0; k < (own_lengths || own_reset ? models.count : 1); ++k)
    rows.push_back(parse_rows(
        call, T_steps, N, own_lengths ? py::object(lengths[py::int_(k)]) : py::reinterpret_borrow<py::object>(lengths),
        own_reset ? py::object(reset[py::int_(k)]) : py::reinterpret_borrow<py::object>(reset), reverse));
  return rows;
}

// A state tuple, None, or None for an entry; arrays are kept alive in `kept`.
template <class T>
States<const T> parse_state(const std::string& call, const std::string& name, const RecurrentOp& op, py::handle object,
                            const Models& models, i64 N, const Sizes& size, std::vector<py::object>& kept) {
  States<const T> state{};
  if (object.is_none()) return state;
  const py::sequence given = to_sequence(call, name, object, op.states.size());
  for (std::size_t k = 0; k < op.states.size(); ++k) {
    py::object entry = given[k];
    if (entry.is_none()) continue;
    py::array_t<T> a = to_packed<T>(call, at(name, k), entry);
    check_shape(call, at(name, k), a, models.shape({N, size.of_state(int(k))}));
    state[k] = a.data();
    kept.push_back(a);
  }
  return state;
}

// The states of a model out of those of all, one after the other.
template <class T> States<T> states_of(const RecurrentOp& op, States<T> all, i64 model, i64 N, const Sizes& size) {
  for (std::size_t k = 0; k < op.states.size(); ++k)
    if (all[k]) all[k] += model * N * size.of_state(int(k));
  return all;
}

template <class T> Steps<T> steps_of(const Steps<T>& first, i64 model, i64 distance) {
  return {first.data ? first.data + model * distance : nullptr, first.step, first.row};
}

// Where y is written: a new array, the caller's `out`, or a stand-in that is copied there.
template <class T> struct Output {
  py::array y = no_array(), target = no_array();
  Steps<T> steps;

  Output(const std::string& call, py::handle out, const Shape& shape, bool padding) {
    if (out.is_none()) {
      y = target = padding ? zeros<T>(shape) : empty<T>(shape);
    } else {
      target = to_typed<T>(call, "out", out);
      check_shape(call, "out", target, shape);
      check_writable(call, "out", target);
      const bool direct = has_plain_rows<T>(target);
      y = direct ? target : py::array(zeros<T>(shape));
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
  py::array_t<i64> ids = no_array<py::array_t<i64>>();
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

  i64 steps() const { return looked_up ? ids.shape(0) : x.shape(x.ndim() - 3); }
  i64 batch() const { return looked_up ? ids.shape(1) : x.shape(x.ndim() - 2); }

  void check(const std::string& call, const Models& models, i64 I) const {
    if (models.axis && looked_up) wrong_value(call, "ids are given, but there are several models");
    const std::string lead = models.axis ? std::to_string(models.count) + ", T, N" : looked_up ? "V" : "T, N";
    const bool right = x.ndim() == (looked_up ? 2 : 3 + models.axis) && x.shape(x.ndim() - 1) == I;
    if (!right || (models.axis && x.shape(0) != models.count))
      wrong_shape(call, "x", x, "(" + lead + ", " + std::to_string(I) + ")");
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

bool has_padding(const SharedRows& rows) {
  return rows->steps < rows->T || rows->first[std::size_t(rows->steps)] < rows->T * rows->N;
}

// Everything forward and vjp have in common, checked.
template <class T> struct Call {
  const RecurrentOp& op;
  const Models models;
  const Sizes size;
  Given<T> given;
  std::vector<SharedRows> rows;  // one for all, or of each model
  std::vector<py::object> kept;
  States<const T> state_in{};
  States<T> state_out{};
  Output<T> output;
  py::tuple state;

  Call(const std::string& call, const RecurrentOp& op, const Models& models, const Sizes& size, py::handle x,
       py::handle state_, py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out)
      : op(op),
        models(models),
        size(size),
        given(call, x, ids),
        rows(checked_rows(call, lengths, reset, reverse)),
        output(call, out, models.shape({given.steps(), given.batch(), size.P}),
               std::ranges::any_of(rows, has_padding)) {
    state_in = parse_state<T>(call, "state", op, state_, models, given.batch(), size, kept);
    state = new_state<T>(op, models.shape({given.batch()}), size, state_out);
  }

  std::vector<SharedRows> checked_rows(const std::string& call, py::handle lengths, py::handle reset, bool reverse) {
    given.check(call, models, size.I);
    std::vector<SharedRows> rows = parse_rows(call, models, given.steps(), given.batch(), lengths, reset, reverse);
    given.look_up(call, *rows.front());
    return rows;
  }

  // f(model, rows, inputs, state before, y, state after) for each model, with the GIL released.
  template <class F> void each(F f) {
    const Inputs<T> inputs = given.inputs();
    const i64 x_distance = models.distance<T>(given.x), y_distance = models.distance<T>(output.y);
    const i64 work = models.count * rows.front()->first.back() * size.H * (size.I + size.P);
    const WithoutGil released;
    each_model(work, models.count, [&](i64 k) {
      f(k, rows[rows.size() > 1 ? std::size_t(k) : 0],
        Inputs<T>{steps_of(inputs.x, k, x_distance), inputs.ids, inputs.table_rows},
        states_of(op, state_in, k, given.batch(), size), steps_of(output.steps, k, y_distance),
        states_of(op, state_out, k, given.batch(), size));
    });
  }
};

// ------------------------------------------------------------------------------------------------------ pullback

template <class T> using Recordings = std::vector<std::unique_ptr<Recording<T>>>;  // of each model

class Pullback {
 public:
  template <class T>
  Pullback(const RecurrentOp& op, const Models& models, bool per_row, Given<T> given, Recordings<T> recordings)
      : op_(op),
        call_(std::string(op.name) + ".pullback"),
        models_(models),
        per_row_(per_row),
        kept_(Kept<T>{std::move(given), std::move(recordings)}) {}

  py::tuple call(py::handle dy, py::handle dstate, py::handle grads, bool need_dx) {
    return std::visit([&](auto& kept) { return run(kept, dy, dstate, grads, need_dx); }, kept_);
  }

 private:
  template <class T> struct Kept {
    Given<T> given;  // the recording reads it
    Recordings<T> recordings;
  };

  // Looking at the arguments may run other threads and other code, so what is kept is taken first, by one of those that
  // try, for this call alone, and put back if they are refused.
  template <class T> py::tuple run(Kept<T>& kept, py::handle dy, py::handle dstate, py::handle grads, bool need_dx) {
    if (taken_.exchange(true))
      throw std::runtime_error(call_ + ": this pullback has been used; call vjp again for another");
    Kept<T> mine = std::move(kept);
    bool used = false;
    try {
      return run(mine.given, mine.recordings, dy, dstate, grads, need_dx, used);
    } catch (...) {
      if (!used) kept = std::move(mine), taken_ = false;
      throw;
    }
  }

  template <class T>
  py::tuple run(const Given<T>& given, Recordings<T>& recordings, py::handle dy_, py::handle dstate_, py::handle grads_,
                bool need_dx, bool& used) {
    const Rows& rows = *recordings.front()->rows();
    const Sizes size = recordings.front()->layer().size;
    std::vector<py::object> kept;
    Steps<const T> dy;
    py::array dy_array = no_array();
    if (!dy_.is_none()) {
      dy_array = to_typed<T>(call_, "dy", dy_);
      check_shape(call_, "dy", dy_array, models_.shape({rows.T, rows.N, size.P}));
      dy = to_steps<T>(dy_array);
    }
    const States<const T> dstate = parse_state<T>(call_, "dstate", op_, dstate_, models_, rows.N, size, kept);
    const py::tuple g(to_sequence(call_, "grads", grads_, op_.weights.size()));
    const CellKernels<T>& cell = recordings.front()->layer().cell;
    Weights<T> grads;
    ModelWeights<T> all;
    all.data.reserve(op_.weights.size()), all.distances.reserve(op_.weights.size());
    const Models sets = per_row_ ? Models{rows.N, true} : models_;  // of gradients
    each_weight(op_, [&](std::size_t i, const CellWeight& weight, i64 unit) {
      const bool present = weight.role == Role::hr ? cell.projects : weight.role != Role::unit || cell.unit_weights > 0;
      if (!present && !py::object(g[i]).is_none())
        wrong_value(call_, at("grads", i) + " is given, but there is no " + weight.name);
      i64 distance = 0;
      T* data = to_gradients<T>(at("grads", i), py::object(g[i]), sets, weight.shape(op_.gate_count(), size), distance);
      all.data.push_back(data), all.distances.push_back(distance);
      put(grads, weight, unit, data, op_.gate_count(), size.H);
    });
    const bool padding =
        !given.looked_up && std::ranges::any_of(recordings, [](const auto& r) { return has_padding(r->rows()); });
    const Shape shape(given.x);
    py::object dx = py::none();
    Steps<T> dx_steps{};  // data null: not wanted
    py::array found = no_array(), dtable = no_array();
    if (need_dx || given.looked_up) {
      found = padding ? zeros<T>(shape) : empty<T>(shape);
      dx_steps =
          given.looked_up ? Steps<T>{static_cast<T*>(found.mutable_data()), 0, size.I} : writable_steps<T>(found);
    }
    if (given.looked_up) dtable = zeros<T>({given.table_rows, size.I});
    States<T> out{};
    const py::tuple dstate_out = new_state<T>(op_, models_.shape({rows.N}), size, out);
    used = true;
    {
      const i64 dy_distance = dy.data ? models_.distance<T>(dy_array) : 0;
      const i64 dx_distance = dx_steps.data ? models_.distance<T>(found) : 0;
      const i64 work = models_.count * 2 * rows.first.back() * size.H * (size.I + size.P);
      std::vector<Weights<T>> of_rows;
      for (i64 n = 0; per_row_ && n < rows.N; ++n) of_rows.push_back(all.of(op_, grads, n, size.H));
      const WithoutGil released;
      // The latest recordings first: of these some are in a cache still.
      each_model(work, models_.count, [&](i64 turn) {
        const i64 k = models_.count - 1 - turn;
        const std::unique_ptr<Recording<T>> recording = std::move(recordings[std::size_t(k)]);
        const std::array one{all.of(op_, grads, k, size.H)};
        recording->backward(steps_of(dy, k, dy_distance), states_of(op_, dstate, k, rows.N, size),
                            steps_of(dx_steps, k, dx_distance), states_of(op_, out, k, rows.N, size),
                            per_row_ ? std::span<const Weights<T>>(of_rows) : one);
      });
    }
    if (given.looked_up) given.put_rows(dx_steps.data, dtable);
    if (need_dx) dx = given.looked_up ? dtable : found;
    return py::make_tuple(dx, dstate_out);
  }

  // Where the first model's gradient begins, and how far the next one's is away; null of None.
  template <class T>
  T* to_gradients(const std::string& name, const py::object& object, const Models& sets, const Shape& shape,
                  i64& distance) {
    if (!sets.axis || object.is_none()) return to_gradient<T>(call_, name, object, shape);
    const py::array a = to_typed<T>(call_, name, object);
    check_shape(call_, name, a, sets.shape(shape));
    if (sets.count == 0) return nullptr;
    distance = sets.distance<T>(a);
    return to_gradient<T>(call_, name, sets.first(a), shape);
  }

  const RecurrentOp& op_;
  std::string call_;
  Models models_;
  bool per_row_;
  std::atomic<bool> taken_ = false;
  std::variant<Kept<float>, Kept<double>> kept_;
};

// pack(model) gives the layer, with the GIL released.
template <class T, class Pack>
py::tuple run_forward(const std::string& name, const RecurrentOp& op, const Models& models, const Sizes& size,
                      Pack pack, py::handle x, py::handle state, py::handle ids, py::handle lengths, py::handle reset,
                      bool reverse, py::handle out) {
  Call<T> call(name, op, models, size, x, state, ids, lengths, reset, reverse, out);
  call.each(
      [&](i64 k, const SharedRows& rows, const Inputs<T>& inputs, States<const T> before, Steps<T> y, States<T> after) {
        const auto& layer = pack(k);
        layer.forward(*rows, inputs, before, y, after);
      });
  return py::make_tuple(call.output.finish(), call.state);
}

}  // namespace

template <class T>
py::tuple packed_forward(const std::string& name, const RecurrentOp& op, const Layer<T>& layer, py::handle x,
                         py::handle state, py::handle ids, py::handle lengths, py::handle reset, bool reverse,
                         py::handle out) {
  const auto packed = [&](i64) -> const Layer<T>& { return layer; };
  return run_forward<T>(name, op, {}, layer.size, packed, x, state, ids, lengths, reset, reverse, out);
}

template py::tuple packed_forward(const std::string&, const RecurrentOp&, const Layer<float>&, py::handle, py::handle,
                                  py::handle, py::handle, py::handle, bool, py::handle);
template py::tuple packed_forward(const std::string&, const RecurrentOp&, const Layer<double>&, py::handle, py::handle,
                                  py::handle, py::handle, py::handle, bool, py::handle);

py::tuple recurrent_forward(const RecurrentOp& op, Chosen chosen, py::handle x, py::handle state, py::handle weights,
                            py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle out) {
  const std::string name = std::string(op.name) + ".forward";
  return with_dtype(name, "x", x, [&]<class T>() {
    const auto parsed = parse_weights<T>(name, "weights", op, chosen, weights);
    const auto pack = [&](i64 k) { return Layer<T>(cell_kernels<T>(parsed.kind), parsed.size, parsed.of(op, k)); };
    return run_forward<T>(name, op, parsed.models, parsed.size, pack, x, state, ids, lengths, reset, reverse, out);
  });
}

py::tuple recurrent_vjp(const RecurrentOp& op, Chosen chosen, py::handle x, py::handle state, py::handle weights,
                        py::handle ids, py::handle lengths, py::handle reset, bool reverse, py::handle checkpoint_every,
                        bool per_row, py::handle out) {
  const std::string name = std::string(op.name) + ".vjp";
  constexpr i64 most = i64(1) << 60;
  const i64 every = checkpoint_every.is_none() ? 0 : to_integer(name, "checkpoint_every", checkpoint_every, 1, most);
  return with_dtype(name, "x", x, [&]<class T>() {
    const auto parsed = parse_weights<T>(name, "weights", op, chosen, weights);
    const Weights<const T>& w = parsed.pointers;
    if ((w.ih.form || w.hh.form || w.hr.form) && !chosen.rounded)
      throw py::type_error(name + ": weights of bfloat16 or int8 have no way back, expected " + dtype_name<T>());
    Call<T> call(name, op, parsed.models, parsed.size, x, state, ids, lengths, reset, reverse, out);
    if (per_row && (parsed.models.axis || !ids.is_none()))
      wrong_value(name, "per_row is for one model, and not for x that ids look up");
    Recordings<T> recordings(std::size_t(parsed.models.count));
    call.each([&](i64 k, const SharedRows& rows, const Inputs<T>& inputs, States<const T> before, Steps<T> y,
                  States<T> after) {
      Layer<T> layer(cell_kernels<T>(parsed.kind), parsed.size, parsed.of(op, k));
      auto recording = std::make_unique<Recording<T>>(std::move(layer), rows, inputs, every, per_row);
      recording->forward(before, y, after);
      recordings[std::size_t(k)] = std::move(recording);
    });
    const py::tuple result = py::make_tuple(call.output.finish(), call.state);
    auto pullback =
        std::make_unique<Pullback>(op, parsed.models, per_row, std::move(call.given), std::move(recordings));
    return py::make_tuple(result, py::cast(std::move(pullback)));
  });
}

void bind_pullback(py::module_& m) {
  py::class_<Pullback> pullback(
      m, "Pullback",
      "The way back of one vjp call: pullback(dy, dstate, grads) -> (dx, dstate); without need_dx, (None, "
      "dstate) in less time.");
  pullback.def("__call__", &Pullback::call, py::arg("dy"), py::arg("dstate"), py::arg("grads"),
               py::arg("need_dx") = true);
  pullback.attr("__new__") = never_made();
}

}  // namespace pyrnn
