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
      Base::record, Base::before, Base::kept, Base::at, Base::each_tile, Base::each_run, Base::nothing, Base::Hp,
      Base::gather, Base::vector;
  using typename Base::Tile;
  static constexpr i64 summed_blocks = 16;  // of gradients by id
  // So few rows at a time are summed that their part of the panel stays in level 1 or 2, and all of these for so few
  // columns that their sums stay in level 2.
  static constexpr i64 cached_rows = 256, cached_columns = 16 * max_rows;

  Gradients(const Run<T>& run, int thread) : Base(run, thread) {}

  // dx of steps [from, to): the gates' gradients times the transposed input weights. Of gradients that are prepared
  // first, so many steps at a time as there is memory for.
  void input_grads(i64 from, i64 to, int part, int parts) const {
    if (!run.dx.data || run.ids.data) return;
    const PackedMatrix<T>& weights = run.transposed.ih;
    const Segments runs{Hp / L, cell.x_vectors * L, slots * L};
    const i64 k = Hp * cell.x_vectors, steps = pyrnn::prepared_size(weights.form, k) ? run.chunk : to - from;
    const auto gates = [&](i64 s, i64 j) { return record(s, j) + (cell.gradients_first + cell.x_first) * L; };
    for (i64 end; from < to; from = end) {
      end = std::min(from + steps, to);
      i64 number = 0;
      if (pyrnn::prepared_size(weights.form, k))
        each_tile(from, end, [&](const i64* s, const i64* j, int n) {
          for (int r = 0; r < n; ++r) gather(weights, runs, number++, gates(s[r], j[r]));
        });
      each_run(Slice(groups_of<T>(I), part, parts), [&](i64 g0, i64 g1) {
        number = 0;
        each_tile(from, end, [&](const i64* s, const i64* j, int n) {
          const T* a[max_rows];
          T* dx[max_rows];
          for (int r = 0; r < n; ++r)
            a[r] = vector(weights, k, number++, gates(s[r], j[r])), dx[r] = at(run.dx, s[r], j[r]);
          put_input_grads(run, a, slots * L, dx, n, g0, g1);
        });
      });
    }
  }

  // The gates' gradients of n rows, unit groups `stride` apart if they are not prepared, times the transposed input
  // weights of [g0, g1).
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
    const Form<T>* const form = run.weights.ih.form;
    const i64 groups = groups_of<T>(run.size.H), size = pyrnn::prepared_size(form, groups * row);
    const TableScratch<T> own(Carver(run.scratch + part * run.scratch_size), V, form, I, max_rows * size, row);
    for (i64 v = 0; v < V; ++v) own.rows[v] = run.x.at(0, v);
    const Slice units(groups, part, parts), rows(V, part, parts);
    const Factor x{own.rows, own.turned, form};
    x.turn(V, I);
    for (i64 g = units.begin; g < units.end; ++g)
      sum_products(vectors, x, V, I, Slice(I, 0, 1), run.dtable_total + g * V * row, row, row,
                   run.grads.ih + g * I * row, 1, own.words);
    each_run(Slice(groups_of<T>(I), 0, 1), [&](i64 g0, i64 g1) {
      for (i64 v = rows.begin; v < rows.end; v += max_rows) {
        const int n = int(std::min<i64>(max_rows, rows.end - v));
        const T* gates[max_rows];
        T* dx[max_rows];
        for (int r = 0; r < n; ++r) {
          gates[r] = run.dtable_total + (v + r) * row, dx[r] = run.dx.at(0, v + r);
          if (size) form->gather(gates[r], groups, row, V * row, own.gates + r * size), gates[r] = own.gates + r * size;
        }
        put_input_grads(run, gates, V * row, dx, n, g0, g1);
      }
    });
  }

  // What steps [from, to) add to the gradients of weights and biases: sums over (step, row) in ascending order, unit
  // group by unit group, so that neither threads nor checkpoints change a bit. The groups' gradients are first copied
  // side by side, and summed for the biases on the way; a cell of one slot takes several groups at a time, to have
  // enough independent sums. Where there are more parts than groups, some of them share a group's columns.
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
                              groups_per_sum * slots * L, run.weights, run.size);
    T* const panel = own.panel;  // [n][groups_per_sum][sums][L], sums <= slots
    const auto [inputs, hiddens, inners, places, ids] = own.rows;
    const Factor x{inputs, own.turned.inputs, run.weights.ih.form}, h{hiddens, own.turned.hiddens, run.weights.hh.form},
        inner{inners, own.turned.inners, run.weights.inner.form};
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
    if (!run.ids.data) x.turn(n, I);
    if (cell.has_hidden()) h.turn(n, P);
    if (cell.inner) inner.turn(n, H);
    const i64 pieces = ceil_div(parts, groups_of<T>(H));  // of a group's columns
    const Slice mine(groups_of<T>(H) * pieces, part, parts), mine_p(groups_of<T>(P), part, parts);
    for (i64 at = mine.begin, end; at < mine.end; at = end) {
      end = std::min(pieces == 1 ? at + groups_per_sum : round_up(at + 1, pieces), mine.end);
      const i64 g = at / pieces, groups = ceil_div(end - at, pieces), piece = at % pieces;
      const bool whole = piece == 0;  // or else somebody else does what is not done by columns
      copy_records(run.record + (g * slots + cell.gradients_first) * L, run.record_row, places, groups * sums, n, panel,
                   whole ? grads.bias + g * slots * L : nullptr);
      const i64 step = groups * sums * L;
      auto sum = [&](int vectors, const Factor& a, i64 columns, int first, T* total) {
        if (vectors)
          sum_products(vectors, a, n, columns, some_tiles(columns, piece, piece + end - at, pieces), panel + first * L,
                       step, sums * L, total + g * columns * vectors * L, groups, own.words);
      };
      if (run.ids.data && whole)
        sum_by_id(ids, n, panel + cell.x_first * L, step, g, groups, from / run.block % summed_blocks == 0);
      if (!run.ids.data) sum(cell.x_vectors, x, I, cell.x_first, grads.ih);
      sum(cell.h_vectors, h, P, cell.h_first, grads.hh);
      sum(cell.inner_slot >= 0, inner, H, cell.inner_slot, grads.inner);
      if (cell.unit_grads && whole)
        for (i64 i = 0; i < groups; ++i)
          cell.unit_grads(*this, from, to, some, g + i, grads.unit + (g + i) * cell.unit_weights * L);
    }
    if (cell.projects)
      for (i64 g = mine_p.begin; g < mine_p.end; ++g) {
        copy_records(run.projected + g * L, Pp, places, 1, n, panel, nullptr);
        sum_products(1, inner, n, H, Slice(H, 0, 1), panel, L, L, grads.inner + g * H * L, 1, own.words);
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

  // What gates' gradients are multiplied by: rows of numbers, and where products are of a form, these turned, so many
  // at a time as are summed.
  struct Factor {
    const T* const* rows;
    T* turned;
    const Form<T>* form;

    void turn(i64 n, i64 columns) const {
      if (form)
        for (i64 k = 0; k < n; k += cached_rows)
          form->turn(rows + k, std::min(cached_rows, n - k), columns, turned + k / cached_rows * block(columns));
    }
    i64 block(i64 columns) const { return columns * form->vector_size(cached_rows); }
  };

  // The columns of pieces [from, to) of `pieces`, or all of several groups' columns: whole tiles.
  static Slice some_tiles(i64 columns, i64 from, i64 to, i64 pieces) {
    const i64 tiles = ceil_div(columns, max_rows);
    Slice some(columns, 0, 1);
    if (pieces > 1) some.begin = Slice(tiles, from, pieces).begin * max_rows;
    if (pieces > 1) some.end = std::min(Slice(tiles, to, pieces).begin * max_rows, columns);
    return some;
  }

  // grads[group][column][v] += sum_k a[k][column] * panel[k][group][v], of some of the columns and some of the vectors
  // of each group, which lie `panel_group` apart.
  static void sum_products(int vectors, const Factor& factor, i64 n, i64 columns, const Slice& some, const T* panel,
                           i64 step, i64 panel_group, T* grads, i64 groups, T* words) {
    if (factor.form)
      return sum_in_form(vectors, factor, n, columns, some, panel, step, panel_group, grads, groups, words);
    const T* const* const a = factor.rows;
    const i64 row = vectors * L;
    for (i64 low = some.begin; low < some.end; low += cached_columns)
      for (i64 from = 0; from < n; from += cached_rows)
        for (i64 first = low, high = std::min(low + cached_columns, some.end); first < high; first += max_rows) {
          const int count = int(std::min<i64>(max_rows, high - first));
          T* out[max_rows];
          for (int r = 0; r < count; ++r) out[r] = grads + (first + r) * row;
          accumulate<true>(vectors, count, ByColumn<T>{a + from, first}, {1, std::min(cached_rows, n - from), 0},
                           Panels<T>{panel + from * step, step, panel_group}, out, out, columns * row, groups);
        }
  }

  // The same with the columns as rows of a product, and panels of the form, whose k are the rows, made first: `words`.
  // The gradients come from far, in runs that end too soon for a CPU to foresee the next: they are asked for early.
  static void sum_in_form(int vectors, const Factor& factor, i64 n, i64 columns, const Slice& some, const T* panel,
                          i64 step, i64 panel_group, T* grads, i64 groups, T* words) {
    const Form<T>& form = *factor.form;
    const i64 row = vectors * L, block = factor.block(columns),
              words_block = groups * form.panel_size(vectors, cached_rows);
    for (i64 from = 0; from < n; from += cached_rows) {
      const i64 count = std::min(cached_rows, n - from), size = form.panel_size(vectors, count);
      for (i64 i = 0; i < groups; ++i)
        form.pack_rows(panel + from * step + i * panel_group, step, count, row, vectors,
                       words + from / cached_rows * words_block + i * size);
    }
    for (i64 low = some.begin; low < some.end; low += cached_columns)
      for (i64 from = 0; from < n; from += cached_rows) {
        const i64 count = std::min(cached_rows, n - from), size = form.vector_size(count), b = from / cached_rows;
        for (i64 first = low, high = std::min(low + cached_columns, some.end); first < high; first += max_rows) {
          const int R = int(std::min<i64>(max_rows, high - first));
          alignas(64) T sums[max_rows][group_block * L];
          const T *a[max_rows], *start[max_rows];
          T* to[max_rows];
          for (int r = 0; r < R; ++r)
            a[r] = factor.turned + b * block + (first + r) * size, start[r] = nothing, to[r] = sums[r];
          for (i64 i = 0; i < groups; ++i) Base::template prefetch<1>(grads + (i * columns + first) * row, R * row);
          form.accumulate(vectors, R, a, count, words + b * words_block, start, to, row, groups);
          for (i64 i = 0; i < groups; ++i)
            for (int r = 0; r < R; ++r) {
              T* const out = grads + (i * columns + first + r) * row;
              for (i64 v = 0; v < row; v += L) store(out + v, load(out + v) + load(sums[r] + i * row + v));
            }
        }
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
