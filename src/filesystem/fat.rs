//! FAT32 for the ESP: a tree of files and directories as firmware reads it.
//!
//! ```text
//! | boot sector, FSInfo, their copies | FAT | FAT | clusters: root directory, directories, files |
//! ```
//!
//! Always FAT32, also where mkfs.fat would choose FAT16 (below 512 MiB): UEFI asks for it on fixed disks (2.10, section 13.3),
//! and one kind is one thing to test. `hadris-fat` writes to a device that lives in memory; what it touched becomes the map.
//! Contents pass through memory on that way, which the few dozen MiB of an ESP allow.

use std::collections::BTreeMap;
use std::convert::Infallible;

use anyhow::{Context, Result, anyhow};
use hadris_fat::{FatKind, FatOptions, VolumeLabel};
use hadris_fs::{Error, ErrorKind, Node};
use hadris_io::ErrorType;
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};

use crate::content::ContentStore;
use crate::error::unsupported;
use crate::sparse::SparseMap;
use crate::tree::{Kind, Tree};

/// Characters that long names must not have, besides control characters (Microsoft FAT specification, "long directory entries").
const FORBIDDEN: &str = "\"*/:<>?\\|";

/// Names for devices in every directory of DOS and Windows, with any extension.
const RESERVED: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

/// UTF-16 units of the longest name.
const LONGEST_NAME: usize = 255;

/// Bytes of the largest file: its size is 32 bits.
const LARGEST_FILE: u64 = u32::MAX as u64;

/// Files and directories, at most: the time that the writer takes grows with their square.
const MOST_ENTRIES: usize = 8192;

/// What a file system follows from, besides the tree.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Bytes of the volume, a multiple of the sector size.
    pub size: u64,
    /// Bytes of a sector: 512 or 4096.
    pub sector_size: u32,
    /// The number that `blkid` prints as `UUID=7B77-95E7`.
    pub volume_id: u32,
    /// At most 11 ASCII characters, stored in upper case.
    pub label: &'a str,
}

/// The UUID that Linux derives from a volume id: `7B77-95E7`.
pub fn uuid(volume_id: u32) -> String {
    format!("{:04X}-{:04X}", volume_id >> 16, volume_id & 0xffff)
}

/// Bytes that the files and directories of a tree take, in clusters of 4096 bytes; without the FATs.
pub fn content_size(tree: &Tree) -> u64 {
    let below_root = tree.walk().filter(|(_, id)| *id != Tree::ROOT);
    let clusters = below_root.map(|(_, id)| match &tree.inode(id).kind {
        Kind::File(content) => content.size.div_ceil(4096),
        _ => 1,
    });
    clusters.sum::<u64>() * 4096
}

/// Makes a FAT32 volume of what `tree` holds. Modes, owners and attributes have no place there and are dropped; every time is
/// 1980-01-01, FAT's first; a file with several names is stored once for each. Names that FAT cannot have, links and devices,
/// and what does not fit are errors.
pub fn format(tree: &Tree, contents: &ContentStore, options: &Options<'_>) -> Result<SparseMap> {
    format_as(FatKind::Fat32, tree, contents, options)
}

/// Formats a FAT16, for volumes too small for FAT32: on removable media firmware reads every kind (UEFI 2.10, section 13.3).
pub fn format_small(
    tree: &Tree,
    contents: &ContentStore,
    options: &Options<'_>,
) -> Result<SparseMap> {
    format_as(FatKind::Fat16, tree, contents, options)
}

fn format_as(
    kind: FatKind,
    tree: &Tree,
    contents: &ContentStore,
    options: &Options<'_>,
) -> Result<SparseMap> {
    assert!(matches!(options.sector_size, 512 | 4096), "sectors of {} bytes", options.sector_size);
    assert!(
        options.size.is_multiple_of(u64::from(options.sector_size)),
        "{} bytes are not whole sectors",
        options.size
    );
    let label = VolumeLabel::new(options.label)
        .map_err(|kind| anyhow!("the label {:?} is none for FAT: {kind}", options.label))?;
    check_room(tree, options)?;
    let copied = copy(tree, contents)?;
    let mut device = Device::new(options);
    let format = FatOptions::new()
        .with_kind(kind)
        .with_sector_size(options.sector_size)
        .with_serial(options.volume_id)
        .with_label(label)
        // The name that Microsoft's specification recommends, because some readers look for it.
        .with_oem_name(*b"MSWIN4.1");
    let report = hadris_fat::sync::write(&mut device, &copied, &format)
        .map_err(|error| explain(&error, options))?;
    assert_eq!(report.size(), options.size, "the volume fills its partition");
    Ok(device.into_map())
}

/// Refuses more than can fit, before it passes through memory.
fn check_room(tree: &Tree, options: &Options<'_>) -> Result<()> {
    let (mut bytes, mut entries) = (0_u64, 0_usize);
    for (_, id) in tree.walk() {
        entries += 1;
        if let Kind::File(content) = &tree.inode(id).kind {
            bytes = bytes.saturating_add(content.size);
        }
    }
    if bytes > options.size {
        return Err(unsupported(
            format!(
                "the EFI system partition has {} MiB, and its files have {} MiB",
                options.size >> 20,
                bytes.div_ceil(1 << 20)
            ),
            Some("make the partition larger in the disk's layout, or take files out of the image"),
        ));
    }
    if entries > MOST_ENTRIES {
        let what =
            format!("{entries} files on an EFI system partition are more than {MOST_ENTRIES}");
        return Err(unsupported(what, None));
    }
    Ok(())
}

/// The tree in the writer's terms, every name checked.
fn copy(tree: &Tree, contents: &ContentStore) -> Result<hadris_fs::Tree> {
    let mut copied = hadris_fs::Tree::new();
    for (path, id) in tree.walk() {
        let shown = String::from_utf8_lossy(&path).into_owned();
        let inode = tree.inode(id);
        let node = match &inode.kind {
            Kind::Directory(names) => {
                check_names(&shown, names.keys().map(|name| &**name))?;
                Node::dir()
            }
            Kind::File(content) if content.size > LARGEST_FILE => {
                return Err(unsupported(format!("{shown} is too large for FAT"), None));
            }
            Kind::File(content) => {
                let mut bytes = vec![0; usize::try_from(content.size)?];
                contents.read_exact_at(content.id, 0, &mut bytes).context("reading the spool")?;
                Node::file(bytes.into())
            }
            Kind::Symlink(_) => return Err(no_place(&shown, "symbolic link")),
            Kind::CharacterDevice(..) | Kind::BlockDevice(..) => {
                return Err(no_place(&shown, "device"));
            }
            Kind::Fifo | Kind::Socket => return Err(no_place(&shown, "pipe or socket")),
        };
        if !path.is_empty() {
            copied.insert(&path, node).map_err(|error| anyhow!("{shown}: {error}"))?;
        }
    }
    Ok(copied)
}

fn no_place(path: &str, what: &str) -> anyhow::Error {
    unsupported(
        format!("{path} on the EFI system partition is a {what}, which FAT cannot hold"),
        Some("the image's EFI payload may hold regular files and directories only"),
    )
}

/// Refuses what FAT or its readers would refuse, or take for the same name.
fn check_names<'a>(directory: &str, names: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let mut seen = BTreeMap::new();
    for name in names {
        let bad = |why: &str| {
            let shown = String::from_utf8_lossy(name);
            unsupported(format!("/{directory}: FAT cannot have the name {shown:?}: {why}"), None)
        };
        let text = std::str::from_utf8(name).map_err(|_| bad("it is not UTF-8"))?;
        if let Some(forbidden) = text.chars().find(|c| c.is_control() || FORBIDDEN.contains(*c)) {
            return Err(bad(&format!("{forbidden:?} is forbidden")));
        }
        if text.ends_with(['.', ' ']) || text.starts_with(' ') {
            return Err(bad("blanks around it and dots behind it are lost"));
        }
        if text.encode_utf16().count() > LONGEST_NAME {
            return Err(bad("it is too long"));
        }
        let folded = text.to_uppercase();
        if RESERVED.contains(&folded.split('.').next().unwrap_or_default()) {
            return Err(bad("it names a device"));
        }
        if let Some(other) = seen.insert(folded, text) {
            return Err(bad(&format!("it differs from {other:?} by case only")));
        }
    }
    Ok(())
}

fn explain(error: &hadris_fs::PathError, options: &Options<'_>) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NoSpace | ErrorKind::LimitExceeded => unsupported(
            format!(
                "an EFI system partition of {} MiB with sectors of {} bytes does not do: {error}",
                options.size >> 20,
                options.sector_size
            ),
            Some("FAT32 needs 34 MiB (260 MiB with sectors of 4096 bytes) and room for the files"),
        ),
        _ => anyhow!("formatting the EFI system partition: {error}"),
    }
}

/// A disk in memory that holds the sectors that are not zero.
#[derive(Debug)]
struct Device {
    sector_size: BlockSize,
    size: u64,
    sectors: BTreeMap<u64, Box<[u8]>>,
}

impl Device {
    fn new(options: &Options<'_>) -> Self {
        let sector_size = BlockSize::new(options.sector_size).expect("a sector has bytes");
        Self { sector_size, size: options.size, sectors: BTreeMap::new() }
    }

    /// The sectors that `bytes` of a transfer from `first` on cover, or a refusal.
    fn range(
        &self,
        first: BlockIndex,
        bytes: usize,
    ) -> Result<std::ops::Range<u64>, Error<Infallible>> {
        let end = first.get() + bytes as u64 / u64::from(self.sector_size.get());
        if end > self.block_count() {
            return Err(Error::new(ErrorKind::InvalidInput, "outside of the volume"));
        }
        Ok(first.get()..end)
    }

    /// Neighbouring sectors as one segment.
    fn into_map(self) -> SparseMap {
        let sector_size = u64::from(self.sector_size.get());
        let mut map = SparseMap::new(self.size);
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for (sector, bytes) in self.sectors {
            let offset = sector * sector_size;
            if run.0 + run.1.len() as u64 != offset {
                map.put(run.0, std::mem::take(&mut run.1));
                run.0 = offset;
            }
            run.1.extend_from_slice(&bytes);
        }
        map.put(run.0, run.1);
        map
    }
}

impl ErrorType for Device {
    type Error = Infallible;
}

impl BlockDevice for Device {
    fn block_size(&self) -> BlockSize {
        self.sector_size
    }

    fn block_count(&self) -> u64 {
        self.size / u64::from(self.sector_size.get())
    }

    fn writable(&self) -> bool {
        true
    }

    fn read_blocks(
        &mut self,
        first: BlockIndex,
        buffer: &mut [u8],
    ) -> Result<(), Error<Infallible>> {
        let range = self.range(first, buffer.len())?;
        for (sector, target) in range.zip(buffer.chunks_exact_mut(self.sector_size.get() as usize))
        {
            match self.sectors.get(&sector) {
                Some(bytes) => target.copy_from_slice(bytes),
                None => target.fill(0),
            }
        }
        Ok(())
    }

    fn write_blocks(&mut self, first: BlockIndex, buffer: &[u8]) -> Result<(), Error<Infallible>> {
        let range = self.range(first, buffer.len())?;
        for (sector, bytes) in range.zip(buffer.chunks_exact(self.sector_size.get() as usize)) {
            if bytes.iter().all(|&byte| byte == 0) {
                self.sectors.remove(&sector);
            } else {
                self.sectors.insert(sector, bytes.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::error::Unsupported;
    use crate::tree::Metadata;

    const OPTIONS: Options<'_> =
        Options { size: 64 << 20, sector_size: 512, volume_id: 0x7b77_95e7, label: "EFI-SYSTEM" };

    fn store() -> ContentStore {
        ContentStore::create_in(&std::env::temp_dir()).unwrap()
    }

    fn tree(names: &[&[u8]]) -> Tree {
        let mut tree = Tree::new(Metadata::root(0o755));
        for name in names {
            tree.create(Tree::ROOT, name, Metadata::root(0o644), Kind::File(Content::EMPTY));
        }
        tree
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let store = store();
        let mut tree = tree(&[b"startup.nsh"]);
        let efi = tree.make_directories("EFI/BOOT", &Metadata::root(0o755));
        let content = store.insert_bytes(&[7; 10_000]).unwrap();
        tree.create(efi, b"BOOTX64.EFI", Metadata::root(0o644), Kind::File(content));
        let one = format(&tree, &store, &OPTIONS).unwrap();
        assert_eq!(one, format(&tree, &store, &OPTIONS).unwrap());
        assert!(one.allocated() < 1 << 20, "{}", one.allocated());
        let mut boot = [0; 512];
        one.read_at(&store, 0, &mut boot).unwrap();
        // BS_VolID, BS_VolLab, BS_FilSysType.
        assert_eq!(boot[67..71], 0x7b77_95e7_u32.to_le_bytes());
        assert_eq!(&boot[71..90], b"EFI-SYSTEM FAT32   ");
        assert_eq!(uuid(0x7b77_95e7), "7B77-95E7");
    }

    #[test]
    fn names_that_fat_cannot_have_are_refused() {
        for names in [
            &[&b"caf\xe9"[..]][..],
            &[b"a:b"],
            &[b"tab\t"],
            &[b"dot."],
            &[b"blank "],
            &[b"nul.txt"],
            &[b"grub.cfg", b"GRUB.CFG"],
            &["É".as_bytes(), "é".as_bytes()],
            &[&[b'x'; 256]],
        ] {
            let error = format(&tree(names), &store(), &OPTIONS).unwrap_err();
            assert!(error.is::<Unsupported>(), "{names:?}: {error:#}");
        }
        assert!(
            format(&tree(&[b"null.txt", b"a b", "é".as_bytes(), b"+,;=[]"]), &store(), &OPTIONS)
                .is_ok()
        );
    }

    #[test]
    fn links_and_devices_are_refused() {
        for kind in [Kind::Symlink((*b"x").into()), Kind::CharacterDevice(1, 3), Kind::Fifo] {
            let mut tree = tree(&[]);
            tree.create(Tree::ROOT, b"odd", Metadata::root(0o644), kind);
            let error = format(&tree, &store(), &OPTIONS).unwrap_err();
            assert!(
                error.to_string().starts_with("odd on the EFI system partition is a"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let store = store();
        let mut tree = tree(&[]);
        let mut writer = store.writer(70 << 20);
        writer.skip(70 << 20);
        let content = writer.finish().unwrap();
        tree.create(Tree::ROOT, b"big", Metadata::root(0o644), Kind::File(content));
        for options in [
            OPTIONS,
            Options { size: 1 << 20, ..OPTIONS },
            Options { sector_size: 4096, ..OPTIONS },
        ] {
            let error = format(&tree, &store, &options).unwrap_err();
            assert!(error.is::<Unsupported>(), "{error:#}");
        }
    }
}
