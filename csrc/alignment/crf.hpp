// Linear-chain conditional random fields (Lafferty et al. 2001): sums and the largest over all sequences of tags.
//
// A step sums over pairs of tags as a product with the matrix of e^transitions. Numbers of one step differ by any power
// of two, the product's do not: where a sum comes out so small that terms may have vanished, it is done once more, term
// by term.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "alignment/contract.hpp"
#include "alignment/scaled.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct CrfLoop {
  static constexpr int L = double_lanes;
  static constexpr double small = 1e-250;                 // below it what has vanished, 1e-300 a term, may count
  static constexpr double unit = 18446744073709551616.0;  // 2^64: sums of a row's largest are counted in it

  // Such a sum as a double, which it may be too large for.
  static double in_ones(double sum) {
    constexpr double most = std::numeric_limits<double>::max() / unit;
    return sum == -__builtin_inf() ? sum : std::clamp(sum, -most, most) * unit;
  }

  struct Work {
    Work(Carver& carver, i64 steps, i64 V) : width(round_up(V, L)) {
      for (double** a : {&scores, &m, &e, &powers, &sums}) *a = carver.take<double>(steps * width);
      for (double** a : {&behind_m, &behind_e, &posterior, &product, &terms}) *a = carver.take<double>(width);
    }
    i64 width;
    double* scores;               // [steps, width] less the largest
    double *m, *e;                // [steps, width] all ways to come there
    double* powers;               // [steps, width] the same in units of the largest
    double* sums;                 // [steps, width] of powers, to each tag: 0 where term by term; then posteriors / sums
    double *behind_m, *behind_e;  // [width] all ways to go on from there
    double *posterior, *product, *terms;  // [width]
  };

  static i64 bytes(i64 steps, i64 V) {
    return bytes_of([&](Carver& carver) { Work(carver, steps, V); });
  }

  // ---- weights

  static void weights(const Crf<T>& c, CrfWeights& w) {
    const i64 V = w.V, width = w.width;
    double most = -__builtin_inf();
    for (i64 k = 0; k < V * V; ++k) most = largest_of(most, double(c.transitions[k]));
    w.most = most / unit;
    for (i64 i = 0; i < V; ++i) {
      for (i64 j = 0; j < V; ++j) {
        const double x = double(c.transitions[i * V + j]), d = x - most;
        w.transitions[i * width + j] = x == -__builtin_inf() ? impossible : d < least ? least : d;
      }
      std::fill(w.transitions + i * width + V, w.transitions + (i + 1) * width, impossible);
    }
    w.most_ends = relative(c.start, V, width, w.start) / unit + relative(c.end, V, width, w.end) / unit;
  }
  static void weights_and_powers(const Crf<T>& c, CrfWeights& w) {
    weights(c, w);
    powers(w, false, w.forward, w.column);
    powers(w, true, w.backward, w.row);
  }

  static double largest_of(double a, double b) {
    return b != b || a != a || b == __builtin_inf() ? __builtin_nan("") : std::max(a, b);
  }

  // to[a][b] 2^exponent[b] = e^transitions[a][b], or of [b][a].
  static void powers(const CrfWeights& w, bool transposed, double* to, double* exponent) {
    constexpr double log2e = Constants<double>::log2e;
    const i64 a_step = transposed ? 1 : w.width, b_step = transposed ? w.width : 1;
    for (i64 b = 0; b < w.width; ++b) {
      double most = impossible;
      if (b < w.V)
        for (i64 a = 0; a < w.V; ++a) most = std::max(most, w.transitions[a * a_step + b * b_step]);
      exponent[b] = std::ceil(most * log2e);
      for (i64 a = 0; a < w.V; ++a) {
        const double x = b < w.V ? w.transitions[a * a_step + b * b_step] : 0;
        to[a * w.width + b] = b >= w.V ? 1 : is_impossible(x) ? 0 : std::exp2(x * log2e - exponent[b]);
      }
    }
  }

  // ---- products

  // f.template operator()<B>(j) for blocks of B vectors from column j on, `most` or what is left.
  template <int most, class F> static void in_blocks(i64 width, F f, i64 j = 0) {
    for (; width - j >= most * L; j += most * L) f.template operator()<most>(j);
    if constexpr (most > 1) in_blocks<most - 1>(width, f, j);
  }

  // out[j] (+)= sum_k x[k * step] matrix[k][j]
  static void product(const double* x, i64 step, const double* matrix, i64 width, i64 count, bool add, double* out) {
    in_blocks<8>(width, [&]<int B>(i64 j) {
      Doubles acc[B];
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) acc[b] = add ? load(out + j + b * L) : Doubles{};
      for (i64 k = 0; k < count; ++k) {
        const Doubles value = splat(x[k * step]);
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) acc[b] = fma(value, load(matrix + k * width + j + b * L), acc[b]);
      }
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) store(out + j + b * L, acc[b]);
    });
  }

  // out[j] = max_k x[k] + matrix[k][j]
  static void largest(const double* x, const double* matrix, i64 width, i64 count, double* out) {
    in_blocks<8>(width, [&]<int B>(i64 j) {
      Doubles most[B];
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) most[b] = splat(x[0]) + load(matrix + j + b * L);
      for (i64 k = 1; k < count; ++k) {
        const Doubles value = splat(x[k]);
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) most[b] = max(value + load(matrix + k * width + j + b * L), most[b]);
      }
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) store(out + j + b * L, most[b]);
    });
  }

  // x[k] e^transitions[k * step] for V tags, all in units of the largest, which has number `most`; their sum.
  static double term_by_term(const double* m, const double* e, const double* transitions, i64 step, i64 V,
                             double* terms, i64& most) {
    constexpr double log2e = Constants<double>::log2e;
    most = 0;
    for (i64 k = 1; k < V; ++k)
      if (e[k] + transitions[k * step] * log2e > e[most] + transitions[most * step] * log2e) most = k;
    double total = 0;
    for (i64 k = 0; k < V; ++k) {
      const double exponent = (e[k] - e[most]) + (transitions[k * step] - transitions[most * step]) * log2e;
      total += terms[k] = m[k] * std::exp2(std::clamp(exponent, -2000.0, 1.0));
    }
    return total;
  }

  // to[k] = x[k] in units of 2^(the largest exponent), which is returned.
  static double in_one_unit(const double* m, const double* e, i64 width, double* to) {
    Doubles most = load(e);
    for (i64 k = L; k < width; k += L) most = max(most, load(e + k));
    const double unit = reduce_max<double>(most);
    for (i64 k = 0; k < width; k += L) store(to + k, load(m + k) * power(load(e + k) - splat(unit)));
    return unit;
  }

  static double total(const double* x, i64 width) {
    Doubles sums{};
    for (i64 j = 0; j < width; j += L) sums += load(x + j);
    return PYRNN_ISA::sum<double>(sums);
  }

  // ---- a row

  static void row(const Crf<T>& c, const CrfWeights& w, i64 n, char* memory, double* loss, const Steps<T>& out,
                  CrfGradients* gradients) {
    const i64 steps = c.lengths[n], V = c.V;
    for (i64 t = steps; t < c.steps; ++t) std::fill_n(out.at(t, n), V, T(0));
    *loss = 0;
    if (steps == 0) return;
    Carver carver(memory);
    const Work work(carver, steps, V);
    double shift = w.most_ends + (steps > 1 ? double(steps - 1) * w.most : 0);
    for (i64 t = 0; t < steps; ++t)
      shift += relative(c.scores.at(t, n), V, work.width, work.scores + t * work.width) / unit;
    if (shift != shift) {
      *loss = shift;
      for (i64 t = 0; t < steps; ++t) std::fill_n(out.at(t, n), V, T(shift));
      if (gradients) {
        for (double* ends : {gradients->start, gradients->end}) std::fill_n(ends, V, shift);
        std::fill_n(gradients->others, V * w.width, shift);
      }
      return;
    }
    const double log_partition = forward(w, steps, work);
    *loss = c.tags                         ? log_partition - score(c, w, n, work)
            : is_impossible(log_partition) ? -__builtin_inf()
                                           : in_ones(log_partition / unit + shift);
    backward(c, w, n, work, out, gradients);
  }

  // Of the tags, as the scores and weights are here.
  static double score(const Crf<T>& c, const CrfWeights& w, i64 n, const Work& work) {
    const i64 steps = c.lengths[n];
    double score = w.start[c.tags[n]] + w.end[c.tags[(steps - 1) * c.N + n]];
    for (i64 t = 0; t < steps; ++t) {
      const i64 tag = c.tags[t * c.N + n];
      score += work.scores[t * work.width + tag];
      if (t > 0) score += w.transitions[c.tags[(t - 1) * c.N + n] * w.width + tag];
    }
    return is_impossible(score) ? -__builtin_inf() : score;
  }

  static double forward(const CrfWeights& w, i64 steps, const Work& work) {
    const i64 width = work.width;
    for (i64 t = 0; t < steps; ++t) {
      double *m = work.m + t * width, *e = work.e + t * width, *sums = work.sums + t * width;
      const double* scores = work.scores + t * width;
      if (t == 0)
        for (i64 j = 0; j < width; j += L) store_scaled(m + j, e + j, exp_scaled(load(w.start + j)));
      else
        step(w, m - width, e - width, work.powers + (t - 1) * width, w.forward, w.column, false, work.terms, sums, m,
             e);
      for (i64 j = 0; j < width; j += L)
        store_scaled(m + j, e + j, normalised(load_scaled(m + j, e + j) * exp_scaled(load(scores + j))));
    }
    const double *m = work.m + (steps - 1) * width, *e = work.e + (steps - 1) * width;
    for (i64 j = 0; j < width; j += L)
      store_scaled(work.behind_m + j, work.behind_e + j,
                   normalised(load_scaled(m + j, e + j) * exp_scaled(load(w.end + j))));
    const double unit = in_one_unit(work.behind_m, work.behind_e, width, work.product);
    constexpr double log2 = 0.693147180559945309417;
    return std::log(total(work.product, width)) + unit * log2;
  }

  // From x to to = x e^transitions, or its transpose; the sums of powers, which are x in one unit, are kept.
  static void step(const CrfWeights& w, const double* x_m, const double* x_e, double* powers, const double* matrix,
                   const double* exponents, bool transposed, double* terms, double* sums, double* m, double* e) {
    const double unit = in_one_unit(x_m, x_e, w.width, powers);
    product(powers, 1, matrix, w.width, w.V, false, sums);
    for (i64 j = 0; j < w.width; j += L)
      store_scaled(m + j, e + j, {load(sums + j), splat(unit) + load(exponents + j)});
    const i64 of_to = transposed ? w.width : 1, of_from = transposed ? 1 : w.width;
    for (i64 j = 0; j < w.V; ++j)
      if (sums[j] < small) {
        i64 most;
        const double total = term_by_term(x_m, x_e, w.transitions + j * of_to, of_from, w.V, terms, most);
        const double log2 = w.transitions[j * of_to + most * of_from] * Constants<double>::log2e;
        m[j] = total * std::exp2(log2 - std::floor(log2));
        e[j] = x_e[most] + std::floor(log2);
        sums[j] = 0;
      }
  }

  static void backward(const Crf<T>& c, const CrfWeights& w, i64 n, const Work& work, const Steps<T>& out,
                       CrfGradients* gradients) {
    const i64 steps = c.lengths[n], V = c.V, width = work.width;
    for (i64 j = 0; j < width; j += L) store_scaled(work.behind_m + j, work.behind_e + j, exp_scaled(load(w.end + j)));
    for (i64 t = steps; t-- > 0;) {
      double *m = work.m + t * width, *e = work.e + t * width, *p = work.posterior;
      for (i64 j = 0; j < width; j += L)  // the ways to there are of no more use
        store_scaled(m + j, e + j, load_scaled(m + j, e + j) * load_scaled(work.behind_m + j, work.behind_e + j));
      in_one_unit(m, e, width, p);
      const Doubles inverse = splat(1 / total(p, width));
      for (i64 j = 0; j < width; j += L) store(p + j, load(p + j) * inverse);
      write(c, n, t, p, out.at(t, n));
      if (gradients) {
        const i64 tag = c.tags[t * c.N + n];
        if (t == 0) add_ends(p, tag, V, gradients->start);
        if (t == steps - 1) add_ends(p, tag, V, gradients->end);
        if (t > 0) pairs(c, w, n, t, work, *gradients);
      }
      if (t == 0) break;
      double* behind = work.m + t * width;
      for (i64 j = 0; j < width; j += L)
        store_scaled(behind + j, e + j,
                     normalised(load_scaled(work.behind_m + j, work.behind_e + j) *
                                exp_scaled(load(work.scores + t * width + j))));
      step(w, behind, e, p, w.backward, w.row, true, work.terms, work.product, work.behind_m, work.behind_e);
      for (i64 j = 0; j < width; j += L)
        store_scaled(work.behind_m + j, work.behind_e + j,
                     normalised(load_scaled(work.behind_m + j, work.behind_e + j)));
    }
    if (gradients && steps > 1)
      for (i64 i = 0; i < V; ++i)
        product(work.powers + i, width, work.sums + width, width, steps - 1, true, gradients->products + i * width);
  }

  static void write(const Crf<T>& c, i64 n, i64 t, const double* p, T* out) {
    if (!c.tags) {
      for (i64 j = 0; j < c.V; ++j) out[j] = T(p[j]);
      return;
    }
    const T rows = T(c.N);
    const i64 tag = c.tags[t * c.N + n];
    for (i64 j = 0; j < c.V; ++j) out[j] = T(p[j]) / rows;
    out[tag] = T(p[tag] - 1) / rows;
  }

  static void add_ends(const double* p, i64 tag, i64 V, double* sums) {
    for (i64 j = 0; j < V; ++j) sums[j] += p[j];
    sums[tag] -= 1;
  }

  // The posteriors p of step t among the ways from the step before: the sums become p / sums, what is term by term is
  // added at once.
  static void pairs(const Crf<T>& c, const CrfWeights& w, i64 n, i64 t, const Work& work, const CrfGradients& g) {
    const i64 width = work.width;
    double *sums = work.sums + t * width, *m = work.m + (t - 1) * width, *e = work.e + (t - 1) * width;
    g.others[c.tags[(t - 1) * c.N + n] * width + c.tags[t * c.N + n]] -= 1;
    for (i64 j = 0; j < c.V; ++j)
      if (sums[j] == 0 && work.posterior[j] != 0) {
        i64 most;
        const double total = term_by_term(m, e, w.transitions + j, width, c.V, work.terms, most);
        for (i64 i = 0; i < c.V; ++i) g.others[i * width + j] += work.posterior[j] * (work.terms[i] / total);
      }
    for (i64 j = 0; j < width; j += L) {
      const Doubles sum = load(sums + j);
      const IntVec<double> none = sum == Doubles{};
      store(sums + j,
            select<double>(none, Doubles{}, load(work.posterior + j) / select<double>(none, splat(1.0), sum)));
    }
  }

  static void add_up(const CrfWeights& w, const CrfGradients* g, i64 parts, i64 N, T* dtransitions, T* dstart,
                     T* dend) {
    const i64 V = w.V, width = w.width;
    for (i64 i = 0; i < V; ++i) {
      for (i64 j = 0; j < V; ++j) {
        double products = 0, others = 0;
        for (i64 k = 0; k < parts; ++k) products += g[k].products[i * width + j], others += g[k].others[i * width + j];
        dtransitions[i * V + j] = T((w.forward[i * width + j] * products + others) / double(N));
      }
      double start = 0, end = 0;
      for (i64 k = 0; k < parts; ++k) start += g[k].start[i], end += g[k].end[i];
      dstart[i] = T(start / double(N));
      dend[i] = T(end / double(N));
    }
  }

  // ---- the best sequence (Viterbi 1967)

  struct DecodeWork {
    DecodeWork(Carver& carver, i64 steps, i64 V) : width(round_up(V, L)) {
      for (double** a : {&before, &best}) *a = carver.take<double>(steps * width);
    }
    i64 width;
    double *before, *best;  // [steps, width] of the best sequence that ends there, without its score and with it
  };

  static i64 decode_bytes(i64 steps, i64 V) {
    return bytes_of([&](Carver& carver) { DecodeWork(carver, steps, V); });
  }

  static void decode(const Crf<T>& c, const CrfWeights& w, i64 n, char* memory, const Steps<i64>& tags, double* best) {
    const i64 steps = c.lengths[n], V = c.V;
    for (i64 t = 0; t < c.steps; ++t) *tags.at(t, n) = 0;
    *best = 0;
    if (steps == 0) return;
    Carver carver(memory);
    const DecodeWork work(carver, steps, V);
    const i64 width = work.width;
    double strange = w.most_ends + (steps > 1 ? w.most : 0);
    for (i64 t = 0; t < steps; ++t) {
      double *before = work.before + t * width, *own = work.best + t * width;
      strange += relative(c.scores.at(t, n), V, width, own) / unit;
      if (t == 0)
        std::copy_n(w.start, width, before);
      else
        largest(own - width, w.transitions, width, V, before);
      for (i64 j = 0; j < width; j += L) store(own + j, load(own + j) + load(before + j));
    }
    if (strange != strange) {
      *best = strange;
      return;
    }
    const double* last = work.best + (steps - 1) * width;
    i64 tag = 0;
    for (i64 j = 1; j < V; ++j)
      if (last[j] + w.end[j] > last[tag] + w.end[tag]) tag = j;
    double score = double(c.end[tag]) / unit;
    for (i64 t = steps; t-- > 0;) {
      *tags.at(t, n) = tag;
      score += double(c.scores.at(t, n)[tag]) / unit;
      if (t == 0) break;
      const double *own = work.best + (t - 1) * width, *to = w.transitions + tag, there = work.before[t * width + tag];
      i64 from = 0;  // the first that gives the largest
      while (own[from] + to[from * width] != there) ++from;
      score += double(c.transitions[from * V + tag]) / unit;
      tag = from;
    }
    *best = in_ones(score + double(c.start[tag]) / unit);
  }
};

}  // namespace pyrnn::PYRNN_ISA
