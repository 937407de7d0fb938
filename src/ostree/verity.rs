//! fs-verity of a repository: which files get it.
//!
//! When the image wants its root verified, libostree would give fs-verity to every content object that it writes, and bootc to
//! the repository's configuration, by which it knows that all objects have it.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::{FsVerity, ObjectInodes};
use crate::content::{Content, ContentStore};
use crate::tree::{InodeId, Kind, Tree, Verity};

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
