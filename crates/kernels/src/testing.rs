//! Shared by the tests of kernels.

use crate::{Cpu, Isa};

/// A [`Cpu`] of `threads` threads with `isa`.
pub fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(threads, isa).unwrap()
}

/// `len` values in [-1, 1], different ones for each step `by`.
pub fn waves(len: usize, by: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * by).sin()).collect()
}

/// Embeddings of views: `count` rows of unit length.
pub fn views(count: usize, dim: usize) -> Vec<f32> {
    let mut z: Vec<f32> = (0..count * dim).map(|i| ((i * i + 3 * i) as f32 * 0.37 + 1.0).sin()).collect();
    // Normalising a single value would leave only its sign.
    for row in z.chunks_exact_mut(dim).filter(|_| dim > 1) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    z
}
