//! One case: a disk in a machine, and the verdict on it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu::chain::{self, ChainReport, Step, Update};
use qemu::{Architecture, BootReport, Guest, Machine, Session, Test};

use crate::disk::{Disk, directory};

pub(crate) const X86_64: Architecture = Architecture::X86_64;
pub(crate) const AARCH64: Architecture = Architecture::Aarch64;

/// When to give up. A boot takes half a minute, but where emulation gets an eighth of a processor it has been seen to take ten;
/// what is hopeless is noticed long before.
const TIME_LIMIT: Duration = Duration::from_secs(1200);

/// A disk in a machine.
pub(crate) struct Case {
    name: &'static str,
    pub(crate) disk: &'static Disk,
    machine: Machine,
}

impl Case {
    pub(crate) fn new(name: &'static str, disk: &'static Disk, machine: Machine) -> Self {
        Self { name, disk, machine }
    }

    /// Where the case leaves its evidence.
    pub(crate) fn directory(&self) -> PathBuf {
        directory(self.name)
    }

    /// Boots the disk, which must succeed; returns what the guest said.
    pub(crate) fn passes(&self) -> Guest {
        self.passes_leaving(None, Session::default())
    }

    /// The same, with an errand, which must succeed, too.
    pub(crate) fn passes_with(&self, errand: &str) -> Guest {
        self.passes_leaving(None, Session { errand: Some(errand), ..Session::default() })
    }

    /// The same, keeping the disk as the guest left it.
    pub(crate) fn passes_leaving(
        &self,
        disk_afterwards: Option<&Path>,
        session: Session<'_>,
    ) -> Guest {
        let report = self.tried(&self.disk.pressed().file, disk_afterwards, session);
        if let Some(failure) = failure(self.name, &report) {
            panic!("{failure}\nevidence: {}", self.directory().display());
        }
        let mut figures =
            format!("{}: {:.0} s, {}:", self.name, report.seconds, report.machine.essentials());
        for reached in &report.reached {
            // Writing to a String cannot fail.
            let _ = write!(figures, " {} {:.0}", reached.milestone, reached.seconds);
        }
        eprintln!("{figures}");
        report.guest
    }

    /// Runs a chain on the disk, all of whose legs must pass.
    pub(crate) fn passes_chain(&self, steps: &[Step<Update>]) -> ChainReport {
        let directory = self.directory();
        let test = Test {
            time_limit: Some(TIME_LIMIT),
            evidence: Some(&directory),
            ..Test::new(&self.disk.pressed().file, self.machine.clone())
        };
        let report = chain::run(&test, steps, &mut |_| {}, &|| false)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        for (index, leg) in report.legs.iter().enumerate() {
            let name = format!("{}, leg {}: {}", self.name, index + 1, leg.name);
            if let Some(failure) = failure(&name, &leg.boot) {
                panic!("{failure}\nevidence: {}", directory.display());
            }
            eprintln!("{name}: {:.0} s", leg.boot.seconds);
        }
        report
    }

    /// Boots a disk in the machine, whatever comes of it.
    pub(crate) fn tried(
        &self,
        disk: &Path,
        disk_afterwards: Option<&Path>,
        session: Session<'_>,
    ) -> BootReport {
        let evidence = self.directory();
        let test = Test {
            time_limit: Some(TIME_LIMIT),
            evidence: Some(&evidence),
            disk_afterwards,
            session,
            ..Test::new(disk, self.machine.clone())
        };
        self.booted(&test)
    }

    /// Boots a disk with the limits that users have.
    pub(crate) fn tried_within_default(&self, disk: &Path) -> BootReport {
        let evidence = self.directory();
        self.booted(&Test { evidence: Some(&evidence), ..Test::new(disk, self.machine.clone()) })
    }

    /// Boots a disk that must fail; time is up when the caller says so.
    pub(crate) fn tried_within(&self, disk: &Path, limit: Option<Duration>) -> BootReport {
        let evidence = self.directory();
        self.booted(&Test {
            time_limit: Some(limit.unwrap_or(TIME_LIMIT)),
            evidence: Some(&evidence),
            ..Test::new(disk, self.machine.clone())
        })
    }

    fn booted(&self, test: &Test<'_>) -> BootReport {
        qemu::boot(test, &mut |_| {}, &|| false)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// What somebody who has to find out why a boot failed wants to read first; `None` if it did not.
pub(crate) fn failure(name: &str, report: &BootReport) -> Option<String> {
    let reason = report.reason()?;
    let how = if let qemu::Verdict::Error { .. } = report.verdict { "broke" } else { "failed" };
    let mut text = format!("{name} ({}) {how}: {reason}\n", report.machine.essentials());
    let at = report.reached.last().map_or(0.0, |reached| reached.seconds);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "it got as far as: {}, after {at:.1} s", report.furthest());
    for suspicion in &report.suspicions {
        let _ = writeln!(text, "note: {suspicion}");
    }
    text.push_str("the console's last lines:\n");
    for line in &report.console_tail {
        let _ = writeln!(text, "| {line}");
    }
    Some(text)
}
