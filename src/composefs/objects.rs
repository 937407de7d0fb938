//! The objects of a repository: contents, each under its SHA-512 fs-verity digest.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::{FsVerity, ObjectId};
use crate::content::{Content, ContentId, ContentStore};
use crate::error::corrupt;
use crate::tree::Verity;

/// Objects, and which content is which.
pub(super) struct Objects<'a> {
    fs_verity: &'a FsVerity<'a>,
    contents: &'a ContentStore,
    by_id: BTreeMap<ObjectId, (Content, Verity)>,
    by_content: HashMap<(ContentId, u64), ObjectId>,
}

impl<'a> Objects<'a> {
    /// None yet.
    pub(super) fn new(fs_verity: &'a FsVerity<'a>, contents: &'a ContentStore) -> Self {
        Self { fs_verity, contents, by_id: BTreeMap::new(), by_content: HashMap::new() }
    }

    /// Adds many contents, with all cores.
    pub(super) fn add_all(&mut self, contents: &[Content]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some(content) = contents.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((content, (self.fs_verity)(content, self.contents)));
            }
            done
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let results: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|w| w.join().expect("hashing does not panic")).collect()
        });
        for (content, verity) in results {
            self.insert(content, verity.context("hashing for fs-verity")?)?;
        }
        Ok(())
    }

    /// Adds a content.
    pub(super) fn add(&mut self, content: &Content) -> Result<ObjectId> {
        let verity = (self.fs_verity)(content, self.contents).context("hashing for fs-verity")?;
        self.insert(content, verity)
    }

    /// Adds bytes.
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) -> Result<ObjectId> {
        let content = self.contents.insert_bytes(bytes).context("writing to the spool")?;
        self.add(&content)
    }

    fn insert(&mut self, content: &Content, verity: Verity) -> Result<ObjectId> {
        let id = verity.digest.as_ref().try_into().map(ObjectId);
        let id = id.map_err(|_| corrupt("a digest", "it has not 64 bytes"))?;
        self.by_content.insert((content.id, content.size), id);
        // Of equal contents the first in the spool is kept; which one that is shows nowhere.
        self.by_id.entry(id).or_insert_with(|| (content.clone(), verity));
        Ok(id)
    }

    /// The object of a content that was added.
    pub(super) fn id(&self, content: &Content) -> Option<ObjectId> {
        self.by_content.get(&(content.id, content.size)).copied()
    }

    /// All objects, in the order of their names.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (ObjectId, Content, Verity)> {
        self.by_id.into_iter().map(|(id, (content, verity))| (id, content, verity))
    }
}
