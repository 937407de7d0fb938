//! A tree as a directory of this machine, with owners, modes, times, extended attributes, devices and hard links, so that tools
//! that know only directories can judge it. Needs root. The immutable flag is left out: nobody could remove the directory.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bootpress::content::{Content, ContentStore};
use bootpress::tree::{Inode, InodeId, Kind, Tree};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use support::tool::tool;

/// Writes a tree below `directory`, which must exist and be empty. Does nothing and says so if `setfattr` is missing.
pub(crate) fn extract(tree: &Tree, contents: &ContentStore, directory: &Path) -> Option<()> {
    let mut setfattr = tool("setfattr")?;
    let mut first: HashMap<InodeId, PathBuf> = HashMap::new();
    let mut attributes = String::new();
    for (path, id) in tree.walk() {
        let inode = tree.inode(id);
        let place = directory.join(std::ffi::OsStr::from_bytes(&path));
        if let Some(other) = first.get(&id) {
            fs::hard_link(other, &place)
                .unwrap_or_else(|error| panic!("{}: {error}", place.display()));
            continue;
        }
        make(inode, contents, &place)
            .unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        if !inode.metadata.xattrs.is_empty() {
            writeln!(attributes, "# file: {}", quoted(place.as_os_str().as_bytes())).unwrap();
            for (name, value) in inode.metadata.xattrs.iter() {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(attributes, "{}=0x{hex}", quoted(name)).unwrap();
            }
            attributes.push('\n');
        }
        first.insert(id, place);
    }
    let mut child = setfattr.args(["-h", "--restore=-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(attributes.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "setfattr failed");
    // Whatever was put into a directory has changed its time.
    for (path, id) in tree.walk().filter(|(_, id)| tree.inode(*id).is_directory()) {
        set_time(&directory.join(std::ffi::OsStr::from_bytes(&path)), tree.inode(id)).unwrap();
    }
    Some(())
}

fn make(
    inode: &Inode,
    contents: &ContentStore,
    place: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let metadata = &inode.metadata;
    let node = |kind: SFlag, device: u64| mknod(place, kind, Mode::empty(), device);
    match &inode.kind {
        // The root is there already.
        Kind::Directory(_) => fs::create_dir_all(place)?,
        Kind::File(content) => write(content, contents, place)?,
        Kind::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), place)?,
        Kind::CharacterDevice(major, minor) => {
            node(SFlag::S_IFCHR, makedev((*major).into(), (*minor).into()))?
        }
        Kind::BlockDevice(major, minor) => {
            node(SFlag::S_IFBLK, makedev((*major).into(), (*minor).into()))?
        }
        Kind::Fifo => node(SFlag::S_IFIFO, 0)?,
        Kind::Socket => node(SFlag::S_IFSOCK, 0)?,
    }
    lchown(place, Some(metadata.uid), Some(metadata.gid))?;
    if !matches!(inode.kind, Kind::Symlink(_)) {
        fs::set_permissions(place, fs::Permissions::from_mode(metadata.mode.into()))?;
    }
    Ok(set_time(place, inode)?)
}

fn set_time(place: &Path, inode: &Inode) -> nix::Result<()> {
    let time = TimeSpec::new(inode.metadata.mtime, 0);
    utimensat(nix::fcntl::AT_FDCWD, place, &time, &time, UtimensatFlags::NoFollowSymlink)
}

fn write(
    content: &Content,
    contents: &ContentStore,
    place: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let file = File::create_new(place)?;
    file.set_len(content.size)?;
    for range in content.data_ranges() {
        let mut bytes = vec![0; usize::try_from(range.end - range.start)?];
        contents.read_exact_at(content.id, range.start, &mut bytes)?;
        file.write_all_at(&bytes, range.start)?;
    }
    Ok(())
}

/// setfattr's spelling of names: what is not plain becomes a backslash and three octal digits.
fn quoted(name: &[u8]) -> String {
    name.iter()
        .map(|&byte| match byte {
            b'!'..=b'~' if byte != b'\\' && byte != b'=' => char::from(byte).to_string(),
            _ => format!("\\{byte:03o}"),
        })
        .collect()
}
