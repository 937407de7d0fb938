//! Raw disks: byte for byte, with holes.

use std::ops::Range;

use anyhow::Result;

use super::sink::Sink;
use super::stretches::Disk;

/// The stretches of the disk that are not holes.
pub(super) struct Layout {
    size: u64,
    runs: Vec<Range<u64>>,
}

impl Layout {
    pub(super) fn of(disk: Disk<'_>) -> Self {
        Self { size: disk.size(), runs: disk.touched(4096) }
    }

    pub(super) fn file_size(&self) -> u64 {
        self.size
    }

    pub(super) fn write(&self, disk: Disk<'_>, sink: &mut dyn Sink) -> Result<()> {
        for run in &self.runs {
            sink.zeros_until(run.start)?;
            disk.copy(run.clone(), sink)?;
        }
        sink.zeros_until(self.size)
    }
}
