// Additive attention, forward and backward: the tasks of contract.hpp.
//
// Nearly all of the work is tanh(query + key) of every pair and feature. The way back computes it again, which takes no
// longer than to read as many numbers from memory.
//
// Scores: a register is keys side by side, and each score is one chain over the features. Gradients of queries and
// keys: a register is features side by side; a query's gradient is one chain over the keys, a key's one over the
// queries.
#pragma once

#include <algorithm>
#include <limits>

#include "attention/contract.hpp"
#include "attention/products.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct AdditiveLoop : AttentionProducts<T> {
  using typename AttentionProducts<T>::Across, typename AttentionProducts<T>::Along;
  using AttentionProducts<T>::L, AttentionProducts<T>::copy_rows, AttentionProducts<T>::multiply,
      AttentionProducts<T>::pack_keys;

  using A = AdditiveAttention<T>;
  static constexpr i64 chunk = group_block * L;  // keys, or columns, whose panels are made at a time

  // What tasks of rows work in: panels of a chunk of keys or values, weights or their gradients, and results with
  // values beside them where those of Ev features do not fill whole registers.
  struct RowWork {
    T *panels, *weights, *acc, *values;
    RowWork(const A& a, Scratch<T>& from) {
      const i64 Evp = padded<T>(a.Ev);
      panels = from.take(chunk * std::max(a.H, a.Ev));
      weights = from.take(additive_rows * padded<T>(a.K));
      acc = from.take(additive_rows * Evp);
      values = from.take(a.Ev % L ? a.K * Evp : 0);
    }
  };

  // What tasks of columns work in: some columns of keys and their gradients, or of the gradients of results and values.
  struct ColumnWork {
    T *keys, *dkeys;     // [K][L]
    T *douts, *dvalues;  // [S][chunk], [K][chunk]
    ColumnWork(const A& a, Scratch<T>& from) {
      keys = from.take(a.K * L);
      dkeys = from.take(a.K * L);
      douts = from.take(a.S * chunk);
      dvalues = from.take(a.K * chunk);
    }
  };

  static i64 scratch_size(const A& a) {
    Scratch<T> rows, columns;
    RowWork(a, rows);
    ColumnWork(a, columns);
    return std::max(rows.taken, columns.taken);
  }

  // Scores become weights: exponentials over their sum, for the keys [0, length) of `scores`, which has whole
  // registers. All are 0 where all scores are -inf.
  static void softmax(i64 length, T* scores) {
    constexpr T masked = -std::numeric_limits<T>::infinity();
    std::fill(scores + length, scores + padded<T>(length), masked);
    Vec<T> highest = splat(masked), sums{};
    for (i64 j = 0; j < length; j += L) highest = max(load(scores + j), highest);
    const T row_max = reduce_max<T>(highest), shift = row_max == masked ? T(0) : row_max;
    for (i64 j = 0; j < length; j += L) {
      const Vec<T> p = exp<T>(load(scores + j) - splat(shift));
      sums += p;
      store(scores + j, p);
    }
    const T row_sum = sum<T>(sums);
    const Vec<T> total = splat(row_sum == 0 ? T(1) : row_sum);
    for (i64 j = 0; j < length; j += L) store(scores + j, load(scores + j) / total);
  }

  static void attend(const A& a, i64 n, i64 i0, i64 i1, T* scratch, T* out, T* weights) {
    Scratch<T> memory{scratch};
    const RowWork work(a, memory);
    const i64 length = a.length(n), Kp = padded<T>(a.K), Evp = padded<T>(a.Ev);
    const int rows = int(i1 - i0);
    const T *query = a.query + (n * a.S + i0) * a.H, *key = a.key + n * a.K * a.H, *value = a.value + n * a.K * a.Ev;
    for (i64 begin = 0; begin < length; begin += chunk) {
      const i64 end = std::min(begin + chunk, length);
      pack_keys(key + begin * a.H, a.H, end - begin, a.H, 0, end - begin, work.panels);
      for (int r = 0; r < rows; ++r)
        for (i64 j = begin; j < end; j += L) {
          const T *q = query + r * a.H, *panel = work.panels + (j - begin) * a.H;
          Vec<T> score{};
          for (i64 h = 0; h < a.H; ++h)
            score = fma(splat(a.score[h]), tanh<T>(splat(q[h]) + load(panel + h * L)), score);
          store(work.weights + r * Kp + j, score);
        }
    }
    for (int r = 0; r < rows; ++r) softmax(length, work.weights + r * Kp);
    if (a.Ev % L) {
      copy_rows(value, a.Ev, length, a.Ev, work.values);
      value = work.values;
    }
    multiply(rows, Along{work.weights, Kp}, {1, length, 0}, Panels<T>{value, Evp, L}, true, work.acc, Evp, Evp / L);
    for (int r = 0; r < rows; ++r) {
      const i64 row = n * a.S + i0 + r;
      std::copy_n(work.acc + r * Evp, a.Ev, out + row * a.Ev);
      T* const to = weights + row * a.K;
      std::copy_n(work.weights + r * Kp, length, to);
      std::fill(to + length, to + a.K, T(0));
    }
  }

  static void score_grads(const A& a, const AdditiveGrads<T>& d, i64 n, i64 i0, i64 i1, T* scratch) {
    Scratch<T> memory{scratch};
    const RowWork work(a, memory);
    const i64 length = a.length(n), Kp = padded<T>(a.K), row0 = n * a.S + i0;
    const int rows = int(i1 - i0);
    T* const dweights = work.weights;
    for (i64 begin = 0; begin < length; begin += chunk) {
      const i64 end = std::min(begin + chunk, length);
      pack_keys(a.value + (n * a.K + begin) * a.Ev, a.Ev, end - begin, a.Ev, 0, end - begin, work.panels);
      multiply(rows, Along{d.dout + row0 * a.Ev, a.Ev}, {1, a.Ev, 0}, Panels<T>{work.panels, L, a.Ev * L}, true,
               dweights + begin, Kp, groups_of<T>(end - begin));
    }
    for (int r = 0; r < rows; ++r) {
      const T *w = d.weights + (row0 + r) * a.K, *dw = dweights + r * Kp;
      T* const ds = d.dscores + (row0 + r) * Kp;
      Vec<T> sums{};
      for (i64 j = 0; j < length; j += L) sums = fma(load(w + j, length - j), load(dw + j), sums);
      const Vec<T> delta = splat(sum<T>(sums));
      for (i64 j = 0; j < length; j += L) store(ds + j, load(w + j, length - j) * (load(dw + j) - delta));
    }
  }

  static void feature_grads(const A& a, const AdditiveGrads<T>& d, i64 n, i64 group, T* scratch) {
    Scratch<T> memory{scratch};
    const ColumnWork work(a, memory);
    const i64 length = a.length(n), Kp = padded<T>(a.K), h = group * L, width = a.H - h;
    for (i64 j = 0; j < length; ++j) {
      store(work.keys + j * L, load(a.key + (n * a.K + j) * a.H + h, width));
      store(work.dkeys + j * L, Vec<T>{});
    }
    const Vec<T> score = load(a.score + h, width), one = splat(T(1));
    Vec<T> dscore{};
    for (i64 i = 0; i < a.S; ++i) {
      const i64 row = n * a.S + i;
      const T* const ds = d.dscores + row * Kp;
      const Vec<T> query = load(a.query + row * a.H + h, width);
      Vec<T> dquery{}, dscore_of_row{};
      for (i64 j = 0; j < length; ++j) {
        const Vec<T> t = tanh<T>(query + load(work.keys + j * L)), s = splat(ds[j]), dsum = s * fma(-t, t, one);
        dquery += dsum;
        store(work.dkeys + j * L, load(work.dkeys + j * L) + dsum);
        dscore_of_row = fma(s, t, dscore_of_row);
      }
      store(d.dquery + row * a.H + h, score * dquery, width);
      dscore += dscore_of_row;
    }
    store(d.dscore + n * padded<T>(a.H) + h, dscore);
    for (i64 j = 0; j < a.K; ++j)
      store(d.dkey + (n * a.K + j) * a.H + h, j < length ? score * load(work.dkeys + j * L) : Vec<T>{}, width);
  }

  static void value_grads(const A& a, const AdditiveGrads<T>& d, i64 n, i64 part, T* scratch) {
    Scratch<T> memory{scratch};
    const ColumnWork work(a, memory);
    const i64 length = a.length(n), e0 = part * chunk, width = std::min(chunk, a.Ev - e0);
    for (i64 i = 0; i < a.S; ++i)
      for (i64 e = 0; e < width; e += L)
        store(work.douts + i * chunk + e, load(d.dout + (n * a.S + i) * a.Ev + e0 + e, width - e));
    multiply(int(length), Across{d.weights + n * a.S * a.K, a.K}, {1, a.S, 0}, Panels<T>{work.douts, chunk, L}, true,
             work.dvalues, chunk, groups_of<T>(width));
    for (i64 j = 0; j < a.K; ++j) {
      T* const to = d.dvalue + (n * a.K + j) * a.Ev + e0;
      if (j < length)
        std::copy_n(work.dvalues + j * chunk, width, to);
      else
        std::fill_n(to, width, T(0));
    }
  }

  static constexpr AdditiveKernels<T> kernels{L, chunk, scratch_size, attend, score_grads, feature_grads, value_grads};
};

}  // namespace pyrnn::PYRNN_ISA
