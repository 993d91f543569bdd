// A thread's part of a run: where a step's vectors lie, the rows and units that are its own, and their products. The
// time loop, the equations and the weight gradients work on it.
#pragma once

#include <algorithm>

#include "recurrent/compiled.hpp"
#include "recurrent/norm.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> class Part {
 public:
  static constexpr int L = lanes<T>;
  static constexpr i64 cached_panels = 704 << 10;  // bytes

  Part(const Run<T>& r, int t)
      : run(r),
        cell(static_cast<const Compiled<T>&>(*r.cell)),
        slots(cell.slots),
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
        prepared(r.prepared + t * r.prepared_size),
        units(groups_of<T>(H), member, r.team),
        outputs(groups_of<T>(P), member, r.team) {}

  const Run<T>& run;
  const Compiled<T>& cell;
  const i64 slots;
  const Rows& rows;
  const int thread, threads, group, member;  // this part of the work: one thread's, at first
  const i64 H, P, I, Hp, Pp;
  const Places::Row *const one, *const states, *const records;
  T* prepared;                 // this thread's
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

  // The record of a stage, the cell's or one of its own; how far apart unit groups lie in it.
  T* record_of(const StageKernels<T>& stage, i64 s, i64 j) const {
    return stage.projects ? projected(s, j) : record(s, j);
  }
  i64 stride(const StageKernels<T>& stage) const { return (stage.projects ? 1 : slots) * L; }

  // The numbers of a stage's norm q, at step s of row j; f(norm, its numbers) for all of them.
  RowNorm<T> numbers(const StageKernels<T>& stage, int q, i64 s, i64 j) const {
    const i64 place = (stage.norms_before + q) * norm_numbers * padded<T>(Hp / L);
    return RowNorm<T>(record(s, j) + Hp * slots + place, H, stage.norm[std::size_t(q)].count);
  }
  template <class F> PYRNN_INLINE void each_norm(const StageKernels<T>& stage, i64 s, i64 j, F f) const {
    for (int q = 0; q < stage.norms; ++q) f(stage.norm[std::size_t(q)], numbers(stage, q, s, j));
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

  // f(row) for this group's rows that are alive at step s.
  template <class F> PYRNN_INLINE void each_row(i64 s, F f) const {
    for (i64 k = 0, n = alive(s); k < n; ++k) f(row(k));
  }

  // f(steps, rows, count) for tiles of this group's (step, row) pairs over steps [from, to). The last two are alike.
  template <class F> void each_tile(i64 from, i64 to, F f) const {
    i64 s[max_rows], j[max_rows], left = 0;
    for (i64 q = from; q < to; ++q) left += alive(q);
    const auto next = [](i64 left) { return left < 2 * max_rows ? ceil_div(left, 1 + (left > max_rows)) : max_rows; };
    int n = 0;
    i64 size = next(left);
    for (i64 q = from; q < to; ++q)
      for (i64 k = 0, count = alive(q); k < count; ++k) {
        s[n] = q, j[n] = row(k);
        if (++n == size) f(s, j, n), left -= n, size = next(left), n = 0;
      }
  }

  // Where a chain of sums starts at 0.
  alignas(64) static constexpr T nothing[group_block * L] = {};

  // A tile's rows as a product reads and writes them.
  struct Tile {
    const T *a[max_rows], *start[max_rows];
    T* out[max_rows];
  };

  // For `product`: the tiles of step s, whose rows fill(tile, place in it, row, how manieth of the group) describes.
  template <class Fill> auto tiles(i64 s, Fill fill) const {
    return [this, s, fill](auto f) {
      each_tile(s, [&](i64 j, int n) {
        Tile tile;
        for (int r = 0; r < n; ++r) fill(tile, r, row(j + r), j + r);
        f(tile, n);
      });
    };
  }

  // The vectors that a product with a matrix of `k` columns reads, by their number: as they are, or where its form has
  // them prepared, what `prepare` has made of them in this thread's memory.
  const T* vector(const PackedMatrix<T>& matrix, i64 k, i64 number, const T* as_it_is) const {
    const i64 size = pyrnn::prepared_size(matrix.form, k);
    return size ? prepared + number * size : as_it_is;
  }
  void prepare(const PackedMatrix<T>& matrix, i64 k, i64 number, const T* vector) const {
    if (const i64 size = pyrnn::prepared_size(matrix.form, k))
      matrix.form->prepare(vector, k, prepared + number * size);
  }
  // The same of the gates' gradients, which lie in runs.
  void gather(const PackedMatrix<T>& matrix, const Segments& seg, i64 number, const T* gates) const {
    if (const i64 size = pyrnn::prepared_size(matrix.form, seg.count * seg.length))
      matrix.form->gather(gates, seg.count, seg.length, seg.stride, prepared + number * size);
  }
  // The same of the vectors from(row) of this group's rows at step s.
  template <class From> void prepare_rows(const PackedMatrix<T>& matrix, i64 k, i64 s, From from) const {
    if (pyrnn::prepared_size(matrix.form, k) == 0) return;
    for (i64 i = 0, n = alive(s); i < n; ++i) prepare(matrix, k, i, from(row(i)));
  }
  template <class From> void gather_rows(const PackedMatrix<T>& matrix, const Segments& seg, i64 s, From from) const {
    if (pyrnn::prepared_size(matrix.form, seg.count * seg.length) == 0) return;
    for (i64 i = 0, n = alive(s); i < n; ++i) gather(matrix, seg, i, from(row(i)));
  }

  // f(first group, one past the last) for a slice of unit groups, a few at a time.
  template <class F> static void each_run(const Slice& slice, F f) {
    for (i64 g = slice.begin; g < slice.end; g += group_block) f(g, std::min(g + group_block, slice.end));
  }

  // Asks for memory that will be needed a step later: records lie a page apart, which the hardware does not foresee.
  template <int for_writing> static void prefetch(const T* from, i64 count) {
    for (i64 i = 0; i < count; i += 64 / i64(sizeof(T))) __builtin_prefetch(from + i, for_writing, 2);
  }

  // The product of all tiles with the panels of unit groups [g0, g1), some vectors of each (none for a cell without
  // this product). each(f) calls f(tile, rows of it) for every tile. Of panels that are too large for a level 2 cache,
  // all of the `many` tiles use one piece after the other.
  template <class Each>
  static void product(int vectors, bool many, Each each, Segments seg, const PackedMatrix<T>& panels, i64 k,
                      i64 c_group, i64 g0, i64 g1) {
    if (vectors == 0) return;
    if (panels.form) return product_in_form(vectors, many, each, panels, k, c_group, g0, g1);
    const i64 row = vectors * L, bytes = row * i64(sizeof(T));
    i64 groups = g1 - g0, piece = k;
    if (many && groups * k * bytes > cached_panels) {
      const i64 fewest = std::clamp(max_accumulators / (max_rows * vectors), 1, int(group_block));
      groups = std::clamp(cached_panels / (k * bytes), std::min(fewest, groups), groups);
      piece = std::max(cached_panels / (groups * bytes) / seg.length, i64(1)) * seg.length;
      if (seg.count == 1) piece = std::min(k, cached_panels / (groups * bytes));
    }
    for (i64 g = g0; g < g1; g += groups) {
      i64 from = 0;
      do {  // once where k is 0: the sums are then their start
        const i64 length = std::min(piece, k - from), shift = seg.count == 1 ? from : from / seg.length * seg.stride;
        const Segments part =
            seg.count == 1 ? Segments{1, length, 0} : Segments{length / seg.length, seg.length, seg.stride};
        const Panels<T> panel{panels.panels + (g * k + from) * row, row, k * row};
        each([&](Tile& tile, int n) {
          for (int r = 0; r < n; ++r) {
            tile.a[r] += shift, tile.start[r] += (g - g0) * c_group, tile.out[r] += (g - g0) * c_group;
            if (from) tile.start[r] = tile.out[r];
          }
          accumulate<false>(vectors, n, ByRow<T>{tile.a}, part, panel, tile.start, tile.out, c_group,
                            std::min(groups, g1 - g));
        });
      } while ((from += piece) < k);
    }
  }

  // The same with panels of another form, which are small enough to be used as a whole.
  template <class Each>
  static void product_in_form(int vectors, bool many, Each each, const PackedMatrix<T>& matrix, i64 k, i64 c_group,
                              i64 g0, i64 g1) {
    const i64 size = matrix.form->panel_size(vectors, k), fitting = cached_panels / (size * i64(sizeof(T)));
    const i64 groups = many ? std::clamp(fitting, i64(1), g1 - g0) : g1 - g0;
    for (i64 g = g0; g < g1; g += groups)
      each([&](Tile& tile, int n) {
        for (int r = 0; r < n; ++r) tile.start[r] += (g - g0) * c_group, tile.out[r] += (g - g0) * c_group;
        matrix.form->accumulate(vectors, n, tile.a, k, matrix.panels + g * size, tile.start, tile.out, c_group,
                                std::min(groups, g1 - g));
      });
  }
};

}  // namespace pyrnn::PYRNN_ISA
