// A forward run that can be walked back: what it keeps, cut at checkpoints, and the buffers of the way back. See
// driver.hpp.
#include "recurrent/driver_run.hpp"
#include "recurrent/scratch.hpp"

namespace pyrnn {

namespace {

constexpr i64 large_weights = 4 << 20;  // bytes of weights that no level 2 cache holds
constexpr i64 steps_per_row = 64;       // in a block, where rows have gradients of their own

}  // namespace

template <class T>
Recording<T>::Recording(Layer<T> layer, SharedRows rows, const Inputs<T>& inputs, i64 checkpoint_every, bool per_row)
    : layer_(std::move(layer)), shared_(std::move(rows)), rows_(*shared_), per_row_(per_row) {
  const CellKernels<T>& cell = layer_.cell;
  const i64 N = rows_.N, Hp = layer_.Hp, Pp = layer_.Pp, steps = rows_.steps;
  // Weight gradients are summed over a block of rows before they are added to the total. Four gates of 128 rows fill
  // most of a level 1 cache; more rows where the total is so large that adding to it takes long, fewer where one thread
  // may walk and another wait for its blocks.
  const i64 block_rows = step_work(layer_) * i64(sizeof(T)) > large_weights ? 1024 : N < 4 ? 64 : 128;
  block_ = per_row ? steps_per_row : std::max<i64>(1, ceil_div(block_rows, std::max<i64>(N, 1)));
  segment_ = checkpoint_every ? std::min(round_up(checkpoint_every, block_), steps) : steps;
  segment_ = std::max<i64>(segment_, 1);
  segments_ = std::max<i64>(1, ceil_div(steps, segment_));

  run_.cell = &cell, run_.rows = &rows_, run_.size = layer_.size, run_.weights = layer_.packed;
  run_.chunk = chunk_steps(rows_), run_.block = block_, run_.record_row = layer_.record_row();
  // Rows keep their places for the way back, whatever threads there will be then. With checkpoints the way forward uses
  // the same memory as rings.
  share(run_, layer_, threads_worth(run_work(layer_, rows_)));
  one_ = places(run_, layer_, 1), kept_ = places(run_, layer_, segment_);
  if (segments_ > 1) ring_ = places(run_, layer_, 2), chunk_ = places(run_, layer_, run_.chunk);
  run_.one = &one_;
  const i64 states = std::max(kept_.count(), ring_.count());
  memory_ = laid_out([&](Carver& from) {
    for (int k = 0; k < cell.states; ++k) {
      run_.state[k] = from.take<T>(states * layer_.width(k));
      states_at_[k] = from.take<T>(segments_ * one_.count() * layer_.width(k));
    }
    run_.record = from.take<T>(std::max(kept_.count(), chunk_.count()) * run_.record_row);
    run_.zeros = from.take<T>(std::max(Hp, Pp));
    if (cell.inner) run_.inner = from.take<T>(states * Hp);
    if (cell.projects) run_.projected = from.take<T>(states * Pp);
  });
  std::fill_n(const_cast<T*>(run_.zeros), std::max(Hp, Pp), T(0));
  table_ = take_inputs(run_, inputs);
}

template <class T> void Recording<T>::forward(States<const T> in, Steps<T> y, States<T> out) {
  for (int k = 0; k < layer_.cell.states; ++k)
    gather_state(rows_, one_, in[k], layer_.size.of_state(k), layer_.width(k), states_at_[k]);
  keep(segments_ == 1);
  run_.y = y;
  Team team(run_work(layer_, rows_));
  share(run_, layer_, team.size());
  fill_table(team, run_, layer_.cell);
  Watch watch;
  for (i64 q = 0; q < segments_; ++q) {
    go_to(q);
    on_threads(team, run_, layer_, watch, layer_.cell.loop->forward);
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
  for (int k = 0; k < layer_.cell.states; ++k) run_.before[k] = states_at_[k] + q * one_.count() * layer_.width(k);
}

template <class T> void Recording<T>::keep_states_after(i64 q) {
  for (i64 j = 0; j < rows_.alive[run_.end]; ++j) {
    const i64 from = run_.states->at(run_.state_slot(run_.end - 1), j), to = (q + 1) * one_.count() + one_.at(0, j);
    for (int k = 0; k < layer_.cell.states; ++k)
      std::copy_n(run_.state[k] + from * layer_.width(k), layer_.width(k), states_at_[k] + to * layer_.width(k));
  }
}

template <class T>
void Recording<T>::backward(Steps<const T> dy, States<const T> in, Steps<T> dx, States<T> out,
                            std::span<const Weights<T>> grads) {
  const CellKernels<T>& cell = layer_.cell;
  const i64 N = rows_.N, Hp = layer_.Hp, Pp = layer_.Pp;
  const Buffer<char> memory = laid_out([&](Carver& from) {
    run_.grads = carve(from, cell, layer_.size);
    const i64 numbers = from.bytes() / i64(sizeof(T));
    if (per_row_) from.take<T>(std::max<i64>(N - 1, 0) * numbers), run_.row_grads = numbers;
    if (run_.ids.data) {
      run_.dtable = from.take<T>(run_.table_rows * Hp * cell.x_vectors);
      run_.dtable_total = from.take<T>(run_.table_rows * Hp * cell.x_vectors);
    }
  });
  const Buffer<char> transposed = laid_out([&](Carver& from) {
    const auto matrix = [&](const PackedMatrix<T>& forward, i64 columns, i64 k) {
      const i64 groups = ceil_div(columns, cell.lanes);
      return PackedMatrix<T>(from.take<T>(packed_size(forward.form, 1, k, groups, cell.lanes)), forward.form);
    };
    run_.transposed.ih = matrix(layer_.packed.ih, layer_.size.I, Hp * cell.x_vectors);
    run_.transposed.hh = matrix(layer_.packed.hh, layer_.size.P, Hp * cell.h_vectors);
    if (cell.inner) run_.transposed.inner = matrix(layer_.packed.inner, layer_.size.H, Pp);
  });
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
  const i64 steps = std::min(block_, rows_.steps);
  run_.block_rows = per_row_ ? steps : rows_.steps ? rows_.first[steps] : 0;
  const i64 vectors = cell.x_vectors * cell.lanes, gates = prepared_size(layer_.packed.ih.form, Hp * cell.x_vectors);
  const BlockScratch<T> of_block(Carver(), run_.block_rows, cell.groups_per_sum * cell.slots * cell.lanes,
                                 layer_.packed, layer_.size);
  const TableScratch<T> of_table(Carver(), run_.table_rows, layer_.packed.ih.form, layer_.size.I, cell.max_rows * gates,
                                 vectors);
  const i64 scratch_bytes = std::max(of_block.bytes, of_table.bytes);
  run_.scratch_size = scratch_bytes / i64(sizeof(T));
  Team team(2 * run_work(layer_, rows_));
  Buffer<T> scratch(run_.scratch_size * team.size());
  run_.scratch = scratch.get();

  in_parts(team, [&](int part, int parts) {
    const Slice zeros(memory.size(), part, parts);
    std::memset(memory.get() + zeros.begin, 0, std::size_t(zeros.size()));
    cell.loop->transpose(cell, layer_.packed, layer_.size, run_.transposed, part, parts);
  });
  share(run_, layer_, team.size());
  keep(true);
  Watch watch;
  for (i64 q = segments_ - 1; q >= 0; --q) {
    go_to(q);
    if (segments_ > 1) on_threads(team, run_, layer_, watch, cell.loop->forward);
    on_threads(team, run_, layer_, watch, cell.loop->backward);
    watch.check();
  }
  if (run_.ids.data) in_parts(team, [&](int part, int parts) { cell.loop->table_grads(run_, part, parts); });
  if (per_row_)
    in_slices(team, N, [&](const Slice& mine) {
      for (i64 j = mine.begin; j < mine.end; ++j)
        cell.loop->unpack_add(cell, run_.grads.moved(j * run_.row_grads), layer_.size,
                              grads[std::size_t(rows_.order[std::size_t(j)])], 0, 1);
    });
  else
    in_parts(team, [&](int part, int parts) {
      cell.loop->unpack_add(cell, run_.grads, layer_.size, grads.front(), part, parts);
    });
  for (i64 j = 0; j < N; ++j)
    for (int k = 0; k < cell.states; ++k)
      scatter_row(rows_, run_.dstate[k] + one_.at(0, j) * layer_.width(k), j, layer_.size.of_state(k), out[k]);
}

template class Recording<float>;
template class Recording<double>;

}  // namespace pyrnn
