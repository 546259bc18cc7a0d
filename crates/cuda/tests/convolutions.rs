//! Convolutions on a GPU where there is one, and on the stand-in elsewhere.

#![cfg(feature = "cuda")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Stored, all_memory, assert_close, device, geometry, narrowed, noise, open, tolerance, widened};
use half::{bf16, f16};
use simclr_cuda::{ConvolutionLimits, ConvolutionMode, ConvolutionPass, Device, DeviceBuffer};
use simclr_kernels::conv2d::portable;
use simclr_kernels::{Conv2dGeometry, Threads, Write};

const EXACT: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: true };
const PASSES: [ConvolutionPass; 4] = [
    ConvolutionPass::Forward,
    ConvolutionPass::ForwardWithSums,
    ConvolutionPass::BackwardInput,
    ConvolutionPass::BackwardWeight,
];

/// Operands of a convolution, on the device and as f32.
struct Case<E> {
    g: Conv2dGeometry,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    on_x: DeviceBuffer<E>,
    on_w: DeviceBuffer<E>,
    on_dy: DeviceBuffer<E>,
}

/// The results of the three passes; the input's gradient may be added to old values.
#[derive(PartialEq)]
struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
}

impl<E: Stored> Case<E> {
    fn new(device: &Device, g: Conv2dGeometry) -> Case<E> {
        let x = narrowed::<E>(&noise(g.input_len(), 1));
        let w = narrowed::<E>(&noise(g.weight_len(), 2));
        let dy = narrowed::<E>(&noise(g.output_len(), 3));
        let [on_x, on_w, on_dy] = [&x, &w, &dy].map(|values| device.buffer_of(values).unwrap());
        Case { g, x: widened(&x), w: widened(&w), dy: widened(&dy), on_x, on_w, on_dy }
    }

    fn run(&self, device: &Device, mode: ConvolutionMode, old: Option<&[E]>) -> Results {
        let g = &self.g;
        let mut y = device.buffer::<E>(g.output_len()).unwrap();
        device.conv2d_forward(g, mode, self.on_x.read(), self.on_w.read(), y.write()).unwrap();
        let mut dx = device.buffer::<E>(g.input_len()).unwrap();
        if let Some(old) = old {
            device.copy_to(old, dx.write()).unwrap();
        }
        let write = if old.is_some() { Write::Add } else { Write::Over };
        let (dy, w) = (self.on_dy.read(), self.on_w.read());
        device.conv2d_backward_input(g, mode, dy, w, dx.write(), write).unwrap();
        let mut dw = device.buffer::<f32>(g.weight_len()).unwrap();
        device.conv2d_backward_weight(g, mode, self.on_x.read(), dy, dw.write()).unwrap();
        Results {
            y: widened(&device.values(y.read()).unwrap()),
            dx: widened(&device.values(dx.read()).unwrap()),
            dw: device.values(dw.read()).unwrap(),
        }
    }

    fn wanted(&self, old: Option<&[E]>) -> Results {
        let (g, threads) = (&self.g, Threads::new(2).unwrap());
        let mut y = vec![0.0; g.output_len()];
        portable::conv2d_forward(&threads, g, &self.x, &self.w, &mut y);
        let mut dx = vec![0.0; g.input_len()];
        portable::conv2d_backward_input(&threads, g, &self.dy, &self.w, &mut dx);
        if let Some(old) = old {
            dx.iter_mut().zip(widened(old)).for_each(|(dx, old)| *dx += old);
        }
        let mut dw = vec![0.0; g.weight_len()];
        portable::conv2d_backward_weight(&threads, g, &self.x, &self.dy, &mut dw);
        Results { y, dx, dw }
    }
}

#[test]
fn convolutions_in_f32_are_those_of_the_definition() {
    convolutions::<f32>();
}

#[test]
fn convolutions_in_bf16_are_those_of_the_definition() {
    convolutions::<bf16>();
}

#[test]
fn convolutions_in_f16_are_those_of_the_definition() {
    convolutions::<f16>();
}

fn convolutions<E: Stored>() {
    let Some((device, _alone)) = device() else { return };
    for (g, deterministic) in [
        (geometry(2, 8, 8, 16, 3, 1), true),
        (geometry(1, 9, 3, 8, 7, 2), true),
        (geometry(1, 9, 3, 8, 7, 2), false),
        (geometry(3, 5, 16, 24, 1, 2), true),
        (geometry(4, 7, 64, 64, 3, 2), true),
        (geometry(2, 7, 5, 3, 3, 2), false),
        (geometry(2, 6, 1, 1, 1, 1), true),
        (geometry(5, 1, 32, 40, 1, 1), false),
    ] {
        let mode = ConvolutionMode { tf32: false, deterministic };
        let case = Case::<E>::new(&device, g);
        let old = narrowed::<E>(&noise(g.input_len(), 4));
        // Added the first time, when no route is chosen yet.
        for old in [Some(&old[..]), None] {
            let (got, want) = (case.run(&device, mode, old), case.wanted(old));
            assert_close(&format!("y of {g:?}"), &got.y, &want.y, tolerance::<E>());
            assert_close(&format!("dx of {g:?}"), &got.dx, &want.dx, tolerance::<E>());
            assert_close(&format!("dw of {g:?}"), &got.dw, &want.dw, tolerance::<E>());
            assert!(!deterministic || case.run(&device, mode, old) == got, "the same bits each time: {g:?}");
        }
        let mut wrong = device.buffer::<E>(g.output_len() + 1).unwrap();
        let (x, w) = (case.on_x.read(), case.on_w.read());
        let error = device.conv2d_forward(&g, mode, x, w, wrong.write()).unwrap_err();
        assert!(error.to_string().contains("the output has"), "{error}");
    }
}

#[test]
fn sums_of_channels_are_those_of_the_output() {
    channel_sums::<f32>();
    channel_sums::<bf16>();
    channel_sums::<f16>();
}

fn channel_sums<E: Stored>() {
    let Some((device, _alone)) = device() else { return };
    for g in [geometry(4, 8, 32, 64, 3, 1), geometry(3, 5, 16, 24, 1, 2), geometry(2, 9, 3, 5, 7, 2)] {
        let case = Case::<E>::new(&device, g);
        // The second time, the route is known.
        for _ in 0..2 {
            let mut y = device.buffer::<E>(g.output_len()).unwrap();
            let mut sums = device.buffer_of(&vec![f64::NAN; 2 * g.out_channels]).unwrap();
            let (x, w) = (case.on_x.read(), case.on_w.read());
            device.conv2d_forward_with_sums(&g, EXACT, x, w, y.write(), sums.write()).unwrap();
            let y = widened(&device.values(y.read()).unwrap());
            assert_close(&format!("y of {g:?}"), &y, &case.wanted(None).y, tolerance::<E>());
            let mut want = vec![0.0; 2 * g.out_channels];
            for (i, value) in y.iter().enumerate() {
                want[i % g.out_channels] += value;
                want[g.out_channels + i % g.out_channels] += value * value;
            }
            let got: Vec<f32> = device.values(sums.read()).unwrap().into_iter().map(|v| v as f32).collect();
            // Sums may be of y before it was rounded.
            for (got, want) in got.chunks_exact(g.out_channels).zip(want.chunks_exact(g.out_channels)) {
                assert_close(&format!("sums of {g:?}"), got, want, tolerance::<E>());
            }
        }
        let mut y = device.buffer::<E>(g.output_len()).unwrap();
        let mut short = device.buffer::<f64>(g.out_channels).unwrap();
        let (x, w) = (case.on_x.read(), case.on_w.read());
        let error = device.conv2d_forward_with_sums(&g, EXACT, x, w, y.write(), short.write()).unwrap_err();
        assert!(error.to_string().contains("sums has"), "{error}");
    }
}

#[test]
fn tf32_is_close() {
    let Some((device, _alone)) = device() else { return };
    let case = Case::<f32>::new(&device, geometry(2, 8, 32, 32, 3, 1));
    let got = case.run(&device, ConvolutionMode { tf32: true, deterministic: true }, None);
    let want = case.wanted(None);
    for (got, want) in [(&got.y, &want.y), (&got.dx, &want.dx), (&got.dw, &want.dw)] {
        // f16 has the precision of tf32.
        assert_close("tf32", got, want, tolerance::<f16>());
    }
}

#[test]
fn graphs_have_engines_for_all_passes_and_types() {
    let Some((device, _alone)) = device() else { return };
    engines::<f32>(&device);
    engines::<bf16>(&device);
    engines::<f16>(&device);
}

fn engines<E: Stored>(device: &Device) {
    for g in [geometry(2, 8, 32, 32, 3, 1), geometry(4, 8, 64, 64, 1, 2), geometry(2, 12, 3, 16, 7, 2)] {
        for pass in PASSES {
            for write in [Write::Over, Write::Add] {
                if write == Write::Add && pass != ConvolutionPass::BackwardInput {
                    continue;
                }
                let timed = device
                    .time_convolution::<E>(&g, EXACT, pass, write)
                    .unwrap_or_else(|error| panic!("{pass:?} of {:?}: {error}", E::TYPE));
                assert!(timed.iter().all(|way| way.seconds > 0.0), "{timed:?}");
                // A sum or a gradient in f32 may take two stages.
                let graph = timed.iter().any(|way| way.what.starts_with("engine ") || way.what == "in two");
                assert!(graph, "{pass:?} of {:?}: {timed:?}", E::TYPE);
            }
        }
    }
}

#[test]
fn what_was_chosen_is_remembered_and_what_is_damaged_chosen_again() {
    let Some((device, _alone)) = device() else { return };
    let libraries = match simclr_stand_in::libraries() {
        Some(libraries) => libraries,
        None => simclr_cuda::Libraries::find(),
    };
    drop(device);
    let folder = tempfile::tempdir().unwrap();
    let g = geometry(1, 6, 8, 8, 3, 1);
    let old = noise(g.input_len(), 4);
    let run = || {
        let device = Device::open_with(0, &libraries, Some(folder.path())).unwrap();
        Case::<f32>::new(&device, g).run(&device, EXACT, Some(&old))
    };
    // Files are replaced, never modified: one with the same time of modification was not written.
    let files = || -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
        let entries = fs::read_dir(folder.path().join("convolutions")).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.clone(), fs::metadata(&path).unwrap().modified().unwrap(), fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let first = run();
    let whole = files();
    // Forward, dx added, dw; and dx overwritten, if the addition was timed in two stages.
    assert!(whole.len() >= 3, "{whole:?}");
    assert!(run() == first, "the same bits");
    assert_eq!(files(), whole);
    for (path, ..) in &whole {
        fs::write(path, "damaged").unwrap();
    }
    assert!(run().y.len() == first.y.len());
    assert!(files().iter().filter(|(.., bytes)| bytes != b"damaged").count() >= 3);
}

#[test]
fn a_route_for_lack_of_memory_is_not_remembered() {
    let Some((device, _alone)) = device() else { return };
    if !device.name().contains("stand-in") {
        return;
    }
    drop(device);
    let folder = tempfile::tempdir().unwrap();
    let g = geometry(1, 6, 8, 8, 3, 1);
    for full in [true, false] {
        let device = open(Some(folder.path())).unwrap();
        let case = Case::<f32>::new(&device, g);
        let mut y = device.buffer::<f32>(g.output_len()).unwrap();
        // If all memory is taken, none is left for the workspace of one of the engines.
        let taken = if full { all_memory(&device) } else { Vec::new() };
        device.conv2d_forward(&g, EXACT, case.on_x.read(), case.on_w.read(), y.write()).unwrap();
        drop(taken);
        let remembered = fs::read_dir(folder.path().join("convolutions")).into_iter().flatten().count();
        assert_eq!(remembered, if full { 0 } else { 1 });
    }
}

#[test]
fn without_memory_to_search_for_an_addition_fewer_images_are_searched() {
    let Some((device, _alone)) = device() else { return };
    if !device.name().contains("stand-in") {
        return;
    }
    drop(device);
    let g = geometry(4, 16, 8, 8, 3, 1);
    let old = noise(g.input_len(), 4);
    let folder = tempfile::tempdir().unwrap();
    for full in [false, true] {
        let cache = folder.path().join(full.to_string());
        let device = open(Some(&cache)).unwrap();
        let case = Case::<f32>::new(&device, g);
        let mut dx = device.buffer_of(&old).unwrap();
        // One image of dx, and a value of it.
        let reserve = device.buffer::<u8>(4 << 12).unwrap();
        let taken = if full { all_memory(&device) } else { Vec::new() };
        drop(reserve);
        let (dy, w) = (case.on_dy.read(), case.on_w.read());
        device.conv2d_backward_input(&g, EXACT, dy, w, dx.write(), Write::Add).unwrap();
        drop(taken);
        let remembered = fs::read_dir(cache.join("convolutions")).unwrap().count();
        assert_eq!(remembered > 0, !full);
        let want = case.wanted(Some(&old)).dx;
        assert_close("dx", &device.values(dx.read()).unwrap(), &want, tolerance::<f32>());
    }
}

#[test]
fn single_pixels_are_tried_as_products() {
    let Some((device, _alone)) = device() else { return };
    let (g, on_stand_in) = (geometry(2, 4, 16, 24, 1, 1), device.name().contains("stand-in"));
    // Passes with sums take two stages, of which the first may be a product.
    for pass in PASSES.into_iter().filter(|pass| *pass != ConvolutionPass::ForwardWithSums) {
        for mode in [EXACT, ConvolutionMode { tf32: true, deterministic: false }] {
            let timed = device.time_convolution::<bf16>(&g, mode, pass, Write::Over).unwrap();
            assert!(timed.iter().any(|way| way.what == "product"), "{pass:?}: {timed:?}");
            // There convolutions are slow, and "in two" is a product that is rounded, then widened.
            let is_product = ["product", "in two"].contains(&timed[0].what.as_str());
            assert!(!on_stand_in || is_product, "{pass:?}: {timed:?}");
            let strided = Conv2dGeometry { stride: 2, ..g };
            for write in [Write::Over, Write::Add] {
                let timed = device.time_convolution::<bf16>(&strided, mode, pass, write).unwrap();
                assert!(timed.iter().all(|way| way.what != "product"), "{pass:?}: {timed:?}");
                assert!(timed.iter().any(|way| way.what == "strided"), "{pass:?}: {timed:?}");
            }
        }
    }
    drop(device);
    let libraries = simclr_stand_in::libraries().unwrap_or_else(simclr_cuda::Libraries::find);
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let device = Device::open_with(0, &libraries, Some(folder.path())).unwrap();
        let case = Case::<f16>::new(&device, g);
        let old = narrowed::<f16>(&noise(g.input_len(), 4));
        case.run(&device, EXACT, Some(&old))
    };
    let first = run();
    assert!(run() == first, "the same bits as before it was remembered");
    if on_stand_in {
        let named = |path: &PathBuf| String::from_utf8_lossy(&fs::read(path).unwrap()).contains("product");
        let entries = fs::read_dir(folder.path().join("convolutions")).unwrap();
        let products = entries.map(|entry| entry.unwrap().path()).filter(named).count();
        assert!(products >= 3, "{products}");
    }
}

/// A file of the cache: its magic, 128-bit FNV-1a over the text's length and the text, and the text.
fn remembered(text: &[u8]) -> Vec<u8> {
    let mut sum = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in (text.len() as u64).to_le_bytes().iter().chain(text) {
        sum = (sum ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    }
    [b"simclr cache 1\n", &sum.to_le_bytes()[..], text].concat()
}

#[test]
fn pixels_that_a_stride_meets_are_multiplied_as_the_definition_says() {
    strided::<f32>();
    strided::<bf16>();
    strided::<f16>();
}

fn strided<E: Stored>() {
    if device().is_none() {
        return;
    }
    let libraries = simclr_stand_in::libraries().unwrap_or_else(simclr_cuda::Libraries::find);
    let folder = tempfile::tempdir().unwrap();
    let files = || -> Vec<PathBuf> {
        let entries = fs::read_dir(folder.path().join("convolutions")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    for (batch, side, channels, out, stride) in [(3, 5, 16, 24, 2), (2, 7, 5, 3, 3)] {
        let g = Conv2dGeometry { padding: 0, ..geometry(batch, side, channels, out, 1, stride) };
        let old = narrowed::<E>(&noise(g.input_len(), 4));
        let run = |old| {
            let device = Device::open_with(0, &libraries, Some(folder.path())).unwrap();
            let case = Case::<E>::new(&device, g);
            (case.run(&device, EXACT, old), case.wanted(old))
        };
        for old in [Some(&old[..]), None] {
            run(old);
            // Replace the routes that were the fastest.
            for path in files() {
                fs::write(path, remembered(b"strided")).unwrap();
            }
            let (got, want) = run(old);
            assert_close(&format!("y of {g:?}"), &got.y, &want.y, tolerance::<E>());
            assert_close(&format!("dx of {g:?}"), &got.dx, &want.dx, tolerance::<E>());
            assert_close(&format!("dw of {g:?}"), &got.dw, &want.dw, tolerance::<E>());
            let kept =
                files().iter().filter(|path| fs::read(path).unwrap() == remembered(b"strided")).count();
            assert!(kept >= 3, "forward, dx and dw: {kept}");
            assert!(run(old).0 == got, "the same bits each time");
            fs::remove_dir_all(folder.path().join("convolutions")).unwrap();
        }
    }
}

#[test]
fn all_passes_can_be_captured() {
    let Some((device, _alone)) = device() else { return };
    captured(&device, geometry(2, 7, 16, 16, 3, 2));
    // These may be products.
    captured(&device, geometry(2, 4, 16, 24, 1, 1));
    captured(&device, geometry(2, 5, 16, 24, 1, 2));
    // In three pieces.
    let limits = ConvolutionLimits { values: 8 * 9 * 16, ..ConvolutionLimits::default() };
    device.set_convolution_limits(limits).unwrap();
    captured(&device, geometry(20, 3, 16, 16, 3, 1));
    device.set_convolution_limits(ConvolutionLimits::default()).unwrap();
}

fn captured(device: &Device, g: Conv2dGeometry) {
    let case = Case::<bf16>::new(device, g);
    let old = narrowed::<bf16>(&noise(g.input_len(), 4));
    let mut dx = device.buffer_of(&old).unwrap();
    let mut dw = device.zeros::<f32>(g.weight_len()).unwrap();
    let mut y = device.zeros::<bf16>(g.output_len()).unwrap();
    let mut sums = device.zeros::<f64>(2 * g.out_channels).unwrap();
    let (x, w, dy) = (case.on_x.read(), case.on_w.read(), case.on_dy.read());
    let graph = device
        .capture(|| {
            device.conv2d_forward_with_sums(&g, EXACT, x, w, y.write(), sums.write())?;
            device.conv2d_backward_input(&g, EXACT, dy, w, dx.write(), Write::Add)?;
            device.conv2d_backward_weight(&g, EXACT, x, dy, dw.write())
        })
        .unwrap();
    // Erase the results of the first run.
    device.copy_to(&old, dx.write()).unwrap();
    device.clear(dw.write()).unwrap();
    device.clear(y.write()).unwrap();
    device.clear(sums.write()).unwrap();
    graph.replay().unwrap();
    let want = case.run(device, EXACT, Some(&old));
    assert!(widened(&device.values(y.read()).unwrap()) == want.y);
    assert!(widened(&device.values(dx.read()).unwrap()) == want.dx);
    assert!(device.values(dw.read()).unwrap() == want.dw);
    assert!(device.values(sums.read()).unwrap().iter().all(|sum| *sum != 0.0));
}
