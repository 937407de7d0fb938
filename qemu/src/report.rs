//! What a boot came to, and below it what many came to in the forms that others read.

mod html;
mod json;
mod junit;
mod resultsdb;
mod suite;
mod table;
mod tap;
mod text;
mod tmt;
mod yaml;

pub use self::suite::{Case, Format, Outcome, Suite};
pub use self::table::table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::accelerator::Accelerator;
use crate::architecture::Architecture;
use crate::check::Check;
use crate::device::{DiskBus, Network, Tpm};
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::machine::Machine;
use crate::proof::Level;
use crate::reached::{Milestone, Reached};
use crate::screen::Shot;
use crate::watch::Finding;

/// What a boot came to. Everything here is also in the evidence directory's `result.json`.
#[derive(Clone, Debug, Serialize)]
pub struct BootReport {
    /// Whether the disk boots.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the verdict rests on.
    pub proof: Level,
    /// From power-on to power-off, or to when we gave up, by the clock.
    pub seconds: f64,
    /// The time that the guest's processors ran, taken together.
    pub processor_seconds: f64,
    /// The time in which the guest could have run, and this machine did something else.
    pub lost_seconds: f64,
    /// What it ran on.
    pub machine: MachineReport,
    /// How far it got, and when.
    pub reached: Vec<Reached>,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// Lines on the console that mean something, as the rules say.
    pub findings: Vec<Finding>,
    /// What somebody should look at, though it decided nothing.
    pub suspicions: Vec<String>,
    /// The last lines on the console.
    pub console_tail: Vec<String>,
    /// Seconds that systemd says each part of the start took: `firmware`, `loader`, `kernel`, `initrd`, `userspace`, as far as
    /// it knows.
    pub startup: BTreeMap<String, f64>,
    /// What the screen showed, where the machine has one; the evidence directory has the pictures.
    pub screens: Vec<Shot>,
    /// The guest's own words.
    #[serde(skip)]
    pub guest: Guest,
    /// The command line, program first.
    pub command: Vec<String>,
    /// Attempts before this one, which this machine broke.
    pub earlier: Vec<Earlier>,
}

/// An attempt to boot that this machine broke, so that another one followed.
#[derive(Clone, Debug, Serialize)]
pub struct Earlier {
    /// What executed the guest's instructions.
    pub accelerator: Accelerator,
    /// What broke.
    pub reason: String,
    /// From power-on to that, by the clock.
    pub seconds: f64,
    /// How far it got until then, and when.
    pub reached: Vec<Reached>,
    /// The directory of its evidence, below that of the boot.
    pub evidence: String,
    /// The command line, program first.
    pub command: Vec<String>,
}

impl BootReport {
    /// Whether the disk boots.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }

    /// Why it did not pass.
    pub fn reason(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Passed => None,
            Verdict::Failed { reason } | Verdict::Error { reason } => Some(reason),
        }
    }

    /// Adds something that was looked at; the verdict follows, unless it says something worse already.
    pub(crate) fn expect(&mut self, check: Check) {
        if !check.passed && self.passed() {
            self.verdict = Verdict::Failed { reason: format!("{}: {}", check.name, check.detail) };
        }
        self.checks.push(check);
    }

    /// The furthest it got.
    pub fn furthest(&self) -> Milestone {
        self.reached.last().map_or(Milestone::Nothing, |reached| reached.milestone)
    }
}

/// Whether a disk boots, as far as could be learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    /// There is the proof that was wanted (the guest said so itself, unless less will do), everything that was looked at is
    /// right, and it powered off cleanly.
    Passed,
    /// Anything less.
    Failed {
        /// What stands in the way, in a sentence.
        reason: String,
    },
    /// This machine or this program broke the boot: nothing was learned about the disk.
    Error {
        /// What broke, in a sentence.
        reason: String,
    },
}

/// What a boot ran on.
#[derive(Clone, Debug, Serialize)]
pub struct MachineReport {
    /// The processor's kind.
    pub architecture: Architecture,
    /// What ran first.
    pub firmware: Firmware,
    /// How the disk was attached.
    pub bus: DiskBus,
    /// The disk's logical sector size in bytes.
    pub sector_size: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors it really had.
    pub cpus: u32,
    /// The network card.
    pub network: Network,
    /// The TPM.
    pub tpm: Tpm,
    /// Whether it had a serial console.
    pub serial: bool,
    /// What executed its instructions, and if not KVM, why.
    pub accelerator: Accelerator,
    /// QEMU's version.
    pub qemu: String,
}

impl MachineReport {
    pub(crate) fn of(machine: &Machine, accelerator: &Accelerator, qemu: String) -> Self {
        Self {
            architecture: machine.architecture,
            firmware: machine.firmware,
            bus: machine.bus,
            sector_size: machine.sector_size,
            memory_mib: machine.memory_mib,
            cpus: machine.cpus_under(accelerator),
            network: machine.network,
            tpm: machine.tpm,
            serial: machine.serial,
            accelerator: accelerator.clone(),
            qemu,
        }
    }

    /// The essentials, as in `tcg, OVMF, virtio`.
    pub fn essentials(&self) -> String {
        let firmware = self.firmware.product(self.architecture);
        format!("{}, {firmware}, {}", self.accelerator.name(), self.bus.name())
    }
}
