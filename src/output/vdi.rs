//! VDI, VirtualBox's format, growing: a table says for each MiB of the disk where it is in the file.
//!
//! ```text
//! 0        512           next MiB
//! | header | block map | | blocks of 1 MiB in the disk's order … |
//! ```
//!
//! Numbers are little-endian. Field names are those of VirtualBox's own header, version 1.1.

use std::ops::Range;

use anyhow::Result;
use uuid::Uuid;

use super::sink::Sink;
use super::stretches::{Disk, count};

const BLOCK: u64 = 1 << 20;
const HEADER: u64 = 512;

/// In the block map: the block is not there and reads as zero.
const FREE: u32 = u32::MAX;

/// Where everything lies.
pub(super) struct Layout {
    size: u64,
    runs: Vec<Range<u64>>,
    /// UUIDs of the creation and of the last change.
    uuids: [Uuid; 2],
}

impl Layout {
    pub(super) fn of(disk: Disk<'_>, uuids: [Uuid; 2]) -> Result<Self> {
        Ok(Self { size: disk.size(), runs: disk.filled(BLOCK)?, uuids })
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }

    fn data(&self) -> u64 {
        (HEADER + 4 * self.blocks()).next_multiple_of(BLOCK)
    }

    pub(super) fn file_size(&self) -> u64 {
        self.data() + count(&self.runs) * BLOCK
    }

    pub(super) fn write(&self, disk: Disk<'_>, sink: &mut dyn Sink) -> Result<()> {
        sink.write(&self.header())?;
        sink.zeros_until(HEADER)?;
        let mut map = vec![FREE; self.blocks() as usize];
        for (block, place) in self.runs.iter().flat_map(Range::clone).zip(0..) {
            map[block as usize] = place;
        }
        sink.write(&map.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
        sink.zeros_until(self.data())?;
        for run in &self.runs {
            disk.copy(run.start * BLOCK..run.end * BLOCK, sink)?;
        }
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(b"<<< Oracle VM VirtualBox Disk Image >>>\n");
        header.resize(64, 0);
        let mut u32 = |value: u32| header.extend(value.to_le_bytes());
        u32(0xbeda_107f); // signature
        u32(0x0001_0001); // version
        u32(400); // cbHeader: from here to the end of the logical geometry
        u32(1); // u32Type: growing
        u32(0); // fFlags
        header.extend([0; 256]); // szComment
        let mut u32 = |value: u32| header.extend(value.to_le_bytes());
        u32(HEADER as u32); // offBlocks
        u32(self.data() as u32); // offData
        [0, 0, 0, 512].into_iter().for_each(&mut u32); // LegacyGeometry: cylinders, heads, sectors, bytes of a sector
        u32(0); // u32Dummy
        header.extend(self.size.to_le_bytes()); // cbDisk
        let mut u32 = |value: u32| header.extend(value.to_le_bytes());
        u32(BLOCK as u32); // cbBlock
        u32(0); // cbBlockExtra
        u32(self.blocks() as u32); // cBlocks
        u32(count(&self.runs) as u32); // cBlocksAllocated
        for uuid in self.uuids {
            header.extend(uuid.to_bytes_le()); // uuidCreate, uuidModify
        }
        header.extend([0; 32]); // uuidLinkage, uuidParentModify: there is no parent
        // LCHSGeometry: what a BIOS is told; zeros let VirtualBox decide.
        [0, 0, 0, 512_u32].into_iter().for_each(|value| header.extend(value.to_le_bytes()));
        header
    }
}
