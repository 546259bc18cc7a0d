//! Compares every implementation of the vector operations with the portable one.

use super::{BLOCK, Isa, Task, Vector};

/// Applies all operations to the lanes of a block; the output is their results one after another.
struct All<'a> {
    a: &'a [f32],
    b: &'a [f32],
    bytes: &'a [u8],
    offsets: &'a [u32],
}

impl Task for All<'_> {
    type Output = Vec<u32>;

    fn run<V: Vector>(self) -> Vec<u32> {
        let mut results = vec![[0.0; BLOCK]; 19];
        let mut bytes = [0; 3 * BLOCK];
        let narrow: Vec<u32> = self.offsets.iter().map(|offset| offset % 8).collect();
        let wide: Vec<u32> = self.offsets.iter().map(|offset| offset % 16).collect();
        for x in (0..BLOCK).step_by(V::LANES) {
            // SAFETY: `a` and `b` hold six blocks, `bytes` and `offsets` one; `narrow` is below the lanes of any
            // vector, `wide` below twice as many, and `offsets` below the length of `a`.
            unsafe {
                let (a, b) = (V::load(self.a.as_ptr().add(x)), V::load(self.b.as_ptr().add(x)));
                let pixels = V::load_pixels(self.a.as_ptr().add(3 * x));
                let of = [
                    a + b,
                    a - b,
                    a * b,
                    a / b,
                    a.min(b),
                    a.max(b),
                    a.if_equal(b, b + b, a),
                    a.if_less(b, b + b, a),
                    a.abs(),
                    a.clip(),
                    V::load_bytes(self.bytes.as_ptr().add(x)),
                    pixels[0],
                    pixels[1],
                    pixels[2],
                    V::gather(self.a.as_ptr(), V::index(self.offsets.as_ptr().add(x))),
                    V::lookup_wide(self.a.as_ptr().add(1), V::index(wide.as_ptr().add(x))),
                    V::lookup(self.a.as_ptr().add(2), V::index(narrow.as_ptr().add(x))),
                ];
                for (result, value) in results.iter_mut().zip(of) {
                    value.store(result.as_mut_ptr().add(x));
                }
                V::store_pixels(pixels.map(V::clip), bytes.as_mut_ptr().add(3 * x));
            }
        }
        results.iter().flatten().map(|v| v.to_bits()).chain(bytes.map(u32::from)).collect()
    }
}

#[test]
fn every_form_computes_the_same_bits() {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    for _ in 0..100 {
        let mut a: Vec<f32> = (0..6 * BLOCK).map(|_| next()).collect();
        let b: Vec<f32> = (0..6 * BLOCK).map(|i| if i % 5 == 0 { a[i] } else { next() }).collect();
        // Ties in the rounding to bytes.
        for (i, value) in a.iter_mut().take(8).enumerate() {
            *value = (i as f32 * 20.0 + 0.5) / 255.0;
        }
        let bytes: Vec<u8> = (0..BLOCK).map(|_| (next() * 127.0 + 128.0) as u8).collect();
        let offsets: Vec<u32> = (0..BLOCK).map(|_| ((next() + 1.0) * 23.9) as u32).collect();
        let run = |isa: Isa| super::run(isa, All { a: &a, b: &b, bytes: &bytes, offsets: &offsets });
        let expected = run(Isa::PORTABLE);
        for isa in Isa::all() {
            assert_eq!(run(isa), expected, "{isa}");
        }
    }
}
