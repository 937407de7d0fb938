//! Writes what `Layout` decided: the log, the inodes, and what hangs from each.

use zerocopy::FromZeros;

use super::attribute::Attributes;
use super::census::Counted;
use super::directory::{self, Entry, Form, Home, Shape};
use super::extent::{self, Piece, RECORD};
use super::geometry::Place;
use super::layout::{Layout, Placed};
use super::log;
use super::on_disk::{
    BLOCK, BLOCK_BYTES, CHUNK, CHUNK_BLOCKS, FLAG_IMMUTABLE, FLAG_NEWRTBM, FLAG2_BIGTIME,
    FLAG2_NREXT64, FORMAT_BTREE, FORMAT_DEV, FORMAT_EXTENTS, FORMAT_LOCAL, INODE_BYTES,
    INODES_PER_BLOCK, Inode, NULL32, RemoteBlock, big_time, headed, seal,
};
use crate::content::Content;
use crate::filesystem::linux::file_type;
use crate::sparse::SparseMap;
use crate::tree::{self, Kind, Metadata, Tree, Xattrs};

const SYMLINK_MAGIC: [u8; 4] = *b"XSLM";

impl Layout {
    /// The file system. `tree` is the one it was laid out for.
    pub fn emit(&self, tree: &Tree) -> SparseMap {
        let mut volume = SparseMap::new(self.options.size);
        self.emit_groups(&mut volume);
        let group = self.geometry.log_group;
        let block = self.places.groups[group as usize].log.expect("the log is in its group");
        let record = log::record(*self.options.uuid.as_bytes(), self.geometry.sector);
        volume.put(self.geometry.byte(Place { group, block }), record);
        self.emit_inodes(tree, &mut volume);
        volume
    }

    /// All chunks of inodes. In each group, inodes are in the order of the census.
    fn emit_inodes(&self, tree: &Tree, volume: &mut SparseMap) {
        let all = self.census.inodes.iter().zip(&self.places.inodes);
        let mut all = all.enumerate().peekable();
        for group in &self.places.groups {
            for chunk in 0..group.chunks {
                let mut bytes = Vec::with_capacity(CHUNK as usize * INODE_BYTES);
                for slot in 0..CHUNK {
                    let next = all.next_if(|(_, (_, placed))| placed.group == group.number);
                    let mut inode = match next {
                        Some((index, (counted, placed))) => {
                            self.inode(tree, index, counted, placed, volume)
                        }
                        None => {
                            let first = group.chunks_at * INODES_PER_BLOCK + chunk * CHUNK;
                            let number = self.geometry.inode_number(group.number, first + slot);
                            headed(&self.core(number), INODE_BYTES)
                        }
                    };
                    seal(&mut inode, std::mem::offset_of!(Inode, di_crc));
                    bytes.extend(inode);
                }
                let block = group.chunks_at + chunk * CHUNK_BLOCKS;
                let place = Place { group: group.number, block };
                volume.put(self.geometry.byte(place), bytes);
            }
        }
        assert!(all.next().is_none(), "every inode has its place in a chunk");
    }

    /// An inode that is free.
    fn core(&self, number: u64) -> Inode {
        let mut core = Inode::new_zeroed();
        core.di_magic = *b"IN";
        core.di_version = 3;
        // What the kernel draws at random, so that a file handle does not outlive its file. mkfs leaves the root's zero.
        if number != self.places.inodes[0].number {
            let seed = number.to_be_bytes();
            let uuid = crc32c::crc32c(self.options.uuid.as_bytes());
            core.di_gen.set(crc32c::crc32c_append(uuid, &seed));
        }
        core.di_next_unlinked.set(NULL32);
        core.di_ino.set(number);
        core.di_uuid = *self.options.uuid.as_bytes();
        core
    }

    /// One inode, without its checksum; its blocks go into `volume`.
    fn inode(
        &self,
        tree: &Tree,
        index: usize,
        counted: &Counted,
        placed: &Placed,
        volume: &mut SparseMap,
    ) -> Vec<u8> {
        let own = own_inode(self.options.time);
        let inode = counted.id.map_or(&own, |id| tree.inode(id));
        let metadata = &inode.metadata;
        let mut core = self.core(placed.number);
        core.di_mode.set(inode.st_mode() as u16);
        core.di_uid.set(metadata.uid);
        core.di_gid.set(metadata.gid);
        core.di_nlink.set(counted.links);
        let time = big_time(metadata.mtime);
        for field in
            [&mut core.di_atime, &mut core.di_mtime, &mut core.di_ctime, &mut core.di_crtime]
        {
            field.set(time);
        }
        core.di_flags.set(if metadata.immutable { FLAG_IMMUTABLE } else { 0 });
        if index == 1 {
            // The bitmap's own mark; its access time counts something else.
            core.di_flags.set(FLAG_NEWRTBM);
            core.di_atime.set(big_time(0));
        }
        core.di_changecount.set(1);
        let nrext64 = self.geometry.profile.nrext64();
        core.di_flags2.set(FLAG2_BIGTIME | if nrext64 { FLAG2_NREXT64 } else { 0 });
        let (data, attributes) = (self.places.data(placed), self.places.attributes(placed));
        let nodes = self.places.nodes(placed);
        core.di_nblocks.set(counted.block_count() + nodes.len() as u64);
        if nrext64 {
            core.di_big_nextents.set(data.len() as u64);
            core.di_nextents.set(attributes.len() as u32);
        } else {
            core.di_nextents.set(data.len() as u32);
            core.di_anextents.set(attributes.len() as u16);
        }
        let (format, size, inline) = self.data_fork(tree, index, counted, inode, volume);
        core.di_format = format;
        core.di_size.set(size);
        let offset = counted.fork_offset();
        core.di_forkoff = (offset / 8) as u8;
        core.di_aformat = if counted.short_attributes { FORMAT_LOCAL } else { FORMAT_EXTENTS };
        let mut bytes = headed(&core, INODE_BYTES);
        let forks = &mut bytes[size_of::<Inode>()..];
        forks[..inline.len()].copy_from_slice(&inline);
        if offset > 0 {
            let inline = self.attribute_fork(counted, placed, metadata, volume);
            forks[offset..offset + inline.len()].copy_from_slice(&inline);
        }
        bytes
    }

    /// The data fork: its format, `di_size`, and what of it is in the inode.
    fn data_fork(
        &self,
        tree: &Tree,
        index: usize,
        counted: &Counted,
        inode: &tree::Inode,
        volume: &mut SparseMap,
    ) -> (u8, u64, Vec<u8>) {
        let placed = &self.places.inodes[index];
        let pieces = self.places.data(placed);
        let size = match &inode.kind {
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                return (FORMAT_DEV, 0, (major << 18 | minor).to_be_bytes().to_vec());
            }
            Kind::Fifo | Kind::Socket => return (FORMAT_DEV, 0, vec![0; 4]),
            Kind::Directory(_) => {
                let shape = counted.directory.as_ref().expect("a directory has a shape");
                let inline = self.directory(tree, shape, counted, inode, placed, volume);
                if shape.form == Form::Short {
                    return (FORMAT_LOCAL, shape.size, inline);
                }
                shape.size
            }
            Kind::Symlink(target) if pieces.is_empty() => {
                return (FORMAT_LOCAL, target.len() as u64, target.to_vec());
            }
            Kind::Symlink(target) => {
                self.symlink(target, placed, pieces[0], volume);
                target.len() as u64
            }
            Kind::File(content) => {
                self.file(content, pieces, volume);
                content.size
            }
        };
        let nodes = self.places.nodes(placed);
        if nodes.is_empty() {
            return (FORMAT_EXTENTS, size, self.extent_list(pieces));
        }
        let (room, uuid) = (counted.room.into(), *self.options.uuid.as_bytes());
        let mut put = |place, block| volume.put(self.geometry.byte(place), block);
        let whose = (placed.number, uuid);
        let root = extent::emit_tree(pieces, nodes, room, whose, &self.geometry, &mut put);
        (FORMAT_BTREE, size, root)
    }

    fn extent_list(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut list = Vec::with_capacity(pieces.len() * RECORD);
        pieces.iter().for_each(|piece| list.extend(piece.record(&self.geometry)));
        list
    }

    /// The part of the attribute fork that is in the inode.
    fn attribute_fork(
        &self,
        counted: &Counted,
        placed: &Placed,
        metadata: &Metadata,
        volume: &mut SparseMap,
    ) -> Vec<u8> {
        let attributes = Attributes::of(&metadata.xattrs);
        let attributes = attributes.expect("the tree is the one that was laid out");
        if counted.short_attributes {
            return attributes.emit_short();
        }
        let pieces = self.places.attributes(placed);
        let daddr = |index| self.geometry.daddr(extent::find(pieces, index));
        let home =
            Home { uuid: *self.options.uuid.as_bytes(), owner: placed.number, daddr: &daddr };
        attributes.emit(&home, &mut |index, block| {
            volume.put(self.geometry.byte(extent::find(pieces, index)), block);
        });
        self.extent_list(pieces)
    }

    /// A directory: what is in the inode, if it is short.
    fn directory(
        &self,
        tree: &Tree,
        shape: &Shape,
        counted: &Counted,
        inode: &tree::Inode,
        placed: &Placed,
        volume: &mut SparseMap,
    ) -> Vec<u8> {
        let parent = self.places.inodes[counted.parent as usize].number;
        let entries: Vec<Entry<'_>> = inode
            .children()
            .map(|(name, child)| Entry {
                name,
                number: self.places.inodes[self.census.place(child)].number,
                file_type: file_type(&tree.inode(child).kind),
            })
            .collect();
        if shape.form == Form::Short {
            return directory::emit_short(parent, &entries);
        }
        let pieces = self.places.data(placed);
        let daddr = |index| self.geometry.daddr(extent::find(pieces, index));
        let home =
            Home { uuid: *self.options.uuid.as_bytes(), owner: placed.number, daddr: &daddr };
        directory::emit(shape, parent, &entries, &home, &mut |index, block| {
            volume.put(self.geometry.byte(extent::find(pieces, index)), block);
        });
        Vec::new()
    }

    fn symlink(&self, target: &[u8], placed: &Placed, piece: Piece, volume: &mut SparseMap) {
        let head = RemoteBlock {
            magic: SYMLINK_MAGIC,
            offset: 0.into(),
            bytes: (target.len() as u32).into(),
            crc: 0.into(),
            uuid: *self.options.uuid.as_bytes(),
            owner: placed.number.into(),
            blkno: self.geometry.daddr(piece.place).into(),
            lsn: 0.into(),
        };
        let mut block = headed(&head, BLOCK_BYTES);
        block[size_of::<RemoteBlock>()..][..target.len()].copy_from_slice(target);
        seal(&mut block, std::mem::offset_of!(RemoteBlock, crc));
        volume.put(self.geometry.byte(piece.place), block);
    }

    /// A file's bytes, by reference. What is behind its end in the last block is zero, and so are holes inside of an extent.
    fn file(&self, content: &Content, pieces: &[Piece], volume: &mut SparseMap) {
        let ranges = content.data_ranges();
        let mut ranges = ranges.as_slice();
        for piece in pieces {
            let start = piece.offset * BLOCK;
            let end = start + u64::from(piece.count) * BLOCK;
            let first = self.geometry.byte(piece.place);
            while let Some(range) = ranges.first().filter(|range| range.start < end) {
                let (from, to) = (range.start.max(start), range.end.min(end));
                if from < to {
                    volume.put_content(first + (from - start), content.id, from, to - from);
                }
                if range.end > end {
                    break;
                }
                ranges = &ranges[1..];
            }
        }
    }
}

/// What the two inodes of XFS' own are: empty files of root's.
fn own_inode(time: i64) -> tree::Inode {
    let metadata =
        Metadata { mode: 0, uid: 0, gid: 0, mtime: time, xattrs: Xattrs::NONE, immutable: false };
    tree::Inode { metadata, kind: Kind::File(Content::EMPTY) }
}
