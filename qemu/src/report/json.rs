//! Our own JSON, described by `result.schema.json`; new fields may come, those that are there stay.

use serde_json::{Value, json};

use super::suite::{State, Suite};
use super::text::date;

/// Grows when a reader would have to change.
const VERSION: u32 = 2;

pub(super) fn render(suite: &Suite) -> String {
    let cases = suite.cases.iter().map(|case| {
        let mut value = json!({
            "disk": case.disk,
            "machine": case.machine,
            "outcome": case.state().name().replace(' ', "-"),
            "began": date(case.began) + "Z",
        });
        if let Some(reason) = case.reason() {
            value["reason"] = json!(reason);
        }
        if let Some(evidence) = &case.evidence {
            value["evidence"] = json!(evidence);
        }
        if let Some(report) = case.report() {
            value["report"] = serde_json::to_value(report).unwrap_or(Value::Null);
        }
        value
    });
    let mut value = json!({
        "version": VERSION,
        "tool": suite.tool,
        "began": date(suite.began) + "Z",
        "seconds": suite.seconds,
        "passed": suite.passed(),
        "counts": State::ALL
            .iter()
            .map(|state| (state.name().replace(' ', "-"), json!(suite.count(*state))))
            .collect::<serde_json::Map<_, _>>(),
        "cases": cases.collect::<Vec<_>>(),
    });
    if let Some(compose) = &suite.compose {
        value["compose"] = json!(compose);
    }
    if let Some(subvariant) = &suite.subvariant {
        value["subvariant"] = json!(subvariant);
    }
    format!("{value:#}\n")
}
