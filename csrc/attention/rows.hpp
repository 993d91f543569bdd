// The queries of a task, what they may see of a block of keys, and the masks of their scores.
#pragma once

#include <algorithm>
#include <limits>
#include <numbers>

#include "attention/contract.hpp"
#include "base/panels.hpp"

namespace pyrnn::PYRNN_ISA {

// Keys of a block, counted from its first one: [begin, end).
struct KeyPart {
  i64 first, begin, end;  // first: which key the block begins with
};

template <class T> struct AttentionRows {
  static constexpr int L = lanes<T>;
  static constexpr T masked = -std::numeric_limits<T>::infinity();  // the score of a pair that is hidden
  static constexpr T log2e = std::numbers::log2e_v<T>, ln2 = std::numbers::ln2_v<T>;
  static constexpr i64 chunk = group_block * L;  // keys whose panels and values are worked on while they are in L1
  static_assert(key_block % chunk == 0 && key_run % key_block == 0);
  static_assert(query_block % max_rows == 0 && query_block % L == 0);

  using A = Attention<T>;

  struct QueryRow {
    i64 low, high;             // the keys [low, high) that bounds and lengths leave
    i64 place;                 // of its row in the outputs
    const std::uint8_t* seen;  // its row of the mask, if there is one of booleans
    const T* bias;             // and if there is one of numbers
  };

  struct QueryRows {
    int count = 0;
    i64 low, high;  // what is seen by one of them at least lies in [low, high)
    QueryRow row[query_block];
  };

  // A key head of an element of the batch.
  struct Head {
    i64 b, k;
    const T *key, *value;
  };

  PYRNN_INLINE static Head head_of(const A& a, i64 head) {
    const i64 b = head / a.Hk, k = head % a.Hk;
    return {b, k, a.key + a.places[b].key + k * a.key_head, a.value + a.places[b].value + k * a.value_head};
  }

  // The rows of a block; their queries times the scale and log2(e) go to q, [rows][Ep], filled up with zeros.
  static void load_queries(const A& a, const Head& h, QueryBlock block, QueryRows& rows, T* q) {
    const i64 Ep = padded<T>(a.E), length = a.lengths ? a.lengths[h.b] : a.K;
    const i64 low = a.places[h.b].low, high = a.places[h.b].high;
    rows.count = 0, rows.low = a.K, rows.high = 0;
    constexpr T largest =
        std::numeric_limits<T>::max();  // an infinite scale would make NaN of the zeros that fill q up
    const Vec<T> scale = splat(std::clamp(a.scale * log2e, -largest, largest));
    for (i64 g = block.g0; g < block.g1; ++g)
      for (i64 i = block.i0; i < block.i1; ++i) {
        const i64 head = h.k * a.G + g;
        QueryRow& r = rows.row[rows.count];
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

  // What some row may see of a block of keys, from the border of a chunk on; empty where a mask hides all of it.
  static KeyPart part_of(const A& a, const QueryRows& rows, i64 block) {
    const i64 first = block * key_block, n = std::min(key_block, a.K - first);
    KeyPart p{first, std::max<i64>(0, rows.low - first), std::min(n, rows.high - first)};
    p.begin = p.begin / chunk * chunk;
    if (p.begin >= p.end || !(a.seen || a.bias)) return p;
    for (int r = 0; r < rows.count; ++r) {
      const QueryRow& row = rows.row[r];
      const i64 begin = std::max(row.low - first, p.begin), end = std::min(row.high - first, p.end);
      if (begin < end && any_seen(a, row, first + begin, first + end)) return p;
    }
    p.end = p.begin;
    return p;
  }

  static bool any_seen(const A& a, const QueryRow& row, i64 begin, i64 end) {
    if (row.seen) {
      for (i64 j = begin; j < end; ++j)
        if (row.seen[j * a.mask_key]) return true;
    } else {
      for (i64 j = begin; j < end; ++j)
        if (row.bias[j * a.mask_key] != masked) return true;
    }
    return false;
  }

  // True where a row sees every key of a part, the part ends with a whole register, and scores stay as they are.
  PYRNN_INLINE static bool sees_all(const A& a, const QueryRow& row, KeyPart part) {
    return !row.seen && !row.bias && a.softcap == 0 && row.low <= part.first + part.begin &&
           row.high >= part.first + part.end && part.end % L == 0;
  }

  // The soft cap and the masks on a row's scores; `slope` (or null) takes the cap's derivative. A bias that is finite
  // hides nothing, however low: what its product with log2(e) makes -inf stops at the lowest number.
  static void mask(const A& a, const QueryRow& row, KeyPart part, T* s, T* slope) {
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
        store(s + j, select<T>(load_mask<T>(from, n), load(s + j), splat(masked)));
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
        const Vec<T> biased = max(fma(bias, splat(log2e), load(s + j)), std::numeric_limits<T>::lowest());
        store(s + j, select<T>(bias == splat(masked), bias, biased));
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
        store(s + j, select<T>(inside, load(s + j), splat(masked)));
      }
    };
    const i64 clear = std::max(high, part.begin) / L * L;  // from here on not all is below the upper bound
    bound(part.begin, std::min((low + L - 1) / L * L, clear));
    bound(clear, end);
  }
};

}  // namespace pyrnn::PYRNN_ISA
