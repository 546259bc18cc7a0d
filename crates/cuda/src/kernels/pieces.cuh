// The last stage of sums: pieces of them are added up.

// Columns that a block adds up, and pieces of one that a thread has on their way at once.
constexpr u32 COLUMNS = 8;
constexpr u32 AHEAD = 8;

// For the threads of a block's first warp, the sum over pieces of `partials[piece][column]`, in a fixed order, those
// COLUMNS apart getting the same: `column` is that of the thread's number modulo COLUMNS, and none from `width` on.
// Blocks of whole warps: threads read as many pieces side by side as a block has rows of COLUMNS. `places` has room for
// COLUMNS values for each warp.
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
    // A warp has four pieces of each column.
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
