//! How far a boot got and what stood in its way, as the console shows it.

use std::time::Duration;

use serde::Serialize;

use crate::console_rules::{Meaning, Rules, Severity};
use crate::reached::Milestone::{self, Kernel, Nothing, Running};
use crate::reached::Reached;

/// How many findings are kept, and of one rule: what repeats itself for ever must not fill memory or bury the rest.
const FINDINGS: usize = 50;
const FINDINGS_OF_A_RULE: usize = 5;

/// The rule of a panic that the guest told its panic device.
pub(crate) const PANIC_DEVICE: &str = "panic-device";

/// A line on the console that a rule applied to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, in half a sentence.
    pub meaning: String,
    /// The line.
    pub line: String,
    /// When, since power-on.
    pub seconds: f64,
}

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    rules: &'a Rules,
    reached: Vec<Reached>,
    hopeless: Option<Finding>,
    findings: Vec<Finding>,
    prompt: Option<Prompt>,
}

/// The line that showed that the system is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) at: Duration,
    pub(crate) line: String,
}

impl<'a> Watch<'a> {
    pub(crate) const fn new(rules: &'a Rules) -> Self {
        Self { rules, reached: Vec::new(), hopeless: None, findings: Vec::new(), prompt: None }
    }

    /// Looks at a finished line.
    pub(crate) fn line(&mut self, at: Duration, text: &str) {
        self.look(at, text, true);
    }

    /// Looks at an unfinished line: prompts are never finished, and what is the end is so before its line's end.
    pub(crate) fn partial(&mut self, at: Duration, text: &str) {
        self.look(at, text, false);
    }

    fn look(&mut self, at: Duration, text: &str, whole: bool) {
        let Some(rule) = self.rules.first(text, self.furthest()) else { return };
        let severity = match rule.meaning {
            // Half a line may go on to say something else: `Welcome to G` is GRUB's. Prompts do not go on.
            Meaning::Reaches(milestone) if whole || milestone == Running => {
                if milestone == Running {
                    self.prompt.get_or_insert_with(|| Prompt { at, line: text.to_owned() });
                }
                self.reach(at, milestone);
                return;
            }
            Meaning::Reaches(_) => return,
            Meaning::Severity(severity) => {
                // A kernel whose first words are its last has spoken.
                if self.rules.shows(text, Kernel) {
                    self.reach(at, Kernel);
                }
                severity
            }
        };
        let finding = || Finding {
            rule: rule.name.clone(),
            severity,
            meaning: rule.text.clone(),
            line: text.to_owned(),
            seconds: at.as_secs_f64(),
        };
        match (severity, &mut self.hopeless) {
            (Severity::Ignore, _) => {}
            (Severity::Fatal, None) => self.hopeless = Some(finding()),
            // The line as it was when a pattern showed, now longer: what it says may be more than that something is wrong.
            (Severity::Fatal, Some(known)) if text.starts_with(&known.line) => {
                *known = Finding { seconds: known.seconds, ..finding() };
            }
            // Words say more than a device.
            (Severity::Fatal, Some(known)) if known.rule == PANIC_DEVICE => {
                *known = Finding { seconds: known.seconds, ..finding() };
            }
            _ if whole => {
                let finding = finding();
                let same = self.findings.iter().filter(|known| known.rule == finding.rule);
                let (mut count, mut known) = (0, false);
                for other in same {
                    count += 1;
                    known |= other.line == finding.line;
                }
                if !known && count < FINDINGS_OF_A_RULE && self.findings.len() < FINDINGS {
                    self.findings.push(finding);
                }
            }
            _ => {}
        }
    }

    /// Notes that it will get no further, which was learned otherwise than from the console.
    pub(crate) fn give_up(&mut self, at: Duration, rule: &str, meaning: &str, line: &str) {
        self.hopeless.get_or_insert_with(|| Finding {
            rule: rule.to_owned(),
            severity: Severity::Fatal,
            meaning: meaning.to_owned(),
            line: line.to_owned(),
            seconds: at.as_secs_f64(),
        });
    }

    /// Notes a milestone, which may be learned otherwise than from the console. Backwards is not a direction.
    pub(crate) fn reach(&mut self, at: Duration, milestone: Milestone) {
        if milestone > self.furthest() {
            self.reached.push(Reached { milestone, seconds: at.as_secs_f64() });
        }
    }

    pub(crate) fn furthest(&self) -> Milestone {
        self.reached.last().map_or(Nothing, |reached| reached.milestone)
    }

    /// When a milestone, or one beyond it, was reached.
    pub(crate) fn since(&self, milestone: Milestone) -> Option<Duration> {
        let reached = self.reached.iter().find(|reached| reached.milestone >= milestone)?;
        Some(Duration::from_secs_f64(reached.seconds))
    }

    /// What showed on the console that the system is up.
    pub(crate) const fn prompt(&self) -> Option<&Prompt> {
        self.prompt.as_ref()
    }

    pub(crate) fn reached(&self) -> &[Reached] {
        &self.reached
    }

    /// Why to wait no longer.
    pub(crate) const fn hopeless(&self) -> Option<&Finding> {
        self.hopeless.as_ref()
    }

    /// What was found besides that.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reached::Milestone::{Bootloader, Firmware, Initramfs, Userspace};

    fn watched(lines: &[&str]) -> Watch<'static> {
        let mut watch = Watch::new(Rules::built_in());
        for (second, line) in (0..).zip(lines) {
            watch.line(Duration::from_secs(second), line);
        }
        watch
    }

    fn reason(lines: &[&str]) -> Option<String> {
        watched(lines).hopeless().map(|finding| finding.meaning.clone())
    }

    fn said(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_boot_passes_all_milestones_in_order() {
        let watch = watched(&[
            "UEFI firmware (version 2.0 built at 00:00:00)",
            "BdsDxe: failed to load Boot0001 \"UEFI PXEv4\": Not Found",
            "BdsDxe: starting Boot0002 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x2,0x0)",
            "GNU GRUB  version 2.14",
            "EFI stub: Booting Linux Kernel...",
            "[    0.000000] Linux version 7.2.0",
            "[    1.200000] Run /init as init process",
            "Welcome to Fedora Linux 44 dracut-107 (Initramfs)!",
            "[    4.000000] systemd[1]: Switching root.",
            "Welcome to Fedora Linux 44!",
            "localhost login:",
        ]);
        let reached: Vec<_> =
            watch.reached().iter().map(|reached| (reached.milestone, reached.seconds)).collect();
        let expected = [
            (Firmware, 0.0),
            (Bootloader, 2.0),
            (Kernel, 4.0),
            (Initramfs, 6.0),
            (Userspace, 8.0),
            (Running, 10.0),
        ];
        assert_eq!(reached, expected);
        assert_eq!(watch.hopeless(), None);
        assert_eq!(watch.findings(), []);
    }

    #[test]
    fn ends_of_the_road_are_told_apart() {
        assert_eq!(
            reason(&["SeaBIOS (version 1.16)", "No bootable device."]),
            said("firmware found nothing to boot")
        );
        assert_eq!(
            reason(&["BdsDxe: failed to load Boot0001 \"UEFI Misc Device\": Access Denied"]),
            said("Secure Boot refused the boot loader")
        );
        assert_eq!(
            reason(&["[ 1.0] Kernel panic - not syncing: Attempted to kill init!"]),
            said("the kernel panicked")
        );
        assert_eq!(reason(&["Press Enter for maintenance"]), said("emergency mode"));
    }

    #[test]
    fn the_first_reason_stays_and_is_told_with_its_whole_line() {
        let mut watch = Watch::new(Rules::built_in());
        let whole = "Kernel panic - not syncing: Oops";
        watch.partial(Duration::ZERO, "Kernel panic - not syncing");
        assert!(watch.hopeless().is_some(), "an unfinished line is enough");
        watch.line(Duration::ZERO, whole);
        watch.line(Duration::ZERO, "You are in emergency mode");
        assert_eq!(watch.hopeless().map(|finding| finding.line.as_str()), Some(whole));
        assert_eq!(watch.findings().len(), 1, "what comes after is told, too");
    }

    #[test]
    fn panic_device_gives_way_to_what_the_kernel_says() {
        let mut watch = Watch::new(Rules::built_in());
        watch.give_up(Duration::from_secs(3), PANIC_DEVICE, "the kernel panicked", "by device");
        watch.line(Duration::from_secs(4), "Kernel panic - not syncing: Attempted to kill init!");
        let finding = watch.hopeless().unwrap();
        assert!(finding.line.ends_with("kill init!") && finding.seconds == 3.0, "{finding:?}");
        watch.give_up(Duration::from_secs(5), PANIC_DEVICE, "again", "again");
        assert!(watch.hopeless().unwrap().line.ends_with("kill init!"));
    }

    #[test]
    fn a_line_that_goes_on_says_more() {
        let mut watch = Watch::new(Rules::built_in());
        watch.partial(Duration::from_secs(3), "[ 3.4] Kernel panic - not syncing");
        assert_eq!(watch.hopeless().unwrap().meaning, "the kernel panicked");
        watch.line(
            Duration::from_secs(4),
            "[ 3.4] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        );
        let finding = watch.hopeless().unwrap();
        assert!(finding.meaning.starts_with("the kernel found no root"), "{finding:?}");
        assert_eq!(finding.seconds, 3.0);
        assert_eq!(watch.findings(), []);
    }

    #[test]
    fn what_firmware_would_say_means_nothing_later() {
        assert_eq!(reason(&["Linux version 7.2", "grub> is a prompt", "Shell> is another"]), None);
        assert_eq!(reason(&["echo grub>"]), None);
    }

    /// SeaBIOS' GRUB says this a few bytes at a time.
    #[test]
    fn half_a_line_reaches_nothing_and_grub_is_no_user_space() {
        let mut watch = watched(&["SeaBIOS (version 1.16)", "GRUB loading."]);
        watch.partial(Duration::ZERO, "Welcome to G");
        watch.line(Duration::ZERO, "Welcome to GRUB!");
        assert_eq!(watch.furthest(), Bootloader);
        watch.partial(Duration::ZERO, "Welcome to Fedora Linux 44");
        watch.line(Duration::ZERO, "Welcome to Fedora Linux 44 dracut-107 (Initramfs)!");
        assert_eq!((watch.furthest(), watch.prompt()), (Initramfs, None));
        watch.partial(Duration::from_secs(9), "localhost login:");
        assert_eq!(watch.furthest(), Running);
        let prompt = watch.prompt().unwrap();
        assert_eq!((prompt.at.as_secs(), prompt.line.as_str()), (9, "localhost login:"));
        assert_eq!(watch.since(Kernel), watch.since(Initramfs));
    }

    #[test]
    fn a_kernel_whose_first_words_are_its_last_has_spoken() {
        let watch = watched(&[
            "Booting `Fedora'",
            "EFI stub: WARNING: Decompression failed: ZSTD-compressed data is corrupt",
        ]);
        assert_eq!(watch.furthest(), Kernel);
        assert!(watch.hopeless.is_some());
    }

    #[test]
    fn findings_are_collected_once_and_not_without_end() {
        let mut watch = watched(&["[ 3.0] Oops: int3", "[ 3.0] Oops: int3"]);
        watch.partial(Duration::ZERO, "[ 4.0] Oops: in");
        assert_eq!(watch.findings().len(), 1, "{:?}", watch.findings());
        assert_eq!(watch.findings()[0].severity, Severity::Error);
        for n in 0..100 {
            watch.line(Duration::ZERO, &format!("Oops: {n}"));
        }
        watch.line(Duration::ZERO, "EXT4-fs error (device vda3)");
        assert_eq!(watch.findings().len(), FINDINGS_OF_A_RULE + 1);
    }
}
