// Passes over values one by one.

// Calls `step(at)` for packs of WIDTH values, then `rest(at)` for the values that are left.
template <class Step, class Rest> DEVICE void for_values(i64 count, Step step, Rest rest) {
    i64 first = (i64)blockIdx.x * blockDim.x + threadIdx.x, stride = (i64)gridDim.x * blockDim.x;
    i64 packs = count / WIDTH;
    for (i64 i = first; i < packs; i += stride) step(i * WIDTH);
    for (i64 i = packs * WIDTH + first; i < count; i += stride) rest(i);
}

// `to[i] = f(a[i], b[i])`; b may be a.
template <class A, class B, class C, class F> DEVICE void map(const A *a, const B *b, C *to, i64 count, F f) {
    for_values(
        count,
        [&](i64 at) {
            float x[WIDTH], y[WIDTH];
            load(x, a + at);
            load(y, b + at);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) x[i] = f(x[i], y[i]);
            store(to + at, x);
        },
        [&](i64 at) { to[at] = Narrow<C>::of(f(widen(a[at]), widen(b[at]))); });
}

// y = max(x, 0); a NaN stays one.
KERNEL(256, relu_forward)(const T *x, T *y, i64 count) {
    map(x, x, y, count, [](float x, float) { return at_least(0.0f, x); });
}

// Clears dy where y, the ReLU's output, is not positive.
KERNEL(256, relu_backward)(const T *y, T *dy, i64 count) {
    map(y, dy, dy, count, [](float y, float dy) { return y > 0.0f ? dy : 0.0f; });
}

// a += b.
KERNEL(256, add_assign)(T *a, const T *b, i64 count) {
    map(a, b, a, count, [](float a, float b) { return a + b; });
}

// a *= factor.
KERNEL(256, scale)(T *a, float factor, i64 count) {
    map(a, a, a, count, [=](float a, float) { return a * factor; });
}

// a *= *factor, a value that the device computed.
KERNEL(256, scale_by)(T *a, const float *factor, i64 count) {
    float by = *factor;
    map(a, a, a, count, [=](float a, float) { return a * by; });
}

// a = value.
KERNEL(256, fill)(T *a, float value, i64 count) {
    map(a, a, a, count, [=](float, float) { return value; });
}

// Values in f32, exactly.
KERNEL(256, widen_values)(const T *x, float *y, i64 count) {
    map(x, x, y, count, [](float x, float) { return x; });
}

// Values of f32 rounded.
KERNEL(256, narrow_values)(const float *x, T *y, i64 count) {
    map(x, x, y, count, [](float x, float) { return x; });
}

// Bytes to [0, 1].
KERNEL(256, unit_from_bytes)(const u8 *bytes, T *y, i64 count) {
    for_values(
        count,
        [&](i64 at) {
            Pack<u8, WIDTH> pack = *reinterpret_cast<const Pack<u8, WIDTH> *>(bytes + at);
            float v[WIDTH];
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) v[i] = (float)pack.v[i] / 255.0f;
            store(y + at, v);
        },
        [&](i64 at) { y[at] = Narrow<T>::of((float)bytes[at] / 255.0f); });
}
