// Passes over lists of tensors in f32: one launch for all parameters instead of one for each.
//
// Passes that update tensors do so only if `*finite` is not 0, so that a step with a NaN changes nothing.

constexpr u32 MOST_TENSORS = 96;
// Values that a block of 256 threads covers.
constexpr u32 CHUNK = 8192;
// Values of these that a thread has in flight at a time.
constexpr u32 AHEAD = 4;

struct TensorList {
    float *weight[MOST_TENSORS];
    const float *gradient[MOST_TENSORS];
    float *state[MOST_TENSORS];
    u64 length[MOST_TENSORS];
    // The first block of each tensor, and after the last, the number of blocks.
    u32 first_block[MOST_TENSORS + 1];
    // Bit t % 32 of number t / 32: whether tensor t has weight decay, and its learning rate is adapted by LARS.
    u32 adapted[MOST_TENSORS / 32];
    u32 count;
};

// The tensor that a block works on.
DEVICE u32 tensor_of(const TensorList &list) {
    u32 low = 0, high = list.count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (list.first_block[middle] <= blockIdx.x) low = middle;
        else high = middle;
    }
    return low;
}

DEVICE bool is_adapted(const TensorList &list, u32 t) { return list.adapted[t / 32] >> (t % 32) & 1; }

// The operands of a pass for one value.
struct Read {
    float weight, gradient, first, second;
};

// For each of this thread's values in the block's chunk of tensor t, `fetch(i)` reads the operands, then
// `finish(i, read)` does the rest.
template <class Fetch, class Finish> DEVICE void for_chunk(const TensorList &list, u32 t, Fetch fetch, Finish finish) {
    u64 begin = (u64)(blockIdx.x - list.first_block[t]) * CHUNK;
    u64 end = begin + CHUNK < list.length[t] ? begin + CHUNK : list.length[t];
    for (u64 i = begin + threadIdx.x; i < end; i += AHEAD * blockDim.x) {
        Read read[AHEAD];
#pragma unroll
        for (u32 u = 0; u < AHEAD; ++u) {
            if (i + u * blockDim.x < end) read[u] = fetch(i + u * blockDim.x);
        }
#pragma unroll
        for (u32 u = 0; u < AHEAD; ++u) {
            if (i + u * blockDim.x < end) finish(i + u * blockDim.x, read[u]);
        }
    }
}

// `partials[block]` is [|w|^2, |g + decay w|^2] of the block's chunk, where g is the gradient times *unscale.
KERNEL(256, lars_norms)(TensorList list, float decay, const float *unscale, double *partials) {
    SHARED double places[8];
    u32 t = tensor_of(list);
    double weights = 0.0, decayed = 0.0;
    float factor = *unscale;
    auto fetch = [&](u64 i) { return Read{list.weight[t][i], list.gradient[t][i]}; };
    for_chunk(list, t, fetch, [&](u64, const Read &read) {
        float w = read.weight, d = fmaf(decay, w, read.gradient * factor);
        weights += (double)w * w;
        decayed += (double)d * d;
    });
    weights = block_sum(weights, places);
    decayed = block_sum(decayed, places);
    if (threadIdx.x == 0) {
        partials[2 * blockIdx.x] = weights;
        partials[2 * blockIdx.x + 1] = decayed;
    }
}

// The sum of squares of the gradients of the block's chunk.
KERNEL(256, gradient_squares)(TensorList list, double *partials) {
    SHARED double places[8];
    u32 t = tensor_of(list);
    double sum = 0.0;
    auto fetch = [&](u64 i) { return Read{0.0f, list.gradient[t][i]}; };
    for_chunk(list, t, fetch, [&](u64, const Read &read) {
        float g = read.gradient;
        sum += (double)g * g;
    });
    sum = block_sum(sum, places);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// The factor of tensor t's learning rate: coefficient |w| / |g + decay w|, or 1 where either norm is 0 (You et al.,
// arXiv:1708.03888).
DEVICE double trust_ratio(const TensorList &list, u32 t, const double *partials, float coefficient, double *places) {
    double weights = 0.0, decayed = 0.0;
    for (u32 block = list.first_block[t] + threadIdx.x; block < list.first_block[t + 1]; block += blockDim.x) {
        weights += partials[2 * block];
        decayed += partials[2 * block + 1];
    }
    weights = block_sum(weights, places);
    decayed = block_sum(decayed, places);
    if (threadIdx.x == 0) *places = weights > 0.0 && decayed > 0.0 ? coefficient * sqrt(weights) / sqrt(decayed) : 1.0;
    __syncthreads();
    return *places;
}

// v = momentum v + rate (g + decay w); w -= v, or with Nesterov w -= momentum v + rate (g + decay w). The rate is
// *rate, for adapted tensors times the trust ratio if `partials` (from `lars_norms` for the same list) is not null.
// Other tensors have no weight decay.
KERNEL(256, momentum_update)
(TensorList list, const float *rate, const float *unscale, const double *finite, const double *partials, float coefficient, float momentum,
 float decay, u32 nesterov) {
    SHARED double places[8];
    if (*finite == 0.0) return;
    u32 t = tensor_of(list);
    bool adapted = is_adapted(list, t);
    float step = *rate, factor = *unscale, own_decay = adapted ? decay : 0.0f;
    if (adapted && partials) step = (float)(step * trust_ratio(list, t, partials, coefficient, places));
    auto fetch = [&](u64 i) { return Read{list.weight[t][i], list.gradient[t][i], list.state[t][i]}; };
    for_chunk(list, t, fetch, [&](u64 i, const Read &read) {
        float w = read.weight, v = read.first;
        float push = step * fmaf(own_decay, w, read.gradient * factor);
        v = fmaf(momentum, v, push);
        list.state[t][i] = v;
        list.weight[t][i] = w - (nesterov ? fmaf(momentum, v, push) : v);
    });
}

// AdamW (Loshchilov and Hutter, arXiv:1711.05101); the state holds the first moment, then the second. `hyper` is
// [rate, 1 - beta1^step, 1 - beta2^step].
KERNEL(256, adamw_update)
(TensorList list, const float *hyper, const float *unscale, const double *finite, float beta1, float beta2, float epsilon, float decay) {
    if (*finite == 0.0) return;
    u32 t = tensor_of(list);
    float rate = hyper[0], c1 = hyper[1], c2 = hyper[2], factor = *unscale;
    float own_decay = is_adapted(list, t) ? decay : 0.0f;
    float *first = list.state[t], *second = list.state[t] + list.length[t];
    auto fetch = [&](u64 i) { return Read{list.weight[t][i], list.gradient[t][i], first[i], second[i]}; };
    for_chunk(list, t, fetch, [&](u64 i, const Read &read) {
        float g = read.gradient * factor, w = read.weight;
        float m = fmaf(beta1, read.first, (1.0f - beta1) * g);
        float v = fmaf(beta2, read.second, (1.0f - beta2) * g * g);
        first[i] = m;
        second[i] = v;
        list.weight[t][i] = w - rate * (m / c1 / (sqrtf(v / c2) + epsilon) + own_decay * w);
    });
}

// Replaces each weight by its gradient: for running averages, which take effect once the step is known to be sound.
KERNEL(256, replace)(TensorList list, const double *finite) {
    if (*finite == 0.0) return;
    u32 t = tensor_of(list);
    auto fetch = [&](u64 i) { return Read{0.0f, list.gradient[t][i]}; };
    for_chunk(list, t, fetch, [&](u64 i, const Read &read) { list.weight[t][i] = read.gradient; });
}
