// Sums over rows of channels, a few per channel, in f64 and in a fixed order: first over pieces of the rows, which
// `sum_of_pieces` then adds up.

// Terms that a thread adds up in f32 before it adds their sum to an f64 one.
constexpr u32 RUN = 32;
constexpr u32 SUM_THREADS = 256;

// A block of 256 threads sums `lanes` (a power of two, at most 32) adjacent packs of N channels, from pack
// blockIdx.x * lanes on, over the rows of one piece. `terms.prepare(begin, channel)` receives the piece's first value;
// `terms.fetch(at)` reads the operands of the N values from there + `at` on, AHEAD of which are in flight at a time,
// and `terms.add(at, fetched, sums)` adds their terms. The f64 sums are in shared memory, to leave registers to the
// values in flight. `partials` is (pieces, SUMS, channels), `places` has room for SUMS * N * SUM_THREADS values.
template <int N, u32 AHEAD, int SUMS = 2, class Terms>
DEVICE void row_sums(Terms terms, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece, double *partials, double *places) {
    u32 lane = threadIdx.x % lanes, rank = threadIdx.x / lanes, ranks = SUM_THREADS / lanes;
    u32 channel = (blockIdx.x * lanes + lane) * N;
    // The last piece first: the values written last are still in the cache, and the next pass begins with those that
    // are read last here.
    u32 piece = gridDim.y - 1 - blockIdx.y;
    i64 begin = piece * rows_per_piece;
    i64 end = begin + rows_per_piece < rows ? begin + rows_per_piece : rows;
    // Volatile, to stop the compiler from keeping them in registers after all.
    volatile double *own = places + threadIdx.x;
#pragma unroll
    for (int i = 0; i < SUMS * N; ++i) own[i * SUM_THREADS] = 0.0;
    if (channel < channels) {
        // Within the piece, values are counted in 32 bits.
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
