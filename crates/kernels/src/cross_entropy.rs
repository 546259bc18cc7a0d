//! Softmax cross-entropy of rows of logits against class numbers.

use crate::Cpu;
use crate::math::{exp, exp_sums, max};
use crate::pieces::{rows_per_piece, sum_pieces};
use crate::shared::SharedMut;

/// The mean of `-log softmax(logits)[label]` over rows; `dlogits` becomes its gradient, (softmax - onehot) / rows.
///
/// `logits` is (labels.len(), classes). Panics if a label is not below `classes`.
pub fn softmax_cross_entropy(
    cpu: &Cpu,
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    dlogits: &mut [f32],
) -> f64 {
    assert!(Some(logits.len()) == labels.len().checked_mul(classes) && dlogits.len() == logits.len());
    let count = labels.len() as f32;
    let rows = rows_per_piece(classes);
    let dlogits = SharedMut::new(dlogits);
    let mut loss = [0.0];
    sum_pieces(cpu, labels.len().div_ceil(rows), &mut loss, |piece, loss| {
        let labels = labels.chunks(rows).nth(piece).unwrap_or_default();
        let (start, len) = (piece * rows * classes, labels.len() * classes);
        let logits = &logits[start..][..len];
        // SAFETY: pieces are disjoint, each runs once, and `dlogits` is borrowed until all are done.
        let dlogits = unsafe { dlogits.slice(start, len) };
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                let gradients = dlogits.chunks_exact_mut(classes);
                for ((row, gradient), &label) in logits.chunks_exact(classes).zip(gradients).zip(labels) {
                    loss[0] += of_row(row, label as usize, count, gradient);
                }
            },
        );
    });
    loss[0] / f64::from(count)
}

/// Returns the loss of one of `count` rows and writes its gradient.
#[inline(always)]
fn of_row(row: &[f32], label: usize, count: f32, gradient: &mut [f32]) -> f64 {
    assert!(label < row.len(), "label {label} of {} classes", row.len());
    let m = max(row);
    let (mass, _) = exp_sums(row, m);
    gradient.iter_mut().zip(row).for_each(|(g, s)| *g = exp(s - m) / mass / count);
    gradient[label] -= 1.0 / count;
    // Relative to m throughout: where logits are large, m + ln(mass) would round away digits of the loss.
    f64::from(mass.ln() - (row[label] - m))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;

    #[test]
    fn it_is_its_definition_and_bits_do_not_depend_on_threads_or_instruction_set() {
        for (rows, classes) in [(1, 1), (3, 2), (700, 10), (100, 1000)] {
            let logits: Vec<f32> = (0..rows * classes).map(|i| (i as f32 * 0.7).sin() * 4.0).collect();
            let labels: Vec<u32> = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
            let run = |isa, threads| {
                let cpu = cpu(isa, threads);
                let mut gradient = vec![f32::NAN; logits.len()];
                (softmax_cross_entropy(&cpu, &logits, &labels, classes, &mut gradient), gradient)
            };
            let (loss, gradient) = run(Isa::PORTABLE, 1);
            let mut want = 0.0;
            for ((row, gradient), &label) in logits.chunks(classes).zip(gradient.chunks(classes)).zip(&labels)
            {
                let sum: f64 = row.iter().map(|s| f64::from(*s).exp()).sum();
                want += (sum.ln() - f64::from(row[label as usize])) / rows as f64;
                for (class, (s, g)) in row.iter().zip(gradient).enumerate() {
                    let share = f64::from(*s).exp() / sum - f64::from(u8::from(class == label as usize));
                    assert!((f64::from(*g) - share / rows as f64).abs() < 1e-6 / rows as f64);
                }
            }
            assert!((loss - want).abs() < 1e-6, "{rows} x {classes}: {loss} {want}");
            for isa in Isa::all() {
                for threads in [1, 2, 4] {
                    assert!(run(isa, threads) == (loss, gradient.clone()), "{isa:?}, {threads} threads");
                }
            }
        }
    }
}
