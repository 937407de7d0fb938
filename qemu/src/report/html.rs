//! A page that needs nothing else: the matrix as a picture, where the time went, and each case with what it showed.
//!
//! Nothing in it is fetched and nothing in it runs: pictures are data in the page, and what folds is the browser's own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::BootReport;
use super::suite::{Case, State, Suite};
use super::text::{date, escaped};
use crate::console_rules::Severity;
use crate::reached::Milestone;

const STYLE: &str = include_str!("page.css");

/// Side of a cell of the matrix, with its gap.
const CELL: usize = 34;

/// A report's pictures beyond these are in the evidence directory only: pages are mailed around.
const PICTURES: usize = 12;

pub(super) fn render(suite: &Suite) -> String {
    let title = suite.compose.as_deref().map_or_else(
        || format!("Boot tests: {}", summary(suite)),
        |compose| format!("Boot tests of {compose}: {}", summary(suite)),
    );
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n",
        escaped(&title)
    );
    page += &header(suite);
    page += &matrix(suite);
    page += &times(suite);
    page += "<h2>Cases</h2>\n";
    for (index, case) in suite.cases.iter().enumerate() {
        page += &details(index, case);
    }
    page + "</body>\n</html>\n"
}

fn summary(suite: &Suite) -> String {
    let counts = State::ALL.iter().filter(|state| suite.count(**state) > 0);
    let parts: Vec<String> =
        counts.map(|state| format!("{} {}", suite.count(*state), state.name())).collect();
    if parts.is_empty() { "no cases".to_owned() } else { parts.join(", ") }
}

fn header(suite: &Suite) -> String {
    let chips: String = State::ALL
        .iter()
        .filter(|state| suite.count(**state) > 0)
        .map(|state| chip(*state, &format!("{} {}", suite.count(*state), state.name())))
        .collect();
    let compose = suite.compose.as_deref().unwrap_or("Boot tests");
    let subvariant = suite.subvariant.as_ref().map_or_else(String::new, |name| format!("{name}, "));
    format!(
        "<h1>{}</h1>\n<p id=\"summary\">{chips}</p>\n<p class=\"faint\">{}{} UTC, {:.0} s, {}</p>\n",
        escaped(compose),
        escaped(&subvariant),
        date(suite.began).replace('T', " "),
        suite.seconds,
        escaped(&suite.tool)
    )
}

/// The class of a state in the style sheet.
fn class(state: State) -> String {
    state.name().replace(' ', "-")
}

fn chip(state: State, text: &str) -> String {
    format!("<span class=\"state {}\">{}</span> ", class(state), escaped(text))
}

/// States are told by marks as well as by colours.
const fn mark(state: State) -> &'static str {
    match state {
        State::Passed => "✓",
        State::Failed => "✗",
        State::LeftOut => "–",
        State::Error => "?",
    }
}

/// Disks down, machines across; a cell leads to its case.
fn matrix(suite: &Suite) -> String {
    let (mut disks, mut machines) = (Vec::new(), Vec::new());
    for case in &suite.cases {
        for (list, name) in [(&mut disks, case.disk_name()), (&mut machines, case.machine.clone())]
        {
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
    // A character is 7.6 pixels or less; names of machines stand at an angle of 45 degrees.
    let room = |names: &[String]| {
        names.iter().map(|name| name.chars().count()).max().unwrap_or(0) * 38 / 5
    };
    let (left, top) = (room(&disks) + 12, room(&machines) * 71 / 100 + 18);
    let width = left + machines.len() * CELL + top;
    let height = top + disks.len() * CELL + 4;
    let mut svg = format!(
        "<h2>Matrix</h2>\n<div class=\"wide\"><svg id=\"matrix\" role=\"img\" aria-label=\"{}\" width=\"{width}\" \
         height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n",
        escaped(&summary(suite))
    );
    for (column, machine) in machines.iter().enumerate() {
        let (x, y) = (left + column * CELL + CELL / 2, top - 6);
        svg += &format!(
            "<text class=\"column\" transform=\"translate({x} {y}) rotate(-45)\">{}</text>\n",
            escaped(machine)
        );
    }
    for (row, disk) in disks.iter().enumerate() {
        let y = top + row * CELL;
        svg += &format!("<text x=\"0\" y=\"{}\">{}</text>\n", y + CELL / 2 + 3, escaped(disk));
        for (column, machine) in machines.iter().enumerate() {
            let x = left + column * CELL;
            let found = suite
                .cases
                .iter()
                .enumerate()
                .find(|(_, case)| case.machine == *machine && case.disk_name() == *disk);
            svg += &match found {
                Some((index, case)) => cell(index, case, x, y),
                None => format!(
                    "<circle class=\"none\" cx=\"{}\" cy=\"{}\" r=\"2\"/>\n",
                    x + CELL / 2,
                    y + CELL / 2
                ),
            };
        }
    }
    svg + "</svg></div>\n"
}

fn cell(index: usize, case: &Case, x: usize, y: usize) -> String {
    let state = case.state();
    let told = format!(
        "{} on {}: {}{}",
        case.disk_name(),
        case.machine,
        state.name(),
        case.reason().map(|reason| format!(", {reason}")).unwrap_or_default()
    );
    format!(
        "<a href=\"#case-{index}\"><g class=\"{}\"><title>{}</title><rect class=\"cell\" x=\"{x}\" y=\"{y}\" \
         width=\"{side}\" height=\"{side}\" rx=\"5\"/><text class=\"mark\" x=\"{}\" y=\"{}\">{}</text></g></a>\n",
        class(state),
        escaped(&told),
        x + (CELL - 4) / 2,
        y + CELL / 2 + 3,
        mark(state),
        side = CELL - 4
    )
}

/// The parts of a boot, from milestone to milestone: the style sheet's name of a part, when it began, when it ended.
fn parts(report: &BootReport) -> Vec<(Milestone, f64, f64)> {
    let mut parts: Vec<(Milestone, f64, f64)> = Vec::new();
    // Firmware runs before it speaks.
    let (mut part, mut since) = (Milestone::Firmware, 0.0);
    for reached in report.reached.iter().filter(|reached| reached.milestone != Milestone::Firmware)
    {
        parts.push((part, since, reached.seconds));
        (part, since) = (reached.milestone, reached.seconds);
    }
    parts.push((part, since, report.seconds.max(since)));
    parts
}

/// The class of a part, and what it is called.
const fn part_name(part: Milestone) -> (&'static str, &'static str) {
    match part {
        Milestone::Nothing | Milestone::Firmware => ("firmware", "firmware"),
        Milestone::Bootloader => ("bootloader", "boot loader"),
        Milestone::Kernel => ("kernel", "kernel"),
        Milestone::Initramfs => ("initramfs", "initramfs"),
        Milestone::Userspace => ("userspace", "user space"),
        Milestone::Running => ("running", "report and power-off"),
    }
}

/// A bar to a case, all to the same scale.
fn times(suite: &Suite) -> String {
    let tried: Vec<(usize, &Case, &BootReport)> = suite
        .cases
        .iter()
        .enumerate()
        .filter_map(|(index, case)| case.report().map(|report| (index, case, report)))
        .collect();
    let longest = tried.iter().map(|(_, _, report)| report.seconds).fold(0.001, f64::max);
    let legend: String = Milestone::ALL
        .iter()
        .map(|part| {
            let (class, name) = part_name(*part);
            format!("<span style=\"--part: var(--{class})\">{name}</span>")
        })
        .collect();
    let mut html = format!(
        "<h2>Where the time went</h2>\n<p class=\"legend\">{legend}</p>\n<div class=\"times\">\n"
    );
    for (index, case, report) in tried {
        let mut bar = String::new();
        for (part, from, to) in parts(report) {
            let (class, name) = part_name(part);
            let told = format!("{name}: {:.1} s, from {from:.1} to {to:.1}", to - from);
            bar += &format!(
                "<rect x=\"{:.3}\" y=\"0\" width=\"{:.3}\" height=\"10\" style=\"fill: var(--{class})\"><title>{told}</title></rect>",
                from / longest * 1000.0,
                (to - from) / longest * 1000.0
            );
        }
        html += &format!(
            "<div class=\"name\"><a href=\"#case-{index}\">{}</a> <span class=\"faint\">{}</span></div>\
             <svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{:.1} seconds\">{bar}</svg>\
             <div class=\"number\">{:.1} s</div>\n",
            escaped(&case.machine),
            escaped(&case.disk_name()),
            report.seconds,
            report.seconds
        );
    }
    html + "</div>\n"
}

/// What is to be known about a case; unfolded if somebody has to look at it.
fn details(index: usize, case: &Case) -> String {
    let state = case.state();
    let open = if matches!(state, State::Failed | State::Error) { " open" } else { "" };
    let mut html = format!(
        "<details class=\"case\" id=\"case-{index}\"{open}><summary>{}{} on {}</summary>\n",
        chip(state, state.name()),
        escaped(&case.disk_name()),
        escaped(&case.machine)
    );
    if let Some(reason) = case.reason() {
        html += &format!("<p class=\"reason\">{}</p>\n", escaped(reason));
    }
    if let Some(report) = case.report() {
        html += &tried(report);
    }
    if let Some(evidence) = &case.evidence {
        html += &format!(
            "<p class=\"faint\">Evidence: <code>{}</code></p>\n",
            escaped(&evidence.to_string_lossy())
        );
    }
    html + "</details>\n"
}

fn tried(report: &BootReport) -> String {
    let mut html = format!(
        "<p class=\"faint\">{}, {}, {} cpu, {} MiB, QEMU {}; it got as far as: {}; proof: {}</p>\n",
        escaped(report.machine.architecture.name()),
        escaped(&report.machine.essentials()),
        report.machine.cpus,
        report.machine.memory_mib,
        escaped(&report.machine.qemu),
        report.furthest(),
        report.proof.described()
    );
    html += "<table class=\"checks\">\n";
    for check in &report.checks {
        let (class, word) = match (check.passed, check.tolerated) {
            (true, _) => ("good", "ok"),
            (false, true) => ("good", "tolerated"),
            (false, false) => ("bad", "not ok"),
        };
        html += &format!(
            "<tr><td class=\"{class}\">{word}</td><td>{}</td><td>{}</td></tr>\n",
            escaped(check.name),
            escaped(&check.detail)
        );
    }
    html += "</table>\n";
    for earlier in &report.earlier {
        html += &format!(
            "<p>Before that, {:.1} s under {}: {} (evidence: <code>{}</code>)</p>\n",
            earlier.seconds,
            earlier.accelerator.name(),
            escaped(&earlier.reason),
            escaped(&earlier.evidence)
        );
    }
    html += &notes(report);
    html += &pictures(report);
    html += &format!(
        "<h3>The console's last lines</h3>\n<pre class=\"console\">{}</pre>\n",
        escaped(&report.console_tail.join("\n"))
    );
    html + &format!(
        "<details><summary class=\"faint\">Command line</summary><pre>{}</pre></details>\n",
        escaped(&report.command.join(" "))
    )
}

fn notes(report: &BootReport) -> String {
    let worst = report.findings.iter().filter(|finding| finding.severity == Severity::Fatal);
    let mut lines: Vec<String> = worst
        .map(|finding| format!("{:.1} s: {}: {}", finding.seconds, finding.meaning, finding.line))
        .collect();
    lines.extend(report.suspicions.iter().cloned());
    if lines.is_empty() {
        return String::new();
    }
    let items: String = lines.iter().map(|line| format!("<li>{}</li>\n", escaped(line))).collect();
    format!("<h3>To look at</h3>\n<ul class=\"notes\">\n{items}</ul>\n")
}

/// The newest pictures: what a machine showed in the end says most.
fn pictures(report: &BootReport) -> String {
    if report.screens.is_empty() {
        return String::new();
    }
    let first = report.screens.len().saturating_sub(PICTURES);
    let mut html = String::from("<h3>Screen</h3>\n<div class=\"shots\">\n");
    for shot in &report.screens[first..] {
        html += &format!(
            "<figure><img alt=\"screen after {:.1} seconds\" width=\"{}\" height=\"{}\" src=\"data:image/png;base64,{}\">\
             <figcaption>{:.1} s</figcaption></figure>\n",
            shot.seconds,
            shot.width,
            shot.height,
            STANDARD.encode(&shot.png),
            shot.seconds
        );
    }
    html + "</div>\n"
}
