// The driver's interface to the other stand-ins. Calls `work(data)` when it is its turn on the stream, any number of
// times if it is captured, and `done(data)`, unless null, when it will not be called again.
extern "C" void stand_in_enqueue(void *stream, void (*work)(void *), void *data, void (*done)(void *));
// Called within such work: runs `work(data)`, which waits for other streams, while these go on.
extern "C" void stand_in_apart(void (*work)(void *), void *data);
// The driver's wait for all streams, which breaks any capture.
extern "C" int cuCtxSynchronize();

#define API extern "C" __attribute__((visibility("default")))

// Values of one of three types, as floats.
inline float value_at(const void *values, int type, size_t at) {
    if (type == 0) return static_cast<const float *>(values)[at];
    if (type == 1) return widen(static_cast<const bf16 *>(values)[at]);
    return widen(static_cast<const f16 *>(values)[at]);
}
inline void set_value(void *values, int type, size_t at, float value) {
    if (type == 0) static_cast<float *>(values)[at] = value;
    else if (type == 1) static_cast<bf16 *>(values)[at] = Narrow<bf16>::of(value);
    else static_cast<f16 *>(values)[at] = Narrow<f16>::of(value);
}
