//! A plot: seconds by stage, stacked, for each image, beside its floor. SVG, readable without anything else.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use crate::{Results, Row};

const LEFT: f64 = 260.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 16.0;

/// Stages in the order in which they run, with their colours; the rest is what a process does besides.
const STAGES: [(&str, &str); 5] = [
    ("fetching", "#bab0ac"),
    ("unpacking", "#4e79a7"),
    ("deploying", "#f28e2b"),
    ("laying out", "#76b7b2"),
    ("writing", "#e15759"),
];
const REST: &str = "#d9d9d9";

/// The plot of some results.
pub(crate) fn svg(results: &[Results]) -> String {
    let rows = || results.iter().flat_map(|result| &result.rows);
    let longest = rows().map(|row| row.cost.wall).fold(0.1, f64::max);
    let scale = WIDTH / longest;
    let mut body = String::new();
    let mut y = 70.0;
    for result in results {
        text(&mut body, 10.0, y, &format!("{}, {} MB", result.name, result.megabytes), true);
        y += 8.0;
        for row in &result.rows {
            bar(&mut body, row, y, scale);
            y += BAR + 4.0;
        }
        y += 30.0;
    }
    let mut x = LEFT;
    for (stage, colour) in STAGES.iter().chain(&[("anything else", REST)]) {
        rectangle(&mut body, x, 36.0, 12.0, 12.0, colour);
        text(&mut body, x + 16.0, 46.0, stage, false);
        x += 95.0;
    }
    text(&mut body, 10.0, 22.0, &format!("Seconds of builds by stage. {}", machine()), true);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        LEFT + WIDTH + 80.0
    )
}

fn bar(body: &mut String, row: &Row, y: f64, scale: f64) {
    text(body, 20.0, y + BAR - 4.0, row.what, false);
    rectangle(body, LEFT, y, row.cost.wall * scale, BAR, REST);
    let mut x = LEFT;
    for (stage, took) in &row.stages {
        let colour =
            STAGES.iter().find(|(name, _)| name == stage).map_or(REST, |(_, colour)| colour);
        rectangle(body, x, y, took * scale, BAR, colour);
        x += took * scale;
    }
    let end = LEFT + row.cost.wall * scale + 6.0;
    text(body, end, y + BAR - 4.0, &format!("{:.2}", row.cost.wall), false);
}

fn rectangle(body: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) {
    writeln!(
        body,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    )
    .unwrap();
}

fn text(body: &mut String, x: f64, y: f64, text: &str, bold: bool) {
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\"{weight}>{text}</text>").unwrap();
}

/// Day, processors and kernel: figures mean nothing without.
fn machine() -> String {
    let day = Command::new("date").arg("+%Y-%m-%d").output().unwrap().stdout;
    let day = String::from_utf8(day).unwrap();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |model| model.trim_start_matches([' ', '\t', ':']));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {count} × {model}", day.trim())
}
