// What runs and recordings do alike: panels and their gradients in one buffer, the caller's states in and out, inputs
// that are looked up.
#pragma once

#include <algorithm>
#include <cstring>

#include "recurrent/driver_share.hpp"

namespace pyrnn {

// The forms of its matrices are those of `weights`, if there are any.
template <class T>
Packed<T> carve(Carver& from, const CellKernels<T>& cell, const Sizes& size, const Weights<const T>& weights = {}) {
  const i64 Hp = round_up(size.H, cell.lanes), Pp = round_up(size.P, cell.lanes);
  auto matrix = [&](const Form<T>* form, i64 vectors, i64 columns, i64 units) {
    return PackedMatrix<T>(from.take<T>(packed_size(form, vectors, columns, units / cell.lanes, cell.lanes)), form);
  };
  Packed<T> out;
  out.ih = matrix(weights.ih.form, cell.x_vectors, size.I, Hp);
  out.hh = matrix(weights.hh.form, cell.h_vectors, size.P, Hp);
  if (cell.inner) out.inner = matrix((cell.projects ? weights.hr : weights.hh).form, 1, size.H, Pp);
  out.bias = from.take<T>(Hp * cell.slots);
  out.unit = from.take<T>(Hp * cell.unit_weights);
  return out;
}

// A caller's state [N, size] into padded rows [one, stride] in the order of the run, and back.
template <class T> void gather_state(const Rows& rows, const Places& one, const T* from, i64 size, i64 stride, T* to) {
  std::fill_n(to, one.count() * stride, T(0));
  if (from)
    for (i64 j = 0; j < rows.N; ++j)
      std::memcpy(to + one.at(0, j) * stride, from + rows.order[j] * size, std::size_t(size) * sizeof(T));
}

template <class T> void scatter_row(const Rows& rows, const T* from, i64 j, i64 size, T* to) {
  if (to) std::memcpy(to + rows.order[j] * size, from, std::size_t(size) * sizeof(T));
}

// Rows whose last step lies in the run's [begin, end) leave their state; rows without any step theirs from before.
template <class T> void final_states(const Run<T>& run, const Layer<T>& l, const States<T>& out) {
  const Rows& rows = *run.rows;
  for (i64 j = 0; j < rows.N; ++j) {
    const i64 last = rows.length[j] - 1;
    const bool none = rows.length[j] == 0 && run.begin == 0;
    if (!none && (last < run.begin || last >= run.end)) continue;
    const i64 place = none ? run.one->at(0, j) : run.states->at(run.state_slot(last), j);
    for (int k = 0; k < l.cell.states; ++k)
      scatter_row(rows, (none ? run.before[k] : run.state[k]) + place * l.width(k), j, run.size.of_state(k), out[k]);
  }
}

// Memory for the table's records, where inputs are looked up.
template <class T> Buffer<T> take_inputs(Run<T>& run, const Inputs<T>& inputs) {
  run.x = inputs.x, run.ids = inputs.ids, run.table_rows = inputs.table_rows;
  const i64 records = run.table_rows * run.record_row;
  Buffer<T> table(run.ids.data ? records + run.table_rows * prepared_size(run.weights.ih.form, run.size.I) : 0);
  run.table = table.get(), run.prepared_table = table.get() + records;
  return table;
}

template <class T> void fill_table(Team& team, const Run<T>& run, const CellKernels<T>& cell) {
  if (run.ids.data) in_parts(team, [&](int part, int parts) { cell.loop->tabulate(run, part, parts); });
}

}  // namespace pyrnn
