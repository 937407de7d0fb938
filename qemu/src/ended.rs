//! How a boot ended.

use std::time::Duration;

use crate::report::{Earlier, MachineReport};
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
    /// The guest came to rest without a report, which is enough, and ignored its power button.
    Standing,
    /// The guest came to rest without a report, and a report was required.
    Unreported,
    /// The boot would get no further.
    Hopeless,
    /// The console said more than anybody would read.
    Flooded,
    /// Time was up.
    TimedOut,
    /// The disk's file is damaged: QEMU cannot read what it is asked for.
    Damaged(String),
    /// This machine or this program broke the boot, which says nothing about the disk.
    Host(String),
}

/// What is known of a machine that is off, besides what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    /// The guest's time that it might have had.
    pub(crate) limit: Duration,
    /// By the clock, since power-on.
    pub(crate) seconds: f64,
    /// What the guest's processors ran, taken together.
    pub(crate) processor: Duration,
    /// What the host kept from the guest.
    pub(crate) lost: Duration,
    pub(crate) machine: MachineReport,
    pub(crate) command: Vec<String>,
    pub(crate) screens: Vec<Shot>,
    /// Attempts before this one, which this machine broke.
    pub(crate) earlier: Vec<Earlier>,
}
