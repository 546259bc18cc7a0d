// Selective kernels: images (batch, pixels, 2 channels) hold two streams of channels, one after the other in each
// pixel.

// The first pixel and the first channel of a thread, in every image of its block: it goes over the pixels with a stride
// of `slices`. Adjacent threads have adjacent packs of N channels; `packs` divides by the number of packs in one
// stream.
template <int N> struct Share {
    u32 slice, channel;
    DEVICE Share(const Divisor &packs) {
        u32 index = blockIdx.x * blockDim.x + threadIdx.x;
        slice = packs.of(index);
        channel = (index - slice * packs.value) * N;
    }
};

// The softmax over both streams' logits.
template <int N> DEVICE void softmax(float (&a)[N], float (&b)[N], const float *logits, u32 channels) {
    float first[N], second[N];
    load(first, logits);
    load(second, logits + channels);
#pragma unroll
    for (int j = 0; j < N; ++j) {
        a[j] = 1.0f / (1.0f + expf(second[j] - first[j]));
        b[j] = 1.0f / (1.0f + expf(first[j] - second[j]));
    }
}

template <int N> DEVICE void sum_streams(const T *x, float *partials, u32 batch, u32 pixels, u32 channels, u32 slices, const Divisor &packs) {
    Share<N> own(packs);
    if (own.slice >= slices) return;
    for (u32 image = blockIdx.y; image < batch; image += gridDim.y) {
        const T *from = x + (u64)image * pixels * 2 * channels + own.channel;
        float sum[N];
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = 0.0f;
#pragma unroll 4
        for (u32 pixel = own.slice; pixel < pixels; pixel += slices) {
            const T *at = from + (u64)pixel * 2 * channels;
            float first[N], second[N];
            unpack(first, load_once<N>(at));
            unpack(second, load_once<N>(at + channels));
#pragma unroll
            for (int j = 0; j < N; ++j) sum[j] += first[j] + second[j];
        }
        store(partials + ((u64)image * slices + own.slice) * channels + own.channel, sum);
    }
}

// The sums of both streams over each slice of each image: (batch, slices, channels).
KERNEL(256, fuse_sums)(const T *x, float *partials, u32 batch, u32 pixels, u32 channels, u32 slices, Divisor packs) {
    if (channels % WIDTH == 0) {
        sum_streams<WIDTH>(x, partials, batch, pixels, channels, slices, packs);
    } else {
        sum_streams<1>(x, partials, batch, pixels, channels, slices, packs);
    }
}

// The sum over the slices of an image, in their order. A thread has a channel of each image of its block.
DEVICE float slice_sum(const float *partials, u32 image, u32 channel, u32 channels, u32 slices) {
    const float *from = partials + (u64)image * slices * channels + channel;
    float sum = 0.0f;
    for (u32 slice = 0; slice < slices; ++slice) sum += from[(u64)slice * channels];
    return sum;
}

KERNEL(256, fuse_means)(const float *partials, float *y, u32 batch, u32 pixels, u32 channels, u32 slices) {
    u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    for (u32 image = blockIdx.y; image < batch; image += gridDim.y) {
        y[(u64)image * channels + channel] = slice_sum(partials, image, channel, channels, slices) / pixels;
    }
}

template <int N>
DEVICE void spread(const float *dy, T *dx, u32 add, u32 batch, u32 pixels, u32 channels, u32 slices, const Divisor &packs) {
    Share<N> own(packs);
    if (own.slice >= slices) return;
    for (u32 image = blockIdx.y; image < batch; image += gridDim.y) {
        float each[N];
        load(each, dy + (u64)image * channels + own.channel);
#pragma unroll
        for (int j = 0; j < N; ++j) each[j] /= pixels;
        T *to = dx + (u64)image * pixels * 2 * channels + own.channel;
        for (u32 pixel = own.slice; pixel < pixels; pixel += slices) {
#pragma unroll
            for (u32 stream = 0; stream < 2; ++stream) {
                T *at = to + ((u64)pixel * 2 + stream) * channels;
                float value[N];
                if (add) load(value, at);
#pragma unroll
                for (int j = 0; j < N; ++j) value[j] = add ? value[j] + each[j] : each[j];
                store(at, value);
            }
        }
    }
}

// dy / pixels at every pixel of both streams, written or added.
KERNEL(256, fuse_backward)(const float *dy, T *dx, u32 add, u32 batch, u32 pixels, u32 channels, u32 slices, Divisor packs) {
    if (channels % WIDTH == 0) {
        spread<WIDTH>(dy, dx, add, batch, pixels, channels, slices, packs);
    } else {
        spread<1>(dy, dx, add, batch, pixels, channels, slices, packs);
    }
}

template <int N>
DEVICE void mix(const T *x, const float *logits, T *y, u32 batch, u32 pixels, u32 channels, u32 slices, const Divisor &packs) {
    Share<N> own(packs);
    if (own.slice >= slices) return;
    for (u32 image = blockIdx.y; image < batch; image += gridDim.y) {
        float a[N], b[N];
        softmax(a, b, logits + (u64)image * 2 * channels + own.channel, channels);
        const T *from = x + (u64)image * pixels * 2 * channels + own.channel;
        T *to = y + (u64)image * pixels * channels + own.channel;
#pragma unroll 4
        for (u32 pixel = own.slice; pixel < pixels; pixel += slices) {
            const T *at = from + (u64)pixel * 2 * channels;
            float first[N], second[N], mixed[N];
            load(first, at);
            load(second, at + channels);
#pragma unroll
            for (int j = 0; j < N; ++j) mixed[j] = a[j] * first[j] + b[j] * second[j];
            store(to + (u64)pixel * channels, mixed);
        }
    }
}

// The sum of the streams, weighted by the softmax of the logits (batch, 2 channels).
KERNEL(256, select_forward)(const T *x, const float *logits, T *y, u32 batch, u32 pixels, u32 channels, u32 slices, Divisor packs) {
    if (channels % WIDTH == 0) {
        mix<WIDTH>(x, logits, y, batch, pixels, channels, slices, packs);
    } else {
        mix<1>(x, logits, y, batch, pixels, channels, slices, packs);
    }
}

template <int N>
DEVICE void unmix(const T *dy, const float *logits, T *x, float *partials, u32 batch, u32 pixels, u32 channels, u32 slices, const Divisor &packs) {
    Share<N> own(packs);
    if (own.slice >= slices) return;
    for (u32 image = blockIdx.y; image < batch; image += gridDim.y) {
        float a[N], b[N], sum[N];
        softmax(a, b, logits + (u64)image * 2 * channels + own.channel, channels);
#pragma unroll
        for (int j = 0; j < N; ++j) sum[j] = 0.0f;
        const T *from = dy + (u64)image * pixels * channels + own.channel;
        T *to = x + (u64)image * pixels * 2 * channels + own.channel;
#pragma unroll 4
        for (u32 pixel = own.slice; pixel < pixels; pixel += slices) {
            T *at = to + (u64)pixel * 2 * channels;
            float first[N], second[N], gradient[N];
            load(first, at);
            load(second, at + channels);
            load(gradient, from + (u64)pixel * channels);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                sum[j] += (first[j] - second[j]) * gradient[j];
                first[j] = a[j] * gradient[j];
                second[j] = b[j] * gradient[j];
            }
            store(at, first);
            store(at + channels, second);
        }
        store(partials + ((u64)image * slices + own.slice) * channels + own.channel, sum);
    }
}

// Replaces the streams by their gradients; `partials` gets, for each slice of each image, the sums of (first - second)
// dy.
KERNEL(256, select_backward)
(const T *dy, const float *logits, T *x, float *partials, u32 batch, u32 pixels, u32 channels, u32 slices, Divisor packs) {
    if (channels % WIDTH == 0) {
        unmix<WIDTH>(dy, logits, x, partials, batch, pixels, channels, slices, packs);
    } else {
        unmix<1>(dy, logits, x, partials, batch, pixels, channels, slices, packs);
    }
}

KERNEL(256, select_logits)(const float *partials, const float *logits, float *dlogits, u32 batch, u32 channels, u32 slices) {
    u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    for (u32 image = blockIdx.y; image < batch; image += gridDim.y) {
        u64 at = (u64)image * 2 * channels + channel;
        float a[1], b[1];
        softmax(a, b, logits + at, channels);
        float gradient = a[0] * b[0] * slice_sum(partials, image, channel, channels, slices);
        dlogits[at] = gradient;
        dlogits[at + channels] = -gradient;
    }
}
