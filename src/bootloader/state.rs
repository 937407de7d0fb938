//! `/boot/bootupd-state.json`: what is installed, for the bootupd inside the image to update later.

use anyhow::Result;
use serde_json::{Map, Value, json};

/// Its name in `/boot`.
pub(super) const FILE: &[u8] = b"bootupd-state.json";

/// The components installed so far.
#[derive(Default)]
pub(super) struct State {
    installed: Map<String, Value>,
}

impl State {
    /// Adds a component. `file_tree`: its files on the ESP, if it has any.
    pub(super) fn add(&mut self, name: &str, metadata: &Value, file_tree: Option<&Value>) {
        let component = json!({"meta": metadata, "filetree": file_tree, "adopted-from": null});
        self.installed.insert(name.to_owned(), component);
    }

    /// The file. Its keys are bootupd's; it refuses others at the top. `version` and `time` are of the image's bootupd.
    pub(super) fn json(self, version: Option<&str>, time: i64) -> Result<Vec<u8>> {
        let state = json!({
            "installed": self.installed,
            "pending": null,
            "static-configs": {
                "timestamp": rfc3339(time),
                // bootupd only shows it.
                "version": version.unwrap_or("unknown"),
                "versions": null,
            },
        });
        Ok(serde_json::to_vec(&state)?)
    }
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`, of years 1970 to 9999; others become the nearest of those.
fn rfc3339(time: i64) -> String {
    let time = time.clamp(0, 253_402_300_799);
    let (days, seconds) = (time / 86_400, time % 86_400);
    // Days since 0000-03-01, so that a leap day is the last of its year; 400 years have 146097.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_date_does() {
        // Each checked with `date -u -d @N +%FT%TZ`.
        for (time, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(time), text);
        }
    }
}
