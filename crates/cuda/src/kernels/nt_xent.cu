// NT-Xent (Chen et al., arXiv:2002.05709, equation 1) in tiles of similarities.

// Statistics of the negatives seen so far: their greatest similarity (peak), and relative to it their mass, the sum of
// e^(s - peak), and their moment, the sum of (s - peak) e^(s - peak).
struct Seen {
    float peak, mass, moment;
};

// The same statistics relative to a greater peak. Without a peak so far, the mass is 0, or NaN if similarities were
// NaN.
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

// Splits all views into halves. Grid: groups of 16 views, of whole tiles. `across` may be null.
KERNEL(256, split_views)(const float *z, Views n, Halves all) {
    constexpr u32 GROUP = 16;
    SHARED float up[GROUP];
    const u32 first = blockIdx.x * GROUP;
    for (u32 row = threadIdx.x / WARP; row < GROUP; row += THREADS / WARP) {
        const u32 view = first + row;
        float most = 0.0f;
        for (u32 d = threadIdx.x % WARP; view < n.views && d < n.dim; d += WARP) {
            float size = fabsf(z[(u64)view * n.dim + d]);
            if (size > most) most = size;
        }
        most = warp_max(most);
        if (threadIdx.x % WARP == 0) {
            const Scale scale(most);
            up[row] = scale.up;
            all.scales[view] = scale.down;
        }
    }
    __syncthreads();
    auto value = [&](u32 row, u32 d) { return first + row < n.views && d < n.dim ? z[(u64)(first + row) * n.dim + d] * up[row] : 0.0f; };
    const u32 chunks = n.slabs() * SLAB / 16;
    const u64 tile = (u64)(first / TILE) * n.slabs() * WORDS;
    for (u32 i = threadIdx.x; i < chunks * GROUP * 4; i += THREADS) {
        const u32 t = i % 4, row = i / 4 % GROUP, chunk = i / (4 * GROUP), d = chunk * 16 + 2 * t;
        Pack<u32, 4> words;
        halve(value(row, d), value(row, d + 1), words.v[0], words.v[2]);
        halve(value(row, d + 8), value(row, d + 9), words.v[1], words.v[3]);
        *reinterpret_cast<Pack<u32, 4> *>(all.along + tile + (u64)chunk * STEP + (first % TILE + row) * 16 + t * 4) = words;
    }
    if (!all.across) return;
    for (u32 i = threadIdx.x; i < n.slabs() * SLAB * 4; i += THREADS) {
        const u32 t = i % 4, d = i / 4, row = 2 * t;
        Pack<u32, 4> words;
        halve(value(row, d), value(row + 1, d), words.v[0], words.v[2]);
        halve(value(row + 8, d), value(row + 9, d), words.v[1], words.v[3]);
        *reinterpret_cast<Pack<u32, 4> *>(all.across + tile + (u64)(d / SLAB) * WORDS + first % TILE / 16 * STEP + d % SLAB * 16 + t * 4) = words;
    }
}

// Grid: anchors / 128, splits. `seen` is (splits, anchors). `anchors_out` is (anchors, 4): loss, positive, entropy,
// hardest; this kernel writes the positive's similarity, s(i,j).
KERNEL(BY_TWOS, nt_xent_forward)(Halves all, Views n, u32 columns_per_split, Seen *seen, float *anchors_out) {
    alignas(16) SHARED u32 room[2 * WORDS];
    const Anchors own(all, n);
    Seen found[2];
#pragma unroll
    for (u32 row = 0; row < 2; ++row) found[row] = {-INFINITE, 0.0f, 0.0f};
    for_each_tile(room, own, all, n, columns_per_split, [&](const float (&s)[8][4], const Columns &columns, u32) {
#pragma unroll
        for (u32 row = 0; row < 2; ++row) {
            float peak = found[row].peak;
#pragma unroll
            for (u32 i = 0; i < 16; ++i) {
                const float value = s[i / 2][2 * row + i % 2];
                if (columns.are_pair(row, i / 2, i % 2)) anchors_out[4 * own.anchor[row] + 1] = value;
                if (columns.is_negative(row, i / 2, i % 2) && value > peak) peak = value;
            }
            found[row] = raised(found[row], peak);
#pragma unroll
            for (u32 i = 0; i < 16; ++i) {
                const bool counts = columns.is_negative(row, i / 2, i % 2);
                const float below = s[i / 2][2 * row + i % 2] - peak, e = expf(below);
                found[row].mass += counts ? e : 0.0f;
                found[row].moment += counts ? below * e : 0.0f;
            }
        }
    });
    if (!own.any) return;
#pragma unroll
    for (u32 row = 0; row < 2; ++row) {
        Seen &all_lanes = found[row];
        for (int step = 2; step > 0; step /= 2) {
            Seen other = {__shfl_xor_sync(ALL_LANES, all_lanes.peak, step), __shfl_xor_sync(ALL_LANES, all_lanes.mass, step),
                          __shfl_xor_sync(ALL_LANES, all_lanes.moment, step)};
            all_lanes = joined(all_lanes, other);
        }
        if (threadIdx.x % 4 == 0 && Anchors::inside(row, n)) seen[(i64)blockIdx.y * n.anchors + own.anchor[row]] = all_lanes;
    }
}

// Combines the splits, one thread per anchor.
KERNEL(256, nt_xent_anchors)(const Seen *seen, u32 splits, u32 anchors, float *out) {
    u32 anchor = blockIdx.x * blockDim.x + threadIdx.x;
    if (anchor >= anchors) return;
    Seen all = seen[anchor];
    for (u32 split = 1; split < splits; ++split) all = joined(all, seen[(i64)split * anchors + anchor]);
    // Without negatives, the positive is its own reference.
    float positive = out[4 * anchor + 1], below = all.peak == -INFINITE ? 0.0f : positive - all.peak;
    float weight = expf(below), total = all.mass + weight;
    if (all.mass <= weight) {
        // The log-sum-exp minus the positive's similarity would lose the digits of a small loss.
        float loss = log1pf(all.mass / weight);
        out[4 * anchor] = loss;
        out[4 * anchor + 2] = loss + (below * all.mass - all.moment) / total;
    } else {
        out[4 * anchor] = logf(total) - below;
        out[4 * anchor + 2] = logf(total) - (all.moment + below * weight) / total;
    }
    out[4 * anchor + 3] = all.peak;
}

// The sums over anchors of the loss, of hits (no negative is as similar as the positive) and of entropy; and each
// anchor's lse. One block of 1024 threads.
KERNEL(1024, nt_xent_figures)(const float *anchors, u32 count, double *sums, float *lse) {
    SHARED double places[32];
    double loss = 0.0, hits = 0.0, entropy = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const float *a = anchors + 4 * i;
        loss += a[0];
        hits += a[1] > a[3] ? 1.0 : 0.0;
        entropy += a[2];
        // At least as great as every similarity, despite rounding; NaN propagates.
        float sum = a[1] + a[0], least = a[3] > a[1] ? a[3] : a[1];
        lse[i] = least > sum ? least : sum;
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

// The mean loss over all views, from the sums of `nt_xent_figures`.
KERNEL(32, nt_xent_mean)(const double *sums, double views, float *loss) {
    if (threadIdx.x == 0) *loss = (float)(sums[0] / views);
}

// Grid: anchors / 128, splits, dim / 128. `partials` is (splits, anchors, dim): the sum over a split's views k of
// (p(i,k) + p(k,i)) z_k - 2 z_j, where j is the positive and p(i,k) = exp(s(i,k) - lse_i). `anchors` are forward's;
// `lse` has one value per view of all workers.
KERNEL(BY_TWOS, nt_xent_backward)
(Halves all, const float *anchors, const float *lse, Views n, u32 columns_per_split, float *partials) {
    alignas(16) SHARED u32 room[2 * WORDS];
    // p(i,j) + p(j,i) - 2, computed from both losses: 1 - p is the weight of the negatives. For p near 1, the direct
    // difference would be nothing but rounding error.
    auto pull = [&](u32 anchor) {
        return expm1f(-anchors[4 * anchor]) + expm1f(-anchors[4 * (positive_of(n, anchor) - n.offset)]);
    };
    auto known = [&](u32 k) { return lse[k]; };
    auto push = [](float s, float mine, float theirs) { return expf(s - mine) + expf(s - theirs); };
    weighted_views(room, all, n, columns_per_split, partials, known, pull, push);
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
