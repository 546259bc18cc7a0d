//! `simclr bench views`: reading images and making their views, without a network.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde::{Serialize, Serializer};
use simclr_augment::{ImageRef, Isa, Recipe, Scratch, Step, Steps, Stream, ViewFamily};
use simclr_data::{Dataset, DecodeScratch, Region, permutation};
use simclr_engine::Level;
use simclr_train::pretrain::RunViews;

use crate::data::{self, Opening};
use crate::exit::Done;
use crate::settings::{OnDevice, Settings, Threads, from_to};
use crate::terminal;

/// The number of images to measure with, used over and over.
const IMAGES: usize = 256;
/// The views of an image.
const VIEWS: u64 = 2;
/// How many images are used to time the stages, in how many rounds, and how often a view of them is made in each.
const TIMED: usize = 64;
const ROUNDS: usize = 9;
const TURNS: usize = 3;

/// Time reading, decoding and making two views of each image: images per second, and each stage
#[derive(Args, Debug)]
pub struct Views {
    /// The images, as for pretrain; 256 of them, drawn at random, are used
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// Side of a view in pixels (data.image_size)
    #[arg(long, value_name = "PIXELS", value_parser = from_to(8_u32, 1024))]
    size: Option<u32>,

    /// How many seconds to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = from_to(1_u8, u8::MAX))]
    seconds: u8,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    settings: Settings,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    images_per_s: f64,
    views_per_s: f64,
    threads: usize,
    size: u32,
    images: usize,
    /// The instruction set that the views are made with.
    isa: String,
    /// Microseconds per image for both of its views, by stage.
    stages_us: Stages,
}

#[derive(Serialize)]
struct Stages {
    read_and_decode: f64,
    crop_and_resize: f64,
    #[serde(serialize_with = "Cost::serialize")]
    color: Cost,
    #[serde(serialize_with = "Cost::serialize")]
    blur: Cost,
    #[serde(serialize_with = "Cost::serialize")]
    other: Cost,
}

/// What some operators cost, in microseconds per image.
#[derive(Debug, PartialEq)]
enum Cost {
    /// They are never drawn.
    Absent,
    /// So little that the rounds do not agree that it is anything at all: less than this.
    Below(f64),
    /// The median of all rounds.
    Us(f64),
}

impl Cost {
    /// The cost by the differences that the operators made in each round.
    fn of(mut differences: [f64; ROUNDS]) -> Cost {
        differences.sort_unstable_by(f64::total_cmp);
        // One round may be disturbed. By chance, 8 of 9 would be above 0 once in 50 times.
        match differences[1] > 0.0 {
            true => Cost::Us(differences[ROUNDS / 2]),
            false => Cost::Below(differences[ROUNDS - 2].max(0.0)),
        }
    }

    /// A number; null where it is too small to be measured.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Cost::Absent => to.serialize_f64(0.0),
            Cost::Below(_) => to.serialize_none(),
            Cost::Us(us) => to.serialize_f64(*us),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Cost::Absent => "none".to_owned(),
            Cost::Below(us) => format!("<{:.1}", (us * 10.0).floor() / 10.0 + 0.1),
            Cost::Us(us) => format!("{us:.1}"),
        })
    }
}

impl Views {
    pub fn run(mut self) -> Result<Done> {
        let source = Opening::new(&self.settings.data()?, 0).open(&self.data)?;
        let size = self.size.map(|size| (format!("--size {size}"), "data.image_size", size.to_string()));
        self.settings.check_options(Threads::default(), OnDevice::default(), size.clone())?;
        self.settings.sets.extend(size.map(|(_, key, value)| format!("{key}={value}")));
        let config = self.settings.resolve(&source, Threads::default())?;
        let RunViews { families, left_out } = RunViews::new(&config, source.train.as_ref())?;
        data::say_left_out(&left_out);
        let work = Work {
            dataset: source.train.as_ref(),
            families,
            indices: permutation(source.train.len(), config.train.seed, 0).into_iter().take(IMAGES).collect(),
            seed: config.train.seed,
        };
        let work = work.readable()?;
        let threads = self.threads.counted();
        let stages_us = work.stages()?;
        let images_per_s = work.images_per_s(threads, Duration::from_secs(self.seconds.into()))?;
        self.tell(&Figures {
            images_per_s,
            views_per_s: VIEWS as f64 * images_per_s,
            threads,
            size: config.data.image_size,
            images: work.indices.len(),
            // Views have no code for anything above AVX-512.
            isa: Isa::detect().at_most(Level::Avx512).to_string(),
            stages_us,
        })?;
        Ok(Done::Finished)
    }

    fn tell(&self, figures: &Figures) -> Result<()> {
        if self.json {
            return terminal::print_json(figures);
        }
        let Figures { images_per_s, views_per_s, threads, size, isa, stages_us, .. } = figures;
        terminal::print(&format!(
            "{images_per_s:.1} images/s  {views_per_s:.1} views/s of {size} x {size}, {}, {isa}",
            terminal::counted(*threads, "thread"),
        ))?;
        let Stages { read_and_decode, crop_and_resize, color, blur, other } = stages_us;
        let stages = [
            ("read and decode", &Cost::Us(*read_and_decode)),
            ("crop, resize, flip", &Cost::Us(*crop_and_resize)),
            ("colour", color),
            ("blur", blur),
            ("other operators", other),
        ];
        terminal::print(
            "microseconds of an image and its two views, on one thread (each timed by itself: they need not add up):",
        )?;
        for (stage, cost) in stages {
            terminal::print(&format!("  {stage:<18} {cost:>8}"))?;
        }
        Ok(())
    }
}

/// What to measure with.
struct Work<'a> {
    dataset: &'a dyn Dataset,
    families: [ViewFamily; 2],
    indices: Vec<u32>,
    seed: u64,
}

impl<'a> Work<'a> {
    /// Leaves out images that cannot be read.
    fn readable(mut self) -> Result<Work<'a>> {
        let mut decode = DecodeScratch::default();
        let dataset = self.dataset;
        self.indices.retain(|&index| match dataset.read(index as usize, &mut decode) {
            Ok(_) => true,
            Err(error) => {
                terminal::warn(&format!("passed over {error}"));
                false
            }
        });
        match self.indices.is_empty() {
            true => bail!("none of the images can be read"),
            false => Ok(self),
        }
    }

    fn recipe(&self, image: ImageRef<'_>, index: u32, epoch: u64, branch: usize) -> Recipe {
        let mut stream = Stream::new(self.seed, epoch, index.into(), branch as u64);
        self.families[branch].draw(image.width, image.height, &mut stream)
    }

    /// Reads the part of an image that its views need, as the loader does.
    fn read<'b>(&'b self, index: u32, epoch: u64, scratch: &'b mut DecodeScratch) -> Result<ImageRef<'b>> {
        let needed = |width, height| {
            let [a, b] = [0, 1].map(|branch| {
                let mut stream = Stream::new(self.seed, epoch, index.into(), branch as u64);
                self.families[branch].draw_crop(width, height, &mut stream)
            });
            Region::both(a, b)
        };
        Ok(self.dataset.read_part(index as usize, &needed, scratch)?)
    }

    /// The images per second, with two views each, on `threads` threads.
    fn images_per_s(&self, threads: usize, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let made = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|worker| scope.spawn(move || self.make(worker, threads, start, time)))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(Ok(0))).sum::<Result<usize>>()
        })?;
        Ok(made as f64 / start.elapsed().as_secs_f64())
    }

    /// Reads every `stride`th image from `first` on and makes its views, over and over. Returns the number of images.
    fn make(&self, first: usize, stride: usize, start: Instant, time: Duration) -> Result<usize> {
        let (mut decode, mut scratch) = (DecodeScratch::default(), Scratch::default());
        let mut out = vec![0; self.families[0].view_len()];
        let mut made = 0;
        while start.elapsed() < time {
            let place = first + made * stride;
            let (index, epoch) = (self.indices[place % self.indices.len()], place / self.indices.len());
            let image = self.read(index, epoch as u64, &mut decode)?;
            for (branch, family) in self.families.iter().enumerate() {
                let recipe = self.recipe(image, index, epoch as u64, branch);
                family.apply(image, &recipe, &mut scratch, &mut out);
                std::hint::black_box(&mut out);
            }
            made += 1;
        }
        Ok(made)
    }

    /// The time of each stage: of the last three, a view with the operators up to this stage, less one with those
    /// before it.
    fn stages(&self) -> Result<Stages> {
        let kinds: [fn(&Step) -> bool; 4] =
            [|_| false, Step::is_color, |step| step.is_color() || step.is_blur(), |_| true];
        let (mut decode, mut scratch) = (DecodeScratch::default(), Scratch::default());
        let mut out = vec![0; self.families[0].view_len()];
        let images = self.indices.len().min(TIMED);
        let us = |time: Duration| time.as_secs_f64() * 1e6 / images as f64;
        let (mut reading, mut making) = ([0.0; ROUNDS], [[0.0; ROUNDS]; 4]);
        let mut drawn = [0; 4];
        for round in 0..ROUNDS {
            let (mut read, mut made) = (Duration::ZERO, [Duration::ZERO; 4]);
            for (place, &index) in self.indices[..images].iter().enumerate() {
                let start = Instant::now();
                let image = self.read(index, 0, &mut decode)?;
                read += start.elapsed();
                for (branch, family) in self.families.iter().enumerate() {
                    let recipe = self.recipe(image, index, 0, branch);
                    let recipes = kinds.map(|kind| {
                        let steps: Steps = recipe.steps.iter().filter(|step| kind(step)).copied().collect();
                        Recipe { steps, ..recipe.clone() }
                    });
                    let mut least = [Duration::MAX; 4];
                    for turn in 0..TURNS {
                        // Whichever comes first finds the caches cold, so that all of them have their turn.
                        for kind in (0..4).map(|kind| (kind + turn + place + round) % 4) {
                            let start = Instant::now();
                            family.apply(image, &recipes[kind], &mut scratch, &mut out);
                            least[kind] = least[kind].min(start.elapsed());
                        }
                    }
                    for kind in 0..4 {
                        made[kind] += least[kind];
                        drawn[kind] += recipes[kind].steps.iter().count();
                    }
                }
            }
            reading[round] = us(read);
            (0..4).for_each(|kind| making[kind][round] = us(made[kind]));
        }
        let cost = |kind: usize| match drawn[kind] > drawn[kind - 1] {
            true => Cost::of(std::array::from_fn(|round| making[kind][round] - making[kind - 1][round])),
            false => Cost::Absent,
        };
        let (color, blur, other) = (cost(1), cost(2), cost(3));
        let median = |mut times: [f64; ROUNDS]| {
            times.sort_unstable_by(f64::total_cmp);
            times[ROUNDS / 2]
        };
        Ok(Stages {
            read_and_decode: median(reading),
            crop_and_resize: median(making[0]),
            color,
            blur,
            other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_within_the_noise_is_not_measured() {
        // One round of nine may be disturbed.
        assert_eq!(Cost::of([3.0, 1.0, -9.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0]), Cost::Us(4.0));
        let noise = Cost::of([0.4, -0.3, -0.2, 0.1, 0.05, 0.23, 7.0, -0.1, 0.3]);
        assert_eq!(noise, Cost::Below(0.4));
        assert_eq!(Cost::of([-1.0; ROUNDS]), Cost::Below(0.0));
        let shown = [noise, Cost::Below(0.0), Cost::Us(1.25), Cost::Absent].map(|cost| format!("{cost:>5}"));
        assert_eq!(shown, [" <0.5", " <0.1", "  1.2", " none"]);
        let json = |cost: Cost| cost.serialize(serde_json::value::Serializer).unwrap();
        assert!(json(Cost::Below(1.0)).is_null() && json(Cost::Us(2.0)) == 2.0 && json(Cost::Absent) == 0.0);
    }
}
