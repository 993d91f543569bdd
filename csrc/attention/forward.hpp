// Attention forward: the results of a block of queries, over blocks of keys with a running maximum ("online softmax",
// Milakov and Gimelshein 2018, arXiv:1805.02867).
#pragma once

#include <algorithm>

#include "attention/products.hpp"
#include "attention/rows.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct AttentionForward : AttentionRows<T>, AttentionProducts<T> {
  using typename AttentionRows<T>::A, typename AttentionRows<T>::Head, typename AttentionRows<T>::QueryRow,
      typename AttentionRows<T>::QueryRows, typename AttentionProducts<T>::Along;
  using AttentionRows<T>::L, AttentionRows<T>::chunk, AttentionRows<T>::head_of, AttentionRows<T>::load_queries,
      AttentionRows<T>::mask, AttentionRows<T>::masked, AttentionRows<T>::part_of, AttentionRows<T>::sees_all;
  using AttentionProducts<T>::copy_rows, AttentionProducts<T>::few, AttentionProducts<T>::finite,
      AttentionProducts<T>::guarded_multiply, AttentionProducts<T>::multiply, AttentionProducts<T>::pack_keys,
      AttentionProducts<T>::score, AttentionProducts<T>::score_few;

  // What the keys so far have come to, for a block of queries.
  struct Softmax {
    T *acc, *max;  // [rows][Evp] values times exponentials, added up; [query_block] largest scores
    Vec<T>* sum;   // [rows] the sums of exponentials, of every L-th key in each lane
  };

  // The largest of s[part], -inf where all are masked. A NaN is passed over here, and enters the sum of exponentials.
  PYRNN_INLINE static T largest_of(KeyPart part, const T* s) {
    Vec<T> highest[4] = {splat(masked), splat(masked), splat(masked), splat(masked)};
    i64 j = part.begin;
    for (; j + 4 * L <= part.end; j += 4 * L)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) highest[i] = max(load(s + j + i * L), highest[i]);
    for (; j < part.end; j += L) highest[0] = max(load(s + j), highest[0]);
    return reduce_max<T>(max(max(highest[0], highest[1]), max(highest[2], highest[3])));
  }

  PYRNN_INLINE static T exp2_of(T x) { return exp2<T>(splat(x))[0]; }

  // Exponentials in place of the scores, and what has been added up so far brought to the new maximum by alpha. In the
  // first part of a run nothing has been, and all maxima are -inf. `Guarded`: -1 in place of scores that are masked.
  // All rows go through one step before the next one, for a row alone would wait for its maximum.
  template <bool Guarded>
  static void online_softmax(const QueryRows& rows, KeyPart part, bool first, T* scores, Softmax softmax, i64 Evp) {
    alignas(64) T shift[query_block] = {}, alpha[query_block];
    for (int r = 0; r < rows.count; ++r) shift[r] = largest_of(part, scores + r * key_block);
    for (int r = 0; r < rows.count; r += L) {
      const Vec<T> before = load(softmax.max + r), after = max(load(shift + r), before);
      store(softmax.max + r, after);
      store(shift + r, select<T>(after == splat(masked), Vec<T>{}, after));
      store(alpha + r, select<T>(before == after, splat(T(1)), exp2<T>(before - after)));
    }
    for (int r = 0; r < rows.count && !first; ++r) {
      if (alpha[r] == 1) continue;
      softmax.sum[r] *= splat(alpha[r]);
      T* acc = softmax.acc + r * Evp;
      for (i64 e = 0; e < Evp; e += L) store(acc + e, load(acc + e) * splat(alpha[r]));
    }
    for (int r = 0; r < rows.count; ++r) {
      T* s = scores + r * key_block;
      const Vec<T> row_shift = splat(shift[r]);
      Vec<T> sum = first ? Vec<T>{} : softmax.sum[r];
      for (i64 j = part.begin; j < part.end; j += L) {
        const Vec<T> x = load(s + j), p = exp2<T>(x - row_shift);
        sum += p;
        store(s + j, Guarded ? select<T>(x == splat(masked), splat(T(-1)), p) : p);
      }
      softmax.sum[r] = sum;
    }
  }

  // Values are copied before rows are multiplied with them where they do not fill whole registers; and where they do
  // not lie side by side, so that they share few lines of a cache, if there are rows enough to make up for the copy.
  static constexpr i64 rows_for_copies = 32;
  static bool copies_values(const A& a, i64 rows) {
    return a.Ev % L || (a.value_row != a.Ev && rows >= rows_for_copies);
  }

  static i64 packed_size(const A& a) {
    const i64 keys = padded<T>(a.K);
    return keys * a.E + (copies_values(a, a.S * a.G) ? keys * padded<T>(a.Ev) : 0);
  }

  static void pack(const A& a, i64 head, i64 block, T* packed) {
    const Head h = head_of(a, head);
    const i64 first = block * key_block, n = std::min(key_block, a.K - first);
    pack_keys(h.key + first * a.key_row, a.key_row, n, a.E, 0, n, packed + first * a.E);
    if (copies_values(a, a.S * a.G))
      copy_rows(h.value + first * a.value_row, a.value_row, n, a.Ev,
                packed + padded<T>(a.K) * a.E + first * padded<T>(a.Ev));
  }

  // What `attend` works in.
  struct Work {
    T* queries;
    Softmax total, next;  // of the runs so far and of the next one
    T* total_sum;         // [rows] the lanes of total.sum added up
    T *scores, *keys, *values;
    Work(const A& a, Scratch<T>& from) {
      const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev);
      queries = from.take(query_block * Ep);
      total.acc = from.take(query_block * Evp);
      total.max = from.take(query_block);
      total_sum = from.take(query_block);
      next.acc = from.take(query_block * Evp);
      next.max = from.take(query_block);
      total.sum = next.sum = reinterpret_cast<Vec<T>*>(from.take(query_block * L));
      scores = from.take(query_block * key_block);
      keys = from.take(key_block * a.E);
      values = from.take(key_block * Evp);
    }
  };

  static i64 scratch_size(const A& a) {
    Scratch<T> counting;
    Work(a, counting);
    return counting.taken;
  }

  // One run of keys for all rows of a block, from nothing. Keys (as panels) and values come from `packed`, or are
  // packed on the way where it is null.
  static void run(const A& a, const Head& h, const QueryRows& rows, i64 number, const T* packed, const Work& work,
                  Softmax softmax, bool guarded) {
    const i64 Evp = padded<T>(a.Ev);
    T *const q = work.queries, *const scores = work.scores;
    const bool copies = copies_values(a, packed ? a.S * a.G : rows.count);
    const auto begin_at_nothing = [&] {
      std::fill_n(softmax.acc, rows.count * Evp, T(0));
      std::fill_n(softmax.sum, rows.count, Vec<T>{});
    };
    std::fill_n(softmax.max, query_block, masked);  // of all rows that there could be, for whole registers are read
    if (guarded) begin_at_nothing();
    bool first = true;
    const i64 begin = number * key_run / key_block,
              end = std::min((a.K + key_block - 1) / key_block, begin + key_run / key_block);
    for (i64 block = begin; block < end; ++block) {
      const KeyPart part = part_of(a, rows, block);
      if (part.begin >= part.end) continue;
      const T *keys = h.key + part.first * a.key_row, *values = h.value + part.first * a.value_row;
      const i64 n = std::min(key_block, a.K - part.first);
      i64 value_row = a.value_row;
      if (copies) {
        if (!packed)
          copy_rows(values + part.begin * a.value_row, a.value_row, part.end - part.begin, a.Ev,
                    work.values + part.begin * Evp);
        values = packed ? packed + padded<T>(a.K) * a.E + part.first * Evp : work.values;
        value_row = Evp;
      }
      if (packed) {
        score(rows.count, q, packed + part.first * a.E, a.E, part, scores);
      } else if (rows.count <= few) {
        score_few(rows.count, q, keys, a.key_row, a.K - part.first, a.E, part, scores);
      } else {
        for (i64 j = part.begin; j < part.end; j += chunk) {
          const KeyPart piece{part.first, j, std::min(part.end, j + chunk)};
          pack_keys(keys, a.key_row, n, a.E, piece.begin, piece.end, work.keys);
          score(rows.count, q, work.keys, a.E, piece, scores);
        }
      }
      for (int r = 0; r < rows.count; ++r)
        if (!sees_all(a, rows.row[r], part)) mask(a, rows.row[r], part, scores + r * key_block, nullptr);
      if (guarded) {
        online_softmax<true>(rows, part, first, scores, softmax, Evp);
        guarded_multiply(
            rows.count, part.begin, part.end,
            [&](i64 i, i64 k, T& x) { return x = scores[i * key_block + k], !(x < 0); }, values, value_row, softmax.acc,
            Evp, Evp / L);
      } else {
        online_softmax<false>(rows, part, first, scores, softmax, Evp);
        multiply(rows.count, Along{scores + part.begin, key_block}, {1, part.end - part.begin, 0},
                 Panels<T>{values + part.begin * value_row, value_row, L}, first, softmax.acc, Evp, Evp / L);
      }
      first = false;
    }
    if (first) begin_at_nothing();
  }

  // Brings what the next run has come to into what the runs before it have.
  PYRNN_INLINE static void merge_row(i64 Evp, T* acc, T& max, T& sum, const T* next_acc, T next_max, T next_sum) {
    if (next_max == masked && next_sum == 0) return;
    const T largest = next_max > max ? next_max : max;
    const T shift = largest == masked ? T(0) : largest, alpha = exp2_of(max - shift), beta = exp2_of(next_max - shift);
    sum = sum * alpha + next_sum * beta;
    max = largest;
    for (i64 e = 0; e < Evp; e += L) store(acc + e, fma(load(acc + e), splat(alpha), load(next_acc + e) * beta));
  }

  static void finish_row(const A& a, const QueryRow& row, const T* acc, T max, T sum, T* out, T* stats) {
    const Vec<T> inverse = splat(sum == 0 ? T(0) : T(1) / sum);
    T* o = out + row.place * a.Ev;
    for (i64 e = 0; e < a.Ev; e += L) store(o + e, load(acc + e) * inverse, a.Ev - e);
    stats[2 * row.place] = max == masked ? T(0) : max;
    stats[2 * row.place + 1] = sum;
  }

  static void attend(const A& a, i64 head, QueryBlock block, i64 run0, i64 run1, const T* packed, T* scratch,
                     T* partial, T* out, T* stats) {
    const Head h = head_of(a, head);
    const i64 Evp = padded<T>(a.Ev);
    Scratch<T> memory{scratch};
    const Work work(a, memory);
    T *const acc = work.total.acc, *const max = work.total.max, *const total_sum = work.total_sum;
    QueryRows rows;
    load_queries(a, h, block, rows, work.queries);
    run0 = std::max(run0, rows.low / key_run), run1 = std::min(run1, (rows.high + key_run - 1) / key_run);
    bool empty = true;
    for (i64 number = run0; number < run1; ++number) {
      // The first run needs no merging: it takes place where the results are to be.
      const Softmax softmax = empty ? work.total : work.next;
      run(a, h, rows, number, packed, work, softmax, false);
      if (!finite(softmax.acc, rows.count * Evp)) run(a, h, rows, number, packed, work, softmax, true);
      for (int r = 0; r < rows.count; ++r) {
        const T run_sum = sum<T>(softmax.sum[r]);
        if (empty)
          total_sum[r] = run_sum;
        else
          merge_row(Evp, acc + r * Evp, max[r], total_sum[r], softmax.acc + r * Evp, softmax.max[r], run_sum);
      }
      empty = false;
    }
    if (empty) {
      std::fill_n(acc, rows.count * Evp, T(0));
      std::fill_n(max, rows.count, masked);
      std::fill_n(total_sum, rows.count, T(0));
    }
    for (int r = 0; r < rows.count; ++r) {
      if (!partial) {
        finish_row(a, rows.row[r], acc + r * Evp, max[r], total_sum[r], out, stats);
        continue;
      }
      T* p = partial + r * (Evp + 2);
      std::copy_n(acc + r * Evp, Evp, p);
      p[Evp] = max[r], p[Evp + 1] = total_sum[r];
    }
  }

  static void merge(const A& a, i64 head, QueryBlock block, i64 runs, T* partials, T* out, T* stats) {
    const i64 Evp = padded<T>(a.Ev), b = head / a.Hk, k = head % a.Hk;
    int r = 0;
    for (i64 g = block.g0; g < block.g1; ++g)
      for (i64 i = block.i0; i < block.i1; ++i, ++r) {
        T* first = partials + r * (Evp + 2);
        for (i64 n = 1; n < runs; ++n) {
          const T* next = first + n * block.rows() * (Evp + 2);
          merge_row(Evp, first, first[Evp], first[Evp + 1], next, next[Evp], next[Evp + 1]);
        }
        QueryRow row{};
        row.place = ((b * a.Hk + k) * a.G + g) * a.S + i;
        finish_row(a, row, first, first[Evp], first[Evp + 1], out, stats);
      }
  }
};

}  // namespace pyrnn::PYRNN_ISA
