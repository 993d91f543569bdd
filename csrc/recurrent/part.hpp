// A thread's part of a run: what a cell's stages say together, where a step's vectors lie, the rows and units that are
// its own, and their products. The time loop and the weight gradients work on it.
#pragma once

#include <algorithm>
#include <tuple>

#include "recurrent/contract.hpp"
#include "recurrent/norm.hpp"
#include "recurrent/stage.hpp"

namespace pyrnn::PYRNN_ISA {

// What is derived of a cell's stages. Only the first may have a product of the output, only one behind it a product of
// what a stage leaves.
template <class Cell> struct CellFacts {
  using Stages = typename Cell::Stages;
  static constexpr int stages = int(std::tuple_size_v<Stages>);
  template <int k> using Stage = std::tuple_element_t<std::size_t(k), Stages>;
  using First = Stage<0>;
  using Last = Stage<stages - 1>;

  static constexpr int x_vectors = int(Cell::x_gates.size());
  static constexpr bool has_hidden = First::product == Product::output;
  static constexpr bool has_inner = Last::product == Product::inner;
  static constexpr bool projects = Last::projects;
  // Does the inner product add to the record of the cell.
  static constexpr bool shares_record = has_inner && !projects;

  static constexpr auto h_gates = [] {
    if constexpr (has_hidden)
      return First::gates;
    else
      return std::array<int, 0>{};
  }();
  static constexpr int h_vectors = int(h_gates.size());
  static constexpr int h_first = [] {
    if constexpr (has_hidden)
      return First::first;
    else
      return 0;
  }();

  // The slot of the record that the inner product adds to, -1 where that is not the cell's.
  static constexpr int inner_slot = [] {
    if constexpr (shares_record)
      return Last::first;
    else
      return -1;
  }();

  // Does stage k leave something for the product of the next.
  template <int k> static constexpr bool leaves_inner = has_inner && k == stages - 2;

  // The norms of stage k, and how many there are before it.
  template <int k>
  static constexpr auto norms = [] {
    if constexpr (requires { Stage<k>::norms; })
      return Stage<k>::norms;
    else
      return std::array<Norm, 0>{};
  }();
  template <int k> static constexpr int norms_before() {
    if constexpr (k == 0)
      return 0;
    else
      return norms_before<k - 1>() + int(norms<k - 1>.size());
  }
  static constexpr int all_norms = norms_before<stages>();

  // The slots that products fill begin the record. Their gradients lie in as many from gradients_first on: where norms
  // leave those, or in the same.
  static constexpr int filled = std::max({Cell::x_first + x_vectors, h_first + h_vectors, inner_slot + 1});
  template <int k = 0> static constexpr int first_gradient() {
    if constexpr (k == stages) {
      return 0;
    } else {
      for (const Norm& norm : norms<k>)
        if (norm.first == 0) return norm.back;
      return first_gradient<k + 1>();
    }
  }
  static constexpr int gradients_first = first_gradient();

  // The slots that the way forward makes.
  static constexpr int kept = [] {
    if constexpr (requires { Cell::back_slots; })
      return Cell::slots - Cell::back_slots;
    else
      return Cell::slots;
  }();

  // Does the team meet after stage k: the next one's product, of this step or another, reads what others have made; and
  // what they leave for norms must not be overwritten too early.
  template <int k>
  static constexpr bool meets_after =
      Stage<(k + 1) % stages>::product != Product::none || (k + 1 == stages && all_norms > 0);
};

template <class T, class Cell> class Part {
 protected:
  using Facts = CellFacts<Cell>;
  static constexpr int L = lanes<T>;
  static constexpr int slots = Cell::slots;
  static constexpr i64 cached_panels = 704 << 10;  // bytes

  Part(const Run<T>& r, int t)
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

  const Run<T>& run;
  const Rows& rows;
  const int thread, threads, group, member;  // this part of the work: one thread's, at first
  const i64 H, P, I, Hp, Pp;
  const Places::Row *const one, *const states, *const records;
  const Slice units, outputs;  // this part's unit groups of H and of P
  i64 chunk_begin = 0;

  // Where a step's vectors lie.
  i64 width(int k) const { return k ? Hp : Pp; }
  i64 kept(i64 s, i64 j) const { return run.keep ? states[j].at(s - run.begin) : one[j].first; }
  T* record(i64 s, i64 j) const {
    return run.record + records[j].at(s - (run.keep ? run.begin : chunk_begin)) * run.record_row;
  }
  T* inner(i64 s, i64 j) const { return run.inner + kept(s, j) * Hp; }
  T* projected(i64 s, i64 j) const { return run.projected + kept(s, j) * Pp; }
  T* after(int k, i64 s, i64 j) const { return run.state[k] + states[j].at(run.state_slot(s)) * width(k); }
  const T* before(int k, i64 s, i64 j) const {
    if (rows.is_fresh(s, j)) return run.zeros;
    return s == run.begin ? run.before[k] + one[j].first * width(k) : after(k, s - 1, j);
  }
  T* dstate(int k, i64 j) const { return run.dstate[k] + one[j].first * width(k); }
  T* dinner(i64 j) const { return run.dinner + one[j].first * Hp; }
  template <class U> U* at(const Steps<U>& steps, i64 s, i64 j) const {
    return steps.at(rows.time(s, j), rows.order[j]);
  }

  // The record of a stage, the cell's or one of its own, and the vectors of a unit group in it.
  template <class Stage> T* record_of(i64 s, i64 j) const { return Stage::projects ? projected(s, j) : record(s, j); }
  template <class Stage> static constexpr int vectors_of = Stage::projects ? 1 : slots;

  // f(norm, its numbers) for the norms of stage k, at step s of row j.
  template <int k, class F> PYRNN_INLINE void each_norm(i64 s, i64 j, F f) const {
    T* at = record(s, j) + Hp * slots + Facts::template norms_before<k>() * norm_numbers * padded<T>(Hp / L);
    for (const Norm& norm : Facts::template norms<k>) {
      f(norm, RowNorm<T>(at, H, norm.count));
      at += norm_numbers * padded<T>(Hp / L);
    }
  }

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

  // f(row) for this group's rows that are alive at step s, in the order of their tiles.
  template <class F> PYRNN_INLINE void each_row(i64 s, F f) const {
    each_tile(s, [&](i64 first, int n) {
      for (int r = 0; r < n; ++r) f(row(first + r));
    });
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

  template <int vectors> static void load_record(Vec<T> (&v)[vectors], const T* rec) {
    for (int i = 0; i < vectors; ++i) v[i] = load(rec + i * L);
  }
  void load_unit_weights(Vec<T>* p, i64 g) const {
    for (int q = 0; q < Cell::unit_weights; ++q) p[q] = load(run.weights.unit + (g * Cell::unit_weights + q) * L);
  }
};

}  // namespace pyrnn::PYRNN_ISA
