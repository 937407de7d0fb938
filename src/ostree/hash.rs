//! The checksums of content objects, computed by all cores; each distinct pair of content and metadata once.

use std::collections::HashMap;
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::Checksum;
use super::object;
use crate::content::{ContentId, ContentStore};
use crate::progress::{Progress, Stage};
use crate::tree::{Inode, Kind, Tree, Xattrs};

/// Content objects to hash, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    known: HashMap<Key, usize>,
    inodes: Vec<Inode>,
}

/// All that an object's name depends on, with the place of the content for its bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    st_mode: u32,
    uid: u32,
    gid: u32,
    xattrs: Xattrs,
    body: Body,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Body {
    File(ContentId, u64),
    Symlink(Box<[u8]>),
}

impl Jobs {
    /// Adds a regular file or symbolic link; returns its place among the results.
    pub(super) fn add(&mut self, inode: &Inode) -> usize {
        let body = match &inode.kind {
            Kind::File(content) => Body::File(content.id, content.size),
            Kind::Symlink(target) => Body::Symlink(target.clone()),
            other => panic!("{other:?} is not a content object"),
        };
        let metadata = &inode.metadata;
        let key = Key {
            st_mode: inode.st_mode(),
            uid: metadata.uid,
            gid: metadata.gid,
            xattrs: metadata.xattrs.clone(),
            body,
        };
        *self.known.entry(key).or_insert_with(|| {
            self.inodes.push(inode.clone());
            self.inodes.len() - 1
        })
    }

    /// Adds everything in a tree that is not a directory; returns the places by inode index.
    pub(super) fn add_tree(&mut self, tree: &Tree) -> Vec<Option<usize>> {
        let mut places = vec![None; tree.inode_count()];
        let mut stack = vec![Tree::ROOT];
        while let Some(directory) = stack.pop() {
            for (_, id) in tree.inode(directory).children() {
                let inode = tree.inode(id);
                if inode.is_directory() {
                    stack.push(id);
                } else {
                    places[id.index()] = Some(self.add(inode));
                }
            }
        }
        places
    }

    /// What was added, by place.
    pub(super) fn inodes(&self) -> &[Inode] {
        &self.inodes
    }

    /// Hashes everything. The order in which threads take jobs shows in nothing.
    pub(super) fn run(
        &self,
        contents: &ContentStore,
        progress: &Progress,
    ) -> Result<Vec<Checksum>> {
        let size =
            |inode: &Inode| if let Kind::File(content) = &inode.kind { content.size } else { 0 };
        let stage = progress.stage(Stage::Deploy, Some(self.inodes.iter().map(size).sum()));
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(inode) = self.inodes.get(index)
            {
                done.push((index, object::file_checksum(inode, contents, &|n| stage.advance(n))));
            }
            done
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let mut results: Vec<(usize, io::Result<Checksum>)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|w| w.join().expect("hashing does not panic")).collect()
        });
        contents.keep_sums();
        results.sort_unstable_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, checksum)| checksum.context("reading the spool")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::progress::Event;
    use crate::tree::Metadata;

    #[test]
    fn each_object_is_hashed_once_and_counted() {
        let store = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let content = store.insert_bytes(&[7; 1000]).unwrap();
        let inode =
            |mode| Inode { metadata: Metadata::root(mode), kind: Kind::File(content.clone()) };
        let mut jobs = Jobs::default();
        assert_eq!([0o644, 0o600, 0o644].map(|mode| jobs.add(&inode(mode))), [0, 1, 0]);
        let bytes = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&bytes);
        let progress = Progress::to(move |event| {
            if let Event::Advanced { bytes, .. } = event {
                *counted.lock().unwrap() += bytes;
            }
        });
        let checksums = jobs.run(&store, &progress).unwrap();
        assert_eq!(*bytes.lock().unwrap(), 2000);
        let alone = object::file_checksum(&inode(0o600), &store, &|_| {}).unwrap();
        assert_eq!(checksums[1], alone);
        assert_ne!(checksums[0], checksums[1]);
    }
}
