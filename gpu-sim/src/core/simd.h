// A SIMD pack: one quantity of `L` environments. All arithmetic of the core and of task programs is
// written over `Pack<T, L>`, so that the same source becomes AVX-512, AVX2 or plain vector code.
// `Pack<T, 1>` is a plain number without vector extensions: what a CUDA thread computes with.
//
// Every operation acts on each lane alone: no reduction over lanes, no branch that changes a lane's
// value because of a neighbour. `any`/`all` exist for skipping work whose results are discarded.
// Comparisons with NaN are false (except !=).
//
// A translation unit compiled for an instruction set defines SDPG_ISA to its name before including
// this header. The name becomes an inline namespace, so that functions the linker may merge always
// come from one instruction set; headers that build on packs put their templates inside
// `SDPG_ISA_BEGIN ... SDPG_ISA_END` for the same reason, and use no std:: templates in there.
#pragma once

#include <cstdint>

#include "core/fn.h"

#if defined(__x86_64__) && !defined(__CUDACC__)
#include <immintrin.h>
#endif

#ifndef SDPG_ISA
#define SDPG_ISA generic
#endif
#define SDPG_ISA_BEGIN inline namespace SDPG_ISA {
#define SDPG_ISA_END }

namespace sdpg::core {
SDPG_ISA_BEGIN

template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
  using type = std::int32_t;
};
template <>
struct IntegerOf<double> {
  using type = std::int64_t;
};

template <class T, int L>
#if defined(__CUDACC__)
struct Raw;
#else
struct Raw {
  typedef T vector __attribute__((vector_size(sizeof(T) * L)));
  typedef typename IntegerOf<T>::type integers __attribute__((vector_size(sizeof(T) * L)));
};
#endif
template <class T>
struct Raw<T, 1> {
  typedef T vector;
  typedef typename IntegerOf<T>::type integers;
};

// Whether masks live in AVX-512's mask registers rather than in vectors of 0 and -1.
template <class T, int L>
inline constexpr bool kMaskRegister =
#if defined(__AVX512F__) && defined(__AVX512DQ__) && !defined(__CUDACC__)
    sizeof(T) * L == 64;
#else
    false;
#endif

template <class T, int L, bool = kMaskRegister<T, L>>
struct Mask {
  typename Raw<T, L>::integers m;  // 0 or -1
};
template <class T, int L>
struct Mask<T, L, true> {
  std::uint32_t m;  // one bit per lane
};
template <class T>
struct Mask<T, 1, false> {
  bool m;
};

template <class T, int L>
struct Pack {
  using Scalar = T;
  using Vector = typename Raw<T, L>::vector;
  using Integers = typename Raw<T, L>::integers;
  using Bool = Mask<T, L>;
  static constexpr int lanes = L;

  Vector v;

  Pack() = default;
  SDPG_INLINE Pack(Vector x) : v(x) {}
  SDPG_INLINE Pack(T x) : v(x - Vector{}) {}  // broadcast; x - 0 keeps the sign of -0
  SDPG_INLINE T operator[](int lane) const { return v[lane]; }
};
template <class T>
struct Pack<T, 1> {
  using Scalar = T;
  using Vector = T;
  using Integers = typename IntegerOf<T>::type;
  using Bool = Mask<T, 1>;
  static constexpr int lanes = 1;

  T v;

  Pack() = default;
  SDPG_INLINE Pack(T x) : v(x) {}
  SDPG_INLINE T operator[](int) const { return v; }
};
template <class T, int L>
SDPG_INLINE void set_lane(Pack<T, L>& a, int i, T x) {
  if constexpr (L == 1)
    a.v = x;
  else
    a.v[i] = x;
}

// -- memory: `p` is aligned to the pack --------------------------------------------------------

template <class P>
SDPG_INLINE P load(const typename P::Scalar* p) {
  return P(*reinterpret_cast<const typename P::Vector*>(p));
}
template <class T, int L>
SDPG_INLINE void store(T* p, Pack<T, L> a) {
  *reinterpret_cast<typename Pack<T, L>::Vector*>(p) = a.v;
}

// -- arithmetic ----------------------------------------------------------------------------------

#define SDPG_BINARY(op)                                                 \
  template <class T, int L>                                             \
  SDPG_INLINE Pack<T, L> operator op(Pack<T, L> a, Pack<T, L> b) {      \
    return a.v op b.v;                                                  \
  }                                                                     \
  template <class T, int L>                                             \
  SDPG_INLINE Pack<T, L> operator op(Pack<T, L> a, T b) {               \
    return a.v op b;                                                    \
  }                                                                     \
  template <class T, int L>                                             \
  SDPG_INLINE Pack<T, L> operator op(T a, Pack<T, L> b) {               \
    return a op b.v;                                                    \
  }                                                                     \
  template <class T, int L>                                             \
  SDPG_INLINE Pack<T, L>& operator op##=(Pack<T, L>& a, Pack<T, L> b) { \
    a.v = a.v op b.v;                                                   \
    return a;                                                           \
  }                                                                     \
  template <class T, int L>                                             \
  SDPG_INLINE Pack<T, L>& operator op##=(Pack<T, L>& a, T b) {          \
    a.v = a.v op b;                                                     \
    return a;                                                           \
  }
SDPG_BINARY(+)
SDPG_BINARY(-)
SDPG_BINARY(*)
SDPG_BINARY(/)
#undef SDPG_BINARY

template <class T, int L>
SDPG_INLINE Pack<T, L> operator-(Pack<T, L> a) {
  return -a.v;
}

// a * b + c; one rounding where the machine has a fused instruction (the compiler contracts it).
template <class T, int L>
SDPG_INLINE Pack<T, L> muladd(Pack<T, L> a, Pack<T, L> b, Pack<T, L> c) {
  return a.v * b.v + c.v;
}

// -- comparisons and masks -----------------------------------------------------------------------

#if defined(__AVX512F__) && defined(__AVX512DQ__) && !defined(__CUDACC__)
#define SDPG_COMPARE(op, immediate)                                       \
  template <class T, int L>                                               \
  SDPG_INLINE Mask<T, L> operator op(Pack<T, L> a, Pack<T, L> b) {        \
    if constexpr (!kMaskRegister<T, L>) {                                 \
      return {a.v op b.v};                                                \
    } else if constexpr (sizeof(T) == 4) {                                \
      return {_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, immediate)};   \
    } else {                                                              \
      return {_mm512_cmp_pd_mask((__m512d)a.v, (__m512d)b.v, immediate)}; \
    }                                                                     \
  }
#else
#define SDPG_COMPARE(op, immediate)                                \
  template <class T, int L>                                        \
  SDPG_INLINE Mask<T, L> operator op(Pack<T, L> a, Pack<T, L> b) { \
    return {a.v op b.v};                                           \
  }
#endif
SDPG_COMPARE(<, _CMP_LT_OQ)
SDPG_COMPARE(<=, _CMP_LE_OQ)
SDPG_COMPARE(>, _CMP_GT_OQ)
SDPG_COMPARE(>=, _CMP_GE_OQ)
SDPG_COMPARE(==, _CMP_EQ_OQ)
SDPG_COMPARE(!=, _CMP_NEQ_UQ)
#undef SDPG_COMPARE

#define SDPG_COMPARE_SCALAR(op)                           \
  template <class T, int L>                               \
  SDPG_INLINE Mask<T, L> operator op(Pack<T, L> a, T b) { \
    return a op Pack<T, L>(b);                            \
  }
SDPG_COMPARE_SCALAR(<)
SDPG_COMPARE_SCALAR(<=)
SDPG_COMPARE_SCALAR(>)
SDPG_COMPARE_SCALAR(>=)
SDPG_COMPARE_SCALAR(==)
SDPG_COMPARE_SCALAR(!=)
#undef SDPG_COMPARE_SCALAR

template <class T, int L, bool B>
SDPG_INLINE Mask<T, L, B> operator&(Mask<T, L, B> a, Mask<T, L, B> b) {
  if constexpr (L == 1)
    return {a.m && b.m};
  else
    return {a.m & b.m};
}
template <class T, int L, bool B>
SDPG_INLINE Mask<T, L, B> operator|(Mask<T, L, B> a, Mask<T, L, B> b) {
  if constexpr (L == 1)
    return {a.m || b.m};
  else
    return {a.m | b.m};
}
template <class T, int L, bool B>
SDPG_INLINE Mask<T, L, B> operator!(Mask<T, L, B> a) {
  if constexpr (L == 1) {
    return {!a.m};
  } else if constexpr (B) {
    return {~a.m & ((1u << L) - 1)};
  } else {
    return {~a.m};
  }
}
template <class P>
SDPG_INLINE typename P::Bool no_lanes() {
  typename P::Bool out;
  out.m = decltype(out.m){};
  return out;
}
template <class P>
SDPG_INLINE typename P::Bool all_lanes() {
  return !no_lanes<P>();
}

// Bit i is lane i.
template <class T, int L, bool B>
SDPG_INLINE std::uint32_t bits(Mask<T, L, B> a) {
  if constexpr (B) {
    return a.m;
  } else if constexpr (L == 1) {
    return a.m ? 1u : 0u;
  } else {
#if !defined(__CUDACC__)
#if defined(__AVX__)
    if constexpr (sizeof(T) == 4 && L == 8)
      return static_cast<std::uint32_t>(_mm256_movemask_ps((__m256)a.m));
    if constexpr (sizeof(T) == 8 && L == 4)
      return static_cast<std::uint32_t>(_mm256_movemask_pd((__m256d)a.m));
#endif
#if defined(__SSE2__)
    if constexpr (sizeof(T) == 4 && L == 4)
      return static_cast<std::uint32_t>(_mm_movemask_ps((__m128)a.m));
    if constexpr (sizeof(T) == 8 && L == 2)
      return static_cast<std::uint32_t>(_mm_movemask_pd((__m128d)a.m));
#endif
#endif
    std::uint32_t out = 0;
    for (int i = 0; i < L; ++i) out |= (a.m[i] ? 1u : 0u) << i;
    return out;
  }
}
template <class T, int L, bool B>
SDPG_INLINE bool any(Mask<T, L, B> a) {
  return bits(a) != 0;
}
template <class T, int L, bool B>
SDPG_INLINE bool all(Mask<T, L, B> a) {
  return bits(a) == (1u << L) - 1;
}
// The mask whose lane i is bit i.
template <class P>
SDPG_INLINE typename P::Bool from_bits(std::uint32_t b) {
  typename P::Bool out = no_lanes<P>();
  if constexpr (kMaskRegister<typename P::Scalar, P::lanes>) {
    out.m = b;
  } else if constexpr (P::lanes == 1) {
    out.m = (b & 1) != 0;
  } else {
    for (int i = 0; i < P::lanes; ++i) out.m[i] = (b >> i & 1) ? -1 : 0;
  }
  return out;
}

// Lane by lane: mask ? a : b.
template <class T, int L>
SDPG_INLINE Pack<T, L> select(Mask<T, L> mask, Pack<T, L> a, Pack<T, L> b) {
  if constexpr (kMaskRegister<T, L>) {
#if defined(__AVX512F__) && !defined(__CUDACC__)
    if constexpr (sizeof(T) == 4)
      return (typename Pack<T, L>::Vector)_mm512_mask_blend_ps(static_cast<__mmask16>(mask.m),
                                                               (__m512)b.v, (__m512)a.v);
    else
      return (typename Pack<T, L>::Vector)_mm512_mask_blend_pd(static_cast<__mmask8>(mask.m),
                                                               (__m512d)b.v, (__m512d)a.v);
#endif
  } else {
    return mask.m ? a.v : b.v;
  }
}
template <class T, int L>
SDPG_INLINE Pack<T, L> select(Mask<T, L> mask, Pack<T, L> a, T b) {
  return select(mask, a, Pack<T, L>(b));
}
template <class T, int L>
SDPG_INLINE Pack<T, L> select(Mask<T, L> mask, T a, Pack<T, L> b) {
  return select(mask, Pack<T, L>(a), b);
}
// mask ? a : 0, whatever a holds.
template <class T, int L>
SDPG_INLINE Pack<T, L> keep(Mask<T, L> mask, Pack<T, L> a) {
  return select(mask, a, Pack<T, L>(T(0)));
}

// -- elementary functions
// --------------------------------------------------------------------------

// b where either is NaN, as the machine's instruction does.
template <class T, int L>
SDPG_INLINE Pack<T, L> min(Pack<T, L> a, Pack<T, L> b) {
  return select(a < b, a, b);
}
template <class T, int L>
SDPG_INLINE Pack<T, L> max(Pack<T, L> a, Pack<T, L> b) {
  return select(a > b, a, b);
}
template <class T, int L>
SDPG_INLINE Pack<T, L> min(Pack<T, L> a, T b) {
  return min(a, Pack<T, L>(b));
}
template <class T, int L>
SDPG_INLINE Pack<T, L> max(Pack<T, L> a, T b) {
  return max(a, Pack<T, L>(b));
}

// The bits of a pack as integers, and back.
template <class P>
SDPG_INLINE typename P::Integers integer_bits(P a) {
  if constexpr (P::lanes == 1) {
    typename P::Integers out;
    __builtin_memcpy(&out, &a.v, sizeof out);
    return out;
  } else {
    return (typename P::Integers)a.v;
  }
}
template <class P>
SDPG_INLINE P from_integer_bits(typename P::Integers a) {
  if constexpr (P::lanes == 1) {
    P out;
    __builtin_memcpy(&out.v, &a, sizeof a);
    return out;
  } else {
    return P((typename P::Vector)a);
  }
}
// Integers as numbers.
template <class P>
SDPG_INLINE P from_integers(typename P::Integers a) {
#if !defined(__CUDACC__)
  if constexpr (P::lanes > 1)
    return P(__builtin_convertvector(a, typename P::Vector));
  else
#endif
    return P(static_cast<typename P::Scalar>(a));
}
template <class P>
SDPG_INLINE typename P::Integers sign_bit(P a) {
  using I = typename IntegerOf<typename P::Scalar>::type;
  return integer_bits(a) & (I(1) << (8 * sizeof(I) - 1));
}
template <class T, int L>
SDPG_INLINE Pack<T, L> abs(Pack<T, L> a) {
  return from_integer_bits<Pack<T, L>>(integer_bits(a) & ~sign_bit(Pack<T, L>(T(-0.0))));
}
template <class T, int L>
SDPG_INLINE Pack<T, L> copysign(Pack<T, L> magnitude, Pack<T, L> sign) {
  return from_integer_bits<Pack<T, L>>(integer_bits(abs(magnitude)) | sign_bit(sign));
}
template <class T, int L>
SDPG_INLINE Mask<T, L> is_nan(Pack<T, L> a) {
  return a != a;
}

// libm's functions of one number, by precision.
#if defined(__CUDACC__)
#define SDPG_LIBM(name) ::name
#else
#define SDPG_LIBM(name) __builtin_##name
#endif
#define SDPG_SCALAR(name)                                                    \
  SDPG_INLINE float scalar_##name(float x) { return SDPG_LIBM(name##f)(x); } \
  SDPG_INLINE double scalar_##name(double x) { return SDPG_LIBM(name)(x); }
#define SDPG_SCALAR2(name)                                                               \
  SDPG_INLINE float scalar_##name(float x, float y) { return SDPG_LIBM(name##f)(x, y); } \
  SDPG_INLINE double scalar_##name(double x, double y) { return SDPG_LIBM(name)(x, y); }
SDPG_SCALAR(sqrt)
SDPG_SCALAR(floor)
SDPG_SCALAR(sin)
SDPG_SCALAR(cos)
SDPG_SCALAR(exp)
SDPG_SCALAR(log)
SDPG_SCALAR(tanh)
SDPG_SCALAR2(atan2)
SDPG_SCALAR2(pow)
#undef SDPG_SCALAR2
#undef SDPG_SCALAR
#undef SDPG_LIBM

template <class T, int L>
SDPG_INLINE Pack<T, L> sqrt(Pack<T, L> a) {
#if !defined(__CUDACC__)
  using V [[maybe_unused]] = typename Pack<T, L>::Vector;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && L == 16) return (V)_mm512_maskz_sqrt_ps(0xffff, (__m512)a.v);
  if constexpr (sizeof(T) == 8 && L == 8) return (V)_mm512_maskz_sqrt_pd(0xff, (__m512d)a.v);
#endif
#if defined(__AVX__)
  if constexpr (sizeof(T) == 4 && L == 8) return (V)_mm256_sqrt_ps((__m256)a.v);
  if constexpr (sizeof(T) == 8 && L == 4) return (V)_mm256_sqrt_pd((__m256d)a.v);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(T) == 4 && L == 4) return (V)_mm_sqrt_ps((__m128)a.v);
  if constexpr (sizeof(T) == 8 && L == 2) return (V)_mm_sqrt_pd((__m128d)a.v);
#endif
#endif
  Pack<T, L> out;
  for (int i = 0; i < L; ++i) set_lane(out, i, scalar_sqrt(a[i]));
  return out;
}

template <class T, int L>
SDPG_INLINE Pack<T, L> floor(Pack<T, L> a) {
#if !defined(__CUDACC__)
  using V [[maybe_unused]] = typename Pack<T, L>::Vector;
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && L == 16)
    return (V)_mm512_maskz_roundscale_ps(0xffff, (__m512)a.v, 9);
  if constexpr (sizeof(T) == 8 && L == 8)
    return (V)_mm512_maskz_roundscale_pd(0xff, (__m512d)a.v, 9);
#endif
#if defined(__AVX__)
  if constexpr (sizeof(T) == 4 && L == 8) return (V)_mm256_floor_ps((__m256)a.v);
  if constexpr (sizeof(T) == 8 && L == 4) return (V)_mm256_floor_pd((__m256d)a.v);
#endif
#endif
  Pack<T, L> out;
  for (int i = 0; i < L; ++i) set_lane(out, i, scalar_floor(a[i]));
  return out;
}

// -- transcendental functions
// ---------------------------------------------------------------------- float: polynomials of the
// Cephes library (S. L. Moshier) after a reduction of the argument; at most about 3 units in the
// last place (tests/core/simd_test.cc). Double: sine and cosine likewise, the rest through libm
// lane by lane, because only parity runs use it.

// Rare arguments too large for the reduction; out of line to keep the fast path small.
template <class P>
#if defined(__CUDACC__)
__host__ __device__
#endif
    __attribute__((noinline)) void
    sincos_large(const P& x, P* s, P* c) {
  for (int i = 0; i < P::lanes; ++i) {
    set_lane(*s, i, scalar_sin(x[i]));
    set_lane(*c, i, scalar_cos(x[i]));
  }
}

template <class T, int L>
SDPG_INLINE void sincos(Pack<T, L> x, Pack<T, L>* sine, Pack<T, L>* cosine) {
  using P = Pack<T, L>;
  using I = typename P::Integers;
  constexpr bool single = sizeof(T) == 4;
  // Adding 1.5 * 2^(mantissa bits) rounds to an integer and leaves it in the low bits.
  constexpr T magic = single ? T(12582912.0) : T(6755399441055744.0);
  constexpr T limit = single ? T(8192) : T(1e6);
  const P shifted = x * P(T(0.63661977236758134308)) + P(magic);
  const P q = shifted - magic;
  const I quadrant = integer_bits(shifted);
  // pi/2 in three parts whose products with q are exact (Cody and Waite).
  P r;
  if constexpr (single) {
    r = x - q * P(T(1.5703125));
    r = r - q * P(T(4.837512969970703125e-4));
    r = r - q * P(T(7.54978995489188216e-8));
  } else {
    r = x - q * P(T(1.57079625129699707031));
    r = r - q * P(T(7.54978941586159635335e-8));
    r = r - q * P(T(5.39030285815811905290e-15));
  }
  const P z = r * r;
  P s, c;
  if constexpr (single) {
    s = (P(T(-1.9515295891e-4)) * z + P(T(8.3321608736e-3))) * z - P(T(1.6666654611e-1));
    c = (P(T(2.443315711809948e-5)) * z - P(T(1.388731625493765e-3))) * z +
        P(T(4.166664568298827e-2));
  } else {
    s = P(T(1.58962301576546568060e-10));
    s = s * z - P(T(2.50507477628578072866e-8));
    s = s * z + P(T(2.75573136213857245213e-6));
    s = s * z - P(T(1.98412698295895385996e-4));
    s = s * z + P(T(8.33333333332211858878e-3));
    s = s * z - P(T(1.66666666666666307295e-1));
    c = P(T(-1.13585365213876817300e-11));
    c = c * z + P(T(2.08757008419747316778e-9));
    c = c * z - P(T(2.75573141792967388112e-7));
    c = c * z + P(T(2.48015872888517045348e-5));
    c = c * z - P(T(1.38888888888730564116e-3));
    c = c * z + P(T(4.16666666666665929218e-2));
  }
  s = s * z * r + r;
  c = c * z * z + (P(T(1)) - z * P(T(0.5)));
  const I odd = -(quadrant & 1);
  constexpr int top = 8 * sizeof(T) - 2;
  const I s_bits = (integer_bits(s) & ~odd) | (integer_bits(c) & odd);
  const I c_bits = (integer_bits(c) & ~odd) | (integer_bits(s) & odd);
  *sine = from_integer_bits<P>(s_bits ^ ((quadrant & 2) << top));
  *cosine = from_integer_bits<P>(c_bits ^ (((quadrant + 1) & 2) << top));
  const auto large = abs(x) > limit;
  if (__builtin_expect(any(large), 0)) {
    P sl = P(T(0)), cl = P(T(0));
    sincos_large(x, &sl, &cl);
    *sine = select(large, sl, *sine);
    *cosine = select(large, cl, *cosine);
  }
}
template <class T, int L>
SDPG_INLINE Pack<T, L> sin(Pack<T, L> x) {
  Pack<T, L> s, c;
  sincos(x, &s, &c);
  return s;
}
template <class T, int L>
SDPG_INLINE Pack<T, L> cos(Pack<T, L> x) {
  Pack<T, L> s, c;
  sincos(x, &s, &c);
  return c;
}

template <class T, int L>
SDPG_INLINE Pack<T, L> exp(Pack<T, L> x) {
  using P = Pack<T, L>;
  if constexpr (sizeof(T) == 8) {
    P out;
    for (int i = 0; i < L; ++i) set_lane(out, i, scalar_exp(x[i]));
    return out;
  } else {
    using I = typename P::Integers;
    // Outside these bounds the result is 0 or infinity anyway; NaN passes both selections.
    x = select(x > T(89), T(89), x);
    x = select(x < T(-104), T(-104), x);
    const P shifted = x * P(T(1.44269504088896341)) + P(T(12582912.0));
    const P n = shifted - T(12582912.0);
    P r = x - n * P(T(0.693359375));
    r = r + n * P(T(2.12194440e-4));
    P y = P(T(1.9875691500e-4));
    y = y * r + P(T(1.3981999507e-3));
    y = y * r + P(T(8.3334519073e-3));
    y = y * r + P(T(4.1665795894e-2));
    y = y * r + P(T(1.6666665459e-1));
    y = y * r + P(T(5.0000001201e-1));
    y = y * r * r + r + P(T(1));
    // 2^n in two factors, so that subnormal results and infinity come out right.
    const I k = integer_bits(shifted) - integer_bits(P(T(12582912.0)));
    const I half = k >> 1;
    const P first = from_integer_bits<P>((half + 127) << 23);
    const P second = from_integer_bits<P>((k - half + 127) << 23);
    return y * first * second;
  }
}

template <class T, int L>
SDPG_INLINE Pack<T, L> log(Pack<T, L> x) {
  using P = Pack<T, L>;
  if constexpr (sizeof(T) == 8) {
    P out;
    for (int i = 0; i < L; ++i) set_lane(out, i, scalar_log(x[i]));
    return out;
  } else {
    using I = typename P::Integers;
    const auto subnormal = x < T(1.17549435e-38f);
    const P scaled = select(subnormal, x * P(T(8388608)), x);
    const I raw = integer_bits(scaled);
    const I exponent = ((raw >> 23) & 255) - 126;
    P e = from_integers<P>(exponent) - select(subnormal, T(23), P(T(0)));
    P m = from_integer_bits<P>((raw & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
    const auto small = m < T(0.707106781186547524);
    e = select(small, e - T(1), e);
    m = select(small, m + m, m) - T(1);
    const P z = m * m;
    P y = P(T(7.0376836292e-2));
    y = y * m - P(T(1.1514610310e-1));
    y = y * m + P(T(1.1676998740e-1));
    y = y * m - P(T(1.2420140846e-1));
    y = y * m + P(T(1.4249322787e-1));
    y = y * m - P(T(1.6668057665e-1));
    y = y * m + P(T(2.0000714765e-1));
    y = y * m - P(T(2.4999993993e-1));
    y = y * m + P(T(3.3333331174e-1));
    y = y * m * z;
    y = y - e * P(T(2.12194440e-4)) - z * P(T(0.5));
    P out = m + y + e * P(T(0.693359375));
    const T infinity = T(__builtin_inff());
    out = select(x == infinity, x, out);
    out = select(x == T(0), -infinity, out);
    return select((x < T(0)) | is_nan(x), T(__builtin_nanf("")), out);
  }
}

// Angle of the point (x, y), in [-pi, pi]; signed zeros and infinities as in C.
template <class T, int L>
SDPG_INLINE Pack<T, L> atan2(Pack<T, L> y, Pack<T, L> x) {
  using P = Pack<T, L>;
  if constexpr (sizeof(T) == 8) {
    P out;
    for (int i = 0; i < L; ++i) set_lane(out, i, scalar_atan2(y[i], x[i]));
    return out;
  } else {
    const P ay = abs(y), ax = abs(x);
    const auto steep = ay > ax;
    const P low = select(steep, ax, ay), high = select(steep, ay, ax);
    P t = low / high;
    t = select(high == T(0), T(0), t);
    t = select(low == T(__builtin_inff()), T(1), t);
    const auto outer = t > T(0.4142135623730950);
    const P u = select(outer, (t - T(1)) / (t + T(1)), t);
    const P z = u * u;
    P r = P(T(8.05374449538e-2));
    r = r * z - P(T(1.38776856032e-1));
    r = r * z + P(T(1.99777106478e-1));
    r = r * z - P(T(3.33329491539e-1));
    r = r * z * u + u;
    r = select(outer, r + T(0.785398163397448309), r);
    r = select(steep, T(1.57079632679489662) - r, r);
    const P negative_x = from_integer_bits<P>(sign_bit(x) | integer_bits(P(T(1))));
    r = select(negative_x < T(0), T(3.14159265358979324) - r, r);
    r = copysign(r, y);
    return select(is_nan(x) | is_nan(y), x + y, r);
  }
}

template <class T, int L>
SDPG_INLINE Pack<T, L> tanh(Pack<T, L> x) {
  using P = Pack<T, L>;
  if constexpr (sizeof(T) == 8) {
    P out;
    for (int i = 0; i < L; ++i) set_lane(out, i, scalar_tanh(x[i]));
    return out;
  } else {
    const P a = abs(x);
    const P z = x * x;
    P y = P(T(-5.70498872745e-3));
    y = y * z + P(T(2.06390887954e-2));
    y = y * z - P(T(5.37397155531e-2));
    y = y * z + P(T(1.33314422036e-1));
    y = y * z - P(T(3.33332819422e-1));
    y = y * z * x + x;
    const P large = P(T(1)) - P(T(2)) / (exp(a + a) + T(1));
    return select(a > T(0.625), copysign(large, x), y);
  }
}

// Lane by lane through libm: rare exponents of the constraint impedance.
template <class T, int L>
SDPG_INLINE Pack<T, L> pow(Pack<T, L> x, Pack<T, L> e) {
  using P = Pack<T, L>;
  P out;
  for (int i = 0; i < L; ++i) set_lane(out, i, scalar_pow(x[i], e[i]));
  return out;
}

SDPG_ISA_END
}  // namespace sdpg::core
