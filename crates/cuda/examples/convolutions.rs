//! Measures cuDNN's convolutions of two encoders, each pass by itself: the engine that is chosen, and the algorithm of
//! the older interface.
//!
//!     cargo run --release -p simclr-cuda --features cuda --example convolutions -- \
//!         [--f32|--tf32|--f16] [--any] [--add] [--all] [WORD ...]
//!
//! The forward pass is measured without and with the sums that a BatchNorm needs. Only lines that contain every WORD
//! are measured, such as `resnet18 input`. `--any` also allows algorithms that are not deterministic, `--add` adds the
//! gradient of an input to old values, `--all` lists every way that was timed.

#[cfg(feature = "cuda")]
fn main() -> Result<(), simclr_cuda::CudaError> {
    gpu::main()
}

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("built without the feature `cuda`");
}

#[cfg(feature = "cuda")]
mod gpu {
    use half::{bf16, f16};
    use simclr_cuda::{
        ConvolutionMode, ConvolutionPass, ConvolutionTiming, CudaError, Device, Libraries, Library,
    };
    use simclr_kernels::{Conv2dGeometry, Write};

    /// Side of the input, channels in and out, side of the kernel, stride, and the number of such layers in the
    /// encoder.
    type Layer = (usize, usize, usize, usize, usize, usize);

    const RESNET18_AT_32: &[Layer] = &[
        (32, 3, 64, 3, 1, 1),
        (32, 64, 64, 3, 1, 4),
        (32, 64, 128, 3, 2, 1),
        (32, 64, 128, 1, 2, 1),
        (16, 128, 128, 3, 1, 3),
        (16, 128, 256, 3, 2, 1),
        (16, 128, 256, 1, 2, 1),
        (8, 256, 256, 3, 1, 3),
        (8, 256, 512, 3, 2, 1),
        (8, 256, 512, 1, 2, 1),
        (4, 512, 512, 3, 1, 3),
        // The stem if images had more channels, for comparison.
        (32, 4, 64, 3, 1, 0),
        (32, 8, 64, 3, 1, 0),
    ];
    const RESNET50_AT_224: &[Layer] = &[
        (224, 3, 64, 7, 2, 1),
        (56, 64, 64, 1, 1, 1),
        (56, 64, 64, 3, 1, 3),
        (56, 64, 256, 1, 1, 4),
        (56, 256, 64, 1, 1, 2),
        (56, 256, 128, 1, 1, 1),
        (56, 128, 128, 3, 2, 1),
        (28, 128, 512, 1, 1, 4),
        (56, 256, 512, 1, 2, 1),
        (28, 512, 128, 1, 1, 3),
        (28, 128, 128, 3, 1, 3),
        (28, 512, 256, 1, 1, 1),
        (28, 256, 256, 3, 2, 1),
        (14, 256, 1024, 1, 1, 6),
        (28, 512, 1024, 1, 2, 1),
        (14, 1024, 256, 1, 1, 5),
        (14, 256, 256, 3, 1, 5),
        (14, 1024, 512, 1, 1, 1),
        (14, 512, 512, 3, 2, 1),
        (7, 512, 2048, 1, 1, 3),
        (14, 1024, 2048, 1, 2, 1),
        (7, 2048, 512, 1, 1, 2),
        (7, 512, 512, 3, 1, 2),
        (224, 4, 64, 7, 2, 0),
        (224, 8, 64, 7, 2, 0),
    ];

    pub fn main() -> Result<(), CudaError> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let has = |option: &str| words.iter().any(|word| word == option);
        let device = Device::open(0)?;
        let cudnn = Libraries::find().version_of(Library::Cudnn)?;
        let mode = ConvolutionMode { tf32: has("--tf32"), deterministic: !has("--any") };
        let (element, time): (_, Time) = if has("--f32") || has("--tf32") {
            ("f32", Device::time_convolution::<f32>)
        } else if has("--f16") {
            ("f16", Device::time_convolution::<f16>)
        } else {
            ("bf16", Device::time_convolution::<bf16>)
        };
        let write = if has("--add") { Write::Add } else { Write::Over };
        println!("{}, cuDNN {cudnn}, {element}, {mode:?}", device.name());
        println!("{:<46} {:>8} {:>8}   {:>8}  chosen (of)", "milliseconds, TFLOP/s", "graph", "", "older");
        let words: Vec<_> = words.iter().filter(|word| !word.starts_with("--")).collect();
        for (encoder, views, layers) in
            [("resnet18", 4096, RESNET18_AT_32), ("resnet50", 512, RESNET50_AT_224)]
        {
            let mut total = [0.0; 2];
            for &(side, channels, out, kernel, stride, often) in layers {
                let g = Conv2dGeometry {
                    batch: views,
                    in_height: side,
                    in_width: side,
                    in_channels: channels,
                    out_channels: out,
                    kernel_height: kernel,
                    kernel_width: kernel,
                    stride,
                    padding: kernel / 2,
                };
                for (name, pass) in [
                    ("forward", ConvolutionPass::Forward),
                    ("sums", ConvolutionPass::ForwardWithSums),
                    ("input", ConvolutionPass::BackwardInput),
                    ("weight", ConvolutionPass::BackwardWeight),
                ] {
                    // The gradient of an image is never needed.
                    if channels <= 8 && pass == ConvolutionPass::BackwardInput {
                        continue;
                    }
                    let line = format!(
                        "{encoder} {name} {kernel}x{kernel}/{stride} {channels}>{out} at {side} x{often}"
                    );
                    if !words.iter().all(|word| line.contains(word.as_str())) {
                        continue;
                    }
                    match time(&device, &g, mode, pass, write) {
                        Ok(timed) => {
                            tell(&line, &g, &timed, often, &mut total);
                            for way in timed.iter().filter(|_| has("--all")) {
                                println!("{:>55.3} ms  {}", way.seconds * 1e3, way.what);
                            }
                        }
                        Err(error) => println!("{line:<46} {error}"),
                    }
                }
            }
            println!(
                "{encoder}: {:.2} ms in all, {:.2} ms by the older interface without sums",
                total[0], total[1]
            );
        }
        Ok(())
    }

    type Time = fn(
        &Device,
        &Conv2dGeometry,
        ConvolutionMode,
        ConvolutionPass,
        Write,
    ) -> Result<Vec<ConvolutionTiming>, CudaError>;

    fn tell(line: &str, g: &Conv2dGeometry, timed: &[ConvolutionTiming], often: usize, total: &mut [f64; 2]) {
        let Some(chosen) = timed.first() else { return };
        let older = timed.last().filter(|way| way.what.starts_with("algorithm"));
        let operations = 2.0 * (g.output_len() * g.in_channels * g.kernel_height * g.kernel_width) as f64;
        let rate = operations / chosen.seconds / 1e12;
        let of_older = older.map_or("-".to_owned(), |way| format!("{:.3}", way.seconds * 1e3));
        println!(
            "{line:<46} {:>8.3} {rate:>8.1}   {of_older:>8}  {} ({})",
            chosen.seconds * 1e3,
            chosen.what,
            timed.len() - usize::from(older.is_some())
        );
        // The forward pass counts once: with its sums, except for the older interface.
        if !line.contains(" forward ") {
            total[0] += chosen.seconds * 1e3 * often as f64;
        }
        if !line.contains(" sums ") {
            total[1] += older.unwrap_or(chosen).seconds * 1e3 * often as f64;
        }
    }
}
