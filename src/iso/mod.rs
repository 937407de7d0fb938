//! The medium: one file that boots from a CD drive and a USB stick, runs the very disk that was built, and installs it.
//!
//! ```text
//! sector 0       GPT (and its MBR)
//!       16       ISO 9660 ── bootpress/vmlinuz initramfs.img       the image's own, untouched
//!                         ├─ bootpress/live.img                    what finds the disk on the medium (initramfs.rs)
//!                         ├─ bootpress/disk.squashfs               disk.raw: bit for bit the disk of the same build
//!                         ├─ bootpress/extents                     its data, with hashes, for the installer
//!                         ├─ bootpress/settings.cfg config.img     what `bootpress iso set` changes in place (customise.rs)
//!                         ├─ (hidden) GRUB for BIOS               El Torito and the MBR both lead to it
//!                         ├─ EFI/…                                 shim and GRUB as the image brings them, and the menu
//!                         └─ SHA256SUMS
//!       …        EFI system partition (FAT): the same EFI/…        El Torito and GPT both name it
//!       end      second GPT
//! ```
//!
//! Live is a snapshot at the level of blocks, so that nothing above it is different from the installed system.
//!
//! The installer is the same script everywhere (guest/install.sh): the menu's second entry starts it, and in a live system
//! `sh /run/bootpress/install` asks for the disk, while `sh /run/bootpress/install SELECTOR` (`only-disk`, `serial=…`, see
//! [`Selector`]) installs after a countdown of ten seconds without asking. It ends with 0 when the disk has been read back and is
//! right; with 1 and a line `install: error: …` otherwise.

mod anaconda;
mod checksum;
mod cpio;
mod customise;
mod efi;
mod initramfs;
mod kind;
mod menu;
mod modules;
mod programs;
mod pxe;

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use partitioning::{
    Lba, Partition, Role as PartitionRole, Scheme, SectorSize as TableSector, Table,
};
use uuid::{Uuid, uuid};

pub use self::anaconda::{Anaconda, Payload};
pub use self::customise::{Shown, reset, set, show};
pub use self::kind::{Medium, MediumKind};
pub use self::menu::{Selector, Settings};
pub use self::pxe::Url;

use self::efi::Efi;
use self::initramfs::Kindred;
use crate::architecture::Architecture;
use crate::bootloader::{Boot, MediumCode};
use crate::content::{Content, ContentStore};
use crate::disk::{Disk, FilesystemReport, PartitionReport, Role};
use crate::error::unsupported;
use crate::filesystem::{fat, iso9660, squashfs};
use crate::identity::Identity;
use crate::installed::KernelFiles;
use crate::name::VolumeId;
use crate::progress::{Progress, Stage};
use crate::sha256::{Sha256, hex};
use crate::sparse::SparseMap;
use crate::tree::{Kind, Tree};

/// The unit of the list of extents, and of partitions on the medium.
const MIB: u64 = 1 << 20;
/// MiB of the longest extent: short enough that an installer's progress moves.
const LONGEST_EXTENT: u64 = 16;
/// Partition type of an EFI system partition (UEFI 2.10, table 5.7).
const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// The smallest FAT16 that every firmware takes for one, and the largest that El Torito's 16 bits of sectors can say.
const ESP_SIZES: std::ops::RangeInclusive<u64> = 16 * MIB..=31 * MIB;

/// Programs that the installer starts in the live system, with the package that Fedora has them in.
const INSTALLER: [(&str, &str); 12] = [
    ("blkdiscard", "util-linux"),
    ("blockdev", "util-linux"),
    ("dd", "coreutils"),
    ("findmnt", "util-linux"),
    ("grep", "grep"),
    ("lsblk", "util-linux"),
    ("od", "coreutils"),
    ("sed", "sed"),
    ("sfdisk", "util-linux (Debian: fdisk)"),
    ("sha256sum", "coreutils"),
    ("stty", "coreutils"),
    ("wipefs", "util-linux"),
];

/// What a medium is made of.
#[derive(Clone, Copy, Debug)]
pub struct MediumParts<'a> {
    /// The image's tree, from which programs and modules come.
    pub image: &'a Tree,
    /// What firmware starts.
    pub boot: &'a Boot,
    /// The kernel that it starts.
    pub kernel: &'a KernelFiles,
    /// What the menu calls it.
    pub title: &'a str,
    /// The disk that it runs and installs, where its kind carries one.
    pub carried: Option<Carried<'a>>,
}

/// A disk on a medium.
#[derive(Clone, Copy, Debug)]
pub struct Carried<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// The kernel command line of the system on it.
    pub command_line: &'a str,
}

/// What is asked of a medium.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// What to make, in this order.
    pub kinds: Vec<MediumKind>,
    /// Where machines that boot from the network find what is made for them; `None`: where they found its menu.
    pub url: Option<Url>,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// GUIDs of the medium's own table: not those of the disk, which may be in the same machine.
    pub identity: Identity,
    /// What `blkid` calls the medium.
    pub volume_id: VolumeId,
    /// Who made it, in the volume's descriptor: at most 128 ASCII characters.
    pub publisher: String,
    /// The application, in the volume's descriptor: at most 128 ASCII characters.
    pub application: String,
    /// What can be changed afterwards, as it is at first.
    pub settings: Settings,
    /// For [`MediumKind::Anaconda`], which is made alone.
    pub anaconda: Option<Anaconda>,
}

/// Lays out media, each of its own kind, of the same live system.
///
/// `Unsupported`: the image lacks a program or module that a live system needs, boots by BIOS only, or the disk is one that
/// cannot be run from a medium.
pub fn lay_out(
    parts: &MediumParts<'_>,
    wishes: &Wishes,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Vec<(MediumKind, Medium)>> {
    if let Some(anaconda) = &wishes.anaconda {
        let map = anaconda::lay_out(parts, wishes, anaconda, contents, progress)?;
        return Ok(vec![(MediumKind::Anaconda, Medium::Volume(map))]);
    }
    let carried = parts.carried.context("a medium that runs live carries a disk")?;
    let disk = &carried.disk.map;
    let root = root_of(carried.disk)?;
    let efi = Efi::of(parts.boot, wishes.architecture)?;
    let bios = match wishes.architecture {
        Architecture::X86_64 => MediumCode::prepare(parts.image, contents)?,
        Architecture::Aarch64 => None,
    };
    check_installer(parts.image)?;
    let stage = progress.stage(Stage::Compress, Some(2 * disk.size()));
    let extents = extents(disk, contents, &stage).context("hashing the disk")?;
    let live = Live::prepare(parts, carried, wishes, &root, &efi, &extents, contents)?;
    let container = squashfs::format(&[("disk.raw", disk)], contents, &stage)?;
    drop(stage);
    let _stage = progress.stage(Stage::LayOut, None);
    let kernel = parts.kernel;
    let make = |kind: &MediumKind| {
        let made = match kind {
            MediumKind::Iso => {
                let tree = medium_tree(parts, wishes, &efi, &live, &container, &extents, contents)?;
                let bios = bios.as_ref();
                Medium::Volume(assemble(&tree, &efi, bios, &live.grub_cfg, wishes, contents)?)
            }
            MediumKind::Pxe => {
                let parts = pxe::Parts {
                    image: parts.image,
                    linux: &kernel.linux,
                    initrd: kernel.initramfs.as_ref(),
                    live: &live,
                    efi: &efi,
                    container: &container,
                    extents: &extents,
                    wishes,
                };
                Medium::Directory(pxe::lay_out(&parts, contents, progress)?)
            }
            MediumKind::Anaconda => bail!("there is nothing for Anaconda to install"),
        };
        Ok((*kind, made))
    };
    wishes.kinds.iter().map(make).collect()
}

/// The partition that becomes the live root.
struct Root<'a> {
    partition: &'a PartitionReport,
    filesystem: &'a FilesystemReport,
    /// How the live system mounts it.
    flags: &'static str,
}

fn root_of(disk: &Disk) -> Result<Root<'_>> {
    let find = |role: Role| disk.partitions.iter().find(|partition| partition.role == role);
    if find(Role::Boot).is_some() {
        return Err(unsupported(
            "a medium runs disks with one file system, and this layout has a /boot of its own",
            Some("build media with --layout bootc"),
        ));
    }
    let partition = find(Role::Root).context("a disk has a root")?;
    let filesystem = partition.filesystem.as_ref().context("a root has a file system")?;
    let flags = match filesystem.kind {
        // The kernel shall not fill inode tables in the background, all of it in memory.
        "ext4" => "noinit_itable",
        // An installed twin has the same UUID, and could not be mounted beside a root that claims it.
        "xfs" => "nouuid",
        kind => {
            return Err(unsupported(
                format!("a medium runs roots on ext4 and xfs only, and this one is on {kind}"),
                Some("build media with --filesystem ext4"),
            ));
        }
    };
    ensure!(
        disk.map.size().is_multiple_of(MIB),
        "a disk of {} bytes is not whole MiB",
        disk.map.size()
    );
    Ok(Root { partition, filesystem, flags })
}

fn check_installer(image: &Tree) -> Result<()> {
    let missing = INSTALLER.iter().find(|(name, _)| programs::find(image, name).is_none());
    match missing {
        None => Ok(()),
        Some((name, package)) => Err(unsupported(
            format!("the image has no {name}, with which its medium would install it"),
            Some(&format!("add it to the image: package {package}")),
        )),
    }
}

/// What makes the live system, ready to be laid out.
struct Live {
    build_id: String,
    initramfs: Content,
    kindred: Kindred,
    grub_cfg: Content,
    /// Arguments of the kernel.
    arguments: Vec<String>,
    /// What menus call it.
    title: String,
}

impl Live {
    fn prepare(
        parts: &MediumParts<'_>,
        carried: Carried<'_>,
        wishes: &Wishes,
        root: &Root<'_>,
        efi: &Efi,
        extents: &str,
        contents: &ContentStore,
    ) -> Result<Self> {
        let kernel = parts.kernel;
        let kindred = initramfs::kindred(kernel.initramfs.as_ref(), contents);
        let mut wanted = initramfs::PROGRAMS.to_vec();
        let mut prepare_root = None;
        if kindred == Kindred::Own {
            wanted.extend(initramfs::OWN_PROGRAMS);
            prepare_root = parts.image.file("usr/lib/ostree/prepare-root.conf");
        }
        let programs =
            programs::Programs::take(parts.image, contents, wishes.architecture, &wanted)?;
        let modules = modules::load_order(parts.image, &kernel.version, contents)?;
        let title = menu::safe_title(parts.title);
        let build_id = build_id(extents, wishes);
        let settings =
            settings_for_scripts(carried.disk, wishes, root, efi, &programs, &build_id, &title);
        let initramfs = initramfs::build(
            &initramfs::Parts {
                kindred,
                modules: &modules,
                programs: &programs,
                settings: &settings,
                prepare_root,
            },
            contents,
        )
        .and_then(|archive| cpio::compressed(&archive, kernel.initramfs.as_ref(), contents))
        .context("making the medium's initramfs")?;
        let initrds: &[&str] = match kindred {
            Kindred::Systemd => {
                &["/bootpress/initramfs.img", "/bootpress/live.img", "/bootpress/config.img"]
            }
            Kindred::Own => &["/bootpress/live.img", "/bootpress/config.img"],
        };
        let (kind, flags) = (root.filesystem.kind, root.flags);
        let arguments = menu::live_arguments(carried.command_line, kind, flags);
        let grub_cfg = menu::grub_cfg(&title, &build_id, &arguments, initrds)?;
        Ok(Self {
            build_id,
            initramfs,
            kindred,
            grub_cfg: contents.insert_bytes(grub_cfg.as_bytes())?,
            arguments,
            title,
        })
    }
}

/// Tells one medium from another.
fn build_id(extents: &str, wishes: &Wishes) -> String {
    let mut hash = Sha256::new();
    for part in [
        "bootpress medium v1",
        extents,
        wishes.volume_id.as_str(),
        &wishes.identity.disk.to_string(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finish()[..16])
}

/// `medium.conf`: assignments that a shell reads.
fn settings_for_scripts(
    disk: &Disk,
    wishes: &Wishes,
    root: &Root<'_>,
    efi: &Efi,
    programs: &programs::Programs,
    build_id: &str,
    title: &str,
) -> String {
    let esp = disk.partitions.iter().find(|partition| partition.role == Role::Esp);
    let tools: Vec<&str> = programs
        .programs
        .keys()
        .map(String::as_str)
        .filter(|name| !name.contains('-') && *name != "sh")
        .collect();
    let values = [
        ("BUILD_ID", build_id.to_owned()),
        ("LABEL", wishes.volume_id.to_string()),
        ("TITLE", title.to_owned()),
        ("DISK_SIZE", disk.map.size().to_string()),
        ("ROOT_OFFSET", root.partition.start.to_string()),
        ("ROOT_SIZE", root.partition.size.to_string()),
        ("ROOT_NUMBER", root.partition.number.to_string()),
        ("ROOT_TYPE", root.filesystem.kind.to_owned()),
        ("ROOT_FLAGS", root.flags.to_owned()),
        ("ESP_NUMBER", esp.map_or(String::new(), |esp| esp.number.to_string())),
        ("LOADER_PATH", efi.loader_path()),
        ("LOADER", programs.loader.clone()),
        ("TOOLS", tools.join(" ")),
    ];
    values.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail; no value has a quote in it.
        let _ = writeln!(text, "{name}='{value}'");
        text
    })
}

/// The stretches of a disk that hold data: lines of first MiB, count of MiB, SHA-256.
fn extents(
    map: &SparseMap,
    contents: &ContentStore,
    stage: &crate::progress::StageGuard,
) -> Result<String> {
    let mut units: Vec<u64> = Vec::new();
    for (&offset, source) in map.segments() {
        let (first, last) = (offset / MIB, (offset + source.len() - 1) / MIB);
        let from = units.last().map_or(first, |&last| first.max(last + 1));
        units.extend(from..=last);
    }
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for unit in units {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == unit && *count < LONGEST_EXTENT => {
                *count += 1
            }
            _ => runs.push((unit, 1)),
        }
    }
    let mut text = String::new();
    let mut buffer = vec![0; MIB as usize];
    let mut before = 0;
    for (first, count) in runs {
        let mut hash = Sha256::new();
        for unit in first..first + count {
            map.read_at(contents, unit * MIB, &mut buffer).context("reading the spool")?;
            hash.update(&buffer);
        }
        stage.advance((first + count - before) * MIB);
        before = first + count;
        writeln!(text, "{first} {count} {}", hash.finish_hex())?;
    }
    stage.advance(map.size() - before * MIB);
    Ok(text)
}

/// What the ISO 9660 holds.
fn medium_tree(
    parts: &MediumParts<'_>,
    wishes: &Wishes,
    efi: &Efi,
    live: &Live,
    container: &Content,
    extents: &str,
    contents: &ContentStore,
) -> Result<Tree> {
    let mut tree = efi.with_menu(&live.grub_cfg);
    let kernel = parts.kernel;
    // Where GRUB for BIOS looks.
    tree.put("bootpress/grub.cfg", live.grub_cfg.clone());
    tree.put("bootpress/vmlinuz", kernel.linux.clone());
    if let (Kindred::Systemd, Some(initramfs)) = (live.kindred, &kernel.initramfs) {
        tree.put("bootpress/initramfs.img", initramfs.clone());
    }
    tree.put("bootpress/live.img", live.initramfs.clone());
    tree.put("bootpress/disk.squashfs", container.clone());
    tree.put("bootpress/extents", contents.insert_bytes(extents.as_bytes())?);
    let id = format!("{}\n", live.build_id);
    tree.put("bootpress/id", contents.insert_bytes(id.as_bytes())?);
    // GRUB looks for a file with a name that no other medium has.
    tree.put(&format!("bootpress/{}", live.build_id), contents.insert_bytes(b"\n")?);
    let settings = contents.insert_bytes(&wishes.settings.file()?)?;
    tree.put(customise::DEFAULTS, settings.clone());
    let sums = sums(&tree, contents).context("hashing what goes onto the medium")?;
    tree.put("SHA256SUMS", contents.insert_bytes(sums.as_bytes())?);
    // These may change, so they are not in the list.
    tree.put(customise::SETTINGS, settings);
    let none = contents.insert_bytes(&vec![0; customise::CONFIGURATION_SIZE])?;
    tree.put(customise::CONFIGURATION, none);
    Ok(tree)
}

/// As `sha256sum` prints and checks it.
fn sums(tree: &Tree, contents: &ContentStore) -> Result<String> {
    let mut text = String::new();
    for (path, id) in tree.walk() {
        let Kind::File(content) = &tree.inode(id).kind else { continue };
        let mut hash = Sha256::new();
        let mut reader = contents.reader(content);
        let mut buffer = vec![0; MIB as usize];
        loop {
            match std::io::Read::read(&mut reader, &mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        writeln!(text, "{}  {}", hash.finish_hex(), String::from_utf8_lossy(&path))?;
    }
    Ok(text)
}

/// Joins volume, EFI system partition and partition table.
fn assemble(
    tree: &Tree,
    efi: &Efi,
    bios: Option<&MediumCode>,
    grub_cfg: &Content,
    wishes: &Wishes,
    contents: &ContentStore,
) -> Result<SparseMap> {
    let esp = esp(&efi.with_menu(grub_cfg), wishes, contents)
        .context("formatting the medium's EFI system partition")?;
    let layout = iso9660::Layout::plan(tree, bios.map_or(0, MediumCode::size))?;
    let esp_start = (u64::from(layout.end()) * iso9660::SECTOR).next_multiple_of(MIB);
    let esp_end = esp_start + esp.size();
    // The second table has the last MiB.
    let size = esp_end + MIB;
    let sector =
        |offset: u64| u32::try_from(offset / iso9660::SECTOR).context("a medium has 8 TiB at most");
    let bios_image = bios.map(|code| |at: u32| code.image(at));
    let boot = iso9660::BootImages {
        bios: bios_image.as_ref().map(|make| make as &dyn Fn(u32) -> Vec<u8>),
        efi: Some((sector(esp_start)?, esp.size())),
    };
    let total = sector(size)?;
    let labels = iso9660::Labels {
        volume_id: wishes.volume_id.as_str(),
        publisher: &wishes.publisher,
        application: &wishes.application,
        application_use: &[],
    };
    let mut table = table(wishes, size, esp_start..esp_end);
    if let (Some(code), Some(mbr)) = (bios, table.primary.first_chunk_mut()) {
        *mbr = code.mbr(layout.bios_sector(), mbr);
    }
    let whole = |labels: &iso9660::Labels<'_>| {
        let mut map = layout.write(labels, &boot, total);
        map.put(0, table.primary.clone());
        map.put(table.backup_offset, table.backup.clone());
        map.place(esp_start, esp.clone());
        map
    };
    let blank = whole(&labels);
    let implanted =
        checksum::implanted(size, |offset, buffer| blank.read_at(contents, offset, buffer))
            .context("summing the medium up")?;
    Ok(whole(&iso9660::Labels { application_use: &implanted, ..labels }))
}

/// A FAT that is as small as it can be.
fn esp(tree: &Tree, wishes: &Wishes, contents: &ContentStore) -> Result<SparseMap> {
    let files = tree.walk().map(|(_, id)| match &tree.inode(id).kind {
        Kind::File(content) => content.size.next_multiple_of(4096),
        _ => 4096,
    });
    let size = (files.sum::<u64>() + MIB / 2).next_multiple_of(MIB).max(*ESP_SIZES.start());
    let options = fat::Options {
        size,
        sector_size: 512,
        volume_id: wishes.identity.esp_volume,
        label: "BOOTPRESS",
    };
    if ESP_SIZES.contains(&size) {
        return fat::format_small(tree, contents, &options);
    }
    fat::format(tree, contents, &fat::Options { size: size.max(40 * MIB), ..options })
}

/// A table for sticks, with the one partition that firmware looks for.
fn table(wishes: &Wishes, size: u64, esp: std::ops::Range<u64>) -> partitioning::TableBytes {
    let sector_size = TableSector::S512;
    let partition = Partition {
        number: 1,
        role: Some(PartitionRole::Esp),
        type_guid: ESP,
        guid: wishes.identity.esp_partition,
        name: "EFI-SYSTEM".to_owned(),
        first: Lba(esp.start / 512),
        last: Lba(esp.end / 512 - 1),
        attributes: 0,
        type_byte: None,
    };
    Table {
        guid: wishes.identity.disk,
        scheme: Scheme::Gpt,
        sector_size,
        sectors: size / 512,
        partitions: vec![partition],
    }
    .bytes()
}

/// Whether an initramfs of an image holds a path, such as `usr/lib/ostree/ostree-prepare-root`. `None`: it is compressed in a way
/// that is not read here, or broken.
pub fn initramfs_has(initramfs: &Content, contents: &ContentStore, path: &str) -> Option<bool> {
    cpio::contains(contents.reader(initramfs), path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_cover_the_data_in_whole_mebibytes() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut map = SparseMap::new(64 * MIB);
        map.put(10, vec![1; 10]);
        map.put(MIB - 1, vec![2; 2]);
        map.put(40 * MIB, vec![3; (20 * MIB) as usize]);
        let stage = Progress::default().stage(Stage::LayOut, None);
        let text = extents(&map, &contents, &stage).unwrap();
        let runs: Vec<&str> = text.lines().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(runs, ["0 2", "40 16", "56 4"]);
        let mut first = vec![0; 2 * MIB as usize];
        map.read_at(&contents, 0, &mut first).unwrap();
        assert!(text.lines().next().unwrap().ends_with(&hex(&Sha256::of(&first))));
    }
}
