// A network's first convolution on tensor cores: 3 x 3 taps of stride 1 over 3 channels and a border of one zero,
// in 16 bits. See `ops/stem_mma.rs`.
//
// A block of 8 warps walks over strips of 8 rows and 32 columns of outputs, a row a warp. The part of x under a
// strip lies in shared memory; that of the next strip is on its way meanwhile. The 9 values under a row of taps lie
// side by side there, as they do in x.

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

// Products of pixels and taps: rows are 16 pixels side by side, columns 8 channels, and between them lie 32 values,
// 10 for each row of taps, of which the last is 0, and two zeros. Such pairs of values begin at even places of x
// for even columns and at odd ones for odd columns, so that patches are kept twice, the second copy one place further.
constexpr u32 DEPTH = 32, PADDED_RUN = RUN + 1;
// Words from a channel's weights to the next one's.
constexpr u32 WEIGHTS_STEP = DEPTH / 2 + 1;

// y of 8 TILES channels, and if `partials` is not null their sums and those of squares, (pieces, 2, channels), a
// piece a block. `patches` are two of two copies each, `weights` has WEIGHTS_STEP words for each channel, `places`
// 4 TILES values for each thread.
template <int TILES>
DEVICE void convolve(const T *x, const float *w, T *y, double *partials, const Sizes &s, u32 *patches, u32 *weights, float *places) {
    // Columns of tiles are channels in an order by which a lane has 2 TOGETHER channels side by side, to be written
    // at once.
    constexpr int TOGETHER = TILES < 4 ? TILES : 4;
    constexpr u32 OUT = 8 * TILES;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const u32 first = blockIdx.y * OUT;
    for (u32 i = threadIdx.x; i < OUT * DEPTH; i += THREADS) {
        u32 channel = i / DEPTH, k = i % DEPTH, row = k / PADDED_RUN, value = k % PADDED_RUN;
        bool is_tap = row < SIDE && value < RUN;
        reinterpret_cast<T *>(weights)[channel * 2 * WEIGHTS_STEP + k] =
            Narrow<T>::of(is_tap ? w[(first + channel) * TAPS + row * RUN + value] : 0.0f);
    }
    __syncthreads();
    u32 b[2][TILES][2];
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
        u32 channel = n / TOGETHER * 8 * TOGETHER + g / 2 * 2 * TOGETHER + n % TOGETHER * 2 + g % 2;
#pragma unroll
        for (int q = 0; q < 4; ++q) b[q / 2][n][q % 2] = weights[channel * WEIGHTS_STEP + q * 4 + t];
    }
    // Where the pair at 8 q + 2 t lies, from that of a pixel's first value on, and which of its values are under a tap.
    u32 offset[4], mask[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        u32 k = q * 8 + 2 * t, row = k / PADDED_RUN, value = k % PADDED_RUN;
        offset[q] = row < SIDE ? (row * STEP + value) / 2 : 0;
        mask[q] = row == SIDE ? 0 : value + 1 == RUN ? 0xffff : 0xffffffff;
        offset[q] += (warp * STEP + g % 2 * COPY + CHANNELS * g + g % 2) / 2;
    }
    float sum[2 * TILES], square[2 * TILES];
#pragma unroll
    for (int i = 0; i < 2 * TILES; ++i) sum[i] = square[i] = 0.0f;

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
        T *line = y + ((u64)strip.image * s.height + row) * s.width * s.out_channels + first + t * 2 * TOGETHER;
        // Not unrolled: registers are full of weights and sums.
#pragma unroll 1
        for (u32 m = 0; m < COLUMNS / 16; ++m) {
            u32 a[2][4];
#pragma unroll
            for (int q = 0; q < 4; ++q) {
#pragma unroll
                for (u32 half = 0; half < 2; ++half) {
                    a[q / 2][q % 2 * 2 + half] = patch[offset[q] + (m * 16 + half * 8) * CHANNELS / 2] & mask[q];
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
                    Pack<u32, TOGETHER> words;
#pragma unroll
                    for (int i = 0; i < TOGETHER; ++i) words.v[i] = narrow_pair<T>(c[i][2 * half], c[i][2 * half + 1]);
                    store_words(line + column * s.out_channels + n * 8, words);
                    if (!partials) continue;
#pragma unroll
                    for (int i = 0; i < 2 * TOGETHER; ++i) {
                        float v = widen(T{(u16)(words.v[i / 2] >> i % 2 * 16)});
                        sum[2 * n + i] += v;
                        square[2 * n + i] = fmaf(v, v, square[2 * n + i]);
                    }
                }
            }
        }
    }
    if (!partials) return;
#pragma unroll
    for (int i = 0; i < 2 * TILES; ++i) {
        places[i * THREADS + threadIdx.x] = sum[i];
        places[(2 * TILES + i) * THREADS + threadIdx.x] = square[i];
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 2 * OUT; i += THREADS) {
        // Over all lanes that have the channel: `value` is where it is in `sum` or `square`.
        u32 channel = i % OUT, n = channel / (8 * TOGETHER) * TOGETHER + channel % (2 * TOGETHER) / 2, value = i / OUT * 2 * TILES + 2 * n + channel % 2;
        double total = 0.0;
        for (u32 from = channel / (2 * TOGETHER) % 4; from < THREADS; from += 4) total += places[value * THREADS + from];
        partials[((u64)blockIdx.x * 2 + i / OUT) * s.out_channels + first + channel] = total;
    }
}

// Blocks along y take 64 channels each where `wide`, else 16; those along x are the pieces of `partials`.
KERNEL(BY_TWOS, stem_mma_forward)(const T *x, const float *w, T *y, double *partials, Sizes s, u32 wide) {
    SHARED u32 patches[2 * COPY];
    SHARED u32 weights[64 * WEIGHTS_STEP];
    SHARED float places[32 * THREADS];
    if (wide) {
        convolve<8>(x, w, y, partials, s, patches, weights, places);
    } else {
        convolve<2>(x, w, y, partials, s, patches, weights, places);
    }
}

// Gradients by weights. Products of taps and channels: rows are 16 taps, columns 8 channels, and between them lie
// 16 pixels. A warp has 8 EACH channels, APART warps beside each other those of a block, and APART rows of a strip.
// Column g of tile n is channel EACH g + n, so that a lane reads its channels of a pixel at once, and no other lane
// needs them.
template <int EACH> struct Gradients {
    static constexpr int WORDS = EACH / 2;
    Pack<u32, WORDS> pixels[4];

    // Of the pixels of a lane among the 16 from `column` on: `line` is where its channels of the first pixel of the
    // row lie, whose width is 0 beyond the image.
    DEVICE void fetch(const T *line, u32 column, u32 width, u32 channels) {
        column += threadIdx.x % 4 * 2;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 at = column + i / 2 * 8 + i % 2;
            if (at < width) {
                pixels[i] = load_once<WORDS>(reinterpret_cast<const u32 *>(line + at * channels));
            } else {
#pragma unroll
                for (int word = 0; word < WORDS; ++word) pixels[i].v[word] = 0;
            }
        }
    }
    // Of channel n, pairs of pixels.
    DEVICE void column(int n, u32 (&b)[2]) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            u32 even = pixels[2 * i].v[n / 2], odd = pixels[2 * i + 1].v[n / 2];
            b[i] = n % 2 ? halves<true>(even, odd) : halves<false>(even, odd);
        }
    }
};

// `partials` is (pieces, channels, taps). `places` has a value for each of 8 warps, 32 taps and 8 EACH channels.
template <int EACH, int APART> DEVICE void gather(const T *x, const T *dy, double *partials, const Sizes &s, T *patches, float *places) {
    constexpr u32 OUT = 8 * EACH * APART, PARTS = APART * COLUMNS / 16;
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const u32 own_row = warp / APART * APART;
    dy += blockIdx.y * OUT + (warp % APART * 8 + g) * EACH;
    // Where the value under tap 8 q + g lies, for the first pixel of the lane. What is beyond the taps is computed
    // with the first one's, and left out.
    u32 offset[4];
#pragma unroll
    for (u32 q = 0; q < 4; ++q) {
        u32 tap = q * 8 + g;
        offset[q] = own_row * STEP + 2 * t * CHANNELS + (tap < TAPS ? tap / RUN * STEP + tap % RUN : 0);
    }
    float c[2][EACH][4];
#pragma unroll
    for (int i = 0; i < 8 * EACH; ++i) c[i / 4 / EACH][i / 4 % EACH][i % 4] = 0.0f;

    Share share;
    Gradients<EACH> gradients[PARTS];
    auto fetch = [&](u32 part, const Strip &strip) {
        u32 row = strip.row + own_row + part / 2;
        const T *line = dy + ((u64)strip.image * s.height + row) * s.width * s.out_channels;
        gradients[part].fetch(line, strip.column + part % 2 * 16, row < s.height ? s.width : 0, s.out_channels);
    };
    Strip strip(blockIdx.x, s);
    share.fetch(x, strip, s);
#pragma unroll
    for (u32 part = 0; part < PARTS; ++part) fetch(part, strip);
    u32 turn = 0;
    for (u32 index = blockIdx.x; index < s.strips; index += gridDim.x, turn ^= 1) {
        T *patch = patches + turn * COPY;
        share.put(patch, 0);
        // Nobody reads the patch before the last any more: who comes here is done with it.
        __syncthreads();
        const u32 rows = s.height - strip.row;
        const bool goes_on = index + gridDim.x < s.strips;
        if (goes_on) {
            strip = Strip(index + gridDim.x, s);
            share.fetch(x, strip, s);
        }
#pragma unroll
        for (u32 part = 0; part < PARTS; ++part) {
            if (own_row + part / 2 < rows) {
                u32 a[2][4];
#pragma unroll
                for (u32 q = 0; q < 4; ++q) {
#pragma unroll
                    for (u32 late = 0; late < 2; ++late) {
                        const T *pair = patch + offset[q] + part / 2 * STEP + (part % 2 * 16 + late * 8) * CHANNELS;
                        a[q / 2][q % 2 + 2 * late] = halves<false>(pair[0].bits, pair[CHANNELS].bits);
                    }
                }
#pragma unroll
                for (int n = 0; n < EACH; ++n) {
                    u32 b[2];
                    gradients[part].column(n, b);
                    multiply_add<T>(c[0][n], a[0], b);
                    multiply_add<T>(c[1][n], a[1], b);
                }
            }
            if (goes_on) fetch(part, strip);
        }
    }
    constexpr u32 VALUES = 8 * EACH * WARP;
#pragma unroll
    for (int i = 0; i < 8 * EACH; ++i) places[warp * VALUES + i * WARP + lane] = c[i / 4 / EACH][i / 4 % EACH][i % 4];
    __syncthreads();
    for (u32 i = threadIdx.x; i < OUT * TAPS; i += THREADS) {
        u32 channel = i / TAPS, tap = i % TAPS, own = channel % (8 * EACH), column = own / EACH;
        u32 value = (tap / 16 * EACH + own % EACH) * 4 + tap / 8 % 2 * 2 + column % 2;
        const float *from = places + channel / (8 * EACH) * VALUES + value * WARP + tap % 8 * 4 + column / 2;
        double total = 0.0;
#pragma unroll
        for (u32 w = 0; w < WARPS; w += APART) total += from[w * VALUES];
        partials[((u64)blockIdx.x * s.out_channels + blockIdx.y * OUT) * TAPS + i] = total;
    }
}

// Blocks as above.
KERNEL(BY_TWOS, stem_mma_backward_weight)(const T *x, const T *dy, double *partials, Sizes s, u32 wide) {
    SHARED T patches[2 * COPY];
    SHARED float places[WARPS * 32 * 32];
    if (wide) {
        gather<4, 2>(x, dy, partials, s, patches, places);
    } else {
        gather<2, 1>(x, dy, partials, s, patches, places);
    }
}
