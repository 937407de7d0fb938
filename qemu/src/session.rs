//! What happens between power-on and power-off, besides booting.

use std::path::Path;
use std::time::Duration;

use crate::milestone::Milestone;

/// What a guest is to do, and how it is to end. Only guests that report (`Proof::Report`) can do errands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Session<'a> {
    /// A POSIX shell script that the guest runs once it is up and has reported. Its output and exit code are the facts `errand`
    /// and `errand.exit`; it may say more with `say KEY VALUE`. It is at most 120 KiB.
    pub errand: Option<&'a str>,
    /// How it is to end.
    pub ending: Ending<'a>,
    /// File that keeps the firmware's variables from one boot to the next: used if it is there, else made.
    pub variables: Option<&'a Path>,
    /// Whether the guest gets a network card, behind which is this machine's loopback, at 10.0.2.2.
    pub network: bool,
}

/// How a session is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending<'a> {
    /// The guest switches itself off.
    #[default]
    PowerOff,
    /// The guest resets the machine.
    Reboot,
    /// The plug is pulled: as soon as the boot has got this far.
    CutAt(Milestone),
    /// The plug is pulled: this long after the guest has said a fact of this name.
    CutAfter(&'a str, Duration),
}

impl Ending<'_> {
    /// Whether it comes from outside, without a warning.
    pub(crate) const fn is_cut(self) -> bool {
        matches!(self, Self::CutAt(_) | Self::CutAfter(..))
    }
}
