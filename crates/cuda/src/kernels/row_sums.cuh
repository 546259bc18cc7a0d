// Sums over rows of channels, a few of them a channel, in f64 and in a fixed order: pieces of rows first, which
// `sum_of_pieces` adds up.

// Terms that a thread adds up in f32 before their sum joins an f64 one.
constexpr u32 RUN = 32;
constexpr u32 SUM_THREADS = 256;

// A block of 256 threads takes `lanes` (a power of two, at most 32) packs of N channels side by side, from pack
// blockIdx.x * lanes on, and the rows of one piece. `terms.prepare(begin, channel)` is told where the piece begins;
// `terms.fetch(at)` reads what belongs to the N values from there + `at` on, AHEAD of which are on their way at
// once, and `terms.add(at, fetched, sums)` adds their terms. Sums in f64 wait in shared memory, where they take no
// registers from what is on its way. `partials` is (pieces, SUMS, channels), `places` has room for SUMS * N *
// SUM_THREADS values.
template <int N, u32 AHEAD, int SUMS = 2, class Terms>
DEVICE void row_sums(Terms terms, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece, double *partials, double *places) {
    u32 lane = threadIdx.x % lanes, rank = threadIdx.x / lanes, ranks = SUM_THREADS / lanes;
    u32 channel = (blockIdx.x * lanes + lane) * N;
    // The last piece first: what was written last is still in the cache, and the pass that follows begins with what
    // is read last here.
    u32 piece = gridDim.y - 1 - blockIdx.y;
    i64 begin = piece * rows_per_piece;
    i64 end = begin + rows_per_piece < rows ? begin + rows_per_piece : rows;
    // Volatile, or the compiler would keep them in registers after all.
    volatile double *own = places + threadIdx.x;
#pragma unroll
    for (int i = 0; i < SUMS * N; ++i) own[i * SUM_THREADS] = 0.0;
    if (channel < channels) {
        // From the first of the piece on, values are counted in 32 bits.
        terms.prepare(begin * channels, channel);
        const u32 step = ranks * channels, stop = (u32)((end - begin) * channels);
        u32 at = rank * channels + channel;
        while (at < stop) {
            float sums[SUMS][N];
#pragma unroll
            for (int i = 0; i < SUMS * N; ++i) sums[i / N][i % N] = 0.0f;
            for (u32 run = 0; run < RUN && at < stop; run += AHEAD, at += AHEAD * step) {
                typename Terms::Fetched fetched[AHEAD];
#pragma unroll
                for (u32 u = 0; u < AHEAD; ++u) {
                    if (at + u * step < stop) fetched[u] = terms.fetch(at + u * step);
                }
#pragma unroll
                for (u32 u = 0; u < AHEAD; ++u) {
                    if (at + u * step < stop) terms.add(at + u * step, fetched[u], sums);
                }
            }
#pragma unroll
            for (int i = 0; i < SUMS * N; ++i) own[i * SUM_THREADS] = own[i * SUM_THREADS] + sums[i / N][i % N];
        }
    }
    __syncthreads();
    for (u32 j = threadIdx.x; j < lanes * SUMS * N; j += SUM_THREADS) {
        u32 value = j / lanes, column = (blockIdx.x * lanes + j % lanes) * N + value % N;
        if (column >= channels) continue;
        double sum = 0.0;
        for (u32 r = 0; r < ranks; ++r) sum += places[value * SUM_THREADS + r * lanes + j % lanes];
        partials[((i64)piece * SUMS + value / N) * channels + column] = sum;
    }
}
