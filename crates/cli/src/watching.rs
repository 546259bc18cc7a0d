//! How an evaluation is watched: a bar on a terminal, a line a stage elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use simclr_eval::protocols::Progress;

use crate::terminal;

const TEMPLATE: &str = "{bar:24} {percent:>3}%  {msg}  {eta_precise} left";

/// Shows what a protocol tells.
#[derive(Default)]
pub struct Watching {
    stage: String,
    bar: Option<ProgressBar>,
}

impl Watching {
    /// Takes what a protocol tells.
    pub fn see(&mut self, progress: Progress) {
        match progress {
            Progress::Encoding { side, set, done, images } => {
                let detail = format!("{side}, {set} images");
                self.advance(detail.clone(), detail, done as u64, images as u64);
            }
            Progress::Fitting { side } => self.begin(format!("{side}, logistic regression"), None),
            Progress::Epoch { side, epoch, epochs, loss, top1, .. } => {
                let detail =
                    format!("{side}, epoch {epoch}/{epochs}  loss {loss:.3}  {}", terminal::percent(top1));
                self.advance(format!("{side}, linear classifier"), detail, epoch, epochs);
            }
        }
    }

    fn begin(&mut self, stage: String, length: Option<u64>) {
        if stage == self.stage {
            return;
        }
        self.end();
        match length.filter(|_| terminal::is_interactive()) {
            Some(length) => {
                let bar = ProgressBar::new(length);
                if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                    bar.set_style(style.progress_chars("=> "));
                }
                terminal::show_bar(bar.clone());
                self.bar = Some(bar);
            }
            None => terminal::say(&stage),
        }
        self.stage = stage;
    }

    fn advance(&mut self, stage: String, detail: String, done: u64, all: u64) {
        self.begin(stage, Some(all));
        if let Some(bar) = &self.bar {
            bar.set_message(detail);
            bar.set_position(done);
        }
    }

    fn end(&mut self) {
        if self.bar.take().is_some() {
            terminal::hide_bar();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.end();
    }
}
