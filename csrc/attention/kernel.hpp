// Attention over blocks of keys, forward and backward: the tasks of attention.hpp.
//
// Forward, for a block of rows and each block of keys: scores = scale q K^T with the keys in panels, masks and the
// softmax's exponentials in place, sums += exponentials V with the values' rows as panels. Never more scores than
// row_block x key_block. Backward, for a block of keys and each block of rows: the same scores again, from them the
// exponentials and the scores' gradients, and the three products with those.
//
// Scores are kept times log2(e), a factor that queries take with their scale: their exponentials are powers of 2.
//
// Hidden pairs: their score is -inf, hence their exponential 0. That is enough where all numbers of a block are finite.
// Where they are not (0 * NaN), the block is done pair by pair and without the hidden ones ("guarded"), in the same
// order: rows that are finite get the same bits.
#pragma once

#include <algorithm>
#include <limits>
#include <numbers>

#include "attention/contract.hpp"
#include "base/panels.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct AttentionLoop {
  static constexpr int L = lanes<T>;
  static constexpr T hidden = -std::numeric_limits<T>::infinity();
  static constexpr T log2e = std::numbers::log2e_v<T>, ln2 = std::numbers::ln2_v<T>;
  static constexpr i64 chunk = group_block * L;  // keys whose panels and values are worked on while they are in L1
  static constexpr std::array<int, 1> gate{0};
  static_assert(key_block % chunk == 0 && key_run % key_block == 0 && row_block % max_rows == 0 && row_block % L == 0);

  using A = Attention<T>;

  // A row of a task: the keys [low, high) that bounds and lengths leave, its part of the mask, and its place in
  // outputs.
  struct Row {
    i64 low, high, place;
    const std::uint8_t* seen;
    const T* bias;
  };

  struct Rows {
    int count = 0;
    i64 low, high;  // of all rows
    Row row[row_block];
  };

  struct Head {
    i64 b, k;
    const T *key, *value;
  };

  PYRNN_INLINE static Head head_of(const A& a, i64 head) {
    const i64 b = head / a.Hk, k = head % a.Hk;
    return {b, k, a.key + a.places[b].key + k * a.key_head, a.value + a.places[b].value + k * a.value_head};
  }

  // The rows of a block; their queries times the scale and log2(e) go to q, [rows][Ep], filled up with zeros.
  static void take_rows(const A& a, const Head& h, RowBlock block, Rows& rows, T* q) {
    const i64 Ep = padded<T>(a.E), length = a.lengths ? a.lengths[h.b] : a.K;
    const i64 low = a.places[h.b].low, high = a.places[h.b].high;
    rows.count = 0, rows.low = a.K, rows.high = 0;
    constexpr T most = std::numeric_limits<T>::max();  // infinity would make NaN of what fills q up
    const Vec<T> scale = splat(std::clamp(a.scale * log2e, -most, most));
    for (i64 g = block.g0; g < block.g1; ++g)
      for (i64 i = block.i0; i < block.i1; ++i) {
        const i64 head = h.k * a.G + g;
        Row& r = rows.row[rows.count];
        r.low = std::max<i64>(0, i + low), r.high = std::min(length, i + high + 1);
        if (r.high < r.low) r.low = r.high = 0;
        r.place = (h.b * a.Hk * a.G + head) * a.S + i;
        const i64 mask = a.places[h.b].mask + head * a.mask_head + i * a.mask_row;
        r.seen = a.seen ? a.seen + mask : nullptr;
        r.bias = a.bias ? a.bias + mask : nullptr;
        if (r.low < r.high) rows.low = std::min(rows.low, r.low), rows.high = std::max(rows.high, r.high);
        const T* from = a.query + a.places[h.b].query + head * a.query_head + i * a.query_row;
        T* to = q + rows.count * Ep;
        for (i64 e = 0; e < a.E; e += L) store(to + e, scale * load(from + e, a.E - e));
        ++rows.count;
      }
  }

  // Keys of a block that some row may see, counted from the block's first: [begin, end), begin on a chunk's border.
  struct Part {
    i64 first, begin, end;  // first: the block's first key
  };

  static Part part_of(const A& a, const Rows& rows, i64 block) {
    const i64 first = block * key_block, n = std::min(key_block, a.K - first);
    Part p{first, std::max<i64>(0, rows.low - first), std::min(n, rows.high - first)};
    p.begin = p.begin / chunk * chunk;
    if (p.begin >= p.end || !(a.seen || a.bias)) return p;
    for (int r = 0; r < rows.count; ++r) {
      const Row& row = rows.row[r];
      const i64 begin = std::max(row.low - first, p.begin), end = std::min(row.high - first, p.end);
      if (begin < end && any_seen(a, row, first + begin, first + end)) return p;
    }
    p.end = p.begin;
    return p;
  }

  static bool any_seen(const A& a, const Row& row, i64 begin, i64 end) {
    if (row.seen) {
      for (i64 j = begin; j < end; ++j)
        if (row.seen[j * a.mask_key]) return true;
    } else {
      for (i64 j = begin; j < end; ++j)
        if (row.bias[j * a.mask_key] != hidden) return true;
    }
    return false;
  }

  // c[r][0 .. groups) += sum_k a[r][k] panel[k] for all rows; c's rows are c_row apart and begin at zeros or at c. Some
  // groups at a time, whose panels stay in L1 for all rows.
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

  // Rows of a buffer as the inputs of a product, read along k, and its columns, read across.
  struct Along {
    const T* data;
    i64 row;
    struct Tile {
      const T* data;
      i64 row;
      PYRNN_INLINE T at(int r, i64 k) const { return data[r * row + k]; }
    };
    PYRNN_INLINE Tile from(int r) const { return {data + r * row, row}; }
  };
  struct Across {
    const T* data;
    i64 row;
    struct Tile {
      const T* data;
      i64 row;
      PYRNN_INLINE T at(int r, i64 k) const { return data[k * row + r]; }
    };
    PYRNN_INLINE Tile from(int r) const { return {data + r, row}; }
  };

  // scores[r][j - first] = q[r] . key[j] for the keys (or values) of a part, up to a whole register, E features.
  static void score(int rows, const T* q, const T* panels, i64 E, Part part, T* scores) {
    multiply(rows, Along{q, padded<T>(E)}, {1, E, 0}, Panels<T>{panels + part.begin * E, L, E * L}, true,
             scores + part.begin, key_block, groups_of<T>(part.end - part.begin));
  }

  // Rows of n features, side by side and filled up with zeros. Not inlined, for it would take registers from others.
  __attribute__((noinline)) static void copy_rows(const T* from, i64 from_row, i64 rows, i64 n, T* to) {
    const i64 to_row = padded<T>(n);
    for (i64 i = 0; i < rows; ++i)
      for (i64 e = 0; e < n; e += L) store(to + i * to_row + e, load(from + i * from_row + e, n - e));
  }

  // The same for few rows, straight from keys (or values) as they lie: `count` of them from the part's first on, E
  // features; q is filled up with zeros. They are turned in registers, some groups at a time, for one alone would be
  // one long chain. Incomplete squares go through memory: their branches would take registers from the others.
  static constexpr int few = 4;
  template <int R>
  static void score_few(const T* q, const T* keys, i64 key_row, i64 count, i64 E, Part part, T* scores) {
    constexpr int together = 4;
    const i64 q_row = padded<T>(E);
    alignas(64) T square[L * L] = {};
    for (i64 j = part.begin; j < part.end; j += together * L) {
      const int groups = int(std::min<i64>(together, groups_of<T>(part.end - j)));
      Vec<T> sums[together][R] = {};
      for (i64 e = 0; e < E; e += L)
        for (int g = 0; g < groups; ++g) {
          const i64 first = j + g * L;
          const T* from = keys + first * key_row + e;
          i64 row = key_row;
          prefetch_rows(from, row, together * L);
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
  static void score_few(int rows, const T* q, const T* keys, i64 key_row, i64 count, i64 E, Part part, T* scores) {
    switch (rows) {
      case 1: return score_few<1>(q, keys, key_row, count, E, part, scores);
      case 2: return score_few<2>(q, keys, key_row, count, E, part, scores);
      case 3: return score_few<3>(q, keys, key_row, count, E, part, scores);
      case few: return score_few<few>(q, keys, key_row, count, E, part, scores);
    }
  }

  // Does a row see all keys of the registers of a part, and nothing changes their scores.
  PYRNN_INLINE static bool sees_all(const A& a, const Row& row, Part part) {
    return !row.seen && !row.bias && a.softcap == 0 && row.low <= part.first + part.begin &&
           row.high >= part.first + part.end && part.end % L == 0;
  }

  // A row's scores after the soft cap and the masks. `slope` (or null) takes the cap's derivative. A bias that is
  // finite hides nothing, however low: times log2(e) it stops at the lowest number.
  static void mask(const A& a, const Row& row, Part part, T* s, T* slope) {
    const i64 end = part.end, low = std::max(row.low - part.first, part.begin),
              high = std::min(row.high - part.first, end);
    if (a.softcap > 0) {
      const T largest = std::min(a.softcap * log2e, std::numeric_limits<T>::max());
      const Vec<T> cap = splat(largest), inverse = splat(T(1) / largest), one = splat(T(1));
      for (i64 j = part.begin; j < end; j += L) {
        const Vec<T> t = tanh<T>(load(s + j) * inverse);
        store(s + j, cap * t);
        if (slope) store(slope + j, fma(-t, t, one));
      }
    }
    if (row.seen) {
      std::uint8_t bytes[L];
      for (i64 j = part.begin; j < end; j += L) {
        const i64 n = std::min<i64>(L, end - j);
        const std::uint8_t* from = row.seen + (part.first + j) * a.mask_key;
        if (a.mask_key != 1) {
          for (i64 i = 0; i < n; ++i) bytes[i] = from[i * a.mask_key];
          from = bytes;
        }
        store(s + j, select<T>(load_mask<T>(from, n), load(s + j), splat(hidden)));
      }
    } else if (row.bias) {
      T values[L];
      for (i64 j = part.begin; j < end; j += L) {
        const i64 n = std::min<i64>(L, end - j);
        const T* from = row.bias + (part.first + j) * a.mask_key;
        if (a.mask_key != 1) {
          for (i64 i = 0; i < n; ++i) values[i] = from[i * a.mask_key];
          from = values;
        }
        const Vec<T> bias = load(from, n);
        const Vec<T> biased = at_least(fma(bias, splat(log2e), load(s + j)), std::numeric_limits<T>::lowest());
        store(s + j, select<T>(bias == splat(hidden), bias, biased));
      }
    }
    // Registers on a bound and beyond it.
    const auto bound = [&](i64 from, i64 to) {
      using Word = typename Types<T>::Word;
      IntVec<T> lane;
      for (int i = 0; i < L; ++i) lane[i] = i;
      for (i64 j = from; j < to; j += L) {
        const IntVec<T> at = lane + Word(j);
        const IntVec<T> inside = (at >= Word(std::max(low, j))) & (at < Word(std::max<i64>(high, 0)));
        store(s + j, select<T>(inside, load(s + j), splat(hidden)));
      }
    };
    const i64 clear = std::max(high, part.begin) / L * L;  // from here on not all is below the upper bound
    bound(part.begin, std::min((low + L - 1) / L * L, clear));
    bound(clear, end);
  }

  // Largest of s[part], -inf where all is hidden; a NaN stays out of it, but enters the sum.
  PYRNN_INLINE static T largest_of(Part part, const T* s) {
    Vec<T> most[4] = {splat(hidden), splat(hidden), splat(hidden), splat(hidden)};
    i64 j = part.begin;
    for (; j + 4 * L <= part.end; j += 4 * L)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) most[i] = larger(load(s + j + i * L), most[i]);
    for (; j < part.end; j += L) most[0] = larger(load(s + j), most[0]);
    return largest<T>(larger(larger(most[0], most[1]), larger(most[2], most[3])));
  }

  // What a block of rows has come to: [rows][Evp] sums, largest scores and lanes of the sums of exponentials.
  struct State {
    T *sums, *most;
    Vec<T>* total;
  };

  PYRNN_INLINE static T power(T x) { return exp2<T>(splat(x))[0]; }

  // Exponentials in place of the scores, the state brought to the new maximum (in the first part of a run there is none
  // but the largest scores, -inf). `Guarded`: hidden ones become -1. All rows take each step together: one alone would
  // wait for its maximum.
  template <bool Guarded> static void soften(const Rows& rows, Part part, bool first, T* scores, State state, i64 Evp) {
    alignas(64) T now[row_block] = {}, shrink[row_block];
    for (int r = 0; r < rows.count; ++r) now[r] = largest_of(part, scores + r * key_block);
    for (int r = 0; r < rows.count; r += L) {
      const Vec<T> before = load(state.most + r), most = larger(load(now + r), before);
      store(state.most + r, most);
      store(now + r, select<T>(most == splat(hidden), Vec<T>{}, most));
      store(shrink + r, select<T>(before == most, splat(T(1)), exp2<T>(before - most)));
    }
    for (int r = 0; r < rows.count && !first; ++r) {
      if (shrink[r] == 1) continue;
      state.total[r] *= splat(shrink[r]);
      T* o = state.sums + r * Evp;
      for (i64 e = 0; e < Evp; e += L) store(o + e, load(o + e) * splat(shrink[r]));
    }
    for (int r = 0; r < rows.count; ++r) {
      T* s = scores + r * key_block;
      const Vec<T> shift = splat(now[r]);
      Vec<T> total = first ? Vec<T>{} : state.total[r];
      for (i64 j = part.begin; j < part.end; j += L) {
        const Vec<T> x = load(s + j), p = exp2<T>(x - shift);
        total += p;
        store(s + j, Guarded ? select<T>(x == splat(hidden), splat(T(-1)), p) : p);
      }
      state.total[r] = total;
    }
  }

  // Pair by pair, without the hidden ones: c[i] += sum_k x panel[k] for all k for which at(i, k, x) gives an x.
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

  // Are values copied before rows are multiplied with them: where they are no whole registers, or do not lie side by
  // side (they then share few lines of a cache) and there are rows enough to make up for it.
  static constexpr i64 rows_for_copies = 32;
  static bool copies_values(const A& a, i64 rows) {
    return a.Ev % L || (a.value_row != a.Ev && rows >= rows_for_copies);
  }

  static i64 packed_size(const A& a) {
    const i64 keys = padded<T>(a.K);
    return keys * a.E + (copies_values(a, a.S * a.G) ? keys * padded<T>(a.Ev) : 0);
  }

  static void pack_keys(const A& a, const Head& h, i64 first, i64 begin, i64 end, T* panels) {
    const i64 n = std::min(key_block, a.K - first);
    PYRNN_ISA::pack(h.key + first * a.key_row, a.key_row, gate, n, a.E, begin / L, groups_of<T>(end), panels);
  }

  static void pack(const A& a, i64 head, i64 block, T* packed) {
    const Head h = head_of(a, head);
    const i64 first = block * key_block, n = std::min(key_block, a.K - first);
    pack_keys(a, h, first, 0, n, packed + first * a.E);
    if (copies_values(a, a.S * a.G))
      copy_rows(h.value + first * a.value_row, a.value_row, n, a.Ev,
                packed + padded<T>(a.K) * a.E + first * padded<T>(a.Ev));
  }

  // Scratch is cut from the front; every piece begins on a cache line.
  struct Scratch {
    T* next;
    PYRNN_INLINE T* take(i64 n) {
      T* piece = next;
      next += (n + 63) / 64 * 64;
      return piece;
    }
  };

  static i64 scratch_size(const A& a) {
    const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev);
    return row_block * (Ep + key_block + 2 * Evp + 4 + L) + key_block * (a.E + Evp) + 64 * 10;
  }

  // The blocks of one run for all rows, from an empty state.
  static void run(const A& a, const Head& h, const Rows& rows, i64 number, const T* q, const T* packed, Scratch work,
                  State state, bool guarded) {
    const i64 Evp = padded<T>(a.Ev);
    T* scores = work.take(row_block * key_block);
    T* own = packed ? nullptr : work.take(key_block * a.E);
    const bool copies = copies_values(a, packed ? a.S * a.G : rows.count);
    T* own_values = packed || !copies ? nullptr : work.take(key_block * Evp);
    const auto nothing_yet = [&] {
      std::fill_n(state.sums, rows.count * Evp, T(0));
      std::fill_n(state.total, rows.count, Vec<T>{});
    };
    std::fill_n(state.most, row_block, hidden);  // those of no row too: they are taken by the register
    if (guarded) nothing_yet();
    bool first = true;
    const i64 begin = number * key_run / key_block,
              end = std::min((a.K + key_block - 1) / key_block, begin + key_run / key_block);
    for (i64 block = begin; block < end; ++block) {
      const Part part = part_of(a, rows, block);
      if (part.begin >= part.end) continue;
      const T* panels = packed ? packed + part.first * a.E : own;
      const T* values = h.value + part.first * a.value_row;
      i64 value_row = a.value_row;
      if (copies) {
        value_row = Evp;
        values = packed ? packed + padded<T>(a.K) * a.E + part.first * Evp : own_values;
        if (!packed)
          copy_rows(h.value + (part.first + part.begin) * a.value_row, a.value_row, part.end - part.begin, a.Ev,
                    own_values + part.begin * Evp);
      }
      if (packed) {
        score(rows.count, q, panels, a.E, part, scores);
      } else if (rows.count <= few) {
        score_few(rows.count, q, h.key + part.first * a.key_row, a.key_row, a.K - part.first, a.E, part, scores);
      } else {
        for (i64 j = part.begin; j < part.end; j += chunk) {
          const Part piece{part.first, j, std::min(part.end, j + chunk)};
          pack_keys(a, h, part.first, piece.begin, piece.end, own);
          score(rows.count, q, panels, a.E, piece, scores);
        }
      }
      for (int r = 0; r < rows.count; ++r)
        if (!sees_all(a, rows.row[r], part)) mask(a, rows.row[r], part, scores + r * key_block, nullptr);
      if (guarded) {
        soften<true>(rows, part, first, scores, state, Evp);
        guarded_multiply(
            rows.count, part.begin, part.end,
            [&](i64 i, i64 k, T& x) { return x = scores[i * key_block + k], !(x < 0); }, values, value_row, state.sums,
            Evp, Evp / L);
        first = false;
        continue;
      }
      soften<false>(rows, part, first, scores, state, Evp);
      multiply(rows.count, Along{scores + part.begin, key_block}, {1, part.end - part.begin, 0},
               Panels<T>{values + part.begin * value_row, value_row, L}, first, state.sums, Evp, Evp / L);
      first = false;
    }
    if (first) nothing_yet();
  }

  // Brings the result of the next run into that of those before it.
  PYRNN_INLINE static void merge_row(i64 Evp, T* sums, T& most, T& total, const T* next_sums, T next_most,
                                     T next_total) {
    if (next_most == hidden && next_total == 0) return;
    const T now = next_most > most ? next_most : most;
    const T shift = now == hidden ? T(0) : now, old_share = power(most - shift), new_share = power(next_most - shift);
    total = total * old_share + next_total * new_share;
    most = now;
    for (i64 e = 0; e < Evp; e += L)
      store(sums + e, fma(load(sums + e), splat(old_share), load(next_sums + e) * new_share));
  }

  static void finish_row(const A& a, const Row& row, const T* sums, T most, T total, T* out, T* stats) {
    const Vec<T> share = splat(total == 0 ? T(0) : T(1) / total);
    T* o = out + row.place * a.Ev;
    for (i64 e = 0; e < a.Ev; e += L) store(o + e, load(sums + e) * share, a.Ev - e);
    stats[2 * row.place] = most == hidden ? T(0) : most;
    stats[2 * row.place + 1] = total;
  }

  static void attend(const A& a, i64 head, RowBlock block, i64 run0, i64 run1, const T* packed, T* scratch, T* partial,
                     T* out, T* stats) {
    const Head h = head_of(a, head);
    const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev);
    Scratch work{scratch};
    T* q = work.take(row_block * Ep);
    T *sums = work.take(row_block * Evp), *most = work.take(row_block), *total = work.take(row_block);
    State next{work.take(row_block * Evp), work.take(row_block), nullptr};
    next.total = reinterpret_cast<Vec<T>*>(work.take(row_block * L));
    Rows rows;
    take_rows(a, h, block, rows, q);
    run0 = std::max(run0, rows.low / key_run), run1 = std::min(run1, (rows.high + key_run - 1) / key_run);
    bool empty = true;
    for (i64 number = run0; number < run1; ++number) {
      // The first one takes place where the results are to be: the same as merging it into nothing.
      const State state = empty ? State{sums, most, next.total} : next;
      run(a, h, rows, number, q, packed, work, state, false);
      if (!finite(state.sums, rows.count * Evp)) run(a, h, rows, number, q, packed, work, state, true);
      for (int r = 0; r < rows.count; ++r) {
        const T lanes_total = sum<T>(state.total[r]);
        if (empty)
          total[r] = lanes_total;
        else
          merge_row(Evp, sums + r * Evp, most[r], total[r], state.sums + r * Evp, state.most[r], lanes_total);
      }
      empty = false;
    }
    if (empty) {
      std::fill_n(sums, rows.count * Evp, T(0));
      std::fill_n(most, rows.count, hidden);
      std::fill_n(total, rows.count, T(0));
    }
    for (int r = 0; r < rows.count; ++r) {
      if (!partial) {
        finish_row(a, rows.row[r], sums + r * Evp, most[r], total[r], out, stats);
        continue;
      }
      T* p = partial + r * (Evp + 2);
      std::copy_n(sums + r * Evp, Evp, p);
      p[Evp] = most[r], p[Evp + 1] = total[r];
    }
  }

  static void merge(const A& a, i64 head, RowBlock block, i64 runs, T* partials, T* out, T* stats) {
    const i64 Evp = padded<T>(a.Ev), b = head / a.Hk, k = head % a.Hk;
    int r = 0;
    for (i64 g = block.g0; g < block.g1; ++g)
      for (i64 i = block.i0; i < block.i1; ++i, ++r) {
        T* first = partials + r * (Evp + 2);
        for (i64 n = 1; n < runs; ++n) {
          const T* next = first + n * block.rows() * (Evp + 2);
          merge_row(Evp, first, first[Evp], first[Evp + 1], next, next[Evp], next[Evp + 1]);
        }
        Row row{};
        row.place = ((b * a.Hk + k) * a.G + g) * a.S + i;
        finish_row(a, row, first, first[Evp], first[Evp + 1], out, stats);
      }
  }

  // ---- backward

  static void means(const T* dout, const T* out, i64 Ev, i64 begin, i64 end, T* means) {
    constexpr i64 together = 8;  // independent chains
    for (i64 r = begin; r < end; r += together) {
      const i64 n = std::min(together, end - r);
      Vec<T> sums[together] = {};
      for (i64 e = 0; e < Ev; ++e)
        for (i64 i = 0; i < n; ++i) sums[i] = fma(splat(dout[(r + i) * Ev + e]), splat(out[(r + i) * Ev + e]), sums[i]);
      for (i64 i = 0; i < n; ++i) means[r + i] = sums[i][0];
    }
  }

  static i64 grads_scratch_size(const A& a) {
    const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev);
    return row_block * (2 * key_block + Ep + Evp + 2) + key_block * (a.E + a.Ev + 2 * Ep + Evp + 1) + 64 * 16;
  }

  static void take_douts(const A& a, const AttentionGrads<T>& d, const Rows& rows, T* dout) {
    for (int r = 0; r < rows.count; ++r)
      copy_rows(d.dout + rows.row[r].place * a.Ev, a.Ev, 1, a.Ev, dout + r * padded<T>(a.Ev));
  }

  // Scores and their gradients (dout times the values) become exponentials over their sum, and the gradients of what
  // the softmax took. Those of hidden pairs are 0 even where a row's sum is not finite, which other blocks of keys may
  // bring about; `guarded`: the exponentials become -1.
  static void weigh(const A& a, const AttentionGrads<T>& d, const Rows& rows, Part part, bool guarded, T* scores,
                    T* dscores, T* slope) {
    for (int r = 0; r < rows.count; ++r) {
      const Row& row = rows.row[r];
      T *s = scores + r * key_block, *ds = dscores + r * key_block;
      if (!sees_all(a, row, part)) mask(a, row, part, s, slope);
      const T most = d.stats[2 * row.place], total = d.stats[2 * row.place + 1];
      const Vec<T> shift = splat(most), share = splat(total == 0 ? T(0) : T(1) / total),
                   mean = splat(d.means[row.place]);
      for (i64 j = part.begin; j < part.end; j += L) {
        const Vec<T> x = load(s + j), p = exp2<T>(x - shift) * share;
        Vec<T> g = p * (load(ds + j) - mean);
        if (a.softcap > 0) g *= load(slope + j);
        const IntVec<T> off = x == splat(hidden);
        store(s + j, select<T>(off, splat(T(guarded ? -1 : 0)), p));
        store(ds + j, select<T>(off, Vec<T>{}, g));
      }
    }
  }

  // The gradients of a block's keys or values, n of them: gradients[j] = factor * sum_r x[r][j] row[r], zeros outside
  // of the part. Where the block is guarded, p is negative for pairs that are hidden.
  static void give_few(const Rows& rows, Part part, i64 n, const T* x, const T* p, bool guarded, const T* row, i64 E,
                       T factor, T* gradients) {
    const i64 Ep = padded<T>(E);
    std::fill_n(gradients, part.begin * E, T(0));
    for (i64 j = part.begin; j < part.end; ++j)
      for (i64 e = 0; e < E; e += L) {
        Vec<T> sum{};
        for (int r = 0; r < rows.count; ++r)
          if (!guarded || !(p[r * key_block + j] < 0))
            sum = fma(splat(x[r * key_block + j]), load(row + r * Ep + e), sum);
        store(gradients + j * E + e, splat(factor) * sum, E - e);
      }
    std::fill_n(gradients + part.end * E, (n - part.end) * E, T(0));
  }

  // What `seen` keys add to the gradients of queries.
  static void add_queries(const A& a, const AttentionGrads<T>& d, const Rows& rows, i64 seen, const T* p, const T* ds,
                          bool guarded, const T* key, i64 key_row) {
    const i64 Ep = padded<T>(a.E);
    T* dq = d.dquery + rows.row[0].place * Ep;  // a block's rows lie side by side
    if (guarded)
      guarded_multiply(
          rows.count, 0, seen,
          [&](i64 r, i64 j, T& y) { return y = ds[r * key_block + j], !(p[r * key_block + j] < 0); }, key, key_row, dq,
          Ep, Ep / L);
    else
      multiply(rows.count, Along{ds, key_block}, {1, seen, 0}, Panels<T>{key, key_row, L}, false, dq, Ep, Ep / L);
  }

  // Where few rows look at a head, keys and values are read as they lie and their gradients written at once.
  static void grads_few(const A& a, const AttentionGrads<T>& d, i64 head, i64 block, RowBlock rows_of_head, T* scratch,
                        const Turns& turns) {
    const Head h = head_of(a, head);
    const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev), first = block * key_block,
              n = std::min(key_block, a.K - first), place = head * a.K + first;
    Scratch work{scratch};
    T *q = work.take(few * Ep), *dout = work.take(few * Evp), *scores = work.take(few * key_block),
      *dscores = work.take(few * key_block), *slope = work.take(key_block), *filled = work.take(key_block * Ep);
    Rows rows;
    take_rows(a, h, rows_of_head, rows, q);
    take_douts(a, d, rows, dout);
    Part part = part_of(a, rows, block);
    if (part.begin >= part.end) part.begin = part.end = 0;
    const i64 seen = part.end - part.begin;
    const T *key = h.key + first * a.key_row, *value = h.value + first * a.value_row;
    score_few(rows.count, q, key, a.key_row, n, a.E, part, scores);
    score_few(rows.count, dout, value, a.value_row, n, a.Ev, part, dscores);
    // Where these are finite, so is all that they are made of.
    const bool guarded = !finite(scores + part.begin, key_block, rows.count, seen) ||
                         !finite(dscores + part.begin, key_block, rows.count, seen);
    weigh(a, d, rows, part, guarded, scores, dscores, slope);
    give_few(rows, part, n, scores, scores, guarded, dout, a.Ev, T(1), d.dvalue + place * a.Ev);
    give_few(rows, part, n, dscores, scores, guarded, q, a.E, ln2, d.dkey + place * a.E);
    key += part.begin * a.key_row;
    i64 key_row = a.key_row;
    if (a.E % L) {
      copy_rows(key, key_row, seen, a.E, filled);
      key = filled, key_row = Ep;
    }
    turns.wait(0);
    add_queries(a, d, rows, seen, scores + part.begin, dscores + part.begin, guarded, key, key_row);
    turns.done(0);
  }

  static void grads(const A& a, const AttentionGrads<T>& d, i64 head, i64 block, const RowBlock* row_blocks, i64 blocks,
                    T* scratch, const Turns& turns) {
    if (blocks == 1 && a.G * a.S <= few) return grads_few(a, d, head, block, row_blocks[0], scratch, turns);
    const Head h = head_of(a, head);
    const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev), first = block * key_block,
              n = std::min(key_block, a.K - first), place = head * a.K + first;
    Scratch work{scratch};
    T *scores = work.take(row_block * key_block), *dscores = work.take(row_block * key_block);
    T *q = work.take(row_block * Ep), *dout = work.take(row_block * Evp);
    T *panels = work.take(key_block * a.E), *value_panels = work.take(key_block * a.Ev),
      *keys = work.take(key_block * Ep);
    T *dkey = work.take(key_block * Ep), *dvalue = work.take(key_block * Evp), *slope = work.take(key_block);
    std::fill_n(dkey, n * Ep, T(0));
    std::fill_n(dvalue, n * Evp, T(0));
    const T *key = h.key + first * a.key_row, *value = h.value + first * a.value_row;
    bool read = false, keys_finite = true;
    Rows rows;
    for (i64 number = 0; number < blocks; ++number) {
      take_rows(a, h, row_blocks[number], rows, q);
      const Part part = part_of(a, rows, block);
      if (part.begin >= part.end) {
        turns.wait(number);
        turns.done(number);
        continue;
      }
      if (!read) {
        copy_rows(key, a.key_row, n, a.E, keys);
        keys_finite = finite(keys, n * Ep) && finite(value, a.value_row, n, a.Ev);
        pack_keys(a, h, first, 0, n, panels);
        PYRNN_ISA::pack(value, a.value_row, gate, n, a.Ev, 0, groups_of<T>(n), value_panels);
        read = true;
      }
      take_douts(a, d, rows, dout);
      const bool guarded = !keys_finite || !finite(q, rows.count * Ep) || !finite(dout, rows.count * Evp);
      score(rows.count, q, panels, a.E, part, scores);
      score(rows.count, dout, value_panels, a.Ev, part, dscores);
      weigh(a, d, rows, part, guarded, scores, dscores, slope);
      const i64 seen = part.end - part.begin;
      T *p = scores + part.begin, *ds = dscores + part.begin, *dk = dkey + part.begin * Ep,
        *dv = dvalue + part.begin * Evp;
      if (guarded) {
        const auto across = [&](const T* x) {
          return [=](i64 j, i64 r, T& y) { return y = x[r * key_block + j], !(p[r * key_block + j] < 0); };
        };
        guarded_multiply(seen, 0, rows.count, across(p), dout, Evp, dv, Evp, Evp / L);
        guarded_multiply(seen, 0, rows.count, across(ds), q, Ep, dk, Ep, Ep / L);
      } else {
        multiply(int(seen), Across{p, key_block}, {1, rows.count, 0}, Panels<T>{dout, Evp, L}, false, dv, Evp, Evp / L);
        multiply(int(seen), Across{ds, key_block}, {1, rows.count, 0}, Panels<T>{q, Ep, L}, false, dk, Ep, Ep / L);
      }
      turns.wait(number);
      add_queries(a, d, rows, seen, p, ds, guarded, keys + part.begin * Ep, Ep);
      turns.done(number);
    }
    for (i64 j = 0; j < n; ++j) {
      // The queries' log2(e) comes off again.
      for (i64 e = 0; e < a.E; e += L)
        store(d.dkey + (place + j) * a.E + e, splat(ln2) * load(dkey + j * Ep + e), a.E - e);
      for (i64 e = 0; e < a.Ev; e += L) store(d.dvalue + (place + j) * a.Ev + e, load(dvalue + j * Evp + e), a.Ev - e);
    }
  }

  static constexpr AttentionKernels<T> kernels{L,     packed_size,        pack, scratch_size, attend, merge,
                                               means, grads_scratch_size, grads};
};

}  // namespace pyrnn::PYRNN_ISA
