//! The bytes of a file: inline, in extents, compressed, or nowhere.

use std::io::Read;

use anyhow::Result;

use super::tree::{Key, u64_at};
use super::{Btrfs, Inode, lzo};

const EXTENT_DATA: u8 = 108;
/// Bytes of an extent before inline data, or before where the bytes are.
const HEAD: usize = 21;
/// `BTRFS_MAX_UNCOMPRESSED`: what is compressed is compressed in pieces of this size.
const PIECE: u64 = 128 << 10;

/// What stands in an item of a file's extent.
struct Extent<'a> {
    /// Bytes when they are not compressed.
    plain: u64,
    compression: u8,
    kind: u8,
    rest: &'a [u8],
}

impl Btrfs {
    /// The first `size` bytes of an inode; what no extent covers is zero.
    pub(super) fn bytes(&self, inode: Inode, size: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(size)?];
        let range = Key::all_of(inode.number, EXTENT_DATA);
        for (key, item) in self.trees.scan(inode.subvolume, range)? {
            let extent = parse(&item).ok_or_else(|| self.corrupt("an extent is cut short"))?;
            let data = self.extent(&extent, size)?;
            let start = usize::try_from(key.offset.min(size))?;
            let count = data.len().min(bytes.len() - start);
            bytes[start..start + count].copy_from_slice(&data[..count]);
        }
        Ok(bytes)
    }

    /// What an extent gives to its file, or so much of it as `size` bytes need.
    fn extent(&self, extent: &Extent<'_>, size: u64) -> Result<Vec<u8>> {
        if extent.kind == 0 {
            return self.unpack(extent.compression, extent.rest, extent.plain);
        }
        let number = |at| u64_at(extent.rest, at).unwrap_or_default();
        let (place, stored, skip, length) = (number(0), number(8), number(16), number(24));
        // A hole, or room that nothing was written to yet.
        if place == 0 || extent.kind == 2 {
            return Ok(Vec::new());
        }
        let wanted = length.min(size);
        if extent.compression == 0 {
            let start = place.checked_add(skip);
            let start = start.ok_or_else(|| self.corrupt("an extent lies beyond all disks"))?;
            let mut bytes = vec![0; usize::try_from(wanted)?];
            self.trees.read(start, &mut bytes)?;
            return Ok(bytes);
        }
        if stored > 2 * PIECE || extent.plain > PIECE {
            return Err(self.corrupt("a compressed extent is larger than 128 KiB"));
        }
        let mut packed = vec![0; usize::try_from(stored)?];
        self.trees.read(place, &mut packed)?;
        let plain = self.unpack(extent.compression, &packed, extent.plain)?;
        let skip = usize::try_from(skip.min(plain.len() as u64))?;
        let end = plain.len().min(skip.saturating_add(usize::try_from(wanted)?));
        Ok(plain[skip..end].to_vec())
    }

    fn unpack(&self, compression: u8, packed: &[u8], plain: u64) -> Result<Vec<u8>> {
        if plain > PIECE {
            return Err(self.corrupt("a compressed extent is larger than 128 KiB"));
        }
        let mut bytes = Vec::new();
        // Behind the end of what was compressed there are zeros, in the file and on the disk.
        let read = match compression {
            0 => return Ok(packed.to_vec()),
            1 => flate2::read::ZlibDecoder::new(packed).take(plain).read_to_end(&mut bytes).is_ok(),
            2 => lzo::decompress(packed, plain as usize).is_some_and(|made| {
                bytes = made;
                true
            }),
            3 => zstd::Decoder::new(packed)
                .is_ok_and(|made| made.single_frame().take(plain).read_to_end(&mut bytes).is_ok()),
            other => {
                return Err(self.corrupt(format!("it is compressed in an unknown way: {other}")));
            }
        };
        if !read {
            return Err(self.corrupt("a compressed extent cannot be decompressed"));
        }
        Ok(bytes)
    }
}

fn parse(item: &[u8]) -> Option<Extent<'_>> {
    let rest = item.get(HEAD..)?;
    let (compression, kind) = (item[16], item[20]);
    let whole = kind == 0 || rest.len() >= 32;
    whole.then_some(Extent { plain: u64_at(item, 8)?, compression, kind, rest })
}
