//! Items in leaves, under nodes. Items come in the order of their keys; the same calls count blocks and write them.
//!
//! ```text
//! level 1    |header|key, place|key, place| …                 493 at most
//! level 0    |header|item|item|item| …  free  … |data|data|data|
//! ```

use anyhow::{Result, ensure};
use zerocopy::IntoBytes;

use super::on_disk::{
    GENERATION, HEADER_FLAGS, Header, Item, Key, KeyPointer, NODE_BYTES, POINTERS, ROOM, seal,
};
use crate::error::unsupported;

/// What all blocks have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) fsid: [u8; 16],
    pub(super) chunk_tree: [u8; 16],
}

/// Where blocks go, one after the other in the order of their places.
pub(super) type Put<'a> = dyn FnMut(u64, &[u8]) -> Result<()> + 'a;

/// Takes the items of one tree.
pub(super) struct Leaves<'a> {
    /// Leaves that are begun; at least one.
    count: u64,
    room: usize,
    last: Option<Key>,
    writing: Option<Writing<'a>>,
}

struct Writing<'a> {
    stamp: Stamp,
    owner: u64,
    /// Addresses of the leaves, then of the nodes of each level.
    places: &'a [u64],
    put: &'a mut Put<'a>,
    leaf: Vec<u8>,
    items: usize,
    /// Where the data of the last item begin, from the end of the header on.
    data: usize,
    /// Key and place of finished leaves.
    done: Vec<(Key, u64)>,
    first: Key,
}

impl<'a> Leaves<'a> {
    /// Counts only: what items say is not asked for.
    pub(super) fn counting() -> Self {
        Self { count: 1, room: ROOM, last: None, writing: None }
    }

    /// Writes; `places` are those of as many blocks as were counted.
    pub(super) fn writing(
        stamp: Stamp,
        owner: u64,
        places: &'a [u64],
        put: &'a mut Put<'a>,
    ) -> Self {
        let writing = Writing {
            stamp,
            owner,
            places,
            put,
            leaf: vec![0; NODE_BYTES],
            items: 0,
            data: ROOM,
            done: Vec::new(),
            first: Key::default(),
        };
        Self { writing: Some(writing), ..Self::counting() }
    }

    /// Adds an item of `size` bytes, which `fill` is given as zeros. Fails if it is larger than a leaf.
    pub(super) fn item(
        &mut self,
        key: Key,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        assert!(self.last < Some(key), "{key:?} comes after {:?}", self.last);
        self.last = Some(key);
        let needs = size_of::<Item>() + size;
        if needs > ROOM {
            return Err(unsupported(
                format!("an item of {size} bytes is larger than a leaf of btrfs: {key:?}"),
                Some("many names in one directory have the same hash: rename some of them"),
            ));
        }
        if needs > self.room {
            if let Some(writing) = &mut self.writing {
                writing.close()?;
            }
            self.count += 1;
            self.room = ROOM;
        }
        self.room -= needs;
        match &mut self.writing {
            Some(writing) => writing.item(key, size, fill),
            None => Ok(()),
        }
    }

    /// Blocks of each level, leaves first, when all items were counted.
    pub(super) fn levels(&self) -> Vec<u64> {
        let mut levels = vec![self.count];
        let mut count = self.count;
        while count > 1 {
            count = count.div_ceil(POINTERS as u64);
            levels.push(count);
        }
        levels
    }

    /// Writes the last leaf and the nodes.
    pub(super) fn finish(mut self) -> Result<()> {
        let levels = self.levels();
        let Some(mut writing) = self.writing.take() else { return Ok(()) };
        writing.close()?;
        ensure!(
            levels.iter().sum::<u64>() == writing.places.len() as u64,
            "a tree of btrfs has other blocks than were counted: {levels:?}"
        );
        let mut below = std::mem::take(&mut writing.done);
        let mut places = &writing.places[below.len()..];
        for level in 1..levels.len() {
            let mut here = Vec::new();
            for (pointers, &place) in below.chunks(POINTERS).zip(places) {
                writing.node(level as u8, place, pointers)?;
                here.push((pointers[0].0, place));
            }
            places = &places[here.len()..];
            below = here;
        }
        Ok(())
    }
}

impl Writing<'_> {
    fn item(
        &mut self,
        key: Key,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if self.items == 0 {
            self.first = key;
        }
        self.data -= size;
        let start = size_of::<Header>();
        let (offset, size32) = (self.data as u32, size as u32);
        let item = Item { key: key.into(), offset: offset.into(), size: size32.into() };
        let at = start + self.items * size_of::<Item>();
        self.leaf[at..at + size_of::<Item>()].copy_from_slice(item.as_bytes());
        self.items += 1;
        fill(&mut self.leaf[start + self.data..start + self.data + size])
    }

    fn close(&mut self) -> Result<()> {
        let place = self.places.get(self.done.len()).copied();
        let place = place.expect("as many leaves as were counted");
        let header = self.header(place, self.items, 0);
        self.leaf[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        seal(&mut self.leaf);
        (self.put)(place, &self.leaf)?;
        self.done.push((self.first, place));
        self.leaf.fill(0);
        (self.items, self.data) = (0, ROOM);
        Ok(())
    }

    fn node(&mut self, level: u8, place: u64, pointers: &[(Key, u64)]) -> Result<()> {
        let mut block = vec![0; NODE_BYTES];
        let header = self.header(place, pointers.len(), level);
        let (start, rest) = block.split_at_mut(size_of::<Header>());
        start.copy_from_slice(header.as_bytes());
        for (slot, (key, place)) in rest.chunks_exact_mut(size_of::<KeyPointer>()).zip(pointers) {
            let pointer = KeyPointer {
                key: (*key).into(),
                blockptr: (*place).into(),
                generation: GENERATION.into(),
            };
            slot.copy_from_slice(pointer.as_bytes());
        }
        seal(&mut block);
        (self.put)(place, &block)
    }

    fn header(&self, place: u64, items: usize, level: u8) -> Header {
        Header {
            csum: [0; 32],
            fsid: self.stamp.fsid,
            bytenr: place.into(),
            flags: HEADER_FLAGS.into(),
            chunk_tree_uuid: self.stamp.chunk_tree,
            generation: GENERATION.into(),
            owner: self.owner.into(),
            nritems: (items as u32).into(),
            level,
        }
    }
}
