//! Files that are compressed as a whole, by several threads, to the same bytes whatever their number: what is inside is cut
//! into blocks that know nothing of each other.
//!
//! ```text
//! gz    header | block, ending at a byte's border | …      | empty last block | CRC-32, size        one member, one stream
//! xz    header | block | block | …                          | index | footer                          one stream
//! zst   frame | frame | …                                   | table of frames in a skippable frame    the seekable format
//! ```
//!
//! Sources: RFC 1952; the .xz file format 1.2.1; RFC 8878 and zstd's `seekable_format` 0.1.0.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use flate2::Crc;
use lzma_rust2::{XzOptions, XzWriter};

use super::deflate::{Deflate, Wrapping};
use super::format::Packing;
use super::pool::Pool;
use super::sink::{FileSink, Meter, Sink};
use crate::sha256::Sha256;

/// Levels of compression: those that the formats' own tools take when nobody names one.
const XZ_PRESET: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// Bytes of an xz stream's header and of its footer.
const XZ_EDGE: usize = 12;

impl Packing {
    /// Bytes of a block. Larger ones compress better, smaller ones keep more threads busy and need less memory. For xz it is
    /// twice the dictionary of its preset.
    const fn block(self) -> usize {
        match self {
            Self::Gz => 1 << 20,
            Self::Xz => 16 << 20,
            Self::Zst => 4 << 20,
        }
    }
}

/// What goes in, and its SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// Has `write` write a file that is compressed on its way to `out`.
pub(super) fn pack(
    packing: Packing,
    out: &mut FileSink<'_>,
    threads: usize,
    meter: Meter<'_>,
    write: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result<Inside> {
    let zeros = OnceLock::new();
    let worker = || {
        let mut codec = Codec::new(packing);
        let zeros = &zeros;
        move |block: Block| match block {
            Block::Data(bytes) => codec.as_mut().map_err(gone)?.pack(&bytes).map(Arc::new),
            Block::Zeros => match zeros.get() {
                Some(piece) => Ok(Arc::clone(piece)),
                None => {
                    let piece = codec.as_mut().map_err(gone)?.pack(&vec![0; packing.block()])?;
                    Ok(Arc::clone(zeros.get_or_init(|| Arc::new(piece))))
                }
            },
        }
    };
    Pool::run(threads, worker, |pool| {
        let joiner = Joiner { packing, out, records: Vec::new(), crc: Crc::new(), begun: false };
        let (block, position) = (Vec::with_capacity(packing.block()), 0);
        let sha256 = Sha256::new();
        let scratch = Vec::new();
        let mut packer = Packer { pool, joiner, block, position, sha256, meter, scratch };
        write(&mut packer)?;
        packer.finish()
    })
}

fn gone(error: &mut anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

enum Block {
    Data(Vec<u8>),
    /// A whole block of zeros, of which disks have many: compressed once.
    Zeros,
}

type Done = Result<Arc<Piece>>;

/// A compressed block.
struct Piece {
    bytes: Vec<u8>,
    /// Bytes before compression.
    size: u64,
    /// CRC-32 of the bytes before compression, for gzip.
    crc: Crc,
    /// Bytes of an xz block without its padding.
    unpadded: u64,
}

/// One thread's compressor.
enum Codec {
    Gz(Deflate),
    Xz,
    Zst(Box<zstd::bulk::Compressor<'static>>),
}

impl Codec {
    fn new(packing: Packing) -> Result<Self> {
        Ok(match packing {
            Packing::Gz => Self::Gz(Deflate::new(Wrapping::Open)),
            Packing::Xz => Self::Xz,
            Packing::Zst => {
                let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).context("starting zstd")?;
                zstd.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
                Self::Zst(Box::new(zstd))
            }
        })
    }

    fn pack(&mut self, block: &[u8]) -> Result<Piece> {
        let mut piece =
            Piece { bytes: Vec::new(), size: block.len() as u64, crc: Crc::new(), unpadded: 0 };
        match self {
            Self::Gz(deflate) => {
                piece.bytes = deflate.compress(block)?;
                piece.crc.update(block);
            }
            Self::Xz => (piece.bytes, piece.unpadded) = xz_block(block)?,
            Self::Zst(zstd) => piece.bytes = zstd.compress(block).context("compressing")?,
        }
        Ok(piece)
    }
}

/// The only block of a stream of its own, and how long it is without its padding, which the stream's index says.
fn xz_block(block: &[u8]) -> Result<(Vec<u8>, u64)> {
    use std::io::Write;

    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(XZ_PRESET))?;
    writer.write_all(block).context("compressing")?;
    let mut stream = writer.finish().context("compressing")?;
    let footer = stream.len() - XZ_EDGE;
    let backward: [u8; 4] = std::array::from_fn(|i| stream[footer + 4 + i]);
    let index = footer - 4 * (u32::from_le_bytes(backward) as usize + 1);
    // An indicator of zero, the number of blocks, which is 1, then the size.
    ensure!(stream[index..index + 2] == [0, 1], "one block was to be one block");
    let unpadded = stream[index + 2..].iter().enumerate();
    let end = unpadded.clone().find(|(_, byte)| **byte < 0x80).map_or(0, |(at, _)| at);
    let unpadded = unpadded
        .take(end + 1)
        .fold(0, |sum, (at, byte)| sum | (u64::from(byte & 0x7f) << (7 * at)));
    stream.truncate(index);
    stream.drain(..XZ_EDGE);
    Ok((stream, unpadded))
}

/// Puts blocks one behind the other, and what the format wants around them.
struct Joiner<'a, 'b> {
    packing: Packing,
    out: &'a mut FileSink<'b>,
    /// For each block, its size in the file (for xz without padding), and before compression.
    records: Vec<(u64, u64)>,
    crc: Crc,
    begun: bool,
}

impl Joiner<'_, '_> {
    fn join(&mut self, piece: &Piece) -> Result<()> {
        self.begin()?;
        self.out.write(&piece.bytes)?;
        self.crc.combine(&piece.crc);
        let size = match self.packing {
            Packing::Xz => piece.unpadded,
            _ => piece.bytes.len() as u64,
        };
        self.records.push((size, piece.size));
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        match self.packing {
            // Deflate, no flags, no time, no extra flags, unknown operating system.
            Packing::Gz => self.out.write(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]),
            Packing::Xz => {
                let header = [&b"\xfd7zXZ\0"[..], &XZ_FLAGS, &crc32(&XZ_FLAGS)].concat();
                self.out.write(&header)
            }
            Packing::Zst => Ok(()),
        }
    }

    fn end(mut self, size: u64) -> Result<()> {
        self.begin()?;
        let end = match self.packing {
            Packing::Gz => {
                // An empty last block with fixed codes, then both as 32 bits.
                let sum = self.crc.sum().to_le_bytes();
                [&[3, 0][..], &sum, &(size as u32).to_le_bytes()].concat()
            }
            Packing::Xz => xz_end(&self.records),
            Packing::Zst => seek_table(&self.records),
        };
        self.out.write(&end)
    }
}

/// Stream flags: blocks are checked with CRC-64, as xz does.
const XZ_FLAGS: [u8; 2] = [0, 4];

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// Index and footer.
fn xz_end(records: &[(u64, u64)]) -> Vec<u8> {
    let mut index = vec![0];
    let mut integer = |mut value: u64| {
        while value >= 0x80 {
            index.push(value as u8 | 0x80);
            value >>= 7;
        }
        index.push(value as u8);
    };
    integer(records.len() as u64);
    for (unpadded, size) in records {
        integer(*unpadded);
        integer(*size);
    }
    index.resize(index.len().next_multiple_of(4), 0);
    let sum = crc32(&index);
    index.extend(sum);
    let mut footer = ((index.len() / 4 - 1) as u32).to_le_bytes().to_vec();
    footer.extend(XZ_FLAGS);
    [&index[..], &crc32(&footer), &footer, b"YZ"].concat()
}

/// A skippable frame that says how long each frame is, so that readers can begin in the middle.
fn seek_table(records: &[(u64, u64)]) -> Vec<u8> {
    let mut table = 0x184d_2a5e_u32.to_le_bytes().to_vec();
    table.extend((8 * records.len() as u32 + 9).to_le_bytes());
    for (packed, size) in records {
        table.extend((*packed as u32).to_le_bytes());
        table.extend((*size as u32).to_le_bytes());
    }
    table.extend((records.len() as u32).to_le_bytes());
    table.push(0); // no checksums here: the frames have their own
    table.extend(0x8f92_eab1_u32.to_le_bytes());
    table
}

/// Takes what a format writes, and hands it out in blocks.
struct Packer<'a, 'b, 'c> {
    pool: &'a mut Pool<Block, Done>,
    joiner: Joiner<'b, 'c>,
    block: Vec<u8>,
    position: u64,
    sha256: Sha256,
    meter: Meter<'a>,
    scratch: Vec<u8>,
}

impl Packer<'_, '_, '_> {
    fn hand_out(&mut self, block: Block) -> Result<()> {
        match self.pool.push(block)? {
            Some(done) => self.joiner.join(&*done?),
            None => Ok(()),
        }
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Result<()> {
        let whole = self.joiner.packing.block();
        while !bytes.is_empty() {
            let count = bytes.len().min(whole - self.block.len());
            self.block.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.block.len() == whole {
                let block = std::mem::replace(&mut self.block, Vec::with_capacity(whole));
                self.hand_out(Block::Data(block))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Inside> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            self.hand_out(Block::Data(block))?;
        }
        while let Some(done) = self.pool.take()? {
            self.joiner.join(&*done?)?;
        }
        self.joiner.end(self.position)?;
        Ok(Inside { size: self.position, sha256: self.sha256.finish_hex() })
    }
}

impl Sink for Packer<'_, '_, '_> {
    fn position(&self) -> u64 {
        self.position
    }

    fn fill(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(len, 0);
        fill(&mut scratch)?;
        self.sha256.update(&scratch);
        self.take_in(&scratch)?;
        self.scratch = scratch;
        self.position += len as u64;
        self.meter.bytes(len as u64)
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        let whole = self.joiner.packing.block();
        let mut left = count;
        while left > 0 {
            let step = left.min((whole - self.block.len()) as u64);
            if step == whole as u64 {
                self.hand_out(Block::Zeros)?;
            } else {
                let end = self.block.len() + step as usize;
                self.block.resize(end, 0);
                if end == whole {
                    let block = std::mem::replace(&mut self.block, Vec::with_capacity(whole));
                    self.hand_out(Block::Data(block))?;
                }
            }
            self.sha256.update_zeros(step);
            self.position += step;
            self.meter.bytes(step)?;
            left -= step;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<()> {
        self.meter.work(bytes)
    }
}
