//! `bootpress test --chain`: upgrades, rollbacks, reboots and power cuts on one disk.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bootpress::architecture::Architecture as Ours;
use bootpress::progress::{Event, Progress as Heard};
use bootpress::request::Request;
use bootpress::update::Update;
use clap::Args;
use qemu::chain::{self, ChainReport, Page, Progress, Site, Step};
use qemu::{Case, Outcome, Test, Verdict};

use super::flags::registry::RegistryFlags;
use super::report_flags::ReportFlags;
use super::say::{self, say};

#[derive(Debug, Args)]
pub(super) struct ChainFlags {
    /// Take the machine through several steps instead of one boot
    ///
    /// Steps are separated by commas: boot, reboot, upgrade=IMAGE, rollback, idle=SECONDS. With the plug pulled: cut-boot,
    /// cut-upgrade=IMAGE, and cut (while it goes down). For an ISO, install=BUS[:SIZE] comes first, as in install=nvme:20G, and the
    /// next steps use the disk that was installed. IMAGE is what `build` takes; the guest's own ostree pulls it from here.
    #[arg(long, value_name = "STEPS", value_parser = Steps::parse)]
    pub(super) chain: Option<Steps>,

    /// Set the shell command by which a live ISO installs
    ///
    /// It installs to the only disk there is, without questions.
    #[arg(long, hide_short_help = true, value_name = "COMMAND", default_value = INSTALLER, requires = "chain")]
    installer: String,

    #[command(flatten)]
    pub(super) registry: RegistryFlags,
}

/// How `src/iso/guest/install.sh` wants it.
const INSTALLER: &str = "sh /run/bootpress/install only-disk </dev/null";

/// `boot,upgrade=IMAGE,reboot,rollback,reboot`.
#[derive(Clone, Debug)]
pub(super) struct Steps(Vec<Step<String>>);

impl Steps {
    fn parse(text: &str) -> Result<Self, String> {
        Step::parse(text).map(Self)
    }
}

/// An update, as the harness serves it.
struct Served(Update);

impl Site for Served {
    fn page(&self, path: &str) -> Option<Page<'_>> {
        self.0.file(path).map(|file| Page { size: file.size, body: file.body })
    }
}

/// Makes an update of each image that the steps name; equal names, one update.
fn prepare(steps: &Steps, flags: &ChainFlags, test: &Test<'_>) -> Result<Vec<Step<chain::Update>>> {
    let access = flags.registry.access()?;
    let architecture = Ours::parse(test.machine.architecture.name())
        .context("the machine's architecture is one of ours")?;
    let mut made: Vec<chain::Update> = Vec::new();
    let mut update = |name: String| -> Result<chain::Update> {
        if let Some(known) = made.iter().find(|known| known.name == name) {
            return Ok(known.clone());
        }
        say!("reading {name}");
        let heard = Heard::to(|event| {
            if let Event::Warning { message, .. } = event {
                say!("warning: {message}");
            }
        });
        let mut request = Request::new(name.parse()?, architecture, &std::env::temp_dir());
        request.image.access = access.clone();
        // It is fetched for the machine, on whose disk another layout is.
        request.disk.image_layout = false;
        let update = Update::of(&request, &heard).with_context(|| format!("reading {name}"))?;
        let made_now = chain::Update {
            name,
            commit: update.commit.clone(),
            references: update.layers.clone(),
            site: Arc::new(Served(update)),
        };
        made.push(made_now.clone());
        Ok(made_now)
    };
    let mut steps: Vec<_> =
        steps.0.iter().cloned().map(|step| step.map(&mut update)).collect::<Result<_>>()?;
    for step in &mut steps {
        if let Step::Install(install) = step {
            flags.installer.clone_into(&mut install.command);
        }
    }
    Ok(steps)
}

/// Runs the chain, telling on standard error how far it is, and prints the result. Exit codes as for one boot.
pub(super) fn run(
    test: &Test<'_>,
    steps: &Steps,
    flags: &ChainFlags,
    json: bool,
    reports: &ReportFlags,
    stop: &dyn Fn() -> bool,
) -> Result<ExitCode> {
    let steps = prepare(steps, flags, test)?;
    let began = SystemTime::now();
    let mut progress = |progress: Progress<'_>| match progress {
        Progress::Leg(number, count, name) => say!("leg {number} of {count}: {name}"),
        Progress::Boot(news) => say!("{}", super::test::told_news(&news)),
    };
    let report = match chain::run(test, &steps, &mut progress, stop) {
        Ok(report) => report,
        Err(error) => return super::test::not_tried(error),
    };
    reports.write(began, cases(test, &report, began))?;
    if json {
        say::print_json(&report, "printing the result")?;
    } else {
        say::print(&text(&report), "printing the result")?;
    }
    Ok(super::test::exit_code([Some(&report.verdict)].into_iter()))
}

/// For reports a leg is a case, in a machine that its number and name tell from the others.
fn cases(test: &Test<'_>, report: &ChainReport, began: SystemTime) -> Vec<Case> {
    let mut now = began;
    let mut cases = Vec::new();
    for (number, leg) in (1..).zip(&report.legs) {
        let essentials = test.machine.essentials();
        cases.push(Case {
            disk: test.disk.to_owned(),
            machine: format!("{essentials}, leg {number}: {}", leg.name),
            began: now,
            outcome: Outcome::Tried(Box::new(leg.boot.clone())),
            evidence: test.evidence.map(|evidence| evidence.join(number.to_string())),
        });
        now += Duration::try_from_secs_f64(leg.boot.seconds).unwrap_or_default();
    }
    cases
}

/// The result for people.
fn text(report: &ChainReport) -> String {
    let mut page = say::Page::default();
    let mut line = |line: String| page.line(line);
    line(match &report.verdict {
        Verdict::Passed => format!("passed in {:.0} s, {} legs", report.seconds, report.legs.len()),
        Verdict::Failed { reason } => format!("failed after {:.0} s: {reason}", report.seconds),
        Verdict::Error { reason } => format!("error after {:.0} s: {reason}", report.seconds),
    });
    for (index, leg) in report.legs.iter().enumerate() {
        let mark = match leg.boot.verdict {
            Verdict::Passed => "ok",
            Verdict::Failed { .. } => "not ok",
            Verdict::Error { .. } => "error",
        };
        let commit = leg.commit.as_deref().map_or("", |commit| &commit[..12]);
        let number = index + 1;
        line(format!(
            "  {mark:<6}  {number}  {:>4.0} s  {commit:<12}  {}",
            leg.boot.seconds, leg.name
        ));
        for check in leg.boot.checks.iter().filter(|check| !check.passed) {
            line(format!("          not ok  {:<11}  {}", check.name, check.detail));
        }
    }
    if let Some(last) = report.legs.last().filter(|leg| !leg.boot.passed()) {
        line("the console's last lines:".to_owned());
        for shown in &last.boot.console_tail {
            line(format!("  | {shown}"));
        }
    }
    page.into_text()
}
