//! The form in which a view is worked on: three planes of `f32` in [0, 1], red, green, blue, each row-major.
//!
//! Planes let every colour operator be one loop over plain slices, which the compiler turns into vector
//! instructions.

/// Luma weights of BT.601, as Pillow and TensorFlow round them to three digits.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Independent partial sums of a mean: enough to fill a vector, and the same number everywhere so that the
/// same pixels give the same bits.
const LANES: usize = 16;

/// The three planes of `planes`, whose length is a multiple of three.
pub(crate) fn split(planes: &mut [f32]) -> [&mut [f32]; 3] {
    let plane = planes.len() / 3;
    let (red, rest) = planes.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    [red, green, &mut blue[..plane]]
}

/// Calls `f(red, green, blue)` for each pixel and stores what it returns.
#[inline(always)]
pub(crate) fn map_pixels(planes: &mut [f32], f: impl Fn(f32, f32, f32) -> [f32; 3]) {
    let [red, green, blue] = split(planes);
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        [*red, *green, *blue] = f(*red, *green, *blue);
    }
}

/// Grey value of one pixel.
#[inline(always)]
pub(crate) fn luma(red: f32, green: f32, blue: f32) -> f32 {
    LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
}

/// Mean grey value of the image.
pub(crate) fn mean_luma(planes: &mut [f32]) -> f32 {
    let [red, green, blue] = split(planes).map(|plane| mean(plane));
    luma(red, green, blue)
}

fn mean(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    (lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()) / values.len() as f32
}

/// Clips to [0, 1].
#[inline(always)]
pub(crate) fn clip(value: f32) -> f32 {
    value.clamp(0.0, 1.0)
}

/// Rounds planes in [0, 1] to 8 bits (half to even), interleaved: row-major, red, green, blue.
pub(crate) fn quantize(planes: &mut [f32], out: &mut [u8]) {
    let [red, green, blue] = split(planes);
    let (pixels, _) = out.as_chunks_mut::<3>();
    for (((pixel, red), green), blue) in pixels.iter_mut().zip(red).zip(green).zip(blue) {
        *pixel = [to_byte(*red), to_byte(*green), to_byte(*blue)];
    }
}

/// Adding 2^23 leaves no bits for a fraction, so the sum is rounded and its low byte is the integer: unlike
/// `as u8` this needs no saturation, and vectorises without AVX-512.
#[inline(always)]
fn to_byte(value: f32) -> u8 {
    (clip(value) * 255.0 + 8_388_608.0).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_a_round_trip() {
        for byte in 0..=255 {
            assert_eq!(to_byte(f32::from(byte) / 255.0), byte);
        }
        assert_eq!(to_byte(-0.5), 0);
        assert_eq!(to_byte(7.0), 255);
        assert_eq!(to_byte(100.4 / 255.0), 100);
        assert_eq!(to_byte(100.6 / 255.0), 101);
    }

    #[test]
    fn the_mean_counts_every_value_once() {
        for n in [1, 2, 15, 16, 17, 100] {
            let values: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert!((mean(&values) - (n as f32 + 1.0) / 2.0).abs() < 1e-5);
        }
    }

    #[test]
    fn planes_become_pixels() {
        let mut planes: Vec<f32> = [1, 2, 3, 4, 5, 6].map(|v| v as f32 / 255.0).to_vec();
        let mut out = [0; 6];
        quantize(&mut planes, &mut out);
        assert_eq!(out, [1, 3, 5, 2, 4, 6]);
    }
}
