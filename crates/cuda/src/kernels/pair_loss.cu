// NT-Logistic and the margin triplet (Chen et al., arXiv:2002.05709, table 2), with and without semi-hard negative
// mining.

// The kind of loss, as in `simclr_kernels::pair_loss`; flags are 0 or 1. The margin is m / tau, since everything is
// computed in terms of s = z_i . z_k / tau, not of tau s.
struct PairLoss {
    u32 triplet, semi_hard;
    float margin;
};

struct Pair {
    float positive, pull, negative, push;
};

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// max(x, 0); NaN propagates.
DEVICE float hinge(float x) { return x <= 0.0f ? 0.0f : x; }

// ln(1 + e^x).
DEVICE float softplus(float x) { return hinge(x) + log1pf(expf(-fabsf(x))); }

// What a negative of similarity s adds to its anchor's loss, and the derivative of that by s.
DEVICE float lost(const PairLoss &loss, float s, float positive) { return loss.triplet ? hinge(s - positive + loss.margin) : softplus(s); }
DEVICE float pushed(const PairLoss &loss, float s, float positive) {
    return loss.triplet ? (s - positive + loss.margin > 0.0f ? 1.0f : 0.0f) : sigmoid(s);
}

// Statistics of an anchor's negatives seen so far: the sum of their losses and, for triplets, the number of active
// ones; or, for mining, the greatest similarity below the positive's and the least of all, with their places, the first
// of equals.
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

// Grid: anchors / 128, splits. `seen` is (splits, anchors); `anchors` (anchors, 4) are those of nt_xent, whose second
// value is s(i,j) of the positive.
KERNEL(BY_TWOS, pair_loss_forward)
(Halves all, const float *anchors, Views n, PairLoss loss, u32 columns_per_split, Seen *seen) {
    alignas(16) SHARED u32 room[2 * WORDS];
    const Anchors own(all, n);
    Seen found[2];
#pragma unroll
    for (u32 row = 0; row < 2; ++row) found[row] = {0.0f, 0.0f, -INFINITE, INFINITE, 0, 0};
    for_each_tile(room, own, all, n, columns_per_split, [&](const float (&s)[8][4], const Columns &columns, u32 first) {
#pragma unroll
        for (u32 row = 0; row < 2; ++row) {
            const float positive = anchors[4 * own.anchor[row] + 1];
            Seen &seen_yet = found[row];
#pragma unroll
            for (u32 i = 0; i < 16; ++i) {
                const float value = s[i / 2][2 * row + i % 2];
                if (!columns.is_negative(row, i / 2, i % 2)) continue;
                if (!loss.semi_hard) {
                    seen_yet.lost += lost(loss, value, positive);
                    if (loss.triplet) seen_yet.active += pushed(loss, value, positive);
                    continue;
                }
                if (value < positive && value > seen_yet.below) {
                    seen_yet.below = value;
                    seen_yet.below_at = view_of(first, i / 2, i % 2);
                }
                if (value < seen_yet.least) {
                    seen_yet.least = value;
                    seen_yet.least_at = view_of(first, i / 2, i % 2);
                }
            }
        }
    });
    if (!own.any) return;
#pragma unroll
    for (u32 row = 0; row < 2; ++row) {
        Seen &all_lanes = found[row];
        for (int step = 2; step > 0; step /= 2) {
            Seen other = {__shfl_xor_sync(ALL_LANES, all_lanes.lost, step),     __shfl_xor_sync(ALL_LANES, all_lanes.active, step),
                          __shfl_xor_sync(ALL_LANES, all_lanes.below, step),    __shfl_xor_sync(ALL_LANES, all_lanes.least, step),
                          __shfl_xor_sync(ALL_LANES, all_lanes.below_at, step), __shfl_xor_sync(ALL_LANES, all_lanes.least_at, step)};
            all_lanes = joined(all_lanes, other);
        }
        if (threadIdx.x % 4 == 0 && Anchors::inside(row, n)) seen[(i64)blockIdx.y * n.anchors + own.anchor[row]] = all_lanes;
    }
}

// Combines the splits, one thread per anchor, into its pair and its loss; `unit` converts losses from the scale of s.
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

// The sums over anchors of the loss, of hits (no negative is as similar as the positive) and of entropy. One block of
// 1024 threads.
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

// The gradient if all negatives count. Grid: anchors / 128, splits, dim / 128. `partials` is (splits, anchors, dim),
// for nt_xent_gradient to add up; `pairs` has one pair per view of all workers.
KERNEL(BY_TWOS, pair_loss_backward)
(Halves all, const Pair *pairs, Views n, PairLoss loss, u32 columns_per_split, float *partials) {
    alignas(16) SHARED u32 room[2 * WORDS];
    const float share = 1.0f / (float)(n.views - 2);
    auto pull = [&](u32 anchor) { return -(pairs[n.offset + anchor].pull + pairs[positive_of(n, anchor)].pull); };
    auto known = [&](u32 k) { return pairs[k].positive; };
    auto push = [&](float s, float mine, float theirs) { return share * (pushed(loss, s, mine) + pushed(loss, s, theirs)); };
    weighted_views(room, all, n, columns_per_split, partials, known, pull, push);
}

// The gradient if one negative was mined for each anchor: one block per anchor, with threads along z. dz = factor *dy
// times the weighted sum of the anchor's negative, its positive, and the anchors whose negative it is.
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
