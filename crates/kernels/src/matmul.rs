//! Dense layers: products over all threads, biases, sums of columns.

use crate::Cpu;
use crate::product::{Operand, multiply};

/// c = a b over all threads. The cut into row blocks depends on a's rows alone, so the bits do too.
pub fn matmul(cpu: &Cpu, a: Operand<f32>, b: Operand<f32>, c: &mut [f32]) {
    let (rows, columns) = (a.row_count(), b.column_count());
    assert_eq!(c.len(), rows * columns);
    let block = rows.div_ceil(16).next_multiple_of(16);
    cpu.threads.run_chunks(c, (block * columns).max(1), |i, c| {
        multiply(a.rows(i * block, c.len() / columns), b, c, false);
    });
}

/// Adds `bias` (one value a column) to every row of c.
pub fn add_bias(c: &mut [f32], bias: &[f32]) {
    for row in c.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
    }
}

/// The sum of each column of a row-major matrix with `out.len()` columns.
pub fn column_sums(x: &[f32], out: &mut [f32]) {
    let mut sums = vec![0f64; out.len()];
    for row in x.chunks_exact(out.len()) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
    }
    out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Threads};

    #[test]
    fn products_match_the_definition_on_any_number_of_threads() {
        let value = |i: usize, k: usize| ((i * 31 + k * 7) % 13) as f32 - 6.0;
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (33, 17, 9), (70, 40, 130)] {
            let a: Vec<f32> = (0..m * k).map(|i| value(i, 1)).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i, 2)).collect();
            let want: Vec<f32> =
                (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect();
            for threads in [1, 2] {
                let cpu = Cpu { threads: Threads::new(threads).unwrap(), isa: Isa::detect() };
                let mut c = vec![f32::NAN; m * n];
                matmul(&cpu, Operand::new(&a, k), Operand::new(&b, n), &mut c);
                assert_eq!(c, want);
            }
        }
    }

    #[test]
    fn biases_and_column_sums() {
        let mut c = [1.0, 2.0, 3.0, 4.0];
        add_bias(&mut c, &[10.0, 20.0]);
        let mut sums = [0.0; 2];
        column_sums(&c, &mut sums);
        assert_eq!((c, sums), ([11.0, 22.0, 13.0, 24.0], [24.0, 46.0]));
    }
}
