// BatchNorm on rows of channels, fused with the residual addition and the ReLU that follow it.
//
// `coefficients` is [scale, shift, mean, inv_std], each with one value per channel.

// The gate that the ReLU after a BatchNorm leaves: always open, open where its output is positive, open where
// x scale + shift is positive, or open where a mask says that the output is. A mask has a byte per pack and a bit per
// value, the lowest for the first.
constexpr u32 OPEN = 0;
constexpr u32 OUTPUT = 1;
constexpr u32 AFFINE = 2;
constexpr u32 MASK = 3;

template <int N, bool RESIDUAL, bool MASKED> struct Forward {
    struct Fetched {
        Pack<T, N> x, residual;
    };
    const T *x;
    const float *coefficients;
    const T *residual;
    T *y;
    u8 *mask;
    // The lower bound of the output: 0 with a ReLU, else -infinity.
    float floor;
    u32 channels;
    float scale[N], shift[N];
    DEVICE void prepare(u32 channel) {
        load(scale, coefficients + channel);
        load(shift, coefficients + channels + channel);
    }
    DEVICE Fetched fetch(i64 at) const {
        Fetched fetched;
        fetched.x = load_once<N>(x + at);
        if constexpr (RESIDUAL) fetched.residual = load_once<N>(residual + at);
        return fetched;
    }
    DEVICE void finish(i64 at, const Fetched &fetched) const {
        float v[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            v[i] = affine(widen(fetched.x, i), scale[i], shift[i]);
            if constexpr (RESIDUAL) v[i] += widen(fetched.residual, i);
            v[i] = at_least(floor, v[i]);
        }
        store(y + at, v);
        if constexpr (MASKED) {
            // The mask is that of the rounded output.
            u32 open = 0;
#pragma unroll
            for (int i = 0; i < N; ++i) open |= (u32)stays_positive<T>(v[i]) << i;
            mask[(u64)at / N] = (u8)open;
        }
    }
};

template <int N, bool MASKED>
DEVICE void forward(const T *x, const float *coefficients, const T *residual, u32 relu, T *y, u8 *mask, i64 values, u32 channels) {
    float floor = relu ? 0.0f : -INFINITE;
    if (residual) {
        for_packs<N, 2>(Forward<N, true, MASKED>{x, coefficients, residual, y, mask, floor, channels}, values, channels);
    } else {
        for_packs<N, 4>(Forward<N, false, MASKED>{x, coefficients, residual, y, mask, floor, channels}, values, channels);
    }
}

// y = act(x scale + shift + residual), and the mask of y; `residual` and `mask` may be null.
KERNEL(256, batch_norm_forward)
(const T *x, const float *coefficients, const T *residual, u32 relu, T *y, u8 *mask, i64 values, u32 channels) {
#define FORWARD(N, MASKED) forward<N, MASKED>(x, coefficients, residual, relu, y, mask, values, channels)
    if (channels % WIDTH == 0) {
        if (mask) FORWARD(WIDTH, true);
        else FORWARD(WIDTH, false);
    } else {
        if (mask) FORWARD(1, true);
        else FORWARD(1, false);
    }
#undef FORWARD
}

// The address of the gate's data (the ReLU's output, or its mask) for the values from `at` on.
template <int N, u32 GATE> DEVICE const void *gate_at(const void *gate, i64 at) {
    if constexpr (GATE == OUTPUT) return reinterpret_cast<const T *>(gate) + at;
    if constexpr (GATE == MASK) return reinterpret_cast<const u8 *>(gate) + (u64)at / N;
    return gate;
}

// The operands of backward's passes for a pack: dy, x, and the gate's data.
template <int N, u32 GATE> struct Gated {
    Pack<T, N> dy, x, y;
    u32 mask;
    DEVICE static Gated of(const T *dy, const T *x, const void *gate, i64 at) {
        Gated pack;
        pack.dy = load_pack<N>(dy + at);
        pack.x = load_pack<N>(x + at);
        const void *told = gate_at<N, GATE>(gate, at);
        if constexpr (GATE == OUTPUT) pack.y = load_pack<N>(reinterpret_cast<const T *>(told));
        if constexpr (GATE == MASK) pack.mask = *reinterpret_cast<const u8 *>(told);
        return pack;
    }
    // dy where the gate is open, else 0.
    DEVICE float g(int i, float scale, float shift) const {
        float value = widen(dy, i);
        if constexpr (GATE == OUTPUT) return widen(y, i) > 0.0f ? value : 0.0f;
        if constexpr (GATE == AFFINE) return affine(widen(x, i), scale, shift) > 0.0f ? value : 0.0f;
        if constexpr (GATE == MASK) return mask >> i & 1 ? value : 0.0f;
        return value;
    }
};

template <int N, u32 GATE> struct Products {
    typedef Gated<N, GATE> Fetched;
    T *dy;
    const void *gate;
    const T *x;
    const float *coefficients;
    u32 channels, keep;
    float scale[N], shift[N], mean[N];
    DEVICE void prepare(i64 begin, u32 channel) {
        dy += begin, x += begin, gate = gate_at<N, GATE>(gate, begin);
        if constexpr (GATE == AFFINE) {
            load(scale, coefficients + channel);
            load(shift, coefficients + channels + channel);
        }
        load(mean, coefficients + 2 * channels + channel);
    }
    DEVICE Fetched fetch(u32 at) const { return Fetched::of(dy, x, gate, at); }
    DEVICE void add(u32 at, const Fetched &fetched, float (&sums)[2][N]) const {
        float g[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            g[i] = fetched.g(i, scale[i], shift[i]);
            sums[0][i] += g[i];
            sums[1][i] = fmaf(g[i], widen(fetched.x, i) - mean[i], sums[1][i]);
        }
        if (keep) store(dy + at, g);
    }
};

template <int N, u32 GATE>
DEVICE void backward_sums(T *dy, const void *gate, const T *x, const float *coefficients, u32 keep, i64 rows, u32 channels, u32 lanes,
                          i64 rows_per_piece, double *partials, double *places) {
    Products<N, GATE> terms{dy, gate, x, coefficients, channels, keep};
    row_sums<N, 2>(terms, rows, channels, lanes, rows_per_piece, partials, places);
}

// The sums of g and of g (x - mean), where g is dy masked by the gate, whose data are at `gate`, of the given `kind`.
// With `keep`, g replaces dy. `partials` are as `row_sums` writes them.
KERNEL(BY_THREES, batch_norm_backward_sums)
(T *dy, u32 kind, const void *gate, const T *x, const float *coefficients, u32 keep, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece,
 double *partials) {
    SHARED double places[2 * WIDTH * SUM_THREADS];
#define SUMS(N, GATE) backward_sums<N, GATE>(dy, gate, x, coefficients, keep, rows, channels, lanes, rows_per_piece, partials, places)
    if (channels % WIDTH == 0) {
        if (kind == OUTPUT) SUMS(WIDTH, OUTPUT);
        else if (kind == AFFINE) SUMS(WIDTH, AFFINE);
        else if (kind == MASK) SUMS(WIDTH, MASK);
        else SUMS(WIDTH, OPEN);
    } else {
        if (kind == OUTPUT) SUMS(1, OUTPUT);
        else if (kind == AFFINE) SUMS(1, AFFINE);
        else if (kind == MASK) SUMS(1, MASK);
        else SUMS(1, OPEN);
    }
#undef SUMS
}

template <int N, u32 GATE> struct Backward {
    typedef Gated<N, GATE> Fetched;
    const T *dy;
    const void *gate;
    T *x;
    const float *coefficients, *abc;
    u32 channels;
    float scale[N], shift[N], a[N], b[N], c[N];
    DEVICE void prepare(u32 channel) {
        if constexpr (GATE == AFFINE) {
            load(scale, coefficients + channel);
            load(shift, coefficients + channels + channel);
        }
        load(a, abc + channel);
        load(b, abc + channels + channel);
        load(c, abc + 2 * channels + channel);
    }
    DEVICE Fetched fetch(i64 at) const { return Fetched::of(dy, x, gate, at); }
    DEVICE void finish(i64 at, const Fetched &fetched) const {
        float v[N];
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = fmaf(fetched.g(i, scale[i], shift[i]), a[i], fmaf(widen(fetched.x, i), b[i], c[i]));
        store(x + at, v);
    }
};

template <int N, u32 GATE>
DEVICE void backward(const T *dy, const void *gate, T *x, const float *coefficients, const float *abc, i64 values, u32 channels) {
    for_packs<N, 2>(Backward<N, GATE>{dy, gate, x, coefficients, abc, channels}, values, channels);
}

// x becomes dx = g a + x b + c, where `abc` is [a, b, c], each with one value per channel.
KERNEL(256, batch_norm_backward_input)
(const T *dy, u32 kind, const void *gate, T *x, const float *coefficients, const float *abc, i64 values, u32 channels) {
#define BACKWARD(N, GATE) backward<N, GATE>(dy, gate, x, coefficients, abc, values, channels)
    if (channels % WIDTH == 0) {
        if (kind == OUTPUT) BACKWARD(WIDTH, OUTPUT);
        else if (kind == AFFINE) BACKWARD(WIDTH, AFFINE);
        else if (kind == MASK) BACKWARD(WIDTH, MASK);
        else BACKWARD(WIDTH, OPEN);
    } else {
        if (kind == OUTPUT) BACKWARD(1, OUTPUT);
        else if (kind == AFFINE) BACKWARD(1, AFFINE);
        else if (kind == MASK) BACKWARD(1, MASK);
        else BACKWARD(1, OPEN);
    }
#undef BACKWARD
}
