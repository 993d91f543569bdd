// A linear map of rows: y = x W^T + b, and its gradients. x [M,I], W [O,I], y [M,O]; rows of x and dy any distance
// apart.
#pragma once

#include <algorithm>

#include "dense.hpp"
#include "panels.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct LinearLoop {
  static constexpr int L = lanes<T>;

  // Packs W for `forward`, [Op/L][I][L].
  static void pack(const Linear<T>& m, T* panels, int part, int parts) {
    const i64 groups = groups_of<T>(m.O);
    static constexpr std::array<int, 1> gate{0};
    pyrnn::PYRNN_ISA::pack(m.weight, m.I, gate, m.O, m.I, groups * part / parts, groups * (part + 1) / parts, panels);
  }

  // Packs W for `input_grads`, [Ip/L][Op][L].
  static void pack_transposed(const Linear<T>& m, T* panels, int part, int parts) {
    const i64 groups = groups_of<T>(m.I);
    static constexpr std::array<int, 1> gate{0};
    pyrnn::PYRNN_ISA::pack_transposed(m.weight, gate, m.O, m.I, groups * part / parts, groups * (part + 1) / parts,
                                      panels);
  }

  // out[m] = bias + sum_k a[m][k] panel[k], rows of this part.
  static void multiply(const T* a, i64 a_row, i64 K, i64 panel_k, const T* panels, const T* bias, i64 M, i64 columns,
                       T* out, int part, int parts) {
    const i64 begin = M * part / parts, end = M * (part + 1) / parts;
    const i64 groups = groups_of<T>(columns), runs = (groups + group_block - 1) / group_block;
    for (i64 run = 0; run < runs; ++run) {
      const i64 g0 = groups * run / runs, g1 = groups * (run + 1) / runs, width = std::min(g1 * L, columns) - g0 * L;
      alignas(64) T start[group_block * L] = {};
      if (bias) std::copy_n(bias + g0 * L, width, start);
      for (i64 m = begin; m < end; m += max_rows) {
        const int n = int(std::min<i64>(max_rows, end - m));
        alignas(64) T sums[max_rows][group_block * L];
        const T *rows[max_rows], *from[max_rows];
        T* to[max_rows];
        for (int r = 0; r < n; ++r) rows[r] = a + (m + r) * a_row, from[r] = start, to[r] = sums[r];
        accumulate<1, false>(n, ByRow<T>{rows}, {1, K, 0}, Panels<T>{panels + g0 * panel_k * L, L, panel_k * L}, from,
                             to, L, g1 - g0);
        for (int r = 0; r < n; ++r) std::copy_n(sums[r], width, out + (m + r) * columns + g0 * L);
      }
    }
  }

  static void forward(const Linear<T>& m, const T* panels, T* y, int part, int parts) {
    multiply(m.x, m.x_row, m.I, m.I, panels, m.bias, m.M, m.O, y, part, parts);
  }

  static void input_grads(const Linear<T>& m, const T* panels, T* dx, int part, int parts) {
    multiply(m.dy, m.dy_row, m.O, padded<T>(m.O), panels, nullptr, m.M, m.I, dx, part, parts);
  }

  // dweight and dbias are added to; sums over rows run in blocks, in ascending order, whatever the parts. Columns of x
  // are copied side by side a few groups at a time. scratch: max(block * group_block * L, O).
  static void weight_grads(const Linear<T>& m, T* dweight, T* dbias, T* scratch, const T** rows, int part, int parts) {
    const i64 groups = groups_of<T>(m.I), begin = groups * part / parts, end = groups * (part + 1) / parts;
    for (i64 block = 0; block < m.M; block += linear_block) {
      const i64 n = std::min<i64>(linear_block, m.M - block);
      for (i64 k = 0; k < n; ++k) rows[k] = m.dy + (block + k) * m.dy_row;
      for (i64 g0 = begin; g0 < end; g0 += group_block) {
        const i64 g1 = std::min<i64>(g0 + group_block, end), width = std::min(g1 * L, m.I) - g0 * L;
        for (i64 k = 0; k < n; ++k)
          for (i64 g = g0; g < g1; ++g)
            store(scratch + (k * group_block + g - g0) * L, load(m.x + (block + k) * m.x_row + g * L, m.I - g * L));
        for (i64 o = 0; o < m.O; o += max_rows) {
          const int count = int(std::min<i64>(max_rows, m.O - o));
          alignas(64) T sums[max_rows][group_block * L] = {};
          T* to[max_rows];
          for (int r = 0; r < count; ++r) to[r] = sums[r];
          accumulate<1, false>(count, ByColumn<T>{rows, o}, {1, n, 0}, Panels<T>{scratch, group_block * L, L}, to, to,
                               L, g1 - g0);
          for (int r = 0; r < count; ++r)
            for (i64 i = 0; i < width; ++i) dweight[(o + r) * m.I + g0 * L + i] += sums[r][i];
        }
      }
      if (dbias && part == 0) {
        T* total = scratch;
        std::fill_n(total, m.O, T(0));
        for (i64 k = 0; k < n; ++k)
          for (i64 o = 0; o < m.O; ++o) total[o] += rows[k][o];
        for (i64 o = 0; o < m.O; ++o) dbias[o] += total[o];
      }
    }
  }

  static constexpr LinearKernels<T> kernels{L, pack, pack_transposed, forward, input_grads, weight_grads};
};

}  // namespace pyrnn::PYRNN_ISA
