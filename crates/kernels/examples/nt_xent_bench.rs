//! Measures the time of NT-Xent, forward and backward, including the normalisation of z. `bench/nt_xent.py` is its
//! counterpart in PyTorch.
//!
//! `cargo run --release -p simclr-kernels --example nt_xent_bench [-- VIEWS [DIM [THREADS]]]` prints one JSON object:
//! seconds as the median, fastest and slowest of seven, and the memory that the loss took beyond z and its gradient.

use std::time::Instant;

use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::l2_normalize::{l2_normalize_backward, l2_normalize_forward};
use simclr_kernels::nt_xent::{Anchor, nt_xent_backward, nt_xent_forward};
use simclr_kernels::{Cpu, Isa};

const REPEATS: usize = 7;
const WARM_UP: usize = 2;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let mut next = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (views, dim, threads) = (next(8192), next(128), next(2));
    let cpu = match Cpu::new(threads, Isa::detect()) {
        Ok(cpu) => cpu,
        Err(error) => {
            eprintln!("{error}");
            return;
        }
    };
    let shape = ContrastiveShape { anchors: views, views, offset: 0, dim, temperature: 0.5 };

    let raw = values(views * dim);
    let (mut z, mut dz, mut gradient) = (raw.clone(), raw.clone(), raw.clone());
    let mut anchors = vec![Anchor::default(); views];
    let mut lse = vec![0.0; views];
    let (before, mut forward, mut backward) = (peak_bytes(), Vec::new(), Vec::new());
    let mut loss = 0.0;
    for repeat in 0..REPEATS + WARM_UP {
        let start = Instant::now();
        l2_normalize_forward(&cpu, &raw, dim, &mut z);
        nt_xent_forward(&cpu, &shape, &z, &mut anchors);
        let turn = Instant::now();
        lse.iter_mut().zip(&anchors).for_each(|(lse, anchor)| *lse = anchor.lse());
        nt_xent_backward(&cpu, &shape, &z, &anchors, &lse, 1.0 / views as f32, &mut dz);
        l2_normalize_backward(&cpu, &raw, &dz, dim, &mut gradient);
        let end = Instant::now();
        loss = anchors.iter().map(|anchor| f64::from(anchor.loss)).sum::<f64>() / views as f64;
        if repeat >= WARM_UP {
            forward.push((turn - start).as_secs_f64());
            backward.push((end - turn).as_secs_f64());
        }
    }
    let mut both: Vec<f64> = forward.iter().zip(&backward).map(|(f, b)| f + b).collect();
    for seconds in [&mut forward, &mut backward, &mut both] {
        seconds.sort_by(f64::total_cmp);
    }
    println!(
        "{{\"engine\": \"simclr {}\", \"views\": {views}, \"dim\": {dim}, \"threads\": {}, \"median_s\": {:.5}, \
         \"fastest_s\": {:.5}, \"slowest_s\": {:.5}, \"forward_s\": {:.5}, \"backward_s\": {:.5}, \
         \"bytes_beyond_inputs\": {}, \"loss\": {loss:.6}}}",
        cpu.isa.level(),
        cpu.threads.count(),
        both[REPEATS / 2],
        both[0],
        both[REPEATS - 1],
        forward[REPEATS / 2],
        backward[REPEATS / 2],
        peak_bytes() - before,
    );
}

/// Pseudo-random numbers in (-1, 1).
fn values(len: usize) -> Vec<f32> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).rotate_left(13) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

/// The process's peak memory in bytes, or 0 if the system does not report it.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
