// Attention backward: the gradients through a block of keys, for all blocks of queries of its head.
#pragma once

#include <algorithm>

#include "attention/products.hpp"
#include "attention/rows.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct AttentionBackward : AttentionRows<T>, AttentionProducts<T> {
  using typename AttentionRows<T>::A, typename AttentionRows<T>::Head, typename AttentionRows<T>::QueryRow,
      typename AttentionRows<T>::QueryRows, typename AttentionProducts<T>::Across, typename AttentionProducts<T>::Along;
  using AttentionRows<T>::L, AttentionRows<T>::head_of, AttentionRows<T>::ln2, AttentionRows<T>::load_queries,
      AttentionRows<T>::mask, AttentionRows<T>::masked, AttentionRows<T>::part_of, AttentionRows<T>::sees_all;
  using AttentionProducts<T>::copy_rows, AttentionProducts<T>::few, AttentionProducts<T>::finite,
      AttentionProducts<T>::guarded_multiply, AttentionProducts<T>::multiply, AttentionProducts<T>::pack_keys,
      AttentionProducts<T>::score, AttentionProducts<T>::score_few;

  static void delta(const T* dout, const T* out, i64 Ev, i64 begin, i64 end, T* delta) {
    constexpr i64 chains = 8;  // that do not wait for each other, one for each row
    for (i64 r = begin; r < end; r += chains) {
      const i64 n = std::min(chains, end - r);
      Vec<T> sums[chains] = {};
      for (i64 e = 0; e < Ev; ++e)
        for (i64 i = 0; i < n; ++i) sums[i] = fma(splat(dout[(r + i) * Ev + e]), splat(out[(r + i) * Ev + e]), sums[i]);
      for (i64 i = 0; i < n; ++i) delta[r + i] = sums[i][0];
    }
  }

  // What `grads` works in, for at most `rows` queries at a time.
  struct Work {
    T *queries, *dout, *scores, *dscores, *slope, *keys;
    T *key_panels, *value_panels, *dkey, *dvalue;  // not where there are few rows
    Work(const A& a, i64 rows, Scratch<T>& from) {
      const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev);
      queries = from.take(rows * Ep);
      dout = from.take(rows * Evp);
      scores = from.take(rows * key_block);
      dscores = from.take(rows * key_block);
      slope = from.take(key_block);
      keys = from.take(key_block * Ep);
      key_panels = from.take(key_block * a.E);
      value_panels = from.take(key_block * a.Ev);
      dkey = from.take(key_block * Ep);
      dvalue = from.take(key_block * Evp);
    }
  };

  static i64 scratch_size(const A& a) {
    Scratch<T> counting;
    Work(a, query_block, counting);
    return counting.taken;
  }

  static void load_douts(const A& a, const AttentionGrads<T>& d, const QueryRows& rows, T* dout) {
    for (int r = 0; r < rows.count; ++r)
      copy_rows(d.dout + rows.row[r].place * a.Ev, a.Ev, 1, a.Ev, dout + r * padded<T>(a.Ev));
  }

  // Scores become weights p, and dscores (dout times the values) the gradients of what the softmax took. Both are 0 for
  // pairs that are masked, even where the sum of a row is not finite, which other blocks of keys may bring about; with
  // `guarded` the weights of such pairs are -1.
  static void softmax_grads(const A& a, const AttentionGrads<T>& d, const QueryRows& rows, KeyPart part, bool guarded,
                            T* scores, T* dscores, T* slope) {
    for (int r = 0; r < rows.count; ++r) {
      const QueryRow& row = rows.row[r];
      T *s = scores + r * key_block, *ds = dscores + r * key_block;
      if (!sees_all(a, row, part)) mask(a, row, part, s, slope);
      const T max = d.stats[2 * row.place], sum = d.stats[2 * row.place + 1];
      const Vec<T> shift = splat(max), inverse = splat(sum == 0 ? T(0) : T(1) / sum), delta = splat(d.delta[row.place]);
      for (i64 j = part.begin; j < part.end; j += L) {
        const Vec<T> x = load(s + j), p = exp2<T>(x - shift) * inverse;
        Vec<T> g = p * (load(ds + j) - delta);
        if (a.softcap > 0) g *= load(slope + j);
        const IntVec<T> off = x == splat(masked);
        store(s + j, select<T>(off, splat(T(guarded ? -1 : 0)), p));
        store(ds + j, select<T>(off, Vec<T>{}, g));
      }
    }
  }

  // The gradients of a block's keys or values, n of them: gradients[j] = factor * sum_r x[r][j] row[r], zeros outside
  // of the part. With `guarded`, p is negative for pairs that are masked.
  static void kv_grads_few(const QueryRows& rows, KeyPart part, i64 n, const T* x, const T* p, bool guarded,
                           const T* row, i64 E, T factor, T* gradients) {
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

  // What `count` keys add to the gradients of the queries.
  static void add_query_grads(const A& a, const AttentionGrads<T>& d, const QueryRows& rows, i64 count, const T* p,
                              const T* ds, bool guarded, const T* key, i64 key_row) {
    const i64 Ep = padded<T>(a.E);
    T* dq = d.dquery + rows.row[0].place * Ep;  // a block's rows lie side by side
    if (guarded)
      guarded_multiply(
          rows.count, 0, count,
          [&](i64 r, i64 j, T& y) { return y = ds[r * key_block + j], !(p[r * key_block + j] < 0); }, key, key_row, dq,
          Ep, Ep / L);
    else
      multiply(rows.count, Along{ds, key_block}, {1, count, 0}, Panels<T>{key, key_row, L}, false, dq, Ep, Ep / L);
  }

  // Where few rows look at a head, keys and values are read as they lie and their gradients written at once.
  static void grads_few(const A& a, const AttentionGrads<T>& d, i64 head, i64 block, QueryBlock rows_of_head,
                        T* scratch, const AccumulationOrder& order) {
    const Head h = head_of(a, head);
    const i64 Ep = padded<T>(a.E), first = block * key_block, n = std::min(key_block, a.K - first),
              place = head * a.K + first;
    Scratch<T> memory{scratch};
    const Work work(a, few, memory);
    T *const q = work.queries, *const dout = work.dout, *const scores = work.scores, *const dscores = work.dscores;
    QueryRows rows;
    load_queries(a, h, rows_of_head, rows, q);
    load_douts(a, d, rows, dout);
    KeyPart part = part_of(a, rows, block);
    if (part.begin >= part.end) part.begin = part.end = 0;
    const i64 count = part.end - part.begin;
    const T *key = h.key + first * a.key_row, *value = h.value + first * a.value_row;
    score_few(rows.count, q, key, a.key_row, n, a.E, part, scores);
    score_few(rows.count, dout, value, a.value_row, n, a.Ev, part, dscores);
    // Where these are finite, so is all that they are made of.
    const bool guarded = !finite(scores + part.begin, key_block, rows.count, count) ||
                         !finite(dscores + part.begin, key_block, rows.count, count);
    softmax_grads(a, d, rows, part, guarded, scores, dscores, work.slope);
    kv_grads_few(rows, part, n, scores, scores, guarded, dout, a.Ev, T(1), d.dvalue + place * a.Ev);
    kv_grads_few(rows, part, n, dscores, scores, guarded, q, a.E, ln2, d.dkey + place * a.E);
    key += part.begin * a.key_row;
    i64 key_row = a.key_row;
    if (a.E % L) {
      copy_rows(key, key_row, count, a.E, work.keys);
      key = work.keys, key_row = Ep;
    }
    order.wait(0);
    add_query_grads(a, d, rows, count, scores + part.begin, dscores + part.begin, guarded, key, key_row);
    order.done(0);
  }

  static void grads(const A& a, const AttentionGrads<T>& d, i64 head, i64 block, const QueryBlock* query_blocks,
                    i64 blocks, T* scratch, const AccumulationOrder& order) {
    if (blocks == 1 && a.G * a.S <= few) return grads_few(a, d, head, block, query_blocks[0], scratch, order);
    const Head h = head_of(a, head);
    const i64 Ep = padded<T>(a.E), Evp = padded<T>(a.Ev), first = block * key_block,
              n = std::min(key_block, a.K - first), place = head * a.K + first;
    Scratch<T> memory{scratch};
    const Work work(a, query_block, memory);
    T *const q = work.queries, *const dout = work.dout, *const scores = work.scores, *const dscores = work.dscores;
    std::fill_n(work.dkey, n * Ep, T(0));
    std::fill_n(work.dvalue, n * Evp, T(0));
    const T *key = h.key + first * a.key_row, *value = h.value + first * a.value_row;
    bool read = false, keys_finite = true;
    QueryRows rows;
    for (i64 number = 0; number < blocks; ++number) {
      load_queries(a, h, query_blocks[number], rows, q);
      const KeyPart part = part_of(a, rows, block);
      if (part.begin >= part.end) {
        order.wait(number);
        order.done(number);
        continue;
      }
      if (!read) {
        copy_rows(key, a.key_row, n, a.E, work.keys);
        keys_finite = finite(work.keys, n * Ep) && finite(value, a.value_row, n, a.Ev);
        pack_keys(key, a.key_row, n, a.E, 0, n, work.key_panels);
        pack_keys(value, a.value_row, n, a.Ev, 0, n, work.value_panels);
        read = true;
      }
      load_douts(a, d, rows, dout);
      const bool guarded = !keys_finite || !finite(q, rows.count * Ep) || !finite(dout, rows.count * Evp);
      score(rows.count, q, work.key_panels, a.E, part, scores);
      score(rows.count, dout, work.value_panels, a.Ev, part, dscores);
      softmax_grads(a, d, rows, part, guarded, scores, dscores, work.slope);
      const i64 count = part.end - part.begin;
      T *p = scores + part.begin, *ds = dscores + part.begin, *dk = work.dkey + part.begin * Ep,
        *dv = work.dvalue + part.begin * Evp;
      if (guarded) {
        const auto across = [&](const T* x) {
          return [=](i64 j, i64 r, T& y) { return y = x[r * key_block + j], !(p[r * key_block + j] < 0); };
        };
        guarded_multiply(count, 0, rows.count, across(p), dout, Evp, dv, Evp, Evp / L);
        guarded_multiply(count, 0, rows.count, across(ds), q, Ep, dk, Ep, Ep / L);
      } else {
        multiply(int(count), Across{p, key_block}, {1, rows.count, 0}, Panels<T>{dout, Evp, L}, false, dv, Evp,
                 Evp / L);
        multiply(int(count), Across{ds, key_block}, {1, rows.count, 0}, Panels<T>{q, Ep, L}, false, dk, Ep, Ep / L);
      }
      order.wait(number);
      add_query_grads(a, d, rows, count, p, ds, guarded, work.keys + part.begin * Ep, Ep);
      order.done(number);
    }
    for (i64 j = 0; j < n; ++j) {
      // The log2(e) that queries were multiplied with comes off again.
      for (i64 e = 0; e < a.E; e += L)
        store(d.dkey + (place + j) * a.E + e, splat(ln2) * load(work.dkey + j * Ep + e), a.E - e);
      for (i64 e = 0; e < a.Ev; e += L)
        store(d.dvalue + (place + j) * a.Ev + e, load(work.dvalue + j * Evp + e), a.Ev - e);
    }
  }
};

}  // namespace pyrnn::PYRNN_ISA
