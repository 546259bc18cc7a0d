//! `simclr bench step`: one whole training step, on random pixels.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use simclr_engine::{Device, MemoryUse, Peak, Profile, SingleProcess};
use simclr_train::config::Memory;
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::{CapturedStep, Worker, train_step};
use simclr_train::{Config, Model, memory};
use simclr_words::text::Gigabytes;

use super::fed::{Fed, RATE, Taker};
use super::network::{Described, Network, median, noise, peak_of};
use super::table::{Output, Row, Scale};
use super::{flops, table};
use crate::data::Opening;
use crate::exit::{Done, usage};
use crate::settings::{from_to, suggesting_for};
use crate::terminal;

/// Steps that warm up caches, pools and the processor. They are not counted.
const WARM_UP: usize = 2;
/// Further steps on a GPU that wait for each kernel.
const PROFILED: usize = 2;
/// Two views for each image of the largest batch.
const MOST_VIEWS: usize = 2 << 20;

/// Time one training step: network, NT-Xent, backward, LARS; the median of several
#[derive(Args, Debug)]
pub struct Step {
    #[command(flatten)]
    network: Network,

    /// Views per step: twice the batch
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = from_to(4_usize, MOST_VIEWS))]
    views: usize,

    /// true: the same bits each time; false: whatever is faster on a GPU
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    deterministic: bool,

    /// What to keep for backward: full (every activation), blocks (the input of each residual block) or auto (full
    /// if it fits)
    #[arg(
        long,
        value_name = "NAME",
        default_value = "full",
        value_parser = suggesting_for("train.memory"),
        hide_possible_values = true
    )]
    memory: String,

    /// Number of steps to take the median of
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = from_to(1_u16, u16::MAX))]
    steps: u16,

    /// Also time steps that are fed with views of DATA's images (as for pretrain) by the loader
    #[arg(long, value_name = "DATA", num_args = 1..)]
    data: Vec<PathBuf>,

    /// Where the views of --data are made: auto, cpu or gpu (data.views_on)
    #[arg(
        long,
        value_name = "PLACE",
        default_value = "auto",
        requires = "data",
        value_parser = suggesting_for("data.views_on"),
        hide_possible_values = true
    )]
    views_on: String,

    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Figures {
    views_per_s: f64,
    /// The most memory that the process ever held; on a GPU, the GPU memory that its buffers hold.
    peak_bytes: u64,
    /// The most memory that tensors held.
    tensor_bytes: usize,
    /// The memory predicted for the process and for tensors.
    predicted_peak_bytes: u64,
    predicted_tensor_bytes: usize,
    seconds_per_step: f64,
    fastest_step_s: f64,
    slowest_step_s: f64,
    gflops: f64,
    /// The share of `peak_gflops`.
    share_of_peak: f64,
    /// The speed the device was seen to reach in this precision: multiply-adds in registers on as many threads, or
    /// products on a GPU. It is no limit: Winograd's convolutions save multiplications that are counted, and the
    /// machine may have been busy.
    peak_gflops: f64,
    /// The bytes that a copy on a GPU reads and writes, in 10^9 per second.
    peak_gb_per_s: Option<f64>,
    /// On a GPU, the seconds of a step in which each kernel does its operations at that rate, or moves its tensors
    /// at that bandwidth, whichever takes longer.
    floor_s: Option<f64>,
    /// On a GPU: the number of searches for the fastest convolutions and products before the first step, and their
    /// seconds. Their results are remembered.
    searches: usize,
    searching_s: f64,
    gflop_per_view: f64,
    #[serde(flatten)]
    network: Described,
    views: usize,
    deterministic: bool,
    memory: Memory,
    device: String,
    threads: usize,
    /// The figures with real images, if some are given.
    fed: Option<Fed>,
    table: Vec<Row>,
}

/// What the figures are computed from.
struct Measured<'m> {
    config: &'m Config,
    device: &'m Device,
    model: &'m Model,
    profile: &'m Profile,
    choice: &'m memory::Choice,
    /// The memory predicted for tensors.
    tensors: MemoryUse,
    /// The speed that the device reaches.
    reached: Peak,
    /// The seconds of each step, sorted.
    seconds: Vec<f64>,
    /// How many steps the profile covers, and their seconds.
    profiled: (usize, f64),
    /// The bytes that a GPU's buffers hold.
    held: usize,
    fed: Option<Fed>,
}

impl Step {
    pub fn run(self) -> Result<Done> {
        let config = self.config()?;
        // Data that cannot be opened is an error before anything is measured.
        let images = match &self.data[..] {
            [] => None,
            data => Some(
                Opening::new(&config.data, config.train.threads.unwrap_or_default())
                    .open(data)?
                    .to_pretrain(),
            ),
        };
        // Measured on a device of its own, so that its memory is free again for the step. It stays open: closing a
        // GPU's last device would close the driver's context.
        let (first, _) = self.network.device()?;
        let reached = first.measured_peak()?;
        first.trim();
        let (device, profile) = self.network.device()?;
        config.prepare(&device)?;
        let mut model = Model::new(&config, &device)?;
        let mut optimizer = Optimizer::new(&config.optim, &model.parameters)?;
        let choice = memory::choose(&model, &optimizer, &config, &memory::Images::default(), Worker::ALONE)?;
        let tensors = memory::step_use(&model, &optimizer, &config, choice.memory, config.train.batch)?;
        model = model.with_memory(choice.memory);
        let side = config.data.image_size as usize;
        let pixels = noise(self.views * side * side * 3);
        // On a GPU the views are already there: making and moving them is timed separately.
        let mut captured = match device.is_gpu() {
            true => Some(CapturedStep::new(&model, self.views)?),
            false => None,
        };
        if let Some(captured) = &mut captured {
            captured.pixels().write(&pixels)?;
        }
        // Timing each kernel costs nothing on the processor. A GPU has to be waited for after each, which changes the
        // steps, so it is profiled in separate ones.
        profile.pause(device.is_gpu());
        let mut taker = Taker {
            config: &config,
            device: &device,
            model: &mut model,
            optimizer: &mut optimizer,
            captured: &mut captured,
        };
        let seconds = self.time(&mut taker, &profile, &pixels)?;
        let mut profiled = (seconds.len(), seconds.iter().sum());
        let fed = match images {
            None => None,
            Some(images) => {
                profile.pause(true);
                let alone = self.views as f64 / median(&seconds);
                let fed = taker.fed(images, &choice, self.steps.into(), alone)?;
                profile.pause(device.is_gpu());
                Some(fed)
            }
        };
        let held = device.memory().held + captured.as_ref().map_or(0, CapturedStep::held);
        // Its memory is needed for the profiled steps.
        drop(captured);
        if device.is_gpu() && !self.output.quick {
            profile.pause(false);
            profiled = take_profiled(&config, &mut model, &mut optimizer, &pixels)?;
        }
        let (config, device, model, profile, choice) = (&config, &device, &model, &profile, &choice);
        self.tell(&self.figures(Measured {
            config,
            device,
            model,
            profile,
            choice,
            tensors,
            reached,
            seconds,
            profiled,
            held,
            fed,
        }))?;
        Ok(Done::Finished)
    }

    /// Takes the steps. Returns the seconds of each counted one, sorted.
    fn time(&self, taker: &mut Taker, profile: &Profile, pixels: &[u8]) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(self.steps.into());
        for number in 0..WARM_UP + usize::from(self.steps) {
            if number == WARM_UP {
                profile.clear();
            }
            let start = Instant::now();
            taker.step(pixels)?;
            taker.device.synchronize()?;
            if number >= WARM_UP {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds)
    }

    fn figures(&self, measured: Measured) -> Figures {
        let Measured { config, device, profile, choice, reached, seconds, fed, .. } = measured;
        let peak = peak_of(reached, config.train.precision);
        let (steps, whole) = measured.profiled;
        let scale = Scale { steps: steps as f64, seconds: whole, peak };
        let timed = self.output.has_table(profile);
        let (searches, searching) = device.searched().unwrap_or_default();
        let median = median(&seconds);
        let flops = flops::per_view(&measured.model.parameters, config.data.image_size as usize);
        let gflops = flops as f64 * self.views as f64 / median / 1e9;
        let tensor_bytes = device.memory().peak;
        Figures {
            views_per_s: self.views as f64 / median,
            peak_bytes: if device.is_gpu() {
                measured.held as u64
            } else {
                memory::peak().unwrap_or(tensor_bytes as u64)
            },
            tensor_bytes,
            predicted_peak_bytes: choice.needs.total(),
            predicted_tensor_bytes: measured.tensors.peak,
            seconds_per_step: median,
            fastest_step_s: seconds[0],
            slowest_step_s: seconds[seconds.len() - 1],
            gflops,
            share_of_peak: 1e9 * gflops / peak,
            peak_gflops: peak / 1e9,
            peak_gb_per_s: reached.bytes.map(|bytes| bytes / 1e9),
            floor_s: reached.bytes.filter(|_| timed).map(|bytes| table::floor(profile, scale, bytes)),
            searches,
            searching_s: searching.as_secs_f64(),
            gflop_per_view: flops as f64 / 1e9,
            network: Described::of(config),
            views: self.views,
            deterministic: config.train.deterministic,
            memory: choice.memory,
            device: device.to_string(),
            threads: device.threads(),
            fed,
            table: self.output.rows(profile, scale),
        }
    }

    fn config(&self) -> Result<Config> {
        if !self.views.is_multiple_of(2) {
            return Err(usage(format!(
                "--views {}: an even number is needed, two views of each image",
                self.views
            )));
        }
        self.network.config(&[
            format!("train.deterministic={}", self.deterministic),
            format!("train.memory={}", self.memory),
            format!("train.batch={}", self.views / 2),
            format!("data.views_on={}", self.views_on),
            "data.holdout=0".to_owned(),
        ])
    }

    fn tell(&self, figures: &Figures) -> Result<()> {
        if self.output.json {
            terminal::print_json(figures)?;
            return Ok(());
        }
        let Figures { network, views, device, .. } = figures;
        terminal::print(&format!("{network}, {views} views, {}, {device}", network.precision))?;
        terminal::print(&format!(
            "{:.1} views/s  {:.3} s/step ({:.3} to {:.3})  {:.0} GFLOP/s, {:.1}% of {:.0}  peak memory {}",
            figures.views_per_s,
            figures.seconds_per_step,
            figures.fastest_step_s,
            figures.slowest_step_s,
            figures.gflops,
            100.0 * figures.share_of_peak,
            figures.peak_gflops,
            Gigabytes(figures.peak_bytes),
        ))?;
        if let (Some(floor), Some(bandwidth)) = (figures.floor_s, figures.peak_gb_per_s) {
            terminal::print(&format!(
                "floor {:.3} s/step: each kernel at {:.0} GFLOP/s or {bandwidth:.0} GB/s",
                floor, figures.peak_gflops
            ))?;
        }
        if figures.searches > 0 {
            terminal::print(&format!(
                "before the first step {:.1} s for {} searches for the fastest convolutions and products, which are remembered",
                figures.searching_s, figures.searches
            ))?;
        }
        if let Some(fed) = &figures.fed {
            terminal::print(&fed.to_string())?;
        }
        table::print(&figures.table)?;
        if figures.share_of_peak > 1.0 || figures.table.iter().any(Row::is_above_peak) {
            terminal::print(&format!(
                "of peak: of the {:.0} GFLOP/s that were seen for a moment before the steps; more than 100% is of convolutions that save \
                 multiplications (Winograd) and are counted as if they did not, or of a machine that was busy at that moment",
                figures.peak_gflops
            ))?;
        }
        Ok(())
    }
}

/// Takes steps that wait for each kernel. Returns their number and their seconds.
fn take_profiled(
    config: &Config,
    model: &mut Model,
    optimizer: &mut Optimizer,
    pixels: &[u8],
) -> Result<(usize, f64)> {
    let start = Instant::now();
    for _ in 0..PROFILED {
        train_step(model, optimizer, &config.loss, &SingleProcess, pixels, RATE)?;
    }
    model.device.synchronize()?;
    Ok((PROFILED, start.elapsed().as_secs_f64()))
}
