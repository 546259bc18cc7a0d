//! Progress of an evaluation: a bar on a terminal; elsewhere a line for each stage that takes some time.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use simclr_eval::protocols::{Progress, Side};
use simclr_train::Schedule;
use simclr_words::text::short;

use crate::progress::{FIRST_LINE, NEXT_LINE};
use crate::terminal::{self, Bar};

/// Without a bar, a stage gets a line once it has taken this long.
const WORTH_A_LINE: Duration = Duration::from_secs(2);

/// A line that is printed after a delay, unless this is dropped before.
struct Line(#[expect(dead_code, reason = "that it goes is what is waited for")] Sender<()>);

impl Line {
    fn after(delay: Duration, say: impl FnOnce() + Send + 'static) -> Line {
        let (kept, dropped) = channel();
        thread::spawn(move || {
            if dropped.recv_timeout(delay) == Err(RecvTimeoutError::Timeout) {
                say();
            }
        });
        Line(kept)
    }
}

/// Shows the progress that a protocol reports.
#[derive(Default)]
pub struct EvaluationProgress {
    /// What precedes every stage.
    subject: String,
    stage: String,
    bar: Option<Bar>,
    line: Option<Line>,
    timed: Option<Timed>,
}

/// The time that a stage takes.
struct Timed {
    /// When it began, or began anew: another rate is tried.
    start: Instant,
    /// How much was done when it was last looked at.
    done: u64,
    /// When the next line within it is due where there is no bar.
    due: Instant,
}

impl EvaluationProgress {
    /// Watches what is done on one of several data sets.
    pub fn of(name: &str) -> EvaluationProgress {
        EvaluationProgress { subject: format!("{name}: "), ..EvaluationProgress::default() }
    }

    /// Shows a report of a protocol.
    pub fn see(&mut self, progress: Progress) {
        match progress {
            Progress::Encoding { side, set, done, images } => {
                let who = side.map_or("both encoders".to_owned(), |side| side.to_string());
                let images_of_set = terminal::counted(images, &format!("{set} image"));
                let stage = format!("{who}: encoding {images_of_set}");
                self.advance(stage, format!("{who}: {set} images"), done as u64, images as u64);
            }
            Progress::Averaging { done, batches } => {
                let detail = format!("{}: running averages", Side::Random);
                self.advance(detail.clone(), detail, done as u64, batches as u64);
            }
            Progress::Fitting { side, tried, weights } => {
                let stage = format!("{side}: logistic regression");
                let detail = match tried < weights {
                    true => format!("{stage}, choosing the L2 weight"),
                    false => format!("{stage} on all training images"),
                };
                self.advance(stage, detail, tried as u64, weights as u64);
            }
            Progress::Planned { images, of, epochs, batch, rate, rates, memory } => {
                let rate = match rates {
                    1 => at_rate(rate),
                    more => format!("the best of {more} rates, chosen on a fifth of the labels"),
                };
                terminal::say(&format!(
                    "{} of {} labels: {}, {rate}",
                    terminal::grouped(images as u64),
                    terminal::grouped(of as u64),
                    training_plan(images, epochs, batch),
                ));
                terminal::say(&memory.to_string());
            }
            Progress::Tried { side, number, of, rate, decay, score } => {
                let found = score.map_or("the loss became NaN or infinite".to_owned(), |score| {
                    format!("{} on validation", terminal::percent(score))
                });
                let settings = match decay {
                    Some(decay) => format!("rate {}, decay {}", scientific(rate), scientific(decay)),
                    None => format!("{side}, {}", at_rate(rate)),
                };
                terminal::say(&format!("{}{number} of {of}: {settings}: {found}", self.subject));
            }
            Progress::Epoch { side, learner, epoch, epochs, loss, top1, .. } => {
                let detail =
                    format!("{side}: epoch {epoch}/{epochs}  loss {loss:.3}  {}", terminal::percent(top1));
                self.advance(format!("{side}: {learner}"), detail, epoch, epochs);
            }
        }
    }

    /// Shows how many images went through an encoder that is not being evaluated.
    pub fn embedding(&mut self, done: usize, images: usize) {
        let stage = format!("encoding {}", terminal::counted(images, "image"));
        self.advance(stage.clone(), stage, done as u64, images as u64);
    }

    fn begin(&mut self, stage: String, length: u64) {
        let stage = self.subject.clone() + &stage;
        if stage == self.stage {
            return;
        }
        // The bar before must leave the screen first.
        (self.bar, self.line) = (None, None);
        self.bar = terminal::bar(length);
        if self.bar.is_none() {
            let line = stage.clone();
            self.line = Some(Line::after(WORTH_A_LINE, move || terminal::say(&line)));
        }
        let now = Instant::now();
        self.timed = Some(Timed { start: now, done: 0, due: now + FIRST_LINE });
        self.stage = stage;
    }

    fn advance(&mut self, stage: String, detail: String, done: u64, all: u64) {
        self.begin(stage, all);
        if let Some(bar) = &self.bar {
            bar.set_message(self.subject.clone() + &detail);
            bar.set_position(done);
            return;
        }
        let Some(timed) = &mut self.timed else { return };
        let now = Instant::now();
        if done < timed.done {
            timed.start = now;
        }
        timed.done = done;
        if now >= timed.due {
            terminal::say(&(self.subject.clone() + &detail + &left(now - timed.start, done, all)));
            timed.due = now + NEXT_LINE;
        }
    }
}

/// How much of a stage is done after `taken`, and the time left.
fn left(taken: Duration, done: u64, all: u64) -> String {
    if done == 0 || done >= all {
        return String::new();
    }
    let share = done as f64 / all as f64;
    let percent = format!(", {:.0}%", 100.0 * share);
    match Duration::try_from_secs_f64(taken.as_secs_f64() * (1.0 - share) / share) {
        Ok(left) => format!("{percent}, {} left", terminal::clock(left)),
        // Longer than anyone can wait.
        Err(_) => percent,
    }
}

/// Describes training on `images` by stochastic gradient descent: epochs, steps and batch.
pub fn training_plan(images: usize, epochs: u64, batch: usize) -> String {
    let steps = Schedule::steps(images as u64, batch as u64, epochs);
    let counted = |count: u64, what| terminal::counted(count as usize, what);
    let (epochs, steps) = (counted(epochs, "epoch"), counted(steps, "step"));
    format!("{epochs}, {steps}, batch {}", terminal::grouped(batch as u64))
}

/// The rate of the first step.
pub fn at_rate(rate: f64) -> String {
    format!("rate {}", short(rate))
}

/// A number of 0 or more with two significant digits: "3.2e-4", "1e-2", "0".
fn scientific(number: f64) -> String {
    match number == 0.0 {
        true => "0".to_owned(),
        false => format!("{number:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_before_its_time_is_not_said() {
        let (said, heard) = channel();
        let soon = said.clone();
        let line = Line::after(Duration::ZERO, move || soon.send("soon").unwrap());
        assert_eq!(heard.recv(), Ok("soon"));
        drop((line, Line::after(Duration::from_secs(3600), move || said.send("late").unwrap())));
        // The senders are dropped with the closures that own them.
        assert!(heard.recv().is_err());
    }

    #[test]
    fn the_time_left_follows_the_share_done() {
        assert_eq!(left(Duration::from_secs(60), 25, 100), ", 25%, 3:00 left");
        assert_eq!([left(Duration::from_secs(60), 0, 9), left(Duration::from_secs(60), 9, 9)], ["", ""]);
        assert_eq!(left(Duration::from_secs(60), 1, u64::MAX), ", 0%");
    }
}
