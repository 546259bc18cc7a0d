// Similarities of views in tiles of 64 x 64: the matrix of all never exists.
//
// Blocks of 16 x 16 threads, 4 x 4 similarities a thread. A block takes 64 anchors and one split of the other
// views; splits are put together in their order by kernels of their own.

constexpr u32 TILE = 64;
// Dimensions that are multiplied between two loads.
constexpr u32 SLICE = 16;
// Dimensions of dz that a block computes.
constexpr u32 PART = 128;
// Rows of a slice, padded so that writing it transposed does not meet in one bank.
constexpr u32 PITCH = TILE + 4;

struct Views {
    // This worker's anchors are views offset to offset + anchors of all.
    u32 anchors, views, offset, dim;
    float inverse_temperature;
};

// Loads SLICE dimensions of up to 64 rows, transposed; zeros beyond the end.
DEVICE void load_slice(float (*slice)[PITCH], const float *z, u32 first, u32 rows, u32 dim, u32 from) {
    u32 row = threadIdx.x / 4, quarter = threadIdx.x % 4 * 4;
    const float *at = z + (i64)(first + row) * dim;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        u32 k = from + quarter + i;
        slice[quarter + i][row] = first + row < rows && k < dim ? at[k] : 0.0f;
    }
}

// s[i][j] = z_i . z_k / tau for the thread's 4 anchors from `start` and 4 views from `first` on.
DEVICE void similarities(float (&s)[4][4], const float *z, const float *all, const Views &n, u32 start, u32 first, float (*left)[PITCH],
                         float (*right)[PITCH]) {
    u32 x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) s[i][j] = 0.0f;
    }
    for (u32 from = 0; from < n.dim; from += SLICE) {
        load_slice(left, z, start, n.anchors, n.dim, from);
        load_slice(right, all, first, n.views, n.dim, from);
        __syncthreads();
#pragma unroll
        for (u32 k = 0; k < SLICE; ++k) {
            float a[4], b[4];
            load(a, &left[k][y]);
            load(b, &right[k][x]);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
#pragma unroll
                for (u32 j = 0; j < 4; ++j) s[i][j] = fmaf(a[i], b[j], s[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 j = 0; j < 4; ++j) s[i][j] *= n.inverse_temperature;
    }
}

// Where the other view of an anchor's image is, among all views.
DEVICE u32 positive_of(const Views &n, u32 anchor) { return n.offset + (anchor + n.anchors / 2) % n.anchors; }

// A split's part of the gradient: `partials` (splits, anchors, dim) gets the sum over its views k of w(i,k) z_k,
// where `weigh(s(i,k), i, k)` is asked for every k but i itself. Grid: anchors / 64, splits, dim / 128. The tiles
// are shared memory.
template <class Weigh>
DEVICE void weighted_views(const float *z, const float *all, const Views &n, u32 columns_per_split, float *partials, float (*left)[PITCH],
                           float (*right)[PITCH], float (*weights)[PITCH], float (*values)[PART], const Weigh &weigh) {
    u32 start = blockIdx.x * TILE, x = threadIdx.x % 16, y = threadIdx.x / 16 * 4, part = blockIdx.z * PART;
    u32 begin = blockIdx.y * columns_per_split;
    u32 end = begin + columns_per_split < n.views ? begin + columns_per_split : n.views;
    float sum[4][8];
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
#pragma unroll
        for (u32 j = 0; j < 8; ++j) sum[i][j] = 0.0f;
    }
    for (u32 first = begin; first < end; first += TILE) {
        float s[4][4];
        similarities(s, z, all, n, start, first, left, right);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            u32 anchor = start + y + i;
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                u32 k = first + x * 4 + j;
                float weight = 0.0f;
                if (anchor < n.anchors && k < end && k != n.offset + anchor) {
                    weight = weigh(s[i][j], anchor, k);
                }
                weights[x * 4 + j][y + i] = weight;
            }
        }
        for (u32 from = 0; from < TILE; from += SLICE) {
            for (u32 i = threadIdx.x; i < SLICE * PART; i += 256) {
                u32 k = first + from + i / PART, d = part + i % PART;
                values[i / PART][i % PART] = k < end && d < n.dim ? all[(i64)k * n.dim + d] : 0.0f;
            }
            // Both the weights and the slice of values are written.
            __syncthreads();
#pragma unroll
            for (u32 k = 0; k < SLICE; ++k) {
                float w[4], low[4], high[4];
                load(w, &weights[from + k][y]);
                load(low, &values[k][x * 4]);
                load(high, &values[k][PART / 2 + x * 4]);
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
#pragma unroll
                    for (u32 j = 0; j < 4; ++j) {
                        sum[i][j] = fmaf(w[i], low[j], sum[i][j]);
                        sum[i][4 + j] = fmaf(w[i], high[j], sum[i][4 + j]);
                    }
                }
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        u32 anchor = start + y + i;
        if (anchor >= n.anchors) continue;
        float *to = partials + ((i64)blockIdx.y * n.anchors + anchor) * n.dim;
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
            u32 d = part + j / 4 * (PART / 2) + x * 4 + j % 4;
            if (d < n.dim) to[d] = sum[i][j];
        }
    }
}
