//! Division by numbers that are constant throughout a launch.

/// `Divisor` of `common.cuh`: kernels divide by it with one product and a shift instead of some twenty instructions.
///
/// With l = ceil(log2 value), factor = floor(2^(31 + l) / value) + 1 exceeds 2^(31 + l) / value by less than 2^l /
/// value, so that the quotient of n < 2^31 is too large by less than 1 / value, which rounding down removes (T.
/// Granlund and P. Montgomery, Division by Invariant Integers using Multiplication, 1994).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Divisor {
    value: u32,
    factor: u32,
    shift: u32,
}

impl Divisor {
    /// Divides numbers below 2^31 by `value`, which is positive and at most 2^31.
    pub fn by(value: u32) -> Divisor {
        let log = value.max(1).next_power_of_two().trailing_zeros();
        let factor = ((1u64 << (31 + log)) / u64::from(value.max(1)) + 1) as u32;
        Divisor { value, factor, shift: 31 + log }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_those_of_a_division() {
        let values = (1..200).chain([255, 256, 1000, 12_544, 65_537, (1 << 30) - 1, 1 << 30, (1 << 30) + 1]);
        for value in values.chain([1 << 31]) {
            let divisor = Divisor::by(value);
            let near = (0..5).flat_map(|k| [k * value as u64, (k * value as u64).saturating_sub(1)]);
            let spread = (0..2000u64).map(|i| i * 1_073_741 + i % 7);
            for n in near.chain(spread).chain([(1 << 31) - 1]).filter(|n| *n < 1 << 31) {
                let quotient = (n * u64::from(divisor.factor)) >> divisor.shift;
                assert_eq!(quotient, n / u64::from(value), "{n} / {value}");
            }
        }
    }
}
