//! `results.yaml`, as a test with `result: custom` leaves it for tmt: a result to a case, a subresult to a check.

use std::time::Duration;

use serde_json::{Value, json};

use super::suite::{Case, State, Suite};
use super::text::date;
use super::yaml;

/// Files that tmt shows with a result, as far as they are there; the first is the one it opens.
const LOGS: [&str; 4] = ["console.log", "journal.txt", "result.json", "qmp.log"];

pub(super) fn render(suite: &Suite) -> String {
    let results = suite.cases.iter().map(|case| result(suite, case));
    yaml::block(&Value::Array(results.collect()), 0)
}

fn result(suite: &Suite, case: &Case) -> Value {
    let outcome = match case.state() {
        State::Passed => "pass",
        State::Failed => "fail",
        State::LeftOut => "skip",
        State::Error => "error",
    };
    let seconds = case.seconds();
    let proof = case.report().map(|report| format!("proof: {}", report.proof.described()));
    let mut notes: Vec<&str> = case.reason().into_iter().chain(proof.as_deref()).collect();
    let mut value = json!({
        "name": format!("/boot/{}/{}", part(&case.disk_name()), part(&case.machine)),
        "result": outcome,
        "start-time": zoned(case.began),
        "end-time": zoned(case.began + Duration::try_from_secs_f64(seconds).unwrap_or_default()),
        "duration": clock(seconds),
        "ids": {},
        "context": {},
        "log": logs(case),
    });
    if let Some(compose) = &suite.compose {
        value["context"]["compose"] = json!([compose]);
    }
    if let Some(report) = case.report() {
        notes.extend(report.suspicions.iter().map(String::as_str));
        value["context"]["arch"] = json!([report.machine.architecture.name()]);
        let checks = report.checks.iter().map(|check| {
            let result = match (check.passed, check.tolerated) {
                (true, _) => "pass",
                (false, true) => "warn",
                (false, false) => "fail",
            };
            let name = format!("/{}", part(check.name));
            json!({ "name": name, "result": result, "note": [check.detail] })
        });
        value["subresult"] = Value::Array(checks.collect());
    }
    value["note"] = json!(notes);
    value
}

fn logs(case: &Case) -> Vec<String> {
    let Some(evidence) = &case.evidence else { return Vec::new() };
    let there = LOGS.iter().map(|name| evidence.join(name)).filter(|file| file.is_file());
    there.map(|file| file.to_string_lossy().into_owned()).collect()
}

/// A part of a name: what would end it, or be no name on a disk, is a hyphen.
fn part(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

/// `2026-11-23T01:02:03.000000+00:00`.
fn zoned(time: std::time::SystemTime) -> String {
    date(time) + ".000000+00:00"
}

/// `00:01:42`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
