//! Test Anything Protocol, version 13: a line to a case, what was looked at in a YAML block below it.

use super::suite::{Outcome, State, Suite};
use super::yaml;
use serde_json::{Value, json};

pub(super) fn render(suite: &Suite) -> String {
    let mut tap = format!("TAP version 13\n1..{}\n", suite.cases.len());
    for (number, case) in (1..).zip(&suite.cases) {
        let name = described(&format!("{} on {}", case.disk_name(), case.machine));
        let ok =
            if matches!(case.state(), State::Passed | State::LeftOut) { "ok" } else { "not ok" };
        let directive = match &case.outcome {
            Outcome::LeftOut(reason) => format!(" # SKIP {}", described(reason)),
            // The host's fault, not the disk's. Readers that do not know the word take it for a remark.
            _ if case.state() == State::Error => " # host".to_owned(),
            _ => String::new(),
        };
        tap += &format!("{ok} {number} - {name}{directive}\n");
        if let Outcome::LeftOut(_) = case.outcome {
            continue;
        }
        let mut block = json!({ "duration_ms": (case.seconds() * 1000.0).round() });
        if let Some(reason) = case.reason() {
            block["message"] = json!(reason);
        }
        if let Some(report) = case.report() {
            block["severity"] = json!(match case.state() {
                State::Passed => "comment",
                State::Error => "error",
                _ => "fail",
            });
            block["proof"] = json!(report.proof.described());
            block["furthest"] = json!(report.furthest().name());
            let checks = report.checks.iter().map(|check| {
                let passed = if check.passed { "passed" } else { "failed" };
                (check.name.to_string(), json!(format!("{passed}: {}", check.detail)))
            });
            block["checks"] = Value::Object(checks.collect());
            if !report.passed() {
                block["console"] = json!(report.console_tail);
            }
        }
        tap += &format!("  ---\n{}  ...\n", yaml::block(&block, 2));
    }
    tap
}

/// A description has no `#`, which begins a directive, and is a line.
fn described(text: &str) -> String {
    text.chars().map(|c| if c == '#' || c.is_control() { ' ' } else { c }).collect()
}
