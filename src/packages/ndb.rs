//! `Packages.db`: rpm's own database, which SUSE used first (lib/backend/ndb/rpmpkg.c).
//!
//! ```text
//! | header: RpmP, version, generation, pages of slots, next number | slots of 16 bytes: Slot, number, block, blocks | … | blobs |
//! blob   BlbS, number, generation, size │ header of a package │ checksum, size, BlbE        blocks have 16 bytes
//! ```
//!
//! All numbers are little-endian.

use anyhow::{Result, ensure};

use super::Stored;

const HEADER: u64 = 32;
const SLOT: u64 = 16;
const PAGE: u64 = 4096;
const BLOCK: u64 = 16;
const BLOB_HEADER: u64 = 16;

/// Pages of slots, more than for any number of packages that is read.
const MOST_PAGES: u32 = 16_384;

/// The largest header of a package.
const LARGEST: u64 = 64 << 20;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Calls `blob` for the header of each package, in the order of their numbers.
pub(super) fn blobs(file: &Stored<'_>, mut blob: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut header = [0; HEADER as usize];
    ensure!(
        file.read(0, &mut header)? && header.starts_with(b"RpmP"),
        "it does not begin like one"
    );
    ensure!(u32_at(&header, 4) == 0, "its version {} is not known", u32_at(&header, 4));
    let slot_pages = u32_at(&header, 12);
    ensure!(slot_pages <= MOST_PAGES, "it has {slot_pages} pages of slots");
    let mut slots = Vec::new();
    let mut at = HEADER;
    while at < u64::from(slot_pages) * PAGE {
        let mut slot = [0; SLOT as usize];
        ensure!(file.read(at, &mut slot)?, "its slots are cut short");
        ensure!(slot.starts_with(b"Slot"), "a slot does not begin like one");
        let (number, block) = (u32_at(&slot, 4), u32_at(&slot, 8));
        if number != 0 {
            slots.push((number, u64::from(block) * BLOCK));
        }
        at += SLOT;
    }
    slots.sort_unstable();
    for (number, at) in slots {
        let mut head = [0; BLOB_HEADER as usize];
        ensure!(
            file.read(at, &mut head)? && head.starts_with(b"BlbS") && u32_at(&head, 4) == number,
            "package {number} is not where its slot says"
        );
        let size = u64::from(u32_at(&head, 12));
        ensure!(size <= LARGEST, "package {number} has {size} bytes");
        let mut bytes = vec![0; usize::try_from(size)?];
        ensure!(file.read(at + BLOB_HEADER, &mut bytes)?, "package {number} is cut short");
        blob(&bytes)?;
    }
    Ok(())
}
