//! Reports for programs: JSON, SARIF 2.1.0 (OASIS), JUnit.
//!
//! Written here and not by a library: those for SARIF bring generated types for all of its 240 kinds of objects, of which a
//! gate needs eight, and take longer to compile than the rest of this program. The tests validate against SARIF's own schema.

use serde_json::{Value, json};

use super::{Finding, Report, Severity, Status, rule, rules};

/// Where SARIF's readers find what they may expect.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything, as JSON.
pub fn json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report)
}

/// Static analysis results: each rule once, and a result for every violation.
pub fn sarif(report: &Report) -> serde_json::Result<String> {
    let descriptors: Vec<Value> = rules()
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "name": pascal(&rule.id),
                "shortDescription": { "text": rule.title },
                "fullDescription": { "text": rule.why },
                "help": { "text": rule.fix },
                "defaultConfiguration": { "level": rule.severity.name() },
                "properties": { "tags": [rule.about.name()] },
            })
        })
        .collect();
    let mut results = Vec::new();
    for finding in &report.findings {
        let index = rules().iter().position(|rule| rule.id == finding.rule);
        for counted in &finding.violations {
            let place = counted.violation.place.as_deref().unwrap_or(finding.rule);
            results.push(json!({
                "ruleId": finding.rule,
                "ruleIndex": index,
                "level": counted.severity.name(),
                "message": { "text": counted.violation.message },
                "locations": [{
                    "physicalLocation": { "artifactLocation": { "uri": uri(&report.target) } },
                    "logicalLocations": [{ "fullyQualifiedName": place }],
                }],
            }));
        }
    }
    let skipped: Vec<Value> = report
        .findings
        .iter()
        .filter_map(|finding| Some((finding.rule, finding.skipped.as_ref()?)))
        .map(|(rule, why)| {
            json!({ "level": "note", "message": { "text": format!("{rule} was not judged: {why}") } })
        })
        .collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "bootpress check",
                "version": VERSION,
                "semanticVersion": VERSION,
                "rules": descriptors,
            } },
            "columnKind": "unicodeCodePoints",
            "artifacts": [{ "location": { "uri": uri(&report.target) } }],
            "invocations": [{ "executionSuccessful": true, "toolExecutionNotifications": skipped }],
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&log)
}

/// `image.tag-form` as SARIF wants names of rules: `ImageTagForm`.
fn pascal(id: &str) -> String {
    let words = id.split(['.', '-', '_']).filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// A target as a relative reference (RFC 3986, section 4.2): everything that has a meaning in one is encoded.
fn uri(target: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte);
    let mut uri = String::new();
    for byte in target.bytes() {
        if plain(byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// JUnit, as GitLab, Jenkins and Tekton read it: a test case for every rule; a violation below an error is not a failure.
pub fn junit(report: &Report, fails: impl Fn(Severity) -> bool) -> String {
    let failed =
        |finding: &Finding| finding.violations.iter().any(|counted| fails(counted.severity));
    let (tests, failures) =
        (report.findings.len(), report.findings.iter().filter(|one| failed(one)).count());
    let skipped = report.with_status(Status::Skipped);
    let name = xml(&report.target);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" \
         errors=\"0\" skipped=\"{skipped}\">\n"
    );
    for finding in &report.findings {
        let (id, about) = (xml(finding.rule), finding.about.name());
        text += &format!("    <testcase name=\"{id}\" classname=\"{about}\">");
        let told: Vec<String> = finding
            .violations
            .iter()
            .map(|counted| format!("{}: {}", counted.severity.name(), counted.violation.message))
            .collect();
        let fix = rule(finding.rule).map_or("", |rule| &rule.fix);
        if let Some(why) = &finding.skipped {
            text += &format!("<skipped message=\"{}\"/>", xml(why));
        } else if failed(finding) {
            text += &format!(
                "<failure type=\"{}\" message=\"{}\">{}</failure>",
                finding.severity.name(),
                xml(finding.title),
                xml(&format!("{}\n{fix}", told.join("\n")))
            );
        } else if !told.is_empty() {
            text += &format!("<system-out>{}</system-out>", xml(&told.join("\n")));
        }
        text += "</testcase>\n";
    }
    text + "  </testsuite>\n</testsuites>\n"
}

/// Text for XML 1.0, which has no way to write most control characters.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                out.extend(c.escape_default())
            }
            c => out.push(c),
        }
    }
    out
}
