//! 8-bit pixels on the CPU and on a GPU, or on a stand-in for one.

mod common;

use simclr_engine::{DType, Device, EngineError, Pixels, Tensor};

const SHAPE: [usize; 4] = [2, 5, 7, 3];

fn batch(number: usize) -> Vec<u8> {
    (0..SHAPE.iter().product()).map(|i: usize| (i * 37 + number * 101) as u8).collect()
}

fn devices() -> Vec<Device> {
    #[cfg(feature = "cuda")]
    let gpu = common::gpu().map(|(gpu, _)| gpu);
    #[cfg(not(feature = "cuda"))]
    let gpu = None;
    gpu.into_iter().chain([common::device()]).collect()
}

#[test]
fn what_is_started_sees_the_pixels_that_were_written_before() {
    for device in devices() {
        let mut pixels = Pixels::new(&device, SHAPE).unwrap();
        // More batches than there are channels to the device, without waiting for any of them.
        let made: Vec<Tensor> = (0..5)
            .map(|number| {
                pixels.write(&batch(number)).unwrap();
                Tensor::from_pixels(&pixels, DType::F32).unwrap()
            })
            .collect();
        for (number, tensor) in made.iter().enumerate() {
            let want = Tensor::from_bytes(&common::device(), &SHAPE, &batch(number), DType::F32).unwrap();
            assert_eq!(tensor.shape(), SHAPE);
            assert_eq!(tensor.to_vec().unwrap(), want.to_vec().unwrap(), "{device}, batch {number}");
        }
        assert_eq!(pixels.read().unwrap(), batch(4));
        let half = Tensor::from_pixels(&pixels, DType::Bf16).unwrap();
        let want = Tensor::from_bytes(&common::device(), &SHAPE, &batch(4), DType::Bf16).unwrap();
        assert_eq!(half.to_vec().unwrap(), want.to_vec().unwrap());
    }
}

#[test]
fn wrong_sizes_are_refused() {
    for device in devices() {
        let refused = |result| matches!(result, Err(EngineError::Shape { .. }));
        assert!(refused(Pixels::new(&device, [1, 2, 2, 4]).map(drop)));
        let mut pixels = Pixels::new(&device, SHAPE).unwrap();
        assert!(refused(pixels.write(&[0; 4])));
    }
}

#[test]
fn on_a_dry_device_they_only_count() {
    let device = Device::dry().unwrap();
    let mut pixels = Pixels::new(&device, [8, 512, 512, 3]).unwrap();
    pixels.write(&vec![7; pixels.len()]).unwrap();
    Tensor::from_pixels(&pixels, DType::F32).unwrap();
    assert_eq!(device.memory().peak, 5 * pixels.len());
}
