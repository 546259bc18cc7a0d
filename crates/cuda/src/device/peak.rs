//! The GPU's peak rates, measured with large matrix products and copies.

use std::time::Instant;

use bytemuck::Pod;
use half::bf16;
use simclr_kernels::Write;

use super::{Device, Epilogue, Matrix, ProductMode};
use crate::{Element, Result};

/// Measured peak rates, which no kernel exceeds by much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Operations per second of matrix products in f32; a multiply-add counts as two.
    pub f32: f64,
    /// The same in bf16, summed in f32.
    pub bf16: f64,
    /// Bytes per second of a copy within GPU memory, counting bytes read and bytes written.
    pub bytes: f64,
}

/// Repetitions of each measurement, of which the fastest counts.
const REPEATS: usize = 5;

impl Device {
    /// Measures with square matrices of `side` rows (half as many in f32), and copies of as many bytes as four f32
    /// matrices of that side take. A side of 8192 fills any GPU and takes a tenth of a second.
    ///
    /// # Errors
    /// `OutOfMemory` where the GPU is out of memory, `Call` where the driver fails.
    pub fn peak(&self, side: usize) -> Result<Peak> {
        let f32 = self.product_rate(side / 2, |value| value)?;
        let bf16 = self.product_rate(side, bf16::from_f32)?;
        let len = 16 * side * side;
        let from = self.zeros::<u8>(len)?;
        let mut to = self.zeros::<u8>(len)?;
        let seconds = self.fastest(|| self.copy(from.read(), to.write()))?;
        Ok(Peak { f32, bf16, bytes: 2.0 * len as f64 / seconds })
    }

    fn product_rate<E: Element + Pod>(&self, side: usize, of: fn(f32) -> E) -> Result<f64> {
        // Not zeros: a GPU multiplies them faster than real data.
        let mut state = 1_u32;
        let noise = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // In [-1, 1).
            of(f32::from((state >> 16) as i16) / 32_768.0)
        };
        let values: Vec<E> = (0..side * side).map(noise).collect();
        let matrix = self.buffer_of(&values)?;
        let mut out = self.buffer::<E>(side * side)?;
        let seconds = self.fastest(|| {
            let matrix = Matrix::new(matrix.read(), side)?;
            self.product(matrix, matrix.t(), Epilogue::None, ProductMode::Exact, out.write(), Write::Over)
        })?;
        Ok(2.0 * (side as f64).powi(3) / seconds)
    }

    /// Seconds of the fastest of several runs, after one warm-up run.
    fn fastest(&self, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut best = f64::INFINITY;
        for repeat in 0..=REPEATS {
            self.synchronize()?;
            let start = Instant::now();
            run()?;
            self.synchronize()?;
            if repeat > 0 {
                best = best.min(start.elapsed().as_secs_f64());
            }
        }
        Ok(best)
    }
}
