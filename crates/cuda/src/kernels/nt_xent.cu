// NT-Xent (Chen et al., arXiv:2002.05709, equation 1) in tiles of similarities.

// The negatives seen so far: their greatest similarity, peak, and relative to that their mass, the sum of e^(s -
// peak), and their moment, the sum of (s - peak) e^(s - peak).
struct Seen {
    float peak, mass, moment;
};

// The same relative to a greater peak. What has seen nothing has no mass, or one that is no number.
DEVICE Seen raised(const Seen &seen, float peak) {
    if (seen.peak == -INFINITE) return {peak, seen.mass, seen.moment};
    float rise = seen.peak - peak, shrink = expf(rise);
    return {peak, seen.mass * shrink, (seen.moment + seen.mass * rise) * shrink};
}

DEVICE Seen joined(const Seen &a, const Seen &b) {
    float peak = b.peak > a.peak ? b.peak : a.peak;
    Seen left = raised(a, peak), right = raised(b, peak);
    return {peak, left.mass + right.mass, left.moment + right.moment};
}

// Grid: anchors / 64, splits. `seen` is (splits, anchors); s(i,j) of the positive goes to `anchors_out` (anchors,
// 4): loss, positive, entropy, hardest.
KERNEL(256, nt_xent_forward)
(const float *z, const float *all, Views n, u32 columns_per_split, Seen *seen, float *anchors_out) {
    alignas(16) SHARED float left[SLICE][PITCH];
    alignas(16) SHARED float right[SLICE][PITCH];
    u32 start = blockIdx.x * TILE, x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
    u32 begin = blockIdx.y * columns_per_split;
    u32 end = begin + columns_per_split < n.views ? begin + columns_per_split : n.views;
    Seen own[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) own[i] = {-INFINITE, 0.0f, 0.0f};
    for (u32 first = begin; first < end; first += TILE) {
        float s[4][4];
        similarities(s, z, all, n, start, first, left, right);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 anchor = start + y + i;
            if (anchor >= n.anchors) continue;
            u32 positive = positive_of(n, anchor);
            float peak = own[i].peak;
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 k = first + x + j;
                if (k >= end || k == n.offset + anchor) continue;
                if (k == positive) anchors_out[4 * anchor + 1] = s[i][j];
                else if (s[i][j] > peak) peak = s[i][j];
            }
            own[i] = raised(own[i], peak);
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 k = first + x + j;
                if (k >= end || k == n.offset + anchor || k == positive) continue;
                float below = s[i][j] - peak, e = expf(below);
                own[i].mass += e;
                own[i].moment += below * e;
            }
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        for (int step = 8; step > 0; step /= 2) {
            Seen other = {__shfl_xor_sync(ALL_LANES, own[i].peak, step), __shfl_xor_sync(ALL_LANES, own[i].mass, step),
                          __shfl_xor_sync(ALL_LANES, own[i].moment, step)};
            own[i] = joined(own[i], other);
        }
        u32 anchor = start + y + i;
        if (x == 0 && anchor < n.anchors) seen[(i64)blockIdx.y * n.anchors + anchor] = own[i];
    }
}

// Puts the splits together, one thread an anchor.
KERNEL(256, nt_xent_anchors)(const Seen *seen, u32 splits, u32 anchors, float *out) {
    u32 anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= anchors) return;
    Seen all = seen[anchor];
    for (u32 split = 1; split < splits; ++split) all = joined(all, seen[(i64)split * anchors + anchor]);
    // Without negatives the positive is all there is to refer to.
    float positive = out[4 * anchor + 1], below = all.peak == -INFINITE ? 0.0f : positive - all.peak;
    float weight = expf(below), total = all.mass + weight;
    if (all.mass <= weight) {
        // The log-sum-exp minus s of the positive would lose the digits of a small loss.
        float loss = log1pf(all.mass / weight);
        out[4 * anchor] = loss;
        out[4 * anchor + 2] = loss + (below * all.mass - all.moment) / total;
    } else {
        out[4 * anchor] = logf(total) - below;
        out[4 * anchor + 2] = logf(total) - (all.moment + below * weight) / total;
    }
    out[4 * anchor + 3] = all.peak;
}

// The sums over anchors of the loss, of hits (no negative as similar as the positive) and of entropy; and lse by
// itself. One block of 1024.
KERNEL(1024, nt_xent_figures)(const float *anchors, u32 count, double *sums, float *lse) {
    SHARED double places[32];
    double loss = 0.0, hits = 0.0, entropy = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const float *a = anchors + 4 * i;
        loss += a[0];
        hits += a[1] > a[3] ? 1.0 : 0.0;
        entropy += a[2];
        lse[i] = a[1] + a[0];
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

// The mean loss over all views, from such sums.
KERNEL(32, nt_xent_mean)(const double *sums, double views, float *loss) {
    if (threadIdx.x == 0) *loss = (float)(sums[0] / views);
}

// Grid: anchors / 64, splits, dim / 128. `partials` is (splits, anchors, dim): the sum over a split's views k of
// (p(i,k) + p(k,i)) z_k - 2 z_j where j is the positive, p(i,k) = exp(s(i,k) - lse_i). `anchors` are forward's, `lse`
// has one value a view of all workers.
KERNEL(256, nt_xent_backward)
(const float *z, const float *all, const float *anchors, const float *lse, Views n, u32 columns_per_split, float *partials) {
    alignas(16) SHARED float left[SLICE][PITCH];
    alignas(16) SHARED float right[SLICE][PITCH];
    alignas(16) SHARED float weights[TILE][PITCH];
    alignas(16) SHARED float values[SLICE][PART];
    weighted_views(z, all, n, columns_per_split, partials, left, right, weights, values, [&](float s, u32 anchor, u32 k) {
        // p + p - 2 by what the negatives of both weigh, 1 - p each: where p is nearly 1 it is all error.
        if (k == positive_of(n, anchor)) return expm1f(-anchors[4 * anchor]) + expm1f(-anchors[4 * (k - n.offset)]);
        return expf(s - lse[n.offset + anchor]) + expf(s - lse[k]);
    });
}

// dz = factor *dy / tau times the sum of the splits.
KERNEL(256, nt_xent_gradient)(const float *partials, u32 splits, i64 count, float factor, const float *dy, float *dz) {
    float scale = factor * *dy;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
        float sum = partials[i];
        for (u32 split = 1; split < splits; ++split) sum += partials[split * count + i];
        dz[i] = sum * scale;
    }
}
