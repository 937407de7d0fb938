//! Progress and results for programs: JSON lines on standard error, one JSON document on standard output.
//!
//! ```text
//! {"version":1,"event":"started","stage":"unpacking","bytes":74210304}
//! {"version":1,"event":"advanced","stage":"unpacking","done":1048576}       at most 5 a second for each stage
//! {"version":1,"event":"finished","stage":"unpacking","done":74210304,"seconds":1.934}
//! {"version":1,"event":"warning","message":"…"}
//! ```

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bootpress::progress::{Event, Progress, Stage};
use serde_json::json;

use super::say::{self, say};

/// Version of the lines' vocabulary; grows when a reader would have to change.
const VERSION: u32 = 1;

/// Not more often than this for each stage.
const INTERVAL: Duration = Duration::from_millis(200);

/// One JSON object a line, on standard error.
pub(crate) fn lines() -> Progress {
    let state: Mutex<HashMap<Stage, (u64, Instant)>> = Mutex::default();
    Progress::to(move |event| {
        let Ok(mut state) = state.lock() else { return };
        if let Some(line) = line(&event, &mut state) {
            say!("{}", say::json(&line.to_string()));
        }
    })
}

fn line(event: &Event, state: &mut HashMap<Stage, (u64, Instant)>) -> Option<serde_json::Value> {
    match event {
        Event::Started { stage, bytes } => {
            state.insert(*stage, (0, Instant::now()));
            Some(
                json!({"version": VERSION, "event": "started", "stage": stage.name(), "bytes": bytes}),
            )
        }
        Event::Advanced { stage, bytes } => {
            let (done, last) = state.get_mut(stage)?;
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
            let (done, _) = state.remove(stage)?;
            let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
            Some(
                json!({"version": VERSION, "event": "finished", "stage": stage.name(), "done": done, "seconds": seconds}),
            )
        }
        Event::Warning { message } => {
            Some(json!({"version": VERSION, "event": "warning", "message": message}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_announced_and_summed() {
        let mut state = HashMap::new();
        let started =
            line(&Event::Started { stage: Stage::Write, bytes: Some(9) }, &mut state).unwrap();
        assert_eq!(
            started.to_string(),
            r#"{"version":1,"event":"started","stage":"writing","bytes":9}"#
        );
        assert!(line(&Event::Advanced { stage: Stage::Write, bytes: 4 }, &mut state).is_none());
        line(&Event::Advanced { stage: Stage::Write, bytes: 5 }, &mut state);
        let took = Duration::from_millis(1234);
        let finished = line(&Event::Finished { stage: Stage::Write, took }, &mut state).unwrap();
        assert_eq!(
            finished.to_string(),
            r#"{"version":1,"event":"finished","stage":"writing","done":9,"seconds":1.234}"#
        );
    }
}
