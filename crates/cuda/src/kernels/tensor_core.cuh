// Matrix products on tensor cores.

template <class A, class B> constexpr bool SAME = false;
template <class A> constexpr bool SAME<A, A> = true;

// c += a b on tensor cores: a is 16 x 16, b is 16 x 8, c is 16 x 8 in f32. With lane = 4 g + t, a lane holds, as pairs
// of values: of a, rows g, g + 8, g, g + 8 at columns 2 t (+ 8 for the last two); of b, column g at rows 2 t (+ 8). Of
// c it holds rows g and g + 8 at columns 2 t and 2 t + 1.
template <class E> DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulated::multiply_add(c, a, b, [](u16 bits) { return widen(E{bits}); });
#else
    if constexpr (SAME<E, bf16>) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
#endif
}

// Two values rounded and packed, the first in the lower half.
template <class E> DEVICE u32 narrow_pair(float first, float second) {
#ifdef EMULATED
    return Narrow<E>::of(first).bits | (u32)Narrow<E>::of(second).bits << 16;
#else
    u32 bits;
    if constexpr (SAME<E, bf16>) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    } else {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    }
    return bits;
#endif
}
