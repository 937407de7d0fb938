//! How a boot ended.

use std::time::Duration;

use crate::report::MachineReport;
use crate::screen::Shot;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest switched itself off and QEMU ended well.
    PoweredOff,
    /// The guest reset the machine.
    Reset,
    /// We pulled the plug, as was wanted.
    Cut,
    /// It came to rest without a report, which will do, and did not heed its power button.
    Standing,
    /// It came to rest without a report, which will not do.
    Unreported,
    /// It would get no further.
    Hopeless,
    /// The console said more than anybody would read.
    Flooded,
    /// Time was up.
    TimedOut,
    /// The overlay could not be written: our fault, not the disk's.
    DiskFailed(String),
    /// QEMU ended in a way that no guest asks for.
    Crashed(String),
}

/// What is known of a machine that is off, besides what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) limit: Duration,
    pub(crate) seconds: f64,
    pub(crate) machine: MachineReport,
    pub(crate) command: Vec<String>,
    pub(crate) screens: Vec<Shot>,
}
