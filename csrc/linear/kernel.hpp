// A linear map of rows: y = x W^T + b, and its gradients. x [M,I], W [O,I], y [M,O]; rows of x and dy any distance
// apart.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/panels.hpp"
#include "linear/contract.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct LinearLoop {
  static constexpr int L = lanes<T>, columns = group_block * L;
  static constexpr i64 rows_ahead = 12;  // how far columns of x are asked for before they are copied

  static constexpr std::array<int, 1> gate{0};  // the only one

  static void pack(const Linear<T>& m, T* panels, int part, int parts) {
    const Slice groups(groups_of<T>(m.O), part, parts);
    if (m.weight.form) return m.weight.form->pack(m.weight, gate, m.O, m.I, groups.begin, groups.end, panels);
    pyrnn::PYRNN_ISA::pack(m.weight.data, m.I, std::span(gate), m.O, m.I, groups.begin, groups.end, panels);
  }

  static void pack_transposed(const Linear<T>& m, T* panels, int part, int parts) {
    const Slice groups(groups_of<T>(m.I), part, parts);
    const Form<T>* const form = m.weight.form;
    if (!form) return pyrnn::PYRNN_ISA::pack_transposed(m.weight.data, m.O, m.I, groups.begin, groups.end, panels);
    for (i64 g = groups.begin; g < groups.end; ++g)
      form->pack_rows(m.weight.data + g * L, m.I, m.O, m.I - g * L, 1, panels + g * form->panel_size(1, m.O));
  }

  // out[m] = bias + sum_k a[m][k] panel[k]; panels of `form` where there is one. Where `positive` [M, outputs] is not
  // null, out is 0 wherever that is 0 or less.
  static void multiply(const T* a, i64 a_row, i64 K, i64 panel_k, const T* panels, const Form<T>* form, T* prepared,
                       const T* bias, i64 M, i64 outputs, T* out, i64 out_row, const T* positive, i64 positive_row) {
    if (const i64 size = prepared_size(form, K)) {
      for (i64 m = 0; m < M; ++m) form->prepare(a + m * a_row, K, prepared + m * size);
      a = prepared, a_row = size;
    }
    const i64 groups = groups_of<T>(outputs), runs = ceil_div(groups, group_block);
    for (i64 run = 0; run < runs; ++run) {
      const auto [g0, g1] = Slice(groups, run, runs);
      const i64 width = std::min(g1 * L, outputs) - g0 * L;
      const bool whole = width == (g1 - g0) * L;  // else a tile would write beyond the end of a row
      alignas(64) T start[group_block * L] = {};
      if (bias) std::copy_n(bias + g0 * L, width, start);
      for (i64 m = 0; m < M; m += max_rows) {
        const int n = int(std::min<i64>(max_rows, M - m));
        alignas(64) T sums[max_rows][group_block * L];
        const T *rows[max_rows], *from[max_rows];
        T* to[max_rows];
        for (int r = 0; r < n; ++r) {
          rows[r] = a + (m + r) * a_row, from[r] = start;
          to[r] = whole ? out + (m + r) * out_row + g0 * L : sums[r];
        }
        if (form)
          form->accumulate(1, n, rows, K, panels + g0 * form->panel_size(1, K), from, to, L, g1 - g0);
        else
          accumulate<1, false>(n, ByRow<T>{rows}, {1, K, 0}, Panels<T>{panels + g0 * panel_k * L, L, panel_k * L}, from,
                               to, L, g1 - g0);
        if (!whole)
          for (int r = 0; r < n; ++r) std::copy_n(sums[r], width, out + (m + r) * out_row + g0 * L);
        if (positive)
          for (int r = 0; r < n; ++r)
            keep_where_positive(positive + (m + r) * positive_row + g0 * L, width, out + (m + r) * out_row + g0 * L);
      }
    }
  }

  static void keep_where_positive(const T* of, i64 n, T* y) {
    for (i64 i = 0; i < n; i += L) store(y + i, load(of + i, n - i) <= T(0) ? Vec<T>{} : load(y + i, n - i), n - i);
  }

  static void forward(const Linear<T>& m, const T* panels, T* prepared, T* y, i64 y_row) {
    multiply(m.x, m.x_row, m.I, m.I, panels, m.weight.form, prepared, m.bias, m.M, m.O, y, y_row, nullptr, 0);
  }

  // The same for a few rows without panels: squares of W are turned in registers, which takes no longer than packing
  // them. Each output is the same chain.
  template <int R> static void forward_rows(const Linear<T>& m, T* y) {
    for (i64 o = 0; o < m.O; o += L) {
      const i64 outputs = m.O - o;
      Vec<T> sums[R];
      for (int r = 0; r < R; ++r) sums[r] = m.bias ? load(m.bias + o, outputs) : Vec<T>{};
      const auto add = [&](int i, i64 k, Vec<T> column) {
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) sums[r] = fma(splat(m.x[r * m.x_row + k + i]), column, sums[r]);
      };
      i64 k = 0;
      Vec<T> square[L];
      for (; k + L <= m.I; k += L) {
        load_turned(m.weight.data + o * m.I + k, m.I, outputs, L, square);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) add(i, k, square[i]);
      }
      if (k < m.I) {
        load_turned(m.weight.data + o * m.I + k, m.I, outputs, m.I - k, square);
        for (int i = 0; i < int(m.I - k); ++i) add(i, k, square[i]);
      }
      for (int r = 0; r < R; ++r) store(y + r * m.O + o, sums[r], outputs);
    }
  }

  static void forward_few(const Linear<T>& m, T* y) {
    static_assert(Linear<T>::few_rows == 3);
    if (m.M == 1) return forward_rows<1>(m, y);
    if (m.M == 2) return forward_rows<2>(m, y);
    if (m.M == 3) return forward_rows<3>(m, y);
  }

  template <class F> static void each(T* y, i64 n, F f) {
    for (i64 i = 0; i < n; i += L) store(y + i, f(load(y + i, n - i)), n - i);
  }

  static void activate(Activation act, T* y, i64 M, i64 O) {
    if (act == Activation::relu) each(y, M * O, [](Vec<T> a) { return max(a, T(0)); });
    if (act == Activation::sigmoid) each(y, M * O, [](Vec<T> a) { return sigmoid<T>(a); });
    if (act == Activation::tanh) each(y, M * O, [](Vec<T> a) { return tanh<T>(a); });
    if ((act != Activation::softmax && act != Activation::log_softmax) || O == 0) return;
    for (i64 m = 0; m < M; ++m) softmax(act == Activation::log_softmax, y + m * O, O);
  }

  // Of one row. NaN, and infinity where it is the largest, make all of it NaN.
  static void softmax(bool log, T* y, i64 O) {
    T most = y[0];
    for (i64 o = 1; o < O; ++o) most = y[o] > most || y[o] != y[o] ? y[o] : most;
    const Vec<T> top = splat(most);
    Vec<T> sums{};
    for (i64 o = 0; o < O; o += L) {
      const Vec<T> a = load(y + o, O - o) - top, e = exp<T>(a);
      store(y + o, log ? a : e, O - o);
      alignas(64) T kept[L] = {};
      store(kept, e, O - o);
      sums += load(kept);
    }
    const T sum = pyrnn::PYRNN_ISA::sum<T>(sums);
    if (log)
      each(y, O, [less = splat(T(std::log(sum)))](Vec<T> a) { return a - less; });
    else
      each(y, O, [sum = splat(sum)](Vec<T> a) { return a / sum; });
  }

  static void input_grads(const Linear<T>& m, const T* panels, T* prepared, T* dx, i64 dx_row) {
    multiply(m.dy, m.dy_row, m.O, padded<T>(m.O), panels, m.weight.form, prepared, nullptr, m.M, m.I, dx, dx_row,
             m.after_relu ? m.x : nullptr, m.x_row);
  }

  // Sums over rows run in blocks, in ascending order, whatever the parts. Columns of x are copied side by side a few
  // groups at a time.
  static void weight_grads(const Linear<T>& m, T* dweight, T* dbias, const LinearScratch<T>& own, const Slice& groups) {
    const i64 b0 = m.O * groups.begin / groups_of<T>(m.I), b1 = m.O * groups.end / groups_of<T>(m.I);
    for (i64 block = 0; block < m.M; block += linear_block) {
      const i64 n = std::min<i64>(linear_block, m.M - block);
      if (m.weight.form)
        sum_in_form(*m.weight.form, m, block, n, groups, dweight, own);
      else
        sum(m, block, n, groups, dweight, own);
      if (!dbias) continue;
      std::fill(own.dbias + b0, own.dbias + b1, T(0));
      for (i64 k = 0; k < n; ++k)
        for (i64 o = b0; o < b1; ++o) own.dbias[o] += m.dy[(block + k) * m.dy_row + o];
      for (i64 o = b0; o < b1; ++o) dbias[o] += own.dbias[o];
    }
  }

  // What n rows from `block` on add to the gradients of some groups of columns of x.
  static void sum(const Linear<T>& m, i64 block, i64 n, const Slice& groups, T* dweight, const LinearScratch<T>& own) {
    const i64 piece = own.beside ? own.side_by_side : m.O;
    for (i64 low = 0; low < m.O; low += piece) {
      const i64 high = std::min(low + piece, m.O);
      for (i64 k = 0; k < n; ++k) {
        const T* const row = m.dy + (block + k) * m.dy_row + low;
        own.dy[k] = own.beside ? std::copy_n(row, high - low, own.beside + k * own.side_row) - (high - low) : row;
      }
      for (i64 g0 = groups.begin; g0 < groups.end; g0 += group_block) {
        const i64 g1 = std::min<i64>(g0 + group_block, groups.end), width = std::min(g1 * L, m.I) - g0 * L;
        for (i64 k = 0; k < n; ++k) {
          const T* const row = m.x + (block + k) * m.x_row;
          const T* const ahead = m.x + std::min(block + k + rows_ahead, m.M - 1) * m.x_row;
          for (i64 g = g0; g < g1; ++g) {
            __builtin_prefetch(ahead + g * L);
            store(own.x + k * columns + (g - g0) * L, load(row + g * L, m.I - g * L));
          }
        }
        for (i64 o = low; o < high; o += max_rows) {
          const int count = int(std::min<i64>(max_rows, high - o));
          alignas(64) T sums[max_rows][columns] = {};
          T* to[max_rows];
          for (int r = 0; r < count; ++r) to[r] = sums[r];
          accumulate<1, false>(count, ByColumn<T>{own.dy, o - low}, {1, n, 0}, Panels<T>{own.x, columns, L}, to, to, L,
                               g1 - g0);
          for (int r = 0; r < count; ++r)
            for (i64 i = 0; i < width; ++i) dweight[(o + r) * m.I + g0 * L + i] += sums[r][i];
        }
      }
    }
  }

  // The same where products are of a form.
  static void sum_in_form(const Form<T>& form, const Linear<T>& m, i64 block, i64 n, const Slice& groups, T* dweight,
                          const LinearScratch<T>& own) {
    alignas(64) static constexpr T nothing[columns] = {};
    const i64 panel = form.panel_size(1, n), size = form.vector_size(n);
    for (i64 g = groups.begin; g < groups.end; ++g)
      form.pack_rows(m.x + block * m.x_row + g * L, m.x_row, n, m.I - g * L, 1,
                     own.panels + (g - groups.begin) * panel);
    for (i64 low = 0; low < m.O; low += own.outputs) {
      const i64 high = std::min(low + own.outputs, m.O);
      for (i64 k = 0; k < n; ++k) own.dy[k] = m.dy + (block + k) * m.dy_row + low;
      form.turn(own.dy, n, high - low, own.turned);
      for (i64 g0 = groups.begin; g0 < groups.end; g0 += group_block) {
        const i64 g1 = std::min<i64>(g0 + group_block, groups.end), width = std::min(g1 * L, m.I) - g0 * L;
        for (i64 o = low; o < high; o += max_rows) {
          const int count = int(std::min<i64>(max_rows, high - o));
          alignas(64) T sums[max_rows][columns];
          const T *a[max_rows], *start[max_rows];
          T* to[max_rows];
          for (int r = 0; r < count; ++r) a[r] = own.turned + (o - low + r) * size, start[r] = nothing, to[r] = sums[r];
          form.accumulate(1, count, a, n, own.panels + (g0 - groups.begin) * panel, start, to, L, g1 - g0);
          for (int r = 0; r < count; ++r)
            for (i64 i = 0; i < width; ++i) dweight[(o + r) * m.I + g0 * L + i] += sums[r][i];
        }
      }
    }
  }

  static constexpr LinearKernels<T> kernels{L,       max_rows,    columns,  pack,        pack_transposed,
                                            forward, forward_few, activate, input_grads, weight_grads};
};

}  // namespace pyrnn::PYRNN_ISA
