//! Places of all inodes, tails and blocks; then their bytes.

use anyhow::Result;
use zerocopy::IntoBytes;

use super::nodes::{Body, Image, Node};
use super::on_disk::{
    BLOCK, CHUNK_BASED, CompactInode, DIRECTORY_ENTRY, DirectoryEntry, ExtendedInode,
    FEATURE_COMPAT_MTIME_XATTR_FILTER, FLAT_INLINE, FLAT_PLAIN, HEADER_HAS_ACL, HEADER_MAGIC,
    Header, INODES_OFFSET, SLOT, SUPER_MAGIC, SUPER_OFFSET, SuperBlock, file_type,
};
use crate::error::unsupported;

/// A tail above this goes into a block of its own.
const MAX_TAIL: u64 = BLOCK / 2;
/// The largest chunk has 2^43 bytes: 12 bits of a block and the 31 that the format can add.
const MAX_CHUNK_BITS: u32 = 12 + 31;

/// Where an inode is and how its data are kept.
struct Place {
    /// Where the inode is, in bytes from the image's start.
    offset: u64,
    extended: bool,
    xattr_size: u64,
    /// One of [`FLAT_PLAIN`], [`FLAT_INLINE`], [`CHUNK_BASED`].
    layout: u16,
    /// `i_size`.
    size: u64,
    block_count: u64,
    /// Behind the xattrs.
    tail_size: u64,
    /// The first of its blocks, if it has any.
    first_block: u64,
}

/// Where everything is.
pub(super) struct Layout {
    places: Vec<Place>,
    /// The super block's time: the earliest there is.
    time: (u64, u32),
    xattrs_offset: u64,
    size: u64,
}

impl Layout {
    pub(super) fn of(image: &Image<'_>) -> Result<Self> {
        let time = image.nodes.iter().map(|node| node.mtime).min().unwrap_or((0, 0));
        let mut end = INODES_OFFSET;
        let mut places = Vec::with_capacity(image.nodes.len());
        for node in &image.nodes {
            image.xattrs.check_body(&node.xattrs)?;
            let mut place = Place::of(node, image.xattrs.body_size(&node.xattrs), time)?;
            place.settle(node, end);
            end = place.end();
            places.push(place);
        }
        image.xattrs.check_table()?;
        let xattrs_offset = end.next_multiple_of(SLOT);
        let mut size = (xattrs_offset + image.xattrs.table().len() as u64).next_multiple_of(BLOCK);
        for place in places.iter_mut().filter(|place| place.block_count > 0) {
            place.first_block = size / BLOCK;
            size += place.block_count * BLOCK;
        }
        if u32::try_from(size / BLOCK).is_err() {
            return Err(unsupported("a composefs image above 16 TiB", None));
        }
        Ok(Self { places, time, xattrs_offset, size })
    }

    pub(super) fn emit(&self, image: &Image<'_>) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(self.size).expect("it fits into memory")];
        self.write_headers(&mut out, image);
        let mut bytes = Vec::new();
        for (number, (node, place)) in image.nodes.iter().zip(&self.places).enumerate() {
            bytes.clear();
            self.write_inode(&mut bytes, node, place, number);
            image.xattrs.write_body(&mut bytes, &node.xattrs, self.xattrs_offset);
            self.write_data(&mut bytes, &mut out, image, node, place);
            assert_eq!(place.offset + bytes.len() as u64, place.end());
            put(&mut out, place.offset, &bytes);
        }
        put(&mut out, self.xattrs_offset, image.xattrs.table());
        out
    }

    fn write_headers(&self, out: &mut [u8], image: &Image<'_>) {
        let header = Header {
            magic: HEADER_MAGIC.into(),
            version: 1.into(),
            flags: if image.xattrs.have_acl() { HEADER_HAS_ACL } else { 0 }.into(),
            composefs_version: u32::from(image.version).into(),
            unused: Default::default(),
        };
        put(out, 0, header.as_bytes());
        let root_nid = self.places[0].offset / SLOT;
        let super_block = SuperBlock {
            magic: SUPER_MAGIC.into(),
            checksum: 0.into(),
            feature_compat: FEATURE_COMPAT_MTIME_XATTR_FILTER.into(),
            blkszbits: 12,
            sb_extslots: 0,
            root_nid: u16::try_from(root_nid).expect("the root is the first inode").into(),
            inos: (image.nodes.len() as u64).into(),
            build_time: self.time.0.into(),
            build_time_nsec: self.time.1.into(),
            blocks: u32::try_from(self.size / BLOCK).expect("checked in Layout::of").into(),
            meta_blkaddr: 0.into(),
            xattr_blkaddr: u32::try_from(self.xattrs_offset / BLOCK)
                .expect("below blocks, which fits")
                .into(),
            rest: Default::default(),
        };
        put(out, SUPER_OFFSET, super_block.as_bytes());
    }

    fn write_inode(&self, out: &mut Vec<u8>, node: &Node<'_>, place: &Place, number: usize) {
        let format = u16::from(place.extended) | place.layout << 1;
        let icount = match place.xattr_size {
            0 => 0,
            size => u16::try_from(1 + (size - 12) / 4).expect("checked by check_body"),
        };
        let number = u32::try_from(number).expect("checked when it was numbered");
        let union = match node.body {
            _ if place.block_count > 0 => {
                u32::try_from(place.first_block).expect("checked in Layout::of")
            }
            Body::External(size) => chunk_bits(size) - 12,
            Body::Device(device) => device,
            _ => 0,
        };
        if place.extended {
            let inode = ExtendedInode {
                i_format: format.into(),
                i_xattr_icount: icount.into(),
                i_mode: node.mode.into(),
                i_reserved: 0.into(),
                i_size: place.size.into(),
                i_u: union.into(),
                i_ino: number.into(),
                i_uid: node.uid.into(),
                i_gid: node.gid.into(),
                i_mtime: node.mtime.0.into(),
                i_mtime_nsec: node.mtime.1.into(),
                i_nlink: node.nlink.into(),
                i_reserved2: Default::default(),
            };
            out.extend_from_slice(inode.as_bytes());
        } else {
            let small = "Place::of decides for a compact inode only if all fits";
            let inode = CompactInode {
                i_format: format.into(),
                i_xattr_icount: icount.into(),
                i_mode: node.mode.into(),
                i_nlink: u16::try_from(node.nlink).expect(small).into(),
                i_size: u32::try_from(place.size).expect(small).into(),
                i_reserved: 0.into(),
                i_u: union.into(),
                i_ino: number.into(),
                i_uid: u16::try_from(node.uid).expect(small).into(),
                i_gid: u16::try_from(node.gid).expect(small).into(),
                i_reserved2: 0.into(),
            };
            out.extend_from_slice(inode.as_bytes());
        }
    }

    /// Appends the tail to `inode`, and puts blocks into the image.
    fn write_data(
        &self,
        inode: &mut Vec<u8>,
        out: &mut [u8],
        image: &Image<'_>,
        node: &Node<'_>,
        place: &Place,
    ) {
        let at = place.first_block * BLOCK;
        match &node.body {
            Body::Directory(entries) => {
                for (i, entries) in directory_blocks(entries).into_iter().enumerate() {
                    let bytes = self.directory_block(image, entries);
                    match i as u64 {
                        i if i < place.block_count => put(out, at + i * BLOCK, &bytes),
                        _ => inode.extend_from_slice(&bytes),
                    }
                }
            }
            Body::Symlink(target) if place.block_count > 0 => put(out, at, target),
            Body::Symlink(target) => inode.extend_from_slice(target),
            // Chunks without an address: overlayfs finds the content through the redirect.
            Body::Inline(bytes) => inode.extend_from_slice(bytes),
            Body::External(_) => inode.resize(inode.len() + place.tail_size as usize, 0xff),
            Body::Device(_) | Body::Nothing => {}
        }
    }

    fn directory_block(&self, image: &Image<'_>, entries: &[(&[u8], u32)]) -> Vec<u8> {
        let mut names = Vec::new();
        let mut out = Vec::new();
        let names_at = entries.len() as u64 * DIRECTORY_ENTRY;
        for (name, number) in entries {
            let offset = u16::try_from(names_at + names.len() as u64).expect("inside a block");
            let entry = DirectoryEntry {
                nid: (self.places[*number as usize].offset / SLOT).into(),
                nameoff: offset.into(),
                file_type: file_type(image.nodes[*number as usize].mode.into()),
                reserved: 0,
            };
            out.extend_from_slice(entry.as_bytes());
            names.extend_from_slice(name);
        }
        out.extend_from_slice(&names);
        out
    }
}

impl Place {
    /// Everything but the offsets.
    fn of(node: &Node<'_>, xattr_size: u64, time: (u64, u32)) -> Result<Self> {
        let (size, block_count, tail_size, layout) = match &node.body {
            Body::Directory(entries) => {
                let blocks = directory_blocks(entries);
                let last = blocks.last().map_or(0, |entries| directory_size(entries));
                let full = blocks.len() as u64 - 1;
                match last {
                    last if last > MAX_TAIL => ((full + 1) * BLOCK, full + 1, 0, FLAT_PLAIN),
                    last => (full * BLOCK + last, full, last, FLAT_INLINE),
                }
            }
            Body::Symlink(target) => {
                let size = target.len() as u64;
                let header = header_size(needs_extended(node, size, time)) + xattr_size;
                if header + size < BLOCK {
                    (size, 0, size, FLAT_INLINE)
                } else {
                    (size, 1, 0, FLAT_PLAIN)
                }
            }
            Body::External(size) => {
                let chunks = size.div_ceil(1 << chunk_bits(*size));
                if chunks * 4 > MAX_TAIL {
                    return Err(unsupported(format!("a file of {size} bytes"), None));
                }
                (*size, 0, chunks * 4, CHUNK_BASED)
            }
            Body::Inline(bytes) => (bytes.len() as u64, 0, bytes.len() as u64, FLAT_INLINE),
            Body::Device(_) | Body::Nothing => (0, 0, 0, FLAT_PLAIN),
        };
        let extended = needs_extended(node, size, time);
        Ok(Self {
            offset: 0,
            extended,
            xattr_size,
            layout,
            size,
            block_count,
            tail_size,
            first_block: 0,
        })
    }

    /// Finds the offset: a slot from `end` on where the tail does not cross a block.
    fn settle(&mut self, node: &Node<'_>, end: u64) {
        let start = end.next_multiple_of(SLOT);
        let head = header_size(self.extended) + self.xattr_size;
        let pad = match &node.body {
            // Symbolic links are kept in one block whole, inode and all, even if the target has moved out.
            Body::Symlink(target) => {
                let last = start + head + target.len() as u64 - 1;
                if start / BLOCK == last / BLOCK {
                    0
                } else {
                    start.next_multiple_of(BLOCK) - start
                }
            }
            _ => {
                let room = BLOCK - (start + head) % BLOCK;
                if room < self.tail_size { room.next_multiple_of(SLOT) } else { 0 }
            }
        };
        self.offset = start + pad;
        // Tails have at most MAX_TAIL bytes, so that a fresh block always has room.
        let tail = self.offset + head;
        assert!(self.tail_size <= BLOCK - tail % BLOCK, "a tail at {tail} crosses a block");
    }

    fn end(&self) -> u64 {
        self.offset + header_size(self.extended) + self.xattr_size + self.tail_size
    }
}

fn needs_extended(node: &Node<'_>, size: u64, time: (u64, u32)) -> bool {
    let max = u32::from(u16::MAX);
    node.mtime != time
        || node.nlink > max
        || node.uid > max
        || node.gid > max
        || u32::try_from(size).is_err()
}

const fn header_size(extended: bool) -> u64 {
    if extended { size_of::<ExtendedInode>() as u64 } else { size_of::<CompactInode>() as u64 }
}

/// The size of a chunk, as a power of two: the whole file is one, if it can be.
fn chunk_bits(size: u64) -> u32 {
    (u64::BITS - (size - 1).leading_zeros()).clamp(12, MAX_CHUNK_BITS)
}

/// A directory's entries, as many in each block as fit. The last block may be kept as a tail.
pub(super) fn directory_blocks<'b, 'a>(
    entries: &'b [(&'a [u8], u32)],
) -> Vec<&'b [(&'a [u8], u32)]> {
    let mut blocks = Vec::new();
    let (mut first, mut size) = (0, 0);
    for (i, entry) in entries.iter().enumerate() {
        let entry = directory_size(std::slice::from_ref(entry));
        if size + entry > BLOCK {
            blocks.push(&entries[first..i]);
            (first, size) = (i, 0);
        }
        size += entry;
    }
    blocks.push(&entries[first..]);
    blocks
}

pub(super) fn directory_size(entries: &[(&[u8], u32)]) -> u64 {
    entries.iter().map(|(name, _)| DIRECTORY_ENTRY + name.len() as u64).sum()
}

fn put(out: &mut [u8], offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).expect("it fits into memory");
    out[offset..offset + bytes.len()].copy_from_slice(bytes);
}
