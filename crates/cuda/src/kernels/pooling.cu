// Pooling over images, channels last.

// Shapes of max pooling: (batch, in_height, in_width, channels) to (batch, out_height, out_width, channels), with
// `padding` above and at the left.
struct Window {
    u32 batch, in_height, in_width, channels, out_height, out_width, side, stride, padding;
};

// The pixel and the first channel of a thread, which has a pack of N channels in each image of its block. `packs`
// divides by the number of packs of a pixel, `width` by the width of an image.
template <int N> struct Spot {
    u32 row, column, channel;
    DEVICE Spot(const Divisor &packs, const Divisor &width) {
        u32 index = blockIdx.x * blockDim.x + threadIdx.x;
        u32 pixel = packs.of(index);
        row = width.of(pixel);
        column = pixel - row * width.value;
        channel = (index - pixel * packs.value) * N;
    }
};

// Row or column i of a window that begins at `first`, or the nearest inside the image, which is in the window too,
// since the window overlaps the image.
DEVICE u32 inside(int first, u32 i, u32 size) {
    int at = first + (int)i;
    return at < 0 ? 0 : (u32)at < size ? (u32)at : size - 1;
}

// SIDE, if not 0, is the side of the window: a constant, so that all loads of a window are in flight together.
template <int N, u32 SIDE> DEVICE void max_forward(const T *x, T *y, const Window &w, const Divisor &packs, const Divisor &width) {
    Spot<N> spot(packs, width);
    if (spot.row >= w.out_height) return;
    const u32 side = SIDE ? SIDE : w.side;
    int top = (int)(spot.row * w.stride) - (int)w.padding, left = (int)(spot.column * w.stride) - (int)w.padding;
    for (u32 image = blockIdx.y; image < w.batch; image += gridDim.y) {
        const T *from = x + (u64)image * w.in_height * w.in_width * w.channels + spot.channel;
        float most[N];
#pragma unroll
        for (int j = 0; j < N; ++j) most[j] = -INFINITE;
#pragma unroll
        for (u32 r = 0; r < side; ++r) {
            u32 line = inside(top, r, w.in_height) * w.in_width;
#pragma unroll
            for (u32 s = 0; s < side; ++s) {
                float value[N];
                load(value, from + (u64)(line + inside(left, s, w.in_width)) * w.channels);
#pragma unroll
                for (int j = 0; j < N; ++j) most[j] = value[j] > most[j] || is_nan(value[j]) ? value[j] : most[j];
            }
        }
        u64 pixel = ((u64)image * w.out_height + spot.row) * w.out_width + spot.column;
        store(y + pixel * w.channels + spot.channel, most);
    }
}

// The maximum of each window. Padding never wins; NaN does.
KERNEL(256, max_pool_forward)(const T *x, T *y, Window window, Divisor packs, Divisor width) {
    if (window.channels % WIDTH != 0) {
        max_forward<1, 0>(x, y, window, packs, width);
    } else if (window.side == 3) {
        max_forward<WIDTH, 3>(x, y, window, packs, width);
    } else {
        max_forward<WIDTH, 0>(x, y, window, packs, width);
    }
}

// The winner of a window whose maximum is NaN. Others are the numbers of taps, of which a window has at most 254.
constexpr u32 NONE = 255;

template <int N, u32 SIDE>
DEVICE void winners_of(const T *x, const T *y, u8 *winners, const Window &w, const Divisor &packs, const Divisor &width) {
    Spot<N> spot(packs, width);
    if (spot.row >= w.out_height) return;
    const u32 side = SIDE ? SIDE : w.side;
    int top = (int)(spot.row * w.stride) - (int)w.padding, left = (int)(spot.column * w.stride) - (int)w.padding;
    for (u32 image = blockIdx.y; image < w.batch; image += gridDim.y) {
        const T *from = x + (u64)image * w.in_height * w.in_width * w.channels + spot.channel;
        u64 at = (((u64)image * w.out_height + spot.row) * w.out_width + spot.column) * w.channels + spot.channel;
        float most[N];
        load(most, y + at);
        u32 winner[N];
#pragma unroll
        for (int j = 0; j < N; ++j) winner[j] = NONE;
        // From the last tap to the first, so that the first of equal maxima wins.
#pragma unroll
        for (u32 r = side; r-- > 0;) {
            u32 h = inside(top, r, w.in_height);
#pragma unroll
            for (u32 s = side; s-- > 0;) {
                u32 v = inside(left, s, w.in_width), tap = (u32)((int)h - top) * side + (u32)((int)v - left);
                float value[N];
                load(value, from + (u64)(h * w.in_width + v) * w.channels);
#pragma unroll
                for (int j = 0; j < N; ++j) winner[j] = value[j] == most[j] ? tap : winner[j];
            }
        }
        Pack<u8, N> pack;
#pragma unroll
        for (int j = 0; j < N; ++j) pack.v[j] = (u8)winner[j];
        *reinterpret_cast<Pack<u8, N> *>(winners + at) = pack;
    }
}

// The tap number, row by row, of each window's first maximum; NONE for a window with a NaN.
KERNEL(256, max_pool_winners)(const T *x, const T *y, u8 *winners, Window window, Divisor packs, Divisor width) {
    if (window.channels % WIDTH != 0) {
        winners_of<1, 0>(x, y, winners, window, packs, width);
    } else if (window.side == 3) {
        winners_of<WIDTH, 3>(x, y, winners, window, packs, width);
    } else {
        winners_of<WIDTH, 0>(x, y, winners, window, packs, width);
    }
}

template <int N>
DEVICE void max_backward(const u8 *winners, const T *dy, T *dx, const Window &w, const Divisor &packs, const Divisor &width) {
    Spot<N> spot(packs, width);
    if (spot.row >= w.in_height) return;
    // The windows that contain this pixel, in the order of their outputs.
    u32 bottom = spot.row + w.padding, right = spot.column + w.padding;
    u32 p_first = bottom < w.side ? 0 : (bottom - w.side) / w.stride + 1;
    u32 q_first = right < w.side ? 0 : (right - w.side) / w.stride + 1;
    for (u32 image = blockIdx.y; image < w.batch; image += gridDim.y) {
        float sum[N];
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = 0.0f;
        for (u32 p = p_first; p < w.out_height && p * w.stride <= bottom; ++p) {
            for (u32 q = q_first; q < w.out_width && q * w.stride <= right; ++q) {
                u64 at = (((u64)image * w.out_height + p) * w.out_width + q) * w.channels + spot.channel;
                u32 tap = (bottom - p * w.stride) * w.side + right - q * w.stride;
                Pack<u8, N> winner = *reinterpret_cast<const Pack<u8, N> *>(winners + at);
                float gradient[N];
                load(gradient, dy + at);
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] += winner.v[j] == tap ? gradient[j] : 0.0f;
            }
        }
        u64 pixel = ((u64)image * w.in_height + spot.row) * w.in_width + spot.column;
        store(dx + pixel * w.channels + spot.channel, sum);
    }
}

// Each dy goes to its window's winner. Pixels gather, one thread per pack, so that no atomic additions are needed.
KERNEL(256, max_pool_backward)(const u8 *winners, const T *dy, T *dx, Window window, Divisor packs, Divisor width) {
    if (window.channels % WIDTH == 0) {
        max_backward<WIDTH>(winners, dy, dx, window, packs, width);
    } else {
        max_backward<1>(winners, dy, dx, window, packs, width);
    }
}

// Windows of 3 x 3, stride 2, padding 1: the pixels of 2 x 2 block (i, j) are only in windows (i, j) to (i + 1, j + 1),
// which its thread reads once. Row c of the block is row c + 1 - 2 a of window i + a; columns likewise.
template <int N>
DEVICE void max_backward_halved(const u8 *winners, const T *dy, T *dx, const Window &w, const Divisor &packs, const Divisor &width) {
    Spot<N> spot(packs, width);
    if (spot.row >= w.out_height) return;
    bool below = spot.row + 1 < w.out_height, beside = spot.column + 1 < w.out_width;
    u32 height = 2 * spot.row + 1 < w.in_height ? 2 : 1, breadth = 2 * spot.column + 1 < w.in_width ? 2 : 1;
    for (u32 image = blockIdx.y; image < w.batch; image += gridDim.y) {
        u64 first = (((u64)image * w.out_height + spot.row) * w.out_width + spot.column) * w.channels + spot.channel;
        Pack<u8, N> winner[4];
        Pack<T, N> gradient[4];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            // Beyond the last window, read the last one, without using it.
            u64 at = first + (u64)((i / 2 && below ? w.out_width : 0) + (i % 2 && beside ? 1 : 0)) * w.channels;
            winner[i] = *reinterpret_cast<const Pack<u8, N> *>(winners + at);
            gradient[i] = load_pack<N>(dy + at);
        }
        float sum[4][N];
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < N; ++j) sum[i][j] = 0.0f;
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const u32 a = i / 2, b = i % 2;
            bool exists = (!a || below) && (!b || beside);
            float g[N];
            unpack(g, gradient[i]);
#pragma unroll
            for (u32 c = a; c < 2; ++c) {
#pragma unroll
                for (u32 d = b; d < 2; ++d) {
                    const u32 tap = (c + 1 - 2 * a) * 3 + d + 1 - 2 * b;
#pragma unroll
                    for (int j = 0; j < N; ++j) sum[2 * c + d][j] += exists && winner[i].v[j] == tap ? g[j] : 0.0f;
                }
            }
        }
        T *to = dx + (((u64)image * w.in_height + 2 * spot.row) * w.in_width + 2 * spot.column) * w.channels + spot.channel;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            if (i / 2 < height && i % 2 < breadth) store(to + (u64)(i / 2 * w.in_width + i % 2) * w.channels, sum[i]);
        }
    }
}

// `max_pool_backward` for the windows of a ResNet; one thread per pack of 2 x 2 pixels.
KERNEL(256, max_pool_backward_halved)(const u8 *winners, const T *dy, T *dx, Window window, Divisor packs, Divisor width) {
    if (window.channels % WIDTH == 0) {
        max_backward_halved<WIDTH>(winners, dy, dx, window, packs, width);
    } else {
        max_backward_halved<1>(winners, dy, dx, window, packs, width);
    }
}

// Average pooling by 2 x 2 windows from (batch, height, width, channels) to (batch, out_height, out_width, channels).
// `zeros` says whether pixels outside the image count (as zeros), `add` whether a gradient is added.
struct AvgPool {
    u32 batch, height, width, channels, out_height, out_width, stride, zeros, add;
};

// Two rows or columns with their weights. If there is only one, it is in both places, with weight 0 in the second.
struct Weighed {
    u32 at[2];
    float weight[2];
};

// The weight of each row or column of a window, in an image that has `size`.
DEVICE float share(const AvgPool &g, u32 window, u32 size) { return g.zeros || window * g.stride + 1 < size ? 0.5f : 1.0f; }

DEVICE Weighed in_window(const AvgPool &g, u32 window, u32 size) {
    u32 first = window * g.stride;
    float each = share(g, window, size);
    bool two = first + 1 < size;
    return Weighed{{first, two ? first + 1 : first}, {each, two ? each : 0.0f}};
}

DEVICE Weighed windows_of(const AvgPool &g, u32 at, u32 size) {
    u32 first = at == 0 ? 0 : (at - 1 + g.stride - 1) / g.stride, last = at / g.stride;
    return Weighed{{first, last}, {share(g, first, size), last > first ? share(g, last, size) : 0.0f}};
}

// The weighted sum of four pixels of an image with rows of `width` pixels.
template <int N> DEVICE void weigh(float (&sum)[N], const T *from, u32 width, u32 channels, const Weighed &rows, const Weighed &columns) {
    float value[4][N];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) load(value[i], from + (u64)(rows.at[i / 2] * width + columns.at[i % 2]) * channels);
#pragma unroll
    for (int j = 0; j < N; ++j) {
        float upper = value[0][j] * (rows.weight[0] * columns.weight[0]) + value[1][j] * (rows.weight[0] * columns.weight[1]);
        float lower = value[2][j] * (rows.weight[1] * columns.weight[0]) + value[3][j] * (rows.weight[1] * columns.weight[1]);
        sum[j] = upper + lower;
    }
}

template <int N> DEVICE void window_means(const T *x, T *y, const AvgPool &g, const Divisor &packs, const Divisor &width) {
    Spot<N> spot(packs, width);
    if (spot.row >= g.out_height) return;
    Weighed rows = in_window(g, spot.row, g.height), columns = in_window(g, spot.column, g.width);
    for (u32 image = blockIdx.y; image < g.batch; image += gridDim.y) {
        float mean[N];
        weigh(mean, x + (u64)image * g.height * g.width * g.channels + spot.channel, g.width, g.channels, rows, columns);
        u64 pixel = ((u64)image * g.out_height + spot.row) * g.out_width + spot.column;
        store(y + pixel * g.channels + spot.channel, mean);
    }
}

// One thread per pack of the output.
KERNEL(256, avg_pool_forward)(const T *x, T *y, AvgPool pool, Divisor packs, Divisor width) {
    if (pool.channels % WIDTH == 0) {
        window_means<WIDTH>(x, y, pool, packs, width);
    } else {
        window_means<1>(x, y, pool, packs, width);
    }
}

template <int N> DEVICE void window_shares(const T *dy, T *dx, const AvgPool &g, const Divisor &packs, const Divisor &width) {
    Spot<N> spot(packs, width);
    if (spot.row >= g.height) return;
    Weighed rows = windows_of(g, spot.row, g.height), columns = windows_of(g, spot.column, g.width);
    for (u32 image = blockIdx.y; image < g.batch; image += gridDim.y) {
        float sum[N];
        weigh(sum, dy + (u64)image * g.out_height * g.out_width * g.channels + spot.channel, g.out_width, g.channels, rows, columns);
        u64 pixel = ((u64)image * g.height + spot.row) * g.width + spot.column;
        T *to = dx + pixel * g.channels + spot.channel;
        if (g.add) {
            float known[N];
            load(known, to);
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += known[j];
        }
        store(to, sum);
    }
}

// Each pixel gathers from the windows that contain it; one thread per pack of the input.
KERNEL(256, avg_pool_backward)(const T *dy, T *dx, AvgPool pool, Divisor packs, Divisor width) {
    if (pool.channels % WIDTH == 0) {
        window_shares<WIDTH>(dy, dx, pool, packs, width);
    } else {
        window_shares<1>(dy, dx, pool, packs, width);
    }
}

// Packs that a thread has in flight at a time.
constexpr u32 AHEAD = 8;

template <int N> DEVICE void avg_forward(const T *x, float *y, u32 batch, u32 pixels, u32 channels, const Divisor &packs) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    u32 image = packs.of(index), channel = (index - image * packs.value) * N;
    if (image >= batch) return;
    const T *from = x + (u64)image * pixels * channels + channel;
    float sum[N];
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] = 0.0f;
    for (u32 pixel = 0; pixel < pixels; pixel += AHEAD) {
        Pack<T, N> values[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) {
            if (pixel + i < pixels) values[i] = load_once<N>(from + (u64)(pixel + i) * channels);
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; ++i) {
            if (pixel + i >= pixels) continue;
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += widen(values[i], j);
        }
    }
#pragma unroll
    for (int j = 0; j < N; ++j) sum[j] /= pixels;
    store(y + (u64)image * channels + channel, sum);
}

// (batch, pixels, channels) to (batch, channels) in f32; one thread per pack of channels. `packs` divides by the number
// of packs of a pixel.
KERNEL(256, global_avg_pool_forward)(const T *x, float *y, u32 batch, u32 pixels, u32 channels, Divisor packs) {
    if (channels % WIDTH == 0) {
        avg_forward<WIDTH>(x, y, batch, pixels, channels, packs);
    } else {
        avg_forward<1>(x, y, batch, pixels, channels, packs);
    }
}

template <int N> DEVICE void avg_backward(const float *dy, T *dx, u32 batch, u32 pixels, u32 channels, const Divisor &packs) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    u32 image = packs.of(index), channel = (index - image * packs.value) * N;
    if (image >= batch) return;
    float each[N];
    load(each, dy + (u64)image * channels + channel);
#pragma unroll
    for (int j = 0; j < N; ++j) each[j] /= pixels;
    T *to = dx + (u64)image * pixels * channels + channel;
    for (u32 pixel = 0; pixel < pixels; ++pixel) store(to + (u64)pixel * channels, each);
}

// dy / pixels at every pixel; threads as in forward.
KERNEL(256, global_avg_pool_backward)(const float *dy, T *dx, u32 batch, u32 pixels, u32 channels, Divisor packs) {
    if (channels % WIDTH == 0) {
        avg_backward<WIDTH>(dy, dx, batch, pixels, channels, packs);
    } else {
        avg_backward<1>(dy, dx, batch, pixels, channels, packs);
    }
}
