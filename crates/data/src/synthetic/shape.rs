//! The ten shapes.

/// A class of the synthetic data set: the shape of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A full circle.
    Disc,
    /// A square.
    Square,
    /// An equilateral triangle.
    Triangle,
    /// A star of five points.
    Star,
    /// A plus sign.
    Cross,
    /// A circle with a wide hole.
    Ring,
    /// A moon.
    Crescent,
    /// A heart.
    Heart,
    /// An arrow with its shaft.
    Arrow,
    /// Two triangles that meet at their tips.
    Hourglass,
}

impl Shape {
    /// All shapes, in the order of their labels.
    pub const ALL: [Self; 10] = [
        Self::Disc,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Cross,
        Self::Ring,
        Self::Crescent,
        Self::Heart,
        Self::Arrow,
        Self::Hourglass,
    ];

    /// The name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Ring => "ring",
            Self::Crescent => "crescent",
            Self::Heart => "heart",
            Self::Arrow => "arrow",
            Self::Hourglass => "hourglass",
        }
    }

    /// Whether the point (x right, y up) lies within the shape, which is upright and fills the circle of radius 1.
    pub(super) fn contains(self, x: f32, y: f32) -> bool {
        let square_radius = x * x + y * y;
        match self {
            Self::Disc => square_radius < 0.81,
            Self::Square => x.abs().max(y.abs()) < 0.78,
            Self::Triangle => y > -0.5 && y + 1.732 * x.abs() < 1.0,
            Self::Star => in_star(x, y),
            Self::Cross => x.abs().min(y.abs()) < 0.27 && x.abs().max(y.abs()) < 0.95,
            Self::Ring => (0.3..0.9).contains(&square_radius),
            Self::Crescent => square_radius < 0.92 && (x - 0.48).powi(2) + y * y > 0.58,
            Self::Heart => {
                let (x, y) = (x.abs() * 1.2, y * 1.2);
                x * x + (1.25 * y - 0.9 * x.sqrt() + 0.2).powi(2) < 1.0
            }
            Self::Arrow => {
                let shaft = (-0.95..0.2).contains(&x) && y.abs() < 0.24;
                let head = (0.05..0.95).contains(&x) && y.abs() < 0.85 * (0.95 - x);
                shaft || head
            }
            Self::Hourglass => y.abs() < 0.85 && x.abs() < 0.06 + 0.72 * y.abs(),
        }
    }
}

/// Half of each point of the star is a triangle of the centre, a tip at radius 1 and a notch at radius 0.42.
fn in_star(x: f32, y: f32) -> bool {
    const HALF: f32 = std::f32::consts::PI / 5.0;
    let angle = x.atan2(y).rem_euclid(2.0 * HALF);
    let angle = angle.min(2.0 * HALF - angle);
    let radius = (x * x + y * y).sqrt();
    let (along, across) = (radius * angle.cos(), radius * angle.sin());
    let (notch_along, notch_across) = (0.42 * HALF.cos(), 0.42 * HALF.sin());
    // On the inner side of the line from the tip (1, 0) to the notch.
    (1.0 - along) * notch_across > across * (1.0 - notch_along)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(shape: Shape) -> Vec<bool> {
        let at = |i: usize| (i as f32 + 0.5) / 50.0 - 1.0;
        (0..100 * 100).map(|i| shape.contains(at(i % 100), at(i / 100))).collect()
    }

    #[test]
    fn no_two_shapes_are_alike() {
        let covers = Shape::ALL.map(cover);
        for (i, a) in covers.iter().enumerate() {
            let area = a.iter().filter(|&&inside| inside).count();
            assert!((1500..6500).contains(&area), "{:?} covers {area}", Shape::ALL[i]);
            for (j, b) in covers.iter().enumerate().skip(i + 1) {
                let either = a.iter().zip(b).filter(|(a, b)| **a || **b).count();
                let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count();
                let overlap = both as f64 / either as f64;
                assert!(overlap < 0.85, "{:?} and {:?} overlap by {overlap}", Shape::ALL[i], Shape::ALL[j]);
            }
        }
    }

    #[test]
    fn shapes_stay_within_their_circle() {
        for shape in Shape::ALL {
            for step in 0..360 {
                let angle = (step as f32).to_radians();
                assert!(
                    !shape.contains(1.12 * angle.cos(), 1.12 * angle.sin()),
                    "{shape:?} at {step} degrees"
                );
            }
        }
    }
}
