//! Scalar functions written so that loops over them vectorise, and reductions in a fixed order of lanes.

/// Lanes of the fixed-order reductions: one AVX-512 vector, whatever the instruction set.
const LANES: usize = 16;

/// e^x, relative error at most 2e-7 where the result is normal; 0 far below, infinity far above.
///
/// Range reduction by ln 2 in two parts and a polynomial of degree 6 (the classic Cephes scheme).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-88.0, 88.7);
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let poly = p * r * r + r + 1.0;
    // Two factors, since 2^128 is not a finite float.
    let half = (n as i32) >> 1;
    let rest = n as i32 - half;
    let power = |k: i32| f32::from_bits(((k + 127) << 23) as u32);
    let y = poly * power(half) * power(rest);
    if x < -88.0 {
        0.0
    } else if x > 88.7 {
        f32::INFINITY
    } else {
        y
    }
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// ln(1 + e^x) = -ln sigmoid(-x), relative error at most 5e-7.
///
/// With e = e^-|x|, the result is max(x, 0) + ln(1 + e), where ln(1 + e) = 2 artanh t, t = e / (2 + e) <= 1/3, is
/// computed from seven terms of its series.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let e = exp(-x.abs());
    let t = e / (2.0 + e);
    let q = t * t;
    let mut series = 1.0 / 13.0;
    series = series * q + 1.0 / 11.0;
    series = series * q + 1.0 / 9.0;
    series = series * q + 1.0 / 7.0;
    series = series * q + 1.0 / 5.0;
    series = series * q + 1.0 / 3.0;
    series = series * q + 1.0;
    // This form of the comparison lets a NaN pass.
    let above = if x <= 0.0 { 0.0 } else { x };
    above + 2.0 * t * series
}

/// The sum of a[i] b[i], in f32 lanes over short runs whose sums are added in f64, always in the same order. Runs whose
/// products may be beyond the range of f32 are summed in f64.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    const RUN: usize = 32 * LANES;
    // What 512 products lose by being less than the least normal value is far below a smaller part of this than f32
    // resolves.
    const EXACT: std::ops::Range<f32> = 1e-30..f32::INFINITY;
    let mut total = 0f64;
    for (a, b) in a.chunks(RUN).zip(b.chunks(RUN)) {
        let mut lanes = [0f32; LANES];
        let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let tail = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum::<f32>();
        for (a, b) in a_chunks.zip(b_chunks) {
            for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                *lane += a * b;
            }
        }
        let run = lanes.iter().sum::<f32>() + tail;
        // Much is exactly 0 when training begins: gradients behind a gamma of 0, and every momentum.
        let is_exact = EXACT.contains(&run.abs()) || run == 0.0 && a.iter().all(|&a| a == 0.0);
        total += if is_exact { f64::from(run) } else { wide_dot(a, b) };
    }
    total
}

/// The sum of a[i] b[i] in f64, which no product of two f32 leaves.
#[cold]
fn wide_dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f64::from(*a) * f64::from(*b);
        }
    }
    lanes.iter().sum()
}

/// The greatest value, or negative infinity if there is none.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    lanes.into_iter().fold(tail, f32::max)
}

/// The sums of e^(s - m) and of (s - m) e^(s - m) over a row of logits s, relative to a maximum m.
#[inline(always)]
pub fn exp_sums(s: &[f32], m: f32) -> (f32, f32) {
    let mut mass = [0f32; LANES];
    let mut moment = [0f32; LANES];
    let mut chunks = s.chunks_exact(LANES);
    for chunk in &mut chunks {
        for ((a, b), v) in mass.iter_mut().zip(moment.iter_mut()).zip(chunk) {
            let below = v - m;
            let e = exp(below);
            *a += e;
            // A masked logit is -infinity and weighs nothing, but its product with e = 0 would be NaN.
            *b += if e > 0.0 { below * e } else { 0.0 };
        }
    }
    let mut sums = (mass.iter().sum::<f32>(), moment.iter().sum::<f32>());
    for v in chunks.remainder() {
        let below = v - m;
        let e = exp(below);
        sums.0 += e;
        sums.1 += if e > 0.0 { below * e } else { 0.0 };
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(1e9), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn softplus_and_sigmoid_are_accurate() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let wide = f64::from(x);
            let (want_plus, want) = (wide.exp().ln_1p(), 1.0 / (1.0 + (-wide).exp()));
            let (plus, got) = (f64::from(softplus(x)), f64::from(sigmoid(x)));
            assert!((plus - want_plus).abs() <= 5e-7 * want_plus, "softplus({x}): {plus} {want_plus}");
            assert!((got - want).abs() <= 5e-7 * want, "sigmoid({x}): {got} {want}");
        }
        assert_eq!((softplus(f32::NEG_INFINITY), sigmoid(f32::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!((softplus(f32::INFINITY), sigmoid(f32::INFINITY)), (f32::INFINITY, 1.0));
        assert_eq!((softplus(-1e9), softplus(1e9), sigmoid(-1e9)), (0.0, 1e9, 0.0));
        assert!(softplus(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_match_their_definitions() {
        for len in [0, 1, 15, 16, 17, 100, 1500] {
            let a: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin()).collect();
            let want: f64 = a.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            assert!((dot(&a, &a) - want).abs() <= 1e-5 * (1.0 + want));
            // The squares of these are no f32.
            for scale in [1e-35f32, 1e-23, 1e22, 1e38] {
                let scaled: Vec<f32> = a.iter().map(|v| v * scale).collect();
                let want: f64 = scaled.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
                assert!((dot(&scaled, &scaled) - want).abs() <= 1e-5 * want, "{len} times {scale}");
            }
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let (mass, moment) = exp_sums(&a, 0.5);
            let want: f64 = a.iter().map(|&v| (f64::from(v) - 0.5).exp()).sum();
            let below = |v: f32| f64::from(v) - 0.5;
            let want_moment: f64 = a.iter().map(|&v| below(v) * below(v).exp()).sum();
            assert!((f64::from(mass) - want).abs() <= 1e-5 * (1.0 + want));
            assert!((f64::from(moment) - want_moment).abs() <= 1e-4 * (1.0 + want));
        }
        assert_eq!(exp_sums(&[f32::NEG_INFINITY, 0.0], 0.0), (1.0, 0.0));
    }
}
