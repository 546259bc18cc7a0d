// BatchNorm on rows of channels, with the residual addition and the ReLU that follow it.
//
// `coefficients` is [scale, shift, mean, inv_std], each one value a channel.

// Which gate the ReLU behind a BatchNorm leaves: 0 for none, where its output is positive, or where x scale + shift is.
constexpr u32 OUTPUT = 1;
constexpr u32 AFFINE = 2;

// Walks over packs of N values, `step(at, channel, fresh)` for each, `fresh` where the channels are not those of the pack before.
template <int N, class Step> DEVICE void for_packs(i64 values, u32 channels, Step step) {
    i64 stride = (i64)gridDim.x * blockDim.x * N;
    i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * N;
    u32 move = stride % channels, channel = at % channels;
    bool fresh = true;
    for (; at < values; at += stride) {
        step(at, channel, fresh);
        fresh = move != 0;
        channel += move;
        if (channel >= channels) channel -= channels;
    }
}

template <int N> DEVICE void coefficients_of(float (&out)[N], const float *values, u32 channel) {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = values[channel + i];
}

template <int N>
DEVICE void forward(const T *x, const float *coefficients, const T *residual, u32 relu, T *y, i64 values, u32 channels) {
    float scale[N], shift[N];
    for_packs<N>(values, channels, [&](i64 at, u32 channel, bool fresh) {
        if (fresh) {
            coefficients_of(scale, coefficients, channel);
            coefficients_of(shift, coefficients + channels, channel);
        }
        float v[N], r[N];
        load(v, x + at);
        if (residual) load(r, residual + at);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            v[i] = affine(v[i], scale[i], shift[i]);
            if (residual) v[i] += r[i];
            if (relu) v[i] = at_least(0.0f, v[i]);
        }
        store(y + at, v);
    });
}

// y = act(x scale + shift + residual); `residual` may be null.
KERNEL(256, batch_norm_forward)
(const T *x, const float *coefficients, const T *residual, u32 relu, T *y, i64 values, u32 channels) {
    if (channels % WIDTH == 0) {
        forward<WIDTH>(x, coefficients, residual, relu, y, values, channels);
    } else {
        forward<1>(x, coefficients, residual, relu, y, values, channels);
    }
}

// dy where the gate is open, else 0, in place of dy. `y` is the ReLU's output.
template <int N>
DEVICE void pass(float (&dy)[N], u32 gate, const float (&x)[N], const T *y, i64 at, const float (&scale)[N],
                 const float (&shift)[N]) {
    if (gate == OUTPUT) {
        float v[N];
        load(v, y + at);
#pragma unroll
        for (int i = 0; i < N; ++i) dy[i] = v[i] > 0.0f ? dy[i] : 0.0f;
    } else if (gate == AFFINE) {
#pragma unroll
        for (int i = 0; i < N; ++i) dy[i] = affine(x[i], scale[i], shift[i]) > 0.0f ? dy[i] : 0.0f;
    }
}

template <int N> struct Products {
    T *dy;
    const T *y, *x;
    const float *coefficients;
    u32 gate, channels, keep;
    float scale[N], shift[N], mean[N];
    DEVICE void prepare(u32 channel) {
        coefficients_of(scale, coefficients, channel);
        coefficients_of(shift, coefficients + channels, channel);
        coefficients_of(mean, coefficients + 2 * channels, channel);
    }
    DEVICE void add(i64 at, float (&sum)[N], float (&product)[N]) const {
        float g[N], v[N];
        load(g, dy + at);
        load(v, x + at);
        pass(g, gate, v, y, at, scale, shift);
        if (keep) store(dy + at, g);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            sum[i] += g[i];
            product[i] = fmaf(g[i], v[i] - mean[i], product[i]);
        }
    }
};

// The sums of g and of g (x - mean), g being dy where the gate is open; where `keep`, dy becomes g. `partials` as `row_sums` writes them.
KERNEL(256, batch_norm_backward_sums)
(T *dy, u32 gate, const T *y, const T *x, const float *coefficients, u32 keep, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece,
 double *partials) {
    SHARED double places[2 * WIDTH * SUM_THREADS];
    if (channels % WIDTH == 0) {
        Products<WIDTH> terms{dy, y, x, coefficients, gate, channels, keep};
        row_sums<WIDTH>(terms, rows, channels, lanes, rows_per_piece, partials, places);
    } else {
        Products<1> terms{dy, y, x, coefficients, gate, channels, keep};
        row_sums<1>(terms, rows, channels, lanes, rows_per_piece, partials, places);
    }
}

template <int N>
DEVICE void backward(const T *dy, u32 gate, const T *y, T *x, const float *coefficients, const float *abc, i64 values, u32 channels) {
    float scale[N], shift[N], a[N], b[N], c[N];
    for_packs<N>(values, channels, [&](i64 at, u32 channel, bool fresh) {
        if (fresh) {
            coefficients_of(scale, coefficients, channel);
            coefficients_of(shift, coefficients + channels, channel);
            coefficients_of(a, abc, channel);
            coefficients_of(b, abc + channels, channel);
            coefficients_of(c, abc + 2 * channels, channel);
        }
        float g[N], v[N];
        load(g, dy + at);
        load(v, x + at);
        pass(g, gate, v, y, at, scale, shift);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = fmaf(g[i], a[i], fmaf(v[i], b[i], c[i]));
        store(x + at, v);
    });
}

// x becomes dx = g a + x b + c, `abc` being [a, b, c], each one value a channel.
KERNEL(256, batch_norm_backward_input)
(const T *dy, u32 gate, const T *y, T *x, const float *coefficients, const float *abc, i64 values, u32 channels) {
    if (channels % WIDTH == 0) {
        backward<WIDTH>(dy, gate, y, x, coefficients, abc, values, channels);
    } else {
        backward<1>(dy, gate, y, x, coefficients, abc, values, channels);
    }
}
