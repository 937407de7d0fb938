//! A boot to try: a disk, a machine, and what is expected of them.

use std::path::Path;
use std::time::Duration;

use crate::accelerator::Accelerator;
use crate::check::Expected;
use crate::console_rules::Rules;
use crate::credentials::Access;
use crate::machine::Machine;
use crate::proof::{Level, Proof};
use crate::session::Session;

/// A boot to try.
#[derive(Clone, Debug)]
pub struct Test<'a> {
    /// The disk: raw, qcow2, vmdk, vhdx or vhd. It is never written.
    pub disk: &'a Path,
    /// What to boot it in.
    pub machine: Machine,
    /// What executes the guest; `None` for [`Accelerator::best`].
    pub accelerator: Option<Accelerator>,
    /// When to give up; `None` for [`Accelerator::time_limit`].
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
            accelerator: None,
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
