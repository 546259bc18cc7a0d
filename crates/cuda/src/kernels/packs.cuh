// Passes over rows of channels, a pack of values at a time.

// Iterates over packs of N values. The grid covers whole rows at a time, so that each thread has packs of the same
// channels. `pass.fetch(at)` reads the operands of a pack, AHEAD of which are in flight at a time, and
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
