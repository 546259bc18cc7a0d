// Similarities of views in tiles, on tensor cores: the matrix of all similarities is never stored.
//
// Each value is split into two 16-bit halves, upper and lower, which together have the digits of an f32. Of the four
// products of halves, the three that matter in f32 are added up. Before that, each row is scaled by a power of two so
// that its greatest value is far from both ends of the range of 16 bits; the rounding error is below 2^-23 of a value
// or 2^-39 of the greatest one. Tensor cores truncate when they add: they sum only a few terms, and these sums are
// added up in f32.
//
// A block handles 128 anchors, 16 per warp, and one split of the other views; separate kernels combine the splits in
// order.

constexpr u32 THREADS = 256, ANCHORS = THREADS / WARP * 16;
// Views of a tile, and the dimensions that are loaded into shared memory together (a slab).
constexpr u32 TILE = 64, SLAB = 64;
// Words of a tile's slab: one per value, with both halves.
constexpr u32 WORDS = TILE * SLAB;
// Words of 64 rows with 16 values each.
constexpr u32 STEP = WORDS / 4;
// Dimensions of dz that a block computes.
constexpr u32 PART = 128;

struct Views {
    // This worker's anchors are views offset to offset + anchors - 1 of all.
    u32 anchors, views, offset, dim;
    float inverse_temperature;
    DEVICE u32 slabs() const { return (dim + SLAB - 1) / SLAB; }
};

// All views, in whole tiles: their halves paired along dimensions, the same paired along views or null, and the factors
// that undo the scaling of rows. Slabs are stored tile by tile, each as 4 steps of 16 dimensions (views). In a step,
// each of the 64 views (dimensions) has 4 words for each of 4 lanes t: the upper halves of 2 t and 2 t + 1, those of
// 2 t + 8 and 2 t + 9, and the same of the lower halves. So the words that `multiply_add` takes from a lane are
// adjacent.
struct Halves {
    u32 *along, *across;
    float *scales;
};

// Powers of two: `up` scales the greatest value to between 2^14 and 2^15, `down` is the inverse.
struct Scale {
    float up, down;
    DEVICE explicit Scale(float most) {
        u32 exponent = __float_as_uint(most) >> 23;
        if (exponent < 15) exponent = 15;
        up = __uint_as_float((268 - exponent) << 23);
        down = __uint_as_float((exponent - 14) << 23);
    }
};

DEVICE Pack<u32, 4> four(const u32 *from) { return *reinterpret_cast<const Pack<u32, 4> *>(from); }

// Splits two values into a pair of upper and a pair of lower halves.
DEVICE void halve(float first, float second, u32 &upper, u32 &lower) {
    upper = narrow_pair<f16>(first, second);
    lower = narrow_pair<f16>(first - widen(f16{(u16)upper}), second - widen(f16{(u16)(upper >> 16)}));
}

// The halves of a 16 x 16 left operand and of a 16 x 8 right operand, as `multiply_add` takes them.
struct Left {
    u32 upper[4], lower[4];
};
struct Right {
    u32 upper[2], lower[2];
    DEVICE explicit Right(const u32 *at) {
        const Pack<u32, 4> words = four(at);
        upper[0] = words.v[0], upper[1] = words.v[1], lower[0] = words.v[2], lower[1] = words.v[3];
    }
};

// c += a b, without the product of the two lower halves.
DEVICE void multiply_add(float (&c)[4], const Left &a, const Right &b) {
    multiply_add<f16>(c, a.lower, b.upper);
    multiply_add<f16>(c, a.upper, b.lower);
    multiply_add<f16>(c, a.upper, b.upper);
}
// The same, with a result that has equal bits if rows and columns are swapped: s(i,k) and s(k,i) are rounded alike.
DEVICE void multiply_add_evenly(float (&c)[4], const Left &a, const Right &b) {
    float sum[4] = {}, other[4] = {};
    multiply_add<f16>(sum, a.lower, b.upper);
    multiply_add<f16>(other, a.upper, b.lower);
#pragma unroll
    for (u32 i = 0; i < 4; ++i) sum[i] += other[i];
    multiply_add<f16>(sum, a.upper, b.upper);
#pragma unroll
    for (u32 i = 0; i < 4; ++i) c[i] += sum[i];
}

// Double buffering: each slab is copied to shared memory while the one before it is in use.
class Slabs {
    u32 *at, turn;
    DEVICE void bring(const u32 *from) {
        u32 *to = at + turn * WORDS;
#pragma unroll
        for (u32 u = 0; u < WORDS / THREADS / 4; ++u) {
            const u32 i = (u * THREADS + threadIdx.x) * 4;
#ifdef EMULATED
            *reinterpret_cast<Pack<u32, 4> *>(to + i) = four(from + i);
#else
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to + i)), "l"(__cvta_generic_to_global(from + i)) : "memory");
#endif
        }
    }

  public:
    // `at` has room for two slabs.
    DEVICE Slabs(u32 *at, const u32 *first) : at(at), turn(0) { bring(first); }
    // Waits for the slab whose copy was started before, and starts that of `after`, unless it is null.
    DEVICE const u32 *next(const u32 *after) {
#ifndef EMULATED
        asm volatile("cp.async.wait_all;" ::: "memory");
#endif
        // After this, all threads are done with the previous slab, and its place may be overwritten.
        __syncthreads();
        const u32 *now = at + turn * WORDS;
        turn ^= 1;
        if (after) bring(after);
        return now;
    }
};

// The index among all views of the other view of an anchor's image.
DEVICE u32 positive_of(const Views &n, u32 anchor) { return n.offset + (anchor + n.anchors / 2) % n.anchors; }

// A lane's two anchors, g and g + 8 of its warp's 16. With lane = 4 g + t, s[i][j] are the similarities of anchor
// j / 2 and view 8 i + 2 t + j % 2 of a tile.
struct Anchors {
    // Clamped to the last anchor.
    u32 anchor[2], positive[2], offset;
    // Whether the warp has any anchors.
    bool any;
    const u32 *rows[2];
    float scales[2];

    DEVICE u32 place(u32 row) const { return offset + anchor[row]; }
    static DEVICE u32 first() { return blockIdx.x * ANCHORS + threadIdx.x / WARP * 16; }
    static DEVICE bool inside(u32 row, const Views &n) { return first() + threadIdx.x % WARP / 4 + 8 * row < n.anchors; }

    DEVICE Anchors(const Halves &all, const Views &n) : offset(n.offset), any(first() < n.anchors) {
        const u32 lane = threadIdx.x % WARP;
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            anchor[i] = inside(i, n) ? first() + lane / 4 + 8 * i : n.anchors - 1;
            positive[i] = positive_of(n, anchor[i]);
            rows[i] = all.along + (u64)(place(i) / TILE) * n.slabs() * WORDS + place(i) % TILE * 16 + lane % 4 * 4;
            scales[i] = all.scales[place(i)] * n.inverse_temperature;
        }
    }
};

// The view of s[i][j], in the tile that begins at `first`.
DEVICE u32 view_of(u32 first, u32 i, u32 j) { return first + 8 * i + threadIdx.x % 4 * 2 + j % 2; }

// Which of a tile's similarities are those of an anchor with itself, of a positive pair, or beyond the last view.
struct Columns {
    // Positions relative to the lane's first view.
    u32 own[2], positive[2], end;
    DEVICE Columns(const Anchors &anchors, u32 first, u32 end) : end(end - view_of(first, 0, 0)) {
#pragma unroll
        for (u32 row = 0; row < 2; ++row) {
            own[row] = anchors.place(row) - view_of(first, 0, 0);
            positive[row] = anchors.positive[row] - view_of(first, 0, 0);
        }
    }
    DEVICE bool are_pair(u32 row, u32 i, u32 j) const { return positive[row] == 8 * i + j; }
    // Signed, since the lane's first view may be beyond the end.
    DEVICE bool is_negative(u32 row, u32 i, u32 j) const {
        return (int)(8 * i + j) < (int)end && own[row] != 8 * i + j && positive[row] != 8 * i + j;
    }
};

// s = z_i . z_k / tau for the anchors and the tile's views. The copy of the tile's first slab must have been started;
// that of `after` is started in the end.
DEVICE void similarities(float (&s)[8][4], Slabs &slabs, const u32 *after, const Anchors &own, const Halves &all, const Views &n, u32 first) {
    const u32 lane = threadIdx.x % WARP, count = n.slabs();
    const u32 *tile = all.along + (u64)(first / TILE) * count * WORDS;
#pragma unroll
    for (u32 i = 0; i < 8; ++i) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0f;
    for (u32 slab = 0; slab < count; ++slab) {
        const u32 *now = slabs.next(slab + 1 < count ? tile + (u64)(slab + 1) * WORDS : after) + 4 * lane;
        if (!own.any) continue;
        const u32 chunks = (n.dim - slab * SLAB + 15) / 16, steps = chunks < 4 ? chunks : 4;
#pragma unroll 1
        for (u32 step = 0; step < steps; ++step) {
            const u64 at = (u64)slab * WORDS + step * STEP;
            const Pack<u32, 4> a = four(own.rows[0] + at), b = four(own.rows[1] + at);
            const Left left = {{a.v[0], b.v[0], a.v[1], b.v[1]}, {a.v[2], b.v[2], a.v[3], b.v[3]}};
#pragma unroll
            for (u32 i = 0; i < 8; ++i) multiply_add_evenly(s[i], left, Right(now + step * STEP + i * WARP * 4));
        }
    }
#pragma unroll
    for (u32 i = 0; i < 8; ++i) {
        float scales[2];
        load(scales, all.scales + view_of(first, i, 0));
#pragma unroll
        for (u32 j = 0; j < 4; ++j) s[i][j] = s[i][j] * own.scales[j / 2] * scales[j % 2];
    }
}

// Calls use(s, columns, first) for each tile of the block's split.
template <class Use>
DEVICE void for_each_tile(u32 *room, const Anchors &own, const Halves &all, const Views &n, u32 columns_per_split, const Use &use) {
    const u32 begin = blockIdx.y * columns_per_split, end = begin + columns_per_split < n.views ? begin + columns_per_split : n.views;
    const u64 tile = (u64)n.slabs() * WORDS;
    Slabs slabs(room, all.along + begin / TILE * tile);
    for (u32 first = begin; first < end; first += TILE) {
        float s[8][4];
        similarities(s, slabs, first + TILE < end ? all.along + (first / TILE + 1) * tile : nullptr, own, all, n, first);
        if (own.any) use(s, Columns(own, first, end), first);
    }
}

// The weights of a tile as left operands of `multiply_add`: w(i,k) z_k = down w' (up_k z_k), with w' in halves, in four
// steps of 16 views.
struct Weights {
    Left steps[4];
    float down[2];

    // From w(i,k), laid out as s is.
    DEVICE Weights(float (&w)[8][4], const float *scales, u32 first) {
        float most[2] = {0.0f, 0.0f};
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
            float of_views[2];
            load(of_views, scales + view_of(first, i, 0));
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                w[i][j] *= of_views[j % 2];
                if (fabsf(w[i][j]) > most[j / 2]) most[j / 2] = fabsf(w[i][j]);
            }
        }
        float up[2];
#pragma unroll
        for (u32 row = 0; row < 2; ++row) {
            // The maximum over the lanes of a row.
            for (int step = 2; step > 0; step /= 2) {
                float other = __shfl_xor_sync(ALL_LANES, most[row], step);
                if (other > most[row]) most[row] = other;
            }
            const Scale scale(most[row]);
            up[row] = scale.up, down[row] = scale.down;
        }
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
#pragma unroll
            for (u32 row = 0; row < 2; ++row) {
                Left &to = steps[i / 2];
                halve(w[i][2 * row] * up[row], w[i][2 * row + 1] * up[row], to.upper[i % 2 * 2 + row], to.lower[i % 2 * 2 + row]);
            }
        }
    }
};

// A split's part of the gradient: `partials` (splits, anchors, dim) gets the sum over its views k of w(i,k) z_k, where
// w(i,k) is `pull(anchor)` for the positive and `push(s(i,k), known(i), known(k))` for negatives. Grid: anchors / 128,
// splits, dim / 128. `room` is shared memory for two slabs.
template <class Known, class Pull, class Push>
DEVICE void weighted_views(u32 *room, const Halves &all, const Views &n, u32 columns_per_split, float *partials, const Known &known, const Pull &pull,
                           const Push &push) {
    constexpr u32 MOST = PART / SLAB;
    const u32 lane = threadIdx.x % WARP, part = blockIdx.z * PART, slabs_of_tile = n.slabs();
    const u32 width = n.dim - part < PART ? n.dim - part : PART;
    const u32 begin = blockIdx.y * columns_per_split, end = begin + columns_per_split < n.views ? begin + columns_per_split : n.views;
    const Anchors own(all, n);
    const float mine[] = {known(n.offset + own.anchor[0]), known(n.offset + own.anchor[1])};
    float sum[PART / 8][4];
#pragma unroll
    for (u32 i = 0; i < PART / 8; ++i) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
    Slabs slabs(room, all.along + (u64)(begin / TILE) * slabs_of_tile * WORDS);
    for (u32 first = begin; first < end; first += TILE) {
        const u32 *across = all.across + ((u64)(first / TILE) * slabs_of_tile + part / SLAB) * WORDS;
        const u32 *after = first + TILE < end ? all.along + (u64)(first / TILE + 1) * slabs_of_tile * WORDS : nullptr;
        float w[8][4];
        similarities(w, slabs, across, own, all, n, first);
        const Columns columns(own, first, end);
        float pulls[2];
#pragma unroll
        for (u32 row = 0; row < 2; ++row) pulls[row] = own.positive[row] - first < TILE ? pull(own.anchor[row]) : 0.0f;
#pragma unroll
        for (u32 i = 0; i < 8; ++i) {
#pragma unroll
            for (u32 j = 0; j < 2; ++j) {
                // Clamped: values beyond the end are not used.
                const u32 k = view_of(first, i, j);
                const float theirs = known(k < n.views ? k : n.views - 1);
#pragma unroll
                for (u32 row = 0; row < 2; ++row) {
                    float &to = w[i][2 * row + j];
                    const float pushed_by = push(to, mine[row], theirs);
                    to = columns.are_pair(row, i, j) ? pulls[row] : columns.is_negative(row, i, j) ? pushed_by : 0.0f;
                }
            }
        }
        const Weights weights(w, all.scales, first);
#pragma unroll
        for (u32 slab = 0; slab < MOST; ++slab) {
            if (slab * SLAB >= width) continue;
            const bool last = slab + 1 == MOST || (slab + 1) * SLAB >= width;
            const u32 *now = slabs.next(last ? after : across + (slab + 1) * WORDS) + 4 * lane;
            if (!own.any) continue;
#pragma unroll
            for (u32 i = 0; i < SLAB / 8; i += 2) {
                if (slab * SLAB + i * 8 >= width) continue;
                float c[2][4] = {};
#pragma unroll
                for (u32 step = 0; step < 4; ++step) {
#pragma unroll
                    for (u32 beside = 0; beside < 2; ++beside) {
                        multiply_add(c[beside], weights.steps[step], Right(now + step * STEP + (i + beside) * WARP * 4));
                    }
                }
#pragma unroll
                for (u32 j = 0; j < 8; ++j) {
                    float &to = sum[slab * SLAB / 8 + i + j / 4][j % 4];
                    to = fmaf(c[j / 4][j % 4], weights.down[j % 4 / 2], to);
                }
            }
        }
    }
#pragma unroll
    for (u32 row = 0; row < 2; ++row) {
        if (!Anchors::inside(row, n)) continue;
        float *to = partials + ((u64)blockIdx.y * n.anchors + own.anchor[row]) * n.dim + part;
#pragma unroll
        for (u32 i = 0; i < PART / 8; ++i) {
#pragma unroll
            for (u32 j = 0; j < 2; ++j) {
                const u32 d = 8 * i + lane % 4 * 2 + j;
                if (d < width) to[d] = sum[i][2 * row + j];
            }
        }
    }
}
