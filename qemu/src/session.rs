//! What happens between power-on and power-off, besides booting.

use std::path::Path;
use std::time::Duration;

use crate::device::DiskBus;
use crate::reached::Milestone;

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
    /// Further disks of the machine.
    pub disks: &'a [Attached<'a>],
    /// What is typed at the serial console: as soon as it has shown the first text, the second one; then the next pair.
    pub dialogue: &'a [(&'a str, &'a str)],
}

/// A disk beside the one that is booted. What the guest writes is in the file afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached<'a> {
    /// A raw disk of whole sectors of 512 bytes.
    pub file: &'a Path,
    /// How it is attached; no CD-ROM drive.
    pub bus: DiskBus,
    /// The serial number that the guest sees, at most 20 characters.
    pub serial: &'a str,
}

/// The part of a dialogue that is still to come.
#[derive(Debug)]
pub(crate) struct Dialogue<'a> {
    pairs: &'a [(&'a str, &'a str)],
    heard: Vec<u8>,
}

impl<'a> Dialogue<'a> {
    pub(crate) const fn new(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self { pairs, heard: Vec::new() }
    }

    /// Takes what the console says; returns what is to be typed now.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> String {
        let mut replies = String::new();
        self.heard.extend(bytes);
        while let Some(((wanted, reply), rest)) = self.pairs.split_first() {
            let said = self.heard.windows(wanted.len()).position(|part| part == wanted.as_bytes());
            let Some(start) = said else {
                // The beginning of what is waited for may be there already.
                let keep = self.heard.len().saturating_sub(wanted.len());
                self.heard.drain(..keep);
                return replies;
            };
            self.heard.drain(..start + wanted.len());
            self.pairs = rest;
            replies.push_str(reply);
        }
        self.heard.clear();
        replies
    }
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
    /// The plug is pulled: as soon as a line on the console contains this.
    CutAtText(&'a str),
}

impl Ending<'_> {
    /// Whether it comes from outside, without a warning.
    pub(crate) const fn is_cut(self) -> bool {
        matches!(self, Self::CutAt(_) | Self::CutAfter(..) | Self::CutAtText(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialogue_answers_each_question_once_and_in_order() {
        let mut dialogue = Dialogue::new(&[("name: ", "vda\n"), ("again: ", "vda\n"), ("x", "y")]);
        assert_eq!(dialogue.hear(b"again: "), "");
        assert_eq!(dialogue.hear(b"na"), "");
        assert_eq!(dialogue.hear(b"me: "), "vda\n");
        assert_eq!(dialogue.hear(b"vda\r\nname: ag"), "");
        assert_eq!(dialogue.hear(b"ain: . x"), "vda\ny", "what comes at once is heard at once");
        assert_eq!(dialogue.hear(b"name: "), "");
    }
}
