//! The tar archives that clouds take: ustar, and GNU's old form for a file with holes (GNU tar manual, "Basic Tar Format").
//!
//! ```text
//! | header, 4 stretches | 21 stretches | … | the stretches' bytes | … | 2 blocks of zeros, to 10 KiB |
//! ```

use std::ops::Range;

use anyhow::Result;

use super::sink::Sink;
use super::stretches::Disk;

/// Everything is padded to this.
pub(super) const BLOCK: u64 = 512;

/// Archives are padded to this, as tar does when nobody says otherwise.
const RECORD: u64 = 10240;

/// Stretches in a header, and in each block that continues it.
const IN_HEADER: usize = 4;
const IN_EXTENSION: usize = 21;

/// Data closer together than this is one stretch: holes save little there, and the list stays short.
const UNIT: u64 = 64 << 10;

/// Field names are those of GNU tar.
fn header(name: &str, size: u64, typeflag: u8, magic: &[u8; 8]) -> [u8; BLOCK as usize] {
    let mut header = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(99)]);
    put(100, b"0000644\0"); // mode
    put(108, b"0000000\0"); // uid
    put(116, b"0000000\0"); // gid
    put(124, &number(size));
    put(136, &number(0)); // mtime: no clock
    put(156, &[typeflag]);
    put(257, magic);
    header
}

/// 11 octal digits; what is larger than those can say, as a big-endian number with the top bit set.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    match value {
        0..0o100_000_000_000 => field[..11].copy_from_slice(format!("{value:011o}").as_bytes()),
        _ => {
            field[0] = 0x80;
            field[4..].copy_from_slice(&value.to_be_bytes());
        }
    }
    field
}

/// Puts the checksum in: the sum of all bytes, its own field counting as spaces.
fn sum(mut header: [u8; BLOCK as usize]) -> [u8; BLOCK as usize] {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// The header of a plain file.
pub(super) fn plain_header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    sum(header(name, size, b'0', b"ustar\x0000"))
}

/// Ends an archive.
pub(super) fn end(sink: &mut dyn Sink) -> Result<()> {
    sink.zeros_until((sink.position() + 2 * BLOCK).next_multiple_of(RECORD))
}

/// An archive with one file that is a disk, with its holes.
pub(super) struct Layout {
    name: &'static str,
    size: u64,
    runs: Vec<Range<u64>>,
}

impl Layout {
    pub(super) fn of(disk: Disk<'_>, name: &'static str) -> Self {
        Self { name, size: disk.size(), runs: disk.touched(UNIT) }
    }

    pub(super) fn file_size(&self) -> u64 {
        let content = self.headers().len() as u64 + self.archived().next_multiple_of(BLOCK);
        (content + 2 * BLOCK).next_multiple_of(RECORD)
    }

    pub(super) fn write(&self, disk: Disk<'_>, sink: &mut dyn Sink) -> Result<()> {
        sink.write(&self.headers())?;
        for run in &self.runs {
            disk.copy(run.clone(), sink)?;
        }
        sink.zeros_until(sink.position().next_multiple_of(BLOCK))?;
        end(sink)
    }

    fn archived(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    fn headers(&self) -> Vec<u8> {
        let mut stretches: Vec<[u8; 24]> = Vec::new();
        // The last one is empty and says where the file ends.
        for run in self.runs.iter().chain(std::iter::once(&(self.size..self.size))) {
            let mut stretch = [0; 24];
            stretch[..12].copy_from_slice(&number(run.start));
            stretch[12..].copy_from_slice(&number(run.end - run.start));
            stretches.push(stretch);
        }
        let (here, later) = stretches.split_at(stretches.len().min(IN_HEADER));
        let mut header = header(self.name, self.archived(), b'S', b"ustar  \0");
        for (stretch, place) in here.iter().zip(header[386..].chunks_exact_mut(24)) {
            place.copy_from_slice(stretch);
        }
        header[482] = u8::from(!later.is_empty()); // isextended
        header[483..495].copy_from_slice(&number(self.size)); // realsize
        let mut headers = sum(header).to_vec();
        let mut left = later.chunks(IN_EXTENSION).peekable();
        while let Some(some) = left.next() {
            let mut extension = [0; BLOCK as usize];
            for (stretch, place) in some.iter().zip(extension.chunks_exact_mut(24)) {
                place.copy_from_slice(stretch);
            }
            extension[504] = u8::from(left.peek().is_some()); // isextended
            headers.extend(extension);
        }
        headers
    }
}
