//! `bootpress test`: boots a disk that nobody altered and says how it went.

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bootpress::error::{corrupt, unsupported};
use bootpress::publish::{self, PullRequest};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use qemu::{BootError, BootReport, Case, Level, News, Outcome, Test, Verdict};
use tempfile::TempDir;

use super::build;
use super::cases::{self, Plan, Trial};
use super::exit;
use super::machine_flags::{self, Choice, MachineFlags};
use super::report_flags::ReportFlags;
use super::say::{self, Page, say};
use super::verdict_flags::VerdictFlags;

/// What shells report for a program that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub(crate) struct TestFlags {
    /// Name the disks or ISOs to boot
    ///
    /// The format is raw, qcow2, vmdk, vhdx or vhd, also compressed as .xz, .zst or .gz. The files are only read.
    #[arg(value_name = "DISK", required_unless_present = "list")]
    pub(super) disks: Vec<PathBuf>,

    /// Boot in the four machines that cover most
    #[arg(long, conflicts_with_all = ["machines", "full"], help_heading = "Machine")]
    quick: bool,

    /// Boot in machines that have every pair of values
    #[arg(long, conflicts_with = "machines", help_heading = "Machine")]
    full: bool,

    /// List the machines
    ///
    /// Also says what is left out, and why. With --full, the machines of --full are listed too.
    #[arg(long, help_heading = "Machine")]
    list: bool,

    #[command(flatten)]
    pub(super) machine: MachineFlags,

    /// Set how many machines run at a time
    ///
    /// A number, or auto for as many as the processors and the memory of this machine allow.
    #[arg(long, value_name = "N", value_parser = jobs, default_value = "auto")]
    pub(super) jobs: Jobs,

    /// Set how many seconds to wait for the guest
    ///
    /// Without this flag it is 300 with KVM and 600 without. Time in which this machine is too busy to run the guest does not count; ten times as
    /// much by the clock is the most.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: Option<u64>,

    /// Keep console, journal, pictures and results in a directory
    ///
    /// With several machines or disks it has a directory for each.
    #[arg(long, value_name = "DIR")]
    pub(super) evidence: Option<PathBuf>,

    #[command(flatten)]
    pub(super) verdict: VerdictFlags,

    #[command(flatten)]
    reports: ReportFlags,

    /// Print the result as JSON instead of a table
    #[arg(long)]
    json: bool,

    // Last, as its flags for registries are under a heading.
    #[command(flatten)]
    chain: super::chain::ChainFlags,
}

/// How many machines at a time: `None` for as many as there is room for.
pub(super) type Jobs = Option<NonZeroUsize>;

fn jobs(text: &str) -> Result<Option<NonZeroUsize>, String> {
    if text == "auto" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "expected a number from 1 on, or auto".to_owned())
}

/// Boots the disks and prints the results. Exit codes: 0 all passed, 1 one failed, else 5 if this machine broke one.
pub(super) fn run(flags: &mut TestFlags) -> Result<ExitCode> {
    // Gone when all is done.
    let _pulled = pull(flags)?;
    let flags = &*flags;
    let matrix = flags.machine.matrix()?;
    if flags.list {
        print(&machine_flags::table(&matrix, flags.full))?;
        return Ok(ExitCode::SUCCESS);
    }
    let choice = match (flags.quick, flags.full) {
        (true, _) => Choice::Quick,
        (_, true) => Choice::Full,
        _ => Choice::Named,
    };
    let plan = Plan::new(flags, &matrix, choice)?;
    for case in &plan.cases {
        qemu::prerequisites(&case.machine).map_err(told)?;
    }
    flags.reports.check()?;
    let began = SystemTime::now();
    let interrupted = interruption()?;
    let stop = || interrupted.load(Ordering::Relaxed);
    if let Some(steps) = &flags.chain.chain {
        let Some(case) = plan.only() else {
            let hint = "name one disk and one --machine";
            return Err(unsupported("a chain in several machines", Some(hint)));
        };
        return super::chain::run(
            &test_of(flags, case),
            steps,
            &flags.chain,
            flags.json,
            &flags.reports,
            &stop,
        );
    }
    if let Some(case) = plan.only() {
        return one(flags, case, &stop);
    }
    let outcomes = cases::run(flags, &plan, &stop)?;
    if stop() {
        return not_tried(BootError::Stopped);
    }
    flags.reports.write(began, cases::reported(&plan, &outcomes))?;
    print(&if flags.json {
        cases::json(&plan, &outcomes)?
    } else {
        cases::table(&plan, &outcomes)
    })?;
    let verdicts = outcomes.iter().map(|outcome| outcome.tried.as_ref().map(|boot| &boot.verdict));
    Ok(exit_code(verdicts.map(Result::ok)))
}

/// Fetches the disks that are in a registry, into a directory that goes away with what is returned.
fn pull(flags: &mut TestFlags) -> Result<Option<TempDir>> {
    /// Forms in which a disk boots, what is booted fastest first.
    const FORMATS: [&str; 8] =
        ["qcow2", "raw", "qcow2.zst", "raw.zst", "raw.gz", "raw.xz", "iso", "vhdx"];
    const REGISTRY: &str = "docker://";
    let is_remote =
        |disk: &PathBuf| disk.as_os_str().as_encoded_bytes().starts_with(REGISTRY.as_bytes());
    if !flags.disks.iter().any(is_remote) {
        return Ok(None);
    }
    let place = TempDir::new().context("creating a directory for disks of a registry")?;
    let architecture = flags.machine.architecture().map(|asked| asked.name());
    for (number, disk) in flags.disks.iter_mut().enumerate().filter(|(_, disk)| is_remote(disk)) {
        let name = disk.to_str().context("a name in a registry is text")?;
        let directory = place.path().join(number.to_string());
        publish::create_directory(&directory)?;
        let request = PullRequest {
            from: name.parse()?,
            access: flags.chain.registry.access()?,
            architecture: build::architecture(architecture)?,
            formats: FORMATS.map(str::to_owned).to_vec(),
            directory,
        };
        say!("fetching {name}");
        *disk = publish::pull(&request, &bootpress::progress::Progress::default())?.path;
    }
    Ok(Some(place))
}

/// The exit code of boots, `None` for one that could not be tried. What was learned about a disk counts more than what was not.
pub(super) fn exit_code<'a>(verdicts: impl Iterator<Item = Option<&'a Verdict>>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for verdict in verdicts {
        match verdict {
            Some(Verdict::Failed { .. }) => return ExitCode::FAILURE,
            Some(Verdict::Error { .. }) | None => code = ExitCode::from(exit::HOST),
            Some(Verdict::Passed) => {}
        }
    }
    code
}

/// The boot of a case.
pub(super) fn test_of<'a>(flags: &TestFlags, case: &'a Trial) -> Test<'a> {
    Test {
        format: flags.machine.disk_format(),
        acceleration: flags.machine.acceleration(),
        time_limit: flags.timeout.map(Duration::from_secs),
        evidence: case.evidence.as_deref(),
        accept: flags.verdict.accept(),
        access: flags.verdict.access(),
        expected: flags.verdict.expected(),
        console_rules: case.rules.as_deref(),
        ..Test::new(&case.file, case.machine.clone())
    }
}

/// One disk in one machine.
fn one(flags: &TestFlags, case: &Trial, stop: &dyn Fn() -> bool) -> Result<ExitCode> {
    let began = SystemTime::now();
    let progress = Progress::new(&case.disk);
    let test = test_of(flags, case);
    let tried = qemu::boot(&test, &mut |news| progress.hear(&news), stop);
    progress.end();
    let reported = |outcome: Outcome| {
        let case = Case {
            disk: case.disk.clone(),
            machine: case.identity(),
            began,
            outcome,
            evidence: case.evidence.clone(),
        };
        flags.reports.write(began, vec![case])
    };
    let report = match tried {
        Ok(report) => report,
        Err(BootError::Stopped) => return not_tried(BootError::Stopped),
        Err(error) => {
            reported(Outcome::NotTried(error.to_string()))?;
            return not_tried(error);
        }
    };
    reported(Outcome::Tried(Box::new(report.clone())))?;
    print(&if flags.json {
        say::json(&serde_json::to_string_pretty(&report).context("printing the result")?)
            .into_owned()
            + "\n"
    } else {
        text(&report)
    })?;
    Ok(exit_code([Some(&report.verdict)].into_iter()))
}

/// What it means that a boot could not be tried.
pub(super) fn not_tried(error: BootError) -> Result<ExitCode> {
    match error {
        BootError::Stopped => {
            say!("interrupted");
            Ok(ExitCode::from(INTERRUPTED))
        }
        error @ (BootError::Io { .. } | BootError::Start { .. }) => {
            say!("error: {:#}", told(error));
            Ok(ExitCode::from(exit::HOST))
        }
        error => Err(told(error)),
    }
}

/// What could not be tried, in the form that becomes an exit code and a hint.
pub(super) fn told(error: BootError) -> anyhow::Error {
    match error {
        BootError::Missing { what, packages } => {
            let hint = format!("install {packages}");
            unsupported(format!("{what} was not found"), Some(&hint))
        }
        BootError::Unsupported(what) => unsupported(what, None),
        BootError::Refused { .. } => {
            let hint = "if you trust it, qemu-img convert -O qcow2 DISK PLAIN.qcow2 makes a disk in one file of it";
            unsupported(error.to_string(), Some(hint))
        }
        BootError::Damaged { disk, why } => corrupt(format!("the disk {}", disk.display()), &why),
        error => error.into(),
    }
}

fn print(text: &str) -> Result<()> {
    say::print(text, "printing the result")
}

/// Sets a flag on Ctrl-C and its kin, so that the machine is ended and its files are removed; the second one ends us.
/// Every thread inherits the mask, so the thread that waits gets the signal.
pub(super) fn interruption() -> Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    thread::spawn(move || {
        while signals.wait().is_ok() {
            if set.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        }
    });
    Ok(flag)
}

/// Milestones as they are reached: a spinner with lines above it on a terminal, lines elsewhere.
struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    fn new(disk: &Path) -> Self {
        let name = disk.file_name().unwrap_or(disk.as_os_str()).to_string_lossy();
        if !io::stderr().is_terminal() {
            say!("booting {name}");
            return Self { spinner: None };
        }
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>7}  {msg} {spinner}") {
            spinner.set_style(style);
        }
        spinner.set_message(format!("booting {name}"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self { spinner: Some(spinner) }
    }

    fn hear(&self, news: &News) {
        let line = told_news(news);
        match &self.spinner {
            Some(spinner) => spinner.println(line),
            None => say!("{line}"),
        }
    }

    fn end(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// A line about what a boot tells while it goes on.
pub(super) fn told_news(news: &News) -> String {
    match news {
        News::Reached(reached) => format!("{:>5.1} s  {}", reached.seconds, reached.milestone),
        News::Again(why) => format!("KVM broke ({why}); once more under TCG"),
    }
}

/// The result for people.
pub(super) fn text(report: &BootReport) -> String {
    let mut page = Page::default();
    let essentials = report.machine.essentials();
    let outcome = match &report.verdict {
        Verdict::Passed => {
            let proof = report.proof.described();
            format!("passed in {:.0} s ({essentials}), proof: {proof}", report.seconds)
        }
        Verdict::Failed { reason } => {
            format!("failed after {:.0} s ({essentials}): {reason}", report.seconds)
        }
        Verdict::Error { reason } => {
            format!("error after {:.0} s ({essentials}): {reason}", report.seconds)
        }
    };
    let mut line = |line: String| page.line(line);
    line(outcome);
    for check in &report.checks {
        let mark = match (check.passed, check.tolerated) {
            (true, _) => "ok",
            (false, true) => "note",
            (false, false) => "not ok",
        };
        line(format!("  {:<6}  {:<11}  {}", mark, check.name, check.detail));
    }
    if let Verdict::Error { .. } = report.verdict {
        line(
            "  note    this machine broke the boot; nothing was learned about the disk".to_owned(),
        );
    }
    for earlier in &report.earlier {
        line(format!(
            "  note    before that, under {}: broke after {:.1} s: {}",
            earlier.accelerator.name(),
            earlier.seconds,
            earlier.reason
        ));
    }
    if let qemu::Accelerator::Tcg { why } = &report.machine.accelerator {
        line(format!("  note    emulated, {} cpu: {why}", report.machine.cpus));
    }
    for suspicion in &report.suspicions {
        line(format!("  note    {suspicion}"));
    }
    if let (false, Level::Login | Level::Screen) = (report.passed(), report.proof) {
        line(format!(
            "  hint    systemd before 256 takes no unit from outside; if this is such a guest, --accept {} is for it",
            report.proof.name()
        ));
    }
    if !report.passed() {
        line("the console's last lines:".to_owned());
        for shown in &report.console_tail {
            line(format!("  | {shown}"));
        }
    }
    page.into_text()
}

#[cfg(test)]
mod tests {
    use qemu::{Accelerator, Check, Guest, MachineReport, Milestone, Reached};

    use super::*;

    fn report(verdict: Verdict) -> BootReport {
        BootReport {
            verdict,
            proof: Level::Report,
            seconds: 41.2,
            processor_seconds: 30.0,
            lost_seconds: 0.5,
            machine: MachineReport {
                architecture: qemu::Architecture::X86_64,
                firmware: qemu::Firmware::Uefi,
                bus: qemu::DiskBus::Virtio,
                sector_size: 512,
                memory_mib: 2048,
                cpus: 1,
                network: qemu::Network::None,
                tpm: qemu::Tpm::None,
                serial: true,
                accelerator: Accelerator::Tcg { why: "no /dev/kvm".to_owned() },
                qemu: "7.2.22".to_owned(),
            },
            reached: vec![Reached { milestone: Milestone::Kernel, seconds: 9.0 }],
            checks: vec![Check {
                name: "power-off",
                passed: true,
                detail: "clean".to_owned(),
                tolerated: false,
            }],
            findings: vec![],
            startup: Default::default(),
            suspicions: vec![],
            screens: vec![],
            console_tail: vec!["login:".to_owned()],
            guest: Guest::default(),
            command: vec![],
            earlier: vec![],
        }
    }

    #[test]
    fn results_read_well() {
        assert_eq!(
            text(&report(Verdict::Passed)),
            "passed in 41 s (tcg, OVMF, virtio), proof: guest report\n  \
             ok      power-off    clean\n  \
             note    emulated, 1 cpu: no /dev/kvm\n"
        );
        let failed = text(&report(Verdict::Failed { reason: "the kernel panicked".to_owned() }));
        assert!(
            failed.starts_with("failed after 41 s (tcg, OVMF, virtio): the kernel panicked\n"),
            "{failed}"
        );
        assert!(failed.ends_with("the console's last lines:\n  | login:\n"), "{failed}");
        let error = Verdict::Error { reason: "KVM internal error".to_owned() };
        let error = text(&report(error));
        for part in [
            "error after 41 s (tcg, OVMF, virtio): KVM internal error\n",
            "  note    this machine broke the boot; nothing was learned about the disk\n",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn failed_boots_count_more_than_broken_ones() {
        let failed = Verdict::Failed { reason: String::new() };
        let error = Verdict::Error { reason: String::new() };
        let code =
            |verdicts: &[Option<&Verdict>]| format!("{:?}", exit_code(verdicts.iter().copied()));
        let number = |number: u8| format!("{:?}", ExitCode::from(number));
        let passed = Some(&Verdict::Passed);
        assert_eq!(code(&[passed, passed]), number(0));
        assert_eq!(code(&[passed, Some(&error)]), number(5));
        assert_eq!(code(&[None, passed]), number(5));
        assert_eq!(code(&[Some(&error), None, Some(&failed)]), number(1));
    }
}
