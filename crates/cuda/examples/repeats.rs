//! Tests whether the sums of channels that cuDNN fuses into convolutions have the same bits every time: the layers of
//! ResNet-18 at 32 x 32, in f16 and bf16.
//!
//! `cargo run --release -p simclr-cuda --features cuda --example repeats [-- VIEWS]`, by default with 512 views. A line
//! gives the route that was the fastest when timed by itself (`in two`: separate sums, which repeat), and in how many
//! of a hundred calls the sums differ from those of the first. Calls make their own choice: if two routes take equally
//! long, it may be the other one.

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

    use half::{bf16, f16};
    use simclr_cuda::{ConvolutionMode, ConvolutionPass, Device, Element, Libraries, Result};
    use simclr_kernels::{Conv2dGeometry, Write};

    /// Side of the images, channels in and out, stride.
    const LAYERS: [(usize, usize, usize, usize); 7] = [
        (32, 64, 64, 1),
        (32, 64, 128, 2),
        (16, 128, 128, 1),
        (16, 128, 256, 2),
        (8, 256, 256, 1),
        (8, 256, 512, 2),
        (4, 512, 512, 1),
    ];
    const CALLS: usize = 100;
    const MODE: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: false };

    /// Values of either sign, whose sums depend on the order of addition.
    fn noise<E>(len: usize, narrowed: impl Fn(f32) -> E) -> Vec<E> {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            narrowed((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        };
        (0..len).map(next).collect()
    }

    fn differing<E: Element + bytemuck::Pod>(
        device: &Device,
        g: &Conv2dGeometry,
        x: &[E],
        w: &[E],
    ) -> Result<usize> {
        let (x, w) = (device.buffer_of(&x[..g.input_len()])?, device.buffer_of(&w[..g.weight_len()])?);
        let (mut y, mut sums) =
            (device.buffer::<E>(g.output_len())?, device.buffer::<f64>(2 * g.out_channels)?);
        let mut call = || -> Result<Vec<u64>> {
            device.conv2d_forward_with_sums(g, MODE, x.read(), w.read(), y.write(), sums.write())?;
            Ok(device.values(sums.read())?.iter().map(|sum| sum.to_bits()).collect())
        };
        let first = call()?;
        let mut count = 0;
        for _ in 1..CALLS {
            count += usize::from(call()? != first);
        }
        Ok(count)
    }

    fn layers<E: Element + bytemuck::Pod>(
        device: &Device,
        views: usize,
        narrowed: impl Fn(f32) -> E,
    ) -> Result<()> {
        for (side, from, to, stride) in LAYERS {
            let g = Conv2dGeometry {
                batch: views,
                in_height: side,
                in_width: side,
                in_channels: from,
                out_channels: to,
                kernel_height: 3,
                kernel_width: 3,
                stride,
                padding: 1,
            };
            let (x, w) = (noise(g.input_len(), &narrowed), noise(g.weight_len(), &narrowed));
            let ways =
                device.time_convolution::<E>(&g, MODE, ConvolutionPass::ForwardWithSums, Write::Over)?;
            let serves =
                ways.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds)).map_or("nothing", |way| &way.what);
            let count = differing(device, &g, &x, &w)?;
            println!(
                "{:?} {side:2} x {side:2}, {from:3} to {to:3}, stride {stride}: {count:3} of {CALLS} differ; {serves}",
                E::TYPE
            );
        }
        Ok(())
    }

    pub fn main() -> std::result::Result<(), Box<dyn Error>> {
        let views: usize = std::env::args().nth(1).map_or(Ok(512), |views| views.parse())?;
        let device = Device::open_with(0, &Libraries::find(), None)?;
        println!("{}, {views} views", device.name());
        layers(&device, views, f16::from_f32)?;
        layers(&device, views, bf16::from_f32)?;
        Ok(())
    }
}
