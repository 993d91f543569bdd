// The time loop: rows, ragged lengths, resets, directions, threads, forward and backward. It knows no cell: a cell is
// data, and equations behind pointers (compiled.hpp), so that one loop serves all.
//
// Bias and input product of some steps are made at once, into their records; then the steps are walked, stage by stage.
// Input and weight gradients follow a block of steps at a time.
#pragma once

#include <algorithm>
#include <optional>

#include "recurrent/gradients.hpp"
#include "recurrent/packing.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> class TimeLoop : Gradients<T> {
  using Base = Gradients<T>;
  using Stage = StageKernels<T>;
  using Base::L, Base::slots, Base::cell, Base::run, Base::rows, Base::thread, Base::threads, Base::group, Base::member,
      Base::H, Base::P, Base::I, Base::Hp, Base::Pp, Base::units, Base::outputs, Base::chunk_begin, Base::record,
      Base::record_of, Base::stride, Base::inner, Base::before, Base::dstate, Base::dinner, Base::at, Base::row,
      Base::alive, Base::each_tile, Base::each_run, Base::tiles, Base::nothing, Base::each_row, Base::each_norm,
      Base::product, Base::prepared, Base::prepare, Base::prepare_rows, Base::gather_rows, Base::vector;
  using typename Base::Tile;

 public:
  TimeLoop(const Run<T>& run, int thread) : Base(run, thread), end(thread + 1) {}

  static void forward(const Run<T>& run, int thread) { TimeLoop(run, thread).forward(); }
  static void backward(const Run<T>& run, int thread) { TimeLoop(run, thread).backward(); }

 private:
  int end;  // the thread does the parts `thread` to end - 1: more than its own where others came late

  // f(part) for each part of the work that this thread does.
  template <class F> void each_part(F f) const {
    if (run.watch->ended()) return;
    std::optional<TimeLoop> other;
    const TimeLoop* part = this;
    for (int t = thread;;) {
      f(*part);
      if (++t == end) return;
      other.emplace(run, t);
      other->chunk_begin = chunk_begin, other->prepared = prepared;
      part = &*other;
    }
  }

  // Meetings of the team, and of all threads. False: another thread does this one's parts from here on.
  bool meet() { return end - thread >= run.team || meet(*run.team_barrier[group], member, (group + 1) * run.team); }
  bool meet_all() { return end - thread == threads || meet(*run.all_barrier, thread, threads); }
  bool meet(Barrier& barrier, int first, int all) {
    if (!barrier.meet(first, first + end - thread)) return true;
    if (first > 0) return false;
    end = all;
    return true;
  }

  // By the caller's thread, now and then.
  void look() const {
    if (thread == 0) run.watch->poll();
  }

  // ---------------------------------------------------------------------------------------------------- forward

  void forward() {
    if (run.assistance) return forward_assisted();
    for (i64 from = run.begin; from < run.end; from += run.chunk) {
      const i64 to = std::min(from + run.chunk, run.end);
      chunk_begin = from;
      if (from > run.begin) look();
      each_part([&](const TimeLoop& part) { part.input_product(from, to); });
      if (!walk(from, to)) return;
    }
  }

  // Thread 0 walks; thread 1 makes input products ahead of it, as far as the chunk's records reach.
  void forward_assisted() {
    Assistance& with = *run.assistance;
    const i64 piece = run.chunk / with.pieces;
    i64 k = 0;
    for (i64 from = run.begin; from < run.end; from += piece, ++k) {
      const i64 to = std::min(from + piece, run.end);
      chunk_begin = from - k % with.pieces * piece;
      look();
      if (thread > 0) with.walked.wait(0, k - with.pieces + 1);
      if (thread > 0 && with.alone.load(std::memory_order_relaxed)) return;
      if (with.task.take(k)) {
        each_part([&](const TimeLoop& part) { part.input_product(from, to); });
        with.done.raise(k, 1);
      }
      if (thread > 0) continue;
      if (with.done.wait_or_late(k, 1, piece * work_of_step())) with.alone.store(true, std::memory_order_relaxed);
      walk(from, to);
      with.walked.raise(0, k + 1);
    }
  }

  // Multiply-adds of a step of all this group's rows.
  i64 work_of_step() const {
    return run.begin < run.end ? alive(run.begin) * H * (I * cell.x_vectors + P * (cell.h_vectors + cell.inner)) : 0;
  }

  bool walk(i64 from, i64 to) {
    const bool long_steps = work_of_step() > Watch::work_between;
    for (i64 s = from; s < to; ++s) {
      if (long_steps) look();
      if (!step(s)) return false;
    }
    return true;
  }

  bool step(i64 s) {
    for (int k = 0; k < cell.stages; ++k) {
      const Stage& stage = cell.stage[std::size_t(k)];
      each_part([&](const TimeLoop& part) { part.multiply(stage, s); });
      if (stage.norms) {
        if (!meet()) return false;
        each_part([&](const TimeLoop& part) { stage.forward(part, s, part.units.begin, part.units.end); });
      }
      if (stage.meets_after && !meet()) return false;
    }
    return true;
  }

  void input_product(i64 from, i64 to) const {
    if (run.ids.data) return begin_records(from, to);
    const PackedMatrix<T>& weights = run.weights.ih;
    if (pyrnn::prepared_size(weights.form, I)) {
      i64 number = 0;
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        for (int r = 0; r < n; ++r) prepare(weights, I, number++, at(run.x, s[r], j[r]));
      });
    }
    auto each = [&](auto f) {
      i64 number = 0;
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        Tile tile;
        for (int r = 0; r < n; ++r)
          tile.a[r] = vector(weights, I, number++, at(run.x, s[r], j[r])), tile.out[r] = record(s[r], j[r]);
        f(tile, n);
      });
    };
    each_run(units, [&](i64 g0, i64 g1) { fill_records(run, each, g0, g1); });
  }

  // Where all of a record goes through the hidden product, that one starts from the table itself.
  void begin_records(i64 from, i64 to) const {
    if (cell.h_vectors < slots)
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        for (int r = 0; r < n; ++r)
          for (i64 g = units.begin; g < units.end; ++g)
            std::copy_n(looked_up(s[r], j[r]) + g * slots * L, cell.filled * L, record(s[r], j[r]) + g * slots * L);
      });
  }

  const T* looked_up(i64 s, i64 j) const { return run.table + *at(run.ids, s, j) * run.record_row; }

  static void tabulate(const Run<T>& run, int part, int parts) {
    const Slice mine(run.table_rows, part, parts);
    const auto* const form = run.weights.ih.form;
    const i64 size = pyrnn::prepared_size(form, run.size.I);
    if (size)
      for (i64 v = mine.begin; v < mine.end; ++v)
        form->prepare(run.x.at(0, v), run.size.I, run.prepared_table + v * size);
    auto each = [&](auto f) {
      for (i64 v = mine.begin; v < mine.end; v += max_rows) {
        const int n = int(std::min<i64>(max_rows, mine.end - v));
        Tile tile;
        for (int r = 0; r < n; ++r)
          tile.a[r] = size ? run.prepared_table + (v + r) * size : run.x.at(0, v + r),
          tile.out[r] = run.table + (v + r) * run.record_row;
        f(tile, n);
      }
    };
    each_run(Slice(groups_of<T>(run.size.H), 0, 1), [&](i64 g0, i64 g1) { fill_records(run, each, g0, g1); });
  }

  // Bias and input product of unit groups [g0, g1). each(f) calls f(tile, rows of it) for every tile: inputs, records.
  template <class Each> static void fill_records(const Run<T>& run, Each each, i64 g0, i64 g1) {
    const Compiled<T>& cell = static_cast<const Compiled<T>&>(*run.cell);
    const i64 slots = cell.slots;
    const T* bias = run.weights.bias + g0 * slots * L;
    const int others = cell.filled - cell.x_vectors;  // slots that begin with their bias alone
    if (others > 0)
      each([&](Tile& tile, int n) {
        for (int k = 0; k < others; ++k) {
          const i64 slot = (k < cell.x_first ? k : k + cell.x_vectors) * L;
          for (int r = 0; r < n; ++r)
            for (i64 g = g0; g < g1; ++g)
              store(tile.out[r] + g * slots * L + slot, load(bias + (g - g0) * slots * L + slot));
        }
      });
    auto of_gates = [&](auto f) {
      each([&](Tile& tile, int n) {
        for (int r = 0; r < n; ++r)
          tile.start[r] = bias + cell.x_first * L, tile.out[r] += (g0 * slots + cell.x_first) * L;
        f(tile, n);
      });
    };
    product(cell.x_vectors, true, of_gates, {1, run.size.I, 0}, run.weights.ih, run.size.I, slots * L, g0, g1);
  }

  // A stage of step s, a few unit groups at a time: its product, and its equations, or what goes before the meeting of
  // one with norms. The product of the output begins where bias and input product lie, or at the table itself.
  void multiply(const Stage& stage, i64 s) const {
    const bool many = rows.alive[s] > max_rows;
    const i64 group = stride(stage);
    const Packed<T>& weights = run.weights;
    if (stage.product == Product::output) prepare_rows(weights.hh, P, s, [&](i64 j) { return before(0, s, j); });
    if (stage.product == Product::inner) prepare_rows(weights.inner, H, s, [&](i64 j) { return inner(s, j); });
    each_run(stage.projects ? outputs : units, [&](i64 g0, i64 g1) {
      const i64 from = g0 * group, first = from + stage.first * L;
      if (stage.product == Product::output) {
        const bool from_table = run.ids.data && cell.h_vectors == slots;
        auto each = tiles(s, [&](Tile& tile, int r, i64 j, i64 number) {
          tile.a[r] = vector(weights.hh, P, number, before(0, s, j));
          tile.out[r] = record(s, j) + first;
          tile.start[r] = from_table ? looked_up(s, j) + from : tile.out[r];
        });
        product(cell.h_vectors, many, each, {1, P, 0}, weights.hh, P, group, g0, g1);
      }
      if (stage.product == Product::inner) {
        auto each = tiles(s, [&](Tile& tile, int r, i64 j, i64 number) {
          tile.a[r] = vector(weights.inner, H, number, inner(s, j));
          tile.out[r] = record_of(stage, s, j) + first;
          tile.start[r] = stage.projects ? nothing : tile.out[r];
        });
        product(1, many, each, {1, H, 0}, weights.inner, H, group, g0, g1);
      }
      if (stage.norms)
        each_row(s, [&](i64 j) {
          each_norm(stage, s, j, [&](const Norm& n, const RowNorm<T>& norm) {
            for (i64 g = g0; g < g1; ++g) norm.put(g, record(s, j) + (g * slots + n.first) * L);
          });
        });
      else
        stage.forward(*this, s, g0, g1);
    });
  }

  // --------------------------------------------------------------------------------------------------- backward

  void backward() {
    i64 blocks = 0;
    const bool long_steps = work_of_step() > Watch::work_between;
    for (i64 s = run.end - 1, block_end = run.end; thread < threads && s >= run.begin; --s) {
      if (long_steps) look();
      if (!step_back(s)) return;
      if (s % run.block && s > run.begin) continue;
      look();
      if (run.assistance) {
        run.assistance->walked.raise(0, ++blocks);
      } else {
        if (!cell.has_hidden() && !meet()) return;
        each_part([&](const TimeLoop& part) { part.input_grads(s, block_end, part.member, run.team); });
        if (!meet_all()) return;
        each_part([&](const TimeLoop& part) { part.weight_grads(s, block_end, part.thread, threads); });
      }
      block_end = s;
    }
    if (run.assistance) assisted_grads();
  }

  // The gradients of the blocks that have been walked, part by part: by thread 1 as soon as they have, and by thread 0
  // when it is through, beginning at the other part. Each part's sums are added up in the order of the blocks.
  void assisted_grads() const {
    Assistance& with = *run.assistance;
    i64 block = 0;
    for (i64 from, block_end = run.end; block_end > run.begin; block_end = from, ++block) {
      from = std::max((block_end - 1) / run.block * run.block, run.begin);
      with.walked.wait(0, block + 1);
      look();
      for (int i = 0; i < with.parts; ++i) {
        const int part = (i + (thread == 0)) % with.parts;
        if (thread > 0 && with.alone.load(std::memory_order_relaxed)) return;
        if (!with.task.take(block * with.parts + part)) continue;
        if (with.done.wait_or_late(part, block, run.block * work_of_step()) && thread == 0)
          with.alone.store(true, std::memory_order_relaxed);
        each_part([&](const TimeLoop& own) {
          own.input_grads(from, block_end, part, with.parts);
          own.weight_grads(from, block_end, part, with.parts);
        });
        with.done.raise(part, block + 1);
      }
    }
  }

  bool step_back(i64 s) {
    for (int k = cell.stages - 1; k >= 0; --k) {
      const Stage& stage = cell.stage[std::size_t(k)];
      each_part([&](const TimeLoop& part) { part.stage_back(stage, s); });
      if (stage.norms) {
        if (!meet()) return false;
        each_part([&](const TimeLoop& part) { part.norms_back(stage, s); });
      }
      if (stage.product != Product::none && !meet()) return false;
    }
    if (cell.has_hidden()) each_part([&](const TimeLoop& part) { part.output_back(s); });
    return true;
  }

  void stage_back(const Stage& stage, i64 s) const {
    const Stage& next = cell.last();
    const Segments runs{Pp / L, L, stride(next)};
    const PackedMatrix<T>& weights = run.transposed.inner;
    const auto gates = [&](i64 j) { return record_of(next, s, j) + next.first * L; };
    if (stage.leaves_inner) gather_rows(weights, runs, s, gates);
    each_run(stage.projects ? outputs : units, [&](i64 g0, i64 g1) {
      if (stage.leaves_inner) {
        auto each = tiles(s, [&](Tile& tile, int r, i64 j, i64 number) {
          tile.a[r] = vector(weights, Pp, number, gates(j));
          tile.start[r] = nothing;
          tile.out[r] = dinner(j) + g0 * L;
        });
        product(1, rows.alive[s] > max_rows, each, runs, weights, Pp, L, g0, g1);
      }
      stage.backward(*this, s, g0, g1);
    });
  }

  // What the equations of a stage have left for its norms goes back through these.
  void norms_back(const Stage& stage, i64 s) const {
    each_row(s, [&](i64 j) {
      each_norm(stage, s, j, [&](const Norm& n, const RowNorm<T>& norm) {
        const auto back = norm.back(T(run.weights.options.eps));
        for (i64 g = units.begin; g < units.end; ++g) {
          T* const at = record(s, j) + g * slots * L;
          for (int i = 0; i < n.count; ++i)
            store(at + (n.back + i) * L,
                  without_padding<T>(back(load(at + (n.back + i) * L), load(at + (n.first + i) * L)), H - g * L));
        }
      });
    });
  }

  // The gradient of the output before step s, of all that the product of the output reached.
  void output_back(i64 s) const {
    const Segments runs{Hp / L, cell.h_vectors * L, slots * L};
    const PackedMatrix<T>& weights = run.transposed.hh;
    const i64 k = Hp * cell.h_vectors;
    const auto gates = [&](i64 j) { return record(s, j) + (cell.gradients_first + cell.h_first) * L; };
    gather_rows(weights, runs, s, gates);
    each_run(outputs, [&](i64 g0, i64 g1) {
      if (s > run.begin && H == P)
        each_row(s, [&](i64 j) {
          Base::template prefetch<1>(record(s - 1, j) + g0 * slots * L, (g1 - g0) * slots * L);
          for (int k = 1; k < cell.states; ++k) Base::template prefetch<0>(before(k, s - 1, j) + g0 * L, (g1 - g0) * L);
          if (run.dy.data) Base::template prefetch<0>(at(run.dy, s - 1, j) + g0 * L, std::min(g1 * L, P) - g0 * L);
        });
      auto each = tiles(s, [&](Tile& tile, int r, i64 j, i64 number) {
        tile.a[r] = vector(weights, k, number, gates(j));
        tile.start[r] = tile.out[r] = dstate(0, j) + g0 * L;
      });
      product(1, rows.alive[s] > max_rows, each, runs, weights, k, L, g0, g1);
      if (!rows.fresh.empty())
        each_row(s, [&](i64 j) {
          if (rows.is_fresh(s, j)) std::fill(dstate(0, j) + g0 * L, dstate(0, j) + g1 * L, T(0));
        });
    });
  }

 public:
  static constexpr TimeLoopKernels<T> kernels = [] {
    TimeLoopKernels<T> table{Packing<T>::pack, nullptr, nullptr, tabulate, forward, nullptr, nullptr};
    if constexpr (has_way_back) {
      table.transpose = Packing<T>::transpose, table.unpack_add = Packing<T>::unpack_add;
      table.backward = backward, table.table_grads = Base::table_grads;
    }
    return table;
  }();
};

}  // namespace pyrnn::PYRNN_ISA
