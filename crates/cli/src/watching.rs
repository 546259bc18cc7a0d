//! How an evaluation is watched: a bar on a terminal, a line a stage elsewhere.

use simclr_eval::protocols::{Progress, Side};
use simclr_eval::report::short;
use simclr_train::Schedule;

use crate::terminal::{self, Bar};

/// Shows what a protocol tells.
#[derive(Default)]
pub struct Watching {
    /// What stands before every stage.
    subject: String,
    stage: String,
    bar: Option<Bar>,
}

impl Watching {
    /// Watches what is done on one of several data sets.
    pub fn of(name: &str) -> Watching {
        Watching { subject: format!("{name}: "), ..Watching::default() }
    }

    /// Takes what a protocol tells.
    pub fn see(&mut self, progress: Progress) {
        match progress {
            Progress::Encoding { side, set, done, images } => {
                let detail = format!("{side}, {set} images");
                self.advance(detail.clone(), detail, done as u64, images as u64);
            }
            Progress::Averaging { done, batches } => {
                let detail = format!("{}, running averages", Side::Random);
                self.advance(detail.clone(), detail, done as u64, batches as u64);
            }
            Progress::Fitting { side } => self.begin(format!("{side}, logistic regression"), None),
            Progress::Planned { images, of, epochs, batch, rate, rates, memory } => {
                let choice = match rates {
                    1 => String::new(),
                    more => format!(" or what does best of {more}, tried on four fifths of the labels"),
                };
                terminal::say(&format!(
                    "{} of {} labels: {}{choice}",
                    terminal::grouped(images as u64),
                    terminal::grouped(of as u64),
                    training_plan(images, (epochs, batch, rate)),
                ));
                terminal::say(&memory.to_string());
            }
            Progress::Tried { side, number, of, rate, decay, score } => {
                let found = score.map_or("the loss became no number".to_owned(), |score| {
                    format!("{} on validation", terminal::percent(score))
                });
                let settings = match decay {
                    Some(decay) => format!("rate {}, decay {}", scientific(rate), scientific(decay)),
                    None => format!("{side}, rate {}", short(rate)),
                };
                terminal::say(&format!("{}{number} of {of}: {settings}: {found}", self.subject));
            }
            Progress::Epoch { side, learner, epoch, epochs, loss, top1, .. } => {
                let detail =
                    format!("{side}, epoch {epoch}/{epochs}  loss {loss:.3}  {}", terminal::percent(top1));
                self.advance(format!("{side}, {learner}"), detail, epoch, epochs);
            }
        }
    }

    /// Images went through an encoder that is not judged.
    pub fn embedding(&mut self, done: usize, images: usize) {
        let stage = format!("{} to go through the encoder", terminal::counted(images, "image"));
        self.advance(stage, "images".to_owned(), done as u64, images as u64);
    }

    fn begin(&mut self, stage: String, length: Option<u64>) {
        let stage = self.subject.clone() + &stage;
        if stage == self.stage {
            return;
        }
        // The one before leaves the screen first.
        self.bar = None;
        self.bar = length.and_then(terminal::bar);
        if self.bar.is_none() {
            terminal::say(&stage);
        }
        self.stage = stage;
    }

    fn advance(&mut self, stage: String, detail: String, done: u64, all: u64) {
        self.begin(stage, Some(all));
        if let Some(bar) = &self.bar {
            bar.set_message(self.subject.clone() + &detail);
            bar.set_position(done);
        }
    }
}

/// How `images` are learnt from by stochastic gradient descent: epochs, images a step, rate of the first step.
pub fn training_plan(images: usize, (epochs, batch, rate): (u64, usize, f64)) -> String {
    let steps = Schedule::steps(images as u64, batch as u64, epochs);
    let counted = |count: u64, what| terminal::counted(count as usize, what);
    let (epochs, steps, rate) = (counted(epochs, "epoch"), counted(steps, "step"), short(rate));
    format!("{epochs}, {steps}, batch {batch}, rate {rate}")
}

/// A number of 0 or more in two digits: "3.2e-4", "1e-2", "0".
fn scientific(number: f64) -> String {
    match number == 0.0 {
        true => "0".to_owned(),
        false => format!("{number:.1e}").replace(".0e", "e"),
    }
}
