// The last stage of sums, and the verdict on a step that follows from its sums.

// `out[i]` = the sum over pieces of `partials[piece][i]`.
KERNEL(1024, sum_pieces)(const double *partials, u32 pieces, u32 width, double *out) {
    SHARED double places[32 * COLUMNS];
    u32 column = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
    double sum = sum_of_pieces(partials, pieces, width, column, places);
    if (threadIdx.x < COLUMNS && column < width) out[column] = sum;
}

// f64 to f32.
KERNEL(256, narrow_sums)(const double *sums, float *out, u32 count) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) out[i] = (float)sums[i];
}

// f32 to f64: `half` values from the beginning of `sums`, and as many from `apart` on.
KERNEL(256, widen_sums)(const float *sums, u32 half, u32 apart, double *out) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < 2 * half; i += gridDim.x * blockDim.x) {
        out[i] = sums[i < half ? i : apart + i - half];
    }
}

// The sum of values times `factor`, by one block of 1024 threads.
KERNEL(1024, sum_values)(const float *values, u32 count, double factor, double *out) {
    SHARED double places[32];
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) sum += values[i];
    sum = block_sum(sum, places);
    if (threadIdx.x == 0) *out = sum * factor;
}

// The indices of a verdict's values, as in `simclr_kernels::verdict`.
enum { LOSS, ACCURACY, ENTROPY, NORM, SOUND, STEPS, LOSS_SUM, ACCURACY_SUM, TAKEN, SKIPPED };

// `simclr_kernels::verdict::judge`. Without loss scaling, `scale` and `unscale` are null.
KERNEL(32, judge)
(const double *sums, const double *squares, double views, const float *scale, const float *unscale, double *verdict) {
    if (threadIdx.x != 0) return;
    verdict[TAKEN] = 0.0;
    if (verdict[SOUND] == 0.0) return;
    double loss = sums[0] / views, accuracy = sums[1] / views, norm = sqrt(*squares);
    if (unscale) norm *= *unscale;
    verdict[LOSS] = loss;
    verdict[ACCURACY] = accuracy;
    verdict[ENTROPY] = sums[2] / views;
    // x - x is NaN for infinities and NaN.
    bool finite_loss = loss - loss == 0.0, finite_norm = norm - norm == 0.0;
    if (finite_loss && !finite_norm && scale && *scale > 1.0f) {
        verdict[SKIPPED] += 1.0;
    } else {
        verdict[NORM] = norm;
        if (!(finite_loss && finite_norm)) {
            verdict[SOUND] = 0.0;
            return;
        }
        verdict[TAKEN] = 1.0;
    }
    verdict[STEPS] += 1.0;
    verdict[LOSS_SUM] += loss;
    verdict[ACCURACY_SUM] += accuracy;
}

// Dynamic loss scaling: the scale halves after a non-finite step, down to 1, and doubles after `interval` sound steps,
// up to 2^24. `since` counts the steps since it changed.
KERNEL(32, update_loss_scale)(const double *finite, float *scale, float *unscale, float *since, u32 interval) {
    if (threadIdx.x != 0) return;
    float factor = *scale, steps = *since + 1.0f;
    if (*finite == 0.0) {
        factor = factor > 1.0f ? factor * 0.5f : factor;
        steps = 0.0f;
    } else if (steps >= interval) {
        factor = factor < 16777216.0f ? factor * 2.0f : factor;
        steps = 0.0f;
    }
    *scale = factor;
    *unscale = 1.0f / factor;
    *since = steps;
}
