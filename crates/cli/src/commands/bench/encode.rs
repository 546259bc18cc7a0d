//! `simclr bench encode`: the encoder alone, as evaluation and embedding run it, on random pixels.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use simclr_train::{Model, memory};
use simclr_words::text::Gigabytes;

use super::network::{Described, Network, median, noise, peak_of};
use super::table::{Output, Row, Scale};
use super::{flops, table};
use crate::exit::Done;
use crate::settings::from_to;
use crate::terminal;

/// Batches that warm up caches, pools and the processor. They are not counted.
const WARM_UP: usize = 2;
/// Further batches on a GPU that wait for each kernel.
const PROFILED: usize = 2;
/// The largest batch.
const MOST_IMAGES: usize = 1 << 16;

/// Time the encoder on images that are already decoded, as knn, linear and embed use it; the median of several batches
#[derive(Args, Debug)]
pub struct Encode {
    #[command(flatten)]
    network: Network,

    /// Images per batch [default: as many as the evaluations take]
    #[arg(long, value_name = "N", value_parser = from_to(1_usize, MOST_IMAGES))]
    images: Option<usize>,

    /// Number of batches to take the median of
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = from_to(1_u16, u16::MAX))]
    batches: u16,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Figures {
    images_per_s: f64,
    /// The most memory that the process ever held; on a GPU, the memory of its buffers.
    peak_bytes: u64,
    seconds_per_batch: f64,
    fastest_batch_s: f64,
    slowest_batch_s: f64,
    gflops: f64,
    /// The share of `peak_gflops`, which the device was seen to reach in this precision.
    share_of_peak: f64,
    peak_gflops: f64,
    gflop_per_image: f64,
    #[serde(flatten)]
    network: Described,
    images: usize,
    device: String,
    threads: usize,
    table: Vec<Row>,
}

impl Encode {
    pub fn run(self) -> Result<Done> {
        let config = self.network.config(&["head.kind=none".to_owned()])?;
        // On a device of its own, which stays open: closing a GPU's last device would close the driver's context.
        let (first, _) = self.network.device()?;
        let peak = peak_of(first.measured_peak()?, config.train.precision);
        first.trim();
        let (device, profile) = self.network.device()?;
        config.prepare(&device)?;
        let model = Model::new(&config, &device)?;
        let side = model.image_size();
        let images = self.images.unwrap_or_else(|| model.images_at_once());
        let pixels = noise(images * side * side * 3);
        // Timing each kernel costs nothing on the processor; a GPU has to be waited for after each.
        profile.pause(device.is_gpu());
        let mut seconds = Vec::with_capacity(self.batches.into());
        for number in 0..WARM_UP + usize::from(self.batches) {
            if number == WARM_UP {
                profile.clear();
            }
            let start = Instant::now();
            model.embed(&pixels)?;
            if number >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let (mut batches, mut whole) = (seconds.len(), seconds.iter().sum());
        if device.is_gpu() && !self.output.quick {
            profile.pause(false);
            let start = Instant::now();
            for _ in 0..PROFILED {
                model.embed(&pixels)?;
            }
            (batches, whole) = (PROFILED, start.elapsed().as_secs_f64());
        }
        let scale = Scale { steps: batches as f64, seconds: whole, peak };
        seconds.sort_by(f64::total_cmp);
        let median = median(&seconds);
        let flops = flops::per_image(&model.parameters, side) as f64;
        let rate = flops * images as f64 / median;
        let used = device.memory();
        self.tell(&Figures {
            images_per_s: images as f64 / median,
            peak_bytes: if device.is_gpu() {
                used.held as u64
            } else {
                memory::peak().unwrap_or(used.peak as u64)
            },
            seconds_per_batch: median,
            fastest_batch_s: seconds[0],
            slowest_batch_s: seconds[seconds.len() - 1],
            gflops: rate / 1e9,
            share_of_peak: rate / peak,
            peak_gflops: peak / 1e9,
            gflop_per_image: flops / 1e9,
            network: Described::of(&config),
            images,
            device: device.to_string(),
            threads: device.threads(),
            table: self.output.rows(&profile, scale),
        })?;
        Ok(Done::Finished)
    }

    fn tell(&self, figures: &Figures) -> Result<()> {
        if self.output.json {
            terminal::print_json(figures)?;
            return Ok(());
        }
        let Figures { network, images, device, .. } = figures;
        terminal::print(&format!("{network}, {images} images, {}, {device}", network.precision))?;
        terminal::print(&format!(
            "{:.1} images/s  {:.3} s/batch ({:.3} to {:.3})  {:.0} GFLOP/s, {:.1}% of {:.0}  peak memory {}",
            figures.images_per_s,
            figures.seconds_per_batch,
            figures.fastest_batch_s,
            figures.slowest_batch_s,
            figures.gflops,
            100.0 * figures.share_of_peak,
            figures.peak_gflops,
            Gigabytes(figures.peak_bytes),
        ))?;
        table::print(&figures.table)
    }
}
