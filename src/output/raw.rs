//! Raw disks: byte for byte, with holes.

use std::ops::Range;

use anyhow::{Context, Result};

use super::sink::{BUFFER, Sink};
use crate::content::ContentStore;
use crate::sparse::SparseMap;

/// The stretches of the map that are not holes.
pub(super) struct Layout {
    size: u64,
    runs: Vec<Range<u64>>,
}

impl Layout {
    pub(super) fn of(map: &SparseMap) -> Self {
        Self { size: map.size(), runs: runs(map, 4096) }
    }

    pub(super) fn file_size(&self) -> u64 {
        self.size
    }

    pub(super) fn write(
        &self,
        map: &SparseMap,
        contents: &ContentStore,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        for run in &self.runs {
            sink.zeros(run.start - sink.position())?;
            copy(map, contents, run.clone(), sink)?;
        }
        sink.zeros(self.size - sink.position())
    }
}

/// The stretches that segments touch, widened to multiples of `unit` (but not behind the end), neighbours joined.
pub(super) fn runs(map: &SparseMap, unit: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (&offset, source) in map.segments() {
        let start = offset / unit * unit;
        let end = (offset + source.len()).next_multiple_of(unit).min(map.size());
        match runs.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => runs.push(start..end),
        }
    }
    runs
}

/// Appends a stretch of the map.
pub(super) fn copy(
    map: &SparseMap,
    contents: &ContentStore,
    stretch: Range<u64>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let mut offset = stretch.start;
    while offset < stretch.end {
        let len = (stretch.end - offset).min(BUFFER as u64) as usize;
        sink.fill(len, |buffer| {
            map.read_at(contents, offset, buffer).context("reading the spool")
        })?;
        offset += len as u64;
    }
    Ok(())
}
