//! A finished disk → facts: partitions, the ESP's files and who signed them, boot entries, deployments.
//!
//! ```text
//! file ─► (decompressed) ─► raw or qcow2 ─► partition table ─► FAT: files, EFI programs and their signatures
//!                                                          └─► ext4, XFS, btrfs: boot entries, deployments, bootupd's state
//! ```
//!
//! Any disk may be looked at, so nothing of it is believed: what does not fit together is `Corrupt`. Nothing is written.

mod btrfs;
mod difference;
mod disk;
mod ext4;
mod ext4_tables;
mod fat;
mod health;
mod optical;
mod pe;
mod qcow2;
mod signature;
mod system;
mod volume;
mod wrapper;
mod xfs;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use partitioning::{ParseError, Role, Scheme, Table, type_byte_name, type_name};
use serde::Serialize;

pub use self::difference::{Difference, difference};
use self::disk::{Disk, Slice};
use self::fat::{Entry, Fat};
pub use self::health::{DiskHealth, Labels, Room, examine};
pub use self::optical::{Implanted, IsoHealth, examine_iso, is_iso};
pub use self::signature::Signature;
pub use self::system::{BootEntry, Component, Deployment};
use self::volume::Volume;
pub use self::wrapper::Wrapper;
use crate::architecture::Architecture;
use crate::error::{Unsupported, corrupt};

/// The form of the JSON; grows by one when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// Bytes of a volume that are looked at to see what it is; Btrfs' super block lies farthest.
const START: u64 = 68 << 10;

/// EFI programs above this are not looked into: a unified kernel image has a tenth of it.
const LARGEST_PROGRAM: u64 = 1 << 30;

/// What a disk is and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The form of this document.
    pub version: u32,
    /// Format of the file: `raw` or `qcow2`.
    pub format: &'static str,
    /// How the file is compressed as a whole: `gzip`, `xz` or `zstd`; `None`: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<&'static str>,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of a sector.
    pub sector_size: u64,
    /// The kind of the partition table: `gpt` or `dos`.
    pub table: &'static str,
    /// GUID of the partition table; the signature of an MBR, `5f3a1b2c`.
    pub guid: String,
    /// The machine that it is for, as the EFI programs or the root's type tell.
    pub architecture: Option<Architecture>,
    /// In order of their numbers.
    pub partitions: Vec<PartitionFacts>,
    /// Everything on the EFI system partition, directories before what is in them.
    pub esp: Vec<EspFile>,
    /// The EFI programs among it.
    pub programs: Vec<EfiProgram>,
    /// What a boot loader offers.
    pub boot_entries: Vec<BootEntry>,
    /// The deployments of ostree.
    pub deployments: Vec<Deployment>,
    /// What bootupd says is installed.
    pub bootupd: Vec<Component>,
    /// What the user should know, such as programs that Secure Boot will not start.
    pub warnings: Vec<String>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionFacts {
    /// From 1 on.
    pub number: u32,
    /// What its type says it is for; `None`: nothing that bootpress knows.
    pub role: Option<&'static str>,
    /// What people call its type.
    pub type_name: &'static str,
    /// GUID of its type; on a disk without GPT its byte, `0x83`.
    pub type_guid: String,
    /// Its own GUID; on a disk without GPT the signature and the number, `5f3a1b2c-01`.
    pub guid: String,
    /// Its name in the table, which may be empty.
    pub name: String,
    /// Offset of its first byte.
    pub start: u64,
    /// Bytes of it.
    pub size: u64,
    /// The file system in it, if it is of a known kind.
    pub filesystem: Option<FilesystemFacts>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilesystemFacts {
    /// As `blkid` says it.
    pub kind: &'static str,
    /// Its label; `None` where only the kind is read.
    pub label: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Bytes of it that are in use.
    pub used: Option<u64>,
}

/// A file or directory on the ESP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EspFile {
    /// From the root of the ESP; a directory's ends with `/`.
    pub path: String,
    /// Bytes of it; 0 for a directory.
    pub size: u64,
}

/// An EFI program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EfiProgram {
    /// From the root of the ESP.
    pub path: String,
    /// The machine that runs it.
    pub architecture: Option<Architecture>,
    /// Who signed it; empty: nobody did.
    pub signatures: Vec<Signature>,
    /// Whom it trusts besides the firmware's: the certificate in shim.
    pub vendor_certificate: Option<String>,
}

/// Looks at a disk. `Unsupported`: a format, or features of one, that bootpress does not read. `Corrupt`: no partition table,
/// or something that contradicts itself.
pub fn inspect(path: &Path) -> Result<Facts> {
    let disk = Arc::new(Disk::open(path)?);
    let table = table(&disk).with_context(|| format!("looking at {}", path.display()))?;
    let mut looking = looking(&disk, &table);
    for partition in &table.partitions {
        looking
            .partition(&disk, &table, partition)
            .with_context(|| format!("looking at partition {}", partition.number))?;
    }
    looking.system().context("looking at the installed system")?;
    Ok(looking.done(&table))
}

/// Facts about a disk of which only the table is known yet.
fn looking(disk: &Disk, table: &Table) -> Looking {
    Looking {
        facts: Facts {
            version: VERSION,
            format: disk.format(),
            compression: disk.wrapper.map(Wrapper::name),
            size: disk.size,
            sector_size: table.sector_size.bytes(),
            table: match table.scheme {
                Scheme::Gpt => "gpt",
                Scheme::Dos => "dos",
            },
            guid: table.identity(),
            architecture: None,
            partitions: Vec::new(),
            esp: Vec::new(),
            programs: Vec::new(),
            boot_entries: Vec::new(),
            deployments: Vec::new(),
            bootupd: Vec::new(),
            warnings: Vec::new(),
        },
        boot: None,
        root: None,
    }
}

/// The machine that a disk is for, if that can be told; a disk that cannot be read tells nothing.
pub fn architecture_of(path: &Path) -> Option<Architecture> {
    inspect(path).ok()?.architecture
}

fn table(disk: &Arc<Disk>) -> Result<Table> {
    let mut whole = Slice::new(disk, 0, disk.size);
    Table::parse(&mut whole).map_err(|error| match error {
        ParseError::Io(error) => qcow2::explain(error, "the partition table"),
        ParseError::NoTable => corrupt("the disk", error.to_string()),
        ParseError::Damaged(reason) => corrupt("the partition table", reason),
    })
}

/// Facts as they come in, and what is looked into when all partitions are known.
struct Looking {
    facts: Facts,
    boot: Option<Volume>,
    root: Option<Volume>,
}

impl Looking {
    fn partition(
        &mut self,
        disk: &Arc<Disk>,
        table: &Table,
        partition: &partitioning::Partition,
    ) -> Result<()> {
        let (start, size) = (partition.start(table.sector_size), partition.size(table.sector_size));
        let slice = Slice::new(disk, start, size);
        let mut head = vec![0; usize::try_from(slice.size.min(START))?];
        slice.read_at(0, &mut head).map_err(|error| qcow2::explain(error, "the partition"))?;
        let mut role = partition.role;
        let filesystem = if Fat::is_it(&head) {
            Some(self.fat(slice, partition.role == Some(Role::Esp))?)
        } else {
            let whose = format!("partition {}", partition.number);
            match Volume::open(slice, &head, &whose) {
                Some(Ok(volume)) => Some(self.volume(volume, partition, &mut role)?),
                // Somebody else's btrfs: what it is can be said, and what is on it cannot.
                Some(Err(error)) if error.is::<Unsupported>() && other_kind(&head).is_some() => {
                    self.facts.warnings.push(format!("{error:#}"));
                    other_kind(&head)
                }
                Some(Err(error)) => return Err(error),
                None => other_kind(&head),
            }
        };
        self.facts.partitions.push(PartitionFacts {
            number: partition.number,
            role: role.map(Role::name),
            type_name: partition.type_byte.map_or(type_name(partition.type_guid), type_byte_name),
            type_guid: match partition.type_byte {
                Some(byte) => format!("0x{byte:02x}"),
                None => partition.type_guid.to_string(),
            },
            guid: table.identity_of(partition),
            name: partition.name.clone(),
            start,
            size,
            filesystem,
        });
        Ok(())
    }

    fn fat(&mut self, slice: Slice, is_esp: bool) -> Result<FilesystemFacts> {
        let mut fat = Fat::open(slice)?;
        let (label, entries) = fat.tree()?;
        if is_esp {
            self.esp(&mut fat, &entries)?;
        }
        let used = Some(fat.used()?);
        Ok(FilesystemFacts { kind: "vfat", label: Some(label), uuid: Some(fat.uuid()), used })
    }

    fn volume(
        &mut self,
        volume: Volume,
        partition: &partitioning::Partition,
        role: &mut Option<Role>,
    ) -> Result<FilesystemFacts> {
        let facts = FilesystemFacts {
            kind: volume.kind(),
            label: Some(volume.label()),
            uuid: Some(volume.uuid()),
            used: Some(volume.used()),
        };
        // An MBR has no type for it.
        let of_boot = partition.type_byte.is_some() && !volume.names("/loader/entries")?.is_empty();
        if of_boot && self.boot.is_none() {
            *role = Some(Role::Boot);
        }
        // Linux data may be anything; the first that looks like a root is it.
        match role {
            Some(Role::Boot) if self.boot.is_none() => self.boot = Some(volume),
            Some(Role::Root) if self.root.is_none() || !self.has_system()? => {
                self.root = Some(volume)
            }
            _ => {}
        }
        Ok(facts)
    }

    /// Whether the root that was found holds deployments.
    fn has_system(&self) -> Result<bool> {
        let names = self.root.as_ref().map(|root| root.names("/ostree")).transpose()?;
        Ok(names.is_some_and(|names| !names.is_empty()))
    }

    fn esp(&mut self, fat: &mut Fat, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            let slash = if entry.is_directory { "/" } else { "" };
            self.facts
                .esp
                .push(EspFile { path: format!("{}{slash}", entry.path), size: entry.size });
            let path = entry.path.to_ascii_lowercase();
            if path.starts_with("loader/entries/") && path.ends_with(".conf") {
                let text = String::from_utf8_lossy(&fat.read(entry)?).into_owned();
                let path = format!("/{}", entry.path);
                self.facts.boot_entries.push(system::boot_entry(path, &text));
            } else if !entry.is_directory && entry.size <= LARGEST_PROGRAM {
                let bytes = fat.read(entry)?;
                if pe::is_it(&bytes) || path.ends_with(".efi") {
                    self.program(&entry.path, &bytes);
                }
            }
        }
        Ok(())
    }

    fn program(&mut self, path: &str, bytes: &[u8]) {
        let (program, problem) = match pe::parse(bytes) {
            Ok(program) if program.signatures.is_empty() => (program, Some("it is not signed")),
            Ok(program) => {
                let altered = program.signatures.iter().any(|one| one.intact == Some(false));
                (program, altered.then_some("it is not what was signed"))
            }
            Err(reason) => (pe::Program::default(), Some(reason)),
        };
        if let Some(problem) = problem {
            self.facts
                .warnings
                .push(format!("Secure Boot does not start {path} of the ESP: {problem}"));
        }
        self.facts.programs.push(EfiProgram {
            path: path.to_owned(),
            architecture: program.architecture,
            signatures: program.signatures,
            vendor_certificate: program.vendor_certificate,
        });
    }

    /// Reads what is on the file systems of `/boot` and the root.
    fn system(&mut self) -> Result<()> {
        let (volume, prefix) = match (&self.boot, &self.root) {
            (Some(boot), _) => (Some(boot), ""),
            (None, root) => (root.as_ref(), "/boot"),
        };
        if let Some(volume) = volume {
            let entries = system::boot_entries(volume, &format!("{prefix}/loader/entries"))?;
            self.facts.boot_entries.extend(entries);
            let state = volume.read(&format!("{prefix}/bootupd-state.json"))?;
            self.facts.bootupd = state.map(|state| system::components(&state)).unwrap_or_default();
        }
        if let Some(volume) = volume
            && let Some(grub) = volume.text(&format!("{prefix}/grub2/grub.cfg"))?
            && !system::starts_something(&grub)
        {
            self.facts.warnings.push(
                "GRUB shows an empty menu: its configuration has neither blscfg nor a menuentry"
                    .to_owned(),
            );
        }
        if let Some(root) = &self.root {
            self.facts.deployments = system::deployments(root)?;
            let off = |entry: &BootEntry| {
                entry.options.split_whitespace().any(|word| word == "systemd.gpt_auto=0")
            };
            let waits = self.facts.boot_entries.iter().any(|entry| !off(entry));
            if self.boot.is_none()
                && !self.facts.esp.is_empty()
                && waits
                && system::boot_idles(root, &self.facts.deployments)?
            {
                self.facts.warnings.push(
                    "with UEFI, systemd unmounts /boot when nobody has used it for two minutes; then bootc fails, and a staged \
                     upgrade is lost (bootc issue 2402); the kernel argument systemd.gpt_auto=0 prevents it"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// The facts, when everything has been looked at.
    fn done(mut self, table: &Table) -> Facts {
        let programs = self.facts.programs.iter().filter_map(|program| program.architecture);
        let by_type = Architecture::ALL.into_iter().find(|architecture| {
            let ours = match architecture {
                Architecture::X86_64 => partitioning::Architecture::X86_64,
                Architecture::Aarch64 => partitioning::Architecture::Aarch64,
            };
            table.partitions.iter().any(|partition| ours.has_root_type(partition.type_guid))
        });
        let bios = table.find(Role::BiosBoot).map(|_| Architecture::X86_64);
        self.facts.architecture = { programs }.next().or(by_type).or(bios);
        self.facts
    }
}

/// File systems that are recognised and not read.
fn other_kind(head: &[u8]) -> Option<FilesystemFacts> {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..).is_some_and(|bytes| bytes.starts_with(magic))
    };
    let kind = [
        ("btrfs", at(0x10040, b"_BHRfS_M")),
        ("crypto_LUKS", at(0, b"LUKS\xba\xbe")),
        ("swap", at(4086, b"SWAPSPACE2")),
        ("squashfs", at(0, b"hsqs")),
        ("erofs", at(1024, b"\xe2\xe1\xf5\xe0")),
    ]
    .into_iter()
    .find_map(|(kind, is_it)| is_it.then_some(kind))?;
    if kind == "swap" {
        return swap(head);
    }
    Some(FilesystemFacts { kind, label: None, uuid: None, used: None })
}

/// The header of a swap area (linux/swap.h): UUID at 1036, label at 1052.
fn swap(head: &[u8]) -> Option<FilesystemFacts> {
    let uuid = uuid::Uuid::from_slice(head.get(1036..1052)?).ok()?;
    let label = head.get(1052..1068)?.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(FilesystemFacts {
        kind: "swap",
        label: Some(String::from_utf8_lossy(label).into_owned()),
        uuid: Some(uuid.to_string()),
        used: Some(0),
    })
}
