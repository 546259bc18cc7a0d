//! Matrix products: on a GPU where there is one, and on the stand-in elsewhere.

#![cfg(feature = "cuda")]

mod common;

use std::path::{Path, PathBuf};

use common::{Stored, all_memory, assert_close, device, geometry, narrowed, noise, open, tolerance, widened};
use half::{bf16, f16};
use simclr_cuda::{CudaError, Device, DeviceBuffer, Epilogue, Libraries, Matrix, ProductMode};
use simclr_kernels::conv2d::portable;
use simclr_kernels::{Threads, Write};

/// The epilogues of products in these tests.
#[derive(Debug, Clone, Copy, PartialEq)]
enum After {
    Nothing,
    Bias,
    BiasRelu,
}

/// Sizes m, n and k, and whether a and b are transposes.
type Shape = ([usize; 3], [bool; 2]);

/// a b + old, if `old` is not empty, then the epilogue; in f64.
fn naive(
    ([m, n, k], turned): Shape,
    a: &[f32],
    b: &[f32],
    old: &[f32],
    bias: &[f32],
    relu: bool,
) -> Vec<f32> {
    let value = |i: usize, j: usize| {
        let of_a = |l: usize| f64::from(if turned[0] { a[l * m + i] } else { a[i * k + l] });
        let of_b = |l: usize| f64::from(if turned[1] { b[j * k + l] } else { b[l * n + j] });
        let sum: f64 = (0..k).map(|l| of_a(l) * of_b(l)).sum();
        let before = old.get(i * n + j).copied().map_or(0.0, f64::from);
        let sum = sum + before + bias.get(j).copied().map_or(0.0, f64::from);
        if relu { sum.max(0.0) as f32 } else { sum as f32 }
    };
    (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| value(i, j)).collect()
}

fn matrix<'a, E: Stored>(
    values: &'a DeviceBuffer<E>,
    rows: usize,
    columns: usize,
    turned: bool,
) -> Matrix<'a, E> {
    if turned {
        Matrix::new(values.read(), rows).unwrap().t()
    } else {
        Matrix::new(values.read(), columns).unwrap()
    }
}

fn compare<E: Stored, D: Stored>(device: &Device, shape: Shape, after: After, write: Write) {
    let ([m, n, k], turned) = shape;
    let (a, b) = (narrowed::<E>(&noise(m * k, 1)), narrowed::<E>(&noise(k * n, 2)));
    let (bias, old) = (narrowed::<D>(&noise(n, 3)), narrowed::<D>(&noise(m * n, 4)));
    let (on_a, on_b) = (device.buffer_of(&a).unwrap(), device.buffer_of(&b).unwrap());
    let (on_bias, mut out) = (device.buffer_of(&bias).unwrap(), device.buffer_of(&old).unwrap());
    let (left, right) = (matrix(&on_a, m, k, turned[0]), matrix(&on_b, k, n, turned[1]));
    let epilogue = match after {
        After::Nothing => Epilogue::None,
        After::Bias => Epilogue::Bias(on_bias.read()),
        After::BiasRelu => Epilogue::BiasRelu(on_bias.read()),
    };
    device.product(left, right, epilogue, ProductMode::Exact, out.write(), write).unwrap();
    let (bias, old) = (widened(&bias), widened(&old));
    let old = if write == Write::Add { &old[..] } else { &[] };
    let bias = if after == After::Nothing { &[] } else { &bias[..] };
    let want = naive(shape, &widened(&a), &widened(&b), old, bias, after == After::BiasRelu);
    let got = widened(&device.values(out.read()).unwrap());
    assert_close(&format!("{shape:?} {after:?} {write:?}"), &got, &want, tolerance::<D>());
}

const TURNS: [[bool; 2]; 4] = [[false, false], [true, false], [false, true], [true, true]];

#[test]
fn products_are_those_of_the_definition() {
    let Some((device, _alone)) = device() else { return };
    all_of::<f32, f32>(&device);
    all_of::<bf16, bf16>(&device);
    all_of::<f16, f16>(&device);
    // Sums in f32 that are not rounded to the operands' type.
    all_of::<bf16, f32>(&device);
    all_of::<f16, f32>(&device);
}

fn all_of<E: Stored, D: Stored>(device: &Device) {
    for turned in TURNS {
        for write in [Write::Over, Write::Add] {
            for sizes in [[24, 40, 16], [1, 1, 1], [3, 5, 7], [17, 1, 33]] {
                compare::<E, D>(device, (sizes, turned), After::Nothing, write);
            }
        }
    }
    if E::TYPE == D::TYPE {
        for (after, turned) in [(After::Bias, TURNS[2]), (After::BiasRelu, TURNS[0])] {
            compare::<E, D>(device, ([24, 40, 16], turned), after, Write::Over);
        }
    }
}

#[test]
fn a_convolution_of_single_pixels_is_a_product() {
    let Some((device, _alone)) = device() else { return };
    let g = geometry(3, 5, 12, 20, 1, 1);
    let (x, w, dy) = (noise(g.input_len(), 1), noise(g.weight_len(), 2), noise(g.output_len(), 3));
    let [on_x, on_w, on_dy] = [&x, &w, &dy].map(|values| device.buffer_of(values).unwrap());
    let (pixels, from, to) = (g.output_len() / g.out_channels, g.in_channels, g.out_channels);
    let (of_x, of_dy) = (matrix(&on_x, pixels, from, false), matrix(&on_dy, pixels, to, false));
    let of_w = matrix(&on_w, to, from, false);
    let threads = Threads::new(2).unwrap();
    let product = |a, b, want: &[f32]| {
        let mut out = device.buffer::<f32>(want.len()).unwrap();
        device.product(a, b, Epilogue::None, ProductMode::Exact, out.write(), Write::Over).unwrap();
        assert_close("a pass", &device.values(out.read()).unwrap(), want, tolerance::<f32>());
    };
    let mut want = vec![0.0; g.output_len()];
    portable::conv2d_forward(&threads, &g, &x, &w, &mut want);
    product(of_x, of_w.t(), &want);
    let mut want = vec![0.0; g.input_len()];
    portable::conv2d_backward_input(&threads, &g, &dy, &w, &mut want);
    product(of_dy, of_w, &want);
    let mut want = vec![0.0; g.weight_len()];
    portable::conv2d_backward_weight(&threads, &g, &x, &dy, &mut want);
    product(of_dy.t(), of_x, &want);
}

/// The shape of a weight gradient: a small product with a long inner dimension, which algorithms split into partial
/// sums.
#[test]
fn a_product_has_the_same_bits_each_time() {
    let Some((device, _alone)) = device() else { return };
    let (m, n, k) = if on_stand_in(&device) { (8, 16, 300) } else { (64, 256, 1_000_000) };
    let a = device.buffer_of(&narrowed::<bf16>(&noise(m * k, 1))).unwrap();
    let b = device.buffer_of(&narrowed::<bf16>(&noise(k * n, 2))).unwrap();
    let run = || {
        let mut out = device.buffer::<f32>(m * n).unwrap();
        let (a, b) = (matrix(&a, m, k, true), matrix(&b, k, n, false));
        device.product(a, b, Epilogue::None, ProductMode::Exact, out.write(), Write::Over).unwrap();
        device.values(out.read()).unwrap()
    };
    let first = run();
    for _ in 0..10 {
        assert!(run() == first, "the same bits each time");
    }
}

fn on_stand_in(device: &Device) -> bool {
    device.name().contains("stand-in")
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let Some((device, _alone)) = device() else { return };
    let a = device.buffer_of(&noise(24 * 16, 1)).unwrap();
    let wide = Matrix::new(a.read(), 16).unwrap();
    let mut out = device.buffer::<f32>(24 * 24).unwrap();
    let mut narrow = device.buffer::<bf16>(24 * 24).unwrap();
    let (mode, write) = (ProductMode::Exact, Write::Over);
    let error = device.product(wide, wide, Epilogue::None, mode, out.write(), write).unwrap_err();
    assert_eq!(error.to_string(), "a product of matrices: 24 x 16 times 24 x 16");
    let error = device.product(wide, wide.t(), Epilogue::None, mode, narrow.write(), write).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a product of matrices: a product of float is of that type or of float, not bf16"
    );
    let mut short = device.buffer::<f32>(24 * 23).unwrap();
    let error = device.product(wide, wide.t(), Epilogue::None, mode, short.write(), write).unwrap_err();
    assert!(matches!(error, CudaError::Lengths { .. }), "{error}");
    assert!(Matrix::new(a.read(), 5).is_err());
}

#[test]
fn a_captured_step_chooses_nothing() {
    let Some((device, _alone)) = device() else { return };
    let values = device.buffer_of(&noise(32 * 32, 1)).unwrap();
    let mut out = device.buffer::<f32>(32 * 32).unwrap();
    let mut widths = [8, 16].into_iter();
    let error = device.capture(|| {
        let width = widths.next().unwrap_or(16);
        let some = matrix(&values, 1024 / width, width, false);
        device.product(some.t(), some, Epilogue::None, ProductMode::Exact, out.write(), Write::Over)
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the product has"), "{error}");
    let mut turned = [false, true].into_iter();
    let error = device.capture(|| {
        let square = matrix(&values, 32, 32, false);
        let square = if turned.next().unwrap_or(true) { square.t() } else { square };
        device.product(square, square, Epilogue::None, ProductMode::Exact, out.write(), Write::Over)
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("choosing an algorithm") && error.contains("captured step"), "{error}");
}

#[test]
fn chosen_algorithms_are_remembered_and_damaged_ones_chosen_again() {
    let Some((device, _alone)) = device() else { return };
    let stand_in = on_stand_in(&device);
    drop(device);
    let libraries = simclr_stand_in::libraries().unwrap_or_else(Libraries::find);
    let folder = tempfile::tempdir().unwrap();
    let (a, old) = (noise(24 * 32, 1), noise(24 * 24, 2));
    let run = |write| {
        let device = Device::open_with(0, &libraries, Some(folder.path())).unwrap();
        let (a, mut out) = (device.buffer_of(&a).unwrap(), device.buffer_of(&old).unwrap());
        let a = matrix(&a, 24, 32, false);
        // The second time, the device knows the algorithm.
        for _ in 0..2 {
            device.copy_to(&old, out.write()).unwrap();
            device.product(a, a.t(), Epilogue::None, ProductMode::Exact, out.write(), write).unwrap();
        }
        device.values(out.read()).unwrap()
    };
    let first = run(Write::Over);
    let whole = files(&folder.path().join("products"));
    assert_eq!(whole.len(), 1);
    if stand_in {
        // Not the first, which is slow, nor that with other bits each time, nor that which does not work.
        assert_eq!(whole[0].1.last_chunk::<64>().unwrap()[..8], 44_u64.to_le_bytes());
    }
    assert_eq!(run(Write::Over), first);
    assert_eq!(files(&folder.path().join("products")), whole);
    std::fs::write(&whole[0].0, "damaged").unwrap();
    assert_eq!(run(Write::Over), first);
    let again = files(&folder.path().join("products"));
    assert_eq!(again[0].0, whole[0].0);
    assert_ne!(again[0].1, b"damaged");
    // Adding to old values is another choice, whose search does not change these.
    let added = run(Write::Add);
    assert_eq!(files(&folder.path().join("products")).len(), 2);
    let want: Vec<f32> = first.iter().zip(&old).map(|(new, old)| new + old).collect();
    assert_close("added", &added, &want, tolerance::<f32>());
}

#[test]
fn a_choice_for_lack_of_memory_is_not_remembered() {
    let Some((device, _alone)) = device() else { return };
    if !on_stand_in(&device) {
        return;
    }
    drop(device);
    let folder = tempfile::tempdir().unwrap();
    let a = noise(24 * 32, 1);
    for full in [true, false] {
        let device = open(Some(folder.path())).unwrap();
        let (values, mut out) = (device.buffer_of(&a).unwrap(), device.buffer::<f32>(24 * 24).unwrap());
        let a = matrix(&values, 24, 32, false);
        // If all memory is taken, none is left for the workspace of the fastest algorithm.
        let _taken = if full { all_memory(&device) } else { Vec::new() };
        device.product(a, a.t(), Epilogue::None, ProductMode::Exact, out.write(), Write::Over).unwrap();
        let remembered = files(&folder.path().join("products"));
        let algorithms: Vec<_> =
            remembered.iter().map(|(_, bytes)| bytes.last_chunk::<64>().unwrap()[0]).collect();
        assert_eq!(algorithms, if full { vec![] } else { vec![44] });
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let Some((device, _alone)) = device() else { return };
    drop(device);
    let folder = tempfile::tempdir().unwrap();
    let why = |cache: &Path| open(Some(cache)).unwrap().forgets().map(str::to_owned);
    assert_eq!(why(folder.path()), None);
    let products = folder.path().join("products");
    std::fs::remove_dir(&products).unwrap();
    std::fs::write(&products, "").unwrap();
    // One of the folders within it, and the folder itself.
    for cache in [folder.path(), &products] {
        let why = why(cache).unwrap();
        assert!(why.contains("/products") && why.contains(" cannot be written ("), "{why}");
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}
