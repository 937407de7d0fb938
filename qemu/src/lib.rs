//! Boots unmodified disks in QEMU and says how far they got. Knows nothing of how they were made.
//!
//! ```text
//! Machine ──arguments()──► Vm ──events──► Console ──lines──► Watch      milestones, reasons to give up
//!   │                       ▲   (console,    ├──────────────► Guest      the guest's own words
//! Firmware, Accelerator     │    report,     └──────────────► Health     whether this machine broke the boot
//! Drive, Credentials ───────┘    QMP)                           │ judge
//!                                                               ▼
//!                                                          BootReport    verdict, checks, evidence
//! ```
//!
//! [`boot()`] is the whole of it in one function, [`chain`] several boots of one disk. The disk is read through an overlay and
//! never written; what looks into the guest arrives as systemd credentials in SMBIOS strings, so nothing is added to the disk
//! either.

#![warn(missing_docs)]

mod accelerator;
mod architecture;
mod attempt;
mod attend;
mod boot;
pub mod chain;
mod check;
mod console;
mod console_rules;
mod credentials;
mod device;
mod disk;
mod ended;
mod error;
mod evidence;
mod firmware;
mod guest;
mod health;
mod host;
mod interactive;
mod judge;
mod machine;
mod matrix;
mod memo;
mod pace;
mod pairwise;
mod parallel;
mod program;
mod proof;
mod qmp;
mod reached;
mod record;
mod report;
mod sandbox;
mod screen;
mod session;
mod tpm;
mod trial;
mod vm;
mod watch;

pub use accelerator::{Acceleration, Accelerator};
pub use architecture::Architecture;
pub use attempt::Test;
pub use boot::{boot, prerequisites};
pub use check::{Check, Expected, Selinux};
pub use console_rules::{RuleError, Rules, Severity};
pub use credentials::{Access, Credentials};
pub use device::{DiskBus, Network, Tpm};
pub use disk::DiskFormat;
pub use error::BootError;
pub use firmware::{Firmware, Flash};
pub use guest::Guest;
pub use interactive::{Prepared, Ssh, Visit};
pub use machine::Machine;
pub use matrix::{LeftOut, Matrix, Medium, Profile};
pub use parallel::{Resources, in_parallel};
pub use proof::{Level, Proof};
pub use reached::{Milestone, News, Reached};
pub use report::{
    BootReport, Case, Earlier, Format, MachineReport, Outcome, Suite, Verdict, table,
};
pub use screen::Shot;
pub use session::{Attached, Ending, Session};
pub use trial::choose;
pub use watch::Finding;
