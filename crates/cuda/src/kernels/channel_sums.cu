// The sum of every channel and of its squares, over rows of channels.

template <int N> struct Squares {
    typedef Pack<T, N> Fetched;
    const T *x;
    DEVICE void prepare(i64 begin, u32) { x += begin; }
    DEVICE Fetched fetch(u32 at) const { return load_pack<N>(x + at); }
    DEVICE void add(u32, const Fetched &fetched, float (&sums)[2][N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            float v = widen(fetched, i);
            sums[0][i] += v;
            sums[1][i] = fmaf(v, v, sums[1][i]);
        }
    }
};

KERNEL(256, channel_sums)(const T *x, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece, double *partials) {
    SHARED double places[2 * WIDTH * SUM_THREADS];
    if (channels % WIDTH == 0) {
        row_sums<WIDTH, 4>(Squares<WIDTH>{x}, rows, channels, lanes, rows_per_piece, partials, places);
    } else {
        row_sums<1, 4>(Squares<1>{x}, rows, channels, lanes, rows_per_piece, partials, places);
    }
}
