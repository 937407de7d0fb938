//! An installed system, before anything knows about partitions: what a backend (ostree) makes of an image.

use crate::content::Content;
use crate::tree::Tree;

/// An installed system.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What the root file system holds.
    pub root: Tree,
    /// What the file system of `/boot` holds, when it has one; then `boot` in `root` is an empty mount point.
    pub boot: Option<Tree>,
    /// What the system adds to the ESP, beside the boot loader: boot entries, unified kernel images.
    pub esp: Tree,
    /// Bytes that the ESP has at least if nobody says how large it shall be; 0: the preset's.
    pub esp_least: u64,
    /// File systems of their own besides those, in the order in which they were asked for.
    pub volumes: Vec<MountedTree>,
    /// What the configuration wrote, by path in the running system.
    pub written: Vec<String>,
    /// What updates know the deployed version by; of ostree the checksum of the commit, in hexadecimal.
    pub version: String,
    /// The kernel that boots it.
    pub kernel: KernelFiles,
    /// The whole kernel command line, as the boot entry has it.
    pub command_line: String,
    /// The directory of the system's own root, relative to the root: `ostree/deploy/default/deploy/COMMIT.0`.
    pub deployment: String,
    /// The directory of the running system's `/var`, relative to the root: `ostree/deploy/default/var`.
    pub var: String,
}

/// What a file system holds that is mounted in the running system.
#[derive(Clone, Debug)]
pub struct MountedTree {
    /// Where it is mounted.
    pub path: String,
    /// What it holds.
    pub tree: Tree,
}

/// The files that boot a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFiles {
    /// `7.2.12-1.fc44.x86_64`.
    pub version: String,
    /// The kernel.
    pub linux: Content,
    /// The initramfs, if there is one.
    pub initramfs: Option<Content>,
}

/// A directory of the running system, in the tree that holds it.
#[derive(Debug)]
pub struct Place<'a> {
    /// The tree: that of the root, or of a volume.
    pub tree: &'a mut Tree,
    /// The directory's path in that tree, without leading `/`.
    pub path: String,
}

impl Installed {
    /// Finds a directory below `/var` of the running system, which may be on a volume.
    pub fn place(&mut self, path: &str) -> Place<'_> {
        let below = |mount: &str| {
            path.strip_prefix(mount).filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let inside = self.volumes.iter().enumerate().filter(|(_, one)| below(&one.path).is_some());
        let innermost = inside.max_by_key(|(_, one)| one.path.len()).map(|(index, _)| index);
        match innermost {
            Some(index) => {
                let MountedTree { path: mount, tree } = &mut self.volumes[index];
                let path = path[mount.len()..].trim_start_matches('/').to_owned();
                Place { tree, path }
            }
            None => {
                let rest = path.strip_prefix("/var").unwrap_or(path);
                Place { path: format!("{}{rest}", self.var), tree: &mut self.root }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    #[test]
    fn directory_is_found_in_the_innermost_volume() {
        let tree = || Tree::new(Metadata::root(0o755));
        let volume = |path: &str| MountedTree { path: path.to_owned(), tree: tree() };
        let mut installed = Installed {
            root: tree(),
            boot: None,
            esp: tree(),
            esp_least: 0,
            volumes: vec![volume("/var/lib"), volume("/var/lib/containers")],
            written: Vec::new(),
            version: String::new(),
            kernel: KernelFiles { version: String::new(), linux: Content::EMPTY, initramfs: None },
            command_line: String::new(),
            deployment: String::new(),
            var: "ostree/deploy/default/var".to_owned(),
        };
        let mut path = |asked: &str| installed.place(asked).path;
        assert_eq!(path("/var/lib/containers/storage"), "storage");
        assert_eq!(path("/var/lib/x"), "x");
        assert_eq!(path("/var/lib"), "");
        assert_eq!(path("/var/library/x"), "ostree/deploy/default/var/library/x");
    }
}
