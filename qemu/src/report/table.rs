//! The table that a run ends with on a terminal.

use std::fmt::Write as _;

use super::suite::{State, Suite};

/// The cases, a line each, and a line that sums them up. The reason stands in the last column, since it has no limit.
pub fn table(suite: &Suite) -> String {
    let mut rows =
        vec![["disk", "machine", "verdict", "seconds", "reached", "proof"].map(str::to_owned)];
    let mut reasons = vec!["reason".to_owned()];
    for case in &suite.cases {
        let (seconds, reached, proof) = match case.report() {
            Some(report) => (
                format!("{:.1}", report.seconds),
                report.furthest().name(),
                report.proof.described(),
            ),
            None => ("-".to_owned(), "-", "-"),
        };
        let verdict = case.state().name().to_owned();
        let [reached, proof] = [reached, proof].map(str::to_owned);
        rows.push([case.disk_name(), case.machine.clone(), verdict, seconds, reached, proof]);
        reasons.push(case.reason().unwrap_or_default().replace('\n', " "));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for (row, reason) in rows.iter().zip(&reasons) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            // Writing to a String cannot fail.
            let _ = match column {
                3 => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        text += &format!("{}\n", (line + reason).trim_end());
    }
    let counts = State::ALL
        .iter()
        .map(|state| (suite.count(*state), state.name()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect::<Vec<_>>();
    text + &format!("{} in {:.0} s\n", counts.join(", "), suite.seconds)
}
