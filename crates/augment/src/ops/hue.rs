//! Hue: a turn of the colour wheel at constant saturation and value (HSV).

use crate::simd::{Vector, each};

/// Turns the hue of every pixel by `turn` of a full circle, in [-1, 1].
///
/// With V = max, C = max - min and the hue H in sixths of a turn, the way back from HSV is red =
/// `V - C clip(2 - |H - 3|)`, green = `V - C clip(|H - 2| - 1)`, blue = `V - C clip(|H - 4| - 1)`: no case
/// distinctions, and the saturation C / V never has to be formed.
#[inline(always)]
pub(crate) fn hue<V: Vector>([red, green, blue]: [V; 3], turn: f32) -> [V; 3] {
    let sixths = V::splat(6.0 * turn.rem_euclid(1.0));
    let value = red.max(green).max(blue);
    let chroma = value - red.min(green).min(blue);
    // Grey pixels have no hue; any will do, for their chroma is 0.
    let inverse = V::splat(1.0) / chroma.max(V::splat(f32::MIN_POSITIVE));
    let from_red = (green - blue) * inverse;
    let from_green = (blue - red) * inverse + V::splat(2.0);
    let from_blue = (red - green) * inverse + V::splat(4.0);
    let hue = value.if_equal(red, from_red, value.if_equal(green, from_green, from_blue)) + sixths;
    let hue = hue.if_less(V::splat(0.0), hue + V::splat(6.0), hue);
    let hue = hue.if_less(V::splat(6.0), hue, hue - V::splat(6.0));
    let missing = [
        V::splat(2.0) - (hue - V::splat(3.0)).abs(),
        (hue - V::splat(2.0)).abs() - V::splat(1.0),
        (hue - V::splat(4.0)).abs() - V::splat(1.0),
    ];
    each!(missing, part => (value - chroma * part.clip()).clip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::kernels::{PixelMap, map_row};
    use crate::simd::{BLOCK, Task, run};
    use simclr_isa::Isa;

    #[derive(Clone, Copy)]
    struct Only(f32);

    impl PixelMap for Only {
        fn map<V: Vector>(self, pixels: [V; 3]) -> [V; 3] {
            hue(pixels, self.0)
        }
    }

    struct Turn([f32; 3], f32);

    impl Task for Turn {
        type Output = [f32; 3];

        fn run<V: Vector>(self) -> [f32; 3] {
            let mut rows = self.0.map(|value| [value; BLOCK]);
            let [red, green, blue] = &mut rows;
            map_row::<V>([red, green, blue], Only(self.1));
            rows.map(|row| row[0])
        }
    }

    fn turned(pixel: [f32; 3], turn: f32) -> [f32; 3] {
        run(Isa::PORTABLE, Turn(pixel, turn))
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
