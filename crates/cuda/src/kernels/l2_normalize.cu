// L2 normalisation of rows, one warp per row: y = x / max(|x|, 1e-12).

constexpr float EPSILON = 1e-12f;

// The sum of a[i] b[i] over a row, for every lane.
DEVICE double dot(const float *a, const float *b, u32 width) {
    double sum = 0.0;
    for (u32 i = threadIdx.x % WARP; i < width; i += WARP) sum += (double)a[i] * (double)b[i];
    return warp_sum(sum);
}

// max(|x|, EPSILON); NaN where |x| is NaN or no float, since a division by infinity would give zeros, which look sound.
DEVICE float norm_of(const float *x, u32 width) {
    float norm = (float)sqrt(dot(x, x, width));
    return at_least(EPSILON, norm + (norm - norm));
}

KERNEL(256, l2_normalize_forward)(const float *x, float *y, u32 rows, u32 width) {
    u32 row = row_of_warp();
    if (row >= rows) return;
    x += (i64)row * width;
    y += (i64)row * width;
    float norm = norm_of(x, width);
    for (u32 i = threadIdx.x % WARP; i < width; i += WARP) y[i] = x[i] / norm;
}

// dx = (dy - y (y . dy)) / |x|, where y is recomputed from x; dy / EPSILON where |x| is at most EPSILON.
KERNEL(256, l2_normalize_backward)(const float *x, const float *dy, float *dx, u32 rows, u32 width) {
    u32 row = row_of_warp();
    if (row >= rows) return;
    x += (i64)row * width;
    dy += (i64)row * width;
    dx += (i64)row * width;
    float norm = norm_of(x, width);
    float along = norm > EPSILON ? (float)(dot(x, dy, width) / ((double)norm * norm)) : 0.0f;
    for (u32 i = threadIdx.x % WARP; i < width; i += WARP) dx[i] = (dy[i] - x[i] * along) / norm;
}
