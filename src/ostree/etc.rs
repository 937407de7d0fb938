//! `/etc` of a deployment: a copy of the commit's `usr/etc`, and what an installation writes into it.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::labels::{Labeller, Style};
use super::sysroot::{copy_below, without_time, write_file};
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// Keys that let root log in over ssh.
#[derive(Clone, Copy, Debug)]
pub struct RootSshKeys<'a> {
    /// Home of root without leading `/`, as systemd-tmpfiles shall find it.
    pub home: &'a str,
    /// The content of `authorized_keys`.
    pub keys: &'a [u8],
}

/// Makes `etc` of a checkout from its `usr/etc`. Nothing in it is shared with the repository: administrators change it. An `etc`
/// of the commit's own becomes its `usr/etc` first, as ostree does.
pub(super) fn prepare(
    root: &mut Tree,
    deployment: InodeId,
    labeller: Labeller<'_>,
) -> Result<InodeId> {
    let etc = root.lookup(deployment, b"etc");
    let usr = root.lookup(deployment, b"usr").filter(|&usr| root.inode(usr).is_directory());
    let usr = usr.ok_or_else(|| unsupported("the image has no directory /usr", None))?;
    let populated = etc.is_some_and(|etc| {
        let inode = root.inode(etc);
        !inode.is_directory() || inode.children().next().is_some()
    });
    let usr_etc = match (root.lookup(usr, b"etc"), etc) {
        (Some(_), Some(_)) if populated => {
            return Err(unsupported(
                "the image has content in /etc and in /usr/etc",
                Some("ostree wants one of them; keep /etc"),
            ));
        }
        (Some(usr_etc), _) => usr_etc,
        (None, Some(etc)) => {
            root.unlink(deployment, b"etc");
            root.link(usr, b"etc", etc);
            etc
        }
        (None, None) => return Err(unsupported("the image has no /etc", None)),
    };
    if !root.inode(usr_etc).is_directory() {
        return Err(corrupt("/usr/etc", "it is not a directory"));
    }
    let source = root.inode(usr_etc).metadata.clone();
    let etc = root.create(deployment, b"etc", without_time(&source), Kind::directory());
    copy_below(root, usr_etc, etc);
    // systemd compares this stamp's time with /usr's; the copy must look untouched.
    root.unlink(etc, b".updated");
    labeller.set_below(root, etc, "/etc", Style::Ostree)?;
    Ok(etc)
}

/// Replaces `fstab` by one line that mounts `/boot` from `source` (`UUID=…`), as bootc does.
pub(super) fn write_fstab(
    root: &mut Tree,
    etc: InodeId,
    source: &str,
    labeller: Labeller<'_>,
    contents: &ContentStore,
) -> Result<()> {
    if source.is_empty() || source.contains(char::is_whitespace) {
        return Err(corrupt(format!("boot mount {source:?}"), "it is not a single word"));
    }
    let line = format!("{source} /boot auto ro 0 0\n");
    let fstab = write_file(root, etc, b"fstab", line.as_bytes(), contents)?;
    labeller.set(root, fstab, b"/etc/fstab", Style::Bootc)
}

/// Lets systemd-tmpfiles write root's `authorized_keys` at each boot, `/var` being empty at the first one.
pub(super) fn write_root_ssh_keys(
    root: &mut Tree,
    etc: InodeId,
    keys: &RootSshKeys<'_>,
    labeller: Labeller<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let home = keys.home.trim_start_matches('/');
    if home.is_empty() || home.contains(|c: char| c.is_whitespace() || "\"'\\%".contains(c)) {
        return Err(unsupported(
            format!("the home of root is {home:?}, which tmpfiles.d cannot say"),
            None,
        ));
    }
    let directory = match root.lookup(etc, b"tmpfiles.d") {
        Some(id) if root.inode(id).is_directory() => id,
        Some(_) => return Err(unsupported("the image's /etc/tmpfiles.d is not a directory", None)),
        None => {
            let id = root.create(etc, b"tmpfiles.d", Metadata::root(0o755), Kind::directory());
            labeller.set(root, id, b"/etc/tmpfiles.d", Style::Bootc)?;
            id
        }
    };
    let line = format!(
        "f~ /{home}/.ssh/authorized_keys 600 root root - {}\n",
        BASE64_STANDARD.encode(keys.keys)
    );
    let file = write_file(root, directory, b"bootc-root-ssh.conf", line.as_bytes(), contents)
        .context("writing root's ssh keys")?;
    labeller.set(root, file, b"/etc/tmpfiles.d/bootc-root-ssh.conf", Style::Bootc)
}
