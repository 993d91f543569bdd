// A cell's equations over the unit groups of a part, and what its declarations (stage.hpp) amount to: from them the
// cell is made as the time loop sees it (compiled.hpp).
#pragma once

#include <algorithm>
#include <tuple>

#include "recurrent/part.hpp"
#include "recurrent/time_loop.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T, class Cell> class Equations {
  static constexpr int L = lanes<T>;
  using Stages = typename Cell::Stages;
  static constexpr int stages = int(std::tuple_size_v<Stages>);
  template <int k> using Stage = std::tuple_element_t<std::size_t(k), Stages>;
  using Last = Stage<stages - 1>;

  static constexpr bool has_hidden = Stage<0>::product == Product::output;
  template <int k> static constexpr bool leaves_inner = Last::product == Product::inner && k == stages - 2;
  static constexpr int inner_slot = [] {
    if constexpr (Last::product == Product::inner && !Last::projects)
      return Last::first;
    else
      return -1;
  }();
  template <int k>
  static constexpr auto norms = [] {
    if constexpr (requires { Stage<k>::norms; })
      return Stage<k>::norms;
    else
      return std::array<Norm, 0>{};
  }();

  // The slots that the way forward makes.
  static constexpr int kept = [] {
    if constexpr (requires { Cell::back_slots; })
      return Cell::slots - Cell::back_slots;
    else
      return Cell::slots;
  }();

  // f(state) for the states whose bits are set, and a pointer for each of them.
  template <unsigned bits, class F> static PYRNN_INLINE void each_state(F f) {
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (
          [&] {
            if constexpr (bits & bit(i)) f(i);
          }(),
          ...);
    }(std::make_integer_sequence<int, Cell::states>{});
  }
  template <unsigned bits, class U, class F> static PYRNN_INLINE std::array<U*, Cell::states> pointers(F f) {
    std::array<U*, Cell::states> p{};
    each_state<bits>([&](int i) { p[std::size_t(i)] = f(i); });
    return p;
  }

  // Stage k of step s of a row: a Step for each unit group.
  template <int k> struct StageRow {
    using Stage = Equations::Stage<k>;
    static constexpr int vectors = Stage::projects ? 1 : Cell::slots;
    static constexpr int unit_weights = Stage::projects ? 0 : Cell::unit_weights;

    PYRNN_INLINE StageRow(const Part<T>& part, i64 s, i64 j)
        : record(Stage::projects ? part.projected(s, j) : part.record(s, j)),
          weights(part.run.weights.unit),
          options(part.run.weights.options),
          before(pointers<Stage::reads, const T>([&](int i) { return part.before(i, s, j); })),
          after(pointers<Stage::sets, T>([&](int i) { return part.after(i, s, j); })) {}

    T* const record;
    const T* const weights;
    const CellOptions& options;
    const std::array<const T*, Cell::states> before;
    const std::array<T*, Cell::states> after;

    T* at(i64 g) const { return record + g * vectors * L; }

    // f(step) of unit group g, with `count` vectors of its record.
    template <int count, class F> PYRNN_INLINE void step(i64 g, F f) const {
      Vec<T> a[count], p[unit_weights + 1];
      for (int i = 0; i < count; ++i) a[i] = load(at(g) + i * L);
      for (int q = 0; q < unit_weights; ++q) p[q] = load(weights + (g * unit_weights + q) * L);
      Step<T, Cell::states> step(a, p, options);
      each_state<Stage::reads>([&](int i) { step.before[i] = load(before[i] + g * L); });
      f(step);
    }
  };

  // Of norms all unit groups have left their numbers.
  template <int k> static void forward(const Part<T>& part, i64 s, i64 g0, i64 g1) {
    using Stage = Equations::Stage<k>;
    using StageRow = StageRow<k>;
    constexpr int vectors = Stage::projects ? 1 : kept;
    constexpr bool last = k + 1 == stages;
    constexpr i64 stride = StageRow::vectors * L;
    const Run<T>& run = part.run;
    const i64 later = s + run.chunk;
    part.each_row(s, [&](i64 j) {
      if (k == 0 && run.keep && !run.assistance && later < run.end && j < part.rows.alive[later])
        part.template prefetch<1>(part.record(later, j) + g0 * stride, (g1 - g0) * stride);
      const StageRow row(part, s, j);
      std::array<Moments<T>, norms<k>.size()> moments;
      for (std::size_t q = 0; q < moments.size(); ++q)
        moments[q] = part.numbers(part.cell.stage[k], int(q), s, j).moments(T(run.weights.options.eps));
      for (i64 g = g0; g < g1; ++g)
        row.template step<vectors>(g, [&](auto& step) __attribute__((always_inline)) {
          for (std::size_t q = 0; q < moments.size(); ++q) {
            constexpr auto norms = Equations::norms<k>;
            for (int i = norms[q].first; i < norms[q].first + norms[q].count; ++i) step.a[i] = moments[q](step.a[i]);
          }
          Stage::forward(step);
          each_state<Stage::sets>([&](int i) { store(row.after[i] + g * L, step.after[i]); });
          if ((Stage::sets & bit(0)) && run.y.data) store(part.at(run.y, s, j) + g * L, step.after[0], part.P - g * L);
          if constexpr (leaves_inner<k>) store(part.inner(s, j) + g * L, step.inner);
          if (run.keep || !last)
            for (int i = 0; i < vectors; ++i) store(row.at(g) + i * L, step.a[i]);
        });
    });
  }

  template <int k> static void backward(const Part<T>& part, i64 s, i64 g0, i64 g1) {
    using Stage = Equations::Stage<k>;
    using StageRow = StageRow<k>;
    constexpr unsigned touched = Stage::sets | Stage::reads;
    const Run<T>& run = part.run;
    const i64 width = Stage::projects ? part.P : part.H;
    part.each_row(s, [&](i64 j) {
      const StageRow row(part, s, j);
      const bool fresh = part.rows.is_fresh(s, j);
      const auto d = pointers<touched, T>([&](int i) { return part.dstate(i, j); });
      for (i64 g = g0; g < g1; ++g)
        row.template step<StageRow::vectors>(g, [&](auto& step) __attribute__((always_inline)) {
          each_state<Stage::sets>([&](int i) { step.after[i] = load(row.after[i] + g * L); });
          each_state<touched>([&](int i) {
            const Vec<T> held = load(d[i] + g * L);
            step.d[i] = i == 0 && run.dy.data ? held + load(part.at(run.dy, s, j) + g * L, part.P - g * L) : held;
            step.d_before[i] = Stage::sets & bit(i) ? Vec<T>{} : held;
          });
          if constexpr (leaves_inner<k>) step.inner = load(part.dinner(j) + g * L);
          Stage::backward(step);
          // What an inner product has in the same record is left alone: others of the team read it.
          for (int i = 0; i < StageRow::vectors; ++i)
            if (!leaves_inner<k> || i != inner_slot)
              store(row.at(g) + i * L, without_padding<T>(step.a[i], width - g * L));
          if constexpr (norms<k>.size() > 0)
            part.each_norm(part.cell.stage[k], s, j, [&](const Norm& n, const RowNorm<T>& norm) {
              norm.put_back(g, row.at(g) + n.back * L, row.at(g) + n.first * L);
            });
          each_state<touched>([&](int i) {
            const bool ends = fresh && (i > 0 || !has_hidden);  // output_back ends the output's
            store(d[i] + g * L, ends ? Vec<T>{} : step.d_before[i]);
          });
        });
    });
  }

  static void unit_grads(const Part<T>& part, i64 from, i64 to, const Slice& rows, i64 g, T* grads) {
    Vec<T> total[Cell::unit_weights + 1] = {};
    for (i64 s = from; s < to; ++s)
      for (i64 j = rows.begin, end = std::min(rows.end, part.rows.alive[s]); j < end; ++j) {
        Vec<T> a[Cell::slots];
        for (int i = 0; i < Cell::slots; ++i) a[i] = load(part.record(s, j) + (g * Cell::slots + i) * L);
        Step<T, Cell::states> step(a, nullptr, part.run.weights.options);
        for (int k = Last::projects; k < Cell::states; ++k)
          step.before[k] = load(part.before(k, s, j) + g * L), step.after[k] = load(part.after(k, s, j) + g * L);
        Cell::unit_grads(step, total);
      }
    for (int q = 0; q < Cell::unit_weights; ++q) {
      T* out = grads + q * L;
      store(out, load(out) + total[q]);
    }
  }

  template <int k> static constexpr void add_stage(Compiled<T>& cell) {
    using Stage = Equations::Stage<k>;
    static_assert(stages <= most_stages && norms<k>.size() <= most_norms);
    static_assert(Cell::states <= most_states && Cell::unit_weights <= most_unit_weights);
    StageKernels<T>& stage = cell.stage[k];
    stage.product = Stage::product;
    stage.projects = Stage::projects;
    stage.leaves_inner = leaves_inner<k>;
    stage.norms = int(norms<k>.size()), stage.norms_before = cell.norms;
    std::ranges::copy(norms<k>, stage.norm.begin());
    stage.forward = forward<k>;
    if constexpr (has_way_back) stage.backward = backward<k>;
    cell.stages = k + 1, cell.norms += stage.norms;
    if constexpr (Stage::product != Product::none) stage.first = Stage::first;
    if constexpr (Stage::product == Product::output) {
      static_assert(k == 0, "only the first stage reads the output");
      cell.h_first = Stage::first, cell.h_gates = Stage::gates, cell.h_vectors = cell.h_gates.count;
    }
    if constexpr (Stage::product == Product::inner) {
      static_assert(k > 0 && k + 1 == stages, "only the last stage, behind another, reads what that one leaves");
      static_assert(Stage::gates.size() == 1);
      cell.inner_gates = Stage::gates, cell.inner = true, cell.projects = Stage::projects;
    }
  }

 public:
  static constexpr Compiled<T> compiled = [] {
    Compiled<T> cell;
    cell.loop = &TimeLoop<T>::kernels;
    cell.lanes = L, cell.max_rows = max_rows;
    cell.gates = Cell::gates, cell.states = Cell::states, cell.slots = Cell::slots;
    cell.x_gates = Cell::x_gates, cell.x_first = Cell::x_first, cell.x_vectors = cell.x_gates.count;
    cell.inner_slot = inner_slot;
    cell.unit_weights = Cell::unit_weights;
    if constexpr (has_way_back && Cell::unit_weights > 0) cell.unit_grads = unit_grads;
    cell.groups_per_sum = Cell::slots == 1 ? group_block : 1;
    [&]<int... k>(std::integer_sequence<int, k...>) {
      (add_stage<k>(cell), ...);
    }(std::make_integer_sequence<int, stages>{});
    cell.filled = std::max({cell.x_first + cell.x_vectors, cell.h_first + cell.h_vectors, inner_slot + 1});
    for (int k = 0; k < stages; ++k) {
      const bool last = k + 1 == stages;
      cell.stage[k].meets_after = cell.stage[last ? 0 : k + 1].product != Product::none || (last && cell.norms > 0);
      for (int q = 0; q < cell.stage[k].norms; ++q)
        if (cell.stage[k].norm[q].first == 0) cell.gradients_first = cell.stage[k].norm[q].back;
    }
    return cell;
  }();
};

}  // namespace pyrnn::PYRNN_ISA
