// Elementary functions of V = float, double or a GCC vector of them. Branch-free: every lane takes the same
// steps. Within 2.5 units in the last place of the exact value wherever that is a normal number (erf: 3;
// normal_cdf: what rounding its argument is worth); NaN and infinities as IEEE 754 says; denormals may count
// as zero.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__CUDACC__)
#define TILEFUSE_EVERYWHERE __host__ __device__
#define TILEFUSE_INLINE __host__ __device__ __forceinline__
#else
#define TILEFUSE_EVERYWHERE
#define TILEFUSE_INLINE inline __attribute__((always_inline))
#endif

namespace tilefuse::inline TILEFUSE_ISA {

// What the formulas need to know of V: its element type, and integers of the same size and number.
template <class V> struct Elements {
    using type = std::remove_cv_t<std::remove_reference_t<decltype(V{}[0])>>;
    using integers = decltype(V{} < V{});
};
template <> struct Elements<float> {
    using type = float;
    using integers = int32_t;
};
template <> struct Elements<double> {
    using type = double;
    using integers = int64_t;
};
template <class V> using Element = typename Elements<V>::type;
template <class V> using Integers = typename Elements<V>::integers;
template <class V> inline constexpr bool is_single = sizeof(Element<V>) == 4;

template <class To, class From> TILEFUSE_INLINE To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// c in every lane.
template <class V> TILEFUSE_INLINE V all(double c) { return static_cast<Element<V>>(c) - V{}; }

// x y + c. A CPU's compiler contracts it where there is an instruction; device code says so, for the same bits from
// every compiler.
template <class V> TILEFUSE_INLINE V multiply_add(V x, V y, Element<V> c) {
#if defined(__CUDACC__) || defined(TILEFUSE_SIMT)
    if constexpr (std::is_same_v<V, float>) {
        return ::fmaf(x, y, c);
    } else if constexpr (std::is_same_v<V, double>) {
        return ::fma(x, y, c);
    } else
#endif
    {
        return x * y + c;
    }
}

// c[0] + c[1] x + c[2] x^2 + ...
template <class V> TILEFUSE_INLINE V polynomial(V, double c) { return all<V>(c); }
template <class V, class... C> TILEFUSE_INLINE V polynomial(V x, double c, C... higher) {
    return multiply_add(polynomial(x, higher...), x, static_cast<Element<V>>(c));
}

template <class V> TILEFUSE_INLINE V abs(V x) {
    constexpr Integers<Element<V>> magnitude = is_single<V> ? 0x7fffffff : 0x7fffffffffffffff;
    return bits_as<V>(bits_as<Integers<V>>(x) & magnitude);
}

// NaN if either is.
template <class V> TILEFUSE_INLINE V min(V a, V b) { return (a < b) | (a != a) ? a : b; }
template <class V> TILEFUSE_INLINE V max(V a, V b) { return (a > b) | (a != a) ? a : b; }

// x limited to [low, high]; NaN stays NaN.
template <class V> TILEFUSE_INLINE V clamp(V x, double low, double high) {
    const V lo = all<V>(low), hi = all<V>(high);
    x = lo > x ? lo : x;
    return hi < x ? hi : x;
}

// `magnitude`, which is not negative, with the sign of `from`.
template <class V> TILEFUSE_INLINE V with_sign(V from, V magnitude) {
    constexpr Integers<Element<V>> sign = is_single<V> ? INT32_MIN : INT64_MIN;
    return bits_as<V>((bits_as<Integers<V>>(from) & sign) | bits_as<Integers<V>>(magnitude));
}

template <class V> TILEFUSE_INLINE V sqrt(V x) {
    if constexpr (std::is_same_v<V, float>) {
        return __builtin_sqrtf(x);
    } else if constexpr (std::is_same_v<V, double>) {
        return __builtin_sqrt(x);
    } else {
        using T = Element<V>;
        constexpr int n = sizeof(V) / sizeof(T);
        T lane[n];
        std::memcpy(lane, &x, sizeof x);
        for (int i = 0; i < n; ++i) lane[i] = sqrt(lane[i]);
        std::memcpy(&x, lane, sizeof x);
        return x;
    }
}

// 1/sqrt(x) and 1/x to 11 bits (AVX-512: 14), from the processor's tables, for 64-byte vectors.
#if defined(__AVX512F__)
template <class V> TILEFUSE_INLINE V root_estimate(V x) { return (V)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)x); }
template <class V> TILEFUSE_INLINE V reciprocal_estimate(V x) { return (V)_mm512_maskz_rcp14_ps(0xffff, (__m512)x); }
#elif defined(__AVX__)
struct Halves {
    __m256 low, high;
};
template <class V> TILEFUSE_INLINE V root_estimate(V x) {
    const Halves h = bits_as<Halves>(x);
    return bits_as<V>(Halves{_mm256_rsqrt_ps(h.low), _mm256_rsqrt_ps(h.high)});
}
template <class V> TILEFUSE_INLINE V reciprocal_estimate(V x) {
    const Halves h = bits_as<Halves>(x);
    return bits_as<V>(Halves{_mm256_rcp_ps(h.low), _mm256_rcp_ps(h.high)});
}
#endif

// a / (sqrt(x) + epsilon) for x, epsilon >= 0: what the adaptive optimizers step by. 64-byte vectors in single precision
// take the processor's estimates for the root and the reciprocal, and a Newton step from each: within 4 units in the last
// place. On Intel a root and a quotient of that width keep one unit busy for some 35 cycles (Fog, "Instruction tables",
// Ice Lake), and these 20 instructions for about 10; on Zen 3, with 32 bytes, they are 5 % of a step slower.
template <class V> TILEFUSE_INLINE V over_root(V a, V x, Element<V> epsilon) {
#if defined(__AVX__)
    if constexpr (is_single<V> && sizeof(V) == 64) {
        constexpr float infinity = __builtin_inff();
        constexpr float smallest = 1.17549435e-38f;
        const V r = root_estimate(smallest > x ? all<V>(smallest) : x);  // no 1/0; NaN stays NaN
        V root = x * r;
        root += root * (0.5f - root * (0.5f * r));
        const V divisor = (x < infinity ? root : x) + epsilon;
        const V first = reciprocal_estimate(divisor);
        const V second = first + first * (1 - divisor * first);
        return a * (divisor < infinity ? second : first);
    } else
#endif
    {
        return a / (sqrt(x) + epsilon);
    }
}

// 2^n for integers n (held as V) in the range of normal exponents.
template <class V> TILEFUSE_INLINE V power_of_two(Integers<V> n) {
    if constexpr (is_single<V>) {
        return bits_as<V>((n + 127) << 23);
    } else {
        return bits_as<V>((n + 1023) << 52);
    }
}

// ln 2 = ln2_high + ln2_low. The first has 16 bits (42 in double precision), so that any exponent times it is
// exact.
template <class T>
inline constexpr T ln2_high =
    static_cast<T>(sizeof(T) == 4 ? 0.693145751953125 : 0.6931471805598903301870450377464294433594);
template <class T>
inline constexpr T ln2_low =
    static_cast<T>(sizeof(T) == 4 ? 1.4286068203094172321e-6 : 5.4979230187083711747e-14);

// x = n ln 2 + r with |r| <= ln 2 / 2, for |x| < 1100.
template <class V> struct Reduced {
    V r;
    Integers<V> n;
};

template <class V> TILEFUSE_INLINE Reduced<V> reduce_by_ln2(V x) {
    using T = Element<V>;
    constexpr T inverse_ln2 = static_cast<T>(1.4426950408889634074);
    // Adding 1.5 * 2^23 (2^52) rounds to an integer and leaves it in the low bits.
    constexpr T shift = static_cast<T>(is_single<V> ? 12582912.0 : 6755399441055744.0);
    const V shifted = x * inverse_ln2 + shift;
    const V n = shifted - shift;
    Reduced<V> reduced;
    reduced.r = (x - n * ln2_high<T>) - n * ln2_low<T>;
    reduced.n = bits_as<Integers<V>>(shifted) - bits_as<Integers<T>>(shift);
    return reduced;
}

// (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2: the Taylor series, as far as the type can see.
template <class V> TILEFUSE_INLINE V exp_tail(V r) {
    if constexpr (is_single<V>) {
        return polynomial(r, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040);
    } else {
        return polynomial(r, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
                          1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0);
    }
}

template <class V> TILEFUSE_INLINE V exp(V x) {
    x = is_single<V> ? clamp(x, -104, 89) : clamp(x, -746, 710);  // beyond: 0 and infinity
    const Reduced<V> x2 = reduce_by_ln2(x);
    const V p = (exp_tail(x2.r) * x2.r) * x2.r + x2.r + 1;
    const Integers<V> half = x2.n >> 1;  // 2^n may be out of range where the result is not
    return p * power_of_two<V>(half) * power_of_two<V>(x2.n - half);
}

// e^x - 1
template <class V> TILEFUSE_INLINE V expm1(V x) {
    const V limited = is_single<V> ? clamp(x, -25, 89) : clamp(x, -45, 710);  // beyond: -1 and infinity
    const Reduced<V> x2 = reduce_by_ln2(limited);
    const V p = (exp_tail(x2.r) * x2.r) * x2.r + x2.r;
    const V scale = power_of_two<V>(x2.n - 1);
    const V y = 2 * (scale * p + (scale - static_cast<Element<V>>(0.5)));
    const V tiny = all<V>(is_single<V> ? 1e-8 : 1e-17);  // here e^x - 1 is x, whose half may be denormal
    return abs(x) < tiny ? x : y;
}

// log(x) + correction / x, for corrections of less than a unit in the last place of x.
template <class V> TILEFUSE_INLINE V log_of_sum(V x, V correction) {
    using T = Element<V>;
    // x = 2^k m with m in [sqrt(1/2), sqrt(2)): subtracting the bits of sqrt(1/2) makes the exponent field k.
    constexpr int mantissa = is_single<V> ? 23 : 52;
    const auto root = bits_as<Integers<T>>(static_cast<T>(0.70710678118654752440));
    const Integers<V> exponent = (bits_as<Integers<V>>(x) - root) >> mantissa;
    const V m = bits_as<V>(bits_as<Integers<V>>(x) - (exponent << mantissa));
    // Converting k to V: the bits of shift + k.
    constexpr T shift = static_cast<T>(is_single<V> ? 12582912.0 : 6755399441055744.0);
    const V k = bits_as<V>(exponent + bits_as<Integers<T>>(shift)) - shift;

    // log(1 + f) = 2 s + s R(s^2), s = f / (2 + f), R by the series of artanh; and 2 s = f - s f.
    const V f = m - 1;
    const V s = f / (m + 1);
    const V s2 = s * s;
    V series;
    if constexpr (is_single<V>) {
        series = polynomial(s2, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9);
    } else {
        series = polynomial(s2, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17,
                            2.0 / 19, 2.0 / 21);
    }
    const V half_square = f * f * static_cast<T>(0.5);
    const V low = k * ln2_low<T> + correction / x;
    return k * ln2_high<T> + (f - (half_square - (s * (half_square + s2 * series) + low)));
}

template <class V> TILEFUSE_INLINE V log(V x) {
    const V smallest = all<V>(is_single<V> ? 1.17549435e-38 : 2.2250738585072014e-308);
    const V infinity = all<V>(__builtin_inf());
    V y = log_of_sum(x, V{});
    y = x < smallest ? -infinity : y;
    y = x < 0 ? all<V>(__builtin_nan("")) : y;
    return (x == infinity) | (x != x) ? x : y;
}

// log(1 + x) for 0 <= x < infinity
template <class V> TILEFUSE_INLINE V log1p(V x) {
    const V sum = x + 1;
    const V y = log_of_sum(sum, x > 1 ? 1 - (sum - x) : x - (sum - 1));
    return x != x ? x : y;
}

template <class V> TILEFUSE_INLINE V sigmoid(V x) { return 1 / (1 + exp(-x)); }

// sigmoid(x) and sigmoid(-x), which is 1 - sigmoid(x) without cancellation.
template <class V> struct Sigmoids {
    V of, of_minus;
};

template <class V> TILEFUSE_INLINE Sigmoids<V> sigmoids(V x) {
    const V e = exp(-abs(x));
    const V large = 1 / (1 + e), small = e * large;
    return {x < 0 ? small : large, x < 0 ? large : small};
}

// log(1 + e^x)
template <class V> TILEFUSE_INLINE V softplus(V x) {
    return (x > 0 ? x : V{}) + log1p(exp(-abs(x)));  // NaN comes through log1p
}

template <class V> TILEFUSE_INLINE V tanh(V x) {
    const V magnitude = abs(x);
    const V e = expm1(2 * clamp(magnitude, 0, is_single<V> ? 10 : 20));  // tanh(10) is 1 to single precision
    return with_sign(x, e / (e + 2));
}

// erf(x) / x as a polynomial in x^2, |x| <= 1. Minimax (Remez, 60 digits), relative error 4e-11 and 3e-21.
template <class V> TILEFUSE_INLINE V erf_over_x(V x2) {
    if constexpr (is_single<V>) {
        return polynomial(x2, 1.128379167, -0.3761263844, 0.1128378198, -0.02686540032, 0.00522094594,
                          -0.0008482833104, 0.0001125696023, -9.641507315e-6);
    } else {
        return polynomial(x2, 1.1283791670955126, -0.37612638903183752, 0.1128379167095512,
                          -0.026866170645129735, 0.005223977625422104, -0.00085483270218542137,
                          0.00012055332899393883, -1.4925647465956485e-5, 1.6462043420826238e-6,
                          -1.636461455475286e-7, 1.4792146609872266e-8, -1.216304501303421e-9,
                          8.7037942506106969e-11, -4.2228940902388119e-12);
    }
}

// erfc(t) for t >= 1: exp(-t^2) / (1 + 2 t) times a polynomial in (t - c) / (t + c). Minimax likewise,
// relative error 1e-9 up to t = 10 and 2e-18 up to t = 28; beyond these erfc is below the smallest normal
// number, and goes on to 0.
template <class V> TILEFUSE_INLINE V erfc_beyond_1(V t) {
    t = clamp(t, 1, is_single<V> ? 11 : 28);  // there exp(-t * t) is 0, denormals or not
    V p;
    if constexpr (is_single<V>) {
        p = polynomial((t - 2) / (t + 2), 1.27697838, -0.0927638133, -0.1660301834, 0.1640503362,
                       -0.05422579502, -0.008013707143, 0.008767206529, 0.001104039756, -0.001513081537);
    } else {
        p = polynomial((t - 3) / (t + 3), 1.2530080582697297, -0.13562110612458118, -0.047562294353452501,
                       0.12964515870276063, -0.11927366341515298, 0.068308027343963621, -0.023770514923999609,
                       0.0025293918183640213, 0.0018886904517078282, -0.00077983234848491363,
                       -0.0001051606945197594, 0.00012510047668301787, 4.9544169454339969e-6,
                       -2.0109301134724901e-5, -7.4560824075736854e-7, 3.5095941063112028e-6,
                       3.6780372604982664e-7, -6.9787216853361436e-7, -1.0380524383283763e-7,
                       1.6875773456915966e-7, -3.20871269617522e-8);
    }
    return exp(-t * t) * p / (1 + 2 * t);
}

template <class V> TILEFUSE_INLINE V erf(V x) {
    const V t = abs(x);
    const V small = x * erf_over_x(x * x);
    return t > 1 ? with_sign(x, 1 - erfc_beyond_1(t)) : small;  // NaN takes the small branch and stays NaN
}

// The normal distribution's Phi(x) = (1 + erf(x / sqrt(2))) / 2, without cancellation for x < 0.
template <class V> TILEFUSE_INLINE V normal_cdf(V x) {
    using T = Element<V>;
    const T half = static_cast<T>(0.5);
    const V z = x * static_cast<T>(0.70710678118654752440);
    const V t = abs(z);
    const V tail = half * erfc_beyond_1(t);
    const V small = half + half * z * erf_over_x(z * z);
    return t > 1 ? (z < 0 ? tail : 1 - tail) : small;
}

}  // namespace tilefuse::inline TILEFUSE_ISA
