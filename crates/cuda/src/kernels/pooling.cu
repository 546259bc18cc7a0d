// Pooling over images, channels last.

// Shapes of max pooling: (batch, in_height, in_width, channels) to (batch, out_height, out_width, channels).
struct Window {
    u32 batch, in_height, in_width, channels, out_height, out_width, side_height, side_width, stride, padding;
};

template <int N> DEVICE void max_forward(const T *x, T *y, const Window &w) {
    u32 packs = w.channels / N;
    i64 count = (i64)w.batch * w.out_height * w.out_width * packs;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
        i64 pixel = i / packs;
        u32 channel = (u32)(i % packs) * N;
        u32 q = pixel % w.out_width, p = pixel / w.out_width % w.out_height;
        i64 image = pixel / ((i64)w.out_width * w.out_height);
        float most[N];
#pragma unroll
        for (int j = 0; j < N; ++j) most[j] = -INFINITE;
        for (u32 r = 0; r < w.side_height; ++r) {
            for (u32 s = 0; s < w.side_width; ++s) {
                // What lies before the image wraps around, beyond its end.
                u32 h = p * w.stride + r - w.padding, v = q * w.stride + s - w.padding;
                if (h >= w.in_height || v >= w.in_width) continue;
                float value[N];
                load(value, x + ((image * w.in_height + h) * w.in_width + v) * w.channels + channel);
#pragma unroll
                for (int j = 0; j < N; ++j) most[j] = value[j] > most[j] || is_nan(value[j]) ? value[j] : most[j];
            }
        }
        store(y + pixel * w.channels + channel, most);
    }
}

// Padding never wins; a NaN does.
KERNEL(256, max_pool_forward)(const T *x, T *y, Window window) {
    if (window.channels % WIDTH == 0) {
        max_forward<WIDTH>(x, y, window);
    } else {
        max_forward<1>(x, y, window);
    }
}

// Whether each value at tap (row, column) is the first of its window's greatest ones: `hit` stays where no earlier tap equals y.
template <int N>
DEVICE void first_of_window(bool (&hit)[N], const T *x, const float (&y)[N], const Window &w, i64 image, u32 channel, u32 p, u32 q,
                            u32 row, u32 column) {
    for (u32 r = 0; r <= row; ++r) {
        for (u32 s = 0; s < w.side_width; ++s) {
            if (r == row && s >= column) return;
            u32 h = p * w.stride + r - w.padding, v = q * w.stride + s - w.padding;
            if (h >= w.in_height || v >= w.in_width) continue;
            float value[N];
            load(value, x + ((image * w.in_height + h) * w.in_width + v) * w.channels + channel);
#pragma unroll
            for (int j = 0; j < N; ++j) hit[j] = hit[j] && value[j] != y[j];
        }
    }
}

template <int N> DEVICE void max_backward(const T *x, const T *y, const T *dy, T *dx, const Window &w) {
    u32 packs = w.channels / N;
    i64 count = (i64)w.batch * w.in_height * w.in_width * packs;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
        i64 pixel = i / packs;
        u32 channel = (u32)(i % packs) * N;
        u32 v = pixel % w.in_width, h = pixel / w.in_width % w.in_height;
        i64 image = pixel / ((i64)w.in_width * w.in_height);
        float own[N], sum[N];
        load(own, x + pixel * w.channels + channel);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = 0.0f;
        // The windows that this pixel is in, in the order of their outputs.
        u32 bottom = h + w.padding, right = v + w.padding;
        u32 p_first = bottom < w.side_height ? 0 : (bottom - w.side_height) / w.stride + 1;
        u32 q_first = right < w.side_width ? 0 : (right - w.side_width) / w.stride + 1;
        for (u32 p = p_first; p < w.out_height && p * w.stride <= bottom; ++p) {
            for (u32 q = q_first; q < w.out_width && q * w.stride <= right; ++q) {
                i64 at = ((image * w.out_height + p) * w.out_width + q) * w.channels + channel;
                float most[N];
                load(most, y + at);
                bool hit[N], any = false;
#pragma unroll
                for (int j = 0; j < N; ++j) {
                    hit[j] = own[j] == most[j];
                    any = any || hit[j];
                }
                if (!any) continue;
                first_of_window(hit, x, most, w, image, channel, p, q, bottom - p * w.stride, right - q * w.stride);
                float gradient[N];
                load(gradient, dy + at);
#pragma unroll
                for (int j = 0; j < N; ++j) sum[j] += hit[j] ? gradient[j] : 0.0f;
            }
        }
        store(dx + pixel * w.channels + channel, sum);
    }
}

// Each dy goes to its window's greatest value, to the first of equal ones: gathered by the pixels, so that nothing is added twice.
KERNEL(256, max_pool_backward)(const T *x, const T *y, const T *dy, T *dx, Window window) {
    if (window.channels % WIDTH == 0) {
        max_backward<WIDTH>(x, y, dy, dx, window);
    } else {
        max_backward<1>(x, y, dy, dx, window);
    }
}

// (batch, pixels, channels) to (batch, channels) in f32; one thread a value.
KERNEL(256, global_avg_pool_forward)(const T *x, float *y, u32 batch, u32 pixels, u32 channels) {
    i64 count = (i64)batch * channels;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
        const T *from = x + i / channels * pixels * channels + i % channels;
        float sum = 0.0f;
        for (u32 pixel = 0; pixel < pixels; ++pixel) sum += widen(from[(i64)pixel * channels]);
        y[i] = sum / pixels;
    }
}

// dy / pixels at every pixel.
KERNEL(256, global_avg_pool_backward)(const float *dy, T *dx, u32 batch, u32 pixels, u32 channels) {
    i64 count = (i64)batch * pixels * channels;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
        i64 image = i / ((i64)pixels * channels);
        dx[i] = Narrow<T>::of(dy[image * channels + i % channels] / pixels);
    }
}
