// Sums over rows of channels, two of them a channel, in f64 and in a fixed order: pieces of rows first, which `sum_pieces` adds up.

// Terms that a thread adds up in f32 before their sum joins an f64 one.
constexpr int RUN = 32;
constexpr u32 SUM_THREADS = 256;

// A block of 256 threads takes `lanes` (a power of two, at most 32) packs of N channels side by side, from pack blockIdx.x * lanes
// on, and the rows of piece blockIdx.y. `terms.add(at, channel, first, second)` adds the terms of the N values from `at` on.
// `partials` is (pieces, 2, channels), `places` has room for 2 * N * SUM_THREADS values.
template <int N, class Terms>
DEVICE void row_sums(Terms terms, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece, double *partials, double *places) {
    u32 lane = threadIdx.x % lanes, rank = threadIdx.x / lanes, ranks = SUM_THREADS / lanes;
    u32 channel = (blockIdx.x * lanes + lane) * N;
    i64 begin = blockIdx.y * rows_per_piece;
    i64 end = begin + rows_per_piece < rows ? begin + rows_per_piece : rows;
    double total[2 * N];
#pragma unroll
    for (int i = 0; i < 2 * N; ++i) total[i] = 0.0;
    if (channel < channels) {
        terms.prepare(channel);
        i64 row = begin + rank;
        while (row < end) {
            float first[N], second[N];
#pragma unroll
            for (int i = 0; i < N; ++i) first[i] = second[i] = 0.0f;
            for (int run = 0; run < RUN && row < end; ++run, row += ranks) terms.add(row * channels + channel, first, second);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                total[i] += first[i];
                total[N + i] += second[i];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2 * N; ++i) places[i * SUM_THREADS + threadIdx.x] = total[i];
    __syncthreads();
    for (u32 j = threadIdx.x; j < lanes * 2 * N; j += SUM_THREADS) {
        u32 value = j / lanes, column = (blockIdx.x * lanes + j % lanes) * N + value % N;
        if (column >= channels) continue;
        double sum = 0.0;
        for (u32 r = 0; r < ranks; ++r) sum += places[value * SUM_THREADS + r * lanes + j % lanes];
        partials[((i64)blockIdx.y * 2 + value / N) * channels + column] = sum;
    }
}
