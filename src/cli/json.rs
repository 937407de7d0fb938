//! Progress and results for programs: JSON lines on standard error, one JSON document on standard output.
//!
//! ```text
//! {"version":1,"event":"started","stage":"unpacking","bytes":74210304}
//! {"version":1,"event":"advanced","stage":"unpacking","done":1048576}       at most 5 a second for each stage
//! {"version":1,"event":"finished","stage":"unpacking","done":74210304,"seconds":1.934}
//! {"version":1,"event":"warning","code":"disk-size","message":"…"}
//! ```
//!
//! `events.schema.json` describes them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bootpress::progress::{Event, Progress, Stage};
use serde_json::json;

use super::say::{self, say};

/// Version of the lines' vocabulary; grows when a reader would have to change.
pub(super) const VERSION: u32 = 1;

/// Not more often than this for each stage.
const INTERVAL: Duration = Duration::from_millis(200);

/// One JSON object a line, on standard error.
pub(crate) fn lines() -> Progress {
    let lines: Mutex<Lines> = Mutex::default();
    Progress::to(move |event| {
        let Ok(mut lines) = lines.lock() else { return };
        if let Some(line) = lines.line(&event) {
            say!("{}", say::json(&line.to_string()));
        }
    })
}

/// Makes lines of announcements.
#[derive(Default)]
pub(super) struct Lines {
    /// For each stage: bytes that are done, and when they were last told.
    stages: HashMap<Stage, (u64, Instant)>,
}

impl Lines {
    /// The line for an announcement; `None`: there is nothing to tell yet.
    pub(super) fn line(&mut self, event: &Event) -> Option<serde_json::Value> {
        match event {
            Event::Started { stage, bytes } => {
                self.stages.insert(*stage, (0, Instant::now()));
                Some(
                    json!({"version": VERSION, "event": "started", "stage": stage.name(), "bytes": bytes}),
                )
            }
            Event::Advanced { stage, bytes } => {
                let (done, last) = self.stages.get_mut(stage)?;
                *done += bytes;
                if last.elapsed() < INTERVAL {
                    return None;
                }
                *last = Instant::now();
                Some(
                    json!({"version": VERSION, "event": "advanced", "stage": stage.name(), "done": done}),
                )
            }
            Event::Finished { stage, took } => {
                let (done, _) = self.stages.remove(stage)?;
                let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
                Some(
                    json!({"version": VERSION, "event": "finished", "stage": stage.name(), "done": done, "seconds": seconds}),
                )
            }
            Event::Warning { code, message } => Some(
                json!({"version": VERSION, "event": "warning", "code": code.name(), "message": message}),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_announced_and_summed() {
        let mut lines = Lines::default();
        let started = lines.line(&Event::Started { stage: Stage::Write, bytes: Some(9) }).unwrap();
        assert_eq!(
            started.to_string(),
            r#"{"version":1,"event":"started","stage":"writing","bytes":9}"#
        );
        assert!(lines.line(&Event::Advanced { stage: Stage::Write, bytes: 4 }).is_none());
        lines.line(&Event::Advanced { stage: Stage::Write, bytes: 5 });
        let took = Duration::from_millis(1234);
        let finished = lines.line(&Event::Finished { stage: Stage::Write, took }).unwrap();
        assert_eq!(
            finished.to_string(),
            r#"{"version":1,"event":"finished","stage":"writing","done":9,"seconds":1.234}"#
        );
    }
}
