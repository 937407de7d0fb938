//! Steps of a chain, and the legs they fall into: what lies between one power-on and the next.

use std::time::Duration;

use crate::device::DiskBus;
use crate::reached::Milestone;
use crate::session::Ending;

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<U> {
    /// Switches the machine on.
    Boot,
    /// Restarts the running machine from inside.
    Reboot,
    /// Deploys another image, which the next boot is to run.
    Upgrade(U),
    /// Makes the deployment before the one that runs the next.
    Rollback,
    /// Lets the machine run without touching anything, for so many seconds of the guest's clock.
    Idle(u32),
    /// Runs a shell script in the guest, which must succeed. Not on command lines.
    Do(String),
    /// Restarts the machine, and pulls the plug while it goes down, when upgrades are finished.
    Cut,
    /// Switches the machine on and pulls the plug when programs of the installed system begin to run.
    CutBoot,
    /// Pulls the plug while an upgrade is deployed.
    CutUpgrade(U),
    /// Boots the medium with an empty disk beside it, and installs to that. The steps that follow are that disk's.
    Install(Install),
}

/// An installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// How the empty disk is attached, then and later.
    pub bus: DiskBus,
    /// Its size in bytes.
    pub size: u64,
    /// The shell command that installs without questions to the only disk that there is; the medium's documentation has it.
    pub command: String,
}

/// What an empty disk has unless it is stated: nothing is written for it.
const SIZE: u64 = 10 << 30;

impl Install {
    /// Reads `BUS` or `BUS:SIZE`, where the size has a unit, M, G or T (powers of 1024).
    fn parse(text: &str) -> Option<Self> {
        let (bus, size) = match text.split_once(':') {
            None => (text, SIZE),
            Some((bus, size)) => {
                let (number, shift) = [('M', 20), ('G', 30), ('T', 40)]
                    .into_iter()
                    .find_map(|(unit, shift)| Some((size.strip_suffix(unit)?, shift)))?;
                let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
                (bus, number.checked_mul(1 << shift)?)
            }
        };
        let bus = DiskBus::parse(bus).filter(|bus| *bus != DiskBus::Cdrom)?;
        Some(Self { bus, size, command: String::new() })
    }
}

impl Step<String> {
    /// Reads `boot,upgrade=IMAGE,reboot,rollback,reboot`. The error says what is known.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let steps: Vec<Self> = text.split(',').map(Self::parse_one).collect::<Result<_, _>>().map_err(|word| {
            format!(
                "`{word}` is not a step: known are boot, reboot, upgrade=IMAGE, rollback, idle=SECONDS, with the plug pulled \
                 cut, cut-boot, cut-upgrade=IMAGE, and for media install=BUS or install=BUS:SIZE, as in nvme:20G"
            )
        })?;
        legs(&steps)?;
        Ok(steps)
    }

    fn parse_one(word: &str) -> Result<Self, &str> {
        match (word, word.split_once('=')) {
            (_, Some(("upgrade", image))) if !image.is_empty() => {
                Ok(Self::Upgrade(image.to_owned()))
            }
            (_, Some(("cut-upgrade", image))) if !image.is_empty() => {
                Ok(Self::CutUpgrade(image.to_owned()))
            }
            (_, Some(("idle", seconds))) => seconds
                .parse()
                .ok()
                .filter(|seconds| (1..=LONGEST_IDLE).contains(seconds))
                .map(Self::Idle)
                .ok_or(word),
            (_, Some(("install", onto))) => Install::parse(onto).map(Self::Install).ok_or(word),
            ("boot", _) => Ok(Self::Boot),
            ("reboot", _) => Ok(Self::Reboot),
            ("rollback", _) => Ok(Self::Rollback),
            ("cut", _) => Ok(Self::Cut),
            ("cut-boot", _) => Ok(Self::CutBoot),
            _ => Err(word),
        }
    }
}

impl<U> Step<U> {
    /// This step with the image that it upgrades to replaced.
    ///
    /// # Errors
    /// Those of `replace`.
    pub fn map<V, E>(self, replace: impl FnOnce(U) -> Result<V, E>) -> Result<Step<V>, E> {
        Ok(match self {
            Self::Boot => Step::Boot,
            Self::Reboot => Step::Reboot,
            Self::Upgrade(update) => Step::Upgrade(replace(update)?),
            Self::Rollback => Step::Rollback,
            Self::Idle(seconds) => Step::Idle(seconds),
            Self::Do(script) => Step::Do(script),
            Self::Cut => Step::Cut,
            Self::Install(install) => Step::Install(install),
            Self::CutBoot => Step::CutBoot,
            Self::CutUpgrade(update) => Step::CutUpgrade(replace(update)?),
        })
    }
}

/// What is done between one power-on and the next.
#[derive(Clone, Debug)]
pub(super) struct Leg<'a, U> {
    /// What people call it: `boot, upgrade`.
    pub(super) name: String,
    /// What the guest does, in this order.
    pub(super) deeds: Vec<Deed<'a, U>>,
    pub(super) ending: Ending<'static>,
}

impl<U> Leg<'_, U> {
    /// What it installs, if that is what it is for.
    pub(super) fn install(&self) -> Option<&Install> {
        match self.deeds[..] {
            [Deed::Install(install)] => Some(install),
            _ => None,
        }
    }
}

/// Something that a running guest does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed<'a, U> {
    Upgrade(&'a U),
    Rollback,
    Idle(u32),
    Do(&'a str),
    Install(&'a Install),
}

/// Seconds that a machine may be left alone at most: an hour.
const LONGEST_IDLE: u32 = 3600;

/// The fact that a guest says when it begins to deploy an upgrade.
pub(super) const DEPLOYING: &str = "upgrade.deploying";

/// Deploying takes seconds under any accelerator: this is in the middle of it.
const INTO_DEPLOYING: Duration = Duration::from_millis(800);

/// From the last word of the guest, whose shutdown takes seconds too, with the end of the upgrade in it.
const INTO_SHUTDOWN: Duration = Duration::from_millis(1500);

/// Takes steps apart. The error is a sentence: steps that cannot follow each other.
pub(super) fn legs<U>(steps: &[Step<U>]) -> Result<Vec<Leg<'_, U>>, String> {
    let mut legs: Vec<Leg<'_, U>> = Vec::new();
    let mut running = false;
    for step in steps {
        if let (Step::Install(install), Some(_)) = (step, legs.first()) {
            return Err(format!("install={} is the first step or none", install.bus.name()));
        }
        let must_run = !matches!(step, Step::Boot | Step::CutBoot | Step::Install(_));
        if must_run && !running {
            return Err(
                "a chain begins with boot or cut-boot, and so does what follows a power cut or install"
                    .to_owned(),
            );
        }
        let deed = match step {
            Step::Boot | Step::CutBoot | Step::Reboot => {
                if let (Step::Reboot, Some(last)) = (step, legs.last_mut()) {
                    last.ending = Ending::Reboot;
                }
                let (name, ending) = match step {
                    Step::CutBoot => ("boot, cut", Ending::CutAt(Milestone::Userspace)),
                    Step::Reboot => ("reboot", Ending::PowerOff),
                    _ => ("boot", Ending::PowerOff),
                };
                legs.push(Leg { name: name.to_owned(), deeds: Vec::new(), ending });
                running = !matches!(step, Step::CutBoot);
                continue;
            }
            Step::Install(install) => {
                legs.push(Leg {
                    name: format!("install to {}", install.bus.name()),
                    deeds: vec![Deed::Install(install)],
                    ending: Ending::PowerOff,
                });
                running = false;
                continue;
            }
            Step::Upgrade(update) => ("upgrade", Some(Deed::Upgrade(update)), None),
            Step::Rollback => ("rollback", Some(Deed::Rollback), None),
            Step::Idle(seconds) => ("idle", Some(Deed::Idle(*seconds)), None),
            Step::Do(script) => ("errand", Some(Deed::Do(script)), None),
            Step::Cut => ("cut", None, Some(Ending::CutAfter("end", INTO_SHUTDOWN))),
            Step::CutUpgrade(update) => (
                "upgrade, cut",
                Some(Deed::Upgrade(update)),
                Some(Ending::CutAfter(DEPLOYING, INTO_DEPLOYING)),
            ),
        };
        let last = legs.last_mut().expect("what runs was booted");
        let (name, deed, ending) = deed;
        last.name = format!("{}, {name}", last.name);
        last.deeds.extend(deed);
        if let Some(ending) = ending {
            last.ending = ending;
            running = false;
        }
    }
    if legs.is_empty() { Err("a chain has at least one step".to_owned()) } else { Ok(legs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let steps = Step::parse(text).unwrap();
        let legs = legs(&steps).unwrap();
        legs.iter().map(|leg| format!("{}: {:?}", leg.name, leg.ending)).collect()
    }

    #[test]
    fn steps_fall_into_legs() {
        assert_eq!(
            shown("boot,upgrade=oci:b,reboot,rollback,reboot"),
            ["boot, upgrade: Reboot", "reboot, rollback: Reboot", "reboot: PowerOff"]
        );
        assert_eq!(
            shown("boot,idle=150,upgrade=b,idle=150,reboot"),
            ["boot, idle, upgrade, idle: Reboot", "reboot: PowerOff"]
        );
        assert_eq!(
            shown("cut-boot,boot,cut-upgrade=b,boot,upgrade=b,cut,boot,boot"),
            [
                "boot, cut: CutAt(Userspace)",
                "boot, upgrade, cut: CutAfter(\"upgrade.deploying\", 800ms)",
                "boot, upgrade, cut: CutAfter(\"end\", 1.5s)",
                "boot: PowerOff",
                "boot: PowerOff"
            ]
        );
    }

    #[test]
    fn media_are_installed_first() {
        assert_eq!(
            shown("install=nvme:20G,boot,reboot"),
            ["install to nvme: PowerOff", "boot: Reboot", "reboot: PowerOff"]
        );
        let install = |text: &str| match Step::parse(text).unwrap().remove(0) {
            Step::Install(install) => (install.bus, install.size),
            other => panic!("{other:?}"),
        };
        assert_eq!(install("install=ahci"), (DiskBus::Ahci, 10 << 30));
        assert_eq!(install("install=usb:512M"), (DiskBus::Usb, 512 << 20));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, word) in [
            ("", "known are"),
            ("boot,jump", "`jump`"),
            ("boot,upgrade=", "`upgrade=`"),
            ("boot,reboot=x", "`reboot=x`"),
            ("boot,idle=0", "`idle=0`"),
            ("boot,idle=3601", "`idle=3601`"),
            ("boot,idle=soon", "`idle=soon`"),
            ("idle=5", "begins with boot"),
            ("reboot", "begins with boot"),
            ("cut-boot,upgrade=x", "follows a power cut"),
            ("boot,cut,reboot", "follows a power cut"),
            ("install=nvme,reboot", "follows a power cut or install"),
            ("boot,install=nvme", "install=nvme is the first step or none"),
            ("install=cdrom", "`install=cdrom`"),
            ("install=nvme:20", "`install=nvme:20`"),
            ("install=nvme:0G", "`install=nvme:0G`"),
            ("install=nvme:99999999999T", "install=BUS"),
        ] {
            let error = Step::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
