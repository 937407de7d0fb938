//! Hands out blocks in ascending order, around the fixed metadata.
//!
//! What is used is therefore always "everything before the cursor", and what is free lies in one piece behind it: the best
//! place for what the running system writes. A file is split only where fixed metadata is in the way.

use std::ops::Range;

use anyhow::{Result, bail};

use super::geometry::Geometry;

/// The free blocks of a file system that is being laid out.
#[derive(Debug)]
pub(super) struct Allocator {
    gaps: Vec<Range<u64>>,
    /// Gaps before this one are full.
    gap: usize,
    taken: u64,
    /// More was asked for than there was; how much is counted on, so that one attempt tells the whole need.
    lacking: u64,
}

impl Allocator {
    /// All blocks but the fixed metadata.
    pub(super) fn new(geometry: &Geometry) -> Self {
        let mut gaps = Vec::new();
        let mut position = 0;
        for range in geometry.metadata() {
            gaps.push(position..range.start);
            position = range.end;
        }
        gaps.push(position..geometry.blocks);
        gaps.retain(|gap| !gap.is_empty());
        Self { gaps, gap: 0, taken: 0, lacking: 0 }
    }

    /// The next `count` blocks, in as few runs as the metadata allows. When they run out the rest is only counted.
    pub(super) fn take(&mut self, mut count: u64) -> Vec<Range<u64>> {
        let mut runs = Vec::with_capacity(1);
        while count > 0 {
            let Some(gap) = self.gaps.get_mut(self.gap) else {
                self.lacking += count;
                break;
            };
            let end = gap.end.min(gap.start.saturating_add(count));
            let run = gap.start..end;
            gap.start = end;
            if gap.is_empty() {
                self.gap += 1;
            }
            let length = run.end - run.start;
            self.taken += length;
            count -= length;
            runs.push(run);
        }
        runs
    }

    /// One block. When there is none left, a number that no file system has: `check` tells.
    pub(super) fn take_one(&mut self) -> u64 {
        self.take(1).first().map_or(u64::MAX, |run| run.start)
    }

    /// Blocks that were asked for and not there.
    pub(super) fn lacking(&self) -> u64 {
        self.lacking
    }

    /// Blocks left.
    pub(super) fn free(&self) -> u64 {
        self.gaps[self.gap..].iter().map(|gap| gap.end - gap.start).sum()
    }

    /// Fails if more was asked for than there was.
    pub(super) fn check(&self) -> Result<()> {
        if self.lacking > 0 {
            let (needs, has) = (self.taken + self.lacking, self.taken);
            bail!(
                "the content does not fit: it needs {needs} blocks of 4096 bytes, and there is room for {has}"
            );
        }
        Ok(())
    }

    /// All blocks that are not free: what was handed out, and the metadata. Ascending, neighbours joined.
    pub(super) fn used(&self, geometry: &Geometry) -> Vec<Range<u64>> {
        let mut used = Vec::new();
        let mut position = 0;
        for gap in &self.gaps[self.gap..] {
            used.push(position..gap.start);
            position = gap.end;
        }
        used.push(position..geometry.blocks);
        used.retain(|range| !range.is_empty());
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::of(300 << 20, 4096).unwrap()
    }

    #[test]
    fn what_is_used_and_what_is_free_is_everything() {
        let geometry = geometry();
        let metadata: u64 = geometry.metadata().iter().map(|range| range.end - range.start).sum();
        for count in [0, 1, 7, 30_000, 33_000, 70_000, 75_000] {
            let mut allocator = Allocator::new(&geometry);
            let runs = allocator.take(count);
            assert_eq!(runs.iter().map(|run| run.end - run.start).sum::<u64>(), count);
            assert_eq!(allocator.free() + metadata + count, geometry.blocks);
            let used = allocator.used(&geometry);
            let sum: u64 = used.iter().map(|range| range.end - range.start).sum();
            assert_eq!(sum, metadata + count);
            for run in runs {
                assert!(used.iter().any(|range| range.start <= run.start && run.end <= range.end));
            }
        }
    }

    #[test]
    fn the_whole_need_is_told() {
        let geometry = geometry();
        let mut allocator = Allocator::new(&geometry);
        let free = allocator.free();
        allocator.take(free + 5);
        allocator.take(2);
        assert_eq!(allocator.take_one(), u64::MAX);
        assert_eq!((allocator.lacking(), allocator.free()), (8, 0));
        let error = allocator.check().unwrap_err().to_string();
        assert!(error.contains(&format!("needs {} blocks", free + 8)), "{error}");
    }
}
