//! Which parts of a disk a file has to hold, copied or compressed piece by piece.

use std::ops::Range;

use anyhow::{Context, Result};

use super::pool::Pool;
use super::sink::{BUFFER, Sink, is_zero};
use crate::content::ContentStore;
use crate::sparse::SparseMap;

/// Bytes that are looked at first to find out whether a piece is zero.
const PROBE: u64 = 4096;

/// A disk: a map, and the store that its contents are in.
#[derive(Clone, Copy)]
pub(super) struct Disk<'a> {
    pub(super) map: &'a SparseMap,
    pub(super) contents: &'a ContentStore,
}

impl Disk<'_> {
    /// Bytes of it.
    pub(super) fn size(self) -> u64 {
        self.map.size()
    }

    /// The stretches that segments touch, in bytes, widened to multiples of `unit` (but not behind the end), neighbours
    /// joined.
    pub(super) fn touched(self, unit: u64) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (&offset, source) in self.map.segments() {
            let start = offset / unit * unit;
            let end = (offset + source.len()).next_multiple_of(unit).min(self.size());
            match runs.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => runs.push(start..end),
            }
        }
        runs
    }

    /// The pieces of `unit` bytes that are not zero, counted from the disk's beginning, neighbours joined. Where contents are
    /// mapped they are looked at, for files full of zeros: nearly always the first bytes tell.
    pub(super) fn filled(self, unit: u64) -> Result<Vec<Range<u64>>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut buffer = vec![0; usize::try_from(unit)?];
        for run in self.touched(unit) {
            for piece in run.start / unit..run.end.div_ceil(unit) {
                if self.is_zero(piece * unit, &mut buffer)? {
                    continue;
                }
                match runs.last_mut() {
                    Some(last) if last.end == piece => last.end += 1,
                    _ => runs.push(piece..piece + 1),
                }
            }
        }
        Ok(runs)
    }

    fn is_zero(self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let (probe, rest) = buffer.split_at_mut(PROBE as usize);
        for (start, buffer) in [(offset, probe), (offset + PROBE, rest)] {
            self.read(start, buffer)?;
            if !is_zero(buffer) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills a buffer from an offset; what lies behind the end reads as zero.
    pub(super) fn read(self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.map.read_at(self.contents, offset, buffer).context("reading the spool")
    }

    /// Appends a stretch.
    pub(super) fn copy(self, stretch: Range<u64>, sink: &mut dyn Sink) -> Result<()> {
        let mut offset = stretch.start;
        while offset < stretch.end {
            let len = (stretch.end - offset).min(BUFFER as u64) as usize;
            sink.fill(len, &mut |buffer| self.read(offset, buffer))?;
            offset += len as u64;
        }
        Ok(())
    }

    /// Has `threads` workers make something of each piece of some runs of pieces; `take` gets it with the piece's number, in
    /// ascending order.
    pub(super) fn each_piece<T: Send, W: FnMut(&[u8]) -> Result<T>>(
        self,
        unit: u64,
        runs: &[Range<u64>],
        threads: usize,
        worker: impl Fn() -> W + Sync,
        take: &mut dyn FnMut(u64, T) -> Result<()>,
    ) -> Result<()> {
        // So many at a time that a job is worth handing over.
        let at_a_time = (BUFFER as u64 / unit).max(1);
        let worker = || {
            let (mut work, mut buffer) = (worker(), Vec::new());
            move |pieces: Range<u64>| -> Result<(u64, Vec<T>)> {
                buffer.resize(((pieces.end - pieces.start) * unit) as usize, 0);
                self.read(pieces.start * unit, &mut buffer)?;
                let done: Result<Vec<T>> = buffer.chunks(unit as usize).map(&mut work).collect();
                Ok((pieces.start, done?))
            }
        };
        let mut take_all = |done: Result<(u64, Vec<T>)>| {
            let (first, done) = done?;
            (first..).zip(done).try_for_each(|(piece, done)| take(piece, done))
        };
        Pool::run(threads, worker, |pool| {
            for run in runs {
                let mut next = run.start;
                while next < run.end {
                    let end = (next + at_a_time).min(run.end);
                    if let Some(done) = pool.push(next..end)? {
                        take_all(done)?;
                    }
                    next = end;
                }
            }
            while let Some(done) = pool.take()? {
                take_all(done)?;
            }
            Ok(())
        })
    }
}

/// How many pieces there are in some runs.
pub(super) fn count(runs: &[Range<u64>]) -> u64 {
    runs.iter().map(|run| run.end - run.start).sum()
}
