//! Parts of a batch: the pieces in which it is computed, and the sample on which routes are timed.

use super::{ConvolutionPass, Convolutions, Device, Key, NAME, Operands, channel_sums};
use crate::launcher::{Scratch, expect};
use crate::ops::elementwise;
use crate::{ElementType, Result, SliceMut};
use simclr_kernels::Conv2dGeometry;

/// The size of the pieces in which a batch is computed, and of the sample on which routes are timed.
#[derive(Debug, Clone, Copy)]
pub struct ConvolutionLimits {
    /// The most values of x, and of y, in a piece.
    pub values: usize,
    /// The fewest bytes of x and y together in a sample, unless the whole batch has fewer.
    pub sample_bytes: usize,
    /// The fewest multiplications and additions in a sample, likewise.
    pub sample_operations: usize,
}

/// This many images take a multiple of 16 bytes, whatever the size of one.
const TOGETHER: usize = 8;

impl Default for ConvolutionLimits {
    /// cuDNN counts a tensor's values in 31 bits. A sample is more than twice as large as a GPU's cache, and keeps a
    /// whole GPU busy for a tenth of a millisecond: the fastest route on it is among the fastest on more.
    fn default() -> ConvolutionLimits {
        ConvolutionLimits {
            values: i32::MAX as usize,
            sample_bytes: 128 << 20,
            sample_operations: 50_000_000_000,
        }
    }
}

impl Key {
    /// The same key for another number of images.
    pub fn of_images(&self, batch: usize) -> Key {
        Key { geometry: Conv2dGeometry { batch, ..self.geometry }, ..*self }
    }

    /// The number of images of a piece, if the batch is computed in several pieces. The last one may have fewer.
    pub fn piece(&self, limits: &ConvolutionLimits) -> Option<usize> {
        let one = self.of_images(1).geometry;
        let most = (limits.values / one.input_len().max(one.output_len())).max(1);
        // Pieces begin at multiples of 16 bytes, as all operands do.
        let together = if most < TOGETHER { 1 } else { TOGETHER };
        let count = self.geometry.batch.div_ceil(most - most % together);
        (count > 1).then(|| self.geometry.batch.div_ceil(count).next_multiple_of(together))
    }

    /// The sample on which routes for this key are first timed: as few images as suffice, a power of two, so that many
    /// batch sizes share a sample.
    pub fn sample(&self, limits: &ConvolutionLimits) -> Key {
        let one = self.of_images(1).geometry;
        let bytes = (one.input_len() + one.output_len()) * self.element.size();
        let operations = 2 * one.output_len() * one.in_channels * one.kernel_height * one.kernel_width;
        let enough = limits
            .sample_bytes
            .div_ceil(bytes.max(1))
            .max(limits.sample_operations.div_ceil(operations.max(1)));
        let batch = enough.checked_next_power_of_two().unwrap_or(usize::MAX);
        self.of_images(batch.min(self.geometry.batch))
    }
}

impl Device {
    /// Sets the sizes of pieces and samples. Choices made so far are dropped, and made again when needed.
    ///
    /// # Errors
    /// `Call` where cuDNN does not work.
    pub fn set_convolution_limits(&self, limits: ConvolutionLimits) -> Result<()> {
        self.with_convolutions(|convolutions| {
            convolutions.limits = limits;
            convolutions.routes.clear();
            convolutions.pays.clear();
            Ok(())
        })
    }
}

impl Operands {
    /// The operands from image `first` on.
    fn from(self, key: &Key, first: usize) -> Operands {
        let one = key.of_images(1).geometry;
        let [of_x, _, of_y] = key.types();
        let x = self.x + (first * one.input_len() * of_x.size()) as u64;
        let y = self.y + (first * one.output_len() * of_y.size()) as u64;
        Operands { x, y, ..self }
    }
}

impl Convolutions {
    /// Computes a convolution in pieces of `images`.
    pub(super) fn in_pieces(
        &mut self,
        device: &Device,
        key: &Key,
        images: usize,
        operands: Operands,
    ) -> Result<()> {
        match key.pass {
            ConvolutionPass::Forward | ConvolutionPass::BackwardInput => {
                self.each_piece(key, images, operands, |this, key, operands| {
                    this.compute(device, key, operands)
                })
            }
            ConvolutionPass::ForwardWithSums => {
                let forward = Key { pass: ConvolutionPass::Forward, ..*key };
                self.in_pieces(device, &forward, images, operands)?;
                // SAFETY: these are the key's operands, and y was just computed.
                unsafe { channel_sums(device, key, operands) }
            }
            // SAFETY: these are the key's operands.
            ConvolutionPass::BackwardWeight => unsafe {
                self.weight_in_pieces(device, key, images, operands)
            },
        }
    }

    fn each_piece(
        &mut self,
        key: &Key,
        images: usize,
        operands: Operands,
        mut piece: impl FnMut(&mut Convolutions, &Key, Operands) -> Result<()>,
    ) -> Result<()> {
        (0..key.geometry.batch).step_by(images.max(1)).try_for_each(|first| {
            let of_piece = key.of_images(images.min(key.geometry.batch - first));
            piece(self, &of_piece, operands.from(key, first))
        })
    }

    /// Computes a gradient of weights as the sum of those of the pieces, in f32 and in their order.
    ///
    /// # Safety
    /// The operands must have the key's lengths, and the result be borrowed exclusively.
    unsafe fn weight_in_pieces(
        &mut self,
        device: &Device,
        key: &Key,
        images: usize,
        operands: Operands,
    ) -> Result<()> {
        expect(NAME, key.output == ElementType::F32, || {
            format!("only gradients in f32 are summed over pieces: {key:?}")
        })?;
        // SAFETY: the caller's promise, and this is the result's type.
        let mut dw = unsafe { SliceMut::from_raw(operands.w, key.len()) };
        let part = Scratch::<f32>::new(device, key.len())?;
        let mut first = true;
        self.each_piece(key, images, operands, |this, key, operands| {
            if std::mem::take(&mut first) {
                return this.compute(device, key, Operands { w: dw.address(), ..operands });
            }
            this.compute(device, key, Operands { w: part.address(), ..operands })?;
            elementwise::add_assign::<f32>(device, dw.reborrow(), part.as_ref())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::convolution::ConvolutionMode;

    fn geometry(batch: usize, side: usize, channels: usize, to: usize, kernel: usize) -> Conv2dGeometry {
        Conv2dGeometry {
            batch,
            in_height: side,
            in_width: side,
            in_channels: channels,
            out_channels: to,
            kernel_height: kernel,
            kernel_width: kernel,
            stride: 1,
            padding: kernel / 2,
        }
    }

    fn key(geometry: Conv2dGeometry, pass: ConvolutionPass) -> Key {
        let (element, output) = (ElementType::Bf16, ElementType::Bf16);
        Key {
            geometry,
            element,
            output,
            mode: ConvolutionMode { tf32: false, deterministic: true },
            pass,
            adds: false,
            normalised: false,
        }
    }

    #[test]
    fn a_piece_has_fewer_values_than_cudnn_counts_and_pieces_are_alike() {
        let limits = ConvolutionLimits::default();
        // ResNet-50 on 8,192 views of 224 x 224: a first-stage layer and the stem; ResNet-18 on 4,096 of 32 x 32.
        for (g, pieces) in [
            (geometry(8192, 56, 64, 256, 1), Some(2048)),
            (geometry(8192, 112, 64, 64, 3), Some(2048)),
            (geometry(5000, 56, 64, 256, 1), Some(2504)),
            (geometry(4096, 32, 64, 64, 3), None),
        ] {
            let key = key(g, ConvolutionPass::Forward);
            assert_eq!(key.piece(&limits), pieces, "{g:?}");
            if let Some(images) = pieces {
                let piece = Conv2dGeometry { batch: images, ..g };
                assert!(piece.input_len().max(piece.output_len()) <= i32::MAX as usize);
            }
        }
        // An image larger than the limit is a piece of its own.
        assert_eq!(key(geometry(3, 1 << 14, 8, 8, 1), ConvolutionPass::Forward).piece(&limits), Some(1));
    }

    #[test]
    fn a_sample_is_enough_to_tell_and_no_more_than_there_is() {
        let limits = ConvolutionLimits::default();
        let sample = |g| key(g, ConvolutionPass::BackwardInput).sample(&limits).geometry.batch;
        assert_eq!(sample(geometry(4096, 32, 64, 64, 3)), 1024);
        assert_eq!(sample(geometry(512, 32, 64, 64, 3)), 512);
        assert_eq!(sample(geometry(4096, 4, 512, 512, 3)), 4096);
        assert_eq!(sample(geometry(8192, 56, 64, 256, 1)), 512);
    }
}
