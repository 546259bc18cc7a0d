//! Batches in pieces and choices on samples, with limits so low that small batches exceed them: on a GPU where there is
//! one, and on the stand-in elsewhere.

#![cfg(feature = "cuda")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use common::{Stored, geometry, narrowed, open, widened};
use half::{bf16, f16};
use simclr_cuda::{ConvolutionLimits, ConvolutionMode, Device, DeviceBuffer, ElementType};
use simclr_kernels::{Conv2dGeometry, Write};

const EXACT: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: true };

/// The results of a device with given limits: y, y again with its sums, dx added to old values, dw.
fn computed<E: Stored>(device: &Device, g: &Conv2dGeometry, limits: ConvolutionLimits) -> Vec<Vec<f32>> {
    device.set_convolution_limits(limits).unwrap();
    let noise = |len: usize, seed: u32| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // -1, 0 and 1, whose sums are exact in any type and any order.
            ((state >> 16) % 3) as f32 - 1.0
        };
        let wide: Vec<f32> = (0..len).map(|_| next()).collect();
        device.buffer_of(&narrowed::<E>(&wide)).unwrap()
    };
    let wide = |from: &DeviceBuffer<E>| widened(&device.values(from.read()).unwrap());
    let (x, w, dy) = (noise(g.input_len(), 1), noise(g.weight_len(), 2), noise(g.output_len(), 3));
    let mut y = device.buffer::<E>(g.output_len()).unwrap();
    let mut again = device.buffer::<E>(g.output_len()).unwrap();
    let mut sums = device.buffer::<f64>(2 * g.out_channels).unwrap();
    device.conv2d_forward(g, EXACT, x.read(), w.read(), y.write()).unwrap();
    device.conv2d_forward_with_sums(g, EXACT, x.read(), w.read(), again.write(), sums.write()).unwrap();
    let mut dx = noise(g.input_len(), 4);
    device.conv2d_backward_input(g, EXACT, dy.read(), w.read(), dx.write(), Write::Add).unwrap();
    let mut dw = device.buffer::<f32>(g.weight_len()).unwrap();
    device.conv2d_backward_weight(g, EXACT, x.read(), dy.read(), dw.write()).unwrap();
    let sums = device.values(sums.read()).unwrap().into_iter().map(|sum| sum as f32).collect();
    vec![wide(&y), wide(&again), sums, wide(&dx), device.values(dw.read()).unwrap()]
}

/// In 16 bits, whole numbers are exact with any algorithm; in f32 an engine may use Winograd's transforms, which round.
fn assert_same<E: Stored>(got: &[Vec<f32>], want: &[Vec<f32>], what: &str) {
    let off = if E::TYPE == ElementType::F32 { 1e-5 } else { 0.0 };
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len());
        // NaN is not near anything.
        let near = |got: f32, want: f32| got == want || (got - want).abs() <= off * (1.0 + want.abs());
        let far = got.iter().zip(want).find(|(got, want)| !near(**got, **want));
        assert!(far.is_none(), "result {i} of {what} in {:?}: {far:?}", E::TYPE);
    }
}

#[test]
fn pieces_and_samples_give_what_the_whole_gives() {
    pieces_and_samples::<f32>();
    pieces_and_samples::<bf16>();
    pieces_and_samples::<f16>();
}

fn pieces_and_samples<E: Stored>() {
    let folder = tempfile::tempdir().unwrap();
    let Some(device) = open(Some(folder.path())) else { return };
    for g in [geometry(19, 5, 3, 6, 3, 1), geometry(20, 3, 8, 16, 1, 1)] {
        let whole = computed::<E>(&device, &g, ConvolutionLimits::default());
        // Pieces of 8, 8 and the rest.
        let one = Conv2dGeometry { batch: 1, ..g };
        let values = 9 * one.input_len().max(one.output_len());
        let in_pieces = ConvolutionLimits { values, ..ConvolutionLimits::default() };
        assert_same::<E>(&computed::<E>(&device, &g, in_pieces), &whole, &format!("pieces of {g:?}"));
        let sampled =
            ConvolutionLimits { sample_bytes: 1, sample_operations: 1, ..ConvolutionLimits::default() };
        // By now the whole batch has remembered routes; another batch size does not.
        let g = Conv2dGeometry { batch: g.batch + 1, ..g };
        let whole = computed::<E>(&device, &g, sampled);
        let searches = device.searched().count;
        let again = computed::<E>(&device, &g, ConvolutionLimits::default());
        assert_same::<E>(&again, &whole, &format!("a sample of {g:?}"));
        assert_eq!(device.searched().count, searches, "what was chosen on a sample is remembered");
    }
}
