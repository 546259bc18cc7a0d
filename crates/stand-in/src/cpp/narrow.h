// Conversions of 16-bit floats, for which a GPU has instructions. Comes after the types in `common.cuh`.

DEVICE float widen(f16 x) {
    u32 sign = (u32)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 0x1f, fraction = x.bits & 0x3ff;
    if (exponent == 0x1f) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    float tiny = (float)fraction * 5.9604644775390625e-8f;
    return sign ? -tiny : tiny;
}
template <> struct Narrow<bf16> {
    static DEVICE bf16 of(float x) {
        u32 bits = __float_as_uint(x);
        if ((bits & 0x7fffffff) > 0x7f800000) return {(u16)0x7fff};
        return {(u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
    }
};
template <> struct Narrow<f16> {
    static DEVICE f16 of(float x) {
        u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
        if (size > 0x7f800000) return {(u16)0x7fff};
        // Values from 65520 on round to infinity.
        if (size >= 0x477ff000) return {(u16)(sign | 0x7c00)};
        if (size < 0x38800000) {
            // Below 2^-14 the step is 2^-24, which is the last bit of a sum with 0.5.
            float shifted = __uint_as_float(size) + 0.5f;
            return {(u16)(sign | (__float_as_uint(shifted) - 0x3f000000))};
        }
        return {(u16)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13)};
    }
};
