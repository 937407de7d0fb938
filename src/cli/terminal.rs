//! Progress for people: bars on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use bootpress::progress::{Event, Progress, Stage};
use bootpress::report::human;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::say::{self, say};

/// Bars if standard error is a terminal, else a line a stage.
pub(crate) fn automatic() -> Progress {
    if std::io::stderr().is_terminal() { bars() } else { lines() }
}

/// A bar a stage, on standard error.
pub(crate) fn bars() -> Progress {
    let bars = Bars {
        all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
        by_stage: Mutex::default(),
    };
    Progress::to(move |event| bars.draw(&event))
}

/// A line when a stage begins and when it ends, on standard error.
pub(crate) fn lines() -> Progress {
    let done: Mutex<HashMap<Stage, u64>> = Mutex::default();
    Progress::to(move |event| {
        let Ok(mut done) = done.lock() else { return };
        match event {
            Event::Started { stage, bytes: Some(bytes) } => {
                say!("{} {}", stage.name(), human(bytes))
            }
            Event::Started { stage, bytes: None } => say!("{}", stage.name()),
            Event::Advanced { stage, bytes } => *done.entry(stage).or_default() += bytes,
            Event::Finished { stage, took } => {
                let bytes = done.remove(&stage).unwrap_or(0);
                say!("{} done: {} in {}", stage.name(), human(bytes), duration(took));
            }
            Event::Warning { message, .. } => say!("warning: {message}"),
        }
    })
}

struct Bars {
    all: MultiProgress,
    by_stage: Mutex<HashMap<Stage, ProgressBar>>,
}

impl Bars {
    fn draw(&self, event: &Event) {
        let Ok(mut by_stage) = self.by_stage.lock() else { return };
        match event {
            Event::Started { stage, bytes } => {
                let bar = self.all.add(bar(*stage, *bytes));
                by_stage.insert(*stage, bar);
            }
            Event::Advanced { stage, bytes } => {
                if let Some(bar) = by_stage.get(stage) {
                    bar.inc(*bytes);
                }
            }
            Event::Finished { stage, took } => {
                if let Some(bar) = by_stage.remove(stage) {
                    let bytes = bar.position();
                    bar.finish_and_clear();
                    let _ = self.all.println(format!(
                        "{:>11} {:>10}  {}",
                        stage.name(),
                        human(bytes),
                        duration(*took)
                    ));
                }
            }
            Event::Warning { message, .. } => {
                let _ = self.all.println(say::indented(&format!("warning: {message}")));
            }
        }
    }
}

fn bar(stage: Stage, bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{msg:>11} {binary_bytes:>10} of {binary_total_bytes:<10} {wide_bar} {binary_bytes_per_sec:>12} {eta:>4}",
        ),
        None => (ProgressBar::no_length(), "{msg:>11} {binary_bytes:>10} {spinner}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(stage.name());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A duration for people.
pub(crate) fn duration(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:02} s", took.as_secs() / 60, took.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
    }
}
