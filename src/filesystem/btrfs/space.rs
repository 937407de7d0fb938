//! Chunks: stretches of logical addresses, and where they lie on the device.
//!
//! ```text
//! device   |1 MiB|system|system|metadata|metadata|data|data|…|  unallocated  |      metadata twice: DUP
//! logical  |1 MiB|system|metadata|data|data|…
//! ```
//!
//! What no chunk covers is what the kernel makes chunks of; a balance needs some of it.

use std::ops::Range;

use super::on_disk::{FIRST_PLACE, SECTOR, SUPER_PLACES, SUPER_ROOM, group};

const MIB: u64 = 1 << 20;

/// A stretch of logical addresses.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// What it is for, and how often it is there: `group`.
    pub(super) kind: u64,
    pub(super) logical: u64,
    pub(super) length: u64,
    /// Where the copies begin on the device; one or two.
    pub(super) stripes: Vec<u64>,
    /// Logical ranges that hold something, ascending, neighbours joined.
    pub(super) taken: Vec<Range<u64>>,
    /// Logical ranges that may still be taken, the last first.
    left: Vec<Range<u64>>,
}

impl Chunk {
    fn new(kind: u64, logical: u64, length: u64, stripes: Vec<u64>) -> Self {
        let mut left = Vec::new();
        let mut position = 0;
        // A copy of the superblock that lies in any of the stripes makes a hole in all of them.
        let mut holes: Vec<Range<u64>> = stripes
            .iter()
            .flat_map(|stripe| {
                SUPER_PLACES.iter().filter_map(move |place| {
                    let start = place.max(stripe) - stripe;
                    let end = (place + SUPER_ROOM).checked_sub(*stripe)?.min(length);
                    (start < end).then_some(start..end)
                })
            })
            .collect();
        holes.sort_unstable_by_key(|hole| hole.start);
        for hole in holes {
            if hole.start > position {
                left.push(logical + position..logical + hole.start);
            }
            position = position.max(hole.end);
        }
        if position < length {
            left.push(logical + position..logical + length);
        }
        left.reverse();
        Self { kind, logical, length, stripes, taken: Vec::new(), left }
    }

    /// Bytes that hold something, one copy counted.
    pub(super) fn used(&self) -> u64 {
        self.taken.iter().map(|range| range.end - range.start).sum()
    }

    /// Where on the device a logical address of it lies.
    pub(super) fn places(&self, logical: u64) -> impl Iterator<Item = u64> {
        self.stripes.iter().map(move |stripe| stripe + (logical - self.logical))
    }

    /// Logical ranges that hold nothing; those that the superblock's copies keep free among them.
    pub(super) fn free(&self) -> Vec<Range<u64>> {
        let mut free = Vec::new();
        let mut position = self.logical;
        for range in &self.taken {
            if range.start > position {
                free.push(position..range.start);
            }
            position = range.end;
        }
        let end = self.logical + self.length;
        if position < end {
            free.push(position..end);
        }
        free
    }

    /// Takes at most `most` bytes, in units of at least `unit`. `None`: there is no such room.
    fn take(&mut self, most: u64, unit: u64) -> Option<Range<u64>> {
        loop {
            let room = self.left.last_mut()?;
            let length = most.min((room.end - room.start) / unit * unit);
            if length == 0 {
                self.left.pop();
                continue;
            }
            let got = room.start..room.start + length;
            room.start = got.end;
            match self.taken.last_mut() {
                Some(last) if last.end == got.start => last.end = got.end,
                _ => self.taken.push(got.clone()),
            }
            return Some(got);
        }
    }
}

/// What was lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// The device ends too early, by so many bytes at least.
    Device(u64),
    /// There is too little room for metadata: try again with more.
    Metadata,
}

/// The device while it is filled.
#[derive(Clone, Debug)]
pub(super) struct Space {
    /// Bytes of the device.
    pub(super) size: u64,
    /// In the order of their addresses, logical and physical: system, metadata, data.
    pub(super) chunks: Vec<Chunk>,
    copies: u64,
    logical: u64,
    physical: u64,
}

impl Space {
    /// A device with chunks for so many bytes of metadata, in one copy or two.
    pub(super) fn new(size: u64, metadata: u64, copies: u64) -> Result<Self, Lacking> {
        let mut space =
            Self { size, chunks: Vec::new(), copies, logical: FIRST_PLACE, physical: FIRST_PLACE };
        // mkfs.btrfs makes 8 MiB, which is enough for the chunks of a petabyte.
        space.add(group::SYSTEM, (size / 128 / MIB * MIB).clamp(MIB, 8 * MIB))?;
        // mkfs.btrfs and the kernel make 256 MiB of devices below 50 GiB; of small ones that would leave nothing.
        let least = (size / 32 / MIB * MIB).clamp(16 * MIB, 256 * MIB);
        let mut left = metadata;
        while left > 0 {
            let length = left.next_multiple_of(16 * MIB).max(least).min(1 << 30);
            space.add(group::METADATA, length)?;
            left = left.saturating_sub(length);
        }
        Ok(space)
    }

    /// Bytes of the device that no chunk covers.
    pub(super) fn unallocated(&self) -> u64 {
        self.size.saturating_sub(self.physical)
    }

    fn add(&mut self, kind: u64, length: u64) -> Result<(), Lacking> {
        let copies = if kind == group::DATA { 1 } else { self.copies };
        let missing = (length * copies).saturating_sub(self.unallocated());
        if missing > 0 {
            return Err(Lacking::Device(missing));
        }
        let stripes = (0..copies).map(|copy| self.physical + copy * length).collect();
        let kind = if copies > 1 { kind | group::DUP } else { kind };
        self.chunks.push(Chunk::new(kind, self.logical, length, stripes));
        self.logical += length;
        self.physical += length * copies;
        Ok(())
    }

    /// Takes sectors for data, at most `most` bytes; all of them at once if they may not be parted. Makes chunks as they are
    /// needed.
    pub(super) fn take_data(&mut self, most: u64, whole: bool) -> Result<Range<u64>, Lacking> {
        let unit = if whole { most } else { SECTOR };
        loop {
            if let Some(last) = self.chunks.last_mut().filter(|chunk| chunk.kind == group::DATA)
                && let Some(got) = last.take(most, unit)
            {
                return Ok(got);
            }
            // A tenth of the device, as the kernel does it.
            let wanted = (self.size / 10 / MIB * MIB).clamp(8 * MIB, 1 << 30);
            let length = wanted.min(self.unallocated() / MIB * MIB);
            if length == 0 {
                return Err(Lacking::Device(most.max(MIB)));
            }
            self.add(group::DATA, length)?;
        }
    }

    /// Takes room for one block of a tree; of the chunk tree from the system's chunk.
    pub(super) fn take_block(&mut self, system: bool) -> Result<u64, Lacking> {
        let unit = super::on_disk::NODE;
        let kind = if system { group::SYSTEM } else { group::METADATA };
        self.chunks
            .iter_mut()
            .filter(|chunk| chunk.kind & kind != 0)
            .find_map(|chunk| chunk.take(unit, unit))
            .map(|range| range.start)
            .ok_or(Lacking::Metadata)
    }

    /// The chunk that a logical address is in.
    pub(super) fn chunk_of(&self, logical: u64) -> &Chunk {
        let index = self.chunks.partition_point(|chunk| chunk.logical <= logical);
        &self.chunks[index - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_where_the_superblock_has_its_copies() {
        let mut space = Space::new(300 << 30, 64 * MIB, 2).unwrap();
        while let Ok(range) = space.take_data(1 << 30, false) {
            for place in space.chunk_of(range.start).places(range.start) {
                let end = place + (range.end - range.start);
                for copy in SUPER_PLACES {
                    assert!(end <= copy || place >= copy + SUPER_ROOM, "{place:#x}..{end:#x}");
                }
            }
        }
        while let Ok(block) = space.take_block(false) {
            for place in space.chunk_of(block).places(block) {
                let end = place + super::super::on_disk::NODE;
                assert!(end <= 64 * MIB || place >= 64 * MIB + SUPER_ROOM, "{place:#x}");
            }
        }
    }

    #[test]
    fn free_is_what_is_not_taken() {
        let mut space = Space::new(1 << 30, 16 * MIB, 1).unwrap();
        let got = space.take_data(10_000_000 / SECTOR * SECTOR, false).unwrap();
        let chunk = space.chunk_of(got.start);
        let free: u64 = chunk.free().iter().map(|range| range.end - range.start).sum();
        assert_eq!(free + chunk.used(), chunk.length);
        assert_eq!(chunk.free().len(), 1);
    }
}
