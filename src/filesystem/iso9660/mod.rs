//! ISO 9660 with Rock Ridge and El Torito: a tree of directories and files as optical media and their firmware read it.
//!
//! ```text
//! sector 0    system area: free for partition tables and boot code
//!       16    primary volume descriptor
//!       17    boot record ─────────────► boot catalog ─► boot images
//!       18    terminator
//!       19    boot catalog, path tables (L, M), directories, continuation area, boot image for BIOS, files
//!             … and what the caller appends: the EFI system partition, the second partition table
//! ```
//!
//! ECMA-119 (third edition), the Rock Ridge Interchange Protocol 1.10 over SUSP 1.10, and El Torito 1.0 with the platform id
//! of UEFI 2.10, section 13.3.2.1. Files of 4 GiB and more have several extents (interchange level 3). Sectors have 2048 bytes.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;

use self::record::{Extent, Record};
use crate::content::Content;
use crate::error::unsupported;
use crate::sparse::SparseMap;
use crate::tree::{InodeId, Kind, Tree};

/// Bytes of a sector, in which everything counts.
pub const SECTOR: u64 = 2048;

/// Bytes before the first descriptor, which no part of ISO 9660 uses (ECMA-119, 7.2.1).
pub const SYSTEM_AREA: u64 = 16 * SECTOR;

/// Offset of the primary volume descriptor.
pub const PRIMARY: u64 = SYSTEM_AREA;

/// Where the primary descriptor leaves room for applications (ECMA-119, 8.4.32): offset in it, and bytes.
pub const APPLICATION_USE: (usize, usize) = (883, 512);

const CATALOG: u32 = 19;
const PATH_TABLES: u32 = 20;

/// The largest extent that is whole sectors: a size has 32 bits.
const LARGEST_EXTENT: u64 = (u32::MAX as u64) / SECTOR * SECTOR;

/// The most directories that a path may have, the root counted (ECMA-119, 7.6.2).
const DEEPEST: usize = 8;

/// What a volume says about itself.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// At most 32 characters: what `blkid` prints as `LABEL=`.
    pub volume_id: &'a str,
    /// At most 128 characters.
    pub publisher: &'a str,
    /// At most 128 characters.
    pub application: &'a str,
    /// What fills the room for applications, at most [`APPLICATION_USE`]; the rest is blank.
    pub application_use: &'a [u8],
}

/// What El Torito's catalog names.
#[derive(Clone, Copy, Default)]
pub struct BootImages<'a> {
    /// For a BIOS: loaded by its first four sectors of 512 bytes. Made from the sector at which it lies.
    pub bios: Option<&'a dyn Fn(u32) -> Vec<u8>>,
    /// For UEFI: first sector and bytes of a FAT.
    pub efi: Option<(u32, u64)>,
}

impl fmt::Debug for BootImages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootImages {{ bios: {}, efi: {:?} }}", self.bios.is_some(), self.efi)
    }
}

/// Where everything lies, before it is written down.
#[derive(Debug)]
pub struct Layout<'a> {
    tree: &'a Tree,
    directories: Vec<Directory>,
    /// First sector of each file's content, by inode.
    files: BTreeMap<InodeId, u32>,
    path_table: u32,
    continuation: u32,
    bios: u32,
    bios_size: u64,
    end: u32,
}

/// Identifier, name, inode.
type Child = (Vec<u8>, Vec<u8>, InodeId);

/// A directory: where it is, what it is called, and what its records name.
#[derive(Debug)]
struct Directory {
    id: InodeId,
    /// Index of the directory above; the root's own.
    parent: usize,
    identifier: Vec<u8>,
    /// In the order of identifiers.
    children: Vec<Child>,
    sector: u32,
    size: u32,
}

impl<'a> Layout<'a> {
    /// Decides where everything lies; `bios_size`: bytes of the boot image for BIOS, 0 for none. `Unsupported`: something else
    /// than directories and files, too deep a tree, or a name that does not fit.
    pub fn plan(tree: &'a Tree, bios_size: u64) -> Result<Self> {
        let mut layout = Self {
            tree,
            directories: directories(tree)?,
            files: BTreeMap::new(),
            path_table: 0,
            continuation: 0,
            bios: 0,
            bios_size,
            end: 0,
        };
        layout.path_table = layout.path_table_bytes(false).len() as u32;
        let mut next = PATH_TABLES + 2 * sectors(layout.path_table.into());
        for index in 0..layout.directories.len() {
            let size = sectors_of_records(&layout.record_sizes(index)) * SECTOR as u32;
            let directory = &mut layout.directories[index];
            (directory.sector, directory.size) = (next, size);
            next += sectors(size.into());
        }
        layout.continuation = next;
        layout.bios = next + 1;
        next = layout.bios + sectors(bios_size);
        for directory in &layout.directories {
            for (_, _, id) in &directory.children {
                let Kind::File(content) = &tree.inode(*id).kind else { continue };
                if content.size > 0 && !layout.files.contains_key(id) {
                    layout.files.insert(*id, next);
                    let end = u64::from(next) + content.size.div_ceil(SECTOR);
                    next = u32::try_from(end).map_err(|_| {
                        unsupported(
                            "what goes onto the medium is larger than ISO 9660 can be: 8 TiB",
                            None,
                        )
                    })?;
                }
            }
        }
        layout.end = next;
        Ok(layout)
    }

    /// The first sector behind it all, where the caller may append.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Where a file of the tree begins; `None`: it is not a file or empty.
    pub fn sector_of(&self, path: &str) -> Option<u32> {
        self.files.get(&self.tree.find(path)?).copied()
    }

    /// Where the boot image for BIOS begins.
    pub fn bios_sector(&self) -> u32 {
        self.bios
    }

    /// The volume in `total` sectors, of which those from [`Layout::end`] on are free.
    pub fn write(&self, labels: &Labels<'_>, boot: &BootImages<'_>, total: u32) -> SparseMap {
        assert!(total >= self.end, "{total} sectors are fewer than {}", self.end);
        let mut map = SparseMap::new(u64::from(total) * SECTOR);
        let mut put = |sector: u32, bytes: Vec<u8>| map.put(u64::from(sector) * SECTOR, bytes);
        put(16, self.primary(labels, total));
        put(17, boot_record());
        put(18, [&b"\xffCD001\x01"[..]].concat());
        put(CATALOG, catalog(boot, self.bios));
        put(PATH_TABLES, self.path_table_bytes(false));
        put(PATH_TABLES + sectors(self.path_table.into()), self.path_table_bytes(true));
        for index in 0..self.directories.len() {
            put(self.directories[index].sector, self.directory_bytes(index));
        }
        put(self.continuation, record::extension_reference());
        if let Some(make) = boot.bios {
            let image = make(self.bios);
            assert_eq!(image.len() as u64, self.bios_size, "a boot image is as large as planned");
            put(self.bios, image);
        }
        for (id, sector) in &self.files {
            if let Kind::File(content) = &self.tree.inode(*id).kind {
                put_file(&mut map, u64::from(*sector) * SECTOR, content);
            }
        }
        map
    }

    fn primary(&self, labels: &Labels<'_>, total: u32) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR as usize];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let text = |text: &str, len: usize| -> Vec<u8> {
            text.bytes().chain(std::iter::repeat(b' ')).take(len).collect()
        };
        put(0, b"\x01CD001\x01");
        put(8, &text("LINUX", 32));
        put(40, &text(labels.volume_id, 32));
        put(80, &record::both_u32(total));
        put(120, &record::both_u16(1));
        put(124, &record::both_u16(1));
        put(128, &record::both_u16(SECTOR as u16));
        put(132, &record::both_u32(self.path_table));
        put(140, &PATH_TABLES.to_le_bytes());
        put(148, &(PATH_TABLES + sectors(self.path_table.into())).to_be_bytes());
        put(156, &self.root_record());
        put(190, &text("", 128));
        put(318, &text(labels.publisher, 128));
        put(446, &text("BOOTPRESS", 128));
        put(574, &text(labels.application, 128));
        put(702, &text("", 37 * 3));
        // Four dates that say nothing: a medium made twice is the same.
        for at in [813, 830, 847, 864] {
            put(at, b"0000000000000000\0");
        }
        put(881, &[1]);
        put(APPLICATION_USE.0, &text("", APPLICATION_USE.1));
        put(APPLICATION_USE.0, labels.application_use);
        bytes
    }

    /// The root's record in the primary descriptor: 34 bytes, without Rock Ridge.
    fn root_record(&self) -> Vec<u8> {
        let root = &self.directories[0];
        let extent = Extent { sector: root.sector, size: root.size };
        Record { identifier: &[0], extent, directory: true, continued: false, rock_ridge: &[] }
            .bytes()
    }

    /// The records of a directory, in order.
    fn records(&self, index: usize) -> Vec<Vec<u8>> {
        let directory = &self.directories[index];
        let parent = &self.directories[directory.parent];
        let mut records = Vec::new();
        for (byte, target) in [(0, directory), (1, parent)] {
            let mut rock_ridge = Vec::new();
            if index == 0 && byte == 0 {
                rock_ridge.extend(record::sharing_protocol());
            }
            rock_ridge.extend(record::posix(self.tree.inode(target.id), self.links(target)));
            if index == 0 && byte == 0 {
                rock_ridge.extend(record::continuation(self.continuation));
            }
            let extent = Extent { sector: target.sector, size: target.size };
            let identifier = &[byte][..];
            let record = Record {
                identifier,
                extent,
                directory: true,
                continued: false,
                rock_ridge: &rock_ridge,
            };
            records.push(record.bytes());
        }
        for (identifier, name, id) in &directory.children {
            records.extend(self.child_records(identifier, name, *id));
        }
        records
    }

    /// One record, or one for each extent.
    fn child_records(&self, identifier: &[u8], name: &[u8], id: InodeId) -> Vec<Vec<u8>> {
        let inode = self.tree.inode(id);
        let below = self.directories.iter().find(|directory| directory.id == id);
        let extents = match (&inode.kind, below) {
            (_, Some(directory)) => vec![Extent { sector: directory.sector, size: directory.size }],
            (Kind::File(content), _) => extents(content, self.files.get(&id).copied().unwrap_or(0)),
            (other, _) => unreachable!("{other:?} was refused"),
        };
        let links = below.map_or(1, |directory| self.links(directory));
        let rock_ridge = [record::posix(inode, links), record::name(name)].concat();
        let last = extents.len() - 1;
        let record = |(index, extent): (usize, &Extent)| {
            let (directory, continued) = (below.is_some(), index != last);
            Record { identifier, extent: *extent, directory, continued, rock_ridge: &rock_ridge }
                .bytes()
        };
        extents.iter().enumerate().map(record).collect()
    }

    fn links(&self, directory: &Directory) -> u32 {
        let is_directory = |id: &InodeId| self.tree.inode(*id).is_directory();
        2 + directory.children.iter().filter(|(_, _, id)| is_directory(id)).count() as u32
    }

    fn record_sizes(&self, index: usize) -> Vec<usize> {
        self.records(index).iter().map(Vec::len).collect()
    }

    fn directory_bytes(&self, index: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in self.records(index) {
            if !fits(bytes.len(), record.len()) {
                bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
            }
            bytes.extend(record);
        }
        bytes.resize(self.directories[index].size as usize, 0);
        bytes
    }

    /// A path table (ECMA-119, 9.4), its numbers in either order.
    fn path_table_bytes(&self, big_endian: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for directory in &self.directories {
            let identifier = &directory.identifier;
            let parent = directory.parent as u16 + 1;
            bytes.extend([identifier.len() as u8, 0]);
            bytes.extend(if big_endian {
                directory.sector.to_be_bytes()
            } else {
                directory.sector.to_le_bytes()
            });
            bytes.extend(if big_endian { parent.to_be_bytes() } else { parent.to_le_bytes() });
            bytes.extend(identifier);
            if identifier.len() % 2 == 1 {
                bytes.push(0);
            }
        }
        bytes
    }
}

/// Every directory, those nearer to the root first, as path tables want them.
fn directories(tree: &Tree) -> Result<Vec<Directory>> {
    let mut directories = vec![Directory {
        id: Tree::ROOT,
        parent: 0,
        identifier: vec![0],
        children: children(tree, Tree::ROOT)?,
        sector: 0,
        size: 0,
    }];
    let mut level = 0..1;
    for _ in 1..DEEPEST {
        let next = directories.len();
        for parent in level {
            let below: Vec<_> = directories[parent].children.clone();
            for (identifier, _, id) in below {
                if tree.inode(id).is_directory() {
                    let children = children(tree, id)?;
                    directories.push(Directory {
                        id,
                        parent,
                        identifier,
                        children,
                        sector: 0,
                        size: 0,
                    });
                }
            }
        }
        level = next..directories.len();
    }
    let too_deep = |directory: &Directory| {
        directory.children.iter().any(|(_, _, id)| tree.inode(*id).is_directory())
    };
    if level.clone().any(|index| too_deep(&directories[index])) || directories.len() > 0xffff {
        return Err(unsupported(
            "the medium's directories are too deep or too many for ISO 9660",
            None,
        ));
    }
    Ok(directories)
}

/// The names of a directory with identifiers that are unique in it, in their order.
fn children(tree: &Tree, directory: InodeId) -> Result<Vec<Child>> {
    let mut taken = BTreeSet::new();
    let mut children = Vec::new();
    for (name, id) in tree.inode(directory).children() {
        let shown = String::from_utf8_lossy(name);
        let inode = tree.inode(id);
        if !matches!(inode.kind, Kind::File(_) | Kind::Directory(_)) {
            return Err(unsupported(
                format!("{shown}: a medium holds files and directories only"),
                None,
            ));
        }
        if name.len() > record::LONGEST_NAME {
            return Err(unsupported(format!("{shown} is too long a name for the medium"), None));
        }
        let identifier = identifier(name, inode.is_directory(), &mut taken);
        children.push((identifier, name.to_vec(), id));
    }
    children.sort();
    Ok(children)
}

/// What readers without Rock Ridge see: `A-Z`, `0-9` and `_`, at most 30 characters and one dot (ECMA-119, 7.5 and 7.6).
fn identifier(name: &[u8], directory: bool, taken: &mut BTreeSet<Vec<u8>>) -> Vec<u8> {
    let safe = |part: &[u8], len: usize| -> Vec<u8> {
        let character = |&byte: &u8| match byte.to_ascii_uppercase() {
            byte @ (b'A'..=b'Z' | b'0'..=b'9') => byte,
            _ => b'_',
        };
        part.iter().take(len).map(character).collect()
    };
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|_| !directory);
    let (stem, extension) = match dot {
        Some(dot) => (safe(&name[..dot], 20), safe(&name[dot + 1..], 6)),
        None => (safe(name, 26), Vec::new()),
    };
    (0..)
        .map(|number: u32| {
            let number = if number == 0 { String::new() } else { format!("{number:03}") };
            if directory {
                [&stem[..], number.as_bytes()].concat()
            } else {
                [&stem[..], number.as_bytes(), b".", &extension, b";1"].concat()
            }
        })
        .find(|identifier| taken.insert(identifier.clone()))
        .expect("there are more numbers than names")
}

fn extents(content: &Content, sector: u32) -> Vec<Extent> {
    let mut extents = Vec::new();
    let (mut sector, mut left) = (sector, content.size);
    loop {
        let size = left.min(LARGEST_EXTENT);
        extents.push(Extent { sector, size: size as u32 });
        left -= size;
        sector += sectors(size);
        if left == 0 {
            return extents;
        }
    }
}

fn put_file(map: &mut SparseMap, offset: u64, content: &Content) {
    for range in content.data_ranges() {
        map.put_content(offset + range.start, content.id, range.start, range.end - range.start);
    }
}

/// Sectors that so many bytes take.
fn sectors(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(SECTOR)).expect("directories and extents are below 4 GiB")
}

/// Whether a record may begin at an offset: none crosses the end of a sector (ECMA-119, 6.8.1.1).
fn fits(offset: usize, len: usize) -> bool {
    offset % SECTOR as usize + len <= SECTOR as usize
}

fn sectors_of_records(sizes: &[usize]) -> u32 {
    let mut end = 0_usize;
    for &size in sizes {
        if !fits(end, size) {
            end = end.next_multiple_of(SECTOR as usize);
        }
        end += size;
    }
    sectors(end as u64)
}

/// El Torito's volume descriptor, which names the catalog.
fn boot_record() -> Vec<u8> {
    let mut bytes = vec![0; 75];
    bytes[..7].copy_from_slice(b"\0CD001\x01");
    bytes[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
    bytes[71..75].copy_from_slice(&CATALOG.to_le_bytes());
    bytes
}

/// The boot catalog: a validation entry, the default entry, and a section for UEFI when a BIOS has the default.
fn catalog(boot: &BootImages<'_>, bios_sector: u32) -> Vec<u8> {
    const BIOS: u8 = 0;
    const EFI: u8 = 0xef;
    // Bootable, no emulation, segment and system type 0, sectors of 512 bytes to load, where.
    let entry = |count: u16, sector: u32| {
        let mut entry = [0; 32];
        entry[0] = 0x88;
        entry[6..8].copy_from_slice(&count.to_le_bytes());
        entry[8..12].copy_from_slice(&sector.to_le_bytes());
        entry
    };
    // More than the field can say is 0, which firmware takes for all that follows.
    let efi = boot.efi.map(|(sector, size)| entry(u16::try_from(size / 512).unwrap_or(0), sector));
    let bios = boot.bios.map(|_| entry(4, bios_sector));
    let mut bytes = vec![0; 32];
    bytes[0] = 1;
    bytes[1] = if bios.is_some() { BIOS } else { EFI };
    bytes[30..32].copy_from_slice(&[0x55, 0xaa]);
    let sum = bytes
        .chunks(2)
        .fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    bytes[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    match (bios, efi) {
        (Some(bios), Some(efi)) => {
            bytes.extend(bios);
            let mut header = [0; 32];
            // The last section, of one entry.
            header[..3].copy_from_slice(&[0x91, EFI, 1]);
            bytes.extend(header);
            bytes.extend(efi);
        }
        (one, other) => bytes.extend(one.or(other).unwrap_or([0; 32])),
    }
    bytes.resize(SECTOR as usize, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentStore;
    use crate::error::Unsupported;
    use crate::tree::Metadata;

    const LABELS: Labels<'_> =
        Labels { volume_id: "TEST", publisher: "", application: "", application_use: &[] };

    fn store() -> ContentStore {
        ContentStore::create_in(&std::env::temp_dir()).unwrap()
    }

    #[test]
    fn identifiers_are_short_safe_and_unique() {
        let mut taken = BTreeSet::new();
        let mut made = |name: &str, directory| {
            String::from_utf8(identifier(name.as_bytes(), directory, &mut taken)).unwrap()
        };
        assert_eq!(made("grub.cfg", false), "GRUB.CFG;1");
        assert_eq!(made("GRUB.cfg", false), "GRUB001.CFG;1");
        assert_eq!(made("vmlinuz", false), "VMLINUZ.;1");
        assert_eq!(made("i386-pc", true), "I386_PC");
        let long = made(&format!("{}.extension", "x".repeat(100)), false);
        assert!(long.len() <= 32 && long.ends_with(".EXTENS;1"), "{long}");
    }

    #[test]
    fn a_file_over_4_gib_has_several_extents() {
        let store = store();
        let mut writer = store.writer(9 << 30);
        writer.skip(9 << 30);
        let content = writer.finish().unwrap();
        let parts = extents(&content, 100);
        assert_eq!(parts.len(), 3);
        assert_eq!(parts.iter().map(|extent| u64::from(extent.size)).sum::<u64>(), 9 << 30);
        assert_eq!(parts[1].sector, 100 + sectors(LARGEST_EXTENT));
        let mut tree = Tree::new(Metadata::root(0o755));
        tree.create(Tree::ROOT, b"big", Metadata::root(0o644), Kind::File(content));
        tree.create(
            Tree::ROOT,
            b"small",
            Metadata::root(0o644),
            Kind::File(store.insert_bytes(b"s").unwrap()),
        );
        let layout = Layout::plan(&tree, 0).unwrap();
        assert_eq!(layout.sector_of("small").unwrap() - layout.sector_of("big").unwrap(), 9 << 19);
    }

    #[test]
    fn the_catalog_sums_to_zero() {
        let make = |_: u32| Vec::new();
        for boot in [
            BootImages { bios: Some(&make), efi: Some((1000, 16 << 20)) },
            BootImages { bios: None, efi: Some((1000, 16 << 20)) },
        ] {
            let bytes = catalog(&boot, 30);
            let words = bytes[..32].chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
            assert_eq!(words.fold(0, u16::wrapping_add), 0);
            assert_eq!(bytes.len() as u64, SECTOR);
        }
    }

    #[test]
    fn what_it_cannot_hold_is_refused() {
        let mut tree = Tree::new(Metadata::root(0o755));
        tree.create(Tree::ROOT, b"link", Metadata::root(0o777), Kind::Symlink((*b"x").into()));
        assert!(Layout::plan(&tree, 0).unwrap_err().is::<Unsupported>());
        let mut tree = Tree::new(Metadata::root(0o755));
        tree.make_directories("1/2/3/4/5/6/7/8", &Metadata::root(0o755));
        assert!(Layout::plan(&tree, 0).unwrap_err().is::<Unsupported>());
        let mut tree = Tree::new(Metadata::root(0o755));
        tree.create(Tree::ROOT, &[b'x'; 200], Metadata::root(0o644), Kind::File(Content::EMPTY));
        assert!(Layout::plan(&tree, 0).unwrap_err().is::<Unsupported>());
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let store = store();
        let mut tree = Tree::new(Metadata::root(0o755));
        let boot = tree.make_directories("boot/grub2", &Metadata::root(0o755));
        for n in 0..200 {
            let content = store.insert_bytes(format!("{n}").as_bytes()).unwrap();
            tree.create(
                boot,
                format!("file {n}").as_bytes(),
                Metadata::root(0o644),
                Kind::File(content),
            );
        }
        let write = || {
            let layout = Layout::plan(&tree, 0).unwrap();
            layout.write(&LABELS, &BootImages::default(), layout.end())
        };
        assert_eq!(write(), write());
    }
}
