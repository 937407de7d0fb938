//! Tree → SparseMap, without I/O: ext4, XFS, btrfs, FAT, swap, ISO 9660, and the EROFS images of composefs; the squashfs that a disk
//! travels in; and the hash trees of fs-verity.
//!
//! What goes into a partition is made by two functions, whatever its kind: [`FileSystem::fit`] tells how large it has to be,
//! [`FileSystem::format`] makes it.

pub mod btrfs;
mod dump;
pub mod erofs;
pub mod ext4;
pub mod fat;
pub mod iso9660;
mod linux;
pub mod squashfs;
pub mod swap;
pub mod verity;
pub mod xfs;

use std::borrow::Cow;
use std::sync::OnceLock;

use anyhow::Result;
use uuid::Uuid;

use crate::content::ContentStore;
use crate::error::unsupported;
use crate::filesystem_kind::{FileSystem, XfsProfile};
use crate::sparse::SparseMap;
use crate::tree::{Kind, Metadata, Tree, Verity, components};

/// Bytes of an ext4 for which there is an inode, as mke2fs does it.
const BYTES_PER_INODE: u64 = 16384;

/// Bytes of metadata, in one copy, that an inode of a system takes on btrfs: 900 to 1000 were seen.
const BTRFS_BYTES_PER_INODE: u64 = 1024;
/// Bytes that stay free on a btrfs in any case: without room for another chunk of metadata nothing can be deleted any more.
const BTRFS_SPARE: u64 = 64 << 20;

/// What a file system holds. Only btrfs has subvolumes and compression; other kinds are given neither.
#[derive(Clone, Debug)]
pub struct Filling<'a> {
    /// Its root directory; on a btrfs with `subvolume`, what that one holds.
    pub root: &'a Tree,
    /// The subvolume that becomes the default one; `None`: `root` is the top of the volume.
    pub subvolume: Option<&'a str>,
    /// How the files of `root` are compressed, as the mount option `compress=` has it; `None`: not at all.
    pub compression: Option<&'a str>,
    /// Subvolumes at the top of the volume, beside that of the root.
    pub further: Vec<Subvolume<'a>>,
}

/// A subvolume of btrfs that is not the root.
#[derive(Clone, Copy, Debug)]
pub struct Subvolume<'a> {
    /// Its path from the top of the volume.
    pub name: &'a str,
    /// What it holds.
    pub tree: &'a Tree,
    /// How that is compressed, as `compress=` has it; `None`: not at all.
    pub compression: Option<&'a str>,
}

impl<'a> Filling<'a> {
    /// A tree and nothing else.
    pub fn of(root: &'a Tree) -> Self {
        Self { root, subvolume: None, compression: None, further: Vec::new() }
    }
}

/// What shall be free in a file system, besides what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Inodes, where their number is fixed.
    pub inodes: u32,
}

/// What a file system depends on besides its size and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct VolumeOptions<'a> {
    /// Its UUID; of a FAT the first four bytes, little-endian, are the volume ID.
    pub uuid: Uuid,
    /// Its label, at most [`FileSystem::longest_label`] bytes.
    pub label: &'a str,
    /// Orders the names of ext4's large directories.
    pub hash_seed: Uuid,
    /// Bytes of the disk's sectors: 512 or 4096.
    pub sector_size: u64,
    /// Whether it is expected to become larger than it is made.
    pub grows: bool,
    /// Which features an XFS has.
    pub xfs_profile: XfsProfile,
}

/// A file system that goes into a partition.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its bytes, exactly as many as were asked for.
    pub map: SparseMap,
    /// Its kind.
    pub kind: FileSystem,
    /// Its label.
    pub label: String,
    /// Its UUID, as `blkid` prints it.
    pub uuid: String,
    /// Bytes of it that are in use.
    pub used: u64,
}

impl FileSystem {
    /// Bytes of the smallest file system that holds this and has so much room besides. What has to be compressed for that is
    /// added to `contents`, and used again by [`FileSystem::format`].
    pub fn fit(
        self,
        filling: &Filling<'_>,
        room: Room,
        options: &VolumeOptions<'_>,
        contents: &ContentStore,
    ) -> Result<u64> {
        match self {
            Self::Ext4 => fit_ext4(filling.root, room, options),
            Self::Xfs => fit_xfs(filling.root, room, options),
            Self::Btrfs => fit_btrfs(filling, room, contents),
            Self::Vfat => Ok(fat::content_size(filling.root).saturating_add(room.bytes)),
            Self::Swap => Ok(room.bytes.max(swap::SMALLEST)),
        }
    }

    /// Makes a file system of `size` bytes. The maps of some kinds refer to bytes that are added to `contents`.
    ///
    /// `Unsupported` if the kind cannot hold this: a label that is too long, names that FAT has no characters for.
    pub fn format(
        self,
        filling: &Filling<'_>,
        size: u64,
        options: &VolumeOptions<'_>,
        contents: &ContentStore,
    ) -> Result<Volume> {
        self.check_label(options.label)?;
        let (map, used) = match self {
            Self::Ext4 => format_ext4(filling.root, size, options)?,
            Self::Xfs => format_xfs(filling.root, size, options)?,
            Self::Btrfs => format_btrfs(filling, size, options, contents)?,
            Self::Vfat => format_fat(filling.root, size, options, contents)?,
            Self::Swap => (swap::format(size, options.uuid, options.label), 0),
        };
        let (label, uuid) = (options.label.to_owned(), self.shown_uuid(options.uuid));
        Ok(Volume { map, kind: self, label, uuid, used })
    }

    /// A UUID as `blkid` prints it for this kind: that of a FAT is `7B77-95E7`.
    pub fn shown_uuid(self, uuid: Uuid) -> String {
        match self {
            Self::Vfat => fat::uuid(volume_id(uuid)),
            Self::Ext4 | Self::Xfs | Self::Btrfs | Self::Swap => uuid.to_string(),
        }
    }

    fn check_label(self, label: &str) -> Result<()> {
        let longest = self.longest_label();
        if label.len() <= longest {
            return Ok(());
        }
        Err(unsupported(
            format!("`{label}` is too long for the label of an {self}"),
            Some(&format!("it has room for {longest} bytes")),
        ))
    }
}

/// The volume ID of a FAT.
fn volume_id(uuid: Uuid) -> u32 {
    let [a, b, c, d, ..] = *uuid.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Bytes, each file in whole blocks of 4096, and inodes of a tree: what another of its size takes beside it.
pub fn measure(tree: &Tree) -> Room {
    let mut seen = vec![false; tree.inode_count()];
    let mut room = Room { bytes: 0, inodes: 0 };
    for (_, id) in tree.walk() {
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        room.inodes = room.inodes.saturating_add(1);
        room.bytes += match &tree.inode(id).kind {
            Kind::File(content) => {
                let hashes = tree.verity(id).map_or(0, Verity::size);
                content.size.div_ceil(4096) * 4096 + hashes
            }
            Kind::Directory(_) => 4096,
            _ => 0,
        };
    }
    room
}

fn fit_ext4(tree: &Tree, room: Room, options: &VolumeOptions<'_>) -> Result<u64> {
    let wanted = ext4::Wanted {
        free_bytes: room.bytes,
        free_inodes: room.inodes,
        bytes_per_inode: BYTES_PER_INODE,
        hash_seed: options.hash_seed,
    };
    Ok(ext4::fit(tree, &wanted)?.size)
}

fn format_ext4(tree: &Tree, size: u64, options: &VolumeOptions<'_>) -> Result<(SparseMap, u64)> {
    let options = |inodes: u64| ext4::Options {
        size,
        uuid: options.uuid,
        label: options.label.to_owned(),
        hash_seed: options.hash_seed,
        inode_count: u32::try_from(inodes.max(size / BYTES_PER_INODE)).unwrap_or(u32::MAX),
        journal_blocks: ext4::default_journal_blocks(size),
        // Nobody but root writes to these file systems' roots before an administrator decides otherwise.
        reserved_percent: 0,
        time: 0,
    };
    // An inode for so many bytes, and in any case one for every inode of the tree and an upgrade of it. A size that somebody asked
    // for may have room for what is there, and not for so many: ten inodes besides the tree's are ext4's own.
    let inodes = u64::from(measure(tree).inodes);
    let layout = ext4::Layout::of(tree, &options(2 * inodes + 64))
        .or_else(|error| ext4::Layout::of(tree, &options(inodes + 10)).map_err(|_| error))?;
    let usage = layout.usage();
    Ok((layout.emit(tree), (usage.blocks - usage.free_blocks) * 4096))
}

fn fit_btrfs(filling: &Filling<'_>, room: Room, contents: &ContentStore) -> Result<u64> {
    let top = btrfs_top(filling);
    let prepared = btrfs::Prepared::of(&btrfs_volumes(filling, &top)?, contents)?;
    let metadata = 2 * BTRFS_BYTES_PER_INODE * u64::from(room.inodes);
    prepared.fit(&btrfs::Wanted {
        free_bytes: room.bytes + metadata + BTRFS_SPARE,
        duplicate: true,
        block_group_tree: false,
    })
}

fn format_btrfs(
    filling: &Filling<'_>,
    size: u64,
    options: &VolumeOptions<'_>,
    contents: &ContentStore,
) -> Result<(SparseMap, u64)> {
    let top = btrfs_top(filling);
    let prepared = btrfs::Prepared::of(&btrfs_volumes(filling, &top)?, contents)?;
    let btrfs::Formatted { map, usage } = prepared.format(&btrfs::Options {
        size,
        uuid: options.uuid,
        label: options.label.to_owned(),
        duplicate: true,
        // Older kernels than 6.1 cannot mount it, and the disk of a system has few block groups.
        block_group_tree: false,
        time: 0,
    })?;
    Ok((map, usage.data + usage.metadata))
}

/// What is at the top of a btrfs: the root, unless a subvolume has it, and the directories on the way to subvolumes.
fn btrfs_top<'a>(filling: &Filling<'a>) -> Cow<'a, Tree> {
    static NOTHING: OnceLock<Tree> = OnceLock::new();
    let mut top = Cow::Borrowed(match filling.subvolume {
        Some(_) => NOTHING.get_or_init(|| Tree::new(Metadata::root(0o755))),
        None => filling.root,
    });
    let further = filling.further.iter().map(|one| one.name);
    for (above, _) in
        filling.subvolume.into_iter().chain(further).filter_map(|name| name.rsplit_once('/'))
    {
        let mut at = Tree::ROOT;
        for name in components(above.as_bytes()) {
            at = match top.lookup(at, name) {
                Some(id) => id,
                None if top.inode(at).is_directory() => {
                    top.to_mut().create(at, name, Metadata::root(0o755), Kind::directory())
                }
                // What is in the way is not a directory; btrfs refuses the name.
                None => break,
            };
        }
    }
    top
}

fn btrfs_volumes<'a>(filling: &Filling<'a>, top: &'a Tree) -> Result<btrfs::Volumes<'a>> {
    let subvolume = |name, tree, compression: Option<&str>| -> Result<btrfs::Subvolume<'a>> {
        let parsed = compression.map(|how| how.parse::<btrfs::Compression>()).transpose();
        let compression = parsed.map_err(|reason| unsupported(reason, None))?;
        Ok(btrfs::Subvolume { name, tree, compression })
    };
    let mut below = Vec::new();
    let of_top = match filling.subvolume {
        Some(name) => {
            below.push(subvolume(name, filling.root, filling.compression)?);
            None
        }
        None => filling.compression,
    };
    for Subvolume { name, tree, compression } in &filling.further {
        below.push(subvolume(name, tree, *compression)?);
    }
    let top = subvolume("", top, of_top)?;
    Ok(btrfs::Volumes { top, below, default: filling.subvolume.map(|_| 0) })
}

/// As many groups as mkfs makes, unless the file system gets more of them soon.
const fn groups(options: &VolumeOptions<'_>) -> xfs::Groups {
    if options.grows { xfs::Groups::Two } else { xfs::Groups::Four }
}

fn fit_xfs(tree: &Tree, room: Room, options: &VolumeOptions<'_>) -> Result<u64> {
    let wanted = xfs::Wanted {
        free_bytes: (room.bytes > 0).then_some(room.bytes),
        free_inodes: room.inodes,
        sector_size: options.sector_size,
        profile: options.xfs_profile,
        groups: groups(options),
    };
    xfs::fit(tree, &wanted)
}

fn format_xfs(tree: &Tree, size: u64, options: &VolumeOptions<'_>) -> Result<(SparseMap, u64)> {
    let options = xfs::Options {
        size,
        uuid: options.uuid,
        label: options.label.to_owned(),
        sector_size: options.sector_size,
        profile: options.xfs_profile,
        groups: groups(options),
        time: 0,
    };
    let layout = xfs::Layout::of(tree, &options)?;
    let usage = layout.usage();
    Ok((layout.emit(tree), (usage.blocks - usage.free_blocks) * 4096))
}

fn format_fat(
    tree: &Tree,
    size: u64,
    options: &VolumeOptions<'_>,
    contents: &ContentStore,
) -> Result<(SparseMap, u64)> {
    let options = fat::Options {
        size,
        sector_size: u32::try_from(options.sector_size)?,
        volume_id: volume_id(options.uuid),
        // What mkfs.fat writes where there is none, and readers show as none.
        label: if options.label.is_empty() { "NO NAME" } else { options.label },
    };
    let map = fat::format(tree, contents, &options)?;
    let used = map.allocated();
    Ok((map, used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;

    const OPTIONS: VolumeOptions<'_> = VolumeOptions {
        uuid: Uuid::from_u128(0x0102_0304_0506_4708_8910_1112_1314_1516),
        label: "x",
        hash_seed: Uuid::from_u128(1),
        sector_size: 512,
        grows: false,
        xfs_profile: XfsProfile::Lts612,
    };

    #[test]
    fn volume_has_the_size_that_fit_tells_and_names_itself() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut tree = Tree::new(Metadata::root(0o755));
        tree.put("EFI/x", contents.insert_bytes(&[1; 5000]).unwrap());
        let filling = Filling::of(&tree);
        for kind in FileSystem::ALL {
            let room = Room { bytes: 40 << 20, inodes: 8 };
            let size =
                kind.fit(&filling, room, &OPTIONS, &contents).unwrap().next_multiple_of(1 << 20);
            let volume = kind.format(&filling, size, &OPTIONS, &contents).unwrap();
            assert_eq!((volume.map.size(), volume.kind), (size, kind));
            assert!(volume.used <= size, "{kind}");
            let expected = match kind {
                FileSystem::Vfat => "0403-0201".to_owned(),
                _ => OPTIONS.uuid.to_string(),
            };
            assert_eq!(volume.uuid, expected);
        }
    }

    /// Sizes follow from inodes, too: what is sized can be formatted, also where a block group of ext4 is just full.
    #[test]
    fn many_small_files_fit_the_size_that_they_are_given() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        for count in [0, 16_000, 32_650, 117_000, 119_760, 120_000] {
            let mut tree = Tree::new(Metadata::root(0o755));
            for number in 0..count {
                tree.put(&format!("{}/{number}", number / 500), Content::EMPTY);
            }
            let filling = Filling::of(&tree);
            // Nothing more, what a volume for data gets, and an upgrade as the default size of a root has it.
            for inodes in [0, 64, measure(&tree).inodes + 64] {
                let room = Room { bytes: 0, inodes };
                let size = FileSystem::Ext4.fit(&filling, room, &OPTIONS, &contents).unwrap();
                let size = size.next_multiple_of(1 << 20);
                let made = FileSystem::Ext4.format(&filling, size, &OPTIONS, &contents);
                assert!(made.is_ok(), "{count} files, {inodes} free: {:#}", made.unwrap_err());
            }
        }
    }

    #[test]
    fn fat_without_label_is_made() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let tree = Tree::new(Metadata::root(0o755));
        let options = VolumeOptions { label: "", ..OPTIONS };
        FileSystem::Vfat.format(&Filling::of(&tree), 64 << 20, &options, &contents).unwrap();
    }

    #[test]
    fn label_too_long_is_refused_by_every_kind() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let tree = Tree::new(Metadata::root(0o755));
        for kind in FileSystem::ALL {
            let label = "l".repeat(kind.longest_label() + 1);
            let options = VolumeOptions { label: &label, ..OPTIONS };
            let error = kind.format(&Filling::of(&tree), 64 << 20, &options, &contents);
            assert!(error.unwrap_err().is::<crate::error::Unsupported>(), "{kind}");
        }
    }
}
