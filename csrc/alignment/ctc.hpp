// Connectionist temporal classification (Graves et al. 2006): the probability of a target, summed over all alignments,
// and its gradient.
//
// Of a target of S ids there are S + 1 blanks, one before each id and one at the end, and the path stays where it is,
// goes on to what is next, or from an id to the next one that differs. Blanks and ids lie in arrays of their own: blank
// i before id i. Lanes beyond the target and states that cannot be reached compute what is impossible from what is
// impossible, so nothing is masked. After t steps ids from t on are not reached, nor are those from which there is no
// time to reach the end: a band of states is left.
#pragma once

#include <algorithm>
#include <cmath>

#include "alignment/contract.hpp"
#include "alignment/scaled.hpp"

namespace pyrnn::PYRNN_ISA {

template <class T> struct CtcLoop {
  static constexpr int L = double_lanes;

  // A number for each blank and each id; [-1] and what lies two vectors beyond them can be read.
  struct States {
    static i64 width(i64 S) { return round_up(S + 1, L) + 4 * L; }
    States(double* memory, i64 S)
        : blank_m(memory + L), blank_e(blank_m + width(S)), id_m(blank_e + width(S)), id_e(id_m + width(S)) {}
    void clear(i64 S) {
      for (double* m : {blank_m, id_m}) std::fill_n(m - L, width(S), 1.0);
      for (double* e : {blank_e, id_e}) std::fill_n(e - L, width(S), impossible);
    }
    Scaled blank(i64 i) const { return load_scaled(blank_m + i, blank_e + i); }
    Scaled id(i64 i) const { return load_scaled(id_m + i, id_e + i); }
    void set(i64 i, Scaled blank, Scaled id) const {
      store_scaled(blank_m + i, blank_e + i, blank);
      store_scaled(id_m + i, id_e + i, id);
    }
    double *blank_m, *blank_e, *id_m, *id_e;
  };

  struct Work {
    Work(Carver& carver, i64 steps, i64 V, i64 S)
        : logs(carver.take<double>(steps * (V + 1))),
          paths(carver.take<double>((steps + 1) * 4 * States::width(S))),
          behind(carver.take<double>(4 * States::width(S))),
          posterior(carver.take<double>(4 * States::width(S))),
          skip(carver.take<double>(States::width(S))),
          chosen(carver.take<double>(States::width(S))),
          ids(carver.take<i64>(States::width(S))) {}
    double* logs;       // [steps, V + 1] log probabilities; the last is impossible
    double* paths;      // [steps + 1] States: all ways to come there, after so many steps
    double* behind;     // States: all ways to go on from there
    double* posterior;  // States
    double* skip;       // 0 where the path may go on from the id before, else impossible
    double* chosen;     // log probabilities of the ids at one step
    i64* ids;           // V beyond the target
  };

  // The states that are looked at in a step, of a row with `steps` and S: [begin, begin + vectors * L).
  struct Band {
    Band(i64 t, i64 steps, i64 S)
        : begin(std::max<i64>(0, S - steps + t)), vectors(ceil_div(std::min(S, t) + 1 - begin, L)) {}
    i64 begin, vectors;
    i64 end() const { return begin + vectors * L; }
  };

  static i64 bytes(i64 steps, i64 V, i64 S) {
    return bytes_of([&](Carver& carver) { Work(carver, steps, V, S); });
  }

  static void row(const Ctc<T>& c, i64 n, char* memory, double* loss, const Steps<T>& dlogits) {
    const i64 steps = c.lengths[n], S = c.target_lengths[n], V = c.V;
    Carver carver(memory);
    const Work work(carver, steps, V, S);
    for (i64 t = steps; t < c.steps; ++t) std::fill_n(dlogits.at(t, n), V, T(0));
    const i64 needed = prepare(c.targets + n * c.S, S, V, work);
    if (needed > steps) {
      for (i64 t = 0; t < steps; ++t) std::fill_n(dlogits.at(t, n), V, T(0));
      *loss = __builtin_inf();
      return;
    }
    bool finite = true;
    for (i64 t = 0; t < steps; ++t) finite &= softmax(c.logits.at(t, n), V, work.logs + t * (V + 1), dlogits.at(t, n));
    *loss = finite ? forward(c, steps, S, work) : __builtin_nan("");
    if (std::isfinite(*loss))
      backward(c, n, steps, S, work, dlogits);
    else
      for (i64 t = 0; t < steps; ++t) std::fill_n(dlogits.at(t, n), V, T(__builtin_nan("")));
  }

  // Returns how many steps the target needs.
  static i64 prepare(const i64* target, i64 S, i64 V, const Work& w) {
    const i64 width = States::width(S);
    std::copy_n(target, S, w.ids);
    std::fill(w.ids + S, w.ids + width, V);
    std::fill_n(w.skip, width, impossible);
    i64 needed = S;
    for (i64 i = 1; i < S; ++i)
      if (target[i] == target[i - 1])
        ++needed;
      else
        w.skip[i] = 0;
    return needed;
  }

  // The probabilities of one step, and their logarithms; false where there are none.
  static bool softmax(const T* x, i64 V, double* logs, T* probabilities) {
    const double largest = relative(x, V, V + 1, logs);
    const Vec<T> shift = splat(T(largest));
    Vec<T> sums{};
    i64 v = 0;
    for (; v + lanes<T> <= V; v += lanes<T>) {
      const Vec<T> e = exp<T>(load(x + v) - shift);
      store(probabilities + v, e);
      sums += e;
    }
    T total = PYRNN_ISA::sum<T>(sums);
    if (v < V) {
      const Vec<T> e = exp<T>(load(x + v, V - v) - shift);
      store(probabilities + v, e, V - v);
      for (i64 i = 0; i < V - v; ++i) total += e[i];
    }
    const T inverse = T(1) / total;
    for (i64 i = 0; i < V; ++i) probabilities[i] *= inverse;
    const double log_total = std::log(double(total));
    for (i64 i = 0; i < V; ++i) logs[i] -= log_total;
    return total >= 1;
  }

  static void choose(const double* logs, const Band& band, const Work& w) {
    for (i64 i = band.begin; i < band.end(); ++i) w.chosen[i] = logs[w.ids[i]];
  }

  static double forward(const Ctc<T>& c, i64 steps, i64 S, const Work& w) {
    const i64 size = 4 * States::width(S);
    States before(w.paths, S);
    before.clear(S);
    before.blank_e[0] = 0;
    for (i64 t = 0; t < steps; ++t) {
      const Band band(t, steps, S);
      const States now(w.paths + (t + 1) * size, S);
      const double* logs = w.logs + t * (c.V + 1);
      choose(logs, band, w);
      const Scaled blank = exp_scaled(splat(logs[c.blank]));
      now.id_m[band.begin - 1] = 1, now.id_e[band.begin - 1] = impossible;
      for (i64 i = band.begin; i < band.end(); i += L) {
        const Scaled same_blank = before.blank(i), same_id = before.id(i), id_before = before.id(i - 1);
        const Scaled skipped{id_before.m, id_before.e + load(w.skip + i)};
        now.set(i, normalised((same_blank + id_before) * blank),
                normalised(sum(same_id, same_blank, skipped) * exp_scaled(load(w.chosen + i))));
      }
      const Scaled none{splat(1.0), splat(impossible)};  // of what comes into the band at the next step
      now.set(band.end(), none, none);
      before = now;
    }
    const double last_id = before.id_e[S - 1], last_blank = before.blank_e[S], e = std::max(last_id, last_blank);
    if (is_impossible(e)) return __builtin_inf();
    const double m = std::ldexp(before.id_m[S - 1], int(std::max(last_id - e, -2000.0))) +
                     std::ldexp(before.blank_m[S], int(std::max(last_blank - e, -2000.0)));
    constexpr double log2 = 0.693147180559945309417;
    return 0 - (std::log(m) + e * log2);
  }

  // dlogits holds the probabilities.
  static void backward(const Ctc<T>& c, i64 n, i64 steps, i64 S, const Work& w, const Steps<T>& dlogits) {
    const i64 size = 4 * States::width(S);
    States behind(w.behind, S);
    behind.clear(S);
    behind.blank_e[S] = 0;
    const States posterior(w.posterior, S);
    const T rows = T(c.N);
    for (i64 t = steps; t-- > 0;) {
      const Band band(t, steps, S);
      const States paths(w.paths + (t + 1) * size, S);
      const double* logs = w.logs + t * (c.V + 1);
      choose(logs, band, w);
      const Scaled blank = exp_scaled(splat(logs[c.blank]));
      Doubles most = splat(2 * impossible);
      for (i64 i = band.begin; i < band.end(); i += L) {
        const Scaled same_id = behind.id(i), next_blank = behind.blank(i + 1), next_id = behind.id(i + 1);
        const Scaled skipped{next_id.m, next_id.e + load(w.skip + i + 1)};
        const Scaled of_blank = behind.blank(i) + same_id, of_id = sum(same_id, next_blank, skipped);
        const Scaled at_blank = paths.blank(i) * of_blank, at_id = paths.id(i) * of_id;
        posterior.set(i, at_blank, at_id);
        most = max(most, max(at_blank.e, at_id.e));
        behind.set(i, normalised(of_blank * blank), normalised(of_id * exp_scaled(load(w.chosen + i))));
      }
      const Doubles shift = splat(reduce_max<double>(most));
      Doubles blanks{}, ids{};
      for (i64 i = band.begin; i < band.end(); i += L) {
        const Scaled at_blank = posterior.blank(i), at_id = posterior.id(i);
        const Doubles p = at_id.m * power(at_id.e - shift);
        blanks += at_blank.m * power(at_blank.e - shift);
        ids += p;
        store(posterior.id_m + i, p);
      }
      const double of_blank = PYRNN_ISA::sum<double>(blanks);
      const double inverse = 1 / (of_blank + PYRNN_ISA::sum<double>(ids));
      T* out = dlogits.at(t, n);
      out[c.blank] -= T(of_blank * inverse);
      for (i64 i = band.begin; i < std::min(band.end(), S); ++i) out[w.ids[i]] -= T(posterior.id_m[i] * inverse);
      for (i64 v = 0; v < c.V; ++v) out[v] /= rows;
    }
  }
};

}  // namespace pyrnn::PYRNN_ISA
