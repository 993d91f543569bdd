// A norm of one row (stage.hpp): each unit group says what its numbers add up to, and whoever wants those of the whole
// row puts the groups' together, always in the same order.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/panels.hpp"
#include "recurrent/contract.hpp"

namespace pyrnn::PYRNN_ISA {

// Numbers of padded units are set to 0: they would meet weights that are 0, but infinity times 0 is NaN.
template <class T> PYRNN_INLINE Vec<T> without_padding(Vec<T> v, i64 valid) {
  for (i64 i = valid; i < lanes<T>; ++i) v[i] = 0;
  return v;
}

// n = (v - shift) * scale.
template <class T> struct Moments {
  Vec<T> shift, scale;
  PYRNN_INLINE Vec<T> operator()(Vec<T> v) const { return (v - shift) * scale; }
};

// The gradient of v from those of n: scale * (d - mean d - n * mean (d n)).
template <class T> struct MomentsBack {
  Vec<T> shift, along, scale;
  PYRNN_INLINE Vec<T> operator()(Vec<T> d, Vec<T> n) const { return (d - shift - n * along) * scale; }
};

// Of a row of H units, `count` vectors of each group, whose groups leave four numbers each from `at` on, [4][groups].
template <class T> class RowNorm {
  static constexpr int L = lanes<T>;
  enum Number { mean, squares, gradient, product };
  static_assert(product + 1 == norm_numbers);

 public:
  RowNorm(T* at, i64 H, int count) : at(at), H(H), groups(groups_of<T>(H)), count(count) {}

  // Of the vectors v of group g: the mean, and the sum of the squared distances from it.
  void put(i64 g, const T* v) const {
    const i64 valid = std::min<i64>(H - g * L, L);
    const IntVec<T> ours = without_padding<T>(splat(T(1)), valid) != Vec<T>{};
    Vec<T> total{}, squared{};
    for (int i = 0; i < count; ++i) total += select<T>(ours, load(v + i * L), Vec<T>{});
    const T centre = sum<T>(total) / T(count * valid);
    for (int i = 0; i < count; ++i) {
      const Vec<T> distance = select<T>(ours, load(v + i * L) - splat(centre), Vec<T>{});
      squared = fma(distance, distance, squared);
    }
    of(mean)[g] = centre, of(squares)[g] = sum<T>(squared);
  }

  // The sums of the gradients d and of d n; both are 0 in the padding.
  void put_back(i64 g, const T* d, const T* n) const {
    Vec<T> total{}, along{};
    for (int i = 0; i < count; ++i) total += load(d + i * L), along = fma(load(d + i * L), load(n + i * L), along);
    of(gradient)[g] = sum<T>(total), of(product)[g] = sum<T>(along);
  }

  // Of the whole row. The squared distances from its mean are those from the groups' means and those of these.
  Moments<T> moments(T eps) const {
    const T centre = mean_of([&](i64 g) { return sizes(g) * get(mean, g); });
    const T variance = mean_of([&](i64 g) {
      const Vec<T> distance = get(mean, g) - splat(centre);
      return fma(sizes(g) * distance, distance, get(squares, g));
    });
    return {splat(centre), splat(T(1) / std::sqrt(variance + eps))};
  }

  MomentsBack<T> back(T eps) const {
    return {splat(mean_of([&](i64 g) { return get(gradient, g); })),
            splat(mean_of([&](i64 g) { return get(product, g); })), moments(eps).scale};
  }

 private:
  T* of(Number number) const { return at + number * padded<T>(groups); }

  // Of L groups from g on, 0 beyond the last: a number of each, and how many numbers it is of.
  Vec<T> get(Number number, i64 g) const { return without_padding<T>(load(of(number) + g), groups - g); }
  Vec<T> sizes(i64 g) const {
    Vec<T> size = without_padding<T>(splat(T(count * L)), groups - g);
    if (g + L >= groups) size[groups - 1 - g] = T(count * (H - (groups - 1) * L));
    return size;
  }

  template <class F> T mean_of(F f) const {
    Vec<T> total{};
    for (i64 g = 0; g < groups; g += L) total += f(g);
    return sum<T>(total) / T(count * H);
  }

  T* const at;
  const i64 H, groups;
  const int count;
};

}  // namespace pyrnn::PYRNN_ISA
