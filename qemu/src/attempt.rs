//! A boot to try: a disk, a machine, and what is expected of them.

use std::path::Path;
use std::time::Duration;

use crate::accelerator::Acceleration;
use crate::check::Expected;
use crate::console_rules::Rules;
use crate::credentials::Access;
use crate::disk::DiskFormat;
use crate::machine::Machine;
use crate::proof::{Level, Proof};
use crate::session::Session;

/// A boot to try.
#[derive(Clone, Debug)]
pub struct Test<'a> {
    /// The disk. It is never written.
    pub disk: &'a Path,
    /// What its file is; `None` for what the file's name says, or else its first bytes.
    pub format: Option<DiskFormat>,
    /// What earlier boots have left over it (see `disk_afterwards`), the oldest first.
    pub below: &'a [&'a Path],
    /// What to boot it in.
    pub machine: Machine,
    /// What is to execute the guest.
    pub acceleration: Acceleration,
    /// When to give up; `None` for [`Accelerator::time_limit`](crate::Accelerator::time_limit). What counts is the time in which the
    /// host lets the guest run.
    pub time_limit: Option<Duration>,
    /// What counts as success.
    pub proof: Proof,
    /// The weakest proof that will do where the guest does not report.
    pub accept: Level,
    /// How it is told to report.
    pub access: Access,
    /// Directory for the console, the guest's words, the command line and the result; made if need be.
    pub evidence: Option<&'a Path>,
    /// What the guest must be besides up.
    pub expected: Expected,
    /// What lines on the console mean; `None` for [`Rules::built_in`].
    pub console_rules: Option<&'a Rules>,
    /// Where to leave the disk as the guest left it: a qcow2 file with what it wrote, over `disk`. Replaced if it is there.
    pub disk_afterwards: Option<&'a Path>,
    /// What it is to do besides booting; [`Session::default`] for nothing.
    pub session: Session<'a>,
}

impl<'a> Test<'a> {
    /// A boot whose proof is the guest's report, with everything else as it usually is.
    pub fn new(disk: &'a Path, machine: Machine) -> Self {
        Self {
            disk,
            machine,
            format: None,
            below: &[],
            acceleration: Acceleration::Auto,
            time_limit: None,
            proof: Proof::Report,
            accept: Level::Report,
            access: Access::default(),
            evidence: None,
            expected: Expected::default(),
            console_rules: None,
            disk_afterwards: None,
            session: Session::default(),
        }
    }
}
