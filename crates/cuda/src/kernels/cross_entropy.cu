// Softmax cross-entropy of rows of logits against class numbers, one warp per row.

// `losses` gets -log softmax(logits)[label] of each row; dlogits becomes the gradient of their mean. A label that is no
// class gives NaN.
KERNEL(256, softmax_cross_entropy)
(const float *logits, const u32 *labels, float *losses, float *dlogits, u32 rows, u32 classes) {
    u32 row = row_of_warp(), lane = threadIdx.x % WARP;
    if (row >= rows) return;
    logits += (i64)row * classes;
    dlogits += (i64)row * classes;
    u32 label = labels[row];
    float most = -INFINITE;
    for (u32 i = lane; i < classes; i += WARP) most = at_least(logits[i], most);
    most = warp_max(most);
    float mass = 0.0f;
    for (u32 i = lane; i < classes; i += WARP) mass += expf(logits[i] - most);
    mass = warp_sum(mass);
    // Everything is relative to the greatest logit: adding that to the logarithm would lose digits if logits are large.
    if (lane == 0) losses[row] = label < classes ? logf(mass) - (logits[label] - most) : INFINITE - INFINITE;
    for (u32 i = lane; i < classes; i += WARP) {
        float gradient = expf(logits[i] - most) / mass / rows;
        dlogits[i] = i == label ? gradient - 1.0f / rows : gradient;
    }
}
