//! A swap area: one page that says what it is, as mkswap writes it.
//!
//! ```text
//! 0x400  version 1, last page, bad pages: 0, UUID, label
//! 0xff6  SWAPSPACE2
//! ```

use uuid::Uuid;

use crate::sparse::SparseMap;

/// Bytes of a page, which is what the kernel counts in: 4096 on every machine that we make disks for.
const PAGE: u64 = 4096;

/// Pages below which the kernel refuses an area.
const FEWEST_PAGES: u64 = 10;

/// The least that a swap area can be.
pub const SMALLEST: u64 = FEWEST_PAGES * PAGE;

/// An empty swap area of `size` bytes, of which whole pages count. `label` has at most 15 bytes.
///
/// Panics if it is smaller than [`SMALLEST`].
pub fn format(size: u64, uuid: Uuid, label: &str) -> SparseMap {
    assert!(size >= SMALLEST, "{size} bytes are no swap area");
    let mut page = vec![0; PAGE as usize];
    // An area of more pages than the field can say is used as far as it can.
    let last = u32::try_from(size / PAGE - 1).unwrap_or(u32::MAX);
    page[0x400..0x404].copy_from_slice(&1_u32.to_le_bytes());
    page[0x404..0x408].copy_from_slice(&last.to_le_bytes());
    page[0x40c..0x41c].copy_from_slice(uuid.as_bytes());
    let label = &label.as_bytes()[..label.len().min(15)];
    page[0x41c..0x41c + label.len()].copy_from_slice(label);
    page[0xff6..].copy_from_slice(b"SWAPSPACE2");
    let mut map = SparseMap::new(size);
    map.put(0, page);
    map
}
