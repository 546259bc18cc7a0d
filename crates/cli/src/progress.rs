//! Progress of a training run: a bar on a terminal; elsewhere a line per epoch, and now and then one in long epochs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use simclr_train::Schedule;
use simclr_train::pretrain::{EpochRecord, Observer, Plan, StepRecord, ViewsPlace};
use simclr_words::text::short;

use crate::terminal::Bar;
use crate::{data, interrupt, terminal};

/// A cache of decoded images in memory is mentioned from this many bytes on.
const WORTH_TELLING: u64 = 1_000_000_000;

/// Without a bar, the first line with the time left is printed after this long ...
pub const FIRST_LINE: Duration = Duration::from_secs(20);
/// ... and the next one within an epoch or another stage after this long without a line.
pub const NEXT_LINE: Duration = Duration::from_secs(300);

/// What is left of a run that an error from outside has ended.
pub struct Rescue {
    /// The checkpoint from which the run can be continued.
    pub checkpoint: PathBuf,
    /// How many steps after that are lost.
    pub lost: u64,
}

/// Shows a run's progress, and passes on the user's request to stop.
pub struct Progress {
    epochs: u64,
    plan: Option<Plan>,
    bar: Option<Bar>,
    /// The time and the step that the time per step is measured from.
    timed_from: (Instant, u64),
    /// When the next line is due, unless an epoch ends before that.
    line_due: Instant,
    /// What can be continued, if an error from outside ended the run.
    pub rescued: Option<Rescue>,
    /// How many images could not be used, as of the epoch before last and of the last one.
    skipped: [usize; 2],
}

impl Progress {
    /// Follows a run over `epochs` epochs.
    pub fn new(epochs: u64) -> Progress {
        let now = Instant::now();
        Progress {
            epochs,
            plan: None,
            bar: None,
            timed_from: (now, 0),
            line_due: now,
            rescued: None,
            skipped: [0; 2],
        }
    }

    /// Whether some of these `skipped` images were met, and warned of, in the last epoch.
    pub fn has_just_told_of(&self, skipped: usize) -> bool {
        skipped > self.skipped[0]
    }

    /// The time left after `step`, by that of the steps so far; `None` if these are fewer than `least`.
    fn left(&self, step: u64, least: u64) -> Option<Duration> {
        let plan = self.plan.as_ref()?;
        let (start, before) = self.timed_from;
        let done = step.checked_sub(before).filter(|&done| done >= least)?;
        let per_step = start.elapsed().as_secs_f64() / done as f64;
        Duration::try_from_secs_f64(per_step * plan.steps.saturating_sub(step) as f64).ok()
    }
}

impl Observer for Progress {
    fn started(&mut self, plan: &Plan) {
        tell("training", plan, self.epochs);
        if plan.on_gpu {
            terminal::say(
                "the first step takes longer: the fastest kernels of this GPU are searched for, and remembered for later runs",
            );
        }
        terminal::say(legend(plan));
        self.bar = terminal::bar(plan.steps);
        if let Some(bar) = &self.bar {
            bar.set_position(plan.done);
            bar.reset_eta();
        }
        self.plan = Some(plan.clone());
        let now = Instant::now();
        self.timed_from = (now, plan.done);
        self.line_due = now + FIRST_LINE;
    }

    fn step(&mut self, record: &StepRecord) {
        // The first step on a GPU tries out kernels, so it takes longer than any later one.
        let tries = self.plan.as_ref().is_some_and(|plan| plan.on_gpu && plan.done == self.timed_from.1);
        if tries {
            self.timed_from = (Instant::now(), record.step);
        }
        if self.bar.is_none() && Instant::now() < self.line_due {
            return;
        }
        let shown = format!(
            // The last batch of the last epoch is filled up with images from the next.
            "epoch {:.1}/{}  loss {:.3}  acc {}  {} views/s",
            record.epoch.min(self.epochs as f64),
            self.epochs,
            record.loss,
            terminal::percent(record.contrastive_accuracy),
            speed(record.views_per_s),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(record.step);
                bar.set_message(shown);
            }
            None => {
                let left = self.left(record.step, 1).map_or_else(String::new, left);
                terminal::say(&(shown + &left));
                self.line_due = Instant::now() + NEXT_LINE;
            }
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        // A few steps after resuming say little: the time contains the whole measuring at the end of the epoch.
        let half_an_epoch = self.plan.as_ref().map_or(1, |plan| plan.steps / self.epochs.max(1) / 2);
        let left = self.left(record.step, half_an_epoch.max(1)).filter(|_| record.epoch < self.epochs);
        terminal::say(&epoch_line(record, self.epochs, left));
        self.skipped = [self.skipped[1], record.skipped];
        self.line_due = self.line_due.max(Instant::now() + NEXT_LINE);
    }

    fn warn(&mut self, message: &str) {
        terminal::warn(message);
    }

    fn note(&mut self, message: &str) {
        terminal::say(message);
    }

    fn rescued(&mut self, checkpoint: &Path, lost: u64) {
        self.rescued = Some(Rescue { checkpoint: checkpoint.to_path_buf(), lost });
    }

    fn stop(&self) -> bool {
        interrupt::requested()
    }
}

/// Follows a worker of a run that another worker keeps and reports on.
pub struct Assisting;

impl Observer for Assisting {
    fn started(&mut self, plan: &Plan) {
        terminal::say(&plan.memory.to_string());
    }

    fn step(&mut self, _: &StepRecord) {}

    fn epoch(&mut self, record: &EpochRecord) {
        terminal::say(&format!("epoch {} is done", record.epoch));
    }

    fn warn(&mut self, message: &str) {
        terminal::warn(message);
    }

    fn stop(&self) -> bool {
        interrupt::requested()
    }
}

/// Explains the figures of [`epoch_line`].
fn legend(plan: &Plan) -> &'static str {
    match plan.holdout {
        0 => "acc: contrastive accuracy, the share of views that find their partner",
        _ => "acc: views that find their partner (training/held out); rank: dimensions in use",
    }
}

/// The figures of an epoch, in a line that fits into 80 columns.
fn epoch_line(record: &EpochRecord, epochs: u64, time_left: Option<Duration>) -> String {
    let accuracy = terminal::percent(record.train_contrastive_accuracy);
    let mut line = format!("epoch {}/{epochs}  loss {:.3}  acc {accuracy}", record.epoch, record.train_loss);
    if let Some(health) = &record.health {
        let accuracy = terminal::percent(health.contrastive_accuracy);
        line += &format!("/{accuracy}  rank {:.0}", health.rank_me_h);
    }
    if let Some(knn) = record.knn_top1 {
        line += &format!("  kNN {}", terminal::percent(knn));
    }
    line + &time_left.map_or_else(String::new, left)
}

/// Views per second; few of them with decimals.
fn speed(views_per_s: f64) -> String {
    match views_per_s {
        slow if slow < 0.995 => format!("{slow:.2}"),
        slow if slow < 9.95 => format!("{slow:.1}"),
        fast => terminal::grouped(fast.round() as u64),
    }
}

fn left(time: Duration) -> String {
    format!("  {} left", terminal::clock(time))
}

/// What is worth knowing of a schedule before the first step.
fn rates(schedule: &Schedule) -> String {
    let warmup = match schedule.warmup_steps() {
        0 => "without warm-up".to_owned(),
        steps => format!("after {} of warm-up", terminal::counted(steps as usize, "step")),
    };
    format!("peak learning rate {}, {warmup}", short(schedule.peak()))
}

/// Prints a plan over `epochs` epochs. `does` is what the program does or would do with it.
pub fn tell(does: &str, plan: &Plan, epochs: u64) {
    let held_out = match plan.holdout {
        0 => String::new(),
        // More may have been asked for.
        images if images == (plan.images + images) / 10 => {
            format!(" ({} held out, the limit of one tenth)", terminal::grouped(images as u64))
        }
        images => format!(" ({} held out)", terminal::grouped(images as u64)),
    };
    terminal::say(&format!(
        "{does} on {}{held_out}: {}, {} of {} images, {} parameters, {}",
        terminal::counted(plan.images, "image"),
        terminal::counted(epochs as usize, "epoch"),
        terminal::counted(plan.steps as usize, "step"),
        terminal::grouped(plan.batch as u64),
        terminal::grouped(plan.parameters as u64),
        plan.device,
    ));
    terminal::say(&rates(&plan.schedule));
    if let Some(starts_from) = &plan.starts_from {
        terminal::say(starts_from);
    }
    let each = match plan.workers {
        1 => String::new(),
        workers => format!("{workers} workers share each batch; each "),
    };
    terminal::say(&format!("{each}{}", plan.memory));
    if plan.cached.bytes >= WORTH_TELLING || plan.cached.shrunk.is_some() {
        terminal::say(&plan.cached.to_string());
    }
    data::say_left_out(&plan.left_out);
    if plan.views != ViewsPlace::Cpu(None) {
        terminal::say(&plan.views.to_string());
    }
}

#[cfg(test)]
mod tests {
    use simclr_train::pretrain::Health;
    use simclr_train::{Config, Layers};

    use super::*;

    #[test]
    fn a_plan_says_how_fast_a_run_learns() {
        let told = |set: &str| {
            let sets = ["train.batch=4096".to_owned(), set.to_owned()];
            let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
            rates(&Schedule::new(&config, 1_281_167))
        };
        assert_eq!(told("optim.scaling=sqrt"), "peak learning rate 4.8, after 3,127 steps of warm-up");
        assert_eq!(told("optim.warmup_epochs=0"), "peak learning rate 4.8, without warm-up");
        assert_eq!(told("optim.rate=1e-50"), "peak learning rate 1.6e-49, after 3,127 steps of warm-up");
    }

    #[test]
    fn a_slow_run_does_not_stand_still() {
        let told = [0.04, 0.41, 9.94, 9.96, 10.0, 1234.5].map(speed);
        assert_eq!(told, ["0.04", "0.41", "9.9", "10", "10", "1,235"]);
    }

    #[test]
    fn a_line_of_an_epoch_fits_into_80_columns() {
        let health = Health {
            loss: 5.0,
            contrastive_accuracy: 0.443,
            alignment: 0.0,
            uniformity: 0.0,
            rank_me_h: 112.4,
            rank_me_z: 0.0,
            spread: 0.0,
        };
        let record = EpochRecord {
            epoch: 100,
            step: 7,
            train_loss: 5.1234,
            train_contrastive_accuracy: 0.458,
            health: Some(health),
            knn_top1: Some(0.731),
            skipped: 0,
        };
        let line = epoch_line(&record, 800, Some(Duration::from_secs(3763)));
        assert_eq!(line, "epoch 100/800  loss 5.123  acc 45.8%/44.3%  rank 112  kNN 73.1%  1:02:43 left");
        assert!(line.len() <= 80);
        let bare = EpochRecord { health: None, knn_top1: None, ..record };
        assert_eq!(epoch_line(&bare, 800, None), "epoch 100/800  loss 5.123  acc 45.8%");
    }
}
