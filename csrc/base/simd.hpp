// The vector type, and exp, tanh, sigmoid and log sigmoid on it. The only file that knows an instruction set: what is
// written elsewhere knows no more of it than `lanes`, `registers` and `register_bytes`.
//
// Everything is compiled once per instruction set inside its own namespace (PYRNN_ISA), so that the linker can never
// swap one set's code for another's. Multiply-add is explicit (`fma`); the build switches contraction off, so that a
// formula gives the same bits wherever it is inlined.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

#include "base/integers.hpp"

namespace pyrnn::PYRNN_ISA {

#if defined(__AVX512F__)
inline constexpr int register_bytes = 64, registers = 32;
#elif defined(__AVX2__)
inline constexpr int register_bytes = 32, registers = 16;
#elif defined(__aarch64__)
inline constexpr int register_bytes = 16, registers = 32;
#elif defined(__wasm_simd128__)
inline constexpr int register_bytes = 16, registers = 8;  // so few that code stays small
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

// x - 0 is x for every x (x + 0 is not for -0), so this is a broadcast and nothing else.
template <class T> PYRNN_INLINE Vec<T> splat(T x) { return x - Vec<T>{}; }

// Memory need not be aligned.
template <class T> PYRNN_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Types<T>::Memory*>(p);
}

template <class T> PYRNN_INLINE void store(T* p, Vec<T> v) { *reinterpret_cast<typename Types<T>::Memory*>(p) = v; }

// The first n lanes only (0 < n); the others load as 0 and are not stored. Under a mask where the instruction set has
// cheap ones: a copy of so many bytes is a call.
#if defined(__AVX512F__)
PYRNN_INLINE Vec<float> load_part(const float* p, i64 n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
PYRNN_INLINE Vec<double> load_part(const double* p, i64 n) { return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p); }
PYRNN_INLINE void store_part(float* p, Vec<float> v, i64 n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), v); }
PYRNN_INLINE void store_part(double* p, Vec<double> v, i64 n) { _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), v); }
#else
template <class T> PYRNN_INLINE Vec<T> load_part(const T* p, i64 n) {
  Vec<T> v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(T));
  return v;
}
template <class T> PYRNN_INLINE void store_part(T* p, Vec<T> v, i64 n) {
  std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}
#endif

template <class T> PYRNN_INLINE Vec<T> load(const T* p, i64 n) { return n >= lanes<T> ? load(p) : load_part(p, n); }
template <class T> PYRNN_INLINE void store(T* p, Vec<T> v, i64 n) { n >= lanes<T> ? store(p, v) : store_part(p, v, n); }

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
#elif defined(__wasm_simd128__)
PYRNN_INLINE Vec<float> sqrt(Vec<float> v) { return (Vec<float>)wasm_f32x4_sqrt((v128_t)v); }
PYRNN_INLINE Vec<double> sqrt(Vec<double> v) { return (Vec<double>)wasm_f64x2_sqrt((v128_t)v); }
#else
PYRNN_INLINE Vec<float> sqrt(Vec<float> v) { return _mm_sqrt_ps(v); }
PYRNN_INLINE Vec<double> sqrt(Vec<double> v) { return _mm_sqrt_pd(v); }
#endif

// The nearest whole number, of two as near the even one; NaN and infinity stay.
#if defined(__AVX512F__)
PYRNN_INLINE Vec<float> round(Vec<float> v) { return _mm512_maskz_roundscale_ps(__mmask16(-1), v, 0); }
PYRNN_INLINE Vec<double> round(Vec<double> v) { return _mm512_maskz_roundscale_pd(__mmask8(-1), v, 0); }
#elif defined(__AVX2__)
PYRNN_INLINE Vec<float> round(Vec<float> v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
PYRNN_INLINE Vec<double> round(Vec<double> v) {
  return _mm256_round_pd(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__aarch64__)
PYRNN_INLINE Vec<float> round(Vec<float> v) { return vrndnq_f32(v); }
PYRNN_INLINE Vec<double> round(Vec<double> v) { return vrndnq_f64(v); }
#elif defined(__wasm_simd128__)
PYRNN_INLINE Vec<float> round(Vec<float> v) { return (Vec<float>)wasm_f32x4_nearest((v128_t)v); }
PYRNN_INLINE Vec<double> round(Vec<double> v) { return (Vec<double>)wasm_f64x2_nearest((v128_t)v); }
#else
PYRNN_INLINE Vec<float> round(Vec<float> v) { return _mm_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
PYRNN_INLINE Vec<double> round(Vec<double> v) { return _mm_round_pd(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
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

// Constants. x = n ln2 + r, |r| <= ln2/2, and expm1(r) = r + r^2 exp_poly(r); tanh(x) = x + x^3 tanh_poly(x^2) for
// small x; 2^r = 1 + r exp2_poly(r), |r| <= 1/2. The polynomials are Chebyshev fits (relative error 2e-10, or 2e-18 in
// double; of 2^r 5e-9 and 8e-18). ln2_hi has enough trailing zeros for n * ln2_hi to be exact.
template <class T> struct Constants;
template <> struct Constants<float> {
  static constexpr float log2e = 1.44269504088896341f, ln2_hi = 0.693145751953125f, ln2_lo = 1.42860682030941723e-06f;
  static constexpr float round = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float lowest = -104.f, highest = 89.f;  // where e^x has become 0 and infinity
  static constexpr float tanh_saturates = 10.f, tanh_small = 0.5625f;
  static constexpr float exp_poly[] = {0.000198909908247f, 0.00139336499963f, 0.00833331092548f,
                                       0.0416664649253f,   0.166666666816f,   0.500000001347f};
  static constexpr float exp2_poly[] = {0.000154531629451f, 0.00133908633647f, 0.00961808255728f,
                                        0.0555035711422f,   0.240226507606f,   0.693147188023f};
  static constexpr float tanh_poly[] = {0.00248761464803f, -0.0084992478288f, 0.0218119026084f,
                                        -0.0539640638265f, 0.133333220732f,   -0.333333332839f};
};
template <> struct Constants<double> {
  static constexpr double log2e = 1.44269504088896340736, ln2_hi = 0.693147180369123816490,
                          ln2_lo = 1.90821492927058770002e-10;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double tanh_saturates = 20.0, tanh_small = 0.5625;
  static constexpr double exp_poly[] = {2.0914686968086877233e-9,
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
  static constexpr double exp2_poly[] = {4.4549605981865183938e-10, 7.0725859492692236999e-9, 1.0178062445845773521e-7,
                                         1.3215442587921689653e-6,  1.5252733829836118394e-5, 1.5403530441736050155e-4,
                                         0.001333355814641693531,   0.0096181291076068885273, 0.055504108664821594339,
                                         0.2402265069591009822,     0.69314718055994530942};
  static constexpr double tanh_poly[] = {
      7.6344141851187133225e-6,  -0.000033330620139971521292, 0.000094277788283195029801, -0.00023836459039376215278,
      0.00058987881875023410623, -0.001455814943624965443,    0.0035921263528222338178,   -0.0088632354371203770329,
      0.021869488533130331948,   -0.053968253968202909387,    0.13333333333333299517,     -0.33333333333333333296};
};

// c[0] x^(n-1) + ... + c[n-1]
template <class T, int n> PYRNN_INLINE Vec<T> polynomial(const T (&c)[n], Vec<T> x) {
  Vec<T> p = splat(c[0]);
#pragma GCC unroll 16
  for (int i = 1; i < n; ++i) p = fma(p, x, splat(c[i]));
  return p;
}

template <class T> PYRNN_INLINE Vec<T> select(IntVec<T> mask, Vec<T> yes, Vec<T> no) { return mask ? yes : no; }

// The smaller and the larger of x and a number; NaN stays NaN (x86 gives the second operand back where one is NaN).
#if defined(__AVX512F__)
PYRNN_INLINE Vec<float> min(Vec<float> x, float most) { return _mm512_maskz_min_ps(__mmask16(-1), splat(most), x); }
PYRNN_INLINE Vec<float> max(Vec<float> x, float least) { return _mm512_maskz_max_ps(__mmask16(-1), splat(least), x); }
PYRNN_INLINE Vec<double> min(Vec<double> x, double most) { return _mm512_maskz_min_pd(__mmask8(-1), splat(most), x); }
PYRNN_INLINE Vec<double> max(Vec<double> x, double least) { return _mm512_maskz_max_pd(__mmask8(-1), splat(least), x); }
#elif defined(__AVX2__)
PYRNN_INLINE Vec<float> min(Vec<float> x, float most) { return _mm256_min_ps(splat(most), x); }
PYRNN_INLINE Vec<float> max(Vec<float> x, float least) { return _mm256_max_ps(splat(least), x); }
PYRNN_INLINE Vec<double> min(Vec<double> x, double most) { return _mm256_min_pd(splat(most), x); }
PYRNN_INLINE Vec<double> max(Vec<double> x, double least) { return _mm256_max_pd(splat(least), x); }
#else
template <class V, class T> PYRNN_INLINE V min(V x, T most) { return select<T>(x > splat(most), splat(most), x); }
template <class V, class T> PYRNN_INLINE V max(V x, T least) { return select<T>(x < splat(least), splat(least), x); }
#endif

template <class T> PYRNN_INLINE Vec<T> abs(Vec<T> x) {
  return from_bits<T>(to_bits<T>(x) & ~to_bits<T>(splat(T(-0.0))));
}

// x 2^n for whole numbers n, subnormal results included. Without an instruction for it the power is applied in two
// halves, because either end of the range of n lies outside the normal exponents.
#if defined(__AVX512F__)
template <class T> PYRNN_INLINE Vec<T> scale(Vec<T> x, Vec<T> n) {
  if constexpr (sizeof(T) == 4)
    return _mm512_maskz_scalef_ps(__mmask16(-1), x, n);
  else
    return _mm512_maskz_scalef_pd(__mmask8(-1), x, n);
}
#else
template <class T> PYRNN_INLINE Vec<T> scale(Vec<T> x, Vec<T> n) {
  using C = Constants<T>;
  using Word = typename Types<T>::Word;
  const IntVec<T> whole = to_bits<T>(n + splat(C::round)) - to_bits<T>(splat(C::round)), half = whole >> Word(1);
  auto power = [](IntVec<T> k) { return from_bits<T>((k + Word(C::bias)) << Word(C::mantissa)); };
  return x * power(half) * power(whole - half);
}
#endif

// x = n ln2 + r: returns expm1(r) and leaves n, a whole number.
template <class T> PYRNN_INLINE Vec<T> expm1_reduced(Vec<T> x, Vec<T>& n) {
  using C = Constants<T>;
  n = fma(x, splat(C::log2e), splat(C::round)) - splat(C::round);
  Vec<T> r = fma(n, splat(-C::ln2_hi), x);
  r = fma(n, splat(-C::ln2_lo), r);
  return fma(r * r, polynomial(C::exp_poly, r), r);
}

// e^x; NaN stays NaN, subnormal results included. Error below 1 ULP.
template <class T> PYRNN_INLINE Vec<T> exp(Vec<T> x) {
  using C = Constants<T>;
  x = min(max(x, C::lowest), C::highest);
  Vec<T> n;
  const Vec<T> e = expm1_reduced<T>(x, n) + splat(T(1));
  return scale<T>(e, n);
}

// 2^x for x <= 0; NaN stays NaN, subnormal results included. Error below 1 ULP.
template <class T> PYRNN_INLINE Vec<T> exp2(Vec<T> x) {
  using C = Constants<T>;
  x = max(x, T(-2 * C::bias));  // where it has become 0
  const Vec<T> n = round(x), r = x - n;
  return scale<T>(fma(polynomial(C::exp2_poly, r), r, splat(T(1))), n);
}

// 1 / (1 + e^-x), both sides of the fraction scaled by a power of two so that neither end overflows. Every step is a
// monotone function rounded correctly, hence so is the whole. Error below 2 ULP.
template <class T> PYRNN_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = Constants<T>;
  Vec<T> n;
  const Vec<T> e = expm1_reduced<T>(min(max(-x, C::lowest), -C::lowest), n);
  const Vec<T> one = splat(T(1));
  const Vec<T> numerator = scale<T>(one, -max(n, T(0))), power = scale<T>(one, min(n, T(0)));
  return numerator / (one + fma(power, e, numerator * power));  // the product is the smaller of the two
}

// 1 - 2 / (1 + e^2x), monotone as sigmoid is, and a polynomial for small x, where the slope is steep enough for its
// error not to show. Error below 2 ULP.
template <class T> PYRNN_INLINE Vec<T> tanh(Vec<T> x) {
  using C = Constants<T>;
  const Vec<T> one = splat(T(1)), two = splat(T(2)), magnitude = abs<T>(x), square = x * x;
  Vec<T> n;
  const Vec<T> e = expm1_reduced<T>(two * min(magnitude, C::tanh_saturates), n);
  const Vec<T> power = scale<T>(one, n);
  const Vec<T> large = one - two / fma(power, e, one + power);
  const Vec<T> small = fma(magnitude * square, polynomial(C::tanh_poly, square), magnitude);
  const Vec<T> y = select<T>(magnitude < splat(C::tanh_small), small, large);
  return from_bits<T>(to_bits<T>(y) | (to_bits<T>(x) & to_bits<T>(splat(T(-0.0)))));
}

// log(1 + e) for e in 0..1: 2 atanh(e / (2 + e)), by the series of atanh up to a third. NaN stays NaN.
template <class T> PYRNN_INLINE Vec<T> log1p_of_part(Vec<T> e) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;  // the first that is left out is below a thirtieth of an ULP
  constexpr auto coefficients = []<int... k>(std::integer_sequence<int, k...>) {
    return std::array<T, terms>{T(1) / T(2 * (terms - 1 - k) + 1)...};
  }(std::make_integer_sequence<int, terms>{});
  const Vec<T> s = e / (splat(T(2)) + e), square = s * s;
  Vec<T> p = splat(coefficients[0]);
#pragma GCC unroll 17
  for (int k = 1; k < terms; ++k) p = fma(p, square, splat(coefficients[std::size_t(k)]));
  return s * p + s * p;
}

// log sigmoid(x), finite for finite x.
template <class T> PYRNN_INLINE Vec<T> log_sigmoid(Vec<T> x) {
  return min(x, T(0)) - log1p_of_part<T>(exp<T>(-abs<T>(x)));
}

// Bytes, a register of them. `lookup` takes table[index[i]] for each byte, 0 <= index[i] < 16, from a table of 16 that
// `repeat16` has spread over the register.
typedef std::int8_t Bytes __attribute__((vector_size(register_bytes)));
PYRNN_INLINE Bytes load_bytes(const std::uint8_t* p) {
  Bytes v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
#if defined(__AVX512F__)
PYRNN_INLINE Bytes repeat16(const std::int8_t* table) {
  return (Bytes)_mm512_maskz_broadcast_i32x4(__mmask16(-1), _mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
}
PYRNN_INLINE Bytes lookup(Bytes table, Bytes index) {
  return (Bytes)_mm512_shuffle_epi8((__m512i)table, (__m512i)index);
}
#elif defined(__AVX2__)
PYRNN_INLINE Bytes repeat16(const std::int8_t* table) {
  return (Bytes)_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
}
PYRNN_INLINE Bytes lookup(Bytes table, Bytes index) {
  return (Bytes)_mm256_shuffle_epi8((__m256i)table, (__m256i)index);
}
#elif defined(__aarch64__)
PYRNN_INLINE Bytes repeat16(const std::int8_t* table) { return (Bytes)vld1q_s8(table); }
PYRNN_INLINE Bytes lookup(Bytes table, Bytes index) { return (Bytes)vqtbl1q_s8((int8x16_t)table, (uint8x16_t)index); }
#elif defined(__wasm_simd128__)
PYRNN_INLINE Bytes repeat16(const std::int8_t* table) { return (Bytes)wasm_v128_load(table); }
PYRNN_INLINE Bytes lookup(Bytes table, Bytes index) { return (Bytes)wasm_i8x16_swizzle((v128_t)table, (v128_t)index); }
#else
PYRNN_INLINE Bytes repeat16(const std::int8_t* table) {
  return (Bytes)_mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
}
PYRNN_INLINE Bytes lookup(Bytes table, Bytes index) { return (Bytes)_mm_shuffle_epi8((__m128i)table, (__m128i)index); }
#endif

// The larger of two, lane by lane; the second where one is NaN, as x86 has it.
#if defined(__AVX512F__)
PYRNN_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm512_maskz_max_ps(__mmask16(-1), a, b); }
PYRNN_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm512_maskz_max_pd(__mmask8(-1), a, b); }
#elif defined(__AVX2__)
PYRNN_INLINE Vec<float> max(Vec<float> a, Vec<float> b) { return _mm256_max_ps(a, b); }
PYRNN_INLINE Vec<double> max(Vec<double> a, Vec<double> b) { return _mm256_max_pd(a, b); }
#else
template <class V> PYRNN_INLINE V max(V a, V b) { return a > b ? a : b; }
#endif

// All lanes brought together by an operation of two vectors: halves, quarters and so on.
template <class T, class F> PYRNN_INLINE T reduce(Vec<T> v, F f) {
  constexpr auto rotated = []<int... i>(std::integer_sequence<int, i...>, Vec<T> x, auto by) {
    return __builtin_shufflevector(x, x, ((i + decltype(by)::value) % lanes<T>)...);
  };
  using Lanes = std::make_integer_sequence<int, lanes<T>>;
  if constexpr (lanes<T> > 8) v = f(v, rotated(Lanes{}, v, std::integral_constant<int, 8>{}));
  if constexpr (lanes<T> > 4) v = f(v, rotated(Lanes{}, v, std::integral_constant<int, 4>{}));
  if constexpr (lanes<T> > 2) v = f(v, rotated(Lanes{}, v, std::integral_constant<int, 2>{}));
  return f(v, rotated(Lanes{}, v, std::integral_constant<int, 1>{}))[0];
}

// The largest of all lanes, where none is NaN, and their sum, always in the same order.
template <class T> PYRNN_INLINE T reduce_max(Vec<T> v) {
  return reduce<T>(v, [](Vec<T> a, Vec<T> b) { return max(a, b); });
}
template <class T> PYRNN_INLINE T sum(Vec<T> v) {
  return reduce<T>(v, [](Vec<T> a, Vec<T> b) { return a + b; });
}

// Bytes as a mask: all bits of a lane where its byte is not 0. The first n only (n > 0), the others are 0.
template <class T> PYRNN_INLINE IntVec<T> load_mask(const std::uint8_t* p, i64 n) {
  typedef std::uint8_t Bytes __attribute__((vector_size(lanes<T>)));
  Bytes bytes{};
  if (n >= lanes<T>)
    std::memcpy(&bytes, p, lanes<T>);
  else
    std::memcpy(&bytes, p, std::size_t(n));
#if defined(__AVX2__)  // compilers convert the bytes one lane at a time
  __m128i low{};
  std::memcpy(&low, &bytes, sizeof bytes);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (IntVec<T>)_mm512_maskz_cvtepu8_epi32(__mmask16(-1), low) != 0;
  else
    return (IntVec<T>)_mm512_maskz_cvtepu8_epi64(__mmask8(-1), low) != 0;
#else
  if constexpr (sizeof(T) == 4)
    return (IntVec<T>)_mm256_cvtepu8_epi32(low) != 0;
  else
    return (IntVec<T>)_mm256_cvtepu8_epi64(low) != 0;
#endif
#else
  return __builtin_convertvector(bytes, IntVec<T>) != 0;
#endif
}

// The upper halves of words, with zeros below.
PYRNN_INLINE IntVec<float> upper_halves(IntVec<float> words) {
#if defined(__x86_64__) && !defined(__AVX512F__)  // where a mask would take a register that products have not to spare
  IntVec<float> halves = words >> 16;
  asm("" : "+x"(halves));  // or the compiler takes a mask
  return halves << 16;
#else
  return words & std::int32_t(0xffff0000);
#endif
}

// Sums of products of bytes. A word of each lane holds four weights; a vector of whole numbers from -127 to 127 lies as
// `put` leaves it, and four of them, which are `words` 32-bit words, meet a register of weights: added to each lane is
// the sum of its four products, exactly. Where the instruction takes one factor without a sign, the numbers lie
// `offset` higher than they are.
struct Dot {
#if defined(__AVX512VNNI__) || defined(__ARM_FEATURE_DOTPROD) || !defined(__x86_64__)
  static constexpr int words = 1;
#else
  static constexpr int words = 2;  // of halves: the first and the third, the second and the fourth
#endif
#if defined(__AVX512VNNI__)
  static constexpr int offset = 128;
#else
  static constexpr int offset = 0;
#endif
  using Sums = IntVec<float>;

  // A register of numbers to lanes / 4 * words words.
  static PYRNN_INLINE void put(Sums numbers, std::int32_t* to) {
    constexpr int L = lanes<float>;
    if constexpr (words == 1) {
      typedef std::int8_t Packed __attribute__((vector_size(L)));
      const Packed bytes = __builtin_convertvector(numbers + offset, Packed);
      std::memcpy(to, &bytes, sizeof bytes);
    } else {
      typedef std::int16_t Packed __attribute__((vector_size(2 * L)));
      const Packed halves = [&]<int... i>(std::integer_sequence<int, i...>) {
        const Packed in_order = __builtin_convertvector(numbers, Packed);
        return __builtin_shufflevector(in_order, in_order, (i / 4 * 4 + i % 2 * 2 + i % 4 / 2)...);
      }(std::make_integer_sequence<int, L>{});
      std::memcpy(to, &halves, sizeof halves);
    }
  }

  // Of the numbers' words the one of this `phase`, in all lanes; each phase adds its share.
  static PYRNN_INLINE Sums add(Sums sums, Sums weights, Sums numbers, int phase) {
#if defined(__AVX512VNNI__)
    (void)phase;
    return (Sums)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)numbers, (__m512i)weights);
#elif defined(__ARM_FEATURE_DOTPROD)
    (void)phase;
    return (Sums)vdotq_s32((int32x4_t)sums, (int8x16_t)weights, (int8x16_t)numbers);
#elif defined(__x86_64__)
    typedef std::int16_t Halves __attribute__((vector_size(register_bytes)));
    return sums + times(phase ? (Halves)weights >> 8 : (Halves)weights << 8 >> 8, (Halves)numbers);
#else
    (void)phase;
    for (int i = 0; i < 4; ++i) sums += (weights << (24 - 8 * i) >> 24) * (numbers << (24 - 8 * i) >> 24);
    return sums;
#endif
  }

 private:
#if defined(__AVX512F__)
  template <class Halves> static PYRNN_INLINE Sums times(Halves a, Halves b) {
    return (Sums)_mm512_madd_epi16((__m512i)a, (__m512i)b);
  }
#elif defined(__AVX2__)
  template <class Halves> static PYRNN_INLINE Sums times(Halves a, Halves b) {
    return (Sums)_mm256_madd_epi16((__m256i)a, (__m256i)b);
  }
#elif defined(__x86_64__)
  template <class Halves> static PYRNN_INLINE Sums times(Halves a, Halves b) {
    return (Sums)_mm_madd_epi16((__m128i)a, (__m128i)b);
  }
#endif
};

}  // namespace pyrnn::PYRNN_ISA
