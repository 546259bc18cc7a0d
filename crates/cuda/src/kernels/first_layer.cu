// A network's first layer on tensor cores: 3 x 3 taps of stride 1 over 3 channels and a border of one zero, in 16
// bits, a BatchNorm and a ReLU. What the convolution puts out is computed again where it is needed, and never in
// memory. See `ops/first_layer.rs`.
//
// A block of 8 warps walks over strips of 8 rows and 32 columns of outputs. The part of x under a strip lies in
// shared memory; that of the next strip is on its way meanwhile. The 9 values under a row of taps lie side by side
// there, as they do in x.

static_assert(WIDTH == 8, "tensor cores take pairs of 16 bits");
constexpr u32 THREADS = 256, WARPS = THREADS / WARP;
constexpr u32 ROWS = WARPS, COLUMNS = 32;
constexpr u32 SIDE = 3, CHANNELS = 3, RUN = SIDE * CHANNELS, TAPS = SIDE * RUN;
// Rows of a patch, the values of each, and how many values the rows and the copies of a patch lie apart. A copy
// ends half the banks of shared memory away from where it begins.
constexpr u32 PATCH_ROWS = ROWS + SIDE - 1, LINE = (COLUMNS + SIDE - 1) * CHANNELS, STEP = LINE + 2, COPY = PATCH_ROWS * STEP + 16;
static_assert(STEP % 2 == 0 && COPY / 2 % 32 == 16, "pairs of values are read at once, from two copies side by side");
// A patch is brought by groups of threads, a row at once each.
constexpr u32 GROUP = 128, GROUPS = THREADS / GROUP, FETCHES = PATCH_ROWS / GROUPS;
static_assert(LINE <= GROUP && PATCH_ROWS % GROUPS == 0, "a thread for every value of a row");

// Sizes of a convolution, and how many strips an image has and a row of them.
struct Sizes {
    u32 batch, height, width, out_channels, strips;
    Divisor by_image, by_row;
};

// Where a strip begins.
struct Strip {
    u32 image, row, column;
    DEVICE Strip(u32 index, const Sizes &s) {
        image = s.by_image.of(index);
        u32 rest = index - image * s.by_image.value, line = s.by_row.of(rest);
        row = line * ROWS, column = (rest - line * s.by_row.value) * COLUMNS;
    }
};

// A thread's share of a patch, on its way from x to shared memory. The patch begins a row above and a column left
// of its strip.
struct Share {
    T values[FETCHES];
    DEVICE void fetch(const T *x, const Strip &strip, const Sizes &s) {
        const u32 line = s.width * CHANNELS;
        const T *image = x + (u64)strip.image * s.height * line;
        // What lies before the image wraps around, beyond its end.
        const u32 value = threadIdx.x % GROUP, at = strip.column * CHANNELS + value - CHANNELS;
        const bool inside = value < LINE && at < line;
#pragma unroll
        for (u32 u = 0; u < FETCHES; ++u) {
            u32 h = strip.row + threadIdx.x / GROUP + u * GROUPS - 1;
            values[u] = inside && h < s.height ? image[h * line + at] : T{0};
        }
    }
    // Values go `shift` places further than they are counted.
    DEVICE void put(T *patch, u32 shift) const {
        const u32 value = threadIdx.x % GROUP;
        if (value >= LINE) return;
        patch += threadIdx.x / GROUP * STEP + value + shift;
#pragma unroll
        for (u32 u = 0; u < FETCHES; ++u) patch[u * GROUPS * STEP] = values[u];
    }
};

// The lower halves of two words, or the upper ones; that of the first in the lower half.
template <bool UPPER> DEVICE u32 halves(u32 first, u32 second) {
#ifdef EMULATED
    return UPPER ? first >> 16 | (second & 0xffff0000u) : (first & 0xffffu) | second << 16;
#else
    return __byte_perm(first, second, UPPER ? 0x7632 : 0x5410);
#endif
}

// 2 or 4 words at once, from an address that is a multiple of their size.
template <int N> DEVICE void store_words(T *to, const Pack<u32, N> &words) {
#ifdef EMULATED
    *reinterpret_cast<Pack<u32, N> *>(to) = words;
#else
    // As an assignment it is now and then taken apart.
    u64 at = __cvta_generic_to_global(to);
    if constexpr (N == 2) asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(at), "r"(words.v[0]), "r"(words.v[1]) : "memory");
    if constexpr (N == 4) asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(words.v[0]), "r"(words.v[1]), "r"(words.v[2]), "r"(words.v[3]) : "memory");
#endif
}

// Between pixels and channels lie 32 values, 10 for each row of taps, of which the last is 0, and two zeros. Such
// pairs of values begin at even places of x for even columns and at odd ones for odd columns, so that patches are
// kept twice, the second copy one place further.
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

// Where a lane finds the values under the taps of pixel g of a row, with lane = 4 g + t: of the pairs at 8 q + 2 t
// how far each is, in words, from where the row's patch begins, and which of its values are under a tap.
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
    // For the pixel `column` further, a multiple of 8. What is under no tap may be of another pixel.
    DEVICE u32 any(const u32 *row, u32 q, u32 column) const { return row[offset[q] + column * CHANNELS / 2]; }
    DEVICE u32 of(const u32 *row, u32 q, u32 column) const { return any(row, q, column) & mask[q]; }
};

// What `convolve` does with outputs: their sums and those of squares go to `partials`, (pieces, 2, channels), a piece
// a block, or y becomes relu(output scale + shift).
constexpr int SUMS = 0, NORMALIZE = 1;
// Values of a thread lie so far apart that those of one channel, which a warp adds up side by side, are in many banks.
constexpr u32 PLACES = THREADS + 4;

// Of 8 TILES channels a block; rows of products are 16 pixels side by side, columns 8 channels. A warp has a row of a
// strip. `patches` are two of two copies each, `weights` has WEIGHTS_STEP words for each channel, `places` 4 TILES
// values for each of PLACES threads.
template <int TILES, int PURPOSE>
DEVICE void convolve(const T *x, const float *w, const float *coefficients, T *y, double *partials, const Sizes &s, u32 *patches,
                     u32 *weights, float *places) {
    // Columns of tiles are channels in an order by which a lane has 2 TOGETHER channels side by side, to be written
    // at once.
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
    // The lane's first channel, and of its channels the sums and those of squares, or scale and shift.
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
        // Nobody reads the patch before the last any more: who comes here is done with it.
        __syncthreads();
        const Strip strip(index, s);
        if (index + gridDim.x < s.strips) share.fetch(x, Strip(index + gridDim.x, s), s);
        const u32 row = strip.row + warp;
        if (row >= s.height) continue;
        T *line = y + ((u64)strip.image * s.height + row) * s.width * s.out_channels + own;
        // Not unrolled: registers are full of weights and of what channels have.
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
            // Over all lanes that have the channel: `value` is where it is among the lane's.
            u32 channel = i % OUT, n = channel / (8 * TOGETHER) * TOGETHER + channel % (2 * TOGETHER) / 2, value = i / OUT * 2 * TILES + 2 * n + channel % 2;
            double total = 0.0;
            for (u32 from = channel / (2 * TOGETHER) % 4; from < THREADS; from += 4) total += places[value * PLACES + from];
            partials[((u64)blockIdx.x * 2 + i / OUT) * s.out_channels + first + channel] = total;
        }
    }
}

// Blocks along y take 64 channels each where `wide`, else 16; those along x are the pieces of `partials`.
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

// dy of 16 pixels side by side. A lane has EACH channels of pixels 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.
template <int EACH> struct Gradients {
    static constexpr int WORDS = EACH / 2;
    Pack<u32, WORDS> pixels[4];

    // `first` is where the lane's channels of its first pixel lie, in `column` of a row whose width is 0 beyond the
    // image.
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
    // Of channel n, the first two pixels or the second two.
    DEVICE u32 pair(int n, int second) const {
        u32 even = pixels[2 * second].v[n / 2], odd = pixels[2 * second + 1].v[n / 2];
        return n % 2 ? halves<true>(even, odd) : halves<false>(even, odd);
    }
};

// The two values of a pair where z is negative, else 0.
DEVICE u32 where_negative(u32 pair, float first, float second) {
#ifdef EMULATED
    return pair & ((first < 0.0f ? 0xffffu : 0u) | (second < 0.0f ? 0xffff0000u : 0u));
#else
    // Signs of both, repeated: NaN as arithmetic makes it has none.
    u32 mask;
    asm("prmt.b32 %0, %1, %2, 0xffbb;" : "=r"(mask) : "r"(__float_as_uint(first)), "r"(__float_as_uint(second)));
    return pair & mask;
#endif
}

// What all sums over pixels of a gradient are made of: of each channel the sums of g times the value under each tap,
// and of g, g being dy where the ReLU let values through; then of each two taps, and of a tap and 1, the sums of
// products of the values under them.
constexpr u32 KINDS = TAPS + 1;
constexpr u32 CORRELATE_PLACES = WARPS * 2 * 4 * PAIRS * (WARP + 2);

// Products of channels and pixels, then of what these let through and taps: rows are 16 channels, TILES of them a
// warp, columns 8 pixels and then 8 taps. APART warps beside each other have the channels of a block, and APART rows
// of a strip. Row g of tile m is channel 2 TILES g + 2 m and row g + 8 the next one, so that a lane reads its channels
// of a pixel at once, and no other lane needs them; what the first product leaves in a lane is what it brings to the
// second one.
//
// `partials` is (pieces, (channels + KINDS) KINDS). `patches` are two of two copies each; `places` has CORRELATE_PLACES
// values.
template <int TILES, int APART>
DEVICE void correlate(const T *x, const float *w, const float *coefficients, const T *dy, double *partials, const Sizes &s, u32 *patches,
                      u32 *weights, float *places) {
    constexpr int EACH = 2 * TILES;
    constexpr u32 OUT = 8 * EACH * APART, PARTS = COLUMNS / 16;
    // Of the products of taps with taps 32 rows, 16 a tile, are shared by warps beside each other.
    constexpr int SQUARES = 2 / APART;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const u32 own_row = warp / APART * APART, own_channel = (warp % APART * 8 + g) * EACH;
    const u32 first = blockIdx.y * OUT;
    // What lies between rows of a patch is under no tap: it is multiplied by 0.
    for (u32 i = threadIdx.x; i < 2 * COPY; i += THREADS) patches[i] = 0;
    put_weights(w + first * TAPS, OUT, weights);
    // Weights as products take them, scales and shifts are read anew each time: registers are full of sums.
    typedef Pack<u32, 4> Filter;
    typedef Pack<float, 4> Affine;
    Filter *filters = reinterpret_cast<Filter *>(places);
    Affine *affines = reinterpret_cast<Affine *>(filters + 2 * TILES * APART * WARP);
    for (u32 i = threadIdx.x; i < 2 * TILES * APART * WARP; i += THREADS) {
        // Of `half` of the depth of tile m, for lane 4 row + pair of a warp.
        u32 pair = i % 4, row = i / 4 % 8, half = i / WARP % 2, m = i / WARP / 2 % TILES, group = i / WARP / 2 / TILES;
        const u32 *from = weights + ((group * 8 + row) * EACH + 2 * m) * WEIGHTS_STEP + half * 8 + pair;
        filters[i] = Filter{{from[0], from[WEIGHTS_STEP], from[4], from[WEIGHTS_STEP + 4]}};
    }
    for (u32 i = threadIdx.x; i < OUT / 2; i += THREADS) {
        const float *scale = coefficients + first + 2 * i, *shift = scale + s.out_channels;
        // Negated, to see by a sign where the ReLU's input is positive; 0 has none then.
        affines[i] = Affine{{-scale[0], 0.0f - shift[0], -scale[1], 0.0f - shift[1]}};
    }
    filters += warp % APART * 2 * TILES * WARP + lane;
    dy += first + own_channel;
    const Taps taps;
    // Where the value under tap 8 q + g lies, for the first pixel of the lane. Behind the taps stands 1; what is
    // beyond that is computed with the first tap's, and left out.
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
    // Those of the row that comes next.
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
        // Nobody reads the patch before the last any more: who comes here is done with it.
        __syncthreads();
        const u32 rows = s.height - strip.row, columns = s.width - strip.column;
        const bool goes_on = index + gridDim.x < s.strips;
        const Strip next(index + (goes_on ? gridDim.x : 0), s);
#pragma unroll 1
        for (u32 row = own_row; row < own_row + APART; ++row) {
            // Behind the last strip its first row comes once more, in vain.
            const bool is_last = row + 1 == own_row + APART;
            const u32 image = is_last ? next.image : strip.image, next_row = is_last ? next.row + own_row : strip.row + row + 1;
            const u32 first_column = is_last ? next.column : strip.column, width = next_row < s.height ? s.width : 0;
            const T *next_line = lane_at(image, next_row, first_column);
#ifndef EMULATED
            // Or it would be found anew for each load.
            asm volatile("" : "+l"(next_line));
#endif
#pragma unroll
            for (u32 part = 0; part < PARTS; ++part) {
                const u32 column = part * 16;
                // g of these pixels, none where the row is beyond the image.
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
                // Here registers are free for it.
                if (part + 1 == PARTS && is_last && goes_on) share.fetch(x, next, s);
                if (!inside_image) continue;
                // Of pairs of pixels the values under tap 8 q + g, none where a pixel is beyond the image.
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
    // A warp's values lie a little further apart than its lanes, so that those of one channel are in many banks.
    constexpr u32 LANES = WARP + 2, VALUES = 4 * PAIRS * LANES;
    static_assert(8 * 2 * VALUES == CORRELATE_PLACES, "for each warp two tiles");
    // Others may still read what lies in `places`.
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4 * (int)PAIRS * TILES; ++i) {
        places[warp * TILES * VALUES + i * LANES + lane] = sum[i / 4 / PAIRS][i / 4 % PAIRS][i % 4];
    }
    __syncthreads();
    // Where a warp has row g or g + 8 and column `kind` of a tile.
    auto place = [](u32 row, u32 kind) { return (kind / 8 * 4 + row / 8 * 2 + kind % 2) * LANES + row % 8 * 4 + kind % 8 / 2; };
    for (u32 i = threadIdx.x; i < OUT * KINDS; i += THREADS) {
        u32 channel = i / KINDS, own = channel % (8 * EACH);
        const float *from = places + (channel / (8 * EACH) * TILES + own % EACH / 2) * VALUES + place(own / EACH + own % 2 * 8, i % KINDS);
        double total = 0.0;
#pragma unroll
        for (u32 at = 0; at < WARPS; at += APART) total += from[at * TILES * VALUES];
        partials[first * KINDS + i] = total;
    }
    // Blocks beside each other have the same of taps alone.
    if (blockIdx.y > 0) return;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4 * (int)PAIRS * SQUARES; ++i) {
        places[warp * SQUARES * VALUES + i * LANES + lane] = square[i / 4 / PAIRS][i / 4 % PAIRS][i % 4];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < KINDS * KINDS; i += THREADS) {
        // Tile after tile, those of a warp and then of the one beside it.
        u32 row = i / KINDS;
        const float *from = places + row / 16 * VALUES + place(row % 16, i % KINDS);
        double total = 0.0;
#pragma unroll
        for (u32 at = 0; at < WARPS; at += APART) total += from[at * SQUARES * VALUES];
        partials[s.out_channels * KINDS + i] = total;
    }
}

// Blocks as above.
KERNEL(BY_TWOS, first_layer_correlations)
(const T *x, const float *w, const float *coefficients, const T *dy, double *partials, Sizes s, u32 wide) {
    SHARED u32 patches[2 * COPY];
    SHARED u32 weights[64 * WEIGHTS_STEP];
    // Read 16 bytes at once.
    alignas(16) SHARED float places[CORRELATE_PLACES];
    if (wide) {
        correlate<2, 2>(x, w, coefficients, dy, partials, s, patches, weights, places);
    } else {
        correlate<1, 1>(x, w, coefficients, dy, partials, s, patches, weights, places);
    }
}

// A weight as products are made of it.
DEVICE double rounded(float weight) { return widen(Narrow<T>::of(weight)); }

// [sum of g, sum of g (y - mean)], y being what the convolution puts out; a thread a channel.
KERNEL(256, first_layer_backward_sums)(const double *correlations, const float *w, const float *coefficients, double *sums, u32 channels) {
    u32 c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const double *of_channel = correlations + c * KINDS, sum = of_channel[TAPS];
    double product = -(double)coefficients[2 * channels + c] * sum;
    for (u32 tap = 0; tap < TAPS; ++tap) product += rounded(w[c * TAPS + tap]) * of_channel[tap];
    sums[c] = sum;
    sums[channels + c] = product;
}

// dw, of dy_conv = g a + y b + c a channel, `abc` being [a, b, c]; a thread a weight.
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
