use super::*;

/// A generator of pseudo-random numbers.
fn noise(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    }
}

#[test]
fn transforms_are_the_same_bits() {
    let mut next = noise(1);
    for round in 0..2000 {
        // From ordinary coefficients to those of damaged files.
        let range = [1u32, 8, 100, 2048, 65536][round % 5];
        let mut block = || -> Coefficients {
            std::array::from_fn(|_| (next() % (2 * range)) as i32 - range as i32).map(|value| value as i16)
        };
        let blocks = [block(), block()];
        let steps: [[i16; 64]; 2] =
            std::array::from_fn(|_| std::array::from_fn(|_| 1 + (next() % 255) as i16));
        let run = |isa: Isa| {
            let mut out = [[0; 64]; 2];
            inverse_dct(isa, [&blocks[0], &blocks[1]], [&steps[0], &steps[1]], &mut out);
            out
        };
        for isa in Isa::all() {
            assert_eq!(run(isa), run(Isa::PORTABLE), "{isa:?}, round {round}");
        }
    }
}

#[test]
fn a_mean_alone_is_the_transform_of_it() {
    for value in i16::MIN..=i16::MAX {
        let mut block = [0; 128];
        block[0] = value;
        let mut out = [[0; 64]; 2];
        inverse_dct(Isa::PORTABLE, [&block; 2], [&[1; 64]; 2], &mut out);
        assert_eq!(out, [[mean(value, 1); 64]; 2], "{value}");
    }
}

#[test]
fn rows_are_the_same_bits() {
    let mut next = noise(2);
    let mut row = || -> Vec<u8> { (0..300).map(|_| next() as u8).collect() };
    let (a, b, c) = (row(), row(), row());
    for isa in Isa::all() {
        for count in (0..70).chain([200]) {
            let lines = |isa: Isa| {
                let mut out = vec![vec![0; 2 * count]; 3];
                upsample_across(isa, &a, &mut out[0]);
                upsample_both(isa, &a, &b, &mut out[1]);
                upsample_down(isa, &a, &b, 1 + count as u16 % 2, &mut out[2]);
                out
            };
            assert_eq!(lines(isa), lines(Isa::PORTABLE), "{isa:?}, {count}");
            for spare in [0, 50, 100] {
                let pixels = |isa: Isa| {
                    let mut out = vec![0; 3 * count + spare];
                    to_rgb(isa, &a, &b, &c, count, &mut out);
                    out.truncate(3 * count);
                    out
                };
                assert_eq!(pixels(isa), pixels(Isa::PORTABLE), "{isa:?}, {count}");
            }
        }
    }
}

/// Checks all 2^16 pairs of chroma against the formulas of `jdcolor.c`.
#[test]
fn colours_are_those_of_libjpeg() {
    let fix = |value: f64| (value * 65536.0 + 0.5) as i32;
    for cr in 0..=255u8 {
        let cb: Vec<u8> = (0..=255).collect();
        let y: Vec<u8> = cb.iter().map(|cb| cb.wrapping_mul(cr)).collect();
        for isa in Isa::all() {
            let mut out = vec![0; 3 * 256];
            to_rgb(isa, &y, &cb, &[cr; 256], 256, &mut out);
            for (at, pixel) in out.as_chunks::<3>().0.iter().enumerate() {
                let (y, b, r) = (i32::from(y[at]), at as i32 - 128, i32::from(cr) - 128);
                let red = y + ((fix(1.402) * r + 32768) >> 16);
                let green = y + ((-fix(0.34414) * b + 32768 - fix(0.71414) * r) >> 16);
                let blue = y + ((fix(1.772) * b + 32768) >> 16);
                assert_eq!(*pixel, [red, green, blue].map(|value| value.clamp(0, 255) as u8));
            }
        }
    }
}
