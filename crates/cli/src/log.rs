//! What the libraries report by `tracing`, as lines on standard error.

use std::fmt::{Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::terminal;

/// Shows warnings, or what `RUST_LOG` asks for.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Fails only where a subscriber is set already, which then shows the same.
    let _ = Registry::default().with(Lines.with_filter(filter)).try_init();
}

/// Hides caught panics: those of decoders on damaged files are reported as errors, and need not show twice.
pub fn leave_out_caught_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !simclr_data::is_panic_caught() {
            report(panic);
        }
    }));
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let Text { message, fields } = text;
        let line = format!("{message}{fields}");
        match *event.metadata().level() {
            Level::ERROR => terminal::error(&line),
            Level::WARN => terminal::warn(&line),
            level => terminal::say(&format!("{}: {line}", level.as_str().to_lowercase())),
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
