// Layers one upon the other, one step at a time: see driver.hpp.
#include <algorithm>

#include "recurrent/driver_share.hpp"

namespace pyrnn {

namespace {

template <class T> void copy(const std::vector<Buffer<T>>& from, const std::vector<Buffer<T>>& to) {
  for (std::size_t k = 0; k < from.size(); ++k) std::copy_n(from[k].get(), from[k].size(), to[k].get());
}

}  // namespace

template <class T>
Stream<T>::Stream(Layers layers, i64 batch)
    : layers_(std::move(layers)),
      rows_(1, batch, nullptr, nullptr, 0, 0, false),
      places_(rows_, 1, std::max<i64>(batch, 1), 1, std::max<i64>(batch, 1), 1, 0) {
  i64 record = 0, inner = 0, projected = 0, prepared = 0, zeros = 0;
  for (const Layer<T>& l : *layers_) {
    Memory memory;
    for (int k = 0; k < l.cell.states; ++k) {
      memory.now.push_back(Buffer<T>(batch * l.width(k)).zero());
      memory.next.emplace_back(batch * l.width(k));
      memory.first.emplace_back(batch * l.width(k));
    }
    states_.push_back(std::move(memory));
    record = std::max(record, batch * l.record_row());
    if (l.cell.inner) inner = std::max(inner, batch * l.Hp);
    prepared = std::max(prepared, most_prepared(l, Transposed<T>(), batch, 1));
    if (l.cell.projects) projected = std::max(projected, batch * l.Pp);
    zeros = std::max({zeros, l.Hp, l.Pp});
  }
  record_ = Buffer<T>(record), inner_ = Buffer<T>(inner), projected_ = Buffer<T>(projected);
  prepared_ = Buffer<T>(prepared), zeros_ = Buffer<T>(zeros).zero();
}

template <class T> Stream<T> Stream<T>::taken(const std::vector<i64>& rows) const {
  Stream other(layers_, i64(rows.size()));
  for (std::size_t i = 0; i < states_.size(); ++i)
    for (std::size_t k = 0; k < states_[i].now.size(); ++k) {
      const i64 width = (*layers_)[i].width(int(k));
      for (std::size_t n = 0; n < rows.size(); ++n)
        std::copy_n(states_[i].now[k].get() + rows[n] * width, width, other.states_[i].now[k].get() + i64(n) * width);
    }
  return other;
}

template <class T> void Stream<T>::step(const T* x, i64 x_row, T* y, i64 y_row) {
  Watch watch;
  advance(x, x_row, y, y_row, watch);
}

template <class T> void Stream<T>::advance(const T* x, i64 x_row, T* y, i64 y_row, Watch& watch) {
  Steps<const T> input{x, 0, x_row};
  for (std::size_t i = 0; i < layers_->size(); ++i) {
    const Layer<T>& l = (*layers_)[i];
    Memory& m = states_[i];
    Run<T> run;
    run.cell = &l.cell, run.rows = &rows_, run.size = l.size, run.weights = l.packed, run.end = 1;
    run.one = run.states = run.records = &places_;
    run.x = input, run.zeros = zeros_.get();
    for (int k = 0; k < l.cell.states; ++k) run.before[k] = m.now[k].get(), run.state[k] = m.next[k].get();
    run.record = record_.get(), run.record_row = l.record_row();
    run.inner = inner_.get(), run.projected = projected_.get();
    if (i + 1 == layers_->size()) run.y = {y, 0, y_row};
    const i64 work = pyrnn::step_work(l) * rows_.N;
    if (work < 2 * work_per_thread) {
      run.row_block = std::max<i64>(rows_.N, 1), run.watch = &watch, run.prepared = prepared_.get();
      if (rows_.steps) l.cell.loop->forward(run, 0);
    } else {
      Team team(work);
      share(run, l, team.size());
      on_threads(team, run, l, watch, l.cell.loop->forward);
    }
    input = {m.next[0].get(), 0, l.Pp};
  }
  watch.check();
  for (Memory& m : states_) std::swap(m.now, m.next);  // after all layers, so that a step that failed is no step
}

template <class T> void Stream<T>::undo_step() {
  for (Memory& m : states_) std::swap(m.now, m.next);
}

template <class T> void Stream<T>::undo_run() {
  for (Memory& m : states_) copy(m.first, m.now);
}

template <class T> i64 Stream<T>::step_work() const {
  i64 work = 1;
  for (const Layer<T>& l : *layers_) work += pyrnn::step_work(l) * rows_.N;
  return work;
}

template <class T> void Stream<T>::run(i64 T_steps, Steps<const T> x, Steps<T> y) {
  const i64 often = std::clamp<i64>(Watch::work_between / step_work(), 1, 1024);
  for (Memory& m : states_) copy(m.now, m.first);
  Watch watch;
  try {
    for (i64 t = 0; t < T_steps; ++t) {
      if (t % often == 0) watch.poll();
      advance(x.at(t, 0), x.row, y.at(t, 0), y.row, watch);
    }
  } catch (...) {
    undo_run();
    throw;
  }
}

template <class T>
void Stream<T>::step_from(const States<const T>& from, const T* x, i64 x_row, T* y, i64 y_row, const States<T>& to) {
  for (Memory& m : states_) copy(m.now, m.first);
  const struct Restored {
    ~Restored() {
      for (Memory& m : states) copy(m.first, m.now);
    }
    std::vector<Memory>& states;
  } restored{states_};
  set_state(from);
  step(x, x_row, y, y_row);
  get_state(to);
}

template <class T> void Stream<T>::get_state(const States<T>& to) const {
  for (i64 i = 0, N = rows_.N; i < i64(layers_->size()); ++i) {
    const Layer<T>& l = (*layers_)[i];
    for (int k = 0; k < l.cell.states; ++k)
      for (i64 n = 0, size = l.size.of_state(k); n < N; ++n)
        std::copy_n(states_[i].now[k].get() + n * l.width(k), size, to[k] + (i * N + n) * size);
  }
}

template <class T> void Stream<T>::set_state(const States<const T>& from) {
  for (i64 i = 0, N = rows_.N; i < i64(layers_->size()); ++i) {
    const Layer<T>& l = (*layers_)[i];
    for (int k = 0; k < l.cell.states; ++k)
      for (i64 n = 0, size = l.size.of_state(k); n < N; ++n)
        std::copy_n(from[k] + (i * N + n) * size, size, states_[i].now[k].get() + n * l.width(k));
  }
}

template <class T> void Stream<T>::reset(i64 row) {
  for (std::size_t i = 0; i < layers_->size(); ++i) {
    const Layer<T>& l = (*layers_)[i];
    for (int k = 0; k < l.cell.states; ++k) std::fill_n(states_[i].now[k].get() + row * l.width(k), l.width(k), T(0));
  }
}

template class Stream<float>;
template class Stream<double>;

}  // namespace pyrnn
