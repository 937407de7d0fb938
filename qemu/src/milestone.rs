//! How far a boot got, recognised from what the console shows. The rules are a table: to know more is to add a line.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::report::Reached;
use Meaning::{Hopeless, Reaches, Suspicious};
use Milestone::{Bootloader, Firmware, Initramfs, Kernel, Nothing, Running, Userspace};

/// A place on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Milestone {
    /// Not even firmware spoke.
    Nothing,
    /// OVMF, AAVMF or SeaBIOS spoke.
    Firmware,
    /// Firmware started a boot loader, or a boot loader spoke.
    Bootloader,
    /// The kernel spoke, or its EFI stub.
    Kernel,
    /// The initial RAM file system's programs run.
    Initramfs,
    /// The installed system's programs run.
    Userspace,
    /// The system is up.
    Running,
}

impl Milestone {
    /// A noun, for sentences and progress lines.
    pub const fn name(self) -> &'static str {
        match self {
            Nothing => "nothing",
            Firmware => "firmware",
            Bootloader => "boot loader",
            Kernel => "kernel",
            Initramfs => "initramfs",
            Userspace => "user space",
            Running => "running",
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a line on the console means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The boot got so far.
    Reaches(Milestone),
    /// It will get no further; waiting would be in vain.
    Hopeless(&'static str),
    /// It may still succeed, but somebody should look.
    Suspicious(&'static str),
}

/// The line contains these, in this order. `^` at the start of the first: the line begins with it.
type Pattern = &'static [&'static str];

/// Pattern, meaning, and how far the boot may have got for the rule to apply: what firmware and boot loaders say cannot be
/// said by them later. The first rule that applies is the only one.
type Rule = (Pattern, Meaning, Milestone);

const RULES: &[Rule] = &[
    // Ends of the road in firmware.
    (&["BdsDxe:", "Access Denied"], Hopeless("Secure Boot refused the boot loader"), Bootloader),
    (&["Security Violation"], Hopeless("Secure Boot refused the boot loader"), Bootloader),
    (&["Verification failed: (0x1A)"], Hopeless("shim refused the next stage"), Bootloader),
    (
        &["bad shim signature"],
        Hopeless("the boot loader refused the kernel's signature"),
        Bootloader,
    ),
    (
        &["UEFI Interactive Shell"],
        Hopeless("firmware found nothing to boot and started its shell"),
        Bootloader,
    ),
    (&["^Shell>"], Hopeless("firmware found nothing to boot and started its shell"), Bootloader),
    (
        &["No bootable option or device was found"],
        Hopeless("firmware found nothing to boot"),
        Bootloader,
    ),
    (&["No bootable device"], Hopeless("firmware found nothing to boot"), Bootloader),
    (&["not a bootable disk"], Hopeless("firmware found nothing to boot"), Bootloader),
    // Ends of the road in GRUB.
    (
        &["^grub rescue>"],
        Hopeless("GRUB found no modules or configuration: rescue prompt"),
        Bootloader,
    ),
    (&["^grub>"], Hopeless("GRUB found no configuration: command prompt"), Bootloader),
    (&["you need to load the kernel first"], Hopeless("GRUB found no kernel"), Bootloader),
    (&["^error: file `"], Suspicious("GRUB misses a file"), Bootloader),
    (&["^error: "], Suspicious("the boot loader reports an error"), Bootloader),
    // Ends of the road in the kernel.
    (&["Kernel panic - not syncing"], Hopeless("the kernel panicked"), Running),
    (&["Unable to mount root fs"], Hopeless("the kernel found no root file system"), Running),
    (&["EFI stub: ERROR"], Hopeless("the kernel's EFI stub gave up"), Kernel),
    // Ends of the road in the initramfs.
    (&["ostree-prepare-root", "rror"], Hopeless("ostree-prepare-root failed"), Running),
    (&["ostree-prepare-root", "ouldn't"], Hopeless("ostree-prepare-root failed"), Running),
    (&["ostree-prepare-root", "ailed"], Hopeless("ostree-prepare-root failed"), Running),
    (&["Failed to start", "OSTree Prepare OS"], Hopeless("ostree-prepare-root failed"), Running),
    (&["Failed to start", "ostree-prepare-root"], Hopeless("ostree-prepare-root failed"), Running),
    (&["Failed to mount", "sysroot"], Hopeless("the root file system was not mounted"), Running),
    (
        &["Failed to switch root"],
        Hopeless("the initramfs could not enter the root file system"),
        Running,
    ),
    (&["dracut", "Could not boot"], Hopeless("dracut gave up"), Running),
    (&["dracut", "FATAL"], Hopeless("dracut gave up"), Running),
    // Ends of the road in user space.
    (&["You are in emergency mode"], Hopeless("emergency mode"), Running),
    (&["Entering emergency mode"], Hopeless("emergency mode"), Running),
    (&["Reached target", "mergency"], Hopeless("emergency mode"), Running),
    (
        &["Cannot open access to console, the root account is locked"],
        Hopeless("emergency mode"),
        Running,
    ),
    (&["for maintenance"], Hopeless("emergency mode"), Running),
    (&["Failed to load SELinux policy"], Hopeless("the SELinux policy was not loaded"), Running),
    (&["Freezing execution"], Hopeless("systemd froze"), Running),
    // Things to look at.
    (&["Kernel BUG"], Suspicious("kernel bug"), Running),
    (&["kernel BUG at"], Suspicious("kernel bug"), Running),
    (&["Oops: "], Suspicious("kernel oops"), Running),
    (&["soft lockup"], Suspicious("soft lockup: the host is slow or the guest hangs"), Running),
    (&["Out of memory: Killed"], Suspicious("out of memory"), Running),
    (&["I/O error, dev"], Suspicious("disk error"), Running),
    (&["EXT4-fs error"], Suspicious("file system error"), Running),
    (&["ordering cycle"], Suspicious("systemd ordering cycle"), Running),
    (&["segfault at"], Suspicious("a program crashed"), Running),
    (&["Failed to start"], Suspicious("a unit failed"), Running),
    // Progress.
    (&["SeaBIOS (version"], Reaches(Firmware), Nothing),
    (&["UEFI firmware"], Reaches(Firmware), Nothing),
    (&["BdsDxe: starting"], Reaches(Bootloader), Firmware),
    (&["BdsDxe:"], Reaches(Firmware), Nothing),
    (&["GRUB loading"], Reaches(Bootloader), Firmware),
    (&["Welcome to GRUB"], Reaches(Bootloader), Firmware),
    (&["GNU GRUB"], Reaches(Bootloader), Firmware),
    (&["Booting `"], Reaches(Bootloader), Firmware),
    (&["EFI stub:"], Reaches(Kernel), Bootloader),
    (&["Linux version "], Reaches(Kernel), Bootloader),
    (&["Booting Linux on physical CPU"], Reaches(Kernel), Bootloader),
    (&["Run /init as init process"], Reaches(Initramfs), Kernel),
    (&["Welcome to", "nitramfs"], Reaches(Initramfs), Running),
    (&["Running in initrd"], Reaches(Initramfs), Kernel),
    (&["dracut"], Reaches(Initramfs), Running),
    (&["systemd[1]:", "witching root"], Reaches(Userspace), Initramfs),
    (&["^Welcome to "], Reaches(Userspace), Initramfs),
    (&["Reached target", "ulti-"], Reaches(Userspace), Initramfs),
    (&["login:"], Reaches(Running), Userspace),
];

/// What was seen so far.
#[derive(Debug)]
pub(crate) struct Watch {
    reached: Vec<Reached>,
    hopeless: Option<(&'static str, String)>,
    suspicions: Vec<String>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { reached: Vec::new(), hopeless: None, suspicions: Vec::new() }
    }

    /// Looks at a finished or unfinished line; the milestone, if the line is the first to show it.
    pub(crate) fn line(&mut self, at: Duration, text: &str) -> Option<Milestone> {
        let at_present = self.furthest();
        let (_, meaning, _) = RULES
            .iter()
            .find(|(pattern, _, until)| at_present <= *until && matches(pattern, text))?;
        match *meaning {
            Reaches(milestone) => return self.reach(at, milestone),
            Hopeless(reason) => match &mut self.hopeless {
                None => self.hopeless = Some((reason, text.to_owned())),
                // The line as it was when the pattern showed, now whole.
                Some((_, known)) if text.starts_with(known.as_str()) => text.clone_into(known),
                Some(_) => {}
            },
            Suspicious(reason) => {
                let suspicion = format!("{reason}: {text}");
                if self.suspicions.len() < 20 && !self.suspicions.contains(&suspicion) {
                    self.suspicions.push(suspicion);
                }
            }
        }
        None
    }

    /// Notes a milestone learned otherwise than from the console. Backwards is not a direction.
    pub(crate) fn reach(&mut self, at: Duration, milestone: Milestone) -> Option<Milestone> {
        if milestone <= self.furthest() {
            return None;
        }
        self.reached.push(Reached { milestone, seconds: at.as_secs_f64() });
        Some(milestone)
    }

    pub(crate) fn furthest(&self) -> Milestone {
        self.reached.last().map_or(Nothing, |reached| reached.milestone)
    }

    pub(crate) fn reached(&self) -> &[Reached] {
        &self.reached
    }

    /// Why to wait no longer: the reason, and the line that shows it.
    pub(crate) fn hopeless(&self) -> Option<(&'static str, &str)> {
        self.hopeless.as_ref().map(|(reason, line)| (*reason, line.as_str()))
    }

    pub(crate) fn suspicions(&self) -> &[String] {
        &self.suspicions
    }
}

fn matches(pattern: Pattern, text: &str) -> bool {
    let mut rest = text;
    pattern.iter().all(|part| match part.strip_prefix('^') {
        Some(start) => rest.starts_with(start),
        None => match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lines: &[&str]) -> Watch {
        let mut watch = Watch::new();
        for (second, line) in (0..).zip(lines) {
            watch.line(Duration::from_secs(second), line);
        }
        watch
    }

    fn reason(lines: &[&str]) -> Option<&'static str> {
        watched(lines).hopeless().map(|(reason, _)| reason)
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
        assert!(watch.suspicions().is_empty(), "{:?}", watch.suspicions());
    }

    #[test]
    fn ends_of_the_road_are_told_apart() {
        assert_eq!(
            reason(&["SeaBIOS (version 1.16)", "No bootable device."]),
            Some("firmware found nothing to boot")
        );
        assert_eq!(
            reason(&["BdsDxe: failed to load Boot0001 \"UEFI Misc Device\": Access Denied"]),
            Some("Secure Boot refused the boot loader")
        );
        assert_eq!(
            reason(&["grub rescue>"]),
            Some("GRUB found no modules or configuration: rescue prompt")
        );
        assert_eq!(
            reason(&["[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs"]),
            Some("the kernel panicked")
        );
        assert_eq!(
            reason(&[
                "[ 2.0] ostree-prepare-root[200]: ostree-prepare-root: Couldn't find specified OSTree root"
            ]),
            Some("ostree-prepare-root failed")
        );
        assert_eq!(reason(&["Press Enter for maintenance"]), Some("emergency mode"));
    }

    #[test]
    fn the_first_reason_stays_and_is_told_with_its_whole_line() {
        let lines = [
            "Kernel panic - not syncing",
            "Kernel panic - not syncing: Oops",
            "You are in emergency mode",
        ];
        assert_eq!(watched(&lines).hopeless(), Some(("the kernel panicked", lines[1])));
    }

    #[test]
    fn what_firmware_would_say_means_nothing_later() {
        assert_eq!(reason(&["Linux version 7.2", "grub> is a prompt", "Shell> is another"]), None);
        assert_eq!(reason(&["echo grub>"]), None);
    }

    #[test]
    fn suspicions_are_collected_once_and_not_without_end() {
        let watch = watched(&["[ 3.0] Oops: int3", "[ 3.0] Oops: int3"]);
        assert_eq!(watch.suspicions(), ["kernel oops: [ 3.0] Oops: int3"]);
        let many: Vec<String> = (0..100).map(|n| format!("Oops: {n}")).collect();
        assert_eq!(
            watched(&many.iter().map(String::as_str).collect::<Vec<_>>()).suspicions().len(),
            20
        );
    }

    /// A rule behind one that matches whenever it does would be dead.
    #[test]
    fn no_rule_hides_another() {
        for (index, (pattern, meaning, until)) in RULES.iter().enumerate() {
            let text = pattern.concat().replace('^', "");
            let first = RULES.iter().position(|(p, _, u)| u >= until && matches(p, &text)).unwrap();
            assert!(
                first == index || RULES[first].1 == *meaning,
                "{:?} hides {pattern:?}",
                RULES[first].0
            );
        }
    }
}
