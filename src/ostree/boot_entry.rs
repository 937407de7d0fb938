//! The kernel in `/boot`, and the boot entry (Boot Loader Specification, Type #1) that names it.
//!
//! ```text
//! title NAME (ostree:0)
//! version 1
//! options root=UUID=… rw … ostree=/ostree/boot.1/default/BOOTCSUM/0
//! devicetree …                              only when there is one for all boards
//! linux /boot/ostree/default-BOOTCSUM/vmlinuz-VERSION
//! initrd /boot/ostree/default-BOOTCSUM/initramfs-VERSION.img
//! fdtdir …                                  only when there is a directory of them
//! ```

use std::fmt::Write;

use anyhow::{Context, Result};

use super::Checksum;
use super::sysroot::without_time;
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};
use crate::installed::KernelFiles;
use crate::sha256::Sha256;
use crate::tree::{InodeId, Kind, Metadata, Tree, Xattrs};

/// Where kernels live in a commit.
const MODULES: &str = "usr/lib/modules";

/// Which kernel of the image is to boot.
#[derive(Clone, Copy, Debug)]
pub struct KernelSource<'a> {
    /// The directory under `usr/lib/modules`.
    pub version: &'a str,
    /// The initramfs beside `vmlinuz`.
    pub initramfs: Option<&'a str>,
}

/// What boards need to know about their hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceTree {
    /// One file for all.
    File(InodeId),
    /// A directory, from which the boot loader picks.
    Directory(InodeId),
}

/// The files of a kernel in a commit's tree, and their checksum.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    version: String,
    linux: InodeId,
    initramfs: Option<InodeId>,
    hmac: Option<InodeId>,
    device_tree: Option<DeviceTree>,
    /// SHA-256 over kernel, initramfs and device trees: the same kernel is not installed twice.
    pub(super) bootcsum: Checksum,
}

impl Kernel {
    /// Finds the files and computes their checksum.
    pub(super) fn find(
        commit: &Tree,
        source: KernelSource<'_>,
        contents: &ContentStore,
    ) -> Result<Self> {
        let path = format!("{MODULES}/{}", source.version);
        let directory = commit
            .find(&path)
            .ok_or_else(|| unsupported(format!("the image has no /{path}"), None))?;
        let file = |name: &str| {
            let id = commit.lookup(directory, name.as_bytes())?;
            matches!(commit.inode(id).kind, Kind::File(_)).then_some(id)
        };
        let needed = |name: &str| {
            file(name).ok_or_else(|| unsupported(format!("the image has no /{path}/{name}"), None))
        };
        if file("aboot.img").is_some() {
            return Err(unsupported(
                format!("/{path}/aboot.img: Android boot images"),
                Some("leave it out of the image; UEFI and BIOS machines do not read it"),
            ));
        }
        let device_tree = file("devicetree").map(DeviceTree::File).or_else(|| {
            let id = commit.lookup(directory, b"dtb")?;
            commit.inode(id).is_directory().then_some(DeviceTree::Directory(id))
        });
        let linux = needed("vmlinuz")?;
        let initramfs = source.initramfs.map(needed).transpose()?;
        let mut hash = Sha256::new();
        for id in std::iter::once(linux).chain(initramfs) {
            feed(commit, id, contents, &mut hash)?;
        }
        match device_tree {
            Some(DeviceTree::File(id)) => feed(commit, id, contents, &mut hash)?,
            Some(DeviceTree::Directory(id)) => feed_directory(commit, id, contents, &mut hash)?,
            None => {}
        }
        let bootcsum = Checksum(hash.finish());
        let version = source.version.to_owned();
        Ok(Self { version, linux, initramfs, hmac: file(".vmlinuz.hmac"), device_tree, bootcsum })
    }

    /// Puts the files into `directory` of `boot`. `place` names an inode of the commit there: a link where it can be one.
    pub(super) fn install(
        &self,
        commit: &Tree,
        boot: &mut Tree,
        directory: InodeId,
        mut place: impl FnMut(&mut Tree, InodeId, &str, InodeId),
    ) {
        let version = &self.version;
        place(boot, directory, &format!("vmlinuz-{version}"), self.linux);
        if let Some(id) = self.initramfs {
            place(boot, directory, &format!("initramfs-{version}.img"), id);
        }
        if let Some(id) = self.hmac {
            place(boot, directory, &format!(".vmlinuz-{version}.hmac"), id);
        }
        match self.device_tree {
            Some(DeviceTree::File(id)) => {
                place(boot, directory, &format!("devicetree-{version}"), id)
            }
            Some(DeviceTree::Directory(id)) => copy_bare(commit, id, boot, directory, b"dtb"),
            None => {}
        }
    }

    /// Where the files of this kernel are, as a boot entry names them.
    fn prefix(&self, stateroot: &str) -> String {
        format!("/boot/ostree/{stateroot}-{}", self.bootcsum)
    }

    /// The kernel as others see it.
    pub(super) fn files(&self, commit: &Tree) -> KernelFiles {
        let content = |id| match &commit.inode(id).kind {
            Kind::File(content) => content.clone(),
            other => unreachable!("{other:?} was found as a file"),
        };
        KernelFiles {
            version: self.version.clone(),
            linux: content(self.linux),
            initramfs: self.initramfs.map(content),
        }
    }

    /// The whole command line: `ostree=` comes last and only once; without an initramfs the kernel starts prepare-root itself.
    pub(super) fn command_line(&self, arguments: &[String], stateroot: &str) -> Result<String> {
        let own = format!("/ostree/boot.1/{stateroot}/{}/0", self.bootcsum);
        let mut line = String::new();
        for argument in arguments {
            if argument.contains(['\n', '\r', '\0']) {
                return Err(corrupt(
                    format!("kernel argument {argument:?}"),
                    "it is not of one line",
                ));
            }
            if argument != "ostree" && !argument.starts_with("ostree=") {
                line.push_str(argument);
                line.push(' ');
            }
        }
        if self.initramfs.is_none() {
            write!(line, "init={own}/usr/lib/ostree/ostree-prepare-root ")?;
        }
        write!(line, "ostree={own}")?;
        Ok(line)
    }

    /// The boot entry.
    pub(super) fn entry(&self, title: &str, command_line: &str, stateroot: &str) -> Result<String> {
        if title.contains(['\n', '\r', '\0']) {
            return Err(corrupt(format!("title {title:?}"), "it is not of one line"));
        }
        let prefix = self.prefix(stateroot);
        let version = &self.version;
        let mut text = format!("title {title} (ostree:0)\nversion 1\noptions {command_line}\n");
        if let Some(DeviceTree::File(_)) = self.device_tree {
            writeln!(text, "devicetree {prefix}/devicetree-{version}")?;
        }
        writeln!(text, "linux {prefix}/vmlinuz-{version}")?;
        if self.initramfs.is_some() {
            writeln!(text, "initrd {prefix}/initramfs-{version}.img")?;
        }
        if let Some(DeviceTree::Directory(_)) = self.device_tree {
            writeln!(text, "fdtdir {prefix}/dtb")?;
        }
        Ok(text)
    }
}

fn feed(commit: &Tree, id: InodeId, contents: &ContentStore, hash: &mut Sha256) -> Result<()> {
    let Kind::File(content) = &commit.inode(id).kind else {
        return Err(unsupported("a kernel's device tree directory holds what is not a file", None));
    };
    feed_content(content, contents, hash).context("hashing a kernel")
}

fn feed_content(content: &Content, contents: &ContentStore, hash: &mut Sha256) -> Result<()> {
    let mut reader = contents.reader(content);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match std::io::Read::read(&mut reader, &mut buffer)? {
            0 => return Ok(()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Feeds the files of a directory, each directory's names in bytewise order, subdirectories at their place, no names.
fn feed_directory(
    commit: &Tree,
    id: InodeId,
    contents: &ContentStore,
    hash: &mut Sha256,
) -> Result<()> {
    for (_, id) in commit.walk_from(id).skip(1) {
        if !commit.inode(id).is_directory() {
            feed(commit, id, contents, hash)?;
        }
    }
    Ok(())
}

/// Copies a directory without extended attributes, as ostree does with device trees.
fn copy_bare(commit: &Tree, from: InodeId, tree: &mut Tree, into: InodeId, name: &[u8]) {
    let bare = |id: InodeId| {
        let metadata = &commit.inode(id).metadata;
        Metadata { xattrs: Xattrs::NONE, ..without_time(metadata) }
    };
    let mut stack = vec![(from, tree.create(into, name, bare(from), Kind::directory()))];
    while let Some((from, into)) = stack.pop() {
        for (name, id) in commit.inode(from).children() {
            match &commit.inode(id).kind {
                Kind::Directory(_) => {
                    stack.push((id, tree.create(into, name, bare(id), Kind::directory())));
                }
                other => {
                    tree.create(into, name, bare(id), other.clone());
                }
            }
        }
    }
}
