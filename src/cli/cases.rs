//! Several boots: which disks in which machines, side by side, and the table they come to.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bootpress::error::unsupported;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use qemu::{BootError, BootReport, Machine, Matrix, News, Resources, Rules, Verdict, in_parallel};
use serde_json::json;

use super::machine_flags::{Choice, UNNAMED};
use super::say::{self, Page, say};
use super::test::{self, TestFlags};
use super::unpacked::Unpacked;

/// A disk in a machine.
#[derive(Debug)]
pub(super) struct Trial {
    /// The machine's name.
    pub(super) name: String,
    /// The file that was named.
    pub(super) disk: PathBuf,
    /// The file that is booted: that one, or a decompressed copy of it.
    pub(super) file: PathBuf,
    pub(super) machine: Machine,
    /// Its directory for evidence, if any is wanted.
    pub(super) evidence: Option<PathBuf>,
    /// The file of console rules, read once for all.
    pub(super) rules: Option<Arc<Rules>>,
}

impl Trial {
    /// What the machine is called in reports, the same on every host.
    pub(super) fn identity(&self) -> String {
        if self.name == UNNAMED { self.machine.essentials() } else { self.name.clone() }
    }
}

/// A machine that a disk is not tried in.
#[derive(Debug)]
pub(super) struct LeftOut {
    disk: PathBuf,
    machine: String,
    reason: String,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) cases: Vec<Trial>,
    left_out: Vec<LeftOut>,
    /// Decompressed disks, kept for as long as they are booted.
    unpacked: Vec<Unpacked>,
}

impl Plan {
    /// Every disk in every machine that it fits.
    pub(super) fn new(flags: &TestFlags, matrix: &Matrix, choice: Choice) -> Result<Self> {
        let rules = flags.verdict.console_rules()?.map(Arc::new);
        let mut plan = Self { cases: Vec::new(), left_out: Vec::new(), unpacked: Vec::new() };
        for disk in &flags.disks {
            // A disk that is not there demands nothing of a machine, and would be missed late.
            let opened = Unpacked::new(disk)?;
            let file = opened.file.clone();
            plan.unpacked.push(opened);
            let selection = flags.machine.select(&file, matrix, choice)?;
            plan.cases.extend(selection.machines.into_iter().map(|profile| Trial {
                name: profile.name,
                disk: disk.clone(),
                file: file.clone(),
                machine: profile.machine,
                evidence: None,
                rules: rules.clone(),
            }));
            plan.left_out.extend(selection.left_out.into_iter().map(|(machine, reason)| LeftOut {
                disk: disk.clone(),
                machine,
                reason,
            }));
        }
        if plan.cases.is_empty() {
            let reasons: Vec<String> = plan
                .left_out
                .iter()
                .map(|one| format!("{}: {}", one.machine, one.reason))
                .collect();
            let reasons = reasons.join("; ");
            return Err(unsupported(format!("no machine fits ({reasons})"), Some("see --list")));
        }
        if let Some(evidence) = &flags.evidence {
            let only = plan.only().is_some();
            for case in &mut plan.cases {
                case.evidence = Some(match (only, &flags.disks[..]) {
                    (true, _) => evidence.clone(),
                    (false, [_]) => evidence.join(&case.name),
                    _ => evidence.join(name_of(&case.disk)).join(&case.name),
                });
            }
        }
        plan.refuse_collisions()?;
        Ok(plan)
    }

    /// The case, if there is but one, and nothing to say about others.
    pub(super) fn only(&self) -> Option<&Trial> {
        match (&self.cases[..], &self.left_out[..]) {
            ([case], []) => Some(case),
            _ => None,
        }
    }

    /// Two disks of one name from two directories, or one machine named twice, would write over each other's evidence.
    fn refuse_collisions(&self) -> Result<()> {
        for (index, case) in self.cases.iter().enumerate() {
            let taken = |other: &Trial| case.evidence.is_some() && other.evidence == case.evidence;
            if self.cases[..index].iter().any(taken) {
                let what = format!("two cases {} of {}", case.name, name_of(&case.disk));
                return Err(unsupported(what, Some("name each disk and machine once")));
            }
        }
        Ok(())
    }
}

/// What came of a case.
#[derive(Debug)]
pub(super) struct Outcome {
    began: SystemTime,
    /// A report, or why it could not be tried.
    pub(super) tried: Result<BootReport, BootError>,
}

/// Boots all cases, as many at a time as there is room for.
pub(super) fn run(
    flags: &TestFlags,
    plan: &Plan,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Outcome>> {
    let mut jobs = Vec::new();
    for case in &plan.cases {
        let wish = flags.machine.acceleration();
        let accelerator = qemu::choose(wish, &case.machine).map_err(test::told)?;
        jobs.push((case, Resources::of(&case.machine, &accelerator)));
    }
    let board = Board::new(plan);
    let outcomes = in_parallel(&jobs, &Resources::of_host(), flags.jobs, |case| {
        let began = SystemTime::now();
        if stop() {
            return Outcome { began, tried: Err(BootError::Stopped) };
        }
        let line = board.begin(case);
        let test = test::test_of(flags, case);
        let tried = qemu::boot(&test, &mut |news| line.hear(&news), stop);
        line.end(&tried);
        Outcome { began, tried }
    });
    board.end();
    Ok(outcomes)
}

/// The table while machines run: a line for each, and one for all with the time that is left. Plain lines where there is no
/// terminal.
struct Board {
    bars: Option<(MultiProgress, ProgressBar)>,
    width: usize,
    plain: Mutex<()>,
}

/// The time that is left, once there is something to go by.
fn left(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    if state.pos() > 0 && !state.eta().is_zero() {
        // What cannot be shown is not missed.
        let _ = write!(text, ", {:#} to go", HumanDuration(state.eta()));
    }
}

/// A case's line.
struct Line<'a> {
    board: &'a Board,
    label: String,
    bar: Option<ProgressBar>,
}

impl Board {
    fn new(plan: &Plan) -> Self {
        let width = plan.cases.iter().map(|case| label(case).len()).max().unwrap_or(0);
        let bars = io::stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            let total = bars.add(ProgressBar::new(plan.cases.len() as u64));
            if let Ok(style) =
                ProgressStyle::with_template("{elapsed:>7}  {pos} of {len} done{left}")
            {
                total.set_style(style.with_key("left", left));
            }
            total.enable_steady_tick(Duration::from_secs(1));
            (bars, total)
        });
        Self { bars, width, plain: Mutex::new(()) }
    }

    fn begin(&self, case: &Trial) -> Line<'_> {
        let label = label(case);
        let bar = self.bars.as_ref().map(|(bars, total)| {
            let bar = bars.insert_before(total, ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{elapsed:>7}  {prefix}  {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{label:<width$}", width = self.width));
            bar.set_message("switched on");
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        let line = Line { board: self, label, bar };
        line.say("switched on");
        line
    }

    fn end(&self) {
        if let Some((bars, total)) = &self.bars {
            total.finish_and_clear();
            // A table that cannot be cleared stays on the screen, above the one that follows.
            let _ = bars.clear();
        }
    }
}

impl Line<'_> {
    fn hear(&self, news: &News) {
        self.say(&match news {
            News::Reached(reached) => {
                format!("{} after {:.1} s", reached.milestone, reached.seconds)
            }
            News::Again(why) => format!("KVM broke ({why}); once more under TCG"),
        });
    }

    fn end(&self, tried: &Result<BootReport, BootError>) {
        self.say(&match tried {
            Ok(report) => summary(report),
            Err(error) => error.to_string(),
        });
        if let (Some(bar), Some((_, total))) = (&self.bar, &self.board.bars) {
            bar.abandon();
            total.inc(1);
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(say::line(text).into_owned()),
            None => {
                let _whole = self.board.plain.lock().unwrap_or_else(PoisonError::into_inner);
                say!("{:<width$}  {text}", self.label, width = self.board.width);
            }
        }
    }
}

fn label(case: &Trial) -> String {
    format!("{}  {}", name_of(&case.disk), case.name)
}

fn name_of(disk: &Path) -> String {
    disk.file_name().unwrap_or(disk.as_os_str()).to_string_lossy().into_owned()
}

fn summary(report: &BootReport) -> String {
    match &report.verdict {
        Verdict::Passed => {
            format!("passed in {:.0} s, proof: {}", report.seconds, report.proof.described())
        }
        Verdict::Failed { reason } => format!("failed after {:.0} s: {reason}", report.seconds),
        Verdict::Error { reason } => format!("error after {:.0} s: {reason}", report.seconds),
    }
}

/// The results for people: a line for each case and for each machine that was left out, then what there is to say about failures.
pub(super) fn table(plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut rows = Vec::new();
    for (case, outcome) in plan.cases.iter().zip(outcomes) {
        let (verdict, detail) = match &outcome.tried {
            Ok(report) => match &report.verdict {
                Verdict::Passed => {
                    ("passed", format!("{:.0} s, {}", report.seconds, report.proof.described()))
                }
                Verdict::Failed { reason } => {
                    ("FAILED", format!("{:.0} s, {}: {reason}", report.seconds, report.furthest()))
                }
                Verdict::Error { reason } => {
                    ("error", format!("{:.0} s, {}: {reason}", report.seconds, report.furthest()))
                }
            },
            Err(error) => ("error", error.to_string()),
        };
        rows.push([name_of(&case.disk), case.name.clone(), verdict.to_owned(), detail]);
    }
    for one in &plan.left_out {
        let verdict = "left out".to_owned();
        rows.push([name_of(&one.disk), one.machine.clone(), verdict, one.reason.clone()]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (disk, machine, verdict) = (width(0), width(1), width(2));
    let mut page = Page::default();
    for row in &rows {
        page.line(format_args!(
            "{:<disk$}  {:<machine$}  {:<verdict$}  {}",
            row[0], row[1], row[2], row[3]
        ));
    }
    for (case, outcome) in plan.cases.iter().zip(outcomes) {
        if let Ok(report) = &outcome.tried
            && !report.passed()
        {
            let disk = name_of(&case.disk);
            let disk = say::line(&disk);
            page.blank();
            page.lines(&format!("{disk} in {}: {}", case.name, test::text(report)));
        }
    }
    page.into_text()
}

/// The results as the forms of report take them.
pub(super) fn reported(plan: &Plan, outcomes: &[Outcome]) -> Vec<qemu::Case> {
    let tried = plan.cases.iter().zip(outcomes).map(|(case, outcome)| qemu::Case {
        disk: case.disk.clone(),
        machine: case.name.clone(),
        began: outcome.began,
        outcome: match &outcome.tried {
            Ok(report) => qemu::Outcome::Tried(Box::new(report.clone())),
            Err(error) => qemu::Outcome::NotTried(error.to_string()),
        },
        evidence: case.evidence.clone(),
    });
    let left_out = plan.left_out.iter().map(|one| qemu::Case {
        disk: one.disk.clone(),
        machine: one.machine.clone(),
        began: SystemTime::now(),
        outcome: qemu::Outcome::LeftOut(one.reason.clone()),
        evidence: None,
    });
    tried.chain(left_out).collect()
}

/// All cases and their outcomes as JSON.
pub(super) fn json(plan: &Plan, outcomes: &[Outcome]) -> Result<String> {
    let cases: Vec<_> = plan
        .cases
        .iter()
        .zip(outcomes)
        .map(|(case, outcome)| match &outcome.tried {
            Ok(report) => json!({ "disk": case.disk, "machine": case.name, "result": report }),
            Err(error) => {
                json!({ "disk": case.disk, "machine": case.name, "error": error.to_string() })
            }
        })
        .collect();
    let left_out: Vec<_> = plan
        .left_out
        .iter()
        .map(|one| json!({ "disk": one.disk, "machine": one.machine, "reason": one.reason }))
        .collect();
    let whole = json!({ "version": 2, "cases": cases, "left_out": left_out });
    let text = serde_json::to_string_pretty(&whole).context("printing the result")?;
    Ok(say::json(&text).into_owned() + "\n")
}
