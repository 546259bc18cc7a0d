//! The order in which the coefficients of a block are stored (ITU T.81, figure A.6).

/// The place of coefficients beyond the end of a block.
pub(crate) const BEYOND: u8 = 64;

/// The place (row x 8 + column) of each coefficient in the order of the file, and [`BEYOND`] after the last.
pub(crate) const ZIGZAG: [u8; 256] = {
    let mut places = [BEYOND; 256];
    let (mut row, mut column) = (0usize, 0usize);
    let mut at = 0;
    while at < 64 {
        places[at] = (row * 8 + column) as u8;
        if (row + column).is_multiple_of(2) {
            // Upwards to the right.
            if column == 7 {
                row += 1;
            } else if row == 0 {
                column += 1;
            } else {
                row -= 1;
                column += 1;
            }
        } else if row == 7 {
            column += 1;
        } else if column == 0 {
            row += 1;
        } else {
            row += 1;
            column -= 1;
        }
        at += 1;
    }
    places
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_standard() {
        assert_eq!(ZIGZAG[..12], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25]);
        assert_eq!(ZIGZAG[57..65], [60, 61, 54, 47, 55, 62, 63, BEYOND]);
        let mut seen = ZIGZAG[..64].to_vec();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..64));
    }
}
