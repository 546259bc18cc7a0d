//! Biases, added to each column of a row-major matrix, and their gradients.

use crate::pieces::{rows_per_piece, sum_pieces};
use crate::{Cpu, scratch};

/// Adds `bias` (one value per column) to every row of c.
pub fn add_bias(cpu: &Cpu, c: &mut [f32], bias: &[f32]) {
    assert!(c.len().is_multiple_of(bias.len()), "whole rows");
    cpu.threads.run_chunks(c, rows_per_piece(bias.len()) * bias.len(), |_, c| {
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in c.chunks_exact_mut(bias.len()) {
                    row.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
                }
            },
        );
    });
}

/// The sum of each column of a matrix with `out.len()` columns.
pub fn column_sums(cpu: &Cpu, x: &[f32], out: &mut [f32]) {
    let width = out.len();
    assert!(x.len().is_multiple_of(width), "whole rows");
    let piece_len = rows_per_piece(width) * width;
    let mut sums = scratch::take::<f64>(width);
    sum_pieces(cpu, x.len().div_ceil(piece_len), &mut sums, |i, sums| {
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in x[i * piece_len..].chunks_exact(width).take(piece_len / width) {
                    sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
                }
            },
        );
    });
    out.iter_mut().zip(&*sums).for_each(|(o, s)| *o = *s as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{cpu, waves};

    #[test]
    fn biases_and_column_sums() {
        let mut c = [1.0, 2.0, 3.0, 4.0];
        let cpu = cpu(Isa::detect(), 1);
        add_bias(&cpu, &mut c, &[10.0, 20.0]);
        let mut sums = [0.0; 2];
        column_sums(&cpu, &c, &mut sums);
        assert_eq!((c, sums), ([11.0, 22.0, 13.0, 24.0], [24.0, 46.0]));
    }

    #[test]
    fn bits_do_not_depend_on_threads_or_instruction_set() {
        let (rows, width) = (300, 513);
        let x = waves(rows * width, 0.3);
        let run = |cpu: Cpu| {
            let (mut c, mut sums) = (x.clone(), vec![f32::NAN; width]);
            add_bias(&cpu, &mut c, &x[..width]);
            column_sums(&cpu, &c, &mut sums);
            (c, sums)
        };
        let want = run(cpu(Isa::PORTABLE, 1));
        assert_eq!(want.0[width + 1], x[width + 1] + x[1]);
        let last: f64 = want.0.iter().skip(width - 1).step_by(width).map(|v| f64::from(*v)).sum();
        assert!((f64::from(want.1[width - 1]) - last).abs() < 1e-4);
        for isa in Isa::all() {
            assert!([1, 2, 4].iter().all(|&threads| run(cpu(isa, threads)) == want), "{isa:?}");
        }
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn a_bias_of_another_width_is_refused() {
        add_bias(&cpu(Isa::PORTABLE, 1), &mut [0.0; 4], &[0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn sums_of_another_width_are_refused() {
        column_sums(&cpu(Isa::PORTABLE, 1), &[0.0; 4], &mut [0.0; 3]);
    }
}
