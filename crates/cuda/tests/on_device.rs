//! A device with its memory, copies, kernels and captured steps: on a GPU where there is one, and on the stand-in
//! elsewhere.

#![cfg(feature = "cuda")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{another_device, assert_close, device, geometry, noise, tolerance};
use simclr_augment::{Recipe, Scratch, ViewConfig, ViewFamily};
use simclr_cuda::ops::{batch_norm, elementwise, nt_xent, sums, views};
use simclr_cuda::{
    Channel, ConvolutionMode, CudaError, Device, Epilogue, Gpus, Launcher, Libraries, Matrix, ProductMode,
};
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::{Cpu, Isa, Write};

fn portable() -> Cpu {
    Cpu::new(2, Isa::PORTABLE).unwrap()
}

#[test]
fn buffers_keep_their_values_and_their_memory_serves_again() {
    let Some((device, _alone)) = device() else { return };
    let before = device.memory();
    let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let mut buffer = device.buffer_of(&values).unwrap();
    let zeros = device.zeros::<u32>(1000).unwrap();
    assert_eq!(device.values(buffer.read()).unwrap(), values);
    assert_eq!(device.values(zeros.read()).unwrap(), [0; 1000]);
    assert_eq!(device.memory().live, before.live + 404_000);
    let copy = device.buffer::<f32>(values.len()).map(|mut copy| {
        device.copy(buffer.read(), copy.write()).unwrap();
        copy
    });
    // Later changes of the source do not affect the copy.
    device.clear(buffer.write()).unwrap();
    assert_eq!(device.values(copy.unwrap().read()).unwrap(), values);
    drop((buffer, zeros));
    let held = device.memory().held;
    for _ in 0..50 {
        let buffers: Vec<_> = (0..4).map(|i| device.buffer::<u8>(50_000 * (i + 1)).unwrap()).collect();
        drop(buffers);
    }
    assert_eq!((device.memory().live, device.memory().held), (before.live, held));
    let mut short = [0u8; 3];
    let buffer = device.zeros::<u8>(4).unwrap();
    assert!(matches!(device.copy_from(buffer.read(), &mut short), Err(CudaError::Lengths { .. })));
    assert!(device.free_and_total().unwrap().0 <= device.free_and_total().unwrap().1);
}

#[test]
fn too_much_is_refused_and_leaves_the_device_sound() {
    let Some((device, _alone)) = device() else { return };
    let (_, total) = device.free_and_total().unwrap();
    let live = device.memory().live;
    for len in [total - total / 64, 1 << 50] {
        let error = device.buffer::<u8>(len).map(|_| ()).and_then(|()| device.buffer::<u8>(len).map(|_| ()));
        if let Err(error) = error {
            assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error}");
        }
    }
    let error = device.buffer::<u8>(1 << 50).unwrap_err();
    assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().starts_with("the GPU has no 1125899.91 GB left: tensors take "), "{error}");
    // The size in bytes is 8 modulo 2^64.
    assert!(matches!(device.buffer::<f64>(usize::MAX / 8 + 2), Err(CudaError::OutOfMemory { .. })));
    assert_eq!(device.memory().live, live);
    device.trim().unwrap();
    let buffer = device.buffer_of(&[1u8, 2, 3]).unwrap();
    assert_eq!(device.values(buffer.read()).unwrap(), [1, 2, 3]);
}

#[test]
fn many_copies_under_way_do_not_mix() {
    let Some((device, _alone)) = device() else { return };
    let buffers: Vec<_> =
        (0..40u32).map(|i| device.buffer_of(&vec![i; 1000 + 100 * i as usize]).unwrap()).collect();
    for (i, buffer) in buffers.iter().enumerate() {
        assert!(device.values(buffer.read()).unwrap().iter().all(|v| *v == i as u32), "{i}");
    }
}

#[test]
fn long_copies_take_little_pinned_memory() {
    let Some((_, _alone)) = device() else { return };
    let Some(device) = another_device() else { return };
    // Four pieces of 32 MiB, and one that a larger one replaces.
    let scarce = Scarce::new(5 * (32 << 20));
    let values: Vec<u32> = (0..(70 << 18) + 3).map(|i: u32| i.wrapping_mul(2_654_435_761)).collect();
    for round in 0..3 {
        let mut buffer = device.zeros::<u32>(values.len()).unwrap();
        // The bytes sent are those of now.
        let mut sent = values.clone();
        device.copy_to(&sent, buffer.write()).unwrap();
        sent.fill(0);
        assert!(device.values(buffer.read()).unwrap() == values, "round {round}");
    }
    drop(scarce);
}

#[test]
fn a_copy_without_pinned_memory_fails_and_the_next_may_not() {
    let Some((device, _alone)) = device() else { return };
    if !device.name().contains("stand-in") {
        return;
    }
    let device = another_device().unwrap();
    let values = vec![3u8; 1000];
    for round in 0..2 {
        let scarce = Scarce::new(0);
        for _ in 0..5 {
            let error = device.buffer_of(&values).unwrap_err().to_string();
            assert!(error.contains("pinning host memory"), "{round}: {error}");
        }
        drop(scarce);
        assert_eq!(device.values(device.buffer_of(&values).unwrap().read()).unwrap(), values);
    }
}

/// While it lives, the stand-in pins only some more bytes.
struct Scarce(Option<simclr_stand_in::Libraries>);

impl Scarce {
    fn new(bytes: usize) -> Scarce {
        let libraries = simclr_stand_in::libraries();
        libraries.iter().for_each(|libraries| simclr_stand_in::pin_at_most(libraries, bytes));
        Scarce(libraries)
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        self.0.iter().for_each(|libraries| simclr_stand_in::pin_at_most(libraries, usize::MAX));
    }
}

#[test]
fn batches_arrive_whole_while_the_device_works() {
    let Some((device, _alone)) = device() else { return };
    let len = 10_000;
    let mut channels = [Channel::new(&device, len).unwrap(), Channel::new(&device, len).unwrap()];
    let mut results = Vec::new();
    for batch in 0..6u8 {
        let channel = &mut channels[usize::from(batch) % 2];
        channel.bytes().unwrap().fill(batch + 1);
        channel.send().unwrap();
        let mut unit = device.buffer::<f32>(len).unwrap();
        elementwise::unit_from_bytes(&device, channel.arrived().unwrap(), unit.write()).unwrap();
        channel.done().unwrap();
        results.push(unit);
    }
    for (batch, unit) in results.iter().enumerate() {
        let want = (batch + 1) as f32 / 255.0;
        assert!(device.values(unit.read()).unwrap().iter().all(|v| *v == want), "batch {batch}");
    }
}

#[test]
fn a_captured_step_does_what_the_step_did() {
    let Some((device, _alone)) = device() else { return };
    let (rows, width) = (16, 24);
    let g = geometry(1, 4, 8, 8, 3, 1);
    let mode = ConvolutionMode { tf32: false, deterministic: true };
    let start = noise(rows * width, 1);
    let weight = device.buffer_of(&noise(width * width, 2)).unwrap();
    let filter = device.buffer_of(&noise(g.weight_len(), 3)).unwrap();
    let image = device.buffer_of(&noise(g.input_len(), 4)).unwrap();
    let half = device.buffer_of(&[0.5f32]).unwrap();
    // x = relu(x w) / 2, and the channel sums of a convolution, over and over.
    let step = |x: &mut simclr_cuda::DeviceBuffer<f32>, total: &mut simclr_cuda::DeviceBuffer<f64>| {
        let mut y = device.buffer::<f32>(rows * width)?;
        let (a, b) = (Matrix::new(x.read(), width)?, Matrix::new(weight.read(), width)?);
        device.product(a, b, Epilogue::None, ProductMode::Exact, y.write(), Write::Over)?;
        let mut z = device.buffer::<f32>(rows * width)?;
        elementwise::relu_forward(&device, y.read(), z.write())?;
        elementwise::scale_by(&device, z.write(), half.read())?;
        device.copy(z.read(), x.write())?;
        let mut features = device.buffer::<f32>(g.output_len())?;
        device.conv2d_forward(&g, mode, image.read(), filter.read(), features.write())?;
        sums::channel_sums(&device, features.read(), 8, total.write())
    };
    let mut x = device.buffer_of(&start).unwrap();
    let mut total = device.zeros::<f64>(16).unwrap();
    for _ in 0..4 {
        step(&mut x, &mut total).unwrap();
    }
    let want = (device.values(x.read()).unwrap(), device.values(total.read()).unwrap());

    let mut x = device.buffer_of(&start).unwrap();
    let mut total = device.zeros::<f64>(16).unwrap();
    let graph = device.capture(|| step(&mut x, &mut total)).unwrap();
    assert!(graph.held() > 0);
    for _ in 0..3 {
        // Other buffers, which are made meanwhile, must not get the graph's memory.
        let noise = device.buffer_of(&vec![f32::NAN; 10_000]).unwrap();
        graph.replay().unwrap();
        drop(noise);
    }
    assert_eq!((device.values(x.read()).unwrap(), device.values(total.read()).unwrap()), want);
}

#[test]
fn a_step_that_panics_leaves_the_device_as_it_was() {
    let Some((_, _alone)) = device() else { return };
    let Some(device) = another_device() else { return };
    let mut x = device.buffer_of(&[1f32; 100]).unwrap();
    for panics_at in [1, 2] {
        let mut runs = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            device.capture(|| {
                elementwise::fill(&device, x.write(), 2.0)?;
                runs += 1;
                assert!(runs < panics_at, "the step");
                Ok(())
            })
        }));
        assert!(panicked.is_err() && runs == panics_at);
        // Copies and other captures may be had again, and buffers come from where they came from.
        let mut y = device.buffer_of(&[3f32; 100]).unwrap();
        device.synchronize().unwrap();
        let graph = device.capture(|| elementwise::fill(&device, y.write(), 4.0)).unwrap();
        graph.replay().unwrap();
        drop(graph);
        assert!(device.values(y.read()).unwrap().iter().all(|v| *v == 4.0));
        assert!(device.memory().live >= 800);
    }
}

#[test]
fn a_step_whose_buffers_are_gone_writes_into_nobody_elses() {
    let Some((_, _alone)) = device() else { return };
    let Some(device) = another_device() else { return };
    let ones = vec![1f32; 5000];
    let mut x = device.buffer_of(&ones).unwrap();
    let graph = device.capture(|| elementwise::fill(&device, x.write(), 2.0)).unwrap();
    let place = x.read().address();
    drop(x);
    let mut y = device.buffer_of(&ones).unwrap();
    assert_ne!(y.read().address(), place);
    let later = device.capture(|| elementwise::fill(&device, y.write(), 0.5)).unwrap();
    graph.replay().unwrap();
    assert!(device.values(y.read()).unwrap().iter().all(|v| *v == 0.5));
    // A buffer that was dropped before the later step was captured is not held by that.
    drop(graph);
    let z = device.buffer::<f32>(5000).unwrap();
    assert_eq!(z.read().address(), place);
    drop((y, z, later));
    assert_eq!(device.memory().live, 0);
    device.trim().unwrap();
    assert_eq!(device.memory().held, 0);
}

/// While a step is being captured, another device of the process, on another thread, allocates and frees memory, copies
/// and waits.
#[test]
fn another_device_does_not_break_into_a_capture() {
    let Some((device, _alone)) = device() else { return };
    let Some(other) = another_device() else { return };
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let mut x = device.buffer_of(&values).unwrap();
    let half = device.buffer_of(&[0.5f32]).unwrap();
    let graph = device
        .capture(|| {
            elementwise::scale_by(&device, x.write(), half.read())?;
            let copied = std::thread::scope(|scope| {
                let elsewhere = scope.spawn(|| {
                    let mut channel = Channel::new(&other, 4000)?;
                    channel.bytes()?.copy_from_slice(bytemuck::cast_slice(&values));
                    channel.send()?;
                    let arrived = other.values(channel.arrived()?)?;
                    channel.done()?;
                    // Larger than its pool and its pinned memory.
                    let large = other.buffer_of(&vec![1u8; (64 << 20) + 1])?;
                    drop(large);
                    other.trim()?;
                    let small = other.buffer_of(&values)?;
                    let captured = other.capture(|| other.clear(other.buffer::<u8>(10)?.write()))?;
                    captured.replay()?;
                    other.synchronize()?;
                    assert_eq!(other.values(small.read())?, values);
                    // A device with a handle of cuBLASLt is dropped meanwhile.
                    let third = another_device().expect("there was one a moment ago");
                    let mut product = third.buffer::<f32>(1)?;
                    let two = third.buffer_of(&[2.0f32])?;
                    let matrix = || Matrix::new(two.read(), 1);
                    let (epilogue, mode) = (Epilogue::None, ProductMode::Exact);
                    third.product(matrix()?, matrix()?, epilogue, mode, product.write(), Write::Over)?;
                    assert_eq!(third.values(product.read())?, [4.0]);
                    Ok(arrived)
                });
                elsewhere.join().unwrap()
            });
            assert_eq!(copied?, bytemuck::cast_slice::<f32, u8>(&values));
            elementwise::scale_by(&device, x.write(), half.read())
        })
        .unwrap();
    drop(other);
    graph.replay().unwrap();
    let want: Vec<f32> = values.iter().map(|v| v / 16.0).collect();
    assert_eq!(device.values(x.read()).unwrap(), want);
}

#[test]
fn what_cannot_be_captured_is_refused_and_the_device_goes_on() {
    let Some((device, _alone)) = device() else { return };
    let mut x = device.buffer_of(&[1f32, 2.0]).unwrap();
    let error = device.capture(|| device.values(x.read()).map(drop)).unwrap_err();
    assert!(error.to_string().contains("cannot be part of a captured step"), "{error}");
    let mut kept = None;
    let error = device.capture(|| {
        kept = Some(device.buffer::<f32>(10)?);
        Ok(())
    });
    assert!(error.unwrap_err().to_string().contains("outlives it"));
    drop(kept);
    let mut sizes = [100_000usize, 300_000_000].into_iter();
    let error = device.capture(|| {
        let mut scratch = device.buffer::<u8>(sizes.next().unwrap_or(1))?;
        device.clear(scratch.write())
    });
    assert!(error.is_err(), "more memory than the first time");
    let failing = device.capture(|| Err(CudaError::Call { what: "a step", reason: "it failed".into() }));
    assert_eq!(failing.unwrap_err().to_string(), "a step failed: it failed");
    elementwise::fill(&device, x.write(), 3.0).unwrap();
    assert_eq!(device.values(x.read()).unwrap(), [3.0; 2]);
}

#[test]
fn what_is_free_is_told_without_a_device() {
    let Some((device, _alone)) = device() else { return };
    let libraries = simclr_stand_in::libraries().unwrap_or_else(Libraries::find);
    let _some = device.buffer::<u8>(1 << 20).unwrap();
    let (_, total) = device.free_and_total().unwrap();
    let free = Gpus::free_memory(&libraries, 0).unwrap();
    assert!(free > 0 && free < total as u64, "{free} of {total}");
    assert_eq!(Gpus::free_memory(&libraries, 99), None);
    // The device still works.
    assert_eq!(device.values(device.buffer_of(&[1f32]).unwrap().read()).unwrap(), [1.0]);
}

#[test]
fn kernels_run_through_the_driver() {
    let Some((device, _alone)) = device() else { return };
    let gpu: &dyn Launcher = &device;
    let (rows, channels) = (300, 24);
    let x = device.buffer_of(&noise(rows * channels, 1)).unwrap();
    let mut own = device.buffer::<f64>(2 * channels).unwrap();
    sums::channel_sums(gpu, x.read(), channels, own.write()).unwrap();
    let gamma = device.buffer_of(&vec![1f32; channels]).unwrap();
    let mut coefficients = device.buffer::<f32>(4 * channels).unwrap();
    let count = rows as f64;
    batch_norm::coefficients(gpu, own.read(), count, gamma.read(), None, 1e-5, None, coefficients.write())
        .unwrap();
    let mut y = device.buffer::<f32>(rows * channels).unwrap();
    batch_norm::forward(gpu, x.read(), coefficients.read(), None, false, y.write(), None).unwrap();
    sums::channel_sums(gpu, y.read(), channels, own.write()).unwrap();
    for (i, sum) in device.values(own.read()).unwrap().into_iter().enumerate() {
        let want = if i < channels { 0.0 } else { 1.0 };
        assert!((sum / count - want).abs() < 1e-3, "{i}: {}", sum / count);
    }

    nt_xent_of(&device, 140, 130);
    // Several tiles one after the other, for which the stand-in takes long.
    if !device.name().contains("stand-in") {
        nt_xent_of(&device, 3002, 128);
    }

    let (side, width, height) = (70, 90, 60);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 256) as u8).collect();
    let family =
        ViewFamily::first_branch(&ViewConfig { blur_prob: Some(1.0), ..ViewConfig::default() }, side)
            .unwrap();
    let mut stream = simclr_augment::Stream::new(1, 2, 3, 4);
    let recipes: Vec<Recipe> = (0..5).map(|_| family.draw(width, height, &mut stream)).collect();
    let image = simclr_augment::ImageRef::new(width, height, &pixels).unwrap();
    let mut want = vec![0; 5 * family.view_len()];
    for (recipe, out) in recipes.iter().zip(want.chunks_exact_mut(family.view_len())) {
        family.apply(image, recipe, &mut Scratch::default(), out);
    }
    let on_pixels = device.buffer_of(&pixels).unwrap();
    let made: Vec<views::View> = recipes.iter().map(|recipe| views::View::new(recipe, 0).unwrap()).collect();
    let mut out = device.buffer::<u8>(want.len()).unwrap();
    views::make(gpu, on_pixels.read(), &made, side as usize, out.write()).unwrap();
    let got = device.values(out.read()).unwrap();
    assert!(got.iter().zip(&want).all(|(a, b)| a.abs_diff(*b) <= 1));
    let different = got.iter().zip(&want).filter(|(a, b)| a != b).count();
    assert!(different * 500 <= want.len(), "{different} of {}", want.len());
}

fn nt_xent_of(device: &Device, anchors: usize, dim: usize) {
    let gpu: &dyn Launcher = device;
    let z = noise(anchors * dim, 5);
    let shape = ContrastiveShape { anchors, views: anchors, offset: 0, dim, temperature: 0.5 };
    let on_z = device.buffer_of(&z).unwrap();
    let mut found = device.buffer::<f32>(4 * anchors).unwrap();
    nt_xent::forward(gpu, &shape, on_z.read(), found.write()).unwrap();
    let mut want = vec![simclr_kernels::nt_xent::Anchor::default(); anchors];
    simclr_kernels::nt_xent::nt_xent_forward(&portable(), &shape, &z, &mut want);
    let losses: Vec<f32> = device.values(found.read()).unwrap().into_iter().step_by(4).collect();
    assert_close(
        "losses",
        &losses,
        &want.iter().map(|anchor| anchor.loss).collect::<Vec<_>>(),
        tolerance::<f32>(),
    );
    let (mut figures, mut lse) = (device.buffer::<f64>(3).unwrap(), device.buffer::<f32>(anchors).unwrap());
    nt_xent::figures(gpu, found.read(), figures.write(), lse.write()).unwrap();
    let (dy, mut dz) = (device.buffer_of(&[1f32]).unwrap(), device.buffer::<f32>(z.len()).unwrap());
    let known = (found.read(), lse.read());
    nt_xent::backward(gpu, &shape, on_z.read(), known, 1.0, dy.read(), dz.write()).unwrap();
    let lse: Vec<f32> = want.iter().map(simclr_kernels::nt_xent::Anchor::lse).collect();
    let mut gradient = vec![0.0; z.len()];
    simclr_kernels::nt_xent::nt_xent_backward(&portable(), &shape, &z, &want, &lse, 1.0, &mut gradient);
    assert_close("gradient", &device.values(dz.read()).unwrap(), &gradient, tolerance::<f32>());
}
