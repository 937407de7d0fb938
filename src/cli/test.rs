//! `bootpress test`: boots a disk that nobody altered and says how it went.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bootpress::architecture::Architecture as Ours;
use bootpress::error::unsupported;
use bootpress::inspect;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal};
use qemu::{
    Architecture, BootError, BootReport, DiskBus, Firmware, Machine, Reached, Test, Verdict,
};

use super::verdict_flags::VerdictFlags;

/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub(crate) struct TestFlags {
    /// The disk: raw, qcow2, vmdk, vhdx or vhd; it is only read
    #[arg(value_name = "DISK")]
    disk: PathBuf,

    /// Architecture of the disk [default: as its name says (disk.aarch64.qcow2), else as it tells itself]
    #[arg(long, value_parser = architecture)]
    arch: Option<Architecture>,

    /// Firmware: uefi, uefi-secure (Secure Boot with Microsoft's keys) or bios
    #[arg(long, value_parser = firmware, default_value = "uefi", help_heading = "Machine")]
    firmware: Firmware,

    /// How the disk is attached: virtio, nvme or ahci
    #[arg(long, value_parser = bus, default_value = "virtio", help_heading = "Machine")]
    bus: DiskBus,

    /// Logical sector size of the disk in bytes: 512 or 4096
    #[arg(long, value_name = "BYTES", default_value_t = 512, help_heading = "Machine")]
    sector_size: u32,

    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, help_heading = "Machine")]
    memory: u32,

    /// Processors; x86_64 without KVM gets one whatever is asked
    #[arg(long, value_name = "COUNT", default_value_t = 2, help_heading = "Machine")]
    cpus: u32,

    /// Seconds to wait for the guest [default: 300 with KVM, 600 without]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,

    /// Directory for the console, the guest's report, the QEMU command line and result.json
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,

    #[command(flatten)]
    report: VerdictFlags,

    /// Print the result as JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Boots the disk and prints the result. Exit codes: 0 passed, 1 failed; what cannot be tried is an error.
pub(super) fn run(flags: &TestFlags) -> Result<ExitCode> {
    let machine = Machine {
        firmware: flags.firmware,
        bus: flags.bus,
        memory_mib: flags.memory,
        cpus: flags.cpus,
        sector_size: flags.sector_size,
        ..Machine::new(architecture_of(flags)?)
    };
    let rules = flags.report.console_rules()?;
    let test = Test {
        time_limit: flags.timeout.map(Duration::from_secs),
        evidence: flags.evidence.as_deref(),
        expected: flags.report.expected(),
        console_rules: rules.as_ref(),
        ..Test::new(&flags.disk, machine)
    };
    let interrupted = interruption()?;
    let progress = Progress::new(&flags.disk);
    let tried = qemu::boot(&test, &mut |reached| progress.reached(reached), &|| {
        interrupted.load(Ordering::Relaxed)
    });
    progress.end();
    let report = match tried {
        Ok(report) => report,
        Err(BootError::Stopped) => {
            eprintln!("interrupted");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(BootError::Missing { what, packages }) => {
            let hint = format!("install {packages}");
            return Err(unsupported(format!("{what} was not found"), Some(&hint)));
        }
        Err(BootError::Unsupported(what)) => return Err(unsupported(what, None)),
        Err(error) => return Err(error.into()),
    };
    let mut out = io::stdout().lock();
    if flags.json {
        serde_json::to_writer_pretty(&mut out, &report).context("printing the result")?;
        writeln!(out).context("printing the result")?;
    } else {
        write!(out, "{}", text(&report)).context("printing the result")?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets a flag on Ctrl-C and its kin, so that the machine is ended and its files are removed; the second one ends us.
/// Every thread inherits the mask, so the thread that waits gets the signal.
fn interruption() -> Result<Arc<AtomicBool>> {
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

/// The architecture that was asked for, else the one in the file's name, else the one that what is on it is for, else this
/// machine's.
fn architecture_of(flags: &TestFlags) -> Result<Architecture> {
    let named = flags.arch.or_else(|| architecture_in(&flags.disk));
    named.or_else(|| guess(&flags.disk)).or_else(Architecture::host).ok_or_else(|| {
        let host = std::env::consts::ARCH;
        unsupported(
            format!("QEMU is not set up for {host} guests here"),
            Some("name an architecture with --arch"),
        )
    })
}

/// An architecture between dots, as in `fedora-bootc-43.aarch64.qcow2`.
fn architecture_in(disk: &Path) -> Option<Architecture> {
    disk.file_name()?.to_str()?.split('.').find_map(|part| architecture(part).ok())
}

/// What the disk's boot programs and partition types tell. A disk of a format that is not read, or a damaged one, tells nothing:
/// booting it will say what is wrong.
fn guess(disk: &Path) -> Option<Architecture> {
    inspect::architecture_of(disk).and_then(|ours| Architecture::parse(ours.name()))
}

fn architecture(name: &str) -> Result<Architecture, String> {
    Ours::parse(name)
        .and_then(|ours| Architecture::parse(ours.name()))
        .ok_or_else(|| known(&Architecture::ALL.map(Architecture::name)))
}

fn firmware(name: &str) -> Result<Firmware, String> {
    Firmware::parse(name).ok_or_else(|| known(&Firmware::ALL.map(Firmware::name)))
}

fn bus(name: &str) -> Result<DiskBus, String> {
    DiskBus::parse(name).ok_or_else(|| known(&DiskBus::ALL.map(DiskBus::name)))
}

fn known(names: &[&str]) -> String {
    format!("known: {}", names.join(", "))
}

/// Milestones as they are reached: a spinner with lines above it on a terminal, lines elsewhere.
struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    fn new(disk: &Path) -> Self {
        let name = disk.file_name().unwrap_or(disk.as_os_str()).to_string_lossy();
        if !io::stderr().is_terminal() {
            eprintln!("booting {name}");
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

    fn reached(&self, reached: Reached) {
        let line = format!("{:>5.1} s  {}", reached.seconds, reached.milestone);
        match &self.spinner {
            Some(spinner) => spinner.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn end(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// The result for people.
fn text(report: &BootReport) -> String {
    let mut text = String::new();
    let essentials = report.machine.essentials();
    let outcome = match &report.verdict {
        Verdict::Passed => format!("passed in {:.0} s ({essentials})", report.seconds),
        Verdict::Failed { reason } => {
            format!("failed after {:.0} s ({essentials}): {reason}", report.seconds)
        }
    };
    let mut line = |line: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    };
    line(outcome);
    for check in &report.checks {
        let mark = match (check.passed, check.tolerated) {
            (true, _) => "ok",
            (false, true) => "note",
            (false, false) => "not ok",
        };
        line(format!("  {:<6}  {:<11}  {}", mark, check.name, check.detail));
    }
    if let qemu::Accelerator::Tcg { why } = &report.machine.accelerator {
        line(format!("  note    emulated, {} cpu: {why}", report.machine.cpus));
    }
    for suspicion in &report.suspicions {
        line(format!("  note    {suspicion}"));
    }
    if !report.passed() {
        line("the console's last lines:".to_owned());
        for shown in &report.console_tail {
            line(format!("  | {shown}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use qemu::{Accelerator, Check, Guest, MachineReport, Milestone};

    use super::*;

    fn report(verdict: Verdict) -> BootReport {
        BootReport {
            verdict,
            seconds: 41.2,
            machine: MachineReport {
                architecture: Architecture::X86_64,
                firmware: Firmware::Uefi,
                bus: DiskBus::Virtio,
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
        }
    }

    #[test]
    fn results_read_well() {
        assert_eq!(
            text(&report(Verdict::Passed)),
            "passed in 41 s (tcg, OVMF, virtio)\n  \
             ok      power-off    clean\n  \
             note    emulated, 1 cpu: no /dev/kvm\n"
        );
        let failed = text(&report(Verdict::Failed { reason: "the kernel panicked".to_owned() }));
        assert!(
            failed.starts_with("failed after 41 s (tcg, OVMF, virtio): the kernel panicked\n"),
            "{failed}"
        );
        assert!(failed.ends_with("the console's last lines:\n  | login:\n"), "{failed}");
    }

    #[test]
    fn names_tell_the_architecture() {
        let found = |name: &str| architecture_in(Path::new(name));
        assert_eq!(
            found("out/fedora-bootc-43.20260101.aarch64.qcow2"),
            Some(Architecture::Aarch64)
        );
        assert_eq!(found("fedora-bootc-43.x86_64.raw"), Some(Architecture::X86_64));
        assert_eq!(found("aarch64/disk.raw"), None);
    }
}
