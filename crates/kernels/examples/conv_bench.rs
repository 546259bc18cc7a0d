//! Measures the speed of the convolution by layer shape and pass, in GFLOP/s and relative to the peak rate of fused
//! multiply-adds.
//!
//! `cargo run --release -p simclr-kernels --example conv_bench [-- THREADS [ISA [PRECISION [LAYERS]]]]`: PRECISION is
//! f32 or bf16, and LAYERS selects layers by a part of their names. Each figure is the best of several repetitions
//! within about 0.2 s. With one thread, the thread's CPU time is measured, which other programs disturb less.

use simclr_kernels::Level;
use simclr_kernels::buffer::{Buffer, Pool};
use simclr_kernels::conv2d::{conv2d_backward_input, conv2d_backward_weight, conv2d_forward};
use simclr_kernels::peak::f32_flops;
use simclr_kernels::{Conv2dGeometry, Cpu, Element, Isa, Write};
use std::time::{Duration, Instant};

/// (name, batch, side, input channels, output channels, kernel, stride).
const LAYERS: &[(&str, usize, usize, usize, usize, usize, usize)] = &[
    ("resnet18/32 stem", 256, 32, 3, 64, 3, 1),
    ("resnet18/32 layer1", 64, 32, 64, 64, 3, 1),
    ("resnet18/32 layer2 down", 64, 32, 64, 128, 3, 2),
    ("resnet18/32 layer2 1x1", 256, 32, 64, 128, 1, 2),
    ("resnet18/32 layer2", 64, 16, 128, 128, 3, 1),
    ("resnet18/32 layer3 down", 64, 16, 128, 256, 3, 2),
    ("resnet18/32 layer3", 64, 8, 256, 256, 3, 1),
    ("resnet18/32 layer4 down", 64, 8, 256, 512, 3, 2),
    ("resnet18/32 layer4", 256, 4, 512, 512, 3, 1),
    ("width 16 stem", 512, 32, 3, 16, 3, 1),
    ("width 16 layer1", 512, 32, 16, 16, 3, 1),
    ("width 16 layer2 down", 512, 32, 16, 32, 3, 2),
    ("width 16 layer2", 512, 16, 32, 32, 3, 1),
    ("width 16 layer3", 512, 8, 64, 64, 3, 1),
    ("width 16 layer4", 512, 4, 128, 128, 3, 1),
    ("resnet50/224 stem", 8, 224, 3, 64, 7, 2),
    ("resnet50/224 1x1 64-256", 8, 56, 64, 256, 1, 1),
    ("resnet50/224 1x1 256-64", 8, 56, 256, 64, 1, 1),
    ("resnet50/224 3x3 64", 8, 56, 64, 64, 3, 1),
    ("resnet50/224 3x3 128 /2", 8, 56, 128, 128, 3, 2),
    ("resnet50/224 1x1 1024-256", 16, 14, 1024, 256, 1, 1),
    ("resnet50/224 3x3 512", 16, 7, 512, 512, 3, 1),
    ("resnet50/224 1x1 512-2048", 16, 7, 512, 2048, 1, 1),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().and_then(|v| v.parse().ok()).unwrap_or(0);
    let isa = match arguments.next().as_deref() {
        Some("portable") => Isa::PORTABLE,
        Some("avx2") => Isa::forced(Level::Avx2).unwrap_or(Isa::PORTABLE),
        _ => Isa::detect(),
    };
    let half = arguments.next().as_deref() == Some("bf16");
    let only = arguments.next();
    let cpu = match Cpu::new(count, isa) {
        Ok(cpu) => cpu,
        Err(error) => {
            eprintln!("{error}");
            return;
        }
    };
    let peak = f32_flops(&cpu) / 1e9;
    println!("{} threads, {}, peak {peak:.0} GFLOP/s", cpu.threads.count(), isa.level());
    println!("{:26} {:>14} {:>14} {:>14}", "layer", "forward", "input", "weight");
    for &(name, batch, side, c, k, kernel, stride) in LAYERS {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let g = Conv2dGeometry {
            batch,
            in_height: side,
            in_width: side,
            in_channels: c,
            out_channels: k,
            kernel_height: kernel,
            kernel_width: kernel,
            stride,
            padding: kernel / 2,
        };
        let seconds = if half { measure::<half::bf16>(&cpu, &g) } else { measure::<f32>(&cpu, &g) };
        print!("{name:26}");
        for seconds in seconds {
            let rate = g.flops() as f64 / seconds / 1e9;
            print!(" {rate:7.1} {:5.1}%", 100.0 * rate / peak);
        }
        println!();
    }
}

/// The seconds of the forward pass, of the gradient of the input and of the gradient of the weights.
fn measure<E: Element>(cpu: &Cpu, g: &Conv2dGeometry) -> [f64; 3] {
    // Memory on huge pages, as in training.
    let pool = Pool::default();
    let [mut x, mut y, mut dx, mut dy] = [g.input_len(), g.output_len(), g.input_len(), g.output_len()]
        .map(|len| pool.take(len * size_of::<E>()));
    let (x, y, dx, dy) = (values::<E>(&mut x), values(&mut y), values(&mut dx), values(&mut dy));
    let [mut w, mut dw] = [(); 2].map(|()| pool.take(g.weight_len() * size_of::<f32>()));
    let (w, dw) = (values::<f32>(&mut w), values(&mut dw));
    let mut sums = vec![0.0; 2 * g.out_channels];
    [
        best(cpu, || conv2d_forward(cpu, g, x, w, y, Some(&mut sums))),
        best(cpu, || conv2d_backward_input(cpu, g, dy, w, dx, Write::Over)),
        best(cpu, || conv2d_backward_weight(cpu, g, x, dy, dw)),
    ]
}

/// The CPU time of this thread in seconds.
#[cfg(unix)]
fn own_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Unix, and `time` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The seconds of the fastest call.
fn best(cpu: &Cpu, mut call: impl FnMut()) -> f64 {
    #[cfg(unix)]
    let own = cpu.threads.count() == 1;
    call();
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 0;
    while calls < 3 || begin.elapsed() < Duration::from_millis(200) {
        #[cfg(unix)]
        let before = own_seconds();
        let start = Instant::now();
        call();
        let mut seconds = start.elapsed().as_secs_f64();
        #[cfg(unix)]
        if own {
            seconds = own_seconds() - before;
        }
        best = best.min(seconds);
        calls += 1;
    }
    best
}

/// Fills `buffer`, which has no clones.
fn values<E: Element>(buffer: &mut Buffer) -> &mut [E] {
    let values = buffer.get_mut().unwrap_or_default();
    for (i, value) in (0u32..).zip(&mut *values) {
        *value = E::narrow((i.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0);
    }
    values
}
