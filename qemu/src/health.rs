//! Whether QEMU, the disk's file and the guest are well, by what QEMU says about them.
//!
//! ```text
//! STOP ──► query-status ──► internal-error, paused …  this machine's fault      io-error   the event before it says whose
//! standard error ─────────► a fatal line              this machine's fault
//! BLOCK_IO_ERROR, failed writes in the statistics     this machine's fault, or that of the disk's file
//! GUEST_PANICKED, SUSPEND, WATCHDOG                   the guest's
//! ```

use std::time::Duration;

use serde_json::{Value, json};

use crate::host;
use crate::pace::Pace;
use crate::qmp::Message;
use crate::vm::Vm;
use crate::watch::PANIC_DEVICE;

/// How long a machine that stands still may owe an answer why.
const ANSWER: Duration = Duration::from_secs(1);

/// How long QEMU may owe any answer. It takes milliseconds.
const DEAF: Duration = Duration::from_secs(30);

/// When nothing was heard for so long, QEMU is asked how it is.
const QUIET: Duration = Duration::from_secs(5);

/// The commands that ask for the machine's state and the disks' statistics bear these ids.
const STATUS: &str = "status";
const STATISTICS: &str = "statistics";

/// What is wrong, and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ill {
    /// This machine or QEMU.
    Host(String),
    /// The file of the disk.
    Disk(String),
    /// The guest: a rule's name, what it means, how that was learned.
    Guest(&'static str, &'static str, &'static str),
}

/// What is known of a running machine's health.
#[derive(Debug)]
pub(crate) struct Health {
    /// Whether an error of reading can only be this machine's: a raw disk has nothing in it to misread.
    raw: bool,
    stopped: Option<Duration>,
    /// When the question was asked that has no answer yet.
    asked: Option<Duration>,
    heard: Duration,
    messages: u64,
    damage: Option<String>,
}

impl Health {
    pub(crate) const fn new(raw: bool) -> Self {
        Self { raw, stopped: None, asked: None, heard: Duration::ZERO, messages: 0, damage: None }
    }

    /// Something was heard of the guest.
    pub(crate) const fn alive(&mut self, at: Duration) {
        self.heard = at;
    }

    /// Takes what QEMU says.
    pub(crate) fn hear(&mut self, at: Duration, message: &Message, vm: &mut Vm) -> Option<Ill> {
        match message {
            Message::Stopped => {
                self.stopped = Some(at);
                self.ask(at, vm);
                None
            }
            Message::Return { id, value } if id == STATUS => {
                self.asked = None;
                let state = value.get("status").and_then(Value::as_str).unwrap_or_default();
                let meaning = state_means(state, &vm.messages());
                if meaning.is_none() {
                    self.stopped = None;
                }
                meaning
            }
            Message::Return { id, value } if id == STATISTICS => failed_writes(value),
            Message::DiskCorrupt { node, reason } if node == "base" => {
                self.damage = Some(reason.clone());
                None
            }
            Message::DiskCorrupt { node, reason } => {
                Some(Ill::Host(format!("the overlay ({node}) is damaged: {reason}")))
            }
            Message::DiskFailed { write: true, reason } => {
                Some(Ill::Host(format!("QEMU could not write the overlay: {reason}")))
            }
            Message::DiskFailed { write: false, reason } => {
                let damage = self.damage.clone().or_else(|| host::damage(&vm.messages()));
                Some(match (damage, self.raw) {
                    (_, true) => {
                        Ill::Host(format!("QEMU could not read the disk's file: {reason}"))
                    }
                    (Some(damage), _) => Ill::Disk(format!("its file is damaged: {damage}")),
                    (None, _) => Ill::Disk(format!("QEMU cannot read its file: {reason}")),
                })
            }
            Message::Panicked => Some(Ill::Guest(
                PANIC_DEVICE,
                "the kernel panicked",
                "told by the panic device; neither console nor screen showed why",
            )),
            Message::Suspended => Some(Ill::Guest(
                "suspended",
                "the guest went to sleep",
                "the machine is suspended, and nobody would wake it",
            )),
            Message::Watchdog => {
                Some(Ill::Guest("watchdog", "the guest hung", "its watchdog expired"))
            }
            _ => None,
        }
    }

    /// Looks at what QEMU has printed, and asks how it is when that is not known.
    pub(crate) fn look(&mut self, now: Duration, pace: &Pace, vm: &mut Vm) -> Option<Ill> {
        let length = vm.message_length();
        if length > self.messages {
            self.messages = length;
            if let Some(why) = host::fatal(&vm.messages()) {
                return Some(Ill::Host(why));
            }
        }
        if self.stopped.is_some_and(|stopped| pace.between(stopped, now) > ANSWER) {
            return Some(Ill::Host("QEMU stopped the machine and does not say why".to_owned()));
        }
        match self.asked {
            Some(asked) if pace.between(asked, now) > DEAF => {
                Some(Ill::Host(format!("QEMU gave no answer for {} s", DEAF.as_secs())))
            }
            None if now > self.heard + QUIET => {
                self.ask(now, vm);
                None
            }
            _ => None,
        }
    }

    /// Asks for the disks' statistics, for drives that cannot stop the machine when a disk's file fails.
    pub(crate) fn ask_statistics(vm: &mut Vm) {
        // QEMU may be ending; then there is nothing to ask.
        let _ = vm.ask(&json!({ "execute": "query-blockstats", "id": STATISTICS }));
    }

    fn ask(&mut self, now: Duration, vm: &mut Vm) {
        self.heard = now;
        if vm.ask(&json!({ "execute": "query-status", "id": STATUS })).is_ok() {
            self.asked = Some(now);
        }
    }
}

/// What a machine's state means, and whose fault it is. `messages` is what QEMU has printed.
fn state_means(state: &str, messages: &str) -> Option<Ill> {
    let because = |otherwise: &str| host::cause(messages).unwrap_or_else(|| otherwise.to_owned());
    match state {
        "internal-error" => Some(Ill::Host(because("QEMU met an internal error"))),
        "io-error" => Some(Ill::Host("QEMU stopped at a disk's error".to_owned())),
        "guest-panicked" => Some(Ill::Guest(
            PANIC_DEVICE,
            "the kernel panicked",
            "told by the machine's state; neither console nor screen showed why",
        )),
        "watchdog" => Some(Ill::Guest("watchdog", "the guest hung", "its watchdog expired")),
        "suspended" => Some(Ill::Guest(
            "suspended",
            "the guest went to sleep",
            "the machine is suspended, and nobody would wake it",
        )),
        // It may have been asked before it ran, or when it was about to end.
        "running" | "prelaunch" | "shutdown" => None,
        state => {
            let paused = format!("QEMU stopped the machine, which nobody had asked for ({state})");
            Some(Ill::Host(host::fatal(messages).unwrap_or(paused)))
        }
    }
}

/// Writes that failed, on whatever disk: all of them go to files of ours.
fn failed_writes(statistics: &Value) -> Option<Ill> {
    let failed: u64 = statistics
        .as_array()?
        .iter()
        .filter_map(|device| device.pointer("/stats/failed_wr_operations")?.as_u64())
        .sum();
    (failed > 0)
        .then(|| Ill::Host(format!("QEMU could not write the overlay: {failed} writes failed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart_by_whose_fault_they_are() {
        let messages = "KVM internal error. Suberror: 1\nemulation failure\n";
        let kvm = Ill::Host("KVM internal error. Suberror: 1, emulation failure".to_owned());
        assert_eq!(state_means("internal-error", messages), Some(kvm.clone()));
        assert_eq!(state_means("paused", messages), Some(kvm));
        assert_eq!(
            state_means("internal-error", ""),
            Some(Ill::Host("QEMU met an internal error".to_owned()))
        );
        assert!(matches!(state_means("paused", ""), Some(Ill::Host(_))));
        assert!(matches!(state_means("guest-panicked", ""), Some(Ill::Guest(..))));
        assert!(matches!(state_means("suspended", ""), Some(Ill::Guest(..))));
        assert_eq!(state_means("running", "warning"), None);
        assert_eq!(state_means("shutdown", ""), None);
    }

    #[test]
    fn failed_writes_are_counted_over_all_disks() {
        let disks = |failed| json!([{ "stats": { "failed_wr_operations": 0 } }, { "stats": { "failed_wr_operations": failed } }, {}]);
        assert_eq!(failed_writes(&disks(0)), None);
        assert!(
            matches!(failed_writes(&disks(3)), Some(Ill::Host(why)) if why.contains("3 writes"))
        );
    }
}
