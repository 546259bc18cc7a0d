//! How fast cuBLASLt computes the 1 x 1 convolutions of ResNet-50 as products of matrices, beside cuDNN's convolutions: bf16, all three passes.
//!
//! `cargo run --release -p simclr-cuda --features cuda --example products [-- VIEWS]`, 512 views at 224 x 224 unless said otherwise. Each figure is
//! the mean of a run of calls, after one that chooses the algorithm; choices are not remembered. `times` is how often the network has the layer, and the
//! last line sums over all of them. cuDNN's gradient of weights is in bf16, cuBLASLt's in f32.

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
    use std::time::Instant;

    use half::bf16;
    use simclr_cuda::{
        ConvolutionMode, Device, DeviceBuffer, Epilogue, Libraries, Matrix, ProductMode, Result,
    };
    use simclr_kernels::Conv2dGeometry;
    use simclr_kernels::conv2d::Write;

    /// Side of the images, channels in and out, and how many layers are so.
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
    const MODE: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: true };
    const RUNS: u32 = 10;

    /// Values in (-1, 1): zeros would let the GPU run faster than data do.
    fn noise(len: usize) -> Vec<bf16> {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // A sign, an exponent just below that of 1, and 7 bits.
            bf16::from_bits(((state >> 16) as u16 & 0x80ff) | 0x3e80)
        };
        (0..len).map(next).collect()
    }

    struct Layer<'a> {
        device: &'a Device,
        g: Conv2dGeometry,
        x: DeviceBuffer<bf16>,
        w: DeviceBuffer<bf16>,
        y: DeviceBuffer<bf16>,
        dw: DeviceBuffer<f32>,
    }

    const PASSES: [&str; 3] = ["y", "dx", "dw"];

    impl Layer<'_> {
        fn by_product(&mut self, pass: usize) -> Result<()> {
            let Layer { device, g, x, w, y, dw } = self;
            let (from, to) = (g.in_channels, g.out_channels);
            let (mode, write) = (ProductMode::Exact, Write::Over);
            let weights = |w| Matrix::<bf16>::new(w, from);
            match pass {
                0 => {
                    let (x, w) = (Matrix::new(x.read(), from)?, weights(w.read())?.t());
                    device.product(x, w, Epilogue::None, mode, y.write(), write)
                }
                1 => {
                    let (dy, w) = (Matrix::new(y.read(), to)?, weights(w.read())?);
                    device.product(dy, w, Epilogue::None, mode, x.write(), write)
                }
                _ => {
                    let (dy, x) = (Matrix::new(y.read(), to)?.t(), Matrix::new(x.read(), from)?);
                    device.product(dy, x, Epilogue::None, mode, dw.write(), write)
                }
            }
        }

        fn by_convolution(&mut self, pass: usize) -> Result<()> {
            let Layer { device, g, x, w, y, .. } = self;
            match pass {
                0 => device.conv2d_forward(g, MODE, x.read(), w.read(), y.write()),
                1 => device.conv2d_backward_input(g, MODE, y.read(), w.read(), x.write(), Write::Over),
                _ => device.conv2d_backward_weight(g, MODE, x.read(), y.read(), w.write()),
            }
        }

        /// Seconds of one call, after one that is not counted.
        fn seconds(&mut self, mut call: impl FnMut(&mut Self) -> Result<()>) -> Result<f64> {
            call(self)?;
            self.device.synchronize()?;
            let start = Instant::now();
            for _ in 0..RUNS {
                call(self)?;
            }
            self.device.synchronize()?;
            Ok(start.elapsed().as_secs_f64() / f64::from(RUNS))
        }
    }

    pub fn main() -> std::result::Result<(), Box<dyn Error>> {
        let views: usize = std::env::args().nth(1).map_or(Ok(512), |views| views.parse())?;
        let started = Instant::now();
        let device = Device::open_with(0, &Libraries::find(), None)?;
        println!("{}, {views} views, bf16", device.name());
        println!("layer                times  pass  cuBLASLt ms  TFLOP/s  cuDNN ms  TFLOP/s");
        let most = LAYERS.iter().map(|&(side, from, to, _)| side * side * from.max(to)).max().unwrap_or(0);
        let values = noise(views * most);
        let mut sums = [0.0; 2];
        for (side, from, to, times) in LAYERS {
            let g = Conv2dGeometry {
                batch: views,
                in_height: side,
                in_width: side,
                in_channels: from,
                out_channels: to,
                kernel_height: 1,
                kernel_width: 1,
                stride: 1,
                padding: 0,
            };
            let some = |len: usize| device.buffer_of(&values[..len]);
            let mut layer = Layer {
                x: some(g.input_len())?,
                w: some(g.weight_len())?,
                y: some(g.output_len())?,
                dw: device.buffer(g.weight_len())?,
                device: &device,
                g,
            };
            let flops = 2.0 * (g.output_len() * from) as f64;
            for (pass, name) in PASSES.into_iter().enumerate() {
                // What a pass has written would grow from pass to pass.
                device.copy_to(&values[..g.input_len()], layer.x.write())?;
                device.copy_to(&values[..g.weight_len()], layer.w.write())?;
                device.copy_to(&values[..g.output_len()], layer.y.write())?;
                let found = [
                    layer.seconds(|layer| layer.by_product(pass))?,
                    layer.seconds(|layer| layer.by_convolution(pass))?,
                ];
                sums.iter_mut().zip(found).for_each(|(sum, seconds)| *sum += seconds * times as f64);
                let [a, b] = found.map(|seconds| (seconds * 1e3, flops / seconds / 1e12));
                let shape = format!("{side} x {side}, {from} to {to}");
                println!(
                    "{shape:<20} {times:>5}  {name:<4} {:>12.3} {:>8.0} {:>9.3} {:>8.0}",
                    a.0, a.1, b.0, b.1
                );
            }
        }
        println!("all layers: {:.2} ms by cuBLASLt, {:.2} ms by cuDNN", sums[0] * 1e3, sums[1] * 1e3);
        println!("took {:.1} s", started.elapsed().as_secs_f64());
        Ok(())
    }
}
