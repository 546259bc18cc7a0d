// Passes over rows of channels, a pack of values at a time.

// Walks over packs of N values, a thread over packs of the same channels: the grid's values are whole rows.
// `pass.fetch(at)` reads what belongs to a pack, AHEAD of which are on their way at once, and
// `pass.finish(at, fetched)` does the rest.
template <int N, u32 AHEAD, class Pass> DEVICE void for_packs(Pass pass, i64 values, u32 channels) {
    i64 stride = (i64)gridDim.x * blockDim.x * N;
    i64 first = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * N;
    pass.prepare((u32)first % channels);
    for (i64 at = first; at < values; at += AHEAD * stride) {
        typename Pass::Fetched fetched[AHEAD];
#pragma unroll
        for (u32 u = 0; u < AHEAD; ++u) {
            if (at + u * stride < values) fetched[u] = pass.fetch(at + u * stride);
        }
#pragma unroll
        for (u32 u = 0; u < AHEAD; ++u) {
            if (at + u * stride < values) pass.finish(at + u * stride, fetched[u]);
        }
    }
}
