// The last stage of sums: adding up their pieces.

// Columns that a block adds up, and loads that a thread has in flight at a time.
constexpr u32 COLUMNS = 8;
constexpr u32 AHEAD = 8;

// Returns, in a block's first warp, the sum over pieces of `partials[piece][column]`, in a fixed order. Threads whose
// numbers are equal modulo COLUMNS must pass the same `column` and get the same sum; columns from `width` on do not
// exist. Blocks consist of whole warps, and read blockDim.x / COLUMNS pieces in parallel. `places` has room for COLUMNS
// values for each warp.
DEVICE double sum_of_pieces(const double *partials, u32 pieces, u32 width, u32 column, double *places) {
    u32 lane = threadIdx.x % COLUMNS, rank = threadIdx.x / COLUMNS, ranks = blockDim.x / COLUMNS, warp = threadIdx.x / WARP;
    double sum = 0.0;
    if (column < width) {
        for (u32 piece = rank; piece < pieces; piece += AHEAD * ranks) {
            double read[AHEAD];
#pragma unroll
            for (u32 u = 0; u < AHEAD; ++u) {
                u32 at = piece + u * ranks;
                read[u] = at < pieces ? partials[(i64)at * width + column] : 0.0;
            }
#pragma unroll
            for (u32 u = 0; u < AHEAD; ++u) sum += read[u];
        }
    }
    // Each column has four threads in a warp.
    sum += __shfl_xor_sync(ALL_LANES, sum, 8);
    sum += __shfl_xor_sync(ALL_LANES, sum, 16);
    if (threadIdx.x % WARP < COLUMNS) places[warp * COLUMNS + lane] = sum;
    __syncthreads();
    sum = 0.0;
    if (warp == 0) {
        for (u32 w = 0; w < blockDim.x / WARP; ++w) sum += places[w * COLUMNS + lane];
    }
    return sum;
}
