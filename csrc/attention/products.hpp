// The products of attention's blocks: rows of queries or weights with keys or values, which lie in panels, or as they
// came.
#pragma once

#include <algorithm>

#include "attention/rows.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct AttentionProducts {
  static constexpr int L = lanes<T>;
  static constexpr std::array<int, 1> gate{0};

  // c[r][0 .. groups) += sum_k a[r][k] panel[k] for all rows; c's rows are c_row apart, and chains begin at zeros or at
  // c. The panels of some groups at a time stay in L1 for all rows.
  template <class Inputs>
  PYRNN_INLINE static void multiply(int rows, Inputs inputs, Segments seg, Panels<T> panels, bool from_zero, T* c,
                                    i64 c_row, i64 groups) {
    alignas(64) static constexpr T zeros[group_block * L] = {};
    for (i64 g = 0; g < groups; g += group_block) {
      const i64 width = std::min<i64>(group_block, groups - g);
      for (int r = 0; r < rows; r += max_rows) {
        const int n = std::min(max_rows, rows - r);
        const T* from[max_rows];
        T* to[max_rows];
        for (int i = 0; i < n; ++i) to[i] = c + (r + i) * c_row + g * L, from[i] = from_zero ? zeros : to[i];
        accumulate<1, false>(n, inputs.from(r), seg,
                             Panels<T>{panels.data + g * panels.group, panels.step, panels.group}, from, to, L, width);
      }
    }
  }

  // The inputs of a product from a buffer [row][k]: read along its rows, or across them, which is the product with its
  // transpose.
  template <bool across> struct Matrix {
    const T* data;
    i64 row;
    struct Tile {
      const T* data;
      i64 row;
      PYRNN_INLINE T at(int r, i64 k) const { return data[across ? k * row + r : r * row + k]; }
    };
    PYRNN_INLINE Tile from(int r) const { return {data + (across ? r : r * row), row}; }
  };
  using Along = Matrix<false>;
  using Across = Matrix<true>;

  // Pair by pair, without those that are masked: c[i] += sum_k x panel[k] for all k for which at(i, k, x) gives an x.
  template <class At>
  static void guarded_multiply(i64 rows, i64 begin, i64 end, At at, const T* panel, i64 step, T* c, i64 c_row,
                               i64 groups) {
    for (i64 i = 0; i < rows; ++i)
      for (i64 k = begin; k < end; ++k) {
        T x;
        if (!at(i, k, x)) continue;
        for (i64 g = 0; g < groups; ++g) {
          T* out = c + i * c_row + g * L;
          store(out, fma(splat(x), load(panel + k * step + g * L), load(out)));
        }
      }
  }

  // scores[r][j - first] = q[r] . key[j] for the keys (or values) of a part, up to a whole register; E features.
  static void score(int rows, const T* q, const T* panels, i64 E, KeyPart part, T* scores) {
    multiply(rows, Along{q, padded<T>(E)}, {1, E, 0}, Panels<T>{panels + part.begin * E, L, E * L}, true,
             scores + part.begin, key_block, groups_of<T>(part.end - part.begin));
  }

  // The same of few rows, straight from keys (or values) as they lie: `count` of them from the part's first on. Squares
  // of them are turned in registers, of several groups by turns, for one group alone is one long chain. Squares that
  // are not whole go through memory, for the branches of a partial load would take registers from the others.
  static constexpr int few = 4;
  template <int R>
  static void score_few(const T* q, const T* keys, i64 key_row, i64 count, i64 E, KeyPart part, T* scores) {
    constexpr int by_turns = 4;
    const i64 q_row = padded<T>(E);
    alignas(64) T square[L * L] = {};
    for (i64 j = part.begin; j < part.end; j += by_turns * L) {
      const int groups = int(std::min<i64>(by_turns, groups_of<T>(part.end - j)));
      Vec<T> sums[by_turns][R] = {};
      for (i64 e = 0; e < E; e += L)
        for (int g = 0; g < groups; ++g) {
          const i64 first = j + g * L;
          const T* from = keys + first * key_row + e;
          i64 row = key_row;
          prefetch_rows(from, row, by_turns * L * row);
          if (first + L > count || e + L > E) {
            copy_rows(from, row, std::min<i64>(L, count - first), std::min<i64>(L, E - e), square);
            from = square, row = L;
          }
          Vec<T> block[L];
          load_turned(from, row, L, L, block);
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i)
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) sums[g][r] = fma(splat(q[r * q_row + e + i]), block[i], sums[g][r]);
        }
      for (int g = 0; g < groups; ++g)
        for (int r = 0; r < R; ++r) store(scores + r * key_block + j + g * L, sums[g][r]);
    }
  }
  static void score_few(int rows, const T* q, const T* keys, i64 key_row, i64 count, i64 E, KeyPart part, T* scores) {
    switch (rows) {
      case 1: return score_few<1>(q, keys, key_row, count, E, part, scores);
      case 2: return score_few<2>(q, keys, key_row, count, E, part, scores);
      case 3: return score_few<3>(q, keys, key_row, count, E, part, scores);
      case few: return score_few<few>(q, keys, key_row, count, E, part, scores);
    }
  }

  // Rows of n features, side by side and filled up with zeros. Not inlined, for it would take registers from others.
  __attribute__((noinline)) static void copy_rows(const T* from, i64 from_row, i64 rows, i64 n, T* to) {
    const i64 to_row = padded<T>(n);
    for (i64 i = 0; i < rows; ++i)
      for (i64 e = 0; e < n; e += L) store(to + i * to_row + e, load(from + i * from_row + e, n - e));
  }

  // Keys [begin, end) of a block of n, which begins at `keys`, as panels; begin on a register's border.
  static void pack_keys(const T* keys, i64 key_row, i64 n, i64 E, i64 begin, i64 end, T* panels) {
    PYRNN_ISA::pack(keys, key_row, std::span(gate), n, E, begin / L, groups_of<T>(end), panels);
  }

  static bool finite(const T* x, i64 n) { return finite(x, n, 1, n); }
  // Rows of n numbers, `row` apart.
  static bool finite(const T* x, i64 row, i64 rows, i64 n) {
    Vec<T> bad[4] = {};  // 0, or NaN for what is not finite
    const Vec<T> zero{};
    for (; rows > 0; --rows, x += row) {
      i64 i = 0;
      for (; i + 4 * L <= n; i += 4 * L)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) bad[j] = fma(load(x + i + j * L), zero, bad[j]);
      for (; i < n; i += L) bad[0] = fma(load(x + i, n - i), zero, bad[0]);
    }
    return sum<T>((bad[0] + bad[1]) + (bad[2] + bad[3])) == 0;
  }
};

// Cuts work memory into arrays, each on a cache line's border; without memory it only counts.
template <class T> struct Scratch {
  T* memory = nullptr;
  i64 taken = 0;
  PYRNN_INLINE T* take(i64 n) {
    T* array = memory ? memory + taken : nullptr;
    taken += (n + 63) / 64 * 64;
    return array;
  }
};

}  // namespace pyrnn::PYRNN_ISA
