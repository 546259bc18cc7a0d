//! Hue: a turn of the colour wheel at constant saturation and value (HSV).

use crate::planes::{clip, map_pixels};

/// Turns the hue of every pixel by `turn` of a full circle, in [-1, 1].
///
/// With V = max, C = max - min and the hue H in sixths of a turn, the way back from HSV is
/// `channel(n) = V - C * clip(min(k, 4 - k))`, `k = (n + H) mod 6`, n = 5, 3, 1 for red, green, blue: no case
/// distinctions, so the loop vectorises. The saturation C / V never has to be formed.
pub(crate) fn hue(planes: &mut [f32], turn: f32) {
    let sixths = 6.0 * turn.rem_euclid(1.0);
    map_pixels(planes, |red, green, blue| {
        let value = larger(larger(red, green), blue);
        let chroma = value - smaller(smaller(red, green), blue);
        // Grey pixels have no hue; any will do, for their chroma is 0.
        let inverse = 1.0 / larger(chroma, f32::MIN_POSITIVE);
        let hue = if value == red {
            (green - blue) * inverse
        } else if value == green {
            (blue - red) * inverse + 2.0
        } else {
            (red - green) * inverse + 4.0
        };
        let hue = wrap(hue + sixths);
        [5.0, 3.0, 1.0].map(|n| {
            let k = wrap(n + hue);
            clip(value - chroma * clip(smaller(k, 4.0 - k)))
        })
    });
}

/// [-6, 12) to [0, 6). Also catches the 6 that rounding makes of the largest number below it.
#[inline(always)]
fn wrap(sixths: f32) -> f32 {
    let low = if sixths < 0.0 { sixths + 6.0 } else { sixths };
    if low >= 6.0 { low - 6.0 } else { low }
}

// Unlike f32::max and f32::min these do not look for NaN, and are one instruction.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(pixel: [f32; 3], turn: f32) -> [f32; 3] {
        let mut planes = pixel.to_vec();
        hue(&mut planes, turn);
        [planes[0], planes[1], planes[2]]
    }

    fn close(a: [f32; 3], b: [f32; 3]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn thirds_of_a_turn_rotate_the_channels() {
        let pixel = [0.9, 0.5, 0.2];
        assert!(close(turned(pixel, 1.0 / 3.0), [0.2, 0.9, 0.5]));
        assert!(close(turned(pixel, -1.0 / 3.0), [0.5, 0.2, 0.9]));
    }

    #[test]
    fn no_turn_and_a_full_turn_change_nothing() {
        for pixel in [[0.1, 0.2, 0.3], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.4, 0.4, 0.1], [0.0; 3], [1.0; 3]]
        {
            for turn in [0.0, 1.0, -1.0] {
                assert!(close(turned(pixel, turn), pixel), "{pixel:?} by {turn}");
            }
        }
    }

    #[test]
    fn grey_stays_grey() {
        assert_eq!(turned([0.3; 3], 0.17), [0.3; 3]);
    }
}
