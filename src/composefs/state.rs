//! What a deployment may change: `/etc` and `/var`, and where it is from.

use std::collections::HashMap;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::content::ContentStore;
use crate::error::unsupported;
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// Keys that let root log in over ssh.
#[derive(Clone, Copy, Debug)]
pub struct RootSshKeys<'a> {
    /// Home of root without leading `/`, as systemd-tmpfiles shall find it.
    pub home: &'a str,
    /// The content of `authorized_keys`.
    pub keys: &'a [u8],
}

/// Copies a directory of one tree into another, with times, owners, attributes and hard links, as `cp -a` does.
pub(super) fn copy(
    source: &Tree,
    from: InodeId,
    tree: &mut Tree,
    into: InodeId,
    name: &[u8],
) -> InodeId {
    let made = tree.create(into, name, source.inode(from).metadata.clone(), Kind::directory());
    tree.set_nanoseconds(made, source.nanoseconds(from));
    let mut copies: HashMap<InodeId, InodeId> = HashMap::new();
    let mut stack = vec![(from, made)];
    while let Some((from, into)) = stack.pop() {
        for (name, id) in source.inode(from).children() {
            let inode = source.inode(id);
            if let Some(copy) = copies.get(&id) {
                tree.link(into, name, *copy);
                continue;
            }
            let directory = inode.is_directory();
            let kind = if directory { Kind::directory() } else { inode.kind.clone() };
            let copy = tree.create(into, name, inode.metadata.clone(), kind);
            tree.set_nanoseconds(copy, source.nanoseconds(id));
            if directory {
                stack.push((id, copy));
            } else {
                copies.insert(id, copy);
            }
        }
    }
    made
}

/// Writes a small file, 0644 root, replacing what had the name.
pub(super) fn write(
    tree: &mut Tree,
    directory: InodeId,
    name: &[u8],
    bytes: &[u8],
    contents: &ContentStore,
) -> Result<InodeId> {
    let content =
        contents.insert_bytes(bytes).with_context(|| format!("writing {}", name.escape_ascii()))?;
    Ok(tree.create(directory, name, Metadata::root(0o644), Kind::File(content)))
}

/// Lets systemd-tmpfiles write root's `authorized_keys` at each boot, as bootc does on its other backend; this one ignores the option.
/// What was made comes back, with its path in the running system.
pub(super) fn write_root_ssh_keys(
    tree: &mut Tree,
    etc: InodeId,
    keys: &RootSshKeys<'_>,
    contents: &ContentStore,
) -> Result<Vec<(String, InodeId)>> {
    let home = keys.home.trim_start_matches('/');
    if home.is_empty() || home.contains(|c: char| c.is_whitespace() || "\"'\\%".contains(c)) {
        let what = format!("the home of root is {home:?}, which tmpfiles.d cannot say");
        return Err(unsupported(what, None));
    }
    let mut made = Vec::new();
    let directory = match tree.lookup(etc, b"tmpfiles.d") {
        Some(id) if tree.inode(id).is_directory() => id,
        Some(_) => return Err(unsupported("the image's /etc/tmpfiles.d is not a directory", None)),
        None => {
            let id = tree.create(etc, b"tmpfiles.d", Metadata::root(0o755), Kind::directory());
            made.push(("/etc/tmpfiles.d".to_owned(), id));
            id
        }
    };
    let encoded = BASE64_STANDARD.encode(keys.keys);
    let line = format!("f~ /{home}/.ssh/authorized_keys 600 root root - {encoded}\n");
    let name = "bootc-root-ssh.conf";
    let file = write(tree, directory, name.as_bytes(), line.as_bytes(), contents)?;
    made.push((format!("/etc/tmpfiles.d/{name}"), file));
    Ok(made)
}

/// The `.origin` of a deployment, as bootc prints it.
pub(super) fn origin(reference: &str, boot_type: &str, digest: &str, manifest: &str) -> String {
    format!(
        "[origin]\ncontainer-image-reference = {reference}\n\n\
         [boot]\nboot_type = {boot_type}\ndigest = {digest}\n\n\
         [image]\nmanifest_digest = {manifest}\n"
    )
}
