// Buffers, segments and threads around the time loop: see layer.hpp.
#include "recurrent/layer.hpp"

#include <algorithm>
#include <cstring>

namespace pyrnn {

namespace {

i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

// Hands out parts of one buffer, each on a cache line's border.
template <class T> struct Carver {
  T* at = nullptr;
  i64 used = 0;
  T* take(i64 count) {
    T* here = at ? at + used : nullptr;
    used += round_up(count, 64 / i64(sizeof(T)));
    return here;
  }
};

// One buffer for what lay_out(Carver) takes, which is called twice: to count, and to hand out.
template <class T, class F> Buffer<T> laid_out(F lay_out) {
  Buffer<T> memory(lay_out(Carver<T>{}));
  lay_out(Carver<T>{memory.get()});
  return memory;
}

template <class T> Packed<T> carve(Carver<T>& from, const CellKernels<T>& cell, const Sizes& size) {
  const i64 Hp = round_up(size.H, cell.lanes), Pp = round_up(size.P, cell.lanes);
  Packed<T> out;
  out.ih = from.take(Hp * size.I * cell.x_vectors);
  out.hh = from.take(Hp * size.P * cell.h_vectors);
  if (cell.inner) out.inner = from.take(Pp * size.H);
  out.bias = from.take(Hp * cell.slots);
  out.unit = from.take(Hp * cell.unit_weights);
  return out;
}

// How many threads a run is worth, and whether they split rows or units. Rows where each thread gets a few tiles of
// them and the weights of a step stay in its cache, or where the weights are so small that reading them for a handful
// of rows costs less than a meeting (0.3 us between CPUs that share a cache, several times that between others); units
// otherwise, meeting at every step. A lonely run, of too few rows for two each, whose units are not worth meetings is
// walked by one thread and assisted by another.
constexpr i64 work_per_meeting = 60'000;  // multiply-adds of one thread in a step, below which meeting costs more
constexpr i64 cached_weights = 3 << 20;   // bytes of weights per step that rows may stream again and again
constexpr i64 small_weights = 400 << 10;  // and that even a handful of rows may

constexpr i64 work_to_assist = 2'000'000;  // multiply-adds, below which one thread is alone with a few rows
constexpr i64 large_weights = 4 << 20;     // bytes of weights that no level 2 cache holds

template <class T> i64 step_weights(const Layer<T>& l) {
  return l.Hp * l.size.I * l.cell.x_vectors + l.Hp * l.size.P * l.cell.h_vectors + (l.cell.inner ? l.Pp * l.size.H : 0);
}

template <class T> void share(Run<T>& run, const Layer<T>& l, int threads) {
  const Rows& rows = *run.rows;
  const i64 weights = step_weights(l);
  run.groups = run.team = 1, run.assisted = false;
  run.row_block = std::max<i64>(rows.N, 1), run.row_step = 1;
  if (threads == 1 || rows.steps == 0) return;
  const bool lonely = rows.N < 2 * threads;
  const bool even = round_up(rows.N, threads) * 6 <= rows.N * 7;  // no thread has much more than its share of rows
  const bool few_rows = rows.N < 4 * threads && (lonely || !even || weights * i64(sizeof(T)) > small_weights);
  const bool big_weights = weights * i64(sizeof(T)) > cached_weights && rows.N < 48 * threads;
  if (few_rows || big_weights) {
    const i64 groups = std::min(l.Hp, l.Pp) / l.cell.lanes;
    const i64 rows_per_step = std::max<i64>(rows.first[rows.steps] / rows.steps, 2);  // one row waits for the weights
    const i64 worth = l.cell.h_vectors ? weights * rows_per_step / work_per_meeting : threads;  // or nobody meets
    run.team = int(std::clamp<i64>(worth, 1, std::min<i64>(threads, groups)));
    run.assisted = run.team == 1 && lonely && run.chunk >= Assistance::pieces &&
                   weights * rows.first[rows.steps] >= work_to_assist;
    if (run.team > 1 || lonely) return;
  }
  run.groups = int(std::min<i64>(threads, rows.N));
  if (rows.is_ragged())
    run.row_block = 1, run.row_step = run.groups;
  else
    run.row_block = round_up(rows.N, run.groups) / run.groups;
}

// Where the rows of a run lie, as it has been shared: groups a page apart.
template <class T> Places places(const Run<T>& run, const Layer<T>& l, i64 slots) {
  const i64 row = std::min(l.Hp, l.Pp) * i64(sizeof(T));
  // Ragged rows lie in small runs, whatever the threads, so that memory follows the valid steps.
  const i64 together = run.rows->is_ragged() ? l.cell.max_rows : run.row_block;
  return Places(*run.rows, run.groups, run.row_block, run.row_step, together, slots, (4096 + row - 1) / row);
}

// The most tasks of an assisted run, in either direction.
template <class T> i64 tasks_of(const Run<T>& run) {
  const i64 steps = run.end - run.begin;
  return std::max(steps / (run.chunk / Assistance::pieces) + 1, Assistance::parts * (steps / run.block + 2));
}

// Runs f(run, thread) on the threads that `share` has given it.
template <class T, class F> void on_threads(Team& team, Run<T>& run, const Layer<T>& layer, Watch& watch, F f) {
  const int threads = run.groups * run.team;
  const i64 step = step_weights(layer) * std::max<i64>(run.rows->N, 1) / threads;
  Barrier all(threads, 3 * run.block * step);
  std::vector<std::unique_ptr<Barrier>> barriers;
  std::vector<Barrier*> pointers;
  for (int g = 0; g < run.groups; ++g) {
    barriers.push_back(std::make_unique<Barrier>(run.team, 2 * step * run.groups));
    pointers.push_back(barriers.back().get());
  }
  run.all_barrier = &all;
  run.team_barrier = pointers.data();
  Assistance assistance(run.assisted ? tasks_of(run) : 0);
  run.assistance = run.assisted ? &assistance : nullptr;
  run.watch = &watch;
  auto job = [&](int member) {
    if (member < threads + run.assisted) f(run, member);
  };
  team.run(job);
}

// A caller's state [N, size] into padded rows [one, stride] in the order of the run, and back.
template <class T> void gather_state(const Rows& rows, const Places& one, const T* from, i64 size, i64 stride, T* to) {
  std::fill_n(to, one.count() * stride, T(0));
  if (from)
    for (i64 j = 0; j < rows.N; ++j)
      std::memcpy(to + one.at(0, j) * stride, from + rows.order[j] * size, std::size_t(size) * sizeof(T));
}

template <class T> void scatter_row(const Rows& rows, const T* from, i64 j, i64 size, T* to) {
  if (to) std::memcpy(to + rows.order[j] * size, from, std::size_t(size) * sizeof(T));
}

// Rows whose last step lies in the run's [begin, end) leave their state; rows without any step theirs from before.
template <class T> void final_states(const Run<T>& run, const Layer<T>& l, const States<T>& out) {
  const Rows& rows = *run.rows;
  for (i64 j = 0; j < rows.N; ++j) {
    const i64 last = rows.length[j] - 1;
    const bool none = rows.length[j] == 0 && run.begin == 0;
    if (!none && (last < run.begin || last >= run.end)) continue;
    const i64 place = none ? run.one->at(0, j) : run.states->at(run.state_slot(last), j);
    for (int k = 0; k < l.cell.states; ++k)
      scatter_row(rows, (none ? run.before[k] : run.state[k]) + place * l.width(k), j, run.size.of_state(k), out[k]);
  }
}

// Memory for the table's records, where inputs are looked up.
template <class T> Buffer<T> take_inputs(Run<T>& run, const Inputs<T>& inputs) {
  run.x = inputs.x, run.ids = inputs.ids, run.table_rows = inputs.table_rows;
  Buffer<T> table(run.ids.data ? run.table_rows * run.record_row : 0);
  run.table = table.get();
  return table;
}

template <class T> void fill_table(Team& team, const Run<T>& run, const CellKernels<T>& cell) {
  if (run.ids.data) in_parts(team, [&](int part, int parts) { cell.tabulate(run, part, parts); });
}

// Steps whose input product is done at once: enough rows that W_ih is read seldom, few enough to stay in cache.
i64 chunk_steps(const Rows& rows) { return std::max<i64>(1, 96 / std::max<i64>(rows.N, 1)); }

template <class T> void copy(const std::vector<Buffer<T>>& from, const std::vector<Buffer<T>>& to) {
  for (std::size_t k = 0; k < from.size(); ++k) std::copy_n(from[k].get(), from[k].size(), to[k].get());
}

template <class T> i64 work_of(const Layer<T>& l, const Rows& rows) { return step_weights(l) * rows.first[rows.steps]; }

}  // namespace

template <class T>
Layer<T>::Layer(const CellKernels<T>& c, Sizes s, const Weights<const T>& weights)
    : cell(c), size(s), Hp(round_up(s.H, c.lanes)), Pp(round_up(s.P, c.lanes)) {
  auto lay_out = [&](Carver<T> from) {
    packed = carve(from, cell, size);
    return from.used;
  };
  memory_ = laid_out<T>(lay_out);
  packed.eps = weights.eps;
  Team team(8 * step_weights(*this));
  in_parts(team, [&](int part, int parts) { cell.pack(weights, size, packed, part, parts); });
}

template <class T>
void Layer<T>::forward(const Rows& rows, const Inputs<T>& inputs, States<const T> in, Steps<T> y, States<T> out) const {
  Run<T> run;
  run.rows = &rows, run.size = size, run.weights = packed;
  Team team(work_of(*this, rows));
  run.chunk = chunk_steps(rows), run.end = rows.steps;
  share(run, *this, team.size());
  const Places one = places(run, *this, 1), states = places(run, *this, 2), records = places(run, *this, run.chunk);
  run.one = &one, run.states = &states, run.records = &records;
  auto lay_out = [&](Carver<T> from) {
    for (int k = 0; k < cell.states; ++k) {
      run.before[k] = from.take(one.count() * width(k));
      run.state[k] = from.take(states.count() * width(k));
    }
    run.zeros = from.take(std::max(Hp, Pp));
    run.record = from.take(records.count() * record_row());
    run.record_row = record_row();
    if (cell.inner) run.inner = from.take(one.count() * Hp);
    if (cell.projects) run.projected = from.take(one.count() * Pp);
    return from.used;
  };
  const Buffer<T> memory = laid_out<T>(lay_out);
  for (int k = 0; k < cell.states; ++k)
    gather_state(rows, one, in[k], size.of_state(k), width(k), const_cast<T*>(run.before[k]));
  std::fill_n(const_cast<T*>(run.zeros), std::max(Hp, Pp), T(0));
  run.y = y;
  const Buffer<T> table = take_inputs(run, inputs);
  fill_table(team, run, cell);
  Watch watch;
  on_threads(team, run, *this, watch, cell.forward);
  watch.check();
  final_states(run, *this, out);
}

template <class T>
Recording<T>::Recording(Layer<T> layer, Rows rows, const Inputs<T>& inputs, i64 checkpoint_every)
    : layer_(std::move(layer)), rows_(std::move(rows)) {
  const CellKernels<T>& cell = layer_.cell;
  const i64 N = rows_.N, Hp = layer_.Hp, Pp = layer_.Pp, steps = rows_.steps;
  // Weight gradients are summed over a block of rows before they are added to the total. Four gates of 128 rows fill
  // most of a level 1 cache; more rows where the total is so large that adding to it takes long, fewer where one thread
  // may walk and another wait for its blocks.
  const i64 block_rows = step_weights(layer_) * i64(sizeof(T)) > large_weights ? 1024 : N < 4 ? 64 : 128;
  block_ = std::max<i64>(1, (block_rows + N - 1) / std::max<i64>(N, 1));
  segment_ = checkpoint_every ? std::min(round_up(checkpoint_every, block_), steps) : steps;
  segment_ = std::max<i64>(segment_, 1);
  segments_ = std::max<i64>(1, (steps + segment_ - 1) / segment_);

  run_.rows = &rows_, run_.size = layer_.size, run_.weights = layer_.packed;
  run_.chunk = chunk_steps(rows_), run_.block = block_, run_.record_row = layer_.record_row();
  // Rows keep their places for the way back, whatever threads there will be then. With checkpoints the way forward uses
  // the same memory as rings.
  share(run_, layer_, threads_worth(work_of(layer_, rows_)));
  one_ = places(run_, layer_, 1), kept_ = places(run_, layer_, segment_);
  if (segments_ > 1) ring_ = places(run_, layer_, 2), chunk_ = places(run_, layer_, run_.chunk);
  run_.one = &one_;
  const i64 states = std::max(kept_.count(), ring_.count());
  for (int k = 0; k < cell.states; ++k) {
    states_.emplace_back(states * layer_.width(k));
    states_at_.emplace_back(segments_ * one_.count() * layer_.width(k));
    run_.state[k] = states_[k].get();
  }
  record_ = Buffer<T>(std::max(kept_.count(), chunk_.count()) * run_.record_row);
  if (cell.inner) inner_ = Buffer<T>(states * Hp);
  if (cell.projects) projected_ = Buffer<T>(states * Pp);
  zeros_ = Buffer<T>(std::max(Hp, Pp)).zero();
  table_ = take_inputs(run_, inputs);
  run_.zeros = zeros_.get();
  run_.record = record_.get(), run_.inner = inner_.get(), run_.projected = projected_.get();
}

template <class T> void Recording<T>::forward(States<const T> in, Steps<T> y, States<T> out) {
  for (int k = 0; k < layer_.cell.states; ++k)
    gather_state(rows_, one_, in[k], layer_.size.of_state(k), layer_.width(k), states_at_[k].get());
  keep(segments_ == 1);
  run_.y = y;
  Team team(work_of(layer_, rows_));
  share(run_, layer_, team.size());
  fill_table(team, run_, layer_.cell);
  Watch watch;
  for (i64 q = 0; q < segments_; ++q) {
    go_to(q);
    on_threads(team, run_, layer_, watch, layer_.cell.forward);
    watch.check();
    final_states(run_, layer_, out);
    if (q + 1 < segments_) keep_states_after(q);
  }
  if (segments_ == 1) table_ = {};  // no step is walked again
  run_.y = {};
}

template <class T> void Recording<T>::keep(bool all) {
  run_.keep = all;
  run_.states = all ? &kept_ : &ring_;
  run_.records = all ? &kept_ : &chunk_;
}

template <class T> void Recording<T>::go_to(i64 q) {
  run_.begin = q * segment_, run_.end = std::min(run_.begin + segment_, rows_.steps);
  for (int k = 0; k < layer_.cell.states; ++k)
    run_.before[k] = states_at_[k].get() + q * one_.count() * layer_.width(k);
}

template <class T> void Recording<T>::keep_states_after(i64 q) {
  for (i64 j = 0; j < rows_.alive[run_.end]; ++j) {
    const i64 from = run_.states->at(run_.state_slot(run_.end - 1), j), to = (q + 1) * one_.count() + one_.at(0, j);
    for (int k = 0; k < layer_.cell.states; ++k)
      std::copy_n(run_.state[k] + from * layer_.width(k), layer_.width(k), states_at_[k].get() + to * layer_.width(k));
  }
}

template <class T>
void Recording<T>::backward(Steps<const T> dy, States<const T> in, Steps<T> dx, States<T> out,
                            const Weights<T>& grads) {
  const CellKernels<T>& cell = layer_.cell;
  const i64 N = rows_.N, Hp = layer_.Hp, Pp = layer_.Pp;
  auto lay_out = [&](Carver<T> from) {
    run_.grads = carve(from, cell, layer_.size);
    if (run_.ids.data) {
      run_.dtable = from.take(run_.table_rows * Hp * cell.x_vectors);
      run_.dtable_total = from.take(run_.table_rows * Hp * cell.x_vectors);
    }
    return from.used;
  };
  const Buffer<T> memory = laid_out<T>(lay_out).zero();
  auto lay_out_transposed = [&](Carver<T> from) {
    run_.transposed.ih = from.take(round_up(layer_.size.I, cell.lanes) * Hp * cell.x_vectors);
    run_.transposed.hh = from.take(Pp * Hp * cell.h_vectors);
    if (cell.inner) run_.transposed.inner = from.take(Hp * Pp);
    return from.used;
  };
  const Buffer<T> transposed = laid_out<T>(lay_out_transposed);
  const i64 one = one_.count();
  std::vector<Buffer<T>> dstates;
  for (int k = 0; k < cell.states; ++k) {
    dstates.emplace_back(one * layer_.width(k));
    gather_state(rows_, one_, in[k], layer_.size.of_state(k), layer_.width(k), dstates[k].get());
    run_.dstate[k] = dstates[k].get();
  }
  const Buffer<T> dinner(cell.inner ? one * Hp : 0);
  run_.dinner = dinner.get();
  run_.dy = dy, run_.dx = dx;
  // Each thread: the records of a block for some unit groups, and three pointers, a place and an id for each of its
  // rows; in the end a pointer for each row of the table.
  const i64 block_rows = rows_.steps ? rows_.first[std::min(block_, rows_.steps)] : 0;
  const i64 pointers = std::max(5 * block_rows, run_.table_rows);
  run_.scratch_size = round_up(
      block_rows * cell.groups_per_sum * cell.slots * cell.lanes + pointers * i64(sizeof(const void*) / sizeof(T)), 64);
  Team team(2 * work_of(layer_, rows_));
  Buffer<T> scratch(run_.scratch_size * team.size());
  run_.scratch = scratch.get();

  in_parts(team,
           [&](int part, int parts) { cell.transpose(layer_.packed, layer_.size, run_.transposed, part, parts); });
  share(run_, layer_, team.size());
  keep(true);
  Watch watch;
  for (i64 q = segments_ - 1; q >= 0; --q) {
    go_to(q);
    if (segments_ > 1) on_threads(team, run_, layer_, watch, cell.forward);
    on_threads(team, run_, layer_, watch, cell.backward);
    watch.check();
  }
  if (run_.ids.data) in_parts(team, [&](int part, int parts) { cell.table_grads(run_, part, parts); });
  in_parts(team, [&](int part, int parts) { cell.unpack_add(run_.grads, layer_.size, grads, part, parts); });
  for (i64 j = 0; j < N; ++j)
    for (int k = 0; k < cell.states; ++k)
      scatter_row(rows_, run_.dstate[k] + one_.at(0, j) * layer_.width(k), j, layer_.size.of_state(k), out[k]);
}

template <class T>
Stream<T>::Stream(std::vector<Layer<T>> layers, i64 batch)
    : layers_(std::move(layers)),
      rows_(1, batch, nullptr, nullptr, 0, 0, false),
      places_(rows_, 1, std::max<i64>(batch, 1), 1, std::max<i64>(batch, 1), 1, 0) {
  i64 record = 0, inner = 0, projected = 0, zeros = 0;
  for (const Layer<T>& l : layers_) {
    Memory memory;
    for (int k = 0; k < l.cell.states; ++k) {
      memory.now.push_back(Buffer<T>(batch * l.width(k)).zero());
      memory.next.emplace_back(batch * l.width(k));
      memory.first.emplace_back(batch * l.width(k));
    }
    states_.push_back(std::move(memory));
    record = std::max(record, batch * l.record_row());
    if (l.cell.inner) inner = std::max(inner, batch * l.Hp);
    if (l.cell.projects) projected = std::max(projected, batch * l.Pp);
    zeros = std::max({zeros, l.Hp, l.Pp});
  }
  record_ = Buffer<T>(record), inner_ = Buffer<T>(inner), projected_ = Buffer<T>(projected);
  zeros_ = Buffer<T>(zeros).zero();
}

template <class T> void Stream<T>::step(const T* x, i64 x_row, T* y, i64 y_row) {
  Watch watch;
  advance(x, x_row, y, y_row, watch);
}

template <class T> void Stream<T>::advance(const T* x, i64 x_row, T* y, i64 y_row, Watch& watch) {
  Steps<const T> input{x, 0, x_row};
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer<T>& l = layers_[i];
    Memory& m = states_[i];
    Run<T> run;
    run.rows = &rows_, run.size = l.size, run.weights = l.packed, run.end = 1;
    run.one = run.states = run.records = &places_;
    run.x = input, run.zeros = zeros_.get();
    for (int k = 0; k < l.cell.states; ++k) run.before[k] = m.now[k].get(), run.state[k] = m.next[k].get();
    run.record = record_.get(), run.record_row = l.record_row();
    run.inner = inner_.get(), run.projected = projected_.get();
    if (i + 1 == layers_.size()) run.y = {y, 0, y_row};
    const i64 work = step_weights(l) * rows_.N;
    if (work < 2 * work_per_thread) {
      run.row_block = std::max<i64>(rows_.N, 1), run.watch = &watch;
      if (rows_.steps) l.cell.forward(run, 0);
    } else {
      Team team(work);
      share(run, l, team.size());
      on_threads(team, run, l, watch, l.cell.forward);
    }
    input = {m.next[0].get(), 0, l.Pp};
  }
  watch.check();
  for (Memory& m : states_) std::swap(m.now, m.next);  // after all layers, so that a step that failed is no step
}

template <class T> void Stream<T>::run(i64 T_steps, Steps<const T> x, Steps<T> y) {
  i64 work = 1;
  for (const Layer<T>& l : layers_) work += step_weights(l) * rows_.N;
  const i64 often = std::clamp<i64>(Watch::work_between / work, 1, 1024);
  for (Memory& m : states_) copy(m.now, m.first);
  Watch watch;
  try {
    for (i64 t = 0; t < T_steps; ++t) {
      if (t % often == 0) watch.look();
      advance(x.at(t, 0), x.row, y.at(t, 0), y.row, watch);
    }
  } catch (...) {
    for (Memory& m : states_) copy(m.first, m.now);
    throw;
  }
}

template <class T> void Stream<T>::get_state(const States<T>& to) const {
  for (i64 i = 0, N = rows_.N; i < i64(layers_.size()); ++i) {
    const Layer<T>& l = layers_[i];
    for (int k = 0; k < l.cell.states; ++k)
      for (i64 n = 0, size = l.size.of_state(k); n < N; ++n)
        std::copy_n(states_[i].now[k].get() + n * l.width(k), size, to[k] + (i * N + n) * size);
  }
}

template <class T> void Stream<T>::set_state(const States<const T>& from) {
  for (i64 i = 0, N = rows_.N; i < i64(layers_.size()); ++i) {
    const Layer<T>& l = layers_[i];
    for (int k = 0; k < l.cell.states; ++k)
      for (i64 n = 0, size = l.size.of_state(k); n < N; ++n)
        std::copy_n(from[k] + (i * N + n) * size, size, states_[i].now[k].get() + n * l.width(k));
  }
}

template <class T> void Stream<T>::reset(i64 row) {
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const Layer<T>& l = layers_[i];
    for (int k = 0; k < l.cell.states; ++k) std::fill_n(states_[i].now[k].get() + row * l.width(k), l.width(k), T(0));
  }
}

template class Layer<float>;
template class Layer<double>;
template class Recording<float>;
template class Recording<double>;
template class Stream<float>;
template class Stream<double>;

}  // namespace pyrnn
