//! Convolutions with a fused normalisation, on a GPU where there is one, and on the stand-in elsewhere, compared with a
//! BatchNorm, a ReLU and a convolution one after the other.

#![cfg(feature = "cuda")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use common::{Stored, assert_close, device, geometry, narrowed, noise, tolerance, widened};
use half::{bf16, f16};
use simclr_cuda::{ConvolutionLimits, ConvolutionMode, Device, DeviceBuffer, Result};
use simclr_kernels::conv2d::portable;
use simclr_kernels::{Conv2dGeometry, Threads};

const FREE: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: false };

/// Operands on the device, and as f32.
struct Case<E> {
    g: Conv2dGeometry,
    activation: Vec<f32>,
    w: Vec<f32>,
    on_x: DeviceBuffer<E>,
    on_w: DeviceBuffer<f32>,
    coefficients: DeviceBuffer<f32>,
}

impl<E: Stored> Case<E> {
    fn new(device: &Device, g: Conv2dGeometry) -> Case<E> {
        let channels = g.in_channels;
        let x = narrowed::<E>(&noise(g.input_len(), 1));
        let w = widened(&narrowed::<E>(&noise(g.weight_len(), 2)));
        // Scales of either sign, and shifts that would turn padding into positive values; mean and deviation are not
        // read.
        let scale: Vec<f32> = noise(channels, 5).iter().map(|v| 4.0 * v).collect();
        let shift: Vec<f32> = noise(channels, 6).iter().map(|v| v + 0.25).collect();
        let unread = vec![f32::NAN; 2 * channels];
        let coefficients = device.buffer_of(&[&scale[..], &shift, &unread].concat()).unwrap();
        let normalised = |(i, x): (usize, f32)| (x * scale[i % channels] + shift[i % channels]).max(0.0);
        let activation = widened(&x).into_iter().enumerate().map(normalised).collect();
        let (on_x, on_w) = (device.buffer_of(&x).unwrap(), device.buffer_of(&w).unwrap());
        Case { g, activation, w, on_x, on_w, coefficients }
    }

    fn pays(&self, device: &Device, mode: ConvolutionMode) -> Result<bool> {
        let mut y = device.buffer::<E>(self.g.output_len())?;
        let (x, coefficients, w) = (self.on_x.read(), self.coefficients.read(), self.on_w.read());
        device.norm_conv2d_pays(&self.g, mode, x, coefficients, w, y.write())
    }
}

fn on_stand_in(device: &Device) -> bool {
    device.name().contains("stand-in")
}

#[test]
fn both_passes_are_those_of_the_definition() {
    let Some((device, _alone)) = device() else { return };
    for g in [
        geometry(2, 7, 16, 24, 3, 1),
        geometry(3, 9, 8, 8, 3, 2),
        geometry(2, 5, 40, 16, 1, 1),
        geometry(3, 6, 16, 32, 1, 2),
        geometry(5, 1, 32, 40, 3, 1),
    ] {
        let case = Case::<f16>::new(&device, g);
        let dy = narrowed::<f16>(&noise(g.output_len(), 3));
        let (on_dy, w) =
            (device.buffer_of(&dy).unwrap(), device.buffer_of(&narrowed::<f16>(&case.w)).unwrap());
        let threads = Threads::new(2).unwrap();
        let (mut want, mut want_dw) = (vec![0.0; g.output_len()], vec![0.0; g.weight_len()]);
        portable::conv2d_forward(&threads, &g, &case.activation, &case.w, &mut want);
        portable::conv2d_backward_weight(&threads, &g, &case.activation, &widened(&dy), &mut want_dw);
        // The second time, the route is known.
        for _ in 0..2 {
            let mut y = device.buffer::<f16>(g.output_len()).unwrap();
            let mut sums = device.buffer_of(&vec![f64::NAN; 2 * g.out_channels]).unwrap();
            let mut dw = device.buffer::<f32>(g.weight_len()).unwrap();
            let (x, coefficients) = (case.on_x.read(), case.coefficients.read());
            device
                .norm_conv2d_forward(&g, FREE, x, coefficients, w.read(), y.write(), sums.write())
                .unwrap_or_else(|error| panic!("{g:?}: {error}"));
            device
                .norm_conv2d_backward_weight(&g, FREE, x, coefficients, on_dy.read(), dw.write())
                .unwrap_or_else(|error| panic!("{g:?}: {error}"));
            let y = widened(&device.values(y.read()).unwrap());
            assert_close(&format!("y of {g:?}"), &y, &want, tolerance::<f16>());
            assert_close(
                &format!("dw of {g:?}"),
                &device.values(dw.read()).unwrap(),
                &want_dw,
                tolerance::<f16>(),
            );
            let mut want = vec![0.0; 2 * g.out_channels];
            for (i, value) in y.iter().enumerate() {
                want[i % g.out_channels] += value;
                want[g.out_channels + i % g.out_channels] += value * value;
            }
            let sums: Vec<f32> = device.values(sums.read()).unwrap().into_iter().map(|v| v as f32).collect();
            assert_close(&format!("sums of {g:?}"), &sums, &want, tolerance::<f16>());
        }
    }
}

#[test]
fn nothing_but_f16_that_need_not_repeat_in_one_piece_is_normalised() {
    let Some((device, _alone)) = device() else { return };
    let g = geometry(6, 5, 16, 16, 3, 1);
    let searches = device.searched().count;
    let case = Case::<f16>::new(&device, g);
    let deterministic = ConvolutionMode { deterministic: true, ..FREE };
    assert!(!case.pays(&device, deterministic).unwrap());
    assert!(!Case::<bf16>::new(&device, g).pays(&device, FREE).unwrap());
    assert!(!Case::<f32>::new(&device, g).pays(&device, FREE).unwrap());
    for odd in [geometry(6, 5, 12, 16, 3, 1), geometry(6, 5, 16, 20, 3, 1)] {
        assert!(!Case::<f16>::new(&device, odd).pays(&device, FREE).unwrap(), "{odd:?}");
    }
    let limits = ConvolutionLimits { values: 2 * 5 * 6 * 16, ..ConvolutionLimits::default() };
    device.set_convolution_limits(limits).unwrap();
    let of_pieces = case.pays(&device, FREE);
    device.set_convolution_limits(ConvolutionLimits::default()).unwrap();
    assert!(!of_pieces.unwrap());
    assert_eq!(device.searched().count, searches, "nothing was searched for");

    // Nor can it be computed then.
    let mut dw = device.buffer::<f32>(g.weight_len()).unwrap();
    let dy = device.buffer_of(&narrowed::<f16>(&noise(g.output_len(), 3))).unwrap();
    let (x, coefficients) = (case.on_x.read(), case.coefficients.read());
    let error = device
        .norm_conv2d_backward_weight(&g, deterministic, x, coefficients, dy.read(), dw.write())
        .unwrap_err();
    assert!(error.to_string().contains("need not repeat"), "{error}");
    let few = case.coefficients.read().part(0, 16).unwrap();
    let error = device.norm_conv2d_backward_weight(&g, FREE, x, few, dy.read(), dw.write()).unwrap_err();
    assert!(error.to_string().contains("coefficients has 16 values, 64 are needed"), "{error}");
}

#[test]
fn whether_it_pays_is_timed_once_and_remembered() {
    let Some((device, _alone)) = device() else { return };
    let stand_in = on_stand_in(&device);
    drop(device);
    let libraries = simclr_stand_in::libraries().unwrap_or_else(simclr_cuda::Libraries::find);
    let folder = tempfile::tempdir().unwrap();
    let open = || Device::open_with(0, &libraries, Some(folder.path())).unwrap();
    // On the stand-in, six images are slow except with the fused engine, and products are fast.
    let (windows, pixels) = (geometry(6, 5, 16, 16, 3, 1), geometry(6, 5, 16, 16, 1, 1));
    let device = open();
    let [first, of_pixels] =
        [windows, pixels].map(|g| Case::<f16>::new(&device, g).pays(&device, FREE).unwrap());
    assert!(!stand_in || (first && !of_pixels), "{first} {of_pixels}");
    let searches = device.searched().count;
    assert!(searches > 0);
    assert_eq!(Case::<f16>::new(&device, windows).pays(&device, FREE).unwrap(), first);
    assert_eq!(device.searched().count, searches);
    drop(device);

    let device = open();
    assert_eq!(Case::<f16>::new(&device, windows).pays(&device, FREE).unwrap(), first);
    assert_eq!(Case::<f16>::new(&device, pixels).pays(&device, FREE).unwrap(), of_pixels);
    assert_eq!(device.searched().count, 0, "both answers are on disk");
    drop(device);

    let files =
        || fs::read_dir(folder.path().join("convolutions")).unwrap().map(|entry| entry.unwrap().path());
    files().for_each(|path| fs::write(path, "damaged").unwrap());
    let device = open();
    Case::<f16>::new(&device, windows).pays(&device, FREE).unwrap();
    assert!(device.searched().count > 0, "what is damaged is found out again");
    assert!(files().any(|path| fs::read(path).unwrap() != b"damaged"));
}

#[test]
fn an_answer_that_another_process_stored_meanwhile_wins() {
    let Some((device, _alone)) = device() else { return };
    if !on_stand_in(&device) {
        return;
    }
    drop(device);
    let libraries = simclr_stand_in::libraries().expect("it was there");
    let folder = tempfile::tempdir().unwrap();
    let open = || Device::open_with(0, &libraries, Some(folder.path())).unwrap();
    let [yes, no] = [(3, b"at once".as_slice()), (1, b"apart")].map(|(kernel, answer)| {
        let device = open();
        Case::<f16>::new(&device, geometry(6, 5, 16, 16, kernel, 1)).pays(&device, FREE).unwrap();
        let mut files = fs::read_dir(folder.path().join("convolutions")).unwrap();
        files.find_map(|entry| {
            let path = entry.unwrap().path();
            fs::read(&path).unwrap().ends_with(answer).then_some(path)
        })
    });
    let (yes, no) = (yes.unwrap(), fs::read(no.unwrap()).unwrap());
    // Without the routes that it was found with, the answer is of no use.
    for entry in fs::read_dir(folder.path().join("convolutions")).unwrap() {
        let path = entry.unwrap().path();
        if path != yes {
            fs::remove_file(path).unwrap();
        }
    }
    let ready = folder.path().join("ready");
    fs::write(&ready, &no).unwrap();
    let device = open();
    let case = Case::<f16>::new(&device, geometry(6, 5, 16, 16, 3, 1));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The search begins as the useless answer goes, and takes most of a second.
            let wait = || std::thread::sleep(std::time::Duration::from_millis(20));
            while yes.exists() && !ended.load(Relaxed) {
                wait();
            }
            wait();
            fs::rename(&ready, &yes).unwrap();
        });
        let pays = case.pays(&device, FREE);
        ended.store(true, Relaxed);
        assert!(!pays.unwrap());
    });
    assert_eq!(fs::read(&yes).unwrap(), no);
}

#[test]
fn where_there_is_no_engine_it_does_not_pay() {
    let Some((device, _alone)) = device() else { return };
    // The stand-in has no fused engine for such a window.
    let g = geometry(2, 7, 16, 16, 5, 1);
    let case = Case::<f16>::new(&device, g);
    let pays = case.pays(&device, FREE).unwrap();
    assert!(!pays || !on_stand_in(&device));
    let searches = device.searched().count;
    assert_eq!(case.pays(&device, FREE).unwrap(), pays);
    assert_eq!(device.searched().count, searches);
    // The device still works.
    let mut y = device.buffer::<f16>(g.output_len()).unwrap();
    let w = device.buffer_of(&narrowed::<f16>(&case.w)).unwrap();
    device.conv2d_forward(&g, FREE, case.on_x.read(), w.read(), y.write()).unwrap();
}

#[test]
fn it_is_captured_once_it_is_known() {
    let Some((device, _alone)) = device() else { return };
    let g = geometry(2, 7, 16, 16, 3, 2);
    let case = Case::<f16>::new(&device, g);
    let w = device.buffer_of(&narrowed::<f16>(&case.w)).unwrap();
    let mut y = device.zeros::<f16>(g.output_len()).unwrap();
    let mut sums = device.zeros::<f64>(2 * g.out_channels).unwrap();
    let mut dw = device.zeros::<f32>(g.weight_len()).unwrap();
    let dy = device.buffer_of(&narrowed::<f16>(&noise(g.output_len(), 3))).unwrap();
    let (x, coefficients) = (case.on_x.read(), case.coefficients.read());
    let graph = device
        .capture(|| {
            device.norm_conv2d_forward(&g, FREE, x, coefficients, w.read(), y.write(), sums.write())?;
            device.norm_conv2d_backward_weight(&g, FREE, x, coefficients, dy.read(), dw.write())
        })
        .unwrap();
    let values = |device: &Device, y: &DeviceBuffer<f16>, dw: &DeviceBuffer<f32>| {
        (widened(&device.values(y.read()).unwrap()), device.values(dw.read()).unwrap())
    };
    let want = values(&device, &y, &dw);
    for _ in 0..2 {
        device.clear(y.write()).unwrap();
        device.clear(dw.write()).unwrap();
        graph.replay().unwrap();
        let got = values(&device, &y, &dw);
        assert_close("y", &got.0, &want.0, tolerance::<f16>());
        assert_close("dw", &got.1, &want.1, tolerance::<f16>());
    }
}
