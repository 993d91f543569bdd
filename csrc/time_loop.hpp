// The time loop: rows, ragged lengths, resets, directions, threads, forward and backward. It knows no cell: `Cell` is
// equations on vectors (cells/), `Second` those behind a step's second product, or NoSecond.
//
// A step is: product of the hidden state with its panels, added to the record where bias and input product already lie;
// the cell's equations on the record; for some cells a second product and its equations. Going back, the equations turn
// the record into gradients of the pre-activations, from which the transposed panels make the gradient of the state
// before; input and weight gradients follow a block of steps at a time.
//
// A cell has: `gates`, blocks of H rows in its weights; `slots`, vectors of its record; `x_gates` and `h_gates`, the
// gates of the products with x and h (none: no such product), whose results lie in slots from `x_first` and `h_first`
// on; `unit_weights`, numbers per unit; `cell_state`, is there a c; `reads_hidden`, do the equations see h_prev.
// bias_hh is that of h_gates. forward turns pre-activations a into the record, backward the record into gradients of
// the pre-activations; the functions are those of cells/lstm.hpp, with unit_grads where there are unit weights.
#pragma once

#include <algorithm>
#include <type_traits>

#include "panels.hpp"
#include "recurrence.hpp"

namespace pyrnn::PYRNN_ISA {

struct NoSecond {
  static constexpr bool own_record = false;
  static constexpr std::array<int, 0> gates{};
};

template <class T, class Cell, class Second> class TimeLoop {
  static constexpr int L = lanes<T>;
  static constexpr int slots = Cell::slots;
  static constexpr int x_vectors = int(Cell::x_gates.size());
  static constexpr int h_vectors = int(Cell::h_gates.size());
  static constexpr bool has_second = !std::is_same_v<Second, NoSecond>;
  static constexpr bool projects = Second::own_record;
  static constexpr i64 summed_blocks = 16;                       // of gradients by id
  static constexpr i64 cached_panels = 704 << 10;                // bytes
  static constexpr i64 together = slots == 1 ? group_block : 1;  // unit groups in a sum of weight gradients

 public:
  static void forward(const Run<T>& run, int thread) { TimeLoop(run, thread).forward(); }
  static void backward(const Run<T>& run, int thread) { TimeLoop(run, thread).backward(); }

  static void pack(const Weights<const T>& w, const Sizes& size, const Packed<T>& out, int part, int parts) {
    const Slice mine(groups_of<T>(size.H), part, parts), mine_p(groups_of<T>(size.P), part, parts);
    pyrnn::PYRNN_ISA::pack(w.ih, size.I, Cell::x_gates, size.H, size.I, mine.begin, mine.end, out.ih);
    pyrnn::PYRNN_ISA::pack(w.hh, size.P, Cell::h_gates, size.H, size.P, mine.begin, mine.end, out.hh);
    if constexpr (has_second)
      pyrnn::PYRNN_ISA::pack(second_weight(w), size.H, Second::gates, size.P, size.H, mine_p.begin, mine_p.end,
                             out.second);
    for (i64 g = mine.begin; g < mine.end; ++g) {
      const i64 valid = size.H - g * L;
      T* bias = out.bias + g * slots * L;
      for (int s = 0; s < slots; ++s) store(bias + s * L, Vec<T>{});
      if (w.b_ih) {
        auto add = [&](int slot, const T* b, int gate) {
          store(bias + slot * L, load(bias + slot * L) + load(b + gate * size.H + g * L, valid));
        };
        for (int v = 0; v < x_vectors; ++v) add(Cell::x_first + v, w.b_ih, Cell::x_gates[v]);
        for (int v = 0; v < h_vectors; ++v) add(Cell::h_first + v, w.b_hh, Cell::h_gates[v]);
        if constexpr (has_second && !projects) add(0, w.b_hh, Second::gates[0]);
      }
      for (int q = 0; q < Cell::unit_weights; ++q)
        store(out.unit + (g * Cell::unit_weights + q) * L, load(w.unit + q * size.H + g * L, valid));
    }
  }

  static void transpose(const Packed<T>& panels, const Sizes& size, const Transposed<T>& out, int part, int parts) {
    auto run = [&]<int V>(const T* from, i64 units, i64 columns, T* to) {
      const Slice mine(groups_of<T>(columns), part, parts);
      if constexpr (V > 0) transpose_panels<V>(from, units, columns, mine.begin, mine.end, to);
    };
    run.template operator()<x_vectors>(panels.ih, size.H, size.I, out.ih);
    run.template operator()<h_vectors>(panels.hh, size.H, size.P, out.hh);
    if constexpr (has_second) run.template operator()<1>(panels.second, size.P, size.H, out.second);
  }

  static void unpack_add(const Packed<T>& grads, const Sizes& size, const Weights<T>& w, int part, int parts) {
    const Slice mine(groups_of<T>(size.H), part, parts), mine_p(groups_of<T>(size.P), part, parts);
    if (w.ih) pyrnn::PYRNN_ISA::unpack_add(grads.ih, Cell::x_gates, size.H, size.I, mine.begin, mine.end, w.ih);
    if (w.hh) pyrnn::PYRNN_ISA::unpack_add(grads.hh, Cell::h_gates, size.H, size.P, mine.begin, mine.end, w.hh);
    if constexpr (has_second)
      if (T* second = second_weight(w))
        pyrnn::PYRNN_ISA::unpack_add(grads.second, Second::gates, size.P, size.H, mine_p.begin, mine_p.end, second);
    auto add = [&](T* out, int gate, const T* from, i64 g) {
      if (out) {
        T* to = out + gate * size.H + g * L;
        store(to, load(to, size.H - g * L) + load(from), size.H - g * L);
      }
    };
    for (i64 g = mine.begin; g < mine.end; ++g) {
      const T* bias = grads.bias + g * slots * L;
      for (int v = 0; v < x_vectors; ++v) add(w.b_ih, Cell::x_gates[v], bias + (Cell::x_first + v) * L, g);
      for (int v = 0; v < h_vectors; ++v) add(w.b_hh, Cell::h_gates[v], bias + (Cell::h_first + v) * L, g);
      if constexpr (has_second && !projects) add(w.b_hh, Second::gates[0], bias, g);
      for (int q = 0; q < Cell::unit_weights; ++q) add(w.unit, q, grads.unit + (g * Cell::unit_weights + q) * L, g);
    }
  }

 private:
  struct Slice {
    i64 begin, end;
    Slice(i64 count, int part, int parts) : begin(count * part / parts), end(count * (part + 1) / parts) {}
  };

  // A projection has weights of its own; otherwise the second product takes its gate's rows of weight_hh.
  template <class U> static U* second_weight(const Weights<U>& w) { return projects ? w.hr : w.hh; }

  const Run<T>& run;
  const Rows& rows;
  const int thread, threads, group, member;
  const i64 H, P, I, Hp, Pp;
  const Places::Row *const one, *const states, *const records;
  const Slice units, outputs;  // this thread's unit groups of H and of P
  i64 chunk_begin = 0;

  TimeLoop(const Run<T>& r, int t)
      : run(r),
        rows(*r.rows),
        thread(t),
        threads(r.groups * r.team),
        group(t / r.team % r.groups),  // an assistant's is the walker's
        member(t % r.team),
        H(r.size.H),
        P(r.size.P),
        I(r.size.I),
        Hp(padded<T>(H)),
        Pp(padded<T>(P)),
        one(r.one->rows()),
        states(r.states->rows()),
        records(r.records->rows()),
        units(groups_of<T>(H), member, r.team),
        outputs(groups_of<T>(P), member, r.team) {}

  void meet() const { run.team_barrier[group]->wait(member); }

  // Where a step's vectors lie.
  i64 kept(i64 s, i64 j) const { return run.keep ? states[j].at(s - run.begin) : one[j].first; }
  T* record(i64 s, i64 j) const {
    return run.record + records[j].at(s - (run.keep ? run.begin : chunk_begin)) * run.record_row;
  }
  T* mid(i64 s, i64 j) const { return run.mid + kept(s, j) * Hp; }
  T* projected(i64 s, i64 j) const { return run.projected + kept(s, j) * Pp; }
  T* h(i64 s, i64 j) const { return run.h + states[j].at(run.state_slot(s)) * Pp; }
  T* c(i64 s, i64 j) const { return run.c + states[j].at(run.state_slot(s)) * Hp; }
  const T* h_prev(i64 s, i64 j) const {
    if (rows.is_fresh(s, j)) return run.zeros;
    return s == run.begin ? run.h_in + one[j].first * Pp : h(s - 1, j);
  }
  const T* c_prev(i64 s, i64 j) const {
    if (rows.is_fresh(s, j)) return run.zeros;
    return s == run.begin ? run.c_in + one[j].first * Hp : c(s - 1, j);
  }
  T* dh(i64 j) const { return run.dh + one[j].first * Pp; }
  T* dc(i64 j) const { return run.dc + one[j].first * Hp; }
  T* dmid(i64 j) const { return run.dmid + one[j].first * Hp; }
  template <class U> U* at(const Steps<U>& steps, i64 s, i64 j) const {
    return steps.at(rows.time(s, j), rows.order[j]);
  }

  // The record behind the second product, and the distance between its unit groups.
  T* second_record(i64 s, i64 j) const { return projects ? projected(s, j) : record(s, j); }
  static constexpr i64 second_stride = projects ? L : slots * L;

  // This group's rows are row(0), row(1), ...; how many of them are alive at step s.
  i64 row(i64 k) const { return group * run.row_block + k * run.row_step; }
  i64 alive(i64 s) const {
    const i64 n = (rows.alive[s] - row(0) + run.row_step - 1) / run.row_step;
    return std::max<i64>(0, run.row_step == 1 ? std::min(n, run.row_block) : n);
  }

  // f(k, count) for tiles of this group's rows that are alive at step s.
  template <class F> void each_tile(i64 s, F f) const {
    const i64 n = alive(s), tiles = (n + max_rows - 1) / max_rows;
    for (i64 i = 0; i < tiles; ++i) {
      // The larger tiles first: they hide more of the time it takes to bring the panels from a cache further away.
      const i64 from = (n * i + tiles - 1) / tiles;
      f(from, int((n * (i + 1) + tiles - 1) / tiles - from));
    }
  }

  // f(steps, rows, count) for tiles of this group's (step, row) pairs over steps [from, to).
  template <class F> void each_tile(i64 from, i64 to, F f) const {
    i64 s[max_rows], j[max_rows];
    int n = 0;
    for (i64 q = from; q < to; ++q)
      for (i64 k = 0, count = alive(q); k < count; ++k) {
        s[n] = q, j[n] = row(k);
        if (++n == max_rows) f(s, j, n), n = 0;
      }
    if (n) f(s, j, n);
  }

  // Where a chain of sums starts at 0.
  alignas(64) static constexpr T nothing[group_block * L] = {};

  // A tile's rows as a product reads and writes them.
  struct Tile {
    const T *a[max_rows], *start[max_rows];
    T* out[max_rows];
  };

  // For `product`: the tiles of step s, whose rows fill(tile, place in it, row) describes.
  template <class Fill> auto tiles(i64 s, Fill fill) const {
    return [this, s, fill](auto f) {
      each_tile(s, [&](i64 j, int n) {
        Tile tile;
        for (int r = 0; r < n; ++r) fill(tile, r, row(j + r));
        f(tile, n);
      });
    };
  }

  // f(first group, one past the last) for a slice of unit groups, a few at a time.
  template <class F> static void each_run(const Slice& slice, F f) {
    for (i64 g = slice.begin; g < slice.end; g += group_block) f(g, std::min(g + group_block, slice.end));
  }

  // Asks for memory that will be needed a step later: records lie a page apart, which the hardware does not foresee.
  template <int for_writing> static void prefetch(const T* from, i64 count) {
    for (i64 i = 0; i < count; i += 64 / i64(sizeof(T))) __builtin_prefetch(from + i, for_writing, 2);
  }

  // The product of all tiles with the panels of unit groups [g0, g1), V vectors of each (none for a cell without this
  // product). each(f) calls f(tile, rows of it) for every tile. Of panels that are too large for a level 2 cache, all
  // of the `many` tiles use one piece after the other.
  template <int V, class Each>
  static void product(bool many, Each each, Segments seg, const T* panels, i64 k, i64 c_group, i64 g0, i64 g1) {
    if constexpr (V > 0) {
      constexpr i64 vector = V * L * i64(sizeof(T));
      constexpr i64 fewest = std::clamp(max_accumulators / (max_rows * V), 1, int(group_block));
      i64 groups = g1 - g0, piece = k;
      if (many && groups * k * vector > cached_panels) {
        groups = std::clamp(cached_panels / (k * vector), std::min(fewest, groups), groups);
        piece = std::max(cached_panels / (groups * vector) / seg.length, i64(1)) * seg.length;
        if (seg.count == 1) piece = std::min(k, cached_panels / (groups * vector));
      }
      for (i64 g = g0; g < g1; g += groups) {
        i64 from = 0;
        do {  // once where k is 0: the sums are then their start
          const i64 length = std::min(piece, k - from), shift = seg.count == 1 ? from : from / seg.length * seg.stride;
          const Segments part =
              seg.count == 1 ? Segments{1, length, 0} : Segments{length / seg.length, seg.length, seg.stride};
          const Panels<T> panel{panels + (g * k + from) * V * L, V * L, k * V * L};
          each([&](Tile& tile, int n) {
            for (int r = 0; r < n; ++r) {
              tile.a[r] += shift, tile.start[r] += (g - g0) * c_group, tile.out[r] += (g - g0) * c_group;
              if (from) tile.start[r] = tile.out[r];
            }
            accumulate<V, false>(n, ByRow<T>{tile.a}, part, panel, tile.start, tile.out, c_group,
                                 std::min(groups, g1 - g));
          });
        } while ((from += piece) < k);
      }
    }
  }

  // ---------------------------------------------------------------------------------------------------- forward

  void forward() {
    if (run.assistance) return forward_assisted();
    for (i64 from = run.begin; from < run.end; from += run.chunk) {
      const i64 to = std::min(from + run.chunk, run.end);
      chunk_begin = from;
      input_product(from, to);
      walk(from, to);
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
      if (thread > 0) with.walked.wait(0, k - with.pieces + 1);
      if (with.task.take(k)) {
        input_product(from, to);
        with.done.raise(k, 1);
      }
      if (thread > 0) continue;
      with.done.wait(k, 1);
      walk(from, to);
      with.walked.raise(0, k + 1);
    }
  }

  void walk(i64 from, i64 to) const {
    for (i64 s = from; s < to; ++s) {
      hidden_step(s);
      if constexpr (has_second) {
        meet();
        second_step(s);
      }
      meet();
    }
  }

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
    if constexpr (h_vectors < slots)
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        for (int r = 0; r < n; ++r)
          std::copy(looked_up(s[r], j[r]) + units.begin * slots * L, looked_up(s[r], j[r]) + units.end * slots * L,
                    record(s[r], j[r]) + units.begin * slots * L);
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
    if constexpr (x_vectors < slots)
      each([&](Tile& tile, int n) {
        for (int r = 0; r < n; ++r)
          for (i64 g = 0; g < g1 - g0; ++g)
            for (int i = 0; i < slots; ++i)
              if (i < Cell::x_first || i >= Cell::x_first + x_vectors)
                store(tile.out[r] + ((g0 + g) * slots + i) * L, load(bias + (g * slots + i) * L));
      });
    auto of_gates = [&](auto f) {
      each([&](Tile& tile, int n) {
        for (int r = 0; r < n; ++r)
          tile.start[r] = bias + Cell::x_first * L, tile.out[r] += (g0 * slots + Cell::x_first) * L;
        f(tile, n);
      });
    };
    product<x_vectors>(true, of_gates, {1, run.size.I, 0}, run.weights.ih, run.size.I, slots * L, g0, g1);
  }

  void hidden_step(i64 s) const {
    const i64 later = s + run.chunk;
    each_run(units, [&](i64 g0, i64 g1) {
      auto each = tiles(s, [&](Tile& tile, int r, i64 row) {
        tile.a[r] = h_prev(s, row);
        tile.start[r] = tile.out[r] = record(s, row) + (g0 * slots + Cell::h_first) * L;
        if (h_vectors == slots && run.ids.data) tile.start[r] = looked_up(s, row) + g0 * slots * L;
      });
      product<h_vectors>(rows.alive[s] > max_rows, each, {1, P, 0}, run.weights.hh, P, slots * L, g0, g1);
      each_tile(s, [&](i64 j, int n) {
        for (int r = 0; r < n; ++r) {
          if (run.keep && !run.assistance && later < run.end && row(j + r) < rows.alive[later])
            prefetch<1>(record(later, row(j + r)) + g0 * slots * L, (g1 - g0) * slots * L);
          const T* hp = Cell::reads_hidden ? h_prev(s, row(j + r)) : nullptr;
          const T* cp = Cell::cell_state ? c_prev(s, row(j + r)) : nullptr;
          T* cn = Cell::cell_state ? c(s, row(j + r)) : nullptr;
          T* rec = record(s, row(j + r));
          for (i64 g = g0; g < g1; ++g) {
            Vec<T> v[slots], p[Cell::unit_weights + 1], state{}, hidden;
            load_record(v, rec + g * slots * L);
            load_unit_weights(p, g);
            if constexpr (Cell::cell_state) state = load(cp + g * L);
            Cell::template forward<T>(v, p, Cell::reads_hidden ? load(hp + g * L) : Vec<T>{}, state, hidden);
            if constexpr (Cell::cell_state) store(cn + g * L, state);
            if (run.keep || has_second) store_record(v, rec + g * slots * L);
            if constexpr (has_second) {
              store(mid(s, row(j + r)) + g * L, hidden);
            } else {
              store_hidden(s, row(j + r), g, hidden);
            }
          }
        }
      });
    });
  }

  void second_step(i64 s) const {
    each_run(outputs, [&](i64 g0, i64 g1) {
      auto each = tiles(s, [&](Tile& tile, int r, i64 row) {
        tile.a[r] = mid(s, row);
        tile.out[r] = second_record(s, row) + g0 * second_stride;
        tile.start[r] = projects ? nothing : tile.out[r];
      });
      product<1>(rows.alive[s] > max_rows, each, {1, H, 0}, run.weights.second, H, second_stride, g0, g1);
      each_tile(s, [&](i64 j, int n) {
        for (int r = 0; r < n; ++r) {
          const T* hp = h_prev(s, row(j + r));
          for (i64 g = g0; g < g1; ++g) {
            constexpr int vectors = projects ? 1 : slots;
            Vec<T> v[vectors], hidden;
            T* rec = second_record(s, row(j + r)) + g * second_stride;
            for (int i = 0; i < vectors; ++i) v[i] = load(rec + i * L);
            Second::template forward<T>(v, load(hp + g * L), hidden);
            if (run.keep)
              for (int i = 0; i < vectors; ++i) store(rec + i * L, v[i]);
            store_hidden(s, row(j + r), g, hidden);
          }
        }
      });
    });
  }

  void store_hidden(i64 s, i64 j, i64 g, Vec<T> hidden) const {
    store(h(s, j) + g * L, hidden);
    if (run.y.data) store(at(run.y, s, j) + g * L, hidden, P - g * L);
  }

  static void load_record(Vec<T> (&v)[slots], const T* rec) {
    for (int i = 0; i < slots; ++i) v[i] = load(rec + i * L);
  }
  static void store_record(const Vec<T> (&v)[slots], T* rec) {
    for (int i = 0; i < slots; ++i) store(rec + i * L, v[i]);
  }
  void load_unit_weights(Vec<T>* p, i64 g) const {
    for (int q = 0; q < Cell::unit_weights; ++q) p[q] = load(run.weights.unit + (g * Cell::unit_weights + q) * L);
  }

  // --------------------------------------------------------------------------------------------------- backward

  void backward() const {
    i64 blocks = 0;
    for (i64 s = run.end - 1, block_end = run.end; thread < threads && s >= run.begin; --s) {
      if constexpr (has_second) {
        second_step_back(s);
        meet();
      }
      cell_step_back(s);
      meet();
      hidden_step_back(s);
      if (s % run.block && s > run.begin) continue;
      if (run.assistance) {
        run.assistance->walked.raise(0, ++blocks);
      } else {
        input_grads(s, block_end, member, run.team);
        run.all_barrier->wait(thread);
        weight_grads(s, block_end, thread, threads);
      }
      block_end = s;
    }
    if (run.assistance) return assisted_grads();
    run.all_barrier->wait(thread);
  }

  // The gradients of the blocks that have been walked, part by part: by thread 1 as soon as they have, and by thread 0
  // when it is through, beginning at the other part. Each part's sums are added up in the order of the blocks.
  void assisted_grads() const {
    Assistance& with = *run.assistance;
    i64 block = 0;
    for (i64 from, end = run.end; end > run.begin; end = from, ++block) {
      from = std::max((end - 1) / run.block * run.block, run.begin);
      with.walked.wait(0, block + 1);
      for (int i = 0; i < with.parts; ++i) {
        const int part = (i + (thread == 0)) % with.parts;
        if (!with.task.take(block * with.parts + part)) continue;
        with.done.wait(part, block);
        input_grads(from, end, part, with.parts);
        weight_grads(from, end, part, with.parts);
        with.done.raise(part, block + 1);
      }
    }
  }

  // Gradients of padded units are set to 0: they would meet weights that are 0, but infinity times 0 is NaN.
  static Vec<T> without_padding(Vec<T> v, i64 valid) {
    for (i64 i = valid; i < L; ++i) v[i] = 0;
    return v;
  }

  Vec<T> hidden_grad(i64 s, i64 j, i64 g) const {
    const Vec<T> later = load(dh(j) + g * L);
    return run.dy.data ? later + load(at(run.dy, s, j) + g * L, P - g * L) : later;
  }

  void second_step_back(i64 s) const {
    each_run(outputs, [&](i64 g0, i64 g1) {
      each_tile(s, [&](i64 j, int n) {
        for (int r = 0; r < n; ++r)
          for (i64 g = g0; g < g1; ++g) {
            constexpr int vectors = projects ? 1 : slots;
            Vec<T> v[vectors], dh_prev;
            T* rec = second_record(s, row(j + r)) + g * second_stride;
            for (int i = 0; i < vectors; ++i) v[i] = load(rec + i * L);
            Second::template backward<T>(v, load(h_prev(s, row(j + r)) + g * L), hidden_grad(s, row(j + r), g),
                                         dh_prev);
            for (int i = 0; i < vectors; ++i) store(rec + i * L, without_padding(v[i], P - g * L));
            store(dh(row(j + r)) + g * L, dh_prev);
          }
      });
    });
  }

  void cell_step_back(i64 s) const {
    each_run(units, [&](i64 g0, i64 g1) {
      if constexpr (has_second) {
        auto each = tiles(s, [&](Tile& tile, int r, i64 row) {
          tile.a[r] = second_record(s, row);
          tile.start[r] = nothing;
          tile.out[r] = dmid(row) + g0 * L;
        });
        product<1>(rows.alive[s] > max_rows, each, {Pp / L, L, second_stride}, run.transposed.second, Pp, L, g0, g1);
      }
      each_tile(s, [&](i64 j, int n) {
        for (int r = 0; r < n; ++r) {
          const T* cp = Cell::cell_state ? c_prev(s, row(j + r)) : nullptr;
          const T* cn = Cell::cell_state ? c(s, row(j + r)) : nullptr;
          const T* hp = Cell::reads_hidden ? h_prev(s, row(j + r)) : nullptr;
          T* dc_row = dc(row(j + r));
          T* dh_row = dh(row(j + r));
          T* rec = record(s, row(j + r));
          const bool fresh = rows.is_fresh(s, row(j + r));
          for (i64 g = g0; g < g1; ++g) {
            Vec<T> v[slots], p[Cell::unit_weights + 1], dstate{}, dh_prev{}, cell_prev{}, cell{}, hidden_prev{};
            load_record(v, rec + g * slots * L);
            load_unit_weights(p, g);
            if constexpr (Cell::cell_state) {
              cell_prev = load(cp + g * L), cell = load(cn + g * L), dstate = load(dc_row + g * L);
            }
            if constexpr (Cell::reads_hidden) hidden_prev = load(hp + g * L);
            if constexpr (has_second && !projects) dh_prev = load(dh_row + g * L);
            const Vec<T> dhidden = has_second ? load(dmid(row(j + r)) + g * L) : hidden_grad(s, row(j + r), g);
            Cell::template backward<T>(v, p, hidden_prev, cell_prev, cell, dhidden, dstate, dh_prev);
            // The slot of a second product in the same record is left alone: others of the team read it.
            for (int i = has_second && !projects ? Cell::h_first : 0; i < slots; ++i)
              store(rec + (g * slots + i) * L, without_padding(v[i], H - g * L));
            if constexpr (Cell::cell_state) store(dc_row + g * L, fresh ? Vec<T>{} : dstate);
            if constexpr (!projects) store(dh_row + g * L, dh_prev);
          }
        }
      });
    });
  }

  void hidden_step_back(i64 s) const {
    each_run(outputs, [&](i64 g0, i64 g1) {
      if (s > run.begin && H == P)
        each_tile(s, [&](i64 j, int n) {
          for (int r = 0; r < n; ++r) {
            prefetch<1>(record(s - 1, row(j + r)) + g0 * slots * L, (g1 - g0) * slots * L);
            if constexpr (Cell::cell_state) prefetch<0>(c_prev(s - 1, row(j + r)) + g0 * L, (g1 - g0) * L);
            if (run.dy.data) prefetch<0>(at(run.dy, s - 1, row(j + r)) + g0 * L, std::min(g1 * L, P) - g0 * L);
          }
        });
      auto each = tiles(s, [&](Tile& tile, int r, i64 row) {
        tile.a[r] = record(s, row) + Cell::h_first * L;
        tile.start[r] = tile.out[r] = dh(row) + g0 * L;
      });
      product<1>(rows.alive[s] > max_rows, each, {Hp / L, h_vectors * L, slots * L}, run.transposed.hh, Hp * h_vectors,
                 L, g0, g1);
      if (!rows.fresh.empty())
        each_tile(s, [&](i64 j, int n) {
          for (int r = 0; r < n; ++r)
            if (rows.is_fresh(s, row(j + r)))
              for (i64 g = g0; g < g1; ++g) store(dh(row(j + r)) + g * L, Vec<T>{});
        });
    });
  }

  // dx of steps [from, to): the gates' gradients times the transposed input weights.
  void input_grads(i64 from, i64 to, int part, int parts) const {
    if (!run.dx.data || run.ids.data) return;
    each_run(Slice(groups_of<T>(I), part, parts), [&](i64 g0, i64 g1) {
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        const T* gates[max_rows];
        T* dx[max_rows];
        for (int r = 0; r < n; ++r) gates[r] = record(s[r], j[r]) + Cell::x_first * L, dx[r] = at(run.dx, s[r], j[r]);
        put_input_grads(run, gates, slots * L, dx, n, g0, g1);
      });
    });
  }

  // The gates' gradients of n rows, unit groups `stride` apart, times the transposed input weights of [g0, g1).
  static void put_input_grads(const Run<T>& run, const T* const* gates, i64 stride, T* const* dx, int n, i64 g0,
                              i64 g1) {
    const i64 I = run.size.I, groups = groups_of<T>(run.size.H);
    alignas(64) T sums[max_rows][group_block * L];
    Tile tile;
    for (int r = 0; r < n; ++r) tile.a[r] = gates[r], tile.start[r] = nothing, tile.out[r] = sums[r];
    product<1>(
        false, [&](auto f) { f(tile, n); }, {groups, x_vectors * L, stride}, run.transposed.ih, groups * x_vectors * L,
        L, g0, g1);
    for (int r = 0; r < n; ++r)
      std::memcpy(dx[r] + g0 * L, sums[r], std::size_t(std::min(g1 * L, I) - g0 * L) * sizeof(T));
  }

  static void table_grads(const Run<T>& run, int part, int parts) {
    const i64 I = run.size.I, V = run.table_rows, row = x_vectors * L;
    const T** x = reinterpret_cast<const T**>(run.scratch + part * run.scratch_size);
    for (i64 v = 0; v < V; ++v) x[v] = run.x.at(0, v);
    const Slice units(groups_of<T>(run.size.H), part, parts), rows(V, part, parts);
    for (i64 g = units.begin; g < units.end; ++g)
      sum_products<x_vectors>(x, V, I, run.dtable_total + g * V * row, row, run.grads.ih + g * I * row, 1);
    each_run(Slice(groups_of<T>(I), 0, 1), [&](i64 g0, i64 g1) {
      for (i64 v = rows.begin; v < rows.end; v += max_rows) {
        const int n = int(std::min<i64>(max_rows, rows.end - v));
        const T* gates[max_rows];
        T* dx[max_rows];
        for (int r = 0; r < n; ++r) gates[r] = run.dtable_total + (v + r) * row, dx[r] = run.dx.at(0, v + r);
        put_input_grads(run, gates, V * row, dx, n, g0, g1);
      }
    });
  }

  // What steps [from, to) add to the weight gradients: sums over (step, row) in ascending order, unit group by unit
  // group, so that neither threads nor checkpoints change a bit. The groups' gradients are first copied side by side; a
  // cell of one slot takes several groups at a time, to have enough independent sums.
  void weight_grads(i64 from, i64 to, int part, int parts) const {
    const i64 n = rows.first[to] - rows.first[from];
    T* panel = run.scratch + thread * run.scratch_size;  // [n][together][slots][L]
    const T** inputs = reinterpret_cast<const T**>(panel + n * together * slots * L);
    const T** hiddens = inputs + n;
    const T** mids = hiddens + n;
    i64* places = reinterpret_cast<i64*>(mids + n);
    i64* ids = places + n;
    i64 k = 0;
    for (i64 s = from; s < to; ++s)
      for (i64 j = 0; j < rows.alive[s]; ++j, ++k) {
        if (run.ids.data)
          ids[k] = *at(run.ids, s, j);
        else
          inputs[k] = at(run.x, s, j);
        hiddens[k] = h_prev(s, j);
        places[k] = kept(s, j);
        if constexpr (has_second) mids[k] = mid(s, j);
      }
    const Slice mine(groups_of<T>(H), part, parts), mine_p(groups_of<T>(P), part, parts);
    for (i64 g = mine.begin; g < mine.end; g += together) {
      const i64 groups = std::min(together, mine.end - g);
      copy_records(run.record + g * slots * L, run.record_row, places, groups * slots, n, panel,
                   run.grads.bias + g * slots * L);
      const i64 step = groups * slots * L;
      if (run.ids.data)
        sum_by_id(ids, n, panel + Cell::x_first * L, step, g, groups, from / run.block % summed_blocks == 0);
      else
        sum_products<x_vectors>(inputs, n, I, panel + Cell::x_first * L, step, run.grads.ih + g * I * x_vectors * L,
                                groups);
      if constexpr (h_vectors > 0)
        sum_products<h_vectors>(hiddens, n, P, panel + Cell::h_first * L, step, run.grads.hh + g * P * h_vectors * L,
                                groups);
      if constexpr (has_second && !projects)
        sum_products<1>(mids, n, H, panel, step, run.grads.second + g * H * L, groups);
      if constexpr (Cell::unit_weights > 0)
        for (i64 i = 0; i < groups; ++i) unit_grads(from, to, g + i);
    }
    if constexpr (projects)
      for (i64 g = mine_p.begin; g < mine_p.end; ++g) {
        copy_records(run.projected + g * L, Pp, places, 1, n, panel, nullptr);
        sum_products<1>(mids, n, H, panel, L, run.grads.second + g * H * L, 1);
      }
  }

  // The vectors of some unit groups, of n records, to [n][vectors][L]; their sums are added to `sums` on the way.
  static void copy_records(const T* from, i64 stride, const i64* places, i64 vectors, i64 n, T* to, T* sums) {
    for (i64 i = 0; i < vectors; ++i) {
      Vec<T> total{};
      for (i64 k = 0; k < n; ++k) {
        const Vec<T> v = load(from + places[k] * stride + i * L);
        total += v;
        store(to + (k * vectors + i) * L, v);
      }
      if (sums) store(sums + i * L, load(sums + i * L) + total);
    }
  }

  // grads[group][column][v] += sum_k a[k][column] * panel[k][group][v]; V of the `slots` vectors of each group. So few
  // rows at a time that their part of the panel stays in level 1 or 2, and all of these for so few columns that
  // their sums stay in level 2.
  template <int V>
  static void sum_products(const T* const* a, i64 n, i64 columns, const T* panel, i64 step, T* grads, i64 groups) {
    constexpr i64 cached_rows = 256, cached_columns = 16 * max_rows;
    for (i64 low = 0; low < columns; low += cached_columns)
      for (i64 from = 0; from < n; from += cached_rows)
        for (i64 first = low, high = std::min(low + cached_columns, columns); first < high; first += max_rows) {
          const int count = int(std::min<i64>(max_rows, high - first));
          T* out[max_rows];
          for (int r = 0; r < count; ++r) out[r] = grads + (first + r) * V * L;
          accumulate<V, true>(count, ByColumn<T>{a + from, first}, {1, std::min(cached_rows, n - from), 0},
                              Panels<T>{panel + from * step, step, slots * L}, out, out, columns * V * L, groups);
        }
  }

  // dtable[group][ids[k]][v] += panel[k][group][v]; the x vectors of the `slots` vectors of groups from g on. After
  // some blocks, and at step 0, these sums are added to those before them: one chain over all steps would be less
  // exact.
  void sum_by_id(const i64* ids, i64 n, const T* panel, i64 step, i64 g, i64 groups, bool last) const {
    const i64 size = run.table_rows * x_vectors * L;
    for (i64 i = 0; i < groups; ++i, panel += slots * L) {
      T* sums = run.dtable + (g + i) * size;
      for (i64 k = 0; k < n; ++k)
        for (int v = 0; v < x_vectors; ++v) {
          T* sum = sums + (ids[k] * x_vectors + v) * L;
          store(sum, load(sum) + load(panel + k * step + v * L));
        }
      T* total = run.dtable_total + (g + i) * size;
      for (i64 k = 0; last && k < size; k += L)
        store(total + k, load(total + k) + load(sums + k)), store(sums + k, Vec<T>{});
    }
  }

  void unit_grads(i64 from, i64 to, i64 g) const {
    Vec<T> total[Cell::unit_weights + 1] = {};
    for (i64 s = from; s < to; ++s)
      for (i64 j = 0; j < rows.alive[s]; ++j) {
        Vec<T> v[slots], hidden_prev{}, cell_prev{}, cell{};
        load_record(v, record(s, j) + g * slots * L);
        if constexpr (Cell::reads_hidden) hidden_prev = load(h_prev(s, j) + g * L);
        if constexpr (Cell::cell_state) cell_prev = load(c_prev(s, j) + g * L), cell = load(c(s, j) + g * L);
        Cell::template unit_grads<T>(v, hidden_prev, cell_prev, cell, total);
      }
    for (int q = 0; q < Cell::unit_weights; ++q) {
      T* out = run.grads.unit + (g * Cell::unit_weights + q) * L;
      store(out, load(out) + total[q]);
    }
  }

 public:
  static constexpr CellKernels<T> kernels{L,
                                          max_rows,
                                          Cell::gates,
                                          slots,
                                          x_vectors,
                                          h_vectors,
                                          Cell::unit_weights,
                                          int(together),
                                          Cell::cell_state,
                                          has_second,
                                          projects,
                                          pack,
                                          transpose,
                                          unpack_add,
                                          tabulate,
                                          forward,
                                          backward,
                                          table_grads};
};

}  // namespace pyrnn::PYRNN_ISA
