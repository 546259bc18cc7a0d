//! Compares the bandwidth of memory-bound kernels with that of a plain copy, on this machine's GPU:
//! `cargo run --release --features cuda --example bandwidth`.
//!
//! For each kernel, in bf16: milliseconds per launch, the bandwidth for the bytes that it must at least read and write,
//! and its share of a copy's bandwidth. It may exceed that of a copy if data stay in the caches between two launches.
//! Takes a few seconds.

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("this build has no CUDA: add --features cuda");
}

#[cfg(feature = "cuda")]
fn main() -> simclr_cuda::Result<()> {
    measure::all()
}

#[cfg(feature = "cuda")]
mod measure {
    use std::time::Instant;

    use half::bf16;
    use simclr_cuda::ops::batch_norm::{self, Gate};
    use simclr_cuda::ops::stem::{self, Packing};
    use simclr_cuda::ops::{elementwise, first_layer, norm_pair, pooling, sums};
    use simclr_cuda::{ConvolutionMode, Device, DeviceBuffer, Result};
    use simclr_kernels::{Conv2dGeometry, PoolGeometry};

    /// Launches between two waits, and repetitions, of which the fastest counts.
    const LAUNCHES: usize = 10;
    const REPEATS: usize = 2;

    /// Views, side in pixels, and channels of BatchNorm's inputs in ResNet-18 on 4,096 views of 32 x 32, and in
    /// ResNet-50 on 512 views of 224 x 224.
    const SHAPES: [(&str, usize, usize, usize); 10] = [
        ("ResNet-18", 4096, 32, 64),
        ("ResNet-18", 4096, 16, 128),
        ("ResNet-18", 4096, 8, 256),
        ("ResNet-18", 4096, 4, 512),
        ("ResNet-50", 512, 112, 64),
        ("ResNet-50", 512, 56, 64),
        ("ResNet-50", 512, 56, 256),
        ("ResNet-50", 512, 28, 512),
        ("ResNet-50", 512, 14, 1024),
        ("ResNet-50", 512, 7, 2048),
    ];

    pub fn all() -> Result<()> {
        let gpu = Device::open(0)?;
        let bench = Bench { gpu: &gpu, copy: gpu.peak(8192)?.bytes };
        println!("{}: a copy moves {:.0} GB/s", gpu.name(), bench.copy / 1e9);
        for (net, views, side, channels) in SHAPES {
            println!("{net}, {views} x {side} x {side} x {channels}");
            bench.batch_norm(views * side * side, channels)?;
        }
        println!("pooling and single passes");
        bench.max_pool(512, 112, 64)?;
        bench.global_avg_pool(512, 49, 2048)?;
        bench.global_avg_pool(4096, 16, 512)?;
        bench.passes(4096 * 32 * 32 * 3)?;
        bench.passes(512 * 224 * 224 * 3)?;
        println!("first convolutions, packed, as they are, and on tensor cores");
        bench.stem(stem_geometry(4096, 32, 3, 1, 1))?;
        bench.stem(stem_geometry(512, 224, 7, 2, 3))
    }

    fn stem_geometry(
        batch: usize,
        size: usize,
        side: usize,
        stride: usize,
        padding: usize,
    ) -> Conv2dGeometry {
        Conv2dGeometry {
            batch,
            in_height: size,
            in_width: size,
            in_channels: 3,
            out_channels: 64,
            kernel_height: side,
            kernel_width: side,
            stride,
            padding,
        }
    }

    struct Bench<'a> {
        gpu: &'a Device,
        /// Bytes per second of a copy.
        copy: f64,
    }

    impl Bench<'_> {
        /// Seconds of one launch.
        fn seconds(&self, mut launch: impl FnMut() -> Result<()>) -> Result<f64> {
            launch()?;
            let mut best = f64::INFINITY;
            for _ in 0..REPEATS {
                self.gpu.synchronize()?;
                let start = Instant::now();
                for _ in 0..LAUNCHES {
                    launch()?;
                }
                self.gpu.synchronize()?;
                best = best.min(start.elapsed().as_secs_f64() / LAUNCHES as f64);
            }
            Ok(best)
        }

        fn time(&self, name: &str, bytes: usize, launch: impl FnMut() -> Result<()>) -> Result<()> {
            let seconds = self.seconds(launch)?;
            let rate = bytes as f64 / seconds;
            let share = 100.0 * rate / self.copy;
            println!("  {name:<34} {:>8.4} ms {:>6.0} GB/s {share:>5.0}%", 1e3 * seconds, rate / 1e9);
            Ok(())
        }

        /// Values in [0, 1], half of them above 1/2. Not zeros: a GPU processes them faster than real data.
        fn noise(&self, len: usize) -> Result<DeviceBuffer<bf16>> {
            let mut state = len as u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let pattern: Vec<u8> = (0..len.min((1 << 20) + 7)).map(|_| next()).collect();
            let mut bytes = pattern.repeat(len.div_ceil(pattern.len()));
            bytes.truncate(len);
            let bytes = self.gpu.buffer_of(&bytes)?;
            let mut buffer = self.gpu.buffer::<bf16>(len)?;
            elementwise::unit_from_bytes(self.gpu, bytes.read(), buffer.write())?;
            Ok(buffer)
        }

        fn same(&self, from: &DeviceBuffer<bf16>) -> Result<DeviceBuffer<bf16>> {
            let mut buffer = self.gpu.buffer::<bf16>(from.len())?;
            self.gpu.copy(from.read(), buffer.write())?;
            Ok(buffer)
        }

        fn batch_norm(&self, rows: usize, channels: usize) -> Result<()> {
            let (gpu, len) = (self.gpu, rows * channels);
            let tensor = 2 * len;
            let mut x = self.noise(len)?;
            let [mut dy, residual] = [self.same(&x)?, self.same(&x)?];
            let mut y = gpu.buffer::<bf16>(len)?;
            let mut mask = gpu.buffer::<u8>(batch_norm::mask_len::<bf16>(len, channels))?;
            // [scale, shift, mean, 1 / deviation], so that half of the gates are open, and [a, b, c], so that dx
            // stays finite.
            let each = |values: &[f32]| -> Vec<f32> {
                values.iter().flat_map(|value| std::iter::repeat_n(*value, channels)).collect()
            };
            let coefficients = gpu.buffer_of(&each(&[1.0, -0.5, 0.5, 1.0]))?;
            let abc = gpu.buffer_of(&each(&[0.5, 0.5, 0.0]))?;
            let (coefficients, abc) = (coefficients.read(), abc.read());
            let mut totals = gpu.buffer::<f64>(2 * channels)?;
            self.time("channel_sums", tensor, || {
                sums::channel_sums(gpu, x.read(), channels, totals.write())
            })?;
            self.time("forward, ReLU", 2 * tensor, || {
                batch_norm::forward(gpu, x.read(), coefficients, None, true, y.write(), None)
            })?;
            for masked in [false, true] {
                let name = format!("forward, residual, ReLU{}", if masked { ", mask" } else { "" });
                let bytes = 3 * tensor + if masked { mask.len() } else { 0 };
                self.time(&name, bytes, || {
                    let (residual, mask) = (Some(residual.read()), masked.then(|| mask.write()));
                    batch_norm::forward(gpu, x.read(), coefficients, residual, true, y.write(), mask)
                })?;
            }
            drop(residual);
            // Names, gates, and the bytes that are read for each gate.
            let gates = [
                ("open", Gate::Open, 0),
                ("affine", Gate::Affine, 0),
                ("output", Gate::Output(y.read()), tensor),
                ("mask", Gate::Mask(mask.read()), mask.len()),
            ];
            for (name, gate, told) in gates {
                for keep in [false, true] {
                    // With an open gate, g is dy, and nothing is kept. Affine gates occur only without a residual,
                    // which keeps nothing either.
                    if keep && told == 0 {
                        continue;
                    }
                    let what = format!("backward sums, {name}{}", if keep { ", keeps" } else { "" });
                    self.time(&what, (2 + usize::from(keep)) * tensor + told, || {
                        let (dy, totals) = (dy.write(), totals.write());
                        batch_norm::backward_sums(gpu, dy, gate, x.read(), coefficients, keep, totals)
                    })?;
                }
            }
            for (name, gate, told) in gates {
                self.time(&format!("backward input, {name}"), 3 * tensor + told, || {
                    batch_norm::backward_input(gpu, dy.read(), gate, x.write(), coefficients, abc)
                })?;
            }
            let mut other = self.same(&x)?;
            self.time("a pair, forward", 3 * tensor + mask.len(), || {
                let (xs, to) = ([x.read(), other.read()], mask.write());
                norm_pair::forward(gpu, xs, [coefficients; 2], y.write(), to)
            })?;
            let mut again = gpu.buffer::<f64>(2 * channels)?;
            self.time("a pair, backward sums", 3 * tensor + mask.len(), || {
                let (xs, to) = ([x.read(), other.read()], [totals.write().into(), again.write().into()]);
                norm_pair::backward_sums(gpu, dy.read(), mask.read(), xs, [coefficients; 2], to)
            })?;
            self.time("a pair, backward input", 5 * tensor + mask.len(), || {
                let xs = [x.write(), other.write()];
                norm_pair::backward_input(gpu, dy.read(), mask.read(), xs, [abc; 2])
            })
        }

        fn max_pool(&self, views: usize, size: usize, channels: usize) -> Result<()> {
            let g = PoolGeometry {
                batch: views,
                in_height: size,
                in_width: size,
                channels,
                side: 3,
                stride: 2,
                padding: [1, 1],
            };
            let x = self.noise(g.input_len())?;
            let dy = self.noise(g.output_len())?;
            let (mut y, mut dx) = (self.same(&dy)?, self.same(&x)?);
            let (input, output) = (2 * x.len(), 2 * y.len());
            self.time("max_pool_forward", input + output, || {
                pooling::max_pool_forward(self.gpu, &g, x.read(), y.write())
            })?;
            self.time("max_pool_backward", 2 * input + 2 * output, || {
                pooling::max_pool_backward(self.gpu, &g, x.read(), y.read(), dy.read(), dx.write())
            })
        }

        fn global_avg_pool(&self, views: usize, pixels: usize, channels: usize) -> Result<()> {
            let mut x = self.noise(views * pixels * channels)?;
            let mut y = self.gpu.buffer::<f32>(views * channels)?;
            let bytes = 2 * x.len() + 4 * y.len();
            let name = |pass: &str| format!("global_avg_pool_{pass}, {pixels} x {channels}");
            self.time(&name("forward"), bytes, || {
                pooling::global_avg_pool_forward(self.gpu, x.read(), pixels, channels, y.write())
            })?;
            self.time(&name("backward"), bytes, || {
                pooling::global_avg_pool_backward(self.gpu, y.read(), pixels, channels, x.write())
            })
        }

        fn passes(&self, len: usize) -> Result<()> {
            let gpu = self.gpu;
            let bytes = gpu.zeros::<u8>(len)?;
            let mut narrow = self.noise(len)?;
            let mut wide = gpu.buffer::<f32>(len)?;
            self.time(&format!("bytes to [0, 1], {len}"), 3 * len, || {
                elementwise::unit_from_bytes(gpu, bytes.read(), narrow.write())
            })?;
            self.time("widen", 6 * len, || elementwise::widen(gpu, narrow.read(), wide.write()))?;
            self.time("narrow", 6 * len, || elementwise::narrow(gpu, wide.read(), narrow.write()))?;
            let y = self.same(&narrow)?;
            self.time("relu_backward", 6 * len, || elementwise::relu_backward(gpu, y.read(), narrow.write()))
        }

        fn stem(&self, g: Conv2dGeometry) -> Result<()> {
            const MODE: ConvolutionMode = ConvolutionMode { tf32: false, deterministic: true };
            let (gpu, packing) = (self.gpu, Packing::<bf16>::of(&g)?);
            let packed = packing.geometry();
            let (x, mut y) = (self.noise(g.input_len())?, self.noise(g.output_len())?);
            let (w, mut dw) = (self.noise(g.weight_len())?, gpu.buffer(g.weight_len())?);
            let mut images = gpu.buffer::<bf16>(packed.input_len())?;
            let weights = self.noise(packed.weight_len())?;
            let mut packed_dw = gpu.buffer(packed.weight_len())?;
            let moved = 2 * (x.len() + images.len());
            self.time(&format!("pack {0} x {0} / {1}", g.kernel_height, g.stride), moved, || {
                stem::pack_images(gpu, &packing, x.read(), images.write())
            })?;
            let least = 2 * (x.len() + y.len());
            self.time("forward as it is", least, || {
                gpu.conv2d_forward(&g, MODE, x.read(), w.read(), y.write())
            })?;
            self.time("forward, packed before", least, || {
                gpu.conv2d_forward(packed, MODE, images.read(), weights.read(), y.write())
            })?;
            self.time("weight gradient as it is", least, || {
                gpu.conv2d_backward_weight(&g, MODE, x.read(), y.read(), dw.write())
            })?;
            self.time("weight gradient, packed before", least, || {
                gpu.conv2d_backward_weight(packed, MODE, images.read(), y.read(), packed_dw.write())
            })?;
            if !first_layer::serves::<bf16>(&g) {
                return Ok(());
            }
            let mut weights = gpu.buffer::<f32>(g.weight_len())?;
            elementwise::widen(gpu, w.read(), weights.write())?;
            let (x, w) = (x.read(), weights.read());
            let (mut sums, mut again) = (gpu.buffer(2 * g.out_channels)?, gpu.buffer(2 * g.out_channels)?);
            let coefficients = gpu.buffer_of(&vec![0.5f32; 4 * g.out_channels])?;
            let coefficients = coefficients.read();
            let mut correlations = gpu.buffer(first_layer::correlations_len(&g))?;
            self.time("first layer, sums", 2 * x.len(), || first_layer::sums(gpu, &g, x, w, sums.write()))?;
            self.time("first layer, forward", least, || {
                first_layer::forward(gpu, &g, x, w, coefficients, y.write())
            })?;
            self.time("first layer, backward", least, || {
                let (dy, correlations, to) = (y.read(), correlations.write(), again.write().into());
                first_layer::backward_sums(gpu, &g, x, w, coefficients, dy, correlations, to)
            })
        }
    }
}
