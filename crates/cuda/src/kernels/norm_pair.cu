// The BatchNorms of a residual block's branch and of its shortcut, fused with their sum and the ReLU: y = relu(sum of
// x scale + shift of both). A mask says where y is positive: a byte per pack, a bit per value, the lowest for the
// first.

template <int N> struct Forward {
    struct Fetched {
        Pack<T, N> x[2];
    };
    const T *x[2];
    const float *coefficients[2];
    T *y;
    u8 *mask;
    u32 channels;
    float scale[2][N], shift[2][N];
    DEVICE void prepare(u32 channel) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            load(scale[k], coefficients[k] + channel);
            load(shift[k], coefficients[k] + channels + channel);
        }
    }
    DEVICE Fetched fetch(i64 at) const { return {{load_once<N>(x[0] + at), load_once<N>(x[1] + at)}}; }
    DEVICE void finish(i64 at, const Fetched &fetched) const {
        float v[N];
        u32 open = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            float shortcut = affine(widen(fetched.x[1], i), scale[1][i], shift[1][i]);
            v[i] = at_least(0.0f, affine(widen(fetched.x[0], i), scale[0][i], shift[0][i]) + shortcut);
            open |= (u32)stays_positive<T>(v[i]) << i;
        }
        store(y + at, v);
        mask[(u64)at / N] = (u8)open;
    }
};

KERNEL(256, norm_pair_forward)
(const T *branch, const T *shortcut, const float *of_branch, const float *of_shortcut, T *y, u8 *mask, i64 values, u32 channels) {
    if (channels % WIDTH == 0) {
        for_packs<WIDTH, 2>(Forward<WIDTH>{{branch, shortcut}, {of_branch, of_shortcut}, y, mask, channels}, values, channels);
    } else {
        for_packs<1, 2>(Forward<1>{{branch, shortcut}, {of_branch, of_shortcut}, y, mask, channels}, values, channels);
    }
}

// The operands of backward's passes for a pack.
template <int N> struct Gated {
    Pack<T, N> dy, x[2];
    u32 mask;
    DEVICE static Gated of(const T *dy, const u8 *mask, const T *const (&x)[2], i64 at) {
        return {load_pack<N>(dy + at), {load_pack<N>(x[0] + at), load_pack<N>(x[1] + at)}, mask[(u64)at / N]};
    }
    DEVICE float g(int i) const { return mask >> i & 1 ? widen(dy, i) : 0.0f; }
};

template <int N> struct Products {
    typedef Gated<N> Fetched;
    const T *dy;
    const u8 *mask;
    const T *x[2];
    const float *coefficients[2];
    u32 channels;
    float mean[2][N];
    DEVICE void prepare(i64 begin, u32 channel) {
        dy += begin, mask += (u64)begin / N, x[0] += begin, x[1] += begin;
        for (int k = 0; k < 2; ++k) load(mean[k], coefficients[k] + 2 * channels + channel);
    }
    DEVICE Fetched fetch(u32 at) const { return Fetched::of(dy, mask, x, at); }
    DEVICE void add(u32, const Fetched &fetched, float (&sums)[3][N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            float g = fetched.g(i);
            sums[0][i] += g;
#pragma unroll
            for (int k = 0; k < 2; ++k) sums[1 + k][i] = fmaf(g, widen(fetched.x[k], i) - mean[k][i], sums[1 + k][i]);
        }
    }
};

// The sums of g and of g (x - mean) of both, where g is dy masked. `partials` are as `row_sums` writes them.
KERNEL(BY_TWOS, norm_pair_backward_sums)
(const T *dy, const u8 *mask, const T *branch, const T *shortcut, const float *of_branch, const float *of_shortcut, i64 rows, u32 channels,
 u32 lanes, i64 rows_per_piece, double *partials) {
    // In 16 bits as much as a block may declare.
    SHARED double places[3 * WIDTH * SUM_THREADS];
    static_assert(sizeof(places) <= 48 << 10, "a block's shared memory");
    if (channels % WIDTH == 0) {
        Products<WIDTH> terms{dy, mask, {branch, shortcut}, {of_branch, of_shortcut}, channels};
        row_sums<WIDTH, 2, 3>(terms, rows, channels, lanes, rows_per_piece, partials, places);
    } else {
        Products<1> terms{dy, mask, {branch, shortcut}, {of_branch, of_shortcut}, channels};
        row_sums<1, 2, 3>(terms, rows, channels, lanes, rows_per_piece, partials, places);
    }
}

template <int N> struct Backward {
    typedef Gated<N> Fetched;
    const T *dy;
    const u8 *mask;
    T *x[2];
    const float *abc[2];
    u32 channels;
    float a[2][N], b[2][N], c[2][N];
    DEVICE void prepare(u32 channel) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            load(a[k], abc[k] + channel);
            load(b[k], abc[k] + channels + channel);
            load(c[k], abc[k] + 2 * channels + channel);
        }
    }
    DEVICE Fetched fetch(i64 at) const {
        const T *const from[2] = {x[0], x[1]};
        return Fetched::of(dy, mask, from, at);
    }
    DEVICE void finish(i64 at, const Fetched &fetched) const {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            float v[N];
#pragma unroll
            for (int i = 0; i < N; ++i) v[i] = fmaf(fetched.g(i), a[k][i], fmaf(widen(fetched.x[k], i), b[k][i], c[k][i]));
            store(x[k] + at, v);
        }
    }
};

// Each x becomes its dx = g a + x b + c.
KERNEL(BY_TWOS, norm_pair_backward_input)
(const T *dy, const u8 *mask, T *branch, T *shortcut, const float *abc_of_branch, const float *abc_of_shortcut, i64 values,
 u32 channels) {
    if (channels % WIDTH == 0) {
        Backward<WIDTH> pass{dy, mask, {branch, shortcut}, {abc_of_branch, abc_of_shortcut}, channels};
        for_packs<WIDTH, 2>(pass, values, channels);
    } else {
        Backward<1> pass{dy, mask, {branch, shortcut}, {abc_of_branch, abc_of_shortcut}, channels};
        for_packs<1, 2>(pass, values, channels);
    }
}
