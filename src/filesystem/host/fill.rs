//! A tree copied into a directory: names, hard links, contents with their holes, owners, modes, extended attributes, times.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, Timespec, Timestamps, XattrFlags, ioctl_getflags,
    ioctl_setflags, lsetxattr, makedev, mknodat, utimensat,
};

use crate::content::{Content, ContentStore};
use crate::tree::{Inode, InodeId, Kind, Tree};

/// Fills a directory that is there, and becomes the root.
pub(super) fn fill(tree: &Tree, contents: &ContentStore, root: &Path) -> Result<()> {
    let mut first_names: Vec<Option<PathBuf>> = vec![None; tree.inode_count()];
    let mut named = Vec::new();
    for (path, id) in tree.walk() {
        let place = root.join(OsStr::from_bytes(&path));
        let context = || format!("writing /{}", String::from_utf8_lossy(&path));
        match &first_names[id.index()] {
            Some(first) => fs::hard_link(first, &place).with_context(context)?,
            None => {
                let inode = tree.inode(id);
                if id != Tree::ROOT {
                    create(&inode.kind, contents, &place).with_context(context)?;
                }
                describe(inode, &place).with_context(context)?;
                named.push(id);
                first_names[id.index()] = Some(place);
            }
        }
    }
    // Children first: what is written into a directory changes its time, and nothing is written into an immutable one.
    for id in named.into_iter().rev() {
        let place = first_names[id.index()].as_deref().expect("it has a name");
        seal(tree, id, place).with_context(|| format!("finishing {}", place.display()))?;
    }
    Ok(())
}

fn create(kind: &Kind, contents: &ContentStore, place: &Path) -> Result<()> {
    let node = |kind, device| mknodat(CWD, place, kind, Mode::from_raw_mode(0o600), device);
    match kind {
        Kind::Directory(_) => fs::create_dir(place)?,
        Kind::File(content) => write(content, contents, place)?,
        Kind::Symlink(target) => symlink(OsStr::from_bytes(target), place)?,
        Kind::CharacterDevice(major, minor) => {
            node(FileType::CharacterDevice, makedev(*major, *minor))?;
        }
        Kind::BlockDevice(major, minor) => node(FileType::BlockDevice, makedev(*major, *minor))?,
        Kind::Fifo => node(FileType::Fifo, 0)?,
        Kind::Socket => node(FileType::Socket, 0)?,
    }
    Ok(())
}

fn write(content: &Content, contents: &ContentStore, place: &Path) -> Result<()> {
    let file = File::create_new(place)?;
    file.set_len(content.size)?;
    let mut buffer = Vec::new();
    for range in content.data_ranges() {
        let mut offset = range.start;
        while offset < range.end {
            buffer.resize((range.end - offset).min(1 << 20) as usize, 0);
            contents.read_exact_at(content.id, offset, &mut buffer).context("reading the spool")?;
            file.write_all_at(&buffer, offset)?;
            offset += buffer.len() as u64;
        }
    }
    Ok(())
}

/// In this order: a new owner takes away bits of the mode and capabilities.
fn describe(inode: &Inode, place: &Path) -> Result<()> {
    let metadata = &inode.metadata;
    lchown(place, Some(metadata.uid), Some(metadata.gid))?;
    if !matches!(inode.kind, Kind::Symlink(_)) {
        fs::set_permissions(place, fs::Permissions::from_mode(metadata.mode.into()))?;
    }
    for (name, value) in metadata.xattrs.iter() {
        lsetxattr(place, name, value, XattrFlags::empty())
            .with_context(|| format!("setting {}", String::from_utf8_lossy(name)))?;
    }
    Ok(())
}

fn seal(tree: &Tree, id: InodeId, place: &Path) -> Result<()> {
    let metadata = &tree.inode(id).metadata;
    let time = Timespec { tv_sec: metadata.mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    if metadata.immutable {
        let file = File::open(place)?;
        ioctl_setflags(&file, ioctl_getflags(&file)? | IFlags::IMMUTABLE)?;
    }
    Ok(())
}
