// One layer in one direction as a call sees it: packed weights, a forward run that forgets, a recording for the way
// back, and a stream. Here buffers are laid out, long sequences are cut at checkpoints, and threads are given out.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/memory.hpp"
#include "recurrent/contract.hpp"

namespace pyrnn {

// The inputs of a run: x [T,N,I]; or a table x [V,I] and the rows of it that the steps read.
template <class T> struct Inputs {
  Steps<const T> x;
  Steps<const i64> ids;  // [T,N]; data null: no table
  i64 table_rows = 0;    // V
};

// Weights packed once for a run or a stream. The caller's arrays are not needed afterwards.
template <class T> class Layer {
 public:
  Layer(const CellKernels<T>& cell, Sizes size, const Weights<const T>& weights);

  // y and the final states of all rows, as callers hold them: [N, P] or [N, H] side by side; null is zero (coming in)
  // or not wanted (going out). Padding of y is not touched.
  void forward(const Rows& rows, const Inputs<T>& inputs, States<const T> in, Steps<T> y, States<T> out) const;

  // Distance of two records: a cache line more than they need, or rows of 4 KB would share the same few sets of a
  // cache.
  i64 record_row() const {
    const i64 groups = (Hp / cell.lanes + cell.lanes - 1) / cell.lanes * cell.lanes;
    return Hp * cell.slots + cell.norms * norm_numbers * groups + cell.lanes;
  }

  const CellKernels<T>& cell;
  const Sizes size;
  i64 Hp, Pp;
  i64 width(int state) const { return state ? Hp : Pp; }
  Packed<T> packed;

 private:
  Buffer<char> memory_;
};

// Those of several recordings may be the same.
using SharedRows = std::shared_ptr<const Rows>;

// A forward run that keeps what the way back needs, used once. `checkpoint_every` > 0 keeps only the states at about
// every so many steps (rounded up to whole blocks of weight gradient sums, so that no bit depends on it) and runs the
// steps between again. The inputs must outlive the recording; everything else is copied.
template <class T> class Recording {
 public:
  // per_row: backward gives gradients of each row; not with inputs that are looked up.
  Recording(Layer<T> layer, SharedRows rows, const Inputs<T>& inputs, i64 checkpoint_every, bool per_row);
  void forward(States<const T> in, Steps<T> y, States<T> out);
  // dx, like x (without ids it may be null), is written at valid steps, dstate_out in full; grads are added to: one for
  // all rows, or of each of the caller's rows.
  void backward(Steps<const T> dy, States<const T> dstate_in, Steps<T> dx, States<T> dstate_out,
                std::span<const Weights<T>> grads);

  const Layer<T>& layer() const { return layer_; }
  const SharedRows& rows() const { return shared_; }

 private:
  void keep(bool all);  // all steps of a segment, or the last ones only
  void go_to(i64 segment);
  void keep_states_after(i64 segment);

  Layer<T> layer_;
  SharedRows shared_;
  const Rows& rows_;
  bool per_row_;
  i64 block_, segment_, segments_;  // steps; steps; how many
  Run<T> run_;
  Places one_, kept_, ring_, chunk_;
  Buffer<char> memory_;    // of what run_ points to
  States<T> states_at_{};  // [segments][one,Pp or Hp] before each segment
  Buffer<T> table_;
};

// Layers one upon the other, one step at a time, states inside.
template <class T> class Stream {
 public:
  using Layers = std::shared_ptr<const std::vector<Layer<T>>>;
  Stream(Layers layers, i64 batch);
  Stream taken(const std::vector<i64>& rows) const;   // a stream of these rows, with their states, on the same weights
  void step(const T* x, i64 x_row, T* y, i64 y_row);  // [N, I] -> [N, P] of the last layer
  void run(i64 T_steps, Steps<const T> x, Steps<T> y);  // all of them or none
  // As it was before the last step or run, whose end was reached.
  void undo_step();
  void undo_run();
  i64 step_work() const;  // multiply-adds
  // A step from other states to other states, [layers, N, P or H]; its own are what they were.
  void step_from(const States<const T>& from, const T* x, i64 x_row, T* y, i64 y_row, const States<T>& to);
  void get_state(const States<T>& to) const;  // [layers, N, P or H]
  void set_state(const States<const T>& from);
  void reset(i64 row);

  const std::vector<Layer<T>>& layers() const { return *layers_; }
  i64 batch() const { return rows_.N; }

 private:
  // Of one layer, for each of its states: as it is, as the step under way leaves it, and as it was before a run, should
  // that come to no end.
  struct Memory {
    std::vector<Buffer<T>> now, next, first;
  };
  void advance(const T* x, i64 x_row, T* y, i64 y_row, Watch& watch);

  Layers layers_;
  Rows rows_;
  Places places_;  // one for each row
  std::vector<Memory> states_;
  Buffer<T> record_, inner_, projected_, prepared_, zeros_;
};

}  // namespace pyrnn
