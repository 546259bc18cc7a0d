// The coefficients of BatchNorm's passes from its sums, in f64; one thread per channel unless noted otherwise.

// `sums` is [sum of x, sum of x^2] over `count` values per channel; `coefficients` becomes [scale, shift, mean,
// inv_std]. `beta` may be null. `new_mean` and `new_var`, which may be null, get the running averages, moved towards
// the mean and the unbiased variance: the old averages stay until the step is known to be sound.
KERNEL(256, batch_norm_coefficients)
(const double *sums, double count, const float *gamma, const float *beta, double epsilon, double keep, const float *running_mean,
 const float *running_var, float *coefficients, float *new_mean, float *new_var, u32 channels) {
    u32 c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    double mean = sums[c] / count;
    double variance = sums[channels + c] / count - mean * mean;
    // Rounding may make it slightly negative. NaN is kept.
    if (variance < 0.0) variance = 0.0;
    float inv_std = (float)(1.0 / sqrt(variance + epsilon));
    float scale = gamma[c] * inv_std;
    coefficients[c] = scale;
    coefficients[channels + c] = fmaf(-scale, (float)mean, beta ? beta[c] : 0.0f);
    coefficients[2 * channels + c] = (float)mean;
    coefficients[3 * channels + c] = inv_std;
    if (new_mean) {
        double unbias = count > 1.0 ? count / (count - 1.0) : 1.0;
        new_mean[c] = (float)(keep * running_mean[c] + (1.0 - keep) * mean);
        new_var[c] = (float)(keep * running_var[c] + (1.0 - keep) * variance * unbias);
    }
}

// The coefficients from running averages, which are constants here.
KERNEL(256, batch_norm_frozen_coefficients)
(const float *running_mean, const float *running_var, const float *gamma, const float *beta, float epsilon, float *coefficients,
 u32 channels) {
    u32 c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    float inv_std = 1.0f / sqrtf(running_var[c] + epsilon);
    float scale = gamma[c] * inv_std;
    coefficients[c] = scale;
    coefficients[channels + c] = fmaf(-scale, running_mean[c], beta ? beta[c] : 0.0f);
    coefficients[2 * channels + c] = running_mean[c];
    coefficients[3 * channels + c] = inv_std;
}

// [a, b, c] of dx = g a + x b + c = gamma inv_std (g - sum g / n - (x - mean) inv_std^2 sum g (x - mean) / n), from the
// sums of g and of g (x - mean) over `count` values of channel c; `count` is 0 where the statistics were constants.
DEVICE void backward_coefficients(double sum, double product, double count, double a, double mean, double inv_std, float *abc, u32 c,
                                  u32 channels) {
    double slope = 0.0, constant = 0.0;
    if (count > 0.0) {
        slope = -a * inv_std * inv_std * product / count;
        constant = -a * sum / count - slope * mean;
    }
    abc[c] = (float)a;
    abc[channels + c] = (float)slope;
    abc[2 * channels + c] = (float)constant;
}

// `sums` becomes [sum of g, sum of g (x - mean)] of this worker. `partials` are their pieces of `width` values, in
// which the first sums begin at 0 and the second at `products`. `dgamma` and `dbeta` become this worker's share of the
// gradients, `abc` the coefficients where no other worker's sums are added; these three may be null. Blocks are those
// of `sum_of_pieces`: half of a block's columns are sums of g, the others are the same channels' sums of products.
KERNEL(1024, batch_norm_backward_totals)
(const double *partials, u32 pieces, u32 width, u32 products, const float *coefficients, double count, double *sums, float *dgamma,
 float *dbeta, float *abc, u32 channels) {
    SHARED double places[32 * COLUMNS];
    u32 lane = threadIdx.x % COLUMNS, c = blockIdx.x * (COLUMNS / 2) + lane % (COLUMNS / 2);
    u32 column = c >= channels ? width : lane < COLUMNS / 2 ? c : products + c;
    double sum = sum_of_pieces(partials, pieces, width, column, places);
    if (threadIdx.x >= WARP) return;
    double product = __shfl_xor_sync(ALL_LANES, sum, COLUMNS / 2);
    if (threadIdx.x >= COLUMNS / 2 || c >= channels) return;
    double a = coefficients[c], mean = coefficients[2 * channels + c], inv_std = coefficients[3 * channels + c];
    sums[c] = sum;
    sums[channels + c] = product;
    if (dgamma) dgamma[c] = (float)(product * inv_std);
    if (dbeta) dbeta[c] = (float)sum;
    if (abc) backward_coefficients(sum, product, count, a, mean, inv_std, abc, c, channels);
}

// `abc` from the sums of all workers.
KERNEL(256, batch_norm_backward_coefficients)
(const double *sums, double count, const float *coefficients, float *abc, u32 channels) {
    u32 c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    double a = coefficients[c], mean = coefficients[2 * channels + c], inv_std = coefficients[3 * channels + c];
    backward_coefficients(sums[c], sums[channels + c], count, a, mean, inv_std, abc, c, channels);
}
