//! Row-major matrices, column by column: biases and their gradients.

use crate::scratch;

/// Adds `bias` (one value a column) to every row of c.
pub fn add_bias(c: &mut [f32], bias: &[f32]) {
    assert!(c.len().is_multiple_of(bias.len()), "whole rows");
    for row in c.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
    }
}

/// The sum of each column of a matrix with `out.len()` columns.
pub fn column_sums(x: &[f32], out: &mut [f32]) {
    assert!(x.len().is_multiple_of(out.len()), "whole rows");
    let mut sums = scratch::take::<f64>(out.len());
    sums.fill(0.0);
    for row in x.chunks_exact(out.len()) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
    }
    out.iter_mut().zip(&*sums).for_each(|(o, s)| *o = *s as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_and_column_sums() {
        let mut c = [1.0, 2.0, 3.0, 4.0];
        add_bias(&mut c, &[10.0, 20.0]);
        let mut sums = [0.0; 2];
        column_sums(&c, &mut sums);
        assert_eq!((c, sums), ([11.0, 22.0, 13.0, 24.0], [24.0, 46.0]));
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn a_bias_of_another_width_is_refused() {
        add_bias(&mut [0.0; 4], &[0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn sums_of_another_width_are_refused() {
        column_sums(&[0.0; 4], &mut [0.0; 3]);
    }
}
