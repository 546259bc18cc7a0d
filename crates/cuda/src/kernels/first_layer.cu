// A network's first layer on tensor cores: a 3 x 3 convolution of stride 1 and padding 1 over 3 channels, in 16 bits, a
// BatchNorm and a ReLU. The convolution's output is recomputed where it is needed, and never in memory. See
// `ops/first_layer.rs`.
//
// A block of 8 warps iterates over strips of 8 rows and 32 columns of outputs. The part of x under a strip (its patch)
// is in shared memory, while that of the next strip is being loaded. The 9 values under a row of taps are adjacent
// there, as they are in x.

static_assert(WIDTH == 8, "tensor cores take pairs of 16 bits");
constexpr u32 THREADS = 256, WARPS = THREADS / WARP;
constexpr u32 ROWS = WARPS, COLUMNS = 32;
constexpr u32 SIDE = 3, CHANNELS = 3, RUN = SIDE * CHANNELS, TAPS = SIDE * RUN;
// Rows of a patch, the values of each, and the distances in values between rows and between the copies of a patch. The
// second copy begins half the banks of shared memory away from the first.
constexpr u32 PATCH_ROWS = ROWS + SIDE - 1, LINE = (COLUMNS + SIDE - 1) * CHANNELS, STEP = LINE + 2, COPY = PATCH_ROWS * STEP + 16;
static_assert(STEP % 2 == 0 && COPY / 2 % 32 == 16, "pairs of values are read at once, from two copies side by side");
// A patch is loaded by groups of threads, each of which loads a row at a time.
constexpr u32 GROUP = 128, GROUPS = THREADS / GROUP, FETCHES = PATCH_ROWS / GROUPS;
static_assert(LINE <= GROUP && PATCH_ROWS % GROUPS == 0, "a thread for every value of a row");

// Sizes of a convolution; the divisors divide by the numbers of strips of an image and of a row of strips.
struct Sizes {
    u32 batch, height, width, out_channels, strips;
    Divisor by_image, by_row;
};

// The first output of a strip.
struct Strip {
    u32 image, row, column;
    DEVICE Strip(u32 index, const Sizes &s) {
        image = s.by_image.of(index);
        u32 rest = index - image * s.by_image.value, line = s.by_row.of(rest);
        row = line * ROWS, column = (rest - line * s.by_row.value) * COLUMNS;
    }
};

// A thread's share of a patch, in registers between x and shared memory. The patch begins a row above and a column left
// of its strip.
struct Share {
    T values[FETCHES];
    DEVICE void fetch(const T *x, const Strip &strip, const Sizes &s) {
        const u32 line = s.width * CHANNELS;
        const T *image = x + (u64)strip.image * s.height * line;
        // Coordinates before the image wrap around to beyond its end.
        const u32 value = threadIdx.x % GROUP, at = strip.column * CHANNELS + value - CHANNELS;
        const bool inside = value < LINE && at < line;
#pragma unroll
        for (u32 u = 0; u < FETCHES; ++u) {
            u32 h = strip.row + threadIdx.x / GROUP + u * GROUPS - 1;
            values[u] = inside && h < s.height ? image[h * line + at] : T{0};
        }
    }
    // Stores the values `shift` places further on.
    DEVICE void put(T *patch, u32 shift) const {
        const u32 value = threadIdx.x % GROUP;
        if (value >= LINE) return;
        patch += threadIdx.x / GROUP * STEP + value + shift;
#pragma unroll
        for (u32 u = 0; u < FETCHES; ++u) patch[u * GROUPS * STEP] = values[u];
    }
};

// Combines the lower halves of two words, or the upper ones, that of the first word in the lower half.
template <bool UPPER> DEVICE u32 halves(u32 first, u32 second) {
#ifdef EMULATED
    return UPPER ? first >> 16 | (second & 0xffff0000u) : (first & 0xffffu) | second << 16;
#else
    return __byte_perm(first, second, UPPER ? 0x7632 : 0x5410);
#endif
}

// Stores 2 or 4 words with one instruction, at an address that is a multiple of their size.
template <int N> DEVICE void store_words(T *to, const Pack<u32, N> &words) {
#ifdef EMULATED
    *reinterpret_cast<Pack<u32, N> *>(to) = words;
#else
    // The compiler sometimes splits a plain assignment.
    u64 at = __cvta_generic_to_global(to);
    if constexpr (N == 2) asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(at), "r"(words.v[0]), "r"(words.v[1]) : "memory");
    if constexpr (N == 4) asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(words.v[0]), "r"(words.v[1]), "r"(words.v[2]), "r"(words.v[3]) : "memory");
#endif
}

// The inner dimension of products of pixels and channels has 32 values: 10 for each row of taps, the last of which is
// 0, and two zeros. Pairs of these values begin at even places of x for even columns and at odd places for odd columns,
// so patches are kept twice, the second copy shifted by one place.
constexpr u32 DEPTH = 32, PADDED_RUN = RUN + 1, PAIRS = DEPTH / 8;
// Words from a channel's weights to the next one's.
constexpr u32 WEIGHTS_STEP = DEPTH / 2 + 1;

// The weights of `count` channels in 16 bits, in shared memory.
DEVICE void put_weights(const float *w, u32 count, u32 *weights) {
    for (u32 i = threadIdx.x; i < count * DEPTH; i += THREADS) {
        u32 channel = i / DEPTH, k = i % DEPTH, row = k / PADDED_RUN, value = k % PADDED_RUN;
        bool is_tap = row < SIDE && value < RUN;
        reinterpret_cast<T *>(weights)[channel * 2 * WEIGHTS_STEP + k] =
            Narrow<T>::of(is_tap ? w[channel * TAPS + row * RUN + value] : 0.0f);
    }
    __syncthreads();
}

// Where a lane finds the values under the taps of pixel g of a row, with lane = 4 g + t: for each pair of values at
// 8 q + 2 t, its offset in words from the beginning of the row in the patch, and a mask of its values that are under a
// tap.
struct Taps {
    u32 offset[PAIRS], mask[PAIRS];
    DEVICE Taps() {
        const u32 lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
        for (u32 q = 0; q < PAIRS; ++q) {
            u32 k = q * 8 + 2 * t, row = k / PADDED_RUN, value = k % PADDED_RUN;
            offset[q] = row < SIDE ? (row * STEP + value) / 2 : 0;
            mask[q] = row == SIDE ? 0 : value + 1 == RUN ? 0xffff : 0xffffffff;
            offset[q] += (g % 2 * COPY + CHANNELS * g + g % 2) / 2;
        }
    }
    // The pair for the pixel `column` further on, a multiple of 8. With `any`, values under no tap may be of other
    // pixels.
    DEVICE u32 any(const u32 *row, u32 q, u32 column) const { return row[offset[q] + column * CHANNELS / 2]; }
    DEVICE u32 of(const u32 *row, u32 q, u32 column) const { return any(row, q, column) & mask[q]; }
};

// What `convolve` does with outputs: it writes their sums and those of squares to `partials`, (pieces, 2, channels),
// one piece per block, or sets y to relu(output scale + shift).
constexpr int SUMS = 0, NORMALIZE = 1;
// The distance between values of a thread, such that those of one channel, which a warp reads together, are in many
// banks.
constexpr u32 PLACES = THREADS + 4;

// A block has 8 TILES channels, a warp a row of a strip. Rows of products are 16 adjacent pixels, columns are 8
// channels. `patches` has room for two patches of two copies each, `weights` for WEIGHTS_STEP words per channel,
// `places` for 4 TILES values for each of PLACES threads.
template <int TILES, int PURPOSE>
DEVICE void convolve(const T *x, const float *w, const float *coefficients, T *y, double *partials, const Sizes &s, u32 *patches,
                     u32 *weights, float *places) {
    // The columns of tiles are channels in an order that gives a lane 2 TOGETHER adjacent channels, to be written with
    // one instruction.
    constexpr int TOGETHER = TILES < 4 ? TILES : 4;
    constexpr u32 OUT = 8 * TILES;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const u32 first = blockIdx.y * OUT;
    put_weights(w + first * TAPS, OUT, weights);
    u32 b[2][TILES][2];
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
        u32 channel = n / TOGETHER * 8 * TOGETHER + g / 2 * 2 * TOGETHER + n % TOGETHER * 2 + g % 2;
#pragma unroll
        for (int q = 0; q < 4; ++q) b[q / 2][n][q % 2] = weights[channel * WEIGHTS_STEP + q * 4 + t];
    }
    const Taps taps;
    // The lane's first channel, and for each of its channels the sum and that of squares, or scale and shift.
    const u32 own = first + t * 2 * TOGETHER;
    float of_channel[2][2 * TILES];
#pragma unroll
    for (int i = 0; i < 2 * TILES; ++i) {
        u32 channel = own + i / (2 * TOGETHER) * 8 * TOGETHER + i % (2 * TOGETHER);
        of_channel[0][i] = PURPOSE == NORMALIZE ? coefficients[channel] : 0.0f;
        of_channel[1][i] = PURPOSE == NORMALIZE ? coefficients[s.out_channels + channel] : 0.0f;
    }

    Share share;
    share.fetch(x, Strip(blockIdx.x, s), s);
    u32 turn = 0;
    for (u32 index = blockIdx.x; index < s.strips; index += gridDim.x, turn ^= 1) {
        u32 *patch = patches + turn * COPY;
        share.put(reinterpret_cast<T *>(patch), 0);
        share.put(reinterpret_cast<T *>(patch) + COPY, 1);
        // After this, all threads are done with the previous patch, and its place may be overwritten.
        __syncthreads();
        const Strip strip(index, s);
        if (index + gridDim.x < s.strips) share.fetch(x, Strip(index + gridDim.x, s), s);
        const u32 row = strip.row + warp;
        if (row >= s.height) continue;
        T *line = y + ((u64)strip.image * s.height + row) * s.width * s.out_channels + own;
        // Not unrolled: registers are full of weights and of the channels' values.
#pragma unroll 1
        for (u32 m = 0; m < COLUMNS / 16 && strip.column + m * 16 < s.width; ++m) {
            u32 a[2][4];
#pragma unroll
            for (int q = 0; q < 4; ++q) {
#pragma unroll
                for (u32 half = 0; half < 2; ++half) {
                    a[q / 2][q % 2 * 2 + half] = taps.of(patch + warp * STEP / 2, q, m * 16 + half * 8);
                }
            }
#pragma unroll
            for (int n = 0; n < TILES; n += TOGETHER) {
                // Lanes beyond the image's last column were done earlier; tensor cores need all of a warp.
                __syncwarp();
                float c[TOGETHER][4];
#pragma unroll
                for (int i = 0; i < TOGETHER; ++i) {
                    c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0.0f;
                    multiply_add<T>(c[i], a[0], b[0][n + i]);
                    multiply_add<T>(c[i], a[1], b[1][n + i]);
                }
#pragma unroll
                for (u32 half = 0; half < 2; ++half) {
                    u32 column = strip.column + m * 16 + half * 8 + g;
                    if (column >= s.width) continue;
                    if constexpr (PURPOSE == NORMALIZE) {
                        Pack<u32, TOGETHER> words;
#pragma unroll
                        for (int i = 0; i < TOGETHER; ++i) {
                            float v[2];
#pragma unroll
                            for (int e = 0; e < 2; ++e) {
                                int at = 2 * (n + i) + e;
                                v[e] = at_least(0.0f, affine(c[i][2 * half + e], of_channel[0][at], of_channel[1][at]));
                            }
                            words.v[i] = narrow_pair<T>(v[0], v[1]);
                        }
                        store_words(line + column * s.out_channels + n * 8, words);
                    } else {
#pragma unroll
                        for (int i = 0; i < 2 * TOGETHER; ++i) {
                            float v = c[i / 2][2 * half + i % 2];
                            of_channel[0][2 * n + i] += v;
                            of_channel[1][2 * n + i] = fmaf(v, v, of_channel[1][2 * n + i]);
                        }
                    }
                }
            }
        }
    }
    if constexpr (PURPOSE == SUMS) {
#pragma unroll
        for (int i = 0; i < 4 * TILES; ++i) places[i * PLACES + threadIdx.x] = of_channel[i / (2 * TILES)][i % (2 * TILES)];
        __syncthreads();
        for (u32 i = threadIdx.x; i < 2 * OUT; i += THREADS) {
            // Over all lanes that have the channel; `value` is its index among a lane's values.
            u32 channel = i % OUT, n = channel / (8 * TOGETHER) * TOGETHER + channel % (2 * TOGETHER) / 2, value = i / OUT * 2 * TILES + 2 * n + channel % 2;
            double total = 0.0;
            for (u32 from = channel / (2 * TOGETHER) % 4; from < THREADS; from += 4) total += places[value * PLACES + from];
            partials[((u64)blockIdx.x * 2 + i / OUT) * s.out_channels + first + channel] = total;
        }
    }
}

// Blocks along y have 64 channels each if `wide`, else 16; blocks along x are the pieces of `partials`.
KERNEL(BY_TWOS, first_layer_sums)(const T *x, const float *w, double *partials, Sizes s, u32 wide) {
    SHARED u32 patches[2 * COPY];
    SHARED u32 weights[64 * WEIGHTS_STEP];
    SHARED float places[32 * PLACES];
    if (wide) {
        convolve<8, SUMS>(x, w, nullptr, nullptr, partials, s, patches, weights, places);
    } else {
        convolve<2, SUMS>(x, w, nullptr, nullptr, partials, s, patches, weights, places);
    }
}

KERNEL(BY_TWOS, first_layer_forward)(const T *x, const float *w, const float *coefficients, T *y, Sizes s, u32 wide) {
    SHARED u32 patches[2 * COPY];
    SHARED u32 weights[64 * WEIGHTS_STEP];
    if (wide) {
        convolve<8, NORMALIZE>(x, w, coefficients, y, nullptr, s, patches, weights, nullptr);
    } else {
        convolve<2, NORMALIZE>(x, w, coefficients, y, nullptr, s, patches, weights, nullptr);
    }
}

// dy of 16 adjacent pixels. A lane has EACH channels of pixels 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
template <int EACH> struct Gradients {
    static constexpr int WORDS = EACH / 2;
    Pack<u32, WORDS> pixels[4];

    // `first` points to the lane's channels of its first pixel, which is in `column` of a row. `width` is that of the
    // row, or 0 for a row outside the image.
    DEVICE void fetch(const T *first, u32 column, u32 width, u32 channels) {
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 further = i / 2 * 8 + i % 2;
            if (column + further < width) {
                pixels[i] = load_once<WORDS>(reinterpret_cast<const u32 *>(first + further * channels));
            } else {
#pragma unroll
                for (int word = 0; word < WORDS; ++word) pixels[i].v[word] = 0;
            }
        }
    }
    // The values of channel n in the first two pixels or the second two.
    DEVICE u32 pair(int n, int second) const {
        u32 even = pixels[2 * second].v[n / 2], odd = pixels[2 * second + 1].v[n / 2];
        return n % 2 ? halves<true>(even, odd) : halves<false>(even, odd);
    }
};

// Keeps each value of a pair if the corresponding one of `first` and `second` is negative, else 0.
DEVICE u32 where_negative(u32 pair, float first, float second) {
#ifdef EMULATED
    return pair & ((first < 0.0f ? 0xffffu : 0u) | (second < 0.0f ? 0xffff0000u : 0u));
#else
    // The sign bits of both, each replicated to 16 bits. A NaN that arithmetic produces has no sign bit.
    u32 mask;
    asm("prmt.b32 %0, %1, %2, 0xffbb;" : "=r"(mask) : "r"(__float_as_uint(first)), "r"(__float_as_uint(second)));
    return pair & mask;
#endif
}

// The correlations, from which all sums over pixels of the gradients follow: for each channel the sums of g times the
// value under each tap, and of g, where g is dy where the ReLU let values through; then the sums of products of the
// values under each two taps, and of a tap's value and 1.
constexpr u32 KINDS = TAPS + 1;
constexpr u32 CORRELATE_PLACES = WARPS * 2 * 4 * PAIRS * (WARP + 2);

// Products of channels and pixels (the convolution), then of the gradients that the ReLU lets through and taps. Rows
// are 16 channels, TILES such tiles per warp; columns are 8 pixels, and then 8 taps. APART adjacent warps share the
// channels of a block and APART rows of a strip. Row g of tile m is channel 2 TILES g + 2 m and row g + 8 the next one,
// so that a lane reads its channels of a pixel together, and no other lane needs them; the first product's results in a
// lane are its operands of the second.
//
// `partials` is (pieces, (channels + KINDS) KINDS). `patches` has room for two patches of two copies each, `places` for
// CORRELATE_PLACES values.
template <int TILES, int APART>
DEVICE void correlate(const T *x, const float *w, const float *coefficients, const T *dy, double *partials, const Sizes &s, u32 *patches,
                      u32 *weights, float *places) {
    constexpr int EACH = 2 * TILES;
    constexpr u32 OUT = 8 * EACH * APART, PARTS = COLUMNS / 16;
    // Products of taps with taps have 32 rows, 16 per tile, which adjacent warps share.
    constexpr int SQUARES = 2 / APART;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const u32 own_row = warp / APART * APART, own_channel = (warp % APART * 8 + g) * EACH;
    const u32 first = blockIdx.y * OUT;
    // Values between the rows of a patch are under no tap and multiplied by 0, so they must be finite.
    for (u32 i = threadIdx.x; i < 2 * COPY; i += THREADS) patches[i] = 0;
    put_weights(w + first * TAPS, OUT, weights);
    // Weights in the layout of products, scales and shifts are re-read each time: registers are full of sums.
    typedef Pack<u32, 4> Filter;
    typedef Pack<float, 4> Affine;
    Filter *filters = reinterpret_cast<Filter *>(places);
    Affine *affines = reinterpret_cast<Affine *>(filters + 2 * TILES * APART * WARP);
    for (u32 i = threadIdx.x; i < 2 * TILES * APART * WARP; i += THREADS) {
        // The weights in `half` of the inner dimension of tile m, for lane 4 row + pair of a warp.
        u32 pair = i % 4, row = i / 4 % 8, half = i / WARP % 2, m = i / WARP / 2 % TILES, group = i / WARP / 2 / TILES;
        const u32 *from = weights + ((group * 8 + row) * EACH + 2 * m) * WEIGHTS_STEP + half * 8 + pair;
        filters[i] = Filter{{from[0], from[WEIGHTS_STEP], from[4], from[WEIGHTS_STEP + 4]}};
    }
    for (u32 i = threadIdx.x; i < OUT / 2; i += THREADS) {
        const float *scale = coefficients + first + 2 * i, *shift = scale + s.out_channels;
        // Negated, so that the sign bit is set exactly where the ReLU's input is positive: 0 has no sign bit then.
        affines[i] = Affine{{-scale[0], 0.0f - shift[0], -scale[1], 0.0f - shift[1]}};
    }
    filters += warp % APART * 2 * TILES * WARP + lane;
    dy += first + own_channel;
    const Taps taps;
    // The offset of the value under tap 8 q + g, for the lane's first pixel. After the taps comes the constant 1;
    // columns after that are computed with the first tap's values, and left out.
    u32 offset[PAIRS];
#pragma unroll
    for (u32 q = 0; q < PAIRS; ++q) {
        u32 tap = q * 8 + g;
        offset[q] = 2 * t * CHANNELS + (tap < TAPS ? tap / RUN * STEP + tap % RUN : 0);
    }
    const bool is_one = g == TAPS % 8;
    const u32 one = Narrow<T>::of(1.0f).bits, ones = one | one << 16;
    float sum[TILES][PAIRS][4], square[SQUARES][PAIRS][4];
#pragma unroll
    for (int i = 0; i < 4 * (int)PAIRS; ++i) {
#pragma unroll
        for (int m = 0; m < TILES; ++m) sum[m][i / 4][i % 4] = 0.0f;
#pragma unroll
        for (int m = 0; m < SQUARES; ++m) square[m][i / 4][i % 4] = 0.0f;
    }

    Share share;
    // The gradients of the next row.
    Gradients<EACH> gradients[PARTS];
    auto lane_at = [&](u32 image, u32 row, u32 column) {
        return dy + (((u64)image * s.height + row) * s.width + column + 2 * t) * s.out_channels;
    };
    Strip strip(blockIdx.x, s);
    share.fetch(x, strip, s);
#pragma unroll
    for (u32 part = 0; part < PARTS; ++part) {
        const u32 row = strip.row + own_row, column = strip.column + part * 16;
        gradients[part].fetch(lane_at(strip.image, row, column), column + 2 * t, row < s.height ? s.width : 0, s.out_channels);
    }
    u32 turn = 0;
    for (u32 index = blockIdx.x; index < s.strips; index += gridDim.x, turn ^= 1) {
        u32 *words = patches + turn * COPY;
        T *patch = reinterpret_cast<T *>(words);
        share.put(patch, 0);
        share.put(patch + COPY, 1);
        // After this, all threads are done with the previous patch, and its place may be overwritten.
        __syncthreads();
        const u32 rows = s.height - strip.row, columns = s.width - strip.column;
        const bool goes_on = index + gridDim.x < s.strips;
        const Strip next(index + (goes_on ? gridDim.x : 0), s);
#pragma unroll 1
        for (u32 row = own_row; row < own_row + APART; ++row) {
            // After the last strip, its first row is fetched once more but not used.
            const bool is_last = row + 1 == own_row + APART;
            const u32 image = is_last ? next.image : strip.image, next_row = is_last ? next.row + own_row : strip.row + row + 1;
            const u32 first_column = is_last ? next.column : strip.column, width = next_row < s.height ? s.width : 0;
            const T *next_line = lane_at(image, next_row, first_column);
#ifndef EMULATED
            // Stops the compiler from recomputing the address for each load.
            asm volatile("" : "+l"(next_line));
#endif
#pragma unroll
            for (u32 part = 0; part < PARTS; ++part) {
                const u32 column = part * 16;
                // g of these pixels, unused if the row is outside the image.
                u32 open[TILES][4];
                const bool inside_image = row < rows && column < columns;
                if (inside_image) {
                    u32 pixel[2][2][2];
#pragma unroll
                    for (u32 q = 0; q < PAIRS; ++q) {
#pragma unroll
                        for (u32 late = 0; late < 2; ++late) {
                            pixel[late][q / 2][q % 2] = taps.any(words + row * STEP / 2, q, column + late * 8);
                        }
                    }
                    // The gradients were fetched lane by lane.
                    __syncwarp();
#pragma unroll
                    for (int m = 0; m < TILES; ++m) {
                        const Affine by = affines[own_channel / 2 + m];
                        const Filter filter[2] = {filters[2 * m * WARP], filters[(2 * m + 1) * WARP]};
#pragma unroll
                        for (int late = 0; late < 2; ++late) {
                            float z[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                            multiply_add<T>(z, filter[0].v, pixel[late][0]);
                            multiply_add<T>(z, filter[1].v, pixel[late][1]);
#pragma unroll
                            for (int i = 0; i < 4; ++i) z[i] = affine(z[i], by.v[i / 2 * 2], by.v[i / 2 * 2 + 1]);
#pragma unroll
                            for (int n = 0; n < 2; ++n) {
                                open[m][2 * late + n] = where_negative(gradients[part].pair(2 * m + n, late), z[2 * n], z[2 * n + 1]);
                            }
                        }
                    }
                }
                gradients[part].fetch(next_line + column * s.out_channels, first_column + column + 2 * t, width, s.out_channels);
                // Here, because registers are free now.
                if (part + 1 == PARTS && is_last && goes_on) share.fetch(x, next, s);
                if (!inside_image) continue;
                // The values under tap 8 q + g for pairs of pixels, 0 for pixels outside the image.
                u32 under[PAIRS][2];
#pragma unroll
                for (u32 late = 0; late < 2; ++late) {
                    const u32 at = column + late * 8;
                    u32 inside = 0xffffffff;
                    if (at + 2 * t + 1 >= columns) inside = at + 2 * t < columns ? 0xffff : 0;
#pragma unroll
                    for (u32 q = 0; q < PAIRS; ++q) {
                        const T *pair = patch + offset[q] + row * STEP + at * CHANNELS;
                        under[q][late] = halves<false>(pair[0].bits, pair[CHANNELS].bits);
                        if (q == TAPS / 8 && is_one) under[q][late] = ones;
                        under[q][late] &= inside;
                    }
                }
                // The next gradients were, too.
                __syncwarp();
#pragma unroll
                for (int m = 0; m < SQUARES; ++m) {
                    const bool upper = APART == 2 ? warp % 2 : m;
                    u32 a[4];
#pragma unroll
                    for (int i = 0; i < 4; ++i) a[i] = upper ? under[2 + i % 2][i / 2] : under[i % 2][i / 2];
#pragma unroll
                    for (u32 q = 0; q < PAIRS; ++q) multiply_add<T>(square[m][q], a, under[q]);
                }
#pragma unroll
                for (int m = 0; m < TILES; ++m) {
#pragma unroll
                    for (u32 q = 0; q < PAIRS; ++q) multiply_add<T>(sum[m][q], open[m], under[q]);
                }
            }
        }
        strip = next;
    }
    partials += (u64)blockIdx.x * (s.out_channels + KINDS) * KINDS;
    // A little more than a warp's lanes between its values, so that those of one channel are in many banks.
    constexpr u32 LANES = WARP + 2, VALUES = 4 * PAIRS * LANES;
    static_assert(8 * 2 * VALUES == CORRELATE_PLACES, "for each warp two tiles");
    // Other threads may still read from `places`.
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4 * (int)PAIRS * TILES; ++i) {
        places[warp * TILES * VALUES + i * LANES + lane] = sum[i / 4 / PAIRS][i / 4 % PAIRS][i % 4];
    }
    __syncthreads();
    // The place of `row` (g or g + 8) and column `kind` of a tile in a warp's values.
    auto place = [](u32 row, u32 kind) { return (kind / 8 * 4 + row / 8 * 2 + kind % 2) * LANES + row % 8 * 4 + kind % 8 / 2; };
    for (u32 i = threadIdx.x; i < OUT * KINDS; i += THREADS) {
        u32 channel = i / KINDS, own = channel % (8 * EACH);
        const float *from = places + (channel / (8 * EACH) * TILES + own % EACH / 2) * VALUES + place(own / EACH + own % 2 * 8, i % KINDS);
        double total = 0.0;
#pragma unroll
        for (u32 at = 0; at < WARPS; at += APART) total += from[at * TILES * VALUES];
        partials[first * KINDS + i] = total;
    }
    // Blocks of other channels compute the same products of taps with taps.
    if (blockIdx.y > 0) return;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4 * (int)PAIRS * SQUARES; ++i) {
        places[warp * SQUARES * VALUES + i * LANES + lane] = square[i / 4 / PAIRS][i / 4 % PAIRS][i % 4];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < KINDS * KINDS; i += THREADS) {
        // Tiles in order: those of a warp, then those of the adjacent one.
        u32 row = i / KINDS;
        const float *from = places + row / 16 * VALUES + place(row % 16, i % KINDS);
        double total = 0.0;
#pragma unroll
        for (u32 at = 0; at < WARPS; at += APART) total += from[at * SQUARES * VALUES];
        partials[s.out_channels * KINDS + i] = total;
    }
}

// Blocks as in `first_layer_sums`.
KERNEL(BY_TWOS, first_layer_correlations)
(const T *x, const float *w, const float *coefficients, const T *dy, double *partials, Sizes s, u32 wide) {
    SHARED u32 patches[2 * COPY];
    SHARED u32 weights[64 * WEIGHTS_STEP];
    // Aligned for reads of 16 bytes.
    alignas(16) SHARED float places[CORRELATE_PLACES];
    if (wide) {
        correlate<2, 2>(x, w, coefficients, dy, partials, s, patches, weights, places);
    } else {
        correlate<1, 1>(x, w, coefficients, dy, partials, s, patches, weights, places);
    }
}

// A weight as rounded for the products.
DEVICE double rounded(float weight) { return widen(Narrow<T>::of(weight)); }

// [sum of g, sum of g (y - mean)], where y is the convolution's output; one thread per channel.
KERNEL(256, first_layer_backward_sums)(const double *correlations, const float *w, const float *coefficients, double *sums, u32 channels) {
    u32 c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const double *of_channel = correlations + c * KINDS, sum = of_channel[TAPS];
    double product = -(double)coefficients[2 * channels + c] * sum;
    for (u32 tap = 0; tap < TAPS; ++tap) product += rounded(w[c * TAPS + tap]) * of_channel[tap];
    sums[c] = sum;
    sums[channels + c] = product;
}

// dw, from dy_conv = g a + y b + c in each channel, where `abc` is [a, b, c]; one thread per weight.
KERNEL(256, first_layer_backward_weight)
(const double *correlations, const float *w, const float *abc, float *dw, u32 channels) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= channels * TAPS) return;
    u32 channel = i / TAPS, tap = i % TAPS;
    const double *of_tap = correlations + (channels + tap) * KINDS;
    double of_output = 0.0;
    for (u32 other = 0; other < TAPS; ++other) of_output += rounded(w[channel * TAPS + other]) * of_tap[other];
    dw[i] = (float)(abc[channel] * correlations[channel * KINDS + tap] + abc[channels + channel] * of_output +
                    abc[2 * channels + channel] * of_tap[TAPS]);
}
