//! The pages of an sqlite file, those in its write-ahead log included ("Database File Format", sections 1.3 and 4).
//!
//! ```text
//! rpmdb.sqlite       | header (100 bytes) page 1 | page 2 | …
//! rpmdb.sqlite-wal   | header (32 bytes) | frame: header (24 bytes), page | frame | …     the last commit counts
//! ```

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::Stored;

const MAGIC: &[u8] = b"SQLite format 3\0";
/// Bytes of a database; that of all of Fedora's packages has 1 GB.
const LARGEST: u64 = 8 << 30;
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// First word of a log; the lowest bit says that checksums are over big-endian words.
const WAL_MAGIC: u32 = 0x377f_0682;

/// An sqlite file.
pub(super) struct Pages<'a> {
    database: Stored<'a>,
    log: Option<(Stored<'a>, HashMap<u32, u64>)>,
    /// Bytes of a page.
    pub(super) size: usize,
    /// Bytes of a page that b-trees use.
    pub(super) usable: usize,
    /// How many there are.
    pub(super) count: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

impl<'a> Pages<'a> {
    /// Opens a database; `log`: its write-ahead log, if it has one.
    pub(super) fn open(database: Stored<'a>, log: Option<Stored<'a>>) -> Result<Self> {
        let mut header = [0; 100];
        ensure!(database.read(0, &mut header)?, "the file is shorter than its header");
        ensure!(header.starts_with(MAGIC), "it does not begin like an sqlite file");
        let size = match u16_at(&header, 16) {
            1 => 65536,
            size => usize::from(size),
        };
        ensure!(size >= 512 && size.is_power_of_two(), "pages of {size} bytes do not exist");
        let usable = size - usize::from(header[20]);
        ensure!(usable >= 480, "pages reserve more bytes than they may");
        ensure!(u32_at(&header, 56) <= 1, "text that is not UTF-8 is not read");
        ensure!(
            database.size() <= LARGEST,
            "it has {} bytes; the limit is {LARGEST}",
            database.size()
        );
        let count = u32::try_from(database.size() / size as u64).unwrap_or(u32::MAX);
        let mut pages = Self { database, log: None, size, usable, count };
        if let Some(log) = log {
            let frames = pages.frames(&log)?;
            pages.count = frames.keys().copied().max().unwrap_or(0).max(pages.count);
            pages.log = Some((log, frames));
        }
        Ok(pages)
    }

    /// For each page of a log the offset of its newest committed copy.
    fn frames(&self, log: &Stored<'_>) -> Result<HashMap<u32, u64>> {
        let mut committed = HashMap::new();
        let mut header = [0; WAL_HEADER as usize];
        if !log.read(0, &mut header)? {
            return Ok(committed);
        }
        let magic = u32_at(&header, 0);
        if magic & !1 != WAL_MAGIC || u32_at(&header, 8) as usize != self.size {
            return Ok(committed);
        }
        let big = magic & 1 == 1;
        let mut sum = checksum((0, 0), &header[..24], big);
        if sum != (u32_at(&header, 24), u32_at(&header, 28)) {
            return Ok(committed);
        }
        let mut pending = Vec::new();
        let mut frame = vec![0; FRAME_HEADER as usize + self.size];
        let mut offset = WAL_HEADER;
        // What does not continue the sums is what an older log has left behind.
        while log.read(offset, &mut frame)? && frame[8..16] == header[16..24] {
            sum = checksum(sum, &frame[..8], big);
            sum = checksum(sum, &frame[FRAME_HEADER as usize..], big);
            if sum != (u32_at(&frame, 16), u32_at(&frame, 20)) {
                break;
            }
            pending.push((u32_at(&frame, 0), offset + FRAME_HEADER));
            if u32_at(&frame, 4) != 0 {
                committed.extend(pending.drain(..));
            }
            offset += frame.len() as u64;
        }
        Ok(committed)
    }

    /// A page, counted from 1.
    pub(super) fn page(&self, number: u32) -> Result<Vec<u8>> {
        let mut page = vec![0; self.size];
        let read = match &self.log {
            Some((log, frames)) if frames.contains_key(&number) => {
                log.read(frames[&number], &mut page)?
            }
            _ => {
                let index = number.checked_sub(1).map(u64::from);
                let offset = index.and_then(|index| index.checked_mul(self.size as u64));
                match offset {
                    Some(offset) => self.database.read(offset, &mut page)?,
                    None => false,
                }
            }
        };
        ensure!(read, "page {number} lies outside of the file");
        Ok(page)
    }
}

/// The running checksum of a log over bytes, a multiple of 8.
fn checksum((mut a, mut b): (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    let word =
        |bytes: [u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    for pair in bytes.as_chunks::<8>().0 {
        let [x0, x1, x2, x3, y0, y1, y2, y3] = *pair;
        a = a.wrapping_add(word([x0, x1, x2, x3])).wrapping_add(b);
        b = b.wrapping_add(word([y0, y1, y2, y3])).wrapping_add(a);
    }
    (a, b)
}
