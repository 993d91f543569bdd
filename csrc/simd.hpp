// The vector type, and exp, tanh and sigmoid on it. The only file that knows a register's width.
//
// Everything is compiled once per instruction set inside its own namespace (PYRNN_ISA), so that the linker can never
// swap one set's code for another's. Multiply-add is explicit (`fma`); the build switches contraction off, so that a
// formula gives the same bits wherever it is inlined.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pyrnn::PYRNN_ISA {

using i64 = std::int64_t;

#if defined(__AVX512F__)
inline constexpr int register_bytes = 64, registers = 32;
#elif defined(__AVX2__)
inline constexpr int register_bytes = 32, registers = 16;
#elif defined(__aarch64__)
inline constexpr int register_bytes = 16, registers = 32;
#else
inline constexpr int register_bytes = 16, registers = 16;
#endif

template <class T> struct Types;
template <> struct Types<float> {
  typedef float Vec __attribute__((vector_size(register_bytes)));
  typedef float Memory __attribute__((vector_size(register_bytes), aligned(4), may_alias));
  typedef std::int32_t Int __attribute__((vector_size(register_bytes)));
  using Word = std::int32_t;
};
template <> struct Types<double> {
  typedef double Vec __attribute__((vector_size(register_bytes)));
  typedef double Memory __attribute__((vector_size(register_bytes), aligned(8), may_alias));
  typedef std::int64_t Int __attribute__((vector_size(register_bytes)));
  using Word = std::int64_t;
};

template <class T> using Vec = typename Types<T>::Vec;
template <class T> using IntVec = typename Types<T>::Int;
template <class T> inline constexpr int lanes = register_bytes / int(sizeof(T));

#define PYRNN_INLINE inline __attribute__((always_inline))

// x - 0 is x for every x (x + 0 is not for -0), so this is a broadcast and nothing else.
template <class T> PYRNN_INLINE Vec<T> splat(T x) { return x - Vec<T>{}; }

// Memory need not be aligned.
template <class T> PYRNN_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Types<T>::Memory*>(p);
}

template <class T> PYRNN_INLINE void store(T* p, Vec<T> v) { *reinterpret_cast<typename Types<T>::Memory*>(p) = v; }

// The first n lanes only (0 < n <= lanes); the others load as 0 and are not stored.
template <class T> PYRNN_INLINE Vec<T> load(const T* p, i64 n) {
  if (n >= lanes<T>) return load(p);
  Vec<T> v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(T));
  return v;
}

template <class T> PYRNN_INLINE void store(T* p, Vec<T> v, i64 n) {
  if (n >= lanes<T>) return store(p, v);
  std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}

// a * b + c, rounded once where the instruction set can.
#if defined(__AVX512F__)
PYRNN_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
PYRNN_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__AVX2__)
PYRNN_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
PYRNN_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return _mm256_fmadd_pd(a, b, c); }
#elif defined(__aarch64__)
PYRNN_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return vfmaq_f32(c, a, b); }
PYRNN_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return vfmaq_f64(c, a, b); }
#else
template <class V> PYRNN_INLINE V fma(V a, V b, V c) { return a * b + c; }
#endif

#if defined(__AVX512F__)
PYRNN_INLINE Vec<float> sqrt(Vec<float> v) { return _mm512_maskz_sqrt_ps(__mmask16(-1), v); }
PYRNN_INLINE Vec<double> sqrt(Vec<double> v) { return _mm512_maskz_sqrt_pd(__mmask8(-1), v); }
#elif defined(__AVX2__)
PYRNN_INLINE Vec<float> sqrt(Vec<float> v) { return _mm256_sqrt_ps(v); }
PYRNN_INLINE Vec<double> sqrt(Vec<double> v) { return _mm256_sqrt_pd(v); }
#elif defined(__aarch64__)
PYRNN_INLINE Vec<float> sqrt(Vec<float> v) { return vsqrtq_f32(v); }
PYRNN_INLINE Vec<double> sqrt(Vec<double> v) { return vsqrtq_f64(v); }
#else
PYRNN_INLINE Vec<float> sqrt(Vec<float> v) { return _mm_sqrt_ps(v); }
PYRNN_INLINE Vec<double> sqrt(Vec<double> v) { return _mm_sqrt_pd(v); }
#endif

template <class T> PYRNN_INLINE Vec<T> from_bits(IntVec<T> v) {
  Vec<T> out;
  std::memcpy(&out, &v, sizeof out);
  return out;
}

template <class T> PYRNN_INLINE IntVec<T> to_bits(Vec<T> v) {
  IntVec<T> out;
  std::memcpy(&out, &v, sizeof out);
  return out;
}

// Constants of the exponential: x = n ln2 + r, |r| <= ln2/2, and expm1(r) = r + r^2 poly(r), poly a Chebyshev fit of
// degree 5 (relative error 1e-9) or 10 (2e-18). ln2_hi has enough trailing zeros for n * ln2_hi to be exact.
template <class T> struct ExpConstants;
template <> struct ExpConstants<float> {
  static constexpr float log2e = 1.44269504088896341f, ln2_hi = 0.693145751953125f, ln2_lo = 1.42860682030941723e-06f;
  static constexpr float round = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float lowest = -104.f, highest = 89.f;  // beyond: 0 and infinity
  static constexpr float tanh_saturates = 10.f;
  static constexpr float poly[] = {0.000198909908247f, 0.00139336499963f, 0.00833331092548f,
                                   0.0416664649253f,   0.166666666816f,   0.500000001347f};
};
template <> struct ExpConstants<double> {
  static constexpr double log2e = 1.44269504088896340736, ln2_hi = 0.693147180369123816490,
                          ln2_lo = 1.90821492927058770002e-10;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double tanh_saturates = 20.0;
  static constexpr double poly[] = {2.0914686968086877233e-9,
                                    2.5105217004720745164e-8,
                                    2.7557273643110295328e-7,
                                    2.755725540020642443e-6,
                                    0.000024801587325547741216,
                                    0.00019841269874820625271,
                                    0.0013888888888883748305,
                                    0.0083333333333261351258,
                                    0.041666666666666669755,
                                    0.16666666666666670991,
                                    0.5};
};

// 2^n for integers n whose power is a normal number.
template <class T> PYRNN_INLINE Vec<T> power_of_two(IntVec<T> n) {
  using C = ExpConstants<T>;
  return from_bits<T>((n + typename Types<T>::Word(C::bias)) << typename Types<T>::Word(C::mantissa));
}

// x = n ln2 + r: returns expm1(r) and leaves n.
template <class T> PYRNN_INLINE Vec<T> expm1_reduced(Vec<T> x, IntVec<T>& n) {
  using C = ExpConstants<T>;
  Vec<T> shifted = fma(x, splat(C::log2e), splat(C::round));
  Vec<T> whole = shifted - splat(C::round);
  n = to_bits<T>(shifted) - to_bits<T>(splat(C::round));
  Vec<T> r = fma(whole, splat(-C::ln2_hi), x);
  r = fma(whole, splat(-C::ln2_lo), r);
  Vec<T> p = splat(C::poly[0]);
#pragma GCC unroll 16
  for (int i = 1; i < int(sizeof C::poly / sizeof C::poly[0]); ++i) p = fma(p, r, splat(C::poly[i]));
  return fma(r * r, p, r);
}

template <class T> PYRNN_INLINE Vec<T> select(IntVec<T> mask, Vec<T> yes, Vec<T> no) { return mask ? yes : no; }

template <class T> PYRNN_INLINE Vec<T> absolute(Vec<T> x) {
  return from_bits<T>(to_bits<T>(x) & ~to_bits<T>(splat(T(-0.0))));
}

// e^x; NaN stays NaN, subnormal results included. The power of two is applied in two halves because either end of the
// range of n lies outside the normal exponents.
template <class T> PYRNN_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  x = select<T>(x < splat(C::lowest), splat(C::lowest), x);
  x = select<T>(x > splat(C::highest), splat(C::highest), x);
  IntVec<T> n;
  Vec<T> e = expm1_reduced<T>(x, n) + splat(T(1));
  IntVec<T> half = n >> typename Types<T>::Word(1);
  return e * power_of_two<T>(half) * power_of_two<T>(n - half);
}

// 1 / (1 + e^-x), written so that neither end cancels or overflows.
template <class T> PYRNN_INLINE Vec<T> sigmoid(Vec<T> x) {
  Vec<T> one = splat(T(1)), e = exp<T>(-absolute<T>(x));
  return select<T>(x < splat(T(0)), e, one) / (one + e);
}

// expm1(2|x|) / (expm1(2|x|) + 2) with the sign of x: accurate near 0 without a second formula.
template <class T> PYRNN_INLINE Vec<T> tanh(Vec<T> x) {
  using C = ExpConstants<T>;
  Vec<T> magnitude = absolute<T>(x);
  magnitude = select<T>(magnitude > splat(C::tanh_saturates), splat(C::tanh_saturates), magnitude);
  IntVec<T> n;
  Vec<T> e = expm1_reduced<T>(magnitude + magnitude, n);
  Vec<T> scale = power_of_two<T>(n);
  Vec<T> t = fma(scale, e, scale - splat(T(1)));
  Vec<T> y = t / (t + splat(T(2)));
  IntVec<T> sign = to_bits<T>(splat(T(-0.0)));
  return from_bits<T>(to_bits<T>(y) | (to_bits<T>(x) & sign));
}

// The sum of all lanes, always in the same order.
template <class T> PYRNN_INLINE T sum(Vec<T> v) {
  T total = 0;
  for (int i = 0; i < lanes<T>; ++i) total += v[i];
  return total;
}

}  // namespace pyrnn::PYRNN_ISA
