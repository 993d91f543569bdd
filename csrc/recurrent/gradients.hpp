// Gradients of inputs and weights: sums over blocks of steps that the time loop has walked back, from the gradients of
// the pre-activations that lie in the records.
#pragma once

#include "recurrent/part.hpp"
#include "recurrent/scratch.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> class Gradients : public Part<T> {
 protected:
  using Base = Part<T>;
  using Base::L, Base::slots, Base::cell, Base::run, Base::rows, Base::thread, Base::H, Base::P, Base::I, Base::Pp,
      Base::record, Base::before, Base::kept, Base::at, Base::each_tile, Base::each_run, Base::nothing;
  using typename Base::Tile;
  static constexpr i64 summed_blocks = 16;  // of gradients by id

  Gradients(const Run<T>& run, int thread) : Base(run, thread) {}

  // dx of steps [from, to): the gates' gradients times the transposed input weights.
  void input_grads(i64 from, i64 to, int part, int parts) const {
    if (!run.dx.data || run.ids.data) return;
    each_run(Slice(groups_of<T>(I), part, parts), [&](i64 g0, i64 g1) {
      each_tile(from, to, [&](const i64* s, const i64* j, int n) {
        const T* gates[max_rows];
        T* dx[max_rows];
        for (int r = 0; r < n; ++r)
          gates[r] = record(s[r], j[r]) + (cell.gradients_first + cell.x_first) * L, dx[r] = at(run.dx, s[r], j[r]);
        put_input_grads(run, gates, slots * L, dx, n, g0, g1);
      });
    });
  }

  // The gates' gradients of n rows, unit groups `stride` apart, times the transposed input weights of [g0, g1).
  static void put_input_grads(const Run<T>& run, const T* const* gates, i64 stride, T* const* dx, int n, i64 g0,
                              i64 g1) {
    const i64 I = run.size.I, groups = groups_of<T>(run.size.H), vectors = run.cell->x_vectors;
    alignas(64) T sums[max_rows][group_block * L];
    Tile tile;
    for (int r = 0; r < n; ++r) tile.a[r] = gates[r], tile.start[r] = nothing, tile.out[r] = sums[r];
    Base::product(
        1, false, [&](auto f) { f(tile, n); }, {groups, vectors * L, stride}, run.transposed.ih, groups * vectors * L,
        L, g0, g1);
    for (int r = 0; r < n; ++r)
      std::memcpy(dx[r] + g0 * L, sums[r], std::size_t(std::min(g1 * L, I) - g0 * L) * sizeof(T));
  }

  static void table_grads(const Run<T>& run, int part, int parts) {
    const int vectors = run.cell->x_vectors;
    const i64 I = run.size.I, V = run.table_rows, row = vectors * L;
    const T** const x = TableScratch<T>(Carver(run.scratch + part * run.scratch_size), V).rows;
    for (i64 v = 0; v < V; ++v) x[v] = run.x.at(0, v);
    const Slice units(groups_of<T>(run.size.H), part, parts), rows(V, part, parts);
    for (i64 g = units.begin; g < units.end; ++g)
      sum_products(vectors, x, V, I, run.dtable_total + g * V * row, row, row, run.grads.ih + g * I * row, 1);
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

  // What steps [from, to) add to the gradients of weights and biases: sums over (step, row) in ascending order, unit
  // group by unit group, so that neither threads nor checkpoints change a bit. The groups' gradients are first copied
  // side by side, and summed for the biases on the way; a cell of one slot takes several groups at a time, to have
  // enough independent sums.
  void weight_grads(i64 from, i64 to, int part, int parts) const {
    const Slice all(rows.alive[from], 0, 1), mine(rows.alive[from], part, parts);
    if (!run.row_grads) return weight_grads(from, to, all, run.grads, part, parts);
    // Each thread some of the rows, row by row.
    for (i64 j = mine.begin; j < mine.end; ++j)
      weight_grads(from, to, Slice(rows.N, j, rows.N), run.grads.moved(j * run.row_grads), 0, 1);
  }

  void weight_grads(i64 from, i64 to, const Slice& some, const Packed<T>& grads, int part, int parts) const {
    const i64 groups_per_sum = cell.groups_per_sum, sums = cell.filled;  // vectors of a unit group that go into it
    const BlockScratch<T> own(Carver(run.scratch + thread * run.scratch_size), run.block_rows,
                              groups_per_sum * slots * L);
    T* const panel = own.panel;  // [n][groups_per_sum][sums][L], sums <= slots
    const auto [inputs, hiddens, inners, places, ids] = own.rows;
    i64 n = 0;
    for (i64 s = from; s < to; ++s)
      for (i64 j = some.begin, end = std::min(some.end, rows.alive[s]); j < end; ++j, ++n) {
        if (run.ids.data)
          ids[n] = *at(run.ids, s, j);
        else
          inputs[n] = at(run.x, s, j);
        if (cell.has_hidden()) hiddens[n] = before(0, s, j);
        places[n] = kept(s, j);
        if (cell.inner) inners[n] = this->inner(s, j);
      }
    const Slice mine(groups_of<T>(H), part, parts), mine_p(groups_of<T>(P), part, parts);
    for (i64 g = mine.begin; g < mine.end; g += groups_per_sum) {
      const i64 groups = std::min(groups_per_sum, mine.end - g);
      copy_records(run.record + (g * slots + cell.gradients_first) * L, run.record_row, places, groups * sums, n, panel,
                   grads.bias + g * slots * L);
      const i64 step = groups * sums * L;
      auto sum = [&](int vectors, const T* const* a, i64 columns, int first, T* total) {
        if (vectors)
          sum_products(vectors, a, n, columns, panel + first * L, step, sums * L, total + g * columns * vectors * L,
                       groups);
      };
      if (run.ids.data)
        sum_by_id(ids, n, panel + cell.x_first * L, step, g, groups, from / run.block % summed_blocks == 0);
      else
        sum(cell.x_vectors, inputs, I, cell.x_first, grads.ih);
      sum(cell.h_vectors, hiddens, P, cell.h_first, grads.hh);
      sum(cell.inner_slot >= 0, inners, H, cell.inner_slot, grads.inner);
      if (cell.unit_grads)
        for (i64 i = 0; i < groups; ++i)
          cell.unit_grads(*this, from, to, some, g + i, grads.unit + (g + i) * cell.unit_weights * L);
    }
    if (cell.projects)
      for (i64 g = mine_p.begin; g < mine_p.end; ++g) {
        copy_records(run.projected + g * L, Pp, places, 1, n, panel, nullptr);
        sum_products(1, inners, n, H, panel, L, L, grads.inner + g * H * L, 1);
      }
  }

  // The vectors of some unit groups, of n records, to [n][vectors][L]; their sums are added to `sums` on the way (the
  // gradients of the biases).
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

  // grads[group][column][v] += sum_k a[k][column] * panel[k][group][v], of some of the vectors of each group, which lie
  // `panel_group` apart. So few rows at a time that their part of the panel stays in level 1 or 2, and all of these for
  // so few columns that their sums stay in level 2.
  static void sum_products(int vectors, const T* const* a, i64 n, i64 columns, const T* panel, i64 step,
                           i64 panel_group, T* grads, i64 groups) {
    constexpr i64 cached_rows = 256, cached_columns = 16 * max_rows;
    const i64 row = vectors * L;
    for (i64 low = 0; low < columns; low += cached_columns)
      for (i64 from = 0; from < n; from += cached_rows)
        for (i64 first = low, high = std::min(low + cached_columns, columns); first < high; first += max_rows) {
          const int count = int(std::min<i64>(max_rows, high - first));
          T* out[max_rows];
          for (int r = 0; r < count; ++r) out[r] = grads + (first + r) * row;
          accumulate<true>(vectors, count, ByColumn<T>{a + from, first}, {1, std::min(cached_rows, n - from), 0},
                           Panels<T>{panel + from * step, step, panel_group}, out, out, columns * row, groups);
        }
  }

  // dtable[group][ids[k]][v] += panel[k][group][v]; the x vectors of groups from g on. After some blocks, and at step
  // 0, these sums are added to those before them: one chain over all steps would be less exact.
  void sum_by_id(const i64* ids, i64 n, const T* panel, i64 step, i64 g, i64 groups, bool last) const {
    const i64 row = cell.x_vectors * L, size = run.table_rows * row;
    for (i64 i = 0; i < groups; ++i, panel += cell.filled * L) {
      T* sums = run.dtable + (g + i) * size;
      for (i64 k = 0; k < n; ++k)
        for (i64 v = 0; v < row; v += L) {
          T* sum = sums + ids[k] * row + v;
          store(sum, load(sum) + load(panel + k * step + v));
        }
      T* total = run.dtable_total + (g + i) * size;
      for (i64 k = 0; last && k < size; k += L)
        store(total + k, load(total + k) + load(sums + k)), store(sums + k, Vec<T>{});
    }
  }
};

}  // namespace pyrnn::PYRNN_ISA
