//! A tree as real files in a directory, for tools that read nothing else.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bootpress::content::ContentStore;
use bootpress::tree::{InodeId, Kind, Tree};
use support::tool::tool;

/// Writes what is below `from` (a path in the tree) into the existing directory `to`, with modes, hard links and extended
/// attributes; owners only as root. Panics when something does not work: this is for tests.
pub(crate) fn write(tree: &Tree, from: &str, contents: &ContentStore, to: &Path) {
    let root = nix::unistd::geteuid().is_root();
    let mut written: HashMap<InodeId, PathBuf> = HashMap::new();
    let mut attributes = String::new();
    let mut modes = Vec::new();
    for (path, id) in tree.walk_from(tree.find(from).expect("it is there")) {
        let inode = tree.inode(id);
        let file = to.join(std::ffi::OsStr::from_bytes(&path));
        match &inode.kind {
            Kind::Directory(_) if path.is_empty() => {}
            Kind::Directory(_) => fs::create_dir(&file).unwrap(),
            _ if written.contains_key(&id) => {
                fs::hard_link(&written[&id], &file).unwrap();
                continue;
            }
            Kind::File(content) => {
                let mut out = fs::File::create_new(&file).unwrap();
                io::copy(&mut contents.reader(content), &mut out).unwrap();
            }
            Kind::Symlink(target) => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &file).unwrap();
            }
            other => panic!("{other:?} has no place in this test"),
        }
        written.insert(id, file.clone());
        let metadata = &inode.metadata;
        if root {
            std::os::unix::fs::lchown(&file, Some(metadata.uid), Some(metadata.gid)).unwrap();
        }
        if !metadata.xattrs.is_empty() {
            writeln!(attributes, "# file: {}", quoted(file.as_os_str().as_bytes())).unwrap();
            for (name, value) in metadata.xattrs.iter() {
                write!(attributes, "{}=0x", quoted(name)).unwrap();
                value.iter().for_each(|byte| write!(attributes, "{byte:02x}").unwrap());
                attributes.push('\n');
            }
            attributes.push('\n');
        }
        if !matches!(inode.kind, Kind::Symlink(_)) {
            modes.push((file, metadata.mode));
        }
    }
    if !attributes.is_empty() {
        restore(&attributes);
    }
    // Last, and children first: owners and attributes change modes, and a mode may lock us out.
    for (file, mode) in modes.into_iter().rev() {
        fs::set_permissions(file, fs::Permissions::from_mode(u32::from(mode))).unwrap();
    }
}

/// Sets all extended attributes with one `setfattr`.
fn restore(attributes: &str) {
    let mut command = tool("setfattr").expect("setfattr is needed for extended attributes");
    let mut child = command
        .args(["-h", "--restore=-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(attributes.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "setfattr does not take\n{attributes}");
}

fn quoted(name: &[u8]) -> String {
    let mut quoted = String::new();
    for &byte in name {
        match byte {
            b'\\' | b'=' | 0..=0x20 | 0x7f.. => write!(quoted, "\\{byte:03o}").unwrap(),
            _ => quoted.push(char::from(byte)),
        }
    }
    quoted
}
