// Panels, scratch memory and threads of linear maps; look-ups, which need neither.
#include "linear/driver.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/threads.hpp"

namespace pyrnn {

namespace {

// A part of a product has at least so many rows, and one of weight gradients at least so many registers of columns,
// while there are threads for all of them: with fewer, the weights, or the rows, would be read too often.
constexpr i64 least_rows = 48, least_groups = 3;

constexpr i64 work_of_activation = 20;  // multiply-adds that take as long as one of a number

// How threads share a table of things, in runs of at least `least` of them, and where these are too few for all
// threads, others too. What is watched is cut further in one direction.
struct Table {
  Table(const Team& team, i64 things, i64 least, i64 others)
      : things(things),
        others(others),
        by_things(things >= 2 * least),
        most(by_things ? things / least : others / least_groups) {
    const i64 threads = team.size(), runs = std::clamp<i64>(things / least, 1, threads);
    columns = std::clamp<i64>(ceil_div(threads, runs), 1, std::max<i64>(others, 1));
    rows = std::clamp<i64>(things, 1, threads / columns);
  }
  bool has_whole_rows() const { return by_things && columns == 1; }

  // f(thread, some of the things, some of the others)
  template <class F> void in_watched_parts(Team& team, i64 work, Watch& watch, F f) const {
    pyrnn::in_watched_parts(team, work, most, watch, [&](int thread, i64 part, i64 parts) {
      const i64 each = parts / team.size(), row = thread / columns, column = thread % columns, i = part % each;
      if (row >= rows) return;
      const auto slice = [&](i64 count, bool cut, i64 which, i64 of) {
        return Slice(count, cut ? which * each + i : which, cut ? of * each : of);
      };
      f(thread, slice(things, by_things, row, rows), slice(others, !by_things, column, columns));
    });
  }

  const i64 things, others;
  const bool by_things;
  const i64 most;  // pieces that are worth a look
  i64 rows, columns;
};

// y = act(x W^T + b) for N times the m.M rows of x, `x_batch` apart.
template <class T>
void multiply(const LinearKernels<T>& k, const Linear<T>& m, const T* panels, i64 N, i64 x_batch, Activation act,
              T* y) {
  const i64 U = m.M, rows = N * U, groups = ceil_div(m.O, k.lanes), work = std::max(rows, rows_of_reading) * m.O * m.I;
  const i64 size = prepared_size(m.weight.form, m.I), panel = packed_size(m.weight.form, 1, m.I, 1, k.lanes);
  Team team(work);
  const Table table(team, rows, least_rows, groups);
  const i64 prepared_rows = std::min(U, ceil_div(rows, table.rows));
  const Buffer<T> prepared(prepared_rows * size * team.size());
  Watch watch;
  table.in_watched_parts(team, work, watch, [&](int thread, const Slice& mine, const Slice& some) {
    const i64 first = some.begin * k.lanes;
    Linear<T> own = m;
    own.O = std::min(some.end * k.lanes, m.O) - first;
    if (m.bias) own.bias += first;
    for (i64 row = mine.begin; row < mine.end; row += own.M) {
      const i64 n = row / U, u = row % U;
      own.M = std::min(U - u, mine.end - row), own.x = m.x + n * x_batch + u * m.x_row;
      k.forward(own, panels + some.begin * panel, prepared.get() + thread * prepared_rows * size, y + row * m.O + first,
                m.O);
    }
    if (table.has_whole_rows()) k.activate(act, y + mine.begin * m.O, mine.size(), m.O);
  });
  if (table.has_whole_rows() || act == Activation::identity) return;
  const auto activate = [&](const Slice& mine) { k.activate(act, y + mine.begin * m.O, mine.size(), m.O); };
  if (rows * m.O < work_per_thread / work_of_activation)
    activate(Slice(rows, 0, 1));
  else
    in_slices(team, rows, activate);
}

}  // namespace

template <class T> void linear_forward(const LinearKernels<T>& k, const Linear<T>& m, T* y) {
  if (m.is_small()) return k.forward_few(m, y);
  const Buffer<T> panels(packed_size(m.weight.form, 1, m.I, ceil_div(m.O, k.lanes), k.lanes));
  {
    Team team(rows_of_packing * m.O * m.I);
    in_parts(team, [&](int part, int parts) { k.pack(m, panels.get(), part, parts); });
  }
  multiply(k, m, panels.get(), 1, 0, Activation::identity, y);
}

template <class T> void linear_backward(const LinearKernels<T>& k, const Linear<T>& m, T* dx, T* dweight, T* dbias) {
  const i64 work = m.M * m.O * m.I, groups = ceil_div(m.I, k.lanes);
  const Form<T>* const form = m.weight.form;
  Team team(2 * work);
  T* panels = nullptr;
  std::vector<LinearScratch<T>> scratch;
  const Buffer<char> memory = laid_out([&](Carver& from) {
    panels = from.take<T>(packed_size(form, 1, form ? m.O : round_up(m.O, k.lanes), groups, k.lanes));
    scratch.clear();
    for (int thread = 0; thread < team.size(); ++thread)
      scratch.emplace_back(from, k.columns, m.O, m.dy_row, form, groups);
  });
  const i64 size = prepared_size(form, m.O),
            panel = packed_size(form, 1, form ? m.O : round_up(m.O, k.lanes), 1, k.lanes);
  const Table table(team, m.M, least_rows, groups);
  const i64 prepared_rows = ceil_div(m.M, table.rows);
  const Buffer<T> prepared(prepared_rows * size * team.size());
  if (rows_of_packing * m.O * m.I < 2 * work_per_thread)
    k.pack_transposed(m, panels, 0, 1);
  else
    in_parts(team, [&](int part, int parts) { k.pack_transposed(m, panels, part, parts); });
  Watch watch;
  table.in_watched_parts(team, work, watch, [&](int thread, const Slice& mine, const Slice& some) {
    const i64 first = some.begin * k.lanes;
    Linear<T> own = m;
    own.M = mine.size(), own.dy += mine.begin * m.dy_row, own.I = std::min(some.end * k.lanes, m.I) - first;
    own.x += mine.begin * m.x_row + first;
    k.input_grads(own, panels + some.begin * panel, prepared.get() + thread * prepared_rows * size,
                  dx + mine.begin * m.I + first, m.I);
  });
  // The gradients are added up in place: should a long sum be left in the middle, they become what they were before. In
  // a shorter call nobody asks whether it is to end.
  const bool may_end = work > 8 * Watch::work_between;
  const Buffer<T> before(may_end ? m.O * m.I + m.O : 0);
  T *const dweight_before = before.get(), *const dbias_before = before.get() + (may_end ? m.O * m.I : 0);
  if (may_end) {
    std::copy_n(dweight, m.O * m.I, dweight_before);
    if (dbias) std::copy_n(dbias, m.O, dbias_before);
  }
  try {
    // Parts are of the longer side of W first: what each of them copies of x and dy is least then.
    const i64 tiles = ceil_div(m.O, k.max_rows);
    const bool by_outputs = m.O > m.I;
    const Table sums = by_outputs ? Table(team, tiles, ceil_div(least_groups * k.lanes, k.max_rows), groups)
                                  : Table(team, groups, least_groups, tiles);
    sums.in_watched_parts(team, work, watch, [&](int thread, const Slice& mine, const Slice& others) {
      const Slice &of_outputs = by_outputs ? mine : others, &of_columns = by_outputs ? others : mine;
      const i64 first = of_outputs.begin * k.max_rows;
      Linear<T> own = m;
      own.O = std::min(of_outputs.end * k.max_rows, m.O) - first, own.dy += first;
      k.weight_grads(own, dweight + first * m.I, dbias ? dbias + first : nullptr, scratch[std::size_t(thread)],
                     of_columns);
    });
  } catch (const Interrupted&) {
    if (!may_end) throw;
    std::copy_n(dweight_before, m.O * m.I, dweight);
    if (dbias) std::copy_n(dbias_before, m.O, dbias);
    throw;
  }
}

template <class T>
PackedLinear<T>::PackedLinear(const LinearKernels<T>& k, i64 I, i64 O, const Matrix<const T>& weight, const T* bias,
                              Activation act)
    : I(I),
      O(O),
      kernels_(k),
      form_(weight.form),
      activation_(act),
      panels_(packed_size(form_, 1, I, ceil_div(O, k.lanes), k.lanes)),
      bias_(bias ? O : 0) {
  Linear<T> m;
  m.I = I, m.O = O, m.weight = weight;
  Team team(rows_of_packing * O * I);
  in_parts(team, [&](int part, int parts) { k.pack(m, panels_.get(), part, parts); });
  if (bias) std::copy_n(bias, O, bias_.get());
}

template <class T> void PackedLinear<T>::forward(const T* x, i64 N, i64 x_batch, i64 U, i64 x_row, T* y) const {
  Linear<T> m;
  m.M = U, m.I = I, m.O = O, m.weight.form = form_, m.bias = bias_.get(), m.x = x, m.x_row = x_row;
  multiply(kernels_, m, panels_.get(), N, x_batch, activation_, y);
}

template <class T> void embedding_forward(const T* table, const i64* ids, i64 M, i64 E, T* y) {
  for (i64 m = 0; m < M; ++m) std::copy_n(table + ids[m] * E, E, y + m * E);
}

void embedding_forward(const std::uint16_t* table, const i64* ids, i64 M, i64 E, float* y) {
  for (i64 m = 0; m < M; ++m)
    for (i64 i = 0; i < E; ++i, ++y) {
      const std::uint32_t bits = std::uint32_t(table[ids[m] * E + i]) << 16;
      std::memcpy(y, &bits, sizeof bits);
    }
}

void embedding_forward(const std::int8_t* table, const float* scale, const i64* ids, i64 M, i64 E, float* y) {
  for (i64 m = 0; m < M; ++m)
    for (i64 i = 0; i < E; ++i, ++y) *y = float(table[ids[m] * E + i]) * scale[ids[m]];
}

template <class T> void embedding_backward(const T* dy, i64 dy_row, const i64* ids, i64 M, i64 E, T* dtable) {
  for (i64 m = 0; m < M; ++m)
    for (i64 i = 0; i < E; ++i) dtable[ids[m] * E + i] += dy[m * dy_row + i];
}

template void linear_forward(const LinearKernels<float>&, const Linear<float>&, float*);
template void linear_forward(const LinearKernels<double>&, const Linear<double>&, double*);
template void linear_backward(const LinearKernels<float>&, const Linear<float>&, float*, float*, float*);
template void linear_backward(const LinearKernels<double>&, const Linear<double>&, double*, double*, double*);
template class PackedLinear<float>;
template class PackedLinear<double>;
template void embedding_forward(const float*, const i64*, i64, i64, float*);
template void embedding_forward(const double*, const i64*, i64, i64, double*);
template void embedding_backward(const float*, i64, const i64*, i64, i64, float*);
template void embedding_backward(const double*, i64, const i64*, i64, i64, double*);

}  // namespace pyrnn
