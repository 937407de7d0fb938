//! Boots unmodified disks in QEMU and says how far they got. Knows nothing of how they were made.
//!
//! ```text
//! Machine ──arguments()──► Vm ──events──► Console ──lines──► Watch      milestones, reasons to give up
//!   │                       ▲   (console,    └──────────────► Guest      the guest's own words
//! Firmware, Accelerator     │    report,                        │
//! Overlay, Credentials ─────┘    QMP)                           ▼
//!                                                          BootReport    verdict, checks, evidence
//! ```
//!
//! [`boot()`] is the whole of it in one function, [`chain`] several boots of one disk. The disk is read through an overlay and
//! never written; what looks into the guest arrives as systemd credentials in SMBIOS strings, so nothing is added to the disk
//! either.

#![warn(missing_docs)]

use std::io;

use thiserror::Error;

mod accelerator;
mod attend;
mod boot;
pub mod chain;
mod console;
mod console_rules;
mod credentials;
mod device;
mod evidence;
mod firmware;
mod guest;
mod interactive;
mod machine;
mod matrix;
mod milestone;
mod overlay;
mod pairwise;
mod parallel;
mod program;
mod proof;
mod qmp;
mod record;
mod report;
mod screen;
mod session;
mod tpm;
mod vm;

pub use accelerator::Accelerator;
pub use boot::{Test, boot, prerequisites};
pub use console_rules::{RuleError, Rules, Severity};
pub use credentials::{Access, Credentials};
pub use device::{DiskBus, Network, Tpm};
pub use firmware::{Firmware, Flash};
pub use guest::Guest;
pub use interactive::{Prepared, Ssh, Visit};
pub use machine::{Architecture, Machine, Wiring};
pub use matrix::{LeftOut, Matrix, Medium, Profile};
pub use milestone::{Finding, Milestone};
pub use parallel::{Resources, in_parallel};
pub use proof::{Level, Proof};
pub use report::{
    BootReport, Case, Check, Expected, Format, MachineReport, Outcome, Reached, Selinux, Suite,
    Verdict, table,
};
pub use screen::Shot;
pub use session::{Attached, Ending, Session};

/// Why a boot could not be tried. A disk that does not boot is no error: it is a [`BootReport`] whose verdict is failed.
#[derive(Debug, Error)]
pub enum BootError {
    /// A program or a firmware image is not on this machine.
    #[error("{what} was not found: install {packages}")]
    Missing {
        /// What was looked for.
        what: String,
        /// The packages that bring it, per distribution.
        packages: String,
    },
    /// No such machine can be made.
    #[error("{0}")]
    Unsupported(String),
    /// QEMU or qemu-img gave up before the guest ran.
    #[error("{program} did not start: {reason}")]
    Start {
        /// The program.
        program: String,
        /// What it said.
        reason: String,
    },
    /// This side's files and sockets.
    #[error("{doing}")]
    Io {
        /// Present participle with its object.
        doing: String,
        /// What happened.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Stopped,
}

impl BootError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
