//! Softmax cross-entropy of rows of logits against class numbers.

use crate::math::{exp, exp_sums, max};

/// The mean of `-log softmax(logits)[label]` over rows; `dlogits` becomes its gradient, (softmax - onehot) / rows.
///
/// `logits` is (labels.len(), classes). Every label must be below `classes`: asserted.
pub fn softmax_cross_entropy(logits: &[f32], labels: &[u32], classes: usize, dlogits: &mut [f32]) -> f64 {
    assert!(logits.len() == labels.len() * classes && dlogits.len() == logits.len());
    let rows = labels.len() as f32;
    let mut loss = 0f64;
    for ((row, gradient), &label) in
        logits.chunks_exact(classes).zip(dlogits.chunks_exact_mut(classes)).zip(labels)
    {
        let label = label as usize;
        assert!(label < classes, "label {label} of {classes} classes");
        let m = max(row);
        let (mass, _) = exp_sums(row, m);
        // Relative to m throughout: m + ln(mass) would lose the digits that large logits do not have to spare.
        loss += f64::from(mass.ln() - (row[label] - m));
        gradient.iter_mut().zip(row).for_each(|(g, s)| *g = exp(s - m) / mass / rows);
        gradient[label] -= 1.0 / rows;
    }
    loss / f64::from(rows)
}
