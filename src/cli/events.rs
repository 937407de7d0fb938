//! `--events`: what happens during a build, a JSON object a line, for infrastructure that keeps logs.
//!
//! ```text
//! {"version":1,"time":"2026-12-01T17:00:00.000Z","event":"begin","tool":{…},"command":"build","image":"…"}
//! {"version":1,"time":…,"event":"started" | "advanced" | "finished" | "warning" | "output", …}
//! {"version":1,"time":…,"event":"result","outcome":"failed","exit_code":3,"error":{"kind":"unsupported",…}}
//! ```
//!
//! `events.schema.json` beside this file describes every line.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result};
use bootpress::error::{Corrupt, Unsupported};
use bootpress::output::FileFormat;
use bootpress::progress::Event;
use bootpress::report::Report;
use serde_json::{Value, json};

use super::json::{Lines, VERSION};
use super::{exit, exit_code};

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EventTarget {
    /// A file, which is written anew.
    File(PathBuf),
    /// A file descriptor that this process was given.
    Descriptor(u32),
}

impl FromStr for EventTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text {
                "" | "-" => Err("expected a file, or the number of a file descriptor".to_owned()),
                file => Ok(Self::File(file.into())),
            };
        }
        match text.parse() {
            Ok(0) | Err(_) => {
                Err("expected the number of a file descriptor that is written to".to_owned())
            }
            Ok(number) => Ok(Self::Descriptor(number)),
        }
    }
}

/// The stream of events of a command. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    began: Instant,
    out: Arc<Mutex<(File, Lines)>>,
}

impl Events {
    /// Opens the stream.
    pub(crate) fn open(target: &EventTarget) -> Result<Self> {
        let file = match target {
            EventTarget::File(path) => File::create(path)
                .with_context(|| format!("creating the file of --events {}", path.display()))?,
            // By its name in /proc, so that it is a file of ours; a regular one may have other lines in it already.
            EventTarget::Descriptor(number) => OpenOptions::new()
                .append(true)
                .open(format!("/proc/self/fd/{number}"))
                .with_context(|| format!("opening file descriptor {number} for --events"))?,
        };
        let out = Arc::new(Mutex::new((file, Lines::default())));
        Ok(Self { began: Instant::now(), out })
    }

    /// What is to be built.
    pub(crate) fn begin(&self, image: &str, architecture: Option<&str>, formats: &[String]) {
        self.write(json!({
            "event": "begin",
            "tool": { "name": "bootpress", "version": env!("CARGO_PKG_VERSION") },
            "command": "build",
            "image": image,
            "architecture": architecture,
            "formats": formats,
        }));
    }

    /// What the engine announces.
    pub(crate) fn hear(&self, event: &Event) {
        let line = self.out.lock().ok().and_then(|mut out| out.1.line(event));
        line.into_iter().for_each(|line| self.write(line));
    }

    /// How a build ended.
    pub(crate) fn end(&self, result: Result<&Report, &Error>) {
        let seconds = (self.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        match result {
            Ok(report) => {
                self.outputs(report);
                self.write(json!({
                    "event": "result",
                    "outcome": "done",
                    "exit_code": 0,
                    "seconds": seconds,
                    "digest": report.image.digest,
                }));
            }
            Err(error) => {
                let hint = error.downcast_ref().and_then(|Unsupported { hint, .. }| hint.clone());
                let kind = match exit_code(error) {
                    exit::UNSUPPORTED => "unsupported",
                    exit::CORRUPT => "corrupt",
                    _ => "failed",
                };
                debug_assert_eq!(kind == "corrupt", error.is::<Corrupt>());
                self.write(json!({
                    "event": "result",
                    "outcome": "failed",
                    "exit_code": exit_code(error),
                    "seconds": seconds,
                    "error": { "kind": kind, "message": format!("{error:#}"), "hint": hint },
                }));
            }
        }
    }

    fn outputs(&self, report: &Report) {
        for file in &report.files {
            let format = FileFormat { format: file.format, packing: file.compression }.to_string();
            self.write(json!({
                "event": "output", "path": file.path, "what": "disk", "format": format,
                "size": file.size, "sha256": file.sha256,
            }));
        }
        for medium in &report.media {
            self.write(json!({
                "event": "output", "path": medium.path, "what": "medium", "format": medium.format,
                "size": medium.size, "sha256": medium.sha256,
            }));
        }
        for document in &report.documents {
            self.write(json!({
                "event": "output", "path": document.path, "what": document.kind,
                "size": document.size, "sha256": document.sha256,
            }));
        }
        for published in &report.published {
            self.write(
                json!({ "event": "output", "path": published.path, "what": published.what }),
            );
        }
    }

    fn write(&self, line: Value) {
        let Ok(mut out) = self.out.lock() else { return };
        let mut whole = json!({ "version": VERSION, "time": now() });
        if let (Some(whole), Value::Object(line)) = (whole.as_object_mut(), line) {
            whole.extend(line.into_iter().filter(|(key, _)| key != "version"));
        }
        // If nobody listens, the work goes on.
        let _ = out.0.write_all(format!("{whole}\n").as_bytes());
    }
}

/// The time in UTC, as RFC 3339 spells it.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    spelled(since.as_secs(), since.subsec_millis())
}

fn spelled(seconds: u64, milliseconds: u32) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// The Gregorian date of a day since 1970-01-01: counted from March on, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_as_date_does() {
        assert_eq!(spelled(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(spelled(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(spelled(951_868_799, 1), "2000-02-29T23:59:59.001Z");
        assert_eq!(spelled(1_764_608_400, 0), "2025-12-01T17:00:00.000Z");
        assert_eq!(spelled(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn targets_are_files_or_numbers() {
        assert_eq!("3".parse(), Ok(EventTarget::Descriptor(3)));
        assert_eq!("./3".parse(), Ok(EventTarget::File("./3".into())));
        for wrong in ["", "-", "0", "99999999999"] {
            assert!(wrong.parse::<EventTarget>().is_err(), "{wrong}");
        }
    }
}
