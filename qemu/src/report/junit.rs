//! JUnit's XML, in the form that both its schemas take: Ant's, which knows no attributes of `testsuites`, and Jenkins'.
//!
//! ```text
//! testsuites
//!   testsuite name="DISK on MACHINE"      a case
//!     properties                          the machine, and when it reached what
//!     testcase name="systemd" …           a check: passed, failure, or skipped if it is tolerated
//!     testcase name="boot"                an error, if the host broke the boot: then there is nothing to check
//!     system-out                          the console's last lines
//!     system-err                          what somebody should look at
//! ```

use super::suite::{Case, Outcome, State, Suite};
use super::text::{date, escaped};
use super::{BootReport, Check};

pub(super) fn render(suite: &Suite) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (id, case) in suite.cases.iter().enumerate() {
        xml += &testsuite(id, case);
    }
    xml + "</testsuites>\n"
}

/// Elements are in the order that the schemas fix, all of them there.
fn testsuite(id: usize, case: &Case) -> String {
    let disk = escaped(&case.disk_name());
    let machine = escaped(&case.machine);
    let broken = case.state() == State::Error;
    let checks = match &case.outcome {
        Outcome::Tried(report) if !broken => report.checks.as_slice(),
        _ => &[],
    };
    let count = |tolerated: bool| {
        checks.iter().filter(|check| !check.passed && check.tolerated == tolerated).count()
    };
    let left_out = matches!(case.outcome, Outcome::LeftOut(_));
    let tests = if broken || left_out { 1 } else { checks.len() };
    let (failures, errors) = (count(false), usize::from(broken));
    let skipped = count(true) + usize::from(left_out);
    let mut xml = format!(
        "  <testsuite name=\"{disk} on {machine}\" package=\"{disk}\" id=\"{id}\" timestamp=\"{}\" hostname=\"localhost\" \
         tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{:.3}\">\n",
        date(case.began),
        case.seconds()
    );
    xml += &properties(case);
    let class = format!("{disk}.{machine}");
    match &case.outcome {
        _ if broken => {
            let reason = escaped(case.reason().unwrap_or_default());
            let error = format!("<error type=\"host\" message=\"{reason}\"/>");
            xml += &testcase(&class, "boot", case.seconds(), &error);
        }
        Outcome::Tried(report) => {
            for (index, check) in report.checks.iter().enumerate() {
                // Checks take no time; the boot does, and is told once.
                let seconds = if index == 0 { report.seconds } else { 0.0 };
                xml += &testcase(&class, check.name, seconds, &result(report, check));
            }
        }
        Outcome::LeftOut(reason) | Outcome::NotTried(reason) => {
            let skipped = format!("<skipped message=\"{}\"/>", escaped(reason));
            xml += &testcase(&class, "boot", 0.0, &skipped);
        }
    }
    let (console, notes) = case.report().map_or_else(Default::default, |report| {
        (report.console_tail.join("\n"), report.suspicions.join("\n"))
    });
    xml + &format!(
        "    <system-out>{}</system-out>\n    <system-err>{}</system-err>\n  </testsuite>\n",
        escaped(&console),
        escaped(&notes)
    )
}

fn testcase(class: &str, name: &str, seconds: f64, result: &str) -> String {
    let name = escaped(name);
    let head = format!("    <testcase name=\"{name}\" classname=\"{class}\" time=\"{seconds:.3}\"");
    if result.is_empty() { head + "/>\n" } else { format!("{head}>{result}</testcase>\n") }
}

fn result(report: &BootReport, check: &Check) -> String {
    let detail = escaped(&check.detail);
    match (check.passed, check.tolerated) {
        (true, _) => String::new(),
        (false, true) => format!("<skipped message=\"tolerated: {detail}\"/>"),
        (false, false) => {
            let text = format!("it got as far as: {}", report.furthest());
            format!("<failure type=\"check\" message=\"{detail}\">{}</failure>", escaped(&text))
        }
    }
}

fn properties(case: &Case) -> String {
    let mut list: Vec<(String, String)> = Vec::new();
    if let Some(report) = case.report() {
        let mut put = |name: &str, value: String| list.push((name.to_owned(), value));
        put("architecture", report.machine.architecture.name().to_owned());
        put("machine", report.machine.essentials());
        put("proof", report.proof.described().to_owned());
        put("accelerator", report.machine.accelerator.name().to_owned());
        put("qemu", report.machine.qemu.clone());
        put("cpus", report.machine.cpus.to_string());
        put("memory in MiB", report.machine.memory_mib.to_string());
        put("seconds of processors", format!("{:.3}", report.processor_seconds));
        put("seconds lost to other work", format!("{:.3}", report.lost_seconds));
        for earlier in &report.earlier {
            put(&format!("broke under {}", earlier.accelerator.name()), earlier.reason.clone());
        }
        for reached in &report.reached {
            put(&format!("seconds to {}", reached.milestone), format!("{:.3}", reached.seconds));
        }
    }
    if let Some(evidence) = &case.evidence {
        list.push(("evidence".to_owned(), evidence.to_string_lossy().into_owned()));
    }
    let lines: String = list
        .iter()
        .map(|(name, value)| {
            format!("      <property name=\"{}\" value=\"{}\"/>\n", escaped(name), escaped(value))
        })
        .collect();
    format!("    <properties>\n{lines}    </properties>\n")
}
