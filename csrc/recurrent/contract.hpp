// What a run of one layer in one direction is: its rows, sizes, weights and buffers. The driver (driver.hpp) fills it,
// the time loop compiled for this CPU (time_loop.hpp) works on it.
//
// Letters: T steps, N rows, I inputs, H hidden units, P outputs (= H without a projection), L lanes of a register.
// Hp, Pp, Ip are sizes rounded up to whole registers. A processing step s counts from a row's own start: forward it is
// time s, in reverse time length - 1 - s.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/forms.hpp"
#include "base/integers.hpp"
#include "base/steps.hpp"
#include "base/threads.hpp"

namespace pyrnn {

// Which rows are alive at which processing step. Rows are ordered by falling length (`order` gives the caller's row),
// so that those alive at a step are a prefix, and ragged batches cost what their valid steps cost.
struct Rows {
  i64 T = 0, N = 0;
  i64 steps = 0;                    // of the longest row
  std::vector<i64> order;           // [N] row -> the caller's row
  std::vector<i64> length;          // [N] falling
  std::vector<i64> alive;           // [steps] rows longer than s
  std::vector<i64> first;           // [steps + 1] valid steps of all rows before s
  std::vector<std::uint8_t> fresh;  // [first[steps]] the state is zero before this step; empty without resets
  bool reverse = false;

  // lengths [N] or null; reset [T, N] or null, read with strides in bytes.
  Rows(i64 T, i64 N, const i64* lengths, const std::uint8_t* reset, i64 reset_step, i64 reset_row, bool reverse);

  PYRNN_INLINE bool is_ragged() const { return N > 0 && length[0] != length[std::size_t(N) - 1]; }
  PYRNN_INLINE i64 time(i64 s, i64 row) const { return reverse ? length[row] - 1 - s : s; }
  PYRNN_INLINE bool is_fresh(i64 s, i64 row) const { return !fresh.empty() && fresh[first[s] + row]; }
};

// Where rows lie in a buffer that has some slots for each, one slot a step. The rows of a group of threads lie side by
// side, step after step, and apart from other groups': the cores' prefetchers reach beyond what a thread touches, and
// lines that another thread is writing would travel to and fro.
class Places {
 public:
  Places() = default;
  // Rows dealt to groups as in Run. Each `together` of a group's rows lie side by side. `gap`: places between groups.
  Places(const Rows& rows, int groups, i64 row_block, i64 row_step, i64 together, i64 slots, i64 gap);

  struct Row {
    i64 first, next;  // its place in slot 0, and the distance to the next slot
    PYRNN_INLINE i64 at(i64 slot) const { return first + slot * next; }
  };
  PYRNN_INLINE const Row* rows() const { return rows_.data(); }  // [N]
  PYRNN_INLINE i64 at(i64 slot, i64 row) const { return rows_[std::size_t(row)].at(slot); }
  PYRNN_INLINE i64 count() const { return count_; }

 private:
  std::vector<Row> rows_;
  i64 count_ = 0;
};

// A cell has a number of states, of which the first is its output: P wide, the others H.
struct Sizes {
  i64 I = 0, H = 0, P = 0;
  PYRNN_INLINE i64 of_state(int k) const { return k ? H : P; }
};

enum class Nonlinearity { tanh, relu, sigmoid, softsign, identity, hard_sigmoid, hard_sigmoid_6 };

// What an op's options choose besides the kind of cell, and the weights that are there where the kind does not say it.
struct CellOptions {
  double eps = 0;  // of norms
  Nonlinearity activation = Nonlinearity::tanh, gate_activation = Nonlinearity::sigmoid;
  bool peephole = false;
};

inline constexpr int most_states = 4, most_unit_weights = 16;
inline constexpr int norm_numbers = 4;  // that a unit group leaves for a norm (norm.hpp)

// One array for each state of a cell; null where there is none.
template <class T> using States = std::array<T*, most_states>;

// The weights as the caller holds them (or their gradients, which are added to). Null where absent.
template <class T> struct Weights {
  Matrix<T> ih, hh;                             // [G*H, I], [G*H, P]
  T *b_ih = nullptr, *b_hh = nullptr;           // [G*H]
  Matrix<T> hr;                                 // [P, H]
  std::array<T*, most_unit_weights> unit = {};  // [H] each: numbers of a unit
  CellOptions options;
};

// The same as panels (panels.hpp). The layouts of gradients are those of the forward panels.
template <class T> struct Packed {
  PackedMatrix<T> ih, hh, inner;       // [Hp/L][I][.][L], [Hp/L][P][.][L], [Pp/L][H][1][L], or as their forms have it
  T *bias = nullptr, *unit = nullptr;  // [Hp/L][slots][L], [Hp/L][unit weights][L]
  CellOptions options;

  // Of gradients: those that many numbers behind.
  PYRNN_INLINE Packed moved(i64 numbers) const {
    Packed to = *this;
    for (T** array : {&to.ih.panels, &to.hh.panels, &to.inner.panels, &to.bias, &to.unit})
      if (*array) *array += numbers;
    return to;
  }
};

template <class T> struct Transposed {
  PackedMatrix<T> ih, hh,
      inner;  // [Ip/L][gates of H][L], [Pp/L][gates of H][L], [Hp/L][Pp][L], or as their forms have it
};

// What a thread that walks the steps and one that assists it tell each other (time_loop.hpp). Where the assistant comes
// late, the walker does its tasks too.
struct Assistance {
  static constexpr i64 pieces = 4;  // of a chunk, each a task of the way forward
  static constexpr int parts = 2;   // of a block's gradients, each a task of the way back

  Assistance(i64 tasks) : task(tasks), done(tasks) {}
  Tasks task;
  Progress walked{1};  // pieces or blocks
  Progress done;       // forward: 1 for a piece whose input product is made; backward: the blocks done of a part
  std::atomic<bool> alone{false};  // the assistant came late and takes no more tasks
};

template <class T> struct CellKernels;

// Work on processing steps [begin, end).
template <class T> struct Run {
  const CellKernels<T>* cell = nullptr;
  const Rows* rows = nullptr;
  Sizes size;
  Packed<T> weights;
  i64 begin = 0, end = 0;
  Steps<const T> x;          // [T,N,I], or the table [V,I]
  States<const T> before{};  // [one,Pp or Hp] the states before `begin`
  const T* zeros = nullptr;  // [max(Hp,Pp)]

  // Inputs that are looked up: `ids` says which row of the table x a step reads. Bias and input product are made once
  // for each row of it, the gates' gradients are summed by rows.
  Steps<const i64> ids;       // [T,N]; data null: x is [T,N,I]
  i64 table_rows = 0;         // V
  T* table = nullptr;         // [V,record_row] records as a step begins with them
  T* dtable = nullptr;        // [Hp/L,V,x_vectors,L] the sums of the last blocks
  T* dtable_total = nullptr;  // the same of all blocks before them

  // What the steps leave. `keep`: all of them, for the way back, and `states` and `records` have a slot for each step.
  // Otherwise the states are a ring of two steps, and records cover `chunk` steps.
  bool keep = false;
  i64 chunk = 1;                                                       // steps whose input product is done at once
  const Places *one = nullptr, *states = nullptr, *records = nullptr;  // `one`: one slot
  States<T> state{};                                                   // [states,Pp or Hp]
  T* record = nullptr;  // [records,record_row]: [Hp/L,slots,L], pre-activations, then what the cell's backward needs,
                        // then gradients; behind them [norms,4,groups] what the groups leave for norms
  i64 record_row = 0;   // distance of two records
  T* inner = nullptr;   // [states or one,Hp] what a stage leaves for the product of the next, of cells that have one
  T* projected = nullptr;  // [states or one,Pp] the record of a projection
  T* prepared = nullptr;   // [threads][prepared_size] what products read of vectors, of matrices whose forms say so
  i64 prepared_size = 0;
  T* prepared_table = nullptr;  // the same of a table, for all threads
  Steps<T> y;                   // [T,N,P]; data null: not wanted

  // Backward only.
  Transposed<T> transposed;
  Steps<const T> dy;     // data null: zero
  Steps<T> dx;           // like x; data null: not wanted, for x [T,N,I]
  States<T> dstate{};    // [one,Pp or Hp] gradients of the states, carried from step to step
  T* dinner = nullptr;   // [one,Hp]
  Packed<T> grads;       // added to
  i64 row_grads = 0;     // 0: they are sums over rows. Else each row has its own, so many numbers behind the one before
  i64 block = 1;         // steps whose share of the weight gradients is summed before it is added
  i64 block_rows = 0;    // (step, row) pairs in it at most
  T* scratch = nullptr;  // [threads][scratch_size]
  i64 scratch_size = 0;

  // How threads share the work: `groups` of rows that never meet, and in each a team that splits the units and meets at
  // every step. Group g begins at row g * row_block and goes on by row_step: with row_block rows side by side, or,
  // where lengths differ, with every so many-th row, so that all groups have as many alive at every step. Or one group
  // of one thread, and a second thread that assists it with all that need not be done step by step.
  int groups = 1, team = 1;
  bool assisted = false;
  i64 row_block = 1, row_step = 1;
  Barrier** team_barrier = nullptr;  // [groups]
  Barrier* all_barrier = nullptr;
  Assistance* assistance = nullptr;
  Watch* watch = nullptr;

  PYRNN_INLINE i64 state_slot(i64 s) const { return keep ? s - begin : s & 1; }
};

// The time loop of all cells and what goes before and behind it, compiled for one dtype and instruction set. `thread`
// counts from 0 to groups * team - 1, and is 1 in an assistant.
template <class T> struct TimeLoopKernels {
  void (*pack)(const CellKernels<T>&, const Weights<const T>&, const Sizes&, const Packed<T>&, int part, int parts);
  void (*transpose)(const CellKernels<T>&, const Packed<T>&, const Sizes&, const Transposed<T>&, int part, int parts);
  void (*unpack_add)(const CellKernels<T>&, const Packed<T>&, const Sizes&, const Weights<T>&, int part, int parts);
  void (*tabulate)(const Run<T>&, int part, int parts);  // run.table, before the first forward
  void (*forward)(const Run<T>&, int thread);
  void (*backward)(const Run<T>&, int thread);
  void (*table_grads)(const Run<T>&, int part, int parts);  // what run.dtable_total says, after the last backward
};

// One cell, compiled for one dtype and instruction set, as far as a driver knows it.
template <class T> struct CellKernels {
  const TimeLoopKernels<T>* loop = nullptr;
  int lanes = 0, max_rows = 0;
  int gates = 0, states = 0, slots = 0, norms = 0, unit_weights = 0;
  int x_vectors = 0, h_vectors = 0;      // of the panels of the input product and of that of the output
  int groups_per_sum = 0;                // unit groups in a sum of weight gradients
  bool inner = false, projects = false;  // is there a product of what a stage leaves, and is it a projection
};

}  // namespace pyrnn
