// Numbers of any size: what sums over paths are made of. A probability of a thousand steps is no double, its logarithm
// loses digits and costs an exponential for every term of a sum; m 2^e does neither.
#pragma once

#include <algorithm>
#include <cstring>

#include "base/simd.hpp"

namespace pyrnn::PYRNN_ISA {

using Doubles = Vec<double>;
inline constexpr int double_lanes = lanes<double>;

// m 2^e with a whole e. `normalised` brings m into 1 <= m < 2; sums and products of a few such may wait for it.
//
// No number is 0. What is impossible has an exponent about `impossible`, which stays the least of all: logarithms of
// what is possible are cut at `least`.
struct Scaled {
  Doubles m, e;
};
inline constexpr double impossible = -1e290, least = -1e280;
PYRNN_INLINE bool is_impossible(double e) { return e < impossible / 2; }

PYRNN_INLINE Scaled load_scaled(const double* m, const double* e) { return {load(m), load(e)}; }
PYRNN_INLINE void store_scaled(double* m, double* e, Scaled x) {
  store(m, x.m);
  store(e, x.e);
}

// 2^k for whole k <= 0; 0 where that is no normal number.
PYRNN_INLINE Doubles power(Doubles k) {
  using C = Constants<double>;
  const Doubles field = max(k, double(-C::bias)) + splat(C::round + C::bias);
  return from_bits<double>(to_bits<double>(field) << C::mantissa);
}

// m > 0
PYRNN_INLINE Scaled normalised(Doubles m, Doubles e) {
  typedef std::uint64_t Bits __attribute__((vector_size(register_bytes)));
  using C = Constants<double>;
  constexpr double unit = 4503599627370496.0;  // 2^52: its low bits count whole numbers
  const Bits bits = (Bits)m, one = (Bits)splat(1.0);
  const Doubles exponent = (Doubles)(bits >> C::mantissa | (Bits)splat(unit)) - splat(unit + C::bias);
  return {(Doubles)((bits & ((std::uint64_t(1) << C::mantissa) - 1)) | one), e + exponent};
}
PYRNN_INLINE Scaled normalised(Scaled x) { return normalised(x.m, x.e); }

// e^x; m within 0.7 to 1.5
PYRNN_INLINE Scaled exp_scaled(Doubles x) {
  using C = Constants<double>;
  x = x * splat(C::log2e);
  const Doubles e = round(x), r = x - e;
  return {fma(polynomial(C::exp2_poly, r), r, splat(1.0)), e};
}

PYRNN_INLINE Scaled operator*(Scaled a, Scaled b) { return {a.m * b.m, a.e + b.e}; }
PYRNN_INLINE Scaled operator+(Scaled a, Scaled b) {
  const Doubles e = max(a.e, b.e);
  return {a.m * power(a.e - e) + b.m * power(b.e - e), e};
}
PYRNN_INLINE Scaled sum(Scaled a, Scaled b, Scaled c) {
  const Doubles e = max(max(a.e, b.e), c.e);
  return {a.m * power(a.e - e) + b.m * power(b.e - e) + c.m * power(c.e - e), e};
}

template <class T> PYRNN_INLINE Doubles as_doubles(const T* x) {
  typedef T Part __attribute__((vector_size(double_lanes * sizeof(T))));
  Part part;
  std::memcpy(&part, x, sizeof part);
  return __builtin_convertvector(part, Doubles);
}

// to[k] = x[k] less the largest, which is returned: NaN where one is NaN or infinity. -infinity is impossible, and so
// is what lies between n and `width`.
template <class T> double relative(const T* x, i64 n, i64 width, double* to) {
  constexpr T infinity = T(__builtin_inf());
  constexpr i64 L = lanes<T>;
  T largest = -infinity;
  bool strange = false;
  if (n >= L) {  // the last vector meets the one before it
    Vec<T> most = load(x + n - L);
    IntVec<T> nan = most != most;
    for (i64 k = 0; k + L < n; k += L) {
      const Vec<T> v = load(x + k);
      most = max(v, most);
      nan |= v != v;
    }
    largest = reduce_max<T>(most);
    strange = reduce_max<T>(select<T>(nan, splat(T(1)), Vec<T>{})) != 0;
  } else
    for (i64 k = 0; k < n; ++k) {
      largest = x[k] > largest ? x[k] : largest;
      strange |= x[k] != x[k];
    }
  const auto less = [](Doubles v, Doubles d) {
    return select<double>(v == splat(-__builtin_inf()), splat(impossible), max(d, splat(least)));
  };
  constexpr i64 D = double_lanes;
  i64 k = 0;
  for (; n >= D && k < n; k += D) {  // the last vector meets the one before it
    const i64 at = std::min(k, n - D);
    const Doubles v = as_doubles(x + at);
    store(to + at, less(v, v - splat(double(largest))));
  }
  for (; k < n; ++k) to[k] = less(splat(double(x[k])), splat(double(x[k]) - double(largest)))[0];
  k = n;
  for (; k < width; ++k) to[k] = impossible;
  return strange || largest == infinity ? __builtin_nan("") : double(largest);
}

}  // namespace pyrnn::PYRNN_ISA
