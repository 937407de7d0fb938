//! What the file systems of Linux have in common: the types in directory entries, and what an inode may be.

use anyhow::{Result, ensure};

use crate::error::{corrupt, unsupported};
use crate::tree::{Inode, InodeId, Kind, Tree};

/// The type of a directory in the entry that names it: `FT_DIR`.
pub(super) const TYPE_DIRECTORY: u8 = 2;

/// The largest device number, major and minor, that Linux has (`MINORBITS` of `include/linux/kdev_t.h`).
pub(super) const DEVICE: (u32, u32) = (0xfff, 0xf_ffff);

/// The type of an inode in the entries that name it. ext4, XFS and btrfs share the numbers: `FT_*` of `include/linux/fs_types.h`.
pub(super) fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => TYPE_DIRECTORY,
        Kind::CharacterDevice(..) => 3,
        Kind::BlockDevice(..) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// The largest inodes of a file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What it is called in errors.
    pub(super) name: &'static str,
    /// Bytes of a file.
    pub(super) file: u64,
    /// Bytes of a symbolic link's target.
    pub(super) target: usize,
    /// Major and minor number of a device.
    pub(super) device: (u32, u32),
    /// Which other file system holds what this one cannot, as a hint.
    pub(super) way_out: Option<&'static str>,
}

impl Limits {
    /// Fails if the file system cannot hold such an inode: with `Corrupt` what none can, with `Unsupported` what is too large.
    pub(super) fn check(&self, inode: &Inode) -> Result<()> {
        let name = self.name;
        match &inode.kind {
            Kind::File(content) if content.size > self.file => {
                let (size, most) = (content.size, self.file);
                return Err(unsupported(
                    format!("the file has {size} bytes, and {name} allows {most}"),
                    self.way_out,
                ));
            }
            Kind::Symlink(target) => {
                ensure!(
                    !target.is_empty() && !target.contains(&0),
                    corrupt("the symbolic link", "its target is empty or contains a zero byte")
                );
                let (length, most) = (target.len(), self.target);
                if length > most {
                    return Err(unsupported(
                        format!(
                            "the symbolic link's target has {length} bytes, and {name} allows {most}"
                        ),
                        self.way_out,
                    ));
                }
            }
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor)
                if *major > self.device.0 || *minor > self.device.1 =>
            {
                let (majors, minors) = self.device;
                return Err(unsupported(
                    format!(
                        "the device number {major}:{minor} is too large for {name}: the limits are {majors} and {minors}"
                    ),
                    self.way_out,
                ));
            }
            _ => {}
        }
        if inode.metadata.immutable && !matches!(inode.kind, Kind::File(_) | Kind::Directory(_)) {
            return Err(unsupported(
                format!("only files and directories can be immutable on {name}"),
                None,
            ));
        }
        Ok(())
    }
}

/// A path of an inode, for errors; slow.
pub(super) fn path(tree: &Tree, id: InodeId) -> String {
    let found = tree.walk().find(|(_, other)| *other == id);
    let path = found.map(|(path, _)| path).unwrap_or_default();
    format!("/{}", path.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::error::{Corrupt, Unsupported};
    use crate::tree::Metadata;

    #[test]
    fn what_is_too_large_is_refused_and_what_is_just_as_large_is_not() {
        let limits =
            Limits { name: "ext5", file: 100, target: 10, device: (2, 3), way_out: Some("xfs") };
        let check = |kind| limits.check(&Inode { metadata: Metadata::root(0o644), kind });
        let file = |size| Kind::File(Content { size, ..Content::EMPTY });
        let link = |length: usize| Kind::Symlink(vec![b'a'; length].into());
        for kind in [file(100), link(10), Kind::BlockDevice(2, 3), Kind::Fifo] {
            check(kind).unwrap();
        }
        for kind in [file(101), link(11), Kind::BlockDevice(3, 0), Kind::CharacterDevice(0, 4)] {
            let error = check(kind).unwrap_err();
            assert!(error.is::<Unsupported>() && error.to_string().contains("ext5"), "{error}");
        }
        for target in [&b""[..], b"a\0b"] {
            assert!(check(Kind::Symlink(target.into())).unwrap_err().is::<Corrupt>());
        }
        let metadata = Metadata { immutable: true, ..Metadata::root(0o644) };
        assert!(limits.check(&Inode { metadata, kind: Kind::Fifo }).is_err());
    }
}
