// Common definitions, prepended to each source. A source is compiled once for each type of element, with ELEMENT
// defined as float, bf16 or f16. Nothing from a CUDA toolkit is included.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifndef EMULATED
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
// A kernel with blocks of at most this many threads.
#define KERNEL(threads, name) extern "C" __global__ void __launch_bounds__(threads) name
#endif

// In place of a kernel's threads: 256, with registers limited so that two or three blocks fit on a multiprocessor.
#define BY_TWOS 256, 2
#define BY_THREES 256, 3

#define INFINITE __int_as_float(0x7f800000)

// 16-bit floats in memory. Arithmetic is in f32: they are widened when read, and rounded to nearest, ties to even, when
// written.
struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};

DEVICE float widen(float x) { return x; }
DEVICE float widen(u8 x) { return (float)x; }
DEVICE float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <class T> struct Narrow;
template <> struct Narrow<float> {
    static DEVICE float of(float x) { return x; }
};

#ifndef EMULATED
DEVICE float widen(f16 x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
template <> struct Narrow<bf16> {
    static DEVICE bf16 of(float x) {
        bf16 narrow;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
        return narrow;
    }
};
template <> struct Narrow<f16> {
    static DEVICE f16 of(float x) {
        f16 narrow;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
        return narrow;
    }
};
#endif

// N elements that are read and written together, at an address that is a multiple of their size.
template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T v[N];
};
// Value i of a pack.
template <class T, int N> DEVICE float widen(const Pack<T, N> &pack, int i) { return widen(pack.v[i]); }
#ifndef EMULATED
template <int N> DEVICE float widen(const Pack<bf16, N> &pack, int i) {
    if constexpr (N % 2 == 0) {
        // From words: splitting into values first would cost three instructions instead of one for every second value.
        u32 word = reinterpret_cast<const u32 *>(&pack)[i / 2];
        return __uint_as_float(i % 2 ? word & 0xffff0000u : word << 16);
    }
    return widen(pack.v[i]);
}
#endif
template <int N, class T> DEVICE void unpack(float (&out)[N], const Pack<T, N> &pack) {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = widen(pack, i);
}
// Reads a pack with one instruction. Otherwise the compiler reads word by word what is later split into words.
template <int N, class T> DEVICE Pack<T, N> load_pack(const T *from) {
#ifndef EMULATED
    if constexpr (sizeof(Pack<T, N>) == 16) {
        uint4 bits = *reinterpret_cast<const uint4 *>(from);
        return *reinterpret_cast<Pack<T, N> *>(&bits);
    }
#endif
    return *reinterpret_cast<const Pack<T, N> *>(from);
}
template <int N, class T> DEVICE void load(float (&out)[N], const T *from) { unpack(out, load_pack<N>(from)); }
// Reads a pack that is not needed again soon, without evicting other data from the caches.
template <int N, class T> DEVICE Pack<T, N> load_once(const T *from) {
#ifndef EMULATED
    if constexpr (sizeof(Pack<T, N>) == 16) {
        uint4 bits = __ldcs(reinterpret_cast<const uint4 *>(from));
        return *reinterpret_cast<Pack<T, N> *>(&bits);
    }
#endif
    return *reinterpret_cast<const Pack<T, N> *>(from);
}
template <int N, class T> DEVICE void store(T *to, const float (&values)[N]) {
    Pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; ++i) pack.v[i] = Narrow<T>::of(values[i]);
#ifndef EMULATED
    // The compiler sometimes splits a plain assignment.
    if constexpr (sizeof(pack) == 16) {
        uint4 bits = *reinterpret_cast<const uint4 *>(&pack);
        u64 at = __cvta_generic_to_global(to);
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w) : "memory");
        return;
    }
#endif
    *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

// Divides numbers below 2^31 by one that the host knows, with a product: floor(n / value) = floor(n factor / 2^shift).
struct Divisor {
    u32 value, factor, shift;
    DEVICE u32 of(u32 n) const { return (u32)(((u64)n * factor) >> shift); }
};

#ifdef ELEMENT
typedef ELEMENT T;
// Elements in 16 bytes.
constexpr int WIDTH = 16 / sizeof(T);
#endif

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// The row of a thread in kernels with a warp per row. The number of threads may exceed 32 bits, that of rows does not.
DEVICE u32 row_of_warp() { return blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; }

// Sums and maxima over the lanes of a warp: every lane gets the same bits.
template <class S> DEVICE S warp_sum(S value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}
DEVICE float warp_max(float value) {
    for (int step = 16; step > 0; step /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, value, step);
        value = other > value ? other : value;
    }
    return value;
}

// The sum over a block's threads, in a fixed order; valid in thread 0. `places` has a value for each warp.
DEVICE double block_sum(double value, double *places) {
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) places[threadIdx.x / WARP] = value;
    __syncthreads();
    double sum = 0.0;
    if (threadIdx.x == 0) {
        for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) sum += places[warp];
    }
    __syncthreads();
    return sum;
}

// x scale + shift, rounded once. Forward and backward both use this, since they must agree on every sign.
DEVICE float affine(float x, float scale, float shift) { return fmaf(x, scale, shift); }

DEVICE bool is_nan(float x) { return x != x; }

// The maximum of both. Unlike fmaxf it propagates NaN, which must reach the loss to be noticed.
DEVICE float at_least(float floor, float value) {
#ifdef EMULATED
    return floor > value ? floor : value;
#else
    float greater;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(greater) : "f"(floor), "f"(value));
    return greater;
#endif
}

// Whether a value is still positive once it is rounded to T: up to half of the least positive number rounds to 0.
template <class T> DEVICE bool stays_positive(float value) { return value > 0.0f; }
template <> DEVICE bool stays_positive<bf16>(float value) { return value > 0x1p-134f; }
template <> DEVICE bool stays_positive<f16>(float value) { return value > 0x1p-25f; }
