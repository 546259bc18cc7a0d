// Convolutions of few channels packed into ones of 8 channels or more, which suit tensor cores: see `ops/stem.rs`.
//
// Value (a, b, c) of a packed pixel (i, j) is channel c of pixel (stride (i + first) + a, stride (j + first) + b), with
// a and b below the stride, and 0 if that lies outside the image. These stride^2 C values are followed by zeros up to
// whole packs. Weights are packed in the same way, with tap `padding` in the place of pixel 0.

// Sizes of a packed convolution. `first` is floor(-padding / stride).
struct Stem {
    u32 batch, height, width, channels, out_channels, side_height, side_width, stride, padding;
    int first;
    u32 packed_height, packed_width, packed_channels, packed_side_height, packed_side_width;
    Divisor by_packed_width;
};

// The place of value `value` of a packed pixel: row and column below the stride, and the channel. `of` returns false
// for the zeros that follow the values of x.
struct Place {
    u32 row, column, channel;
    DEVICE bool of(u32 value, const Stem &s) {
        u32 line = s.stride * s.channels;
        // The stride is 1 or 2.
        row = value >= line, value -= row * line;
        column = value >= s.channels, channel = value - column * s.channels;
        return row < s.stride && column < s.stride && channel < s.channels;
    }
};

// One thread per pack of WIDTH values, for each image of the block. `packs` divides by the number of packs of a pixel.
KERNEL(256, stem_pack_images)(const T *x, T *packed, Stem s, Divisor packs) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= s.packed_height * s.packed_width * packs.value) return;
    u32 pixel = packs.of(index), first = (index - pixel * packs.value) * WIDTH;
    u32 i = s.by_packed_width.of(pixel), j = pixel - i * s.packed_width;
    // Coordinates before the image wrap around to beyond its end.
    u32 top = s.stride * (u32)((int)i + s.first), left = s.stride * (u32)((int)j + s.first);
    // Offsets into an image; those outside are not used.
    u32 offsets[WIDTH];
    bool inside[WIDTH];
#pragma unroll
    for (int v = 0; v < WIDTH; ++v) {
        Place place;
        inside[v] = place.of(first + v, s);
        u32 h = top + place.row, w = left + place.column;
        inside[v] = inside[v] && h < s.height && w < s.width;
        offsets[v] = (h * s.width + w) * s.channels + place.channel;
    }
    u32 length = s.height * s.width * s.channels;
    u64 packed_length = (u64)s.packed_height * s.packed_width * s.packed_channels;
    for (u32 image = blockIdx.y; image < s.batch; image += gridDim.y) {
        const T *from = x + (u64)image * length;
        Pack<T, WIDTH> pack;
#pragma unroll
        for (int v = 0; v < WIDTH; ++v) pack.v[v] = inside[v] ? from[offsets[v]] : Narrow<T>::of(0.0f);
        *reinterpret_cast<Pack<T, WIDTH> *>(packed + image * packed_length + (u64)index * WIDTH) = pack;
    }
}

// Packs weights from (K, R, S, C) in f32, rounded; one thread per packed value.
KERNEL(256, stem_pack_weights)(const float *w, T *packed, Stem s) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    u32 taps = s.packed_side_height * s.packed_side_width;
    if (index >= s.out_channels * taps * s.packed_channels) return;
    u32 value = index % s.packed_channels, tap = index / s.packed_channels % taps, k = index / s.packed_channels / taps;
    Place place;
    bool inside = place.of(value, s);
    u32 r = s.stride * (u32)((int)(tap / s.packed_side_width) + s.first) + s.padding + place.row;
    u32 c = s.stride * (u32)((int)(tap % s.packed_side_width) + s.first) + s.padding + place.column;
    inside = inside && r < s.side_height && c < s.side_width;
    packed[index] = Narrow<T>::of(inside ? w[((k * s.side_height + r) * s.side_width + c) * s.channels + place.channel] : 0.0f);
}

// Unpacks the gradient of packed weights to that of (K, R, S, C), both in f32; one thread per unpacked value.
KERNEL(256, stem_unpack_weights)(const float *packed, float *w, Stem s) {
    u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= s.out_channels * s.side_height * s.side_width * s.channels) return;
    u32 channel = index % s.channels, tap = index / s.channels;
    u32 c = tap % s.side_width, r = tap / s.side_width % s.side_height, k = tap / s.side_width / s.side_height;
    // Relative to the first packed tap: `first` times the stride is at most -padding.
    u32 before = s.stride * (u32)-s.first - s.padding;
    u32 row = r + before, column = c + before;
    u32 at = (k * s.packed_side_height + row / s.stride) * s.packed_side_width + column / s.stride;
    w[index] = packed[at * s.packed_channels + ((row % s.stride) * s.stride + column % s.stride) * s.channels + channel];
}
