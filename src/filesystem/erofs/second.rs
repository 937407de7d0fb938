//! Format 2: what composefs-rs made before it took over format 1. Unified kernel images of some bootc versions name images of it.
//!
//! ```text
//! 0      composefs header, format 2, no flags
//! 1024   super block, times 0, no address of shared xattrs
//! 1152   inodes, all of 64 bytes, depth first, a directory before what is in it
//!        shared xattr entries, in ascending order; their ids count from the beginning of the file
//!        data blocks of directories
//! ```
//!
//! Source: composefs 0.9.4, `erofs/writer.rs`, its second epoch. What is not said here is as in formats 0 and 1.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use xxhash_rust::xxh32::xxh32;
use zerocopy::IntoBytes;

use super::layout::{directory_blocks, directory_size};
use super::nodes::{device_number, ensure_target, find_stored, metacopy, seconds};
use super::on_disk::{
    BLOCK, CHUNK_BASED, DIRECTORY_ENTRY, DirectoryEntry, ExtendedInode,
    FEATURE_COMPAT_MTIME_XATTR_FILTER, FLAT_INLINE, FLAT_PLAIN, HEADER_MAGIC, Header,
    INODES_OFFSET, SLOT, SUPER_MAGIC, SUPER_OFFSET, SuperBlock, XattrEntry, XattrHeader, file_type,
};
use super::xattr::FILTER_SEED;
use crate::error::unsupported;
use crate::tree::{InodeId, Kind, Stored, Tree};

/// The format in composefs' header.
const VERSION: u32 = 2;

/// Prefixes that an entry names by an index.
const PREFIXES: [(u8, &[u8]); 6] = [
    (6, b"security."),
    (5, b"lustre."),
    (4, b"trusted."),
    (3, b"system.posix_acl_default"),
    (2, b"system.posix_acl_access"),
    (1, b"user."),
];

/// A tail above this goes into a block of its own.
const MAX_TAIL: u64 = BLOCK / 2;

/// Chunks of a file whose content is elsewhere: one, as large as the format can say.
const CHUNK_FORMAT: u32 = 31;

/// Prefix's index, rest of the name, value; in the order of the shared table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pair {
    index: u8,
    suffix: Box<[u8]>,
    value: Box<[u8]>,
}

impl Pair {
    fn new(name: &[u8], value: &[u8]) -> Result<Self> {
        let found =
            PREFIXES.iter().find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)));
        let (index, suffix) = found.unwrap_or((0, name));
        if suffix.len() > usize::from(u8::MAX) || value.len() > usize::from(u16::MAX) {
            let what = format!(
                "an extended attribute with a name of {} and a value of {} bytes does not fit into EROFS",
                name.len(),
                value.len()
            );
            return Err(unsupported(what, None));
        }
        Ok(Self { index, suffix: suffix.into(), value: value.into() })
    }

    fn size(&self) -> u64 {
        ((size_of::<XattrEntry>() + self.suffix.len() + self.value.len()) as u64)
            .next_multiple_of(4)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.size() as usize;
        let entry = XattrEntry {
            e_name_len: u8::try_from(self.suffix.len()).expect("checked by new"),
            e_name_index: self.index,
            e_value_size: u16::try_from(self.value.len()).expect("checked by new").into(),
        };
        out.extend_from_slice(entry.as_bytes());
        out.extend_from_slice(&self.suffix);
        out.extend_from_slice(&self.value);
        out.resize(end, 0);
    }
}

struct Node<'a> {
    id: InodeId,
    mode: u16,
    nlink: u32,
    xattrs: Vec<Pair>,
    body: Body<'a>,
    /// Where the inode is, in bytes from the image's start.
    offset: u64,
    /// Where its blocks are, if it has any.
    blocks_at: u64,
}

enum Body<'a> {
    /// Names with the indices of their nodes, in bytewise order.
    Directory(Vec<(&'a [u8], u32)>),
    /// What is behind the inode: a symbolic link's target, a small file.
    Tail(Box<[u8]>),
    /// Bytes of a file whose content is elsewhere.
    External(u64),
    Device(u32),
    Nothing,
}

/// The image of a tree.
pub(super) fn image(tree: &Tree, stored: &dyn Fn(InodeId) -> Option<Stored>) -> Result<Vec<u8>> {
    let mut builder = Builder {
        tree,
        stored,
        links: tree.link_counts(),
        numbers: HashMap::new(),
        nodes: Vec::new(),
    };
    builder.add_directory(Tree::ROOT, 0)?;
    let mut nodes = builder.nodes;
    let shared = Shared::of(&nodes);
    let end = place(&mut nodes, &shared);
    let size =
        nodes.iter().map(Node::blocks_end).max().unwrap_or(0).max(end.next_multiple_of(BLOCK));
    if u32::try_from(size / BLOCK).is_err() {
        return Err(unsupported("a composefs image above 16 TiB", None));
    }
    emit(tree, &nodes, &shared, end, size)
}

struct Builder<'a> {
    tree: &'a Tree,
    stored: &'a dyn Fn(InodeId) -> Option<Stored>,
    links: Vec<u32>,
    /// Nodes of inodes with several names.
    numbers: HashMap<InodeId, u32>,
    nodes: Vec<Node<'a>>,
}

impl<'a> Builder<'a> {
    /// Paths have at most 4095 bytes, so that this is not called from within itself more often than stacks can bear.
    fn add_directory(&mut self, id: InodeId, above: u32) -> Result<u32> {
        let number = self.push(id, Body::Nothing, None)?;
        let mut entries: Vec<(&[u8], u32)> = vec![(b".", number), (b"..", above)];
        for (name, child) in self.tree.inode(id).children() {
            if name.len() > 255 {
                let name = String::from_utf8_lossy(name);
                return Err(unsupported(format!("a file name above 255 bytes: {name}"), None));
            }
            let child = if self.tree.inode(child).is_directory() {
                self.add_directory(child, number)?
            } else {
                self.add_leaf(child)?
            };
            entries.push((name, child));
        }
        entries.sort_unstable_by_key(|(name, _)| *name);
        let subdirectories = entries.iter().filter(|(name, child)| {
            ![&b"."[..], b".."].contains(name)
                && matches!(self.nodes[*child as usize].body, Body::Directory(_))
        });
        let nlink = 2 + subdirectories.count() as u32;
        let node = &mut self.nodes[number as usize];
        (node.body, node.nlink) = (Body::Directory(entries), nlink);
        Ok(number)
    }

    fn add_leaf(&mut self, id: InodeId) -> Result<u32> {
        if let Some(&number) = self.numbers.get(&id) {
            return Ok(number);
        }
        let stored = find_stored(self.tree, id, self.stored)?;
        let body = match (&self.tree.inode(id).kind, &stored) {
            (Kind::Symlink(target), _) => {
                ensure_target(target)?;
                Body::Tail(target.clone())
            }
            (Kind::File(content), Some(Stored::Outside(_))) => Body::External(content.size),
            (Kind::File(_), Some(Stored::Inside(bytes))) => Body::Tail(bytes.clone()),
            (Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor), _) => {
                Body::Device(device_number(*major, *minor)?)
            }
            _ => Body::Nothing,
        };
        let number = self.push(id, body, stored.as_ref())?;
        if self.links[id.index()] > 1 {
            self.numbers.insert(id, number);
        }
        Ok(number)
    }

    fn push(&mut self, id: InodeId, body: Body<'a>, stored: Option<&Stored>) -> Result<u32> {
        let number = u32::try_from(self.nodes.len())
            .map_err(|_| unsupported("more than 2^32 inodes", None))?;
        let inode = self.tree.inode(id);
        let mut xattrs = Vec::new();
        if let Some(Stored::Outside(payload)) = stored {
            let metacopy = metacopy(payload.digest.as_deref());
            xattrs.push(Pair::new(b"trusted.overlay.metacopy", &metacopy)?);
            let redirect = format!("/{}", payload.redirect);
            xattrs.push(Pair::new(b"trusted.overlay.redirect", redirect.as_bytes())?);
        }
        for (name, value) in inode.metadata.xattrs.iter() {
            let pair = match name.strip_prefix(b"trusted.overlay.") {
                Some(rest) => Pair::new(&[b"trusted.overlay.overlay.", rest].concat(), value)?,
                None => Pair::new(name, value)?,
            };
            xattrs.push(pair);
        }
        let units = xattrs.iter().map(Pair::size).sum::<u64>() / 4;
        if xattrs.len() > usize::from(u8::MAX) || units > u64::from(u16::MAX) - 4 {
            let what = format!("{} extended attributes do not fit into EROFS", xattrs.len());
            return Err(unsupported(what, None));
        }
        let (mode, nlink) = (inode.st_mode() as u16, self.links[id.index()].max(1));
        self.nodes.push(Node { id, mode, nlink, xattrs, body, offset: 0, blocks_at: 0 });
        Ok(number)
    }
}

/// Pairs that more than one inode has, with their offsets in the table.
struct Shared {
    offsets: BTreeMap<Pair, u64>,
    size: u64,
}

impl Shared {
    fn of(nodes: &[Node<'_>]) -> Self {
        let mut uses: BTreeMap<&Pair, u32> = BTreeMap::new();
        for pair in nodes.iter().flat_map(|node| &node.xattrs) {
            *uses.entry(pair).or_default() += 1;
        }
        let mut shared = Self { offsets: BTreeMap::new(), size: 0 };
        for (pair, _) in uses.into_iter().filter(|(_, uses)| *uses > 1) {
            shared.offsets.insert(pair.clone(), shared.size);
            shared.size += pair.size();
        }
        shared
    }

    fn body_size(&self, pairs: &[Pair]) -> u64 {
        if pairs.is_empty() {
            return 0;
        }
        let each = pairs.iter().map(|pair| match self.offsets.get(pair) {
            Some(_) => 4,
            None => pair.size(),
        });
        size_of::<XattrHeader>() as u64 + each.sum::<u64>()
    }
}

impl Node<'_> {
    fn is_chunked(&self) -> bool {
        matches!(self.body, Body::External(_))
    }

    /// Blocks, and bytes of the tail behind the inode.
    fn shape(&self) -> (u64, u64) {
        match &self.body {
            Body::Directory(entries) => {
                let blocks = directory_blocks(entries);
                let last = blocks.last().map_or(0, |entries| directory_size(entries));
                if last > MAX_TAIL {
                    (blocks.len() as u64, 0)
                } else {
                    (blocks.len() as u64 - 1, last)
                }
            }
            Body::Tail(bytes) => (0, bytes.len() as u64),
            Body::External(_) => (0, 4),
            Body::Device(_) | Body::Nothing => (0, 0),
        }
    }

    fn blocks_end(&self) -> u64 {
        self.blocks_at + self.shape().0 * BLOCK
    }
}

/// Finds all places; comes back with the end of the inodes, where the shared table begins.
fn place(nodes: &mut [Node<'_>], shared: &Shared) -> u64 {
    let mut position = INODES_OFFSET;
    for node in nodes.iter_mut() {
        position = position.next_multiple_of(SLOT);
        let head = size_of::<ExtendedInode>() as u64 + shared.body_size(&node.xattrs);
        let (_, tail) = node.shape();
        if tail > 0 && !node.is_chunked() {
            // The last byte of the head and the byte behind the tail are in the same block.
            let last = position + head - 1;
            if last / BLOCK != (last + 1 + tail) / BLOCK {
                position += BLOCK - last % BLOCK;
                position = position.next_multiple_of(SLOT);
            }
        }
        node.offset = position;
        position += head + tail;
    }
    let end = position.next_multiple_of(SLOT);
    let mut blocks = (end + shared.size).next_multiple_of(BLOCK);
    for node in nodes {
        let (count, _) = node.shape();
        if count > 0 {
            node.blocks_at = blocks;
            blocks += count * BLOCK;
        }
    }
    end
}

fn emit(tree: &Tree, nodes: &[Node<'_>], shared: &Shared, end: u64, size: u64) -> Result<Vec<u8>> {
    let mut out = vec![0; usize::try_from(size)?];
    let header = Header {
        magic: HEADER_MAGIC.into(),
        version: 1.into(),
        flags: 0.into(),
        composefs_version: VERSION.into(),
        unused: Default::default(),
    };
    put(&mut out, 0, header.as_bytes());
    let super_block = SuperBlock {
        magic: SUPER_MAGIC.into(),
        checksum: 0.into(),
        feature_compat: FEATURE_COMPAT_MTIME_XATTR_FILTER.into(),
        blkszbits: 12,
        sb_extslots: 0,
        root_nid: u16::try_from(nodes[0].offset / SLOT)?.into(),
        inos: (nodes.len() as u64).into(),
        build_time: 0.into(),
        build_time_nsec: 0.into(),
        blocks: u32::try_from(size / BLOCK)?.into(),
        meta_blkaddr: 0.into(),
        xattr_blkaddr: 0.into(),
        rest: Default::default(),
    };
    put(&mut out, SUPER_OFFSET, super_block.as_bytes());
    for node in nodes {
        let mut bytes = inode(tree, node, shared)?.as_bytes().to_vec();
        write_xattrs(&mut bytes, &node.xattrs, shared, end);
        match &node.body {
            Body::Directory(entries) => {
                let (count, _) = node.shape();
                for (block, index) in directory_blocks(entries).into_iter().zip(0..) {
                    let written = directory_block(nodes, block);
                    if index < count {
                        put(&mut out, node.blocks_at + index * BLOCK, &written);
                    } else {
                        bytes.extend_from_slice(&written);
                    }
                }
            }
            Body::Tail(tail) => bytes.extend_from_slice(tail),
            Body::External(_) => bytes.extend_from_slice(&[0xff; 4]),
            Body::Device(_) | Body::Nothing => {}
        }
        put(&mut out, node.offset, &bytes);
    }
    let mut table = Vec::new();
    shared.offsets.keys().for_each(|pair| pair.write(&mut table));
    put(&mut out, end, &table);
    Ok(out)
}

fn inode(tree: &Tree, node: &Node<'_>, shared: &Shared) -> Result<ExtendedInode> {
    let metadata = &tree.inode(node.id).metadata;
    let (blocks, tail) = node.shape();
    let layout = match (&node.body, tail) {
        (Body::External(_), _) => CHUNK_BASED,
        (_, 0) => FLAT_PLAIN,
        _ => FLAT_INLINE,
    };
    let body = shared.body_size(&node.xattrs);
    let icount = if body == 0 { 0 } else { 1 + (body - size_of::<XattrHeader>() as u64) / 4 };
    let union = match node.body {
        Body::External(_) => CHUNK_FORMAT,
        Body::Device(device) => device,
        _ => u32::try_from(node.blocks_at / BLOCK)?,
    };
    let size = match node.body {
        Body::External(size) => size,
        _ => blocks * BLOCK + tail,
    };
    Ok(ExtendedInode {
        i_format: (1 | layout << 1).into(),
        i_xattr_icount: u16::try_from(icount)?.into(),
        i_mode: node.mode.into(),
        i_reserved: 0.into(),
        i_size: size.into(),
        i_u: union.into(),
        i_ino: u32::try_from(node.offset / SLOT)?.into(),
        i_uid: metadata.uid.into(),
        i_gid: metadata.gid.into(),
        i_mtime: seconds(tree, node.id)?.into(),
        i_mtime_nsec: 0.into(),
        i_nlink: node.nlink.into(),
        i_reserved2: Default::default(),
    })
}

fn write_xattrs(out: &mut Vec<u8>, pairs: &[Pair], shared: &Shared, table: u64) {
    if pairs.is_empty() {
        return;
    }
    let filter = pairs.iter().fold(0_u32, |filter, pair| {
        filter | 1 << (xxh32(&pair.suffix, FILTER_SEED + u32::from(pair.index)) % 32)
    });
    let ids: Vec<u64> = pairs.iter().filter_map(|pair| shared.offsets.get(pair).copied()).collect();
    let header = XattrHeader {
        h_name_filter: (!filter).into(),
        h_shared_count: u8::try_from(ids.len()).expect("checked by push"),
        h_reserved2: [0; 7],
    };
    out.extend_from_slice(header.as_bytes());
    for offset in ids {
        out.extend_from_slice(&(((table + offset) / 4) as u32).to_le_bytes());
    }
    pairs.iter().filter(|pair| !shared.offsets.contains_key(pair)).for_each(|pair| pair.write(out));
}

fn directory_block(nodes: &[Node<'_>], entries: &[(&[u8], u32)]) -> Vec<u8> {
    let (mut out, mut names) = (Vec::new(), Vec::new());
    let names_at = entries.len() as u64 * DIRECTORY_ENTRY;
    for (name, number) in entries {
        let node = &nodes[*number as usize];
        let offset = names_at + names.len() as u64;
        let entry = DirectoryEntry {
            nid: (node.offset / SLOT).into(),
            nameoff: u16::try_from(offset).expect("inside a block").into(),
            file_type: file_type(node.mode.into()),
            reserved: 0,
        };
        out.extend_from_slice(entry.as_bytes());
        names.extend_from_slice(name);
    }
    out.extend_from_slice(&names);
    out
}

fn put(out: &mut [u8], offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).expect("it fits into memory");
    out[offset..offset + bytes.len()].copy_from_slice(bytes);
}
