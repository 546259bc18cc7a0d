//! Measures the 1 x 1 convolutions of ResNet-50 as matrix products by cuBLASLt, and by the engines of cuDNN: bf16, all
//! three passes.
//!
//! `cargo run --release -p simclr-cuda --features cuda --example products [-- [--all] [VIEWS]]`, by default with 512
//! views of 224 x 224. A time of cuBLASLt is the mean of a run of calls, after one that chooses the algorithm; choices
//! are not remembered. Weight gradients are in f32. `times` is the number of such layers in the network; the last line
//! sums over all of them. cuDNN's engines take long to build: those that are not measured after 15 s are left out,
//! unless `--all` is given.

#[cfg(feature = "cuda")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    measured::main()
}

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("built without the feature `cuda`");
}

#[cfg(feature = "cuda")]
mod measured {
    use std::error::Error;
    use std::time::{Duration, Instant};

    use half::bf16;
    use simclr_cuda::{
        ConvolutionMode, ConvolutionPass, Device, Epilogue, Libraries, Matrix, ProductMode, Result,
    };
    use simclr_kernels::{Conv2dGeometry, Write};

    /// Side of the images, channels in and out, and the number of such layers.
    const LAYERS: [(usize, usize, usize, usize); 12] = [
        (56, 64, 64, 1),
        (56, 64, 256, 4),
        (56, 256, 64, 2),
        (56, 256, 128, 1),
        (28, 128, 512, 4),
        (28, 512, 128, 3),
        (28, 512, 256, 1),
        (14, 256, 1024, 6),
        (14, 1024, 256, 5),
        (14, 1024, 512, 1),
        (7, 512, 2048, 3),
        (7, 2048, 512, 2),
    ];
    const PASSES: [(&str, ConvolutionPass); 3] = [
        ("y", ConvolutionPass::Forward),
        ("dx", ConvolutionPass::BackwardInput),
        ("dw", ConvolutionPass::BackwardWeight),
    ];
    const MODE: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: true };
    const RUNS: u32 = 10;
    const PATIENCE: Duration = Duration::from_secs(15);

    fn geometry(views: usize, side: usize, from: usize, to: usize) -> Conv2dGeometry {
        Conv2dGeometry {
            batch: views,
            in_height: side,
            in_width: side,
            in_channels: from,
            out_channels: to,
            kernel_height: 1,
            kernel_width: 1,
            stride: 1,
            padding: 0,
        }
    }

    /// Values of either sign. Not zeros: a GPU multiplies them faster than real data.
    fn noise(len: usize) -> Vec<bf16> {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // A random sign and 7 bits of fraction, with the exponent of 1/4.
            bf16::from_bits(((state >> 16) as u16 & 0x807f) | 0x3e80)
        };
        (0..len).map(next).collect()
    }

    /// Seconds of each pass as a matrix product.
    fn products(device: &Device, g: &Conv2dGeometry, values: &[bf16]) -> Result<[f64; 3]> {
        let (from, to) = (g.in_channels, g.out_channels);
        let some = |len: usize| device.buffer_of(&values[..len]);
        let (mut x, w, mut y) = (some(g.input_len())?, some(g.weight_len())?, some(g.output_len())?);
        let mut dw = device.buffer::<f32>(g.weight_len())?;
        let (mode, write) = (ProductMode::Exact, Write::Over);
        let forward = seconds(device, || {
            let (x, w) = (Matrix::new(x.read(), from)?, Matrix::new(w.read(), from)?.t());
            device.product(x, w, Epilogue::None, mode, y.write(), write)
        })?;
        let input = seconds(device, || {
            let (dy, w) = (Matrix::new(y.read(), to)?, Matrix::new(w.read(), from)?);
            device.product(dy, w, Epilogue::None, mode, x.write(), write)
        })?;
        let weight = seconds(device, || {
            let (dy, x) = (Matrix::new(y.read(), to)?.t(), Matrix::new(x.read(), from)?);
            device.product(dy, x, Epilogue::None, mode, dw.write(), write)
        })?;
        Ok([forward, input, weight])
    }

    /// Seconds per call, after one warm-up call.
    fn seconds(device: &Device, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
        call()?;
        device.synchronize()?;
        let start = Instant::now();
        for _ in 0..RUNS {
            call()?;
        }
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / f64::from(RUNS))
    }

    /// Seconds of the fastest engine of cuDNN, which may need a kernel of ours after it.
    fn engine(device: &Device, g: &Conv2dGeometry, pass: ConvolutionPass) -> Option<f64> {
        let timed = device.time_convolution::<bf16>(g, MODE, pass, Write::Over);
        let timed = timed.inspect_err(|error| eprintln!("{error}")).ok()?;
        timed.iter().filter(|way| way.what.starts_with("engine")).map(|way| way.seconds).reduce(f64::min)
    }

    pub fn main() -> std::result::Result<(), Box<dyn Error>> {
        let mut words: Vec<String> = std::env::args().skip(1).collect();
        let all = words.iter().any(|word| word == "--all");
        words.retain(|word| word != "--all");
        let views: usize = words.first().map_or(Ok(512), |views| views.parse())?;
        let started = Instant::now();
        let device = Device::open_with(0, &Libraries::find(), None)?;
        let most = |&(side, from, to, _): &(usize, usize, usize, usize)| {
            (views * side * side * from.max(to)).max(from * to)
        };
        let values = noise(LAYERS.iter().map(most).max().unwrap_or(0));
        let mut sum = 0.0;
        let mut measured = Vec::new();
        for (side, from, to, times) in LAYERS {
            let g = geometry(views, side, from, to);
            let found = products(&device, &g, &values)?;
            sum += found.iter().sum::<f64>() * times as f64;
            measured.push((g, times, found));
        }
        drop(values);
        println!(
            "{}, {views} views, bf16; products took {:.1} s",
            device.name(),
            started.elapsed().as_secs_f64()
        );
        println!("layer                times  pass  cuBLASLt ms  TFLOP/s  cuDNN ms  TFLOP/s");
        for (g, times, found) in measured {
            let flops = 2.0 * (g.output_len() * g.in_channels) as f64;
            let shape = format!("{} x {}, {} to {}", g.in_height, g.in_width, g.in_channels, g.out_channels);
            for ((name, pass), seconds) in PASSES.into_iter().zip(found) {
                let told = |seconds: f64| (seconds * 1e3, flops / seconds / 1e12);
                let (ms, rate) = told(seconds);
                print!("{shape:<20} {times:>5}  {name:<4} {ms:>12.3} {rate:>8.0}");
                let patient = all || started.elapsed() < PATIENCE;
                match patient.then(|| engine(&device, &g, pass)).flatten().map(told) {
                    Some((ms, rate)) => println!(" {ms:>9.3} {rate:>8.0}"),
                    None => println!(" {:>9} {:>8}", "-", "-"),
                }
            }
        }
        println!(
            "all layers and passes by cuBLASLt: {:.2} ms; took {:.1} s",
            sum * 1e3,
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}
