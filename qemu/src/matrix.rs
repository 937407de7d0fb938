//! Machines as data: the named ones of a matrix file, and those that its axes combine to.
//!
//! ```text
//! matrix.toml ─► [[machine]] name, about, quick, values ─► Profile        chosen by name, or --quick
//!            └─► [axes] values ─► combinations ─► possible ─► pairwise    --full
//! ```

use serde::Deserialize;

use crate::architecture::Architecture;
use crate::device::{DiskBus, Network, Tpm};
use crate::error::BootError;
use crate::firmware::Firmware;
use crate::machine::Machine;
use crate::pairwise;

/// The matrix that is built in.
const BUILT_IN: &str = include_str!("../matrix.toml");

/// More combinations than this are a mistake: nobody waits for what comes of them.
const MOST_COMBINATIONS: usize = 200_000;

/// A machine with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is called on command lines, in reports and in the names of directories.
    pub name: String,
    /// What it stands for, in a few words.
    pub about: String,
    /// Whether it is one of the few that cover most.
    pub quick: bool,
    /// The machine.
    pub machine: Machine,
}

/// A combination of two values that no machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// `firmware bios with sector-size 4096`.
    pub combination: String,
    /// Why not.
    pub reason: String,
}

/// What a disk demands of a machine. What is not known demands nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Medium {
    /// The processor it is made for.
    pub architecture: Option<Architecture>,
    /// The size of its sectors in bytes.
    pub sector_size: Option<u32>,
    /// Whether it is a CD's image. One may be written to a USB stick, too.
    pub optical: bool,
    /// Whether it has boot code for a BIOS.
    pub bios: Option<bool>,
}

/// A matrix of machines.
#[derive(Clone, Debug)]
pub struct Matrix {
    profiles: Vec<Profile>,
    axes: Axes,
}

impl Matrix {
    /// The one that is built in.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("what is built in has been tested")
    }

    /// Reads a matrix file's text.
    ///
    /// # Errors
    /// [`BootError::Unsupported`], saying where the text is not what it must be.
    pub fn parse(text: &str) -> Result<Self, BootError> {
        let wrong = |why: String| BootError::Unsupported(why);
        let raw: RawMatrix = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let mut profiles: Vec<Profile> = Vec::new();
        for raw in raw.machine {
            let profile = raw.profile();
            let name = &profile.name;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
                return Err(wrong(format!(
                    "machine `{name}`: names are letters, digits, -, _ and ."
                )));
            }
            if profiles.iter().any(|other| other.name == *name) {
                return Err(wrong(format!("there are two machines `{name}`")));
            }
            if let Some(why) = profile.machine.impossible() {
                return Err(wrong(format!("machine `{name}`: {why}")));
            }
            profiles.push(profile);
        }
        let axes = raw.axes.unwrap_or_default();
        if axes.sizes().iter().product::<usize>() > MOST_COMBINATIONS {
            return Err(wrong(format!("the axes have more than {MOST_COMBINATIONS} combinations")));
        }
        Ok(Self { profiles, axes })
    }

    /// The named machines, in the order of the file.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The machine of a name.
    ///
    /// # Errors
    /// [`BootError::Unsupported`], with the names there are.
    pub fn named(&self, name: &str) -> Result<&Profile, BootError> {
        self.profiles.iter().find(|profile| profile.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.profiles.iter().map(|profile| &*profile.name).collect();
            BootError::Unsupported(format!("no machine `{name}`; there are: {}", known.join(", ")))
        })
    }

    /// The few machines that cover most.
    pub fn quick(&self) -> Vec<Profile> {
        self.profiles.iter().filter(|profile| profile.quick).cloned().collect()
    }

    /// Machines in which every pair of the axes' values occurs that is possible for this medium. Named by what they are made of.
    pub fn full(&self, medium: &Medium) -> Vec<Profile> {
        let possible: Vec<_> = self
            .combinations()
            .filter(|(_, machine)| {
                machine.impossible().is_none() && medium.misfit(machine).is_none()
            })
            .map(|(indices, _)| indices)
            .collect();
        let chosen = pairwise::covering(&possible);
        chosen
            .iter()
            .map(|indices| {
                let machine = self.axes.machine(indices);
                let (name, about) = (described(&machine), "of all pairs".to_owned());
                Profile { name, about, quick: false, machine }
            })
            .collect()
    }

    /// The pairs of values that no machine has, and why.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let combinations: Vec<_> = self.combinations().collect();
        let impossible = |machine: &Machine| machine.impossible();
        let possible: std::collections::HashSet<_> = combinations
            .iter()
            .filter(|(_, machine)| impossible(machine).is_none())
            .flat_map(|(indices, _)| pairwise::pairs(indices).collect::<Vec<_>>())
            .collect();
        let mut left_out: Vec<LeftOut> = Vec::new();
        let mut known = std::collections::HashSet::new();
        // A combination that is wrong in one way only comes before those that are wrong in several: what differs least from the
        // unremarkable machine is looked at first.
        let mut ordered: Vec<_> = combinations.iter().collect();
        ordered.sort_by_key(|(indices, _)| indices.iter().filter(|&&index| index != 0).count());
        for (indices, machine) in ordered {
            for pair in pairwise::pairs(indices) {
                if let (false, Some(reason)) = (possible.contains(&pair), impossible(machine))
                    && known.insert(pair)
                {
                    let (first, second) = (self.axes.value(pair.0), self.axes.value(pair.1));
                    left_out
                        .push(LeftOut { combination: format!("{first} with {second}"), reason });
                }
            }
        }
        left_out
    }

    fn combinations(&self) -> impl Iterator<Item = (Vec<usize>, Machine)> + '_ {
        pairwise::combinations(&self.axes.sizes())
            .into_iter()
            .map(|indices| (indices.clone(), self.axes.machine(&indices)))
    }
}

impl Medium {
    /// Why a medium cannot be tried in a machine, if so.
    pub fn misfit(&self, machine: &Machine) -> Option<String> {
        let made_for = self.architecture.filter(|made_for| *made_for != machine.architecture);
        if let Some(architecture) = made_for {
            return Some(format!("the disk is for {}", architecture.name()));
        }
        // A CD's image has room for both: its file system's sectors are of 2048 bytes, its partition table's of 512.
        if let Some(size) =
            self.sector_size.filter(|size| !self.optical && *size != machine.sector_size)
        {
            return Some(format!("the disk has sectors of {size} bytes"));
        }
        if self.optical && machine.sector_size == 4096 {
            return Some("an ISO has no partition table for sectors of 4096 bytes".to_owned());
        }
        if machine.bus == DiskBus::Cdrom && !self.optical {
            return Some("a CD-ROM drive reads ISOs only".to_owned());
        }
        if machine.firmware == Firmware::Bios && self.bios == Some(false) {
            return Some("the disk has no boot code for a BIOS".to_owned());
        }
        None
    }
}

/// A machine's name when it has none: what tells it from others.
fn described(machine: &Machine) -> String {
    let mut parts = vec![
        machine.architecture.name().to_owned(),
        machine.firmware.name().to_owned(),
        machine.bus.name().to_owned(),
    ];
    if machine.sector_size != 512 {
        parts.push(machine.sector_size.to_string());
    }
    parts.push(match machine.network {
        Network::None => "no-network".to_owned(),
        network => format!("{}-net", network.name()),
    });
    if machine.tpm != Tpm::None {
        parts.push("tpm".to_owned());
    }
    parts.push(format!("{}M", machine.memory_mib));
    parts.push(format!("{}cpu", machine.cpus));
    if !machine.serial {
        parts.push("no-uart".to_owned());
    }
    parts.join("-")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatrix {
    #[serde(default)]
    machine: Vec<RawMachine>,
    axes: Option<Axes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawMachine {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    quick: bool,
    architecture: Architecture,
    firmware: Option<Firmware>,
    bus: Option<DiskBus>,
    sector_size: Option<u32>,
    network: Option<Network>,
    tpm: Option<Tpm>,
    memory: Option<u32>,
    cpus: Option<u32>,
    serial: Option<bool>,
}

impl RawMachine {
    fn profile(self) -> Profile {
        let plain = Machine::new(self.architecture);
        let machine = Machine {
            architecture: self.architecture,
            firmware: self.firmware.unwrap_or(plain.firmware),
            bus: self.bus.unwrap_or(plain.bus),
            memory_mib: self.memory.unwrap_or(plain.memory_mib),
            cpus: self.cpus.unwrap_or(plain.cpus),
            sector_size: self.sector_size.unwrap_or(plain.sector_size),
            network: self.network.unwrap_or(plain.network),
            tpm: self.tpm.unwrap_or(plain.tpm),
            serial: self.serial.unwrap_or(plain.serial),
        };
        Profile { name: self.name, about: self.about, quick: self.quick, machine }
    }
}

/// What may be combined. An axis without values has that of the unremarkable machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Axes {
    architecture: Vec<Architecture>,
    firmware: Vec<Firmware>,
    bus: Vec<DiskBus>,
    sector_size: Vec<u32>,
    network: Vec<Network>,
    tpm: Vec<Tpm>,
    memory: Vec<u32>,
    cpus: Vec<u32>,
    serial: Vec<bool>,
}

impl Default for Axes {
    fn default() -> Self {
        let plain = Machine::new(Architecture::X86_64);
        Self {
            architecture: Architecture::ALL.to_vec(),
            firmware: vec![plain.firmware],
            bus: vec![plain.bus],
            sector_size: vec![plain.sector_size],
            network: vec![plain.network],
            tpm: vec![plain.tpm],
            memory: vec![plain.memory_mib],
            cpus: vec![plain.cpus],
            serial: vec![plain.serial],
        }
    }
}

impl Axes {
    /// How many values each has, in the order of [`machine`](Self::machine).
    fn sizes(&self) -> [usize; 9] {
        [
            self.architecture.len(),
            self.firmware.len(),
            self.bus.len(),
            self.sector_size.len(),
            self.network.len(),
            self.tpm.len(),
            self.memory.len(),
            self.cpus.len(),
            self.serial.len(),
        ]
    }

    fn machine(&self, indices: &[usize]) -> Machine {
        Machine {
            architecture: self.architecture[indices[0]],
            firmware: self.firmware[indices[1]],
            bus: self.bus[indices[2]],
            sector_size: self.sector_size[indices[3]],
            network: self.network[indices[4]],
            tpm: self.tpm[indices[5]],
            memory_mib: self.memory[indices[6]],
            cpus: self.cpus[indices[7]],
            serial: self.serial[indices[8]],
        }
    }

    /// A value with its axis: `bus nvme`.
    fn value(&self, (axis, index): (usize, usize)) -> String {
        match axis {
            0 => self.architecture[index].name().to_owned(),
            1 => format!("firmware {}", self.firmware[index].name()),
            2 => format!("bus {}", self.bus[index].name()),
            3 => format!("sector-size {}", self.sector_size[index]),
            4 => format!("network {}", self.network[index].name()),
            5 => format!("tpm {}", self.tpm[index].name()),
            6 => format!("memory {}", self.memory[index]),
            7 => format!("cpus {}", self.cpus[index]),
            _ => format!("serial {}", self.serial[index]),
        }
    }
}

#[cfg(test)]
mod tests;
