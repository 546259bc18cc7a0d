// NT-Logistic and the margin triplet (Chen et al., arXiv:2002.05709, table 2), with and without semi-hard negative
// mining.

// A loss as `simclr_kernels::pair_loss` has it; 1 where it is so. The margin is m / tau: all is computed along s,
// not tau s.
struct PairLoss {
    u32 triplet, semi_hard;
    float margin;
};

struct Pair {
    float positive, pull, negative, push;
};

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// max(x, 0), or NaN of NaN.
DEVICE float hinge(float x) { return x <= 0.0f ? 0.0f : x; }

// ln(1 + e^x).
DEVICE float softplus(float x) { return hinge(x) + log1pf(expf(-fabsf(x))); }

// What a negative of similarity s adds to its anchor's loss, and to the weight of the positive.
DEVICE float lost(const PairLoss &loss, float s, float positive) { return loss.triplet ? hinge(s - positive + loss.margin) : softplus(s); }
DEVICE float pushed(const PairLoss &loss, float s, float positive) {
    return loss.triplet ? (s - positive + loss.margin > 0.0f ? 1.0f : 0.0f) : sigmoid(s);
}

// An anchor's negatives seen so far: the sums of what each loses and, of triplets, how many are active; or the
// greatest similarity below the positive's and the least of all, with their places, the first of equals.
struct Seen {
    float lost, active, below, least;
    u32 below_at, least_at;
};

DEVICE Seen joined(const Seen &a, const Seen &b) {
    bool below = b.below > a.below || (b.below == a.below && b.below_at < a.below_at);
    bool least = b.least < a.least || (b.least == a.least && b.least_at < a.least_at);
    return {a.lost + b.lost,           a.active + b.active,           below ? b.below : a.below,
            least ? b.least : a.least, below ? b.below_at : a.below_at, least ? b.least_at : a.least_at};
}

// Grid: anchors / 64, splits. `seen` is (splits, anchors); `anchors` (anchors, 4) are those of nt_xent, with s(i,j)
// second.
KERNEL(256, pair_loss_forward)
(const float *z, const float *all, const float *anchors, Views n, PairLoss loss, u32 columns_per_split, Seen *seen) {
    alignas(16) SHARED float left[SLICE][PITCH];
    alignas(16) SHARED float right[SLICE][PITCH];
    u32 start = blockIdx.x * TILE, x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
    u32 begin = blockIdx.y * columns_per_split;
    u32 end = begin + columns_per_split < n.views ? begin + columns_per_split : n.views;
    Seen own[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) own[i] = {0.0f, 0.0f, -INFINITE, INFINITE, 0, 0};
    for (u32 first = begin; first < end; first += TILE) {
        float s[4][4];
        similarities(s, z, all, n, start, first, left, right);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 anchor = start + y + i;
            if (anchor >= n.anchors) continue;
            u32 place = positive_of(n, anchor);
            float positive = anchors[4 * anchor + 1];
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 k = first + x + j;
                if (k >= end || k == n.offset + anchor || k == place) continue;
                if (!loss.semi_hard) {
                    own[i].lost += lost(loss, s[i][j], positive);
                    if (loss.triplet) own[i].active += pushed(loss, s[i][j], positive);
                    continue;
                }
                if (s[i][j] < positive && s[i][j] > own[i].below) {
                    own[i].below = s[i][j];
                    own[i].below_at = k;
                }
                if (s[i][j] < own[i].least) {
                    own[i].least = s[i][j];
                    own[i].least_at = k;
                }
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        for (int step = 8; step > 0; step /= 2) {
            Seen other = {__shfl_xor_sync(ALL_LANES, own[i].lost, step),     __shfl_xor_sync(ALL_LANES, own[i].active, step),
                          __shfl_xor_sync(ALL_LANES, own[i].below, step),    __shfl_xor_sync(ALL_LANES, own[i].least, step),
                          __shfl_xor_sync(ALL_LANES, own[i].below_at, step), __shfl_xor_sync(ALL_LANES, own[i].least_at, step)};
            own[i] = joined(own[i], other);
        }
        u32 anchor = start + y + i;
        if (x == 0 && anchor < n.anchors) seen[(i64)blockIdx.y * n.anchors + anchor] = own[i];
    }
}

// Puts the splits together, one thread an anchor: its pair and its loss, of which 1 along s is worth `unit`.
KERNEL(256, pair_loss_pairs)
(const Seen *seen, u32 splits, const float *anchors, Views n, PairLoss loss, float unit, Pair *pairs, float *losses) {
    u32 anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= n.anchors) return;
    Seen all = seen[anchor];
    for (u32 split = 1; split < splits; ++split) all = joined(all, seen[(i64)split * n.anchors + anchor]);
    float positive = anchors[4 * anchor + 1], negatives = (float)(n.views - 2);
    float value = all.lost / negatives, pull = all.active / negatives, push = 0.0f;
    u32 negative = 0;
    if (loss.semi_hard) {
        bool below = all.below > -INFINITE;
        float s = below ? all.below : all.least;
        negative = below ? all.below_at : all.least_at;
        value = lost(loss, s, positive);
        push = pushed(loss, s, positive);
        pull = push;
    }
    if (!loss.triplet) {
        value += softplus(-positive);
        pull = sigmoid(-positive);
    }
    pairs[anchor] = {positive, pull, (float)negative, push};
    losses[anchor] = unit * value;
}

// The sums over anchors of the loss, of hits (no negative as similar as the positive) and of entropy. One block of
// 1024.
KERNEL(1024, pair_loss_figures)(const float *anchors, const float *losses, u32 count, double *sums) {
    SHARED double places[32];
    double loss = 0.0, hits = 0.0, entropy = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const float *a = anchors + 4 * i;
        loss += losses[i];
        hits += a[1] > a[3] ? 1.0 : 0.0;
        entropy += a[2];
    }
    loss = block_sum(loss, places);
    hits = block_sum(hits, places);
    entropy = block_sum(entropy, places);
    if (threadIdx.x == 0) {
        sums[0] = loss;
        sums[1] = hits;
        sums[2] = entropy;
    }
}

// Where all negatives count. Grid: anchors / 64, splits, dim / 128. `partials` is (splits, anchors, dim), which
// nt_xent_gradient puts together; `pairs` has one a view of all workers.
KERNEL(256, pair_loss_backward)
(const float *z, const float *all, const Pair *pairs, Views n, PairLoss loss, u32 columns_per_split, float *partials) {
    alignas(16) SHARED float left[SLICE][PITCH];
    alignas(16) SHARED float right[SLICE][PITCH];
    alignas(16) SHARED float weights[TILE][PITCH];
    alignas(16) SHARED float values[SLICE][PART];
    float share = 1.0f / (float)(n.views - 2);
    weighted_views(z, all, n, columns_per_split, partials, left, right, weights, values, [&](float s, u32 anchor, u32 k) {
        const Pair own = pairs[n.offset + anchor], other = pairs[k];
        if (k == positive_of(n, anchor)) return -(own.pull + other.pull);
        return share * (pushed(loss, s, own.positive) + pushed(loss, s, other.positive));
    });
}

// Where one negative was mined: a block an anchor, its threads along z. dz = factor *dy times what it mined, its
// positive, and those by whom it was mined.
KERNEL(256, pair_loss_backward_mined)
(const float *all, const Pair *pairs, Views n, float factor, const float *dy, float *dz) {
    u32 anchor = blockIdx.x, place = n.offset + anchor, positive = positive_of(n, anchor);
    const Pair own = pairs[place];
    u32 mined = (u32)own.negative < n.views ? (u32)own.negative : n.views - 1;
    float scale = factor * *dy, pull = own.pull + pairs[positive].pull;
    for (u32 d = threadIdx.x; d < n.dim; d += blockDim.x) {
        float sum = own.push * all[(i64)mined * n.dim + d] - pull * all[(i64)positive * n.dim + d];
        for (u32 k = 0; k < n.views; ++k) {
            if ((u32)pairs[k].negative == place) sum += pairs[k].push * all[(i64)k * n.dim + d];
        }
        dz[(i64)anchor * n.dim + d] = sum * scale;
    }
}
