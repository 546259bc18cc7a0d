// Gathering the pixels that a strided 1 x 1 convolution reads, and scattering them back.

// x is (batch, height, width, channels), the gathered pixels are (batch, rows, columns, channels). `by_packs` divides
// by the number of packs of a pixel.
struct Strided {
    u32 batch, height, width, rows, columns, channels, stride;
    Divisor by_packs, by_columns, by_width, by_stride;
};

// Calls `pass(image, index)` for each image of the block, where `index` is the thread's number among `shares`.
template <class Pass> DEVICE void for_images(const Strided &s, u32 shares, Pass pass) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= shares) return;
    for (u32 image = blockIdx.y; image < s.batch; image += gridDim.y) pass(image, index);
}

// The first value, in an image of x, of the pack that is number `index` among the gathered ones.
DEVICE u32 origin(const Strided &s, u32 index, u32 width) {
    u32 pixel = s.by_packs.of(index), row = s.by_columns.of(pixel), column = pixel - row * s.columns;
    u32 pack = index - pixel * s.by_packs.value;
    return (row * s.width + column) * s.stride * s.channels + pack * width;
}

template <int N> DEVICE void gather(const T *x, T *to, const Strided &s) {
    u32 shares = s.rows * s.columns * s.by_packs.value, length = s.height * s.width * s.channels;
    for_images(s, shares, [&](u32 image, u32 index) {
        const T *from = x + (u64)image * length + origin(s, index, N);
        *reinterpret_cast<Pack<T, N> *>(to + ((u64)image * shares + index) * N) = load_pack<N>(from);
    });
}

// One thread per gathered pack.
KERNEL(256, strided_gather)(const T *x, T *to, Strided s) {
    if (s.channels % WIDTH == 0) gather<WIDTH>(x, to, s);
    else gather<1>(x, to, s);
}

template <int N> DEVICE void add(const T *values, T *x, const Strided &s) {
    u32 shares = s.rows * s.columns * s.by_packs.value, length = s.height * s.width * s.channels;
    for_images(s, shares, [&](u32 image, u32 index) {
        T *to = x + (u64)image * length + origin(s, index, N);
        float sum[N], value[N];
        load(sum, to);
        unpack(value, load_once<N>(values + ((u64)image * shares + index) * N));
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += value[i];
        store(to, sum);
    });
}

// Adds values to the pixels of x; one thread per pack of values.
KERNEL(256, strided_add)(const T *values, T *x, Strided s) {
    if (s.channels % WIDTH == 0) add<WIDTH>(values, x, s);
    else add<1>(values, x, s);
}

template <int N> DEVICE void spread(const T *values, T *x, const Strided &s) {
    u32 packs = s.by_packs.value, shares = s.height * s.width * packs, length = s.rows * s.columns * s.channels;
    for_images(s, shares, [&](u32 image, u32 index) {
        u32 pixel = s.by_packs.of(index), h = s.by_width.of(pixel), w = pixel - h * s.width;
        u32 row = s.by_stride.of(h), column = s.by_stride.of(w);
        Pack<T, N> pack;
        if (row * s.stride == h && column * s.stride == w) {
            const T *from = values + (u64)image * length + (row * s.columns + column) * s.channels + (index - pixel * packs) * N;
            pack = load_once<N>(from);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) pack.v[i] = Narrow<T>::of(0.0f);
        }
        *reinterpret_cast<Pack<T, N> *>(x + ((u64)image * shares + index) * N) = pack;
    });
}

// Writes values to the pixels of x that the convolution reads, and zeros to the others; one thread per pack of x.
KERNEL(256, strided_spread)(const T *values, T *x, Strided s) {
    if (s.channels % WIDTH == 0) spread<WIDTH>(values, x, s);
    else spread<1>(values, x, s);
}
