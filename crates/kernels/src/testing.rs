//! What the tests of kernels share.

use crate::{Cpu, Isa};

/// So many threads with an instruction set.
pub fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(threads, isa).unwrap()
}

/// `len` values in [-1, 1]; of another step `by` from one to the next, others.
pub fn waves(len: usize, by: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * by).sin()).collect()
}

/// Projected views, `count` rows of unit length.
pub fn views(count: usize, dim: usize) -> Vec<f32> {
    let mut z: Vec<f32> = (0..count * dim).map(|i| ((i * i + 3 * i) as f32 * 0.37 + 1.0).sin()).collect();
    // Of one value, nothing but its sign would be left.
    for row in z.chunks_exact_mut(dim).filter(|_| dim > 1) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    z
}
