//! fs-verity of a repository: which files get it, and whether a base commit is signed.
//!
//! When the image wants its root verified, libostree would give fs-verity to every content object that it writes, and bootc to
//! the repository's configuration, by which it knows that all objects have it.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::gvariant::{self, Member};
use super::object::MetadataKind;
use super::{FsVerity, ObjectInodes, Union};
use crate::content::{Content, ContentStore};
use crate::tree::{InodeId, Kind, Tree, Verity};

/// Where the initramfs looks for signatures in a commit's detached metadata.
const SIGNATURES: &str = "ostree.sign.ed25519";

impl Union {
    /// Whether the image carries an ostree commit with signatures. Whether they are good is for who has the key: the initramfs.
    pub fn is_signed(&self) -> bool {
        let Some(base) = &self.base else { return false };
        let detached = base.metadata.get(&(base.commit, MetadataKind::CommitMeta));
        detached.and_then(|bytes| has_signatures(bytes)).unwrap_or(false)
    }
}

/// Looks into an `a{sv}`; `None` if it is none.
fn has_signatures(bytes: &[u8]) -> Option<bool> {
    let mut found = false;
    for entry in gvariant::items(bytes, 8)? {
        let pair = gvariant::members(entry, &[Member::Variable(1), Member::Variable(8)])?;
        // A variant ends with a zero and its type. An array without elements has no bytes.
        let signatures = pair[1].strip_suffix(b"\0aay").is_some_and(|array| !array.is_empty());
        found |= gvariant::text(pair[0])? == SIGNATURES && signatures;
    }
    Some(found)
}

/// Gives fs-verity to all objects that are regular files and to the repository's configuration, with all cores.
pub(super) fn seal(
    root: &mut Tree,
    objects: &ObjectInodes,
    fs_verity: &FsVerity<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let config = root.find("ostree/repo/config");
    let mut ids: Vec<InodeId> = objects.values().copied().chain(config).collect();
    ids.sort_unstable();
    let files: Vec<(InodeId, &Content)> = ids
        .into_iter()
        .filter_map(|id| match &root.inode(id).kind {
            Kind::File(content) => Some((id, content)),
            _ => None,
        })
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some((id, content)) = files.get(index)
        {
            done.push((*id, fs_verity(content, contents)));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let results: Vec<(InodeId, Result<Verity>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("hashing does not panic")).collect()
    });
    for (id, verity) in results {
        root.set_verity(id, verity.context("hashing for fs-verity")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ostree::gvariant::Tuple;

    fn dictionary(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let entry =
            |(key, value): &(&str, &[u8])| Tuple::new().string(key.as_bytes()).last(value, 8);
        gvariant::array(entries.iter().map(entry), 8)
    }

    #[test]
    fn signatures_are_looked_for_not_at() {
        let one = [&gvariant::array([vec![7; 64]], 1)[..], b"\0aay"].concat();
        let other = ("ostree-ext.cached.manifest", &b"{}\0\0s"[..]);
        for (entries, expected) in [
            (&[][..], false),
            (&[other], false),
            (&[(SIGNATURES, &b"\0aay"[..])], false),
            (&[(SIGNATURES, b"no\0\0s")], false),
            (&[(SIGNATURES, &one)], true),
            (&[other, (SIGNATURES, &one)], true),
        ] {
            assert_eq!(has_signatures(&dictionary(entries)), Some(expected), "{entries:?}");
        }
        assert_eq!(has_signatures(b"\xff\xfe nonsense"), None);
    }
}
