// The time loop: rows, ragged lengths, resets, directions, threads, forward and backward. It knows no cell: `Cell` is
// equations on vectors (cells/), in stages (stage.hpp).
//
// Bias and input product of some steps are made at once, into their records; then the steps are walked, stage by stage.
// Input and weight gradients follow a block of steps at a time.
#pragma once

#include <algorithm>
#include <optional>

#include "recurrent/gradients.hpp"
#include "recurrent/packing.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T, class Cell> class TimeLoop : Gradients<T, Cell> {
  using Base = Gradients<T, Cell>;
  using Base::L, Base::slots, Base::run, Base::rows, Base::thread, Base::threads, Base::group, Base::member, Base::H,
      Base::P, Base::I, Base::Hp, Base::Pp, Base::units, Base::outputs, Base::chunk_begin, Base::record, Base::inner,
      Base::before, Base::after, Base::dstate, Base::dinner, Base::at, Base::load_record, Base::row, Base::alive,
      Base::each_tile, Base::each_run, Base::tiles, Base::nothing, Base::load_unit_weights, Base::each_row;
  using typename Base::Facts;
  using Last = typename Facts::Last;
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
      other->chunk_begin = chunk_begin;
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
    return run.begin < run.end
               ? alive(run.begin) * H * (I * Facts::x_vectors + P * (Facts::h_vectors + Facts::has_inner))
               : 0;
  }

  bool walk(i64 from, i64 to) {
    const bool long_steps = work_of_step() > Watch::work_between;
    for (i64 s = from; s < to; ++s) {
      if (long_steps) look();
      if (!stages_from<0>(s)) return false;
    }
    return true;
  }

  template <int k> bool stages_from(i64 s) {
    if constexpr (k == Facts::stages) {
      return true;
    } else {
      each_part([&](const TimeLoop& part) { part.template stage<k>(s); });
      if constexpr (has_norms<k>) {
        if (!meet()) return false;
        each_part([&](const TimeLoop& part) { part.template equations<k>(s, part.units.begin, part.units.end); });
      }
      if (Facts::template meets_after<k> && !meet()) return false;
      return stages_from<k + 1>(s);
    }
  }
  template <int k> static constexpr bool has_norms = Facts::template norms<k>.size() > 0;

  void input_product(i64 from, i64 to) const {
    if (run.ids.data) return begin_records(from, to);
    auto each = [&](auto f) {
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        Tile tile;
        for (int r = 0; r < n; ++r) tile.a[r] = at(run.x, s[r], j[r]), tile.out[r] = record(s[r], j[r]);
        f(tile, n);
      });
    };
    each_run(units, [&](i64 g0, i64 g1) { fill_records(run, each, g0, g1); });
  }

  // Where all of a record goes through the hidden product, that one starts from the table itself.
  void begin_records(i64 from, i64 to) const {
    if constexpr (Facts::h_vectors < slots)
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        for (int r = 0; r < n; ++r)
          for (i64 g = units.begin; g < units.end; ++g)
            std::copy_n(looked_up(s[r], j[r]) + g * slots * L, Facts::filled * L, record(s[r], j[r]) + g * slots * L);
      });
  }

  const T* looked_up(i64 s, i64 j) const { return run.table + *at(run.ids, s, j) * run.record_row; }

  static void tabulate(const Run<T>& run, int part, int parts) {
    const Slice mine(run.table_rows, part, parts);
    auto each = [&](auto f) {
      for (i64 v = mine.begin; v < mine.end; v += max_rows) {
        const int n = int(std::min<i64>(max_rows, mine.end - v));
        Tile tile;
        for (int r = 0; r < n; ++r) tile.a[r] = run.x.at(0, v + r), tile.out[r] = run.table + (v + r) * run.record_row;
        f(tile, n);
      }
    };
    each_run(Slice(groups_of<T>(run.size.H), 0, 1), [&](i64 g0, i64 g1) { fill_records(run, each, g0, g1); });
  }

  // Bias and input product of unit groups [g0, g1). each(f) calls f(tile, rows of it) for every tile: inputs, records.
  template <class Each> static void fill_records(const Run<T>& run, Each each, i64 g0, i64 g1) {
    const T* bias = run.weights.bias + g0 * slots * L;
    if constexpr (Facts::x_vectors < Facts::filled)
      each([&](Tile& tile, int n) {
        for (int r = 0; r < n; ++r)
          for (i64 g = 0; g < g1 - g0; ++g)
            for (int i = 0; i < Facts::filled; ++i)
              if (i < Cell::x_first || i >= Cell::x_first + Facts::x_vectors)
                store(tile.out[r] + ((g0 + g) * slots + i) * L, load(bias + (g * slots + i) * L));
      });
    auto of_gates = [&](auto f) {
      each([&](Tile& tile, int n) {
        for (int r = 0; r < n; ++r)
          tile.start[r] = bias + Cell::x_first * L, tile.out[r] += (g0 * slots + Cell::x_first) * L;
        f(tile, n);
      });
    };
    Base::template product<Facts::x_vectors>(true, of_gates, {1, run.size.I, 0}, run.weights.ih, run.size.I, slots * L,
                                             g0, g1);
  }

  // Stage k of step s, a few unit groups at a time; of one with norms, what goes before the meeting.
  template <int k> void stage(i64 s) const {
    each_run(Facts::template Stage<k>::projects ? outputs : units, [&](i64 g0, i64 g1) {
      multiply<k>(s, g0, g1);
      if constexpr (has_norms<k>)
        each_row(s, [&](i64 j) {
          Base::template each_norm<k>(s, j, [&](const Norm& n, const RowNorm<T>& norm) {
            for (i64 g = g0; g < g1; ++g) norm.put(g, record(s, j) + (g * slots + n.first) * L);
          });
        });
      else
        equations<k>(s, g0, g1);
    });
  }

  // The product of stage k. That of the output begins where bias and input product lie, or at the table itself.
  template <int k> PYRNN_INLINE void multiply(i64 s, i64 g0, i64 g1) const {
    using Stage = typename Facts::template Stage<k>;
    constexpr i64 stride = Base::template vectors_of<Stage> * L;
    auto record_at = [&](i64 j) { return Base::template record_of<Stage>(s, j); };
    if constexpr (Stage::product == Product::output) {
      auto each = tiles(s, [&](Tile& tile, int r, i64 j) {
        tile.a[r] = before(0, s, j);
        tile.start[r] = tile.out[r] = record_at(j) + g0 * stride + Stage::first * L;
        if (Facts::h_vectors == slots && run.ids.data) tile.start[r] = looked_up(s, j) + g0 * stride;
      });
      Base::template product<Facts::h_vectors>(rows.alive[s] > max_rows, each, {1, P, 0}, run.weights.hh, P, stride, g0,
                                               g1);
    }
    if constexpr (Stage::product == Product::inner) {
      auto each = tiles(s, [&](Tile& tile, int r, i64 j) {
        tile.a[r] = inner(s, j);
        tile.out[r] = record_at(j) + g0 * stride + Stage::first * L;
        tile.start[r] = Stage::projects ? nothing : tile.out[r];
      });
      Base::template product<1>(rows.alive[s] > max_rows, each, {1, H, 0}, run.weights.inner, H, stride, g0, g1);
    }
  }

  // The equations of stage k, and its norms, of which all unit groups have left their numbers.
  template <int k> PYRNN_INLINE void equations(i64 s, i64 g0, i64 g1) const {
    using Stage = typename Facts::template Stage<k>;
    constexpr i64 stride = Base::template vectors_of<Stage> * L;
    constexpr int vectors = Stage::projects ? 1 : Facts::kept;
    constexpr bool last = k + 1 == Facts::stages;
    const i64 later = s + run.chunk;
    each_row(s, [&](i64 j) {
      if (k == 0 && run.keep && !run.assistance && later < run.end && j < rows.alive[later])
        Base::template prefetch<1>(record(later, j) + g0 * stride, (g1 - g0) * stride);
      T* const record_j = Base::template record_of<Stage>(s, j);
      const auto from = Base::template pointers<Stage::reads, const T>([&](int i) { return before(i, s, j); });
      const auto to = Base::template pointers<Stage::sets, T>([&](int i) { return after(i, s, j); });
      std::array<Moments<T>, Facts::template norms<k>.size()> moments;
      Base::template each_norm<k>(s, j, [&, q = 0](const Norm&, const RowNorm<T>& norm) mutable {
        moments[std::size_t(q++)] = norm.moments(run.weights.eps);
      });
      for (i64 g = g0; g < g1; ++g) {
        Vec<T> a[vectors], p[Cell::unit_weights + 1];
        load_record(a, record_j + g * stride);
        if constexpr (!Stage::projects) load_unit_weights(p, g);
        Step<T, Cell::states> step(a, p);
        Base::template each_state<Stage::reads>([&](int i) { step.before[i] = load(from[i] + g * L); });
        for (std::size_t q = 0; q < moments.size(); ++q) {
          constexpr auto norms = Facts::template norms<k>;
          for (int i = norms[q].first; i < norms[q].first + norms[q].count; ++i) a[i] = moments[q](a[i]);
        }
        Stage::forward(step);
        Base::template each_state<Stage::sets>([&](int i) { store(to[i] + g * L, step.after[i]); });
        if ((Stage::sets & bit(0)) && run.y.data) store(at(run.y, s, j) + g * L, step.after[0], P - g * L);
        if constexpr (Facts::template leaves_inner<k>) store(inner(s, j) + g * L, step.inner);
        if (run.keep || !last)
          for (int i = 0; i < vectors; ++i) store(record_j + g * stride + i * L, a[i]);
      }
    });
  }

  // --------------------------------------------------------------------------------------------------- backward

  void backward() {
    i64 blocks = 0;
    const bool long_steps = work_of_step() > Watch::work_between;
    for (i64 s = run.end - 1, block_end = run.end; thread < threads && s >= run.begin; --s) {
      if (long_steps) look();
      if (!stages_back<Facts::stages - 1>(s)) return;
      if (s % run.block && s > run.begin) continue;
      look();
      if (run.assistance) {
        run.assistance->walked.raise(0, ++blocks);
      } else {
        if (!Facts::has_hidden && !meet()) return;
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

  template <int k> bool stages_back(i64 s) {
    if constexpr (k >= 0) {
      each_part([&](const TimeLoop& part) { part.template stage_back<k>(s); });
      if constexpr (has_norms<k>) {
        if (!meet()) return false;
        each_part([&](const TimeLoop& part) { part.template norms_back<k>(s); });
      }
      if (Facts::template Stage<k>::product != Product::none && !meet()) return false;
      return stages_back<k - 1>(s);
    } else {
      if constexpr (Facts::has_hidden) each_part([&](const TimeLoop& part) { part.output_back(s); });
      return true;
    }
  }

  template <int k> void stage_back(i64 s) const {
    using Stage = typename Facts::template Stage<k>;
    constexpr int vectors = Base::template vectors_of<Stage>;
    constexpr i64 stride = vectors * L;
    constexpr bool leaves_inner = Facts::template leaves_inner<k>;
    constexpr unsigned touched = Stage::sets | Stage::reads;
    const i64 width = Stage::projects ? P : H;
    auto record_at = [&](i64 j) { return Base::template record_of<Stage>(s, j); };
    each_run(Stage::projects ? outputs : units, [&](i64 g0, i64 g1) {
      if constexpr (leaves_inner) {
        auto each = tiles(s, [&](Tile& tile, int r, i64 j) {
          tile.a[r] = Base::template record_of<Last>(s, j) + Last::first * L;
          tile.start[r] = nothing;
          tile.out[r] = dinner(j) + g0 * L;
        });
        Base::template product<1>(rows.alive[s] > max_rows, each, {Pp / L, L, Base::template vectors_of<Last> * L},
                                  run.transposed.inner, Pp, L, g0, g1);
      }
      each_tile(s, [&](i64 first, int n) {
        for (int r = 0; r < n; ++r) {
          const i64 j = row(first + r);
          T* const record_j = record_at(j);
          const bool fresh = rows.is_fresh(s, j);
          const auto from = Base::template pointers<Stage::reads, const T>([&](int i) { return before(i, s, j); });
          const auto to = Base::template pointers<Stage::sets, const T>([&](int i) { return after(i, s, j); });
          const auto d = Base::template pointers<touched, T>([&](int i) { return dstate(i, j); });
          for (i64 g = g0; g < g1; ++g) {
            Vec<T> a[vectors], p[Cell::unit_weights + 1];
            load_record(a, record_j + g * stride);
            if constexpr (!Stage::projects) load_unit_weights(p, g);
            Step<T, Cell::states> step(a, p);
            Base::template each_state<Stage::reads>([&](int i) { step.before[i] = load(from[i] + g * L); });
            Base::template each_state<Stage::sets>([&](int i) { step.after[i] = load(to[i] + g * L); });
            Base::template each_state<touched>([&](int i) {
              const Vec<T> held = load(d[i] + g * L);
              step.d[i] = i == 0 && run.dy.data ? held + load(at(run.dy, s, j) + g * L, P - g * L) : held;
              step.d_before[i] = Stage::sets & bit(i) ? Vec<T>{} : held;
            });
            if constexpr (leaves_inner) step.inner = load(dinner(j) + g * L);
            Stage::backward(step);
            // What an inner product has in the same record is left alone: others of the team read it.
            for (int i = 0; i < vectors; ++i)
              if (!leaves_inner || i != Facts::inner_slot)
                store(record_j + g * stride + i * L, without_padding<T>(a[i], width - g * L));
            Base::template each_norm<k>(s, j, [&](const Norm& n, const RowNorm<T>& norm) {
              norm.put_back(g, record_j + g * stride + n.back * L, record_j + g * stride + n.first * L);
            });
            Base::template each_state<touched>([&](int i) {
              const bool ends = fresh && (i > 0 || !Facts::has_hidden);  // output_back ends the output's
              store(d[i] + g * L, ends ? Vec<T>{} : step.d_before[i]);
            });
          }
        }
      });
    });
  }

  // What the equations of stage k have left for its norms goes back through these.
  template <int k> void norms_back(i64 s) const {
    each_row(s, [&](i64 j) {
      Base::template each_norm<k>(s, j, [&](const Norm& n, const RowNorm<T>& norm) {
        const auto back = norm.back(run.weights.eps);
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
    each_run(outputs, [&](i64 g0, i64 g1) {
      if (s > run.begin && H == P)
        each_tile(s, [&](i64 first, int n) {
          for (int r = 0; r < n; ++r) {
            const i64 j = row(first + r);
            Base::template prefetch<1>(record(s - 1, j) + g0 * slots * L, (g1 - g0) * slots * L);
            for (int k = 1; k < Cell::states; ++k)
              Base::template prefetch<0>(before(k, s - 1, j) + g0 * L, (g1 - g0) * L);
            if (run.dy.data) Base::template prefetch<0>(at(run.dy, s - 1, j) + g0 * L, std::min(g1 * L, P) - g0 * L);
          }
        });
      auto each = tiles(s, [&](Tile& tile, int r, i64 j) {
        tile.a[r] = record(s, j) + (Facts::gradients_first + Facts::h_first) * L;
        tile.start[r] = tile.out[r] = dstate(0, j) + g0 * L;
      });
      Base::template product<1>(rows.alive[s] > max_rows, each, {Hp / L, Facts::h_vectors * L, slots * L},
                                run.transposed.hh, Hp * Facts::h_vectors, L, g0, g1);
      if (!rows.fresh.empty())
        each_tile(s, [&](i64 first, int n) {
          for (int r = 0; r < n; ++r)
            if (rows.is_fresh(s, row(first + r)))
              for (i64 g = g0; g < g1; ++g) store(dstate(0, row(first + r)) + g * L, Vec<T>{});
        });
    });
  }

 public:
  static constexpr CellKernels<T> kernels{L,
                                          max_rows,
                                          Cell::gates,
                                          Cell::states,
                                          slots,
                                          Facts::all_norms,
                                          Facts::x_vectors,
                                          Facts::h_vectors,
                                          Cell::unit_weights,
                                          int(Base::groups_per_sum),
                                          Facts::has_inner,
                                          Facts::projects,
                                          Packing<T, Cell>::pack,
                                          Packing<T, Cell>::transpose,
                                          Packing<T, Cell>::unpack_add,
                                          tabulate,
                                          forward,
                                          backward,
                                          Base::table_grads};
};

}  // namespace pyrnn::PYRNN_ISA
