// Elementwise passes.

// Packs that a thread has in flight at a time.
constexpr u32 AHEAD = 2;

// `to[i] = f(a[i], b[i])`; b may be a, and `to` either of them.
template <class A, class B, class C, class F> DEVICE void map(const A *a, const B *b, C *to, i64 count, F f) {
    i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, stride = (i64)gridDim.x * blockDim.x;
    i64 packs = count / WIDTH;
    for (i64 i = thread; i < packs; i += AHEAD * stride) {
        Pack<A, WIDTH> first[AHEAD];
        Pack<B, WIDTH> second[AHEAD];
#pragma unroll
        for (u32 u = 0; u < AHEAD; ++u) {
            i64 pack = i + u * stride;
            if (pack >= packs) continue;
            first[u] = load_pack<WIDTH>(a + pack * WIDTH);
            second[u] = load_pack<WIDTH>(b + pack * WIDTH);
        }
#pragma unroll
        for (u32 u = 0; u < AHEAD; ++u) {
            i64 pack = i + u * stride;
            if (pack >= packs) continue;
            float x[WIDTH], y[WIDTH];
            unpack(x, first[u]);
            unpack(y, second[u]);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) x[j] = f(x[j], y[j]);
            store(to + pack * WIDTH, x);
        }
    }
    for (i64 i = packs * WIDTH + thread; i < count; i += stride) to[i] = Narrow<C>::of(f(widen(a[i]), widen(b[i])));
}

// y = max(x, 0); NaN propagates.
KERNEL(256, relu_forward)(const T *x, T *y, i64 count) {
    map(x, x, y, count, [](float x, float) { return at_least(0.0f, x); });
}

// Sets dy to 0 where y, the ReLU's output, is not positive.
KERNEL(256, relu_backward)(const T *y, T *dy, i64 count) {
    map(y, dy, dy, count, [](float y, float dy) { return y > 0.0f ? dy : 0.0f; });
}

// a += b.
KERNEL(256, add_assign)(T *a, const T *b, i64 count) {
    map(a, b, a, count, [](float a, float b) { return a + b; });
}

// a *= *factor, which the device computed.
KERNEL(256, scale_by)(T *a, const float *factor, i64 count) {
    float by = *factor;
    map(a, a, a, count, [=](float a, float) { return a * by; });
}

// a = value.
KERNEL(256, fill)(T *a, float value, i64 count) {
    map(a, a, a, count, [=](float, float) { return value; });
}

// Converts values to f32, exactly.
KERNEL(256, widen_values)(const T *x, float *y, i64 count) {
    map(x, x, y, count, [](float x, float) { return x; });
}

// Rounds values of f32.
KERNEL(256, narrow_values)(const float *x, T *y, i64 count) {
    map(x, x, y, count, [](float x, float) { return x; });
}

// Bytes to [0, 1]: x / 255 rounded once. The product with 1 / 255 may be off by one unit in the last place, which the
// remainder of x corrects.
KERNEL(256, unit_from_bytes)(const u8 *bytes, T *y, i64 count) {
    map(bytes, bytes, y, count, [](float x, float) {
        constexpr float part = 1.0f / 255.0f;
        float near = x * part;
        return fmaf(fmaf(-255.0f, near, x), part, near);
    });
}
