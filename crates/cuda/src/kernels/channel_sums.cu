// The sum of every channel and of its squares, over rows of channels.

template <int N> struct Squares {
    const T *x;
    DEVICE void prepare(u32) {}
    DEVICE void add(i64 at, float (&sum)[N], float (&square)[N]) const {
        float v[N];
        load(v, x + at);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            sum[i] += v[i];
            square[i] = fmaf(v[i], v[i], square[i]);
        }
    }
};

KERNEL(256, channel_sums)(const T *x, i64 rows, u32 channels, u32 lanes, i64 rows_per_piece, double *partials) {
    SHARED double places[2 * WIDTH * SUM_THREADS];
    if (channels % WIDTH == 0) {
        row_sums<WIDTH>(Squares<WIDTH>{x}, rows, channels, lanes, rows_per_piece, partials, places);
    } else {
        row_sums<1>(Squares<1>{x}, rows, channels, lanes, rows_per_piece, partials, places);
    }
}
