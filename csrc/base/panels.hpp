// Packing of weights into panels, and the micro-kernel that multiplies rows by a panel: the matrix product of every
// kernel that reads its matrix more than once. (Attention's few rows and Hopfield's fields have chains of their own.)
//
// A panel holds, for one register-width of outputs, V vectors side by side for each k: [k][V][lane]. For a cell's
// weights V counts its gates, so one row of a panel is all the gates of the same hidden units. `Panels` is a run of
// them, one per register-width ("unit group"): [group][k][V][lane].
//
//   accumulate:  c[r][group][v][lane] = start[r][group][v][lane] + sum_k a[r][k] * panel[group][k][v][lane]
//
// Every output is one chain of multiply-adds over k in ascending order that begins at its start, whatever the number of
// rows or groups a tile takes. That is the whole of the library's bit-exactness, so neither the order
// nor the start may depend on blocking. Results stay in registers for the whole of k.
#pragma once

#include <span>

#include "base/simd.hpp"

namespace pyrnn::PYRNN_ISA {

// Rows a tile takes at most: rows * 4 gates accumulators must leave registers for weights and inputs.
inline constexpr int max_rows = registers == 32 ? 6 : registers == 16 ? 3 : 1;
inline constexpr int max_accumulators = registers == 32 ? 24 : registers == 16 ? 12 : 4;
// Unit groups that are worked on together where rows are few, so that there are enough independent chains.
inline constexpr int group_block = 4;
// Vectors side by side in a panel at most.
inline constexpr int most_vectors = 4;

template <class T> PYRNN_INLINE i64 groups_of(i64 units) { return ceil_div(units, lanes<T>); }
template <class T> PYRNN_INLINE i64 padded(i64 units) { return round_up(units, lanes<T>); }

// The k-th element of a row lies at row[k], in segments: `count` runs of `length` elements, `stride` apart.
struct Segments {
  i64 count, length, stride;
};

// The inputs of a product. ByRow: one pointer per row, read along k. ByColumn: one pointer per k, read across rows
// (a weight gradient sums over steps: its "rows" are the columns of x or h, offset by `first`).
template <class T> struct ByRow {
  const T* const* row;
  PYRNN_INLINE T at(int r, i64 offset) const { return row[r][offset]; }
};
template <class T> struct ByColumn {
  const T* const* step;
  i64 first;
  PYRNN_INLINE T at(int r, i64 offset) const { return step[offset][first + r]; }
};

// A run of packed panels as a product reads it.
template <class T> struct Panels {
  const T* data;
  i64 step, group;  // distances between two k and between two groups
};

// R rows by U groups of V vectors, for groups from g on, as often as U of them are left; returns the first that is.
// `c_group` is the distance from one group to the next in a row of c and of start (which may be c). With `FromZero` the
// chain starts at 0 and its result is added to c at the end. Never inlined: the loop needs all registers, and beside
// others' addresses it goes to memory for its own (up to 1.2 times as long).
template <int R, int U, int V, bool FromZero, class T, class Inputs>
__attribute__((noinline)) i64 tiles(Inputs a, Segments seg, const Panels<T>& p, const T* const* start, T* const* c,
                                    i64 c_group, i64 g, i64 groups) {
  constexpr int L = lanes<T>;
  const i64 panel_step = p.step, panel_group = p.group;
  for (; g + U <= groups; g += U) {
    const i64 from = g * c_group;
    const T* panel = p.data + g * panel_group;
    Vec<T> acc[R][U][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) acc[r][u][v] = FromZero ? Vec<T>{} : load(start[r] + from + u * c_group + v * L);
    for (i64 s = 0; s < seg.count; ++s) {
      const i64 begin = s * seg.stride, end = begin + seg.length;
#pragma GCC unroll 1
      for (i64 k = begin; k < end; ++k) {
        if constexpr (R * U * V + R < registers) {  // all inputs at once, or all weights
          Vec<T> x[R];
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) x[r] = splat(a.at(r, k));
#pragma GCC unroll 8
          for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) {
              Vec<T> w = load(panel + u * panel_group + v * L);
#pragma GCC unroll 8
              for (int r = 0; r < R; ++r) acc[r][u][v] = fma(x[r], w, acc[r][u][v]);
            }
        } else {
          Vec<T> w[U][V];
#pragma GCC unroll 8
          for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) w[u][v] = load(panel + u * panel_group + v * L);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            Vec<T> x = splat(a.at(r, k));
#pragma GCC unroll 8
            for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
              for (int v = 0; v < V; ++v) acc[r][u][v] = fma(x, w[u][v], acc[r][u][v]);
          }
        }
        panel += panel_step;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          T* out = c[r] + from + u * c_group + v * L;
          store(out, FromZero ? load(out) + acc[r][u][v] : acc[r][u][v]);
        }
  }
  return g;
}

// rows x groups of one product, cut into tiles that fit the registers.
template <int R, int V, bool FromZero, class T, class Inputs>
void accumulate_rows(Inputs a, Segments seg, const Panels<T>& p, const T* const* start, T* const* c, i64 c_group,
                     i64 groups) {
  i64 g = 0;
  auto run = [&]<int U>() {
    if constexpr (R * U * V <= max_accumulators || U == 1)
      if (g + U <= groups) g = tiles<R, U, V, FromZero, T>(a, seg, p, start, c, c_group, g, groups);
  };
  run.template operator()<4>();
  run.template operator()<3>();
  run.template operator()<2>();
  run.template operator()<1>();
}

template <int V, bool FromZero, class T, class Inputs>
void accumulate(int rows, Inputs a, Segments seg, const Panels<T>& p, const T* const* start, T* const* c, i64 c_group,
                i64 groups) {
  switch (rows) {
    case 1: return accumulate_rows<1, V, FromZero>(a, seg, p, start, c, c_group, groups);
    case 2: return accumulate_rows<2, V, FromZero>(a, seg, p, start, c, c_group, groups);
    case 3: return accumulate_rows<3, V, FromZero>(a, seg, p, start, c, c_group, groups);
    default:
      if constexpr (max_rows == 6) switch (rows) {
          case 4: return accumulate_rows<4, V, FromZero>(a, seg, p, start, c, c_group, groups);
          case 5: return accumulate_rows<5, V, FromZero>(a, seg, p, start, c, c_group, groups);
          case 6: return accumulate_rows<6, V, FromZero>(a, seg, p, start, c, c_group, groups);
        }
  }
}

// The same where the number of vectors is known at run time only; of none nothing is done.
template <bool FromZero, class T, class Inputs>
void accumulate(int vectors, int rows, Inputs a, Segments seg, const Panels<T>& p, const T* const* start, T* const* c,
                i64 c_group, i64 groups) {
  static_assert(most_vectors == 4);
  switch (vectors) {
    case 1: return accumulate<1, FromZero>(rows, a, seg, p, start, c, c_group, groups);
    case 2: return accumulate<2, FromZero>(rows, a, seg, p, start, c, c_group, groups);
    case 3: return accumulate<3, FromZero>(rows, a, seg, p, start, c, c_group, groups);
    case 4: return accumulate<4, FromZero>(rows, a, seg, p, start, c, c_group, groups);
  }
}

// Transposes an L x L block held in L vectors: first the squares that lie within 128 bits, by rounds of interleaving,
// then the square of those, by rounds of sorting even and odd ones apart. Both kinds of round are the cheap shuffles of
// a CPU; any that crosses both at once takes twice as long.
template <class T> PYRNN_INLINE void transpose(Vec<T> (&block)[lanes<T>]) {
  constexpr int L = lanes<T>, inner = 16 / int(sizeof(T)), outer = L / inner;
  constexpr auto interleave = []<int half, int... i>(std::integer_sequence<int, i...>, Vec<T> a, Vec<T> b) {
    return __builtin_shufflevector(a, b, (i / inner * inner + half * inner / 2 + i % inner / 2 + i % 2 * L)...);
  };
  constexpr auto sort = []<int odd, int... i>(std::integer_sequence<int, i...>, Vec<T> a, Vec<T> b) {
    return __builtin_shufflevector(a, b, ((2 * (i / inner) + odd) * inner + i % inner)...);
  };
  using Lanes = std::make_integer_sequence<int, L>;
#pragma GCC unroll 4
  for (int g = 0; g < L; g += inner)
#pragma GCC unroll 4
    for (int round = 1; round < inner; round *= 2) {
      Vec<T> next[inner];
#pragma GCC unroll 4
      for (int i = 0; i < inner / 2; ++i) {
        next[2 * i] = interleave.template operator()<0>(Lanes{}, block[g + i], block[g + i + inner / 2]);
        next[2 * i + 1] = interleave.template operator()<1>(Lanes{}, block[g + i], block[g + i + inner / 2]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < inner; ++i) block[g + i] = next[i];
    }
#pragma GCC unroll 4
  for (int c = 0; c < inner; ++c)
#pragma GCC unroll 4
    for (int round = 1; round < outer; round *= 2) {
      Vec<T> next[outer];
#pragma GCC unroll 4
      for (int i = 0; i < outer / 2; ++i) {
        const Vec<T> a = block[2 * i * inner + c], b = block[(2 * i + 1) * inner + c];
        next[i] = sort.template operator()<0>(Lanes{}, a, b);
        next[i + outer / 2] = sort.template operator()<1>(Lanes{}, a, b);
      }
#pragma GCC unroll 4
      for (int i = 0; i < outer; ++i) block[i * inner + c] = next[i];
    }
}

// A square of numbers, L rows `row` apart, turned: block[k] is element k of each. What lies beyond `rows` or `width` is
// 0. One pointer serves four rows, as an address of x86 may add a multiple of `row` to it: a pointer for each of them
// would not fit the registers, and moving those to and from memory takes as long as the loads.
template <class T>
PYRNN_INLINE void load_turned(const T* from, i64 row, i64 rows, i64 width, Vec<T> (&block)[lanes<T>]) {
  constexpr int L = lanes<T>, step = L < 4 ? L : 4;
  if (rows >= L && width >= L) {
#pragma GCC unroll 4
    for (int i = 0; i < L; i += step) {
      if (i) from += step * row;
#pragma GCC unroll 4
      for (int j = 0; j < step; ++j) block[i + j] = load(from + j * row);
    }
  } else {
    for (int i = 0; i < L; ++i) block[i] = i < rows ? load(from + i * row, width) : Vec<T>{};
  }
  transpose<T>(block);
}

// Asks for L rows that begin `ahead` numbers further on. They are read across, which no prefetcher of a CPU sees
// through. They may lie outside of any array.
template <class T> PYRNN_INLINE void prefetch_rows(const T* from, i64 row, i64 ahead) {
  constexpr int step = lanes<T> < 4 ? lanes<T> : 4;
  const std::uintptr_t bytes = std::uintptr_t(row) * sizeof(T);
  std::uintptr_t at = std::uintptr_t(from) + std::uintptr_t(ahead) * sizeof(T);
#pragma GCC unroll 4
  for (int i = 0; i < lanes<T>; i += step, at += std::uintptr_t(step) * bytes)
#pragma GCC unroll 4
    for (int j = 0; j < step; ++j) __builtin_prefetch(reinterpret_cast<const void*>(at + std::uintptr_t(j) * bytes));
}

// A weight matrix as the user holds it, row-major (gates * units, columns), rows `row` apart: rows of one gate and one
// unit group. Packs weight[gate * units + u][k] to panel[group of u][k][v][lane of u]; `gate[v]` is the gate of vector
// v.
template <class T, std::size_t V>
void pack(const T* weight, i64 row, std::span<const int, V> gate, i64 units, i64 columns, i64 g0, i64 g1, T* panels) {
  constexpr int L = lanes<T>;
  const i64 vectors = i64(gate.size());  // known to the compiler where V is
  for (i64 g = g0; g < g1; ++g) {
    T* panel = panels + g * columns * vectors * L;
    const i64 valid = units - g * L < L ? units - g * L : L;
    for (i64 v = 0; v < vectors; ++v) {  // L rows at a time: of all gates, they would drive each other out of a cache
      const T* source = weight + (gate[std::size_t(v)] * units + g * L) * row;
      for (i64 k = 0; k < columns; k += L, source += L) {
        const i64 width = columns - k < L ? columns - k : L;
        Vec<T> block[L];
        prefetch_rows(source, row, 4 * L);
        load_turned(source, row, valid, width, block);
        T* const to = panel + (k * vectors + v) * L;
        if (width == L)
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) store(to + i * vectors * L, block[i]);
        else
          for (i64 i = 0; i < width; ++i) store(to + i * vectors * L, block[i]);
      }
    }
  }
}

// The way back for gradients: weight[gate * units + u][k] += panel[group of u][k][v][lane of u].
template <class T>
void unpack_add(const T* panels, std::span<const int> gate, i64 units, i64 columns, i64 g0, i64 g1, T* weight) {
  constexpr int L = lanes<T>;
  const i64 V = i64(gate.size());
  for (i64 g = g0; g < g1; ++g) {
    const T* panel = panels + g * columns * V * L;
    const i64 valid = units - g * L < L ? units - g * L : L;
    for (i64 v = 0; v < V; ++v) {
      T* target = weight + (gate[std::size_t(v)] * units + g * L) * columns;
      for (i64 k = 0; k < columns; k += L, target += L) {
        const i64 width = columns - k < L ? columns - k : L;
        Vec<T> block[L];
        for (int i = 0; i < L; ++i) block[i] = i < width ? load(panel + ((k + i) * V + v) * L) : Vec<T>{};
        transpose<T>(block);
        for (i64 i = 0; i < valid; ++i)
          store(target + i * columns, load(target + i * columns, width) + block[i], width);
      }
    }
  }
}

// Transposed weights, for products that run back from units to columns. Their k walks the gates of a record, padded
// units included: [group of columns][group of u][v][lane of u][lane of column]; what is padding is 0. Of weights that
// have one gate:
template <class T> void pack_transposed(const T* weight, i64 units, i64 columns, i64 g0, i64 g1, T* panels) {
  constexpr int L = lanes<T>;
  for (i64 g = g0; g < g1; ++g) {
    T* out = panels + g * padded<T>(units) * L;
    const i64 width = columns - g * L < L ? columns - g * L : L;
    for (i64 u = 0; u < padded<T>(units); ++u)
      store(out + u * L, u < units ? load(weight + u * columns + g * L, width) : Vec<T>{});
  }
}

// And of panels of `pack`.
template <class T>
void transpose_panels(int vectors, const T* panels, i64 units, i64 columns, i64 g0, i64 g1, T* transposed) {
  constexpr int L = lanes<T>;
  for (i64 g = g0; g < g1; ++g) {
    T* out = transposed + g * padded<T>(units) * vectors * L;
    const i64 width = columns - g * L < L ? columns - g * L : L;
    for (i64 ug = 0; ug < groups_of<T>(units); ++ug)
      for (int v = 0; v < vectors; ++v) {
        Vec<T> block[L];
        for (i64 i = 0; i < L; ++i)
          block[i] = i < width ? load(panels + ((ug * columns + g * L + i) * vectors + v) * L) : Vec<T>{};
        transpose<T>(block);
        for (int i = 0; i < L; ++i, out += L) store(out, block[i]);
      }
  }
}

}  // namespace pyrnn::PYRNN_ISA
