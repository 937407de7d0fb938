//! Extended attributes: in the inode, in a leaf, or in leaves under a node; large values in blocks of their own.
//!
//! ```text
//! short   |total|count|namelen valuelen flags name value| …
//! leaf    |header|hash place flags| …    |  free  |  name value|name value|
//! ```
//!
//! "XFS Algorithms & Data Structures", chapter "Extended Attributes".

use anyhow::{Context, Result, ensure};

use super::directory::{Home, NODE_MAGIC, emit_pairs, hash, seal_da};
use super::on_disk::{AttributeLeaf, BLOCK_BYTES, Free, RemoteBlock, headed, seal};
use crate::error::{corrupt, unsupported};
use crate::tree::Xattrs;

const LEAF_MAGIC: u16 = 0x3bee;
const REMOTE_MAGIC: [u8; 4] = *b"XARM";
const HEADER: usize = size_of::<AttributeLeaf>();
/// Bytes of an entry of a leaf besides name and value.
const ENTRY: usize = 8;
/// Bytes of a value in a block of its own.
const REMOTE_ROOM: usize = BLOCK_BYTES - size_of::<RemoteBlock>();
/// Bodies of so many bytes or more have their value in blocks of its own (`xfs_attr_leaf_entsize_local_max`).
const REMOTE_FROM: usize = BLOCK_BYTES / 4 * 3;
/// Children of a node.
const MAX_LEAVES: usize = 504;
/// Bytes of the longest name, without its prefix.
const MAX_NAME: usize = 255;
/// Bytes of the longest value (XFS_XATTR_SIZE_MAX).
const MAX_VALUE: usize = 65536;

/// `flags`: the value is in the leaf.
const LOCAL: u8 = 1;
/// `flags`: trusted, or one of XFS' own.
const ROOT: u8 = 2;
/// `flags`: security.
const SECURE: u8 = 4;

/// `flags` of prefixes, which are not stored.
const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 0), (b"trusted.", ROOT), (b"security.", SECURE)];
/// What POSIX ACLs are called on disk.
const ACLS: [(&[u8], &[u8]); 2] = [
    (b"system.posix_acl_access", b"SGI_ACL_FILE"),
    (b"system.posix_acl_default", b"SGI_ACL_DEFAULT"),
];

/// An attribute as it is on disk, without its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attribute {
    flags: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// All attributes of an inode, in the order of their full names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes(Vec<Attribute>);

impl Attributes {
    /// Fails at attributes that XFS does not know, or that are too large for it.
    pub(super) fn of(xattrs: &Xattrs) -> Result<Self> {
        xattrs
            .iter()
            .map(|(name, value)| Attribute::of(name, value))
            .collect::<Result<_>>()
            .map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in the inode; `None`: one of them is too large for that form.
    pub(super) fn short_size(&self) -> Option<usize> {
        let fits = |one: &Attribute| one.name.len() < 256 && one.value.len() < 256;
        let size = |one: &Attribute| 3 + one.name.len() + one.value.len();
        self.0.iter().all(fits).then(|| 4 + self.0.iter().map(size).sum::<usize>())
    }

    /// Blocks outside of the inode. Fails if there are more than one node has children for.
    pub(super) fn block_count(&self) -> Result<u64> {
        let leaves = self.leaves();
        if leaves.len() > MAX_LEAVES {
            return Err(unsupported("the extended attributes of one file exceed 2 MB", None));
        }
        let values: usize = leaves.iter().flatten().map(|one| one.remote_blocks()).sum();
        Ok((leaves.len() + usize::from(leaves.len() > 1) + values) as u64)
    }

    /// By hash, divided as they come into leaves.
    fn leaves(&self) -> Vec<Vec<&Attribute>> {
        let mut sorted: Vec<&Attribute> = self.0.iter().collect();
        sorted.sort_by_key(|one| (hash(&one.name), one.flags, &one.name));
        let (mut leaves, mut room) = (vec![Vec::new()], BLOCK_BYTES - HEADER);
        for one in sorted {
            let size = ENTRY + one.body_size();
            if room < size {
                leaves.push(Vec::new());
                room = BLOCK_BYTES - HEADER;
            }
            room -= size;
            leaves.last_mut().expect("there is one").push(one);
        }
        leaves
    }

    /// The short form, for the inode.
    pub(super) fn emit_short(&self) -> Vec<u8> {
        let size = self.short_size().expect("asked for where it is short") as u16;
        let mut bytes = size.to_be_bytes().to_vec();
        bytes.extend([self.0.len() as u8, 0]);
        for Attribute { flags, name, value } in &self.0 {
            bytes.extend([name.len() as u8, value.len() as u8, *flags]);
            bytes.extend(name);
            bytes.extend(value);
        }
        bytes
    }

    /// The blocks of the attribute fork, each with its index in the fork, given to `put`.
    pub(super) fn emit(&self, home: &Home<'_>, put: &mut dyn FnMut(u64, Vec<u8>)) {
        let leaves = self.leaves();
        let first = u64::from(leaves.len() > 1);
        let mut value_at = first + leaves.len() as u64;
        let mut tops = Vec::with_capacity(leaves.len());
        for (place, leaf) in leaves.iter().enumerate() {
            let index = first + place as u64;
            let back = if place > 0 { index - 1 } else { 0 };
            let forw = if place + 1 < leaves.len() { index + 1 } else { 0 };
            let block = emit_leaf(home, index, (back, forw), leaf, &mut value_at, put);
            put(index, block);
            let last = leaf.last().expect("no leaf is empty");
            tops.push((hash(&last.name), index as u32));
        }
        if first > 0 {
            put(0, seal_da(emit_pairs(home, 0, (0, 0), NODE_MAGIC, 1, &tops)));
        }
    }
}

impl Attribute {
    fn of(full: &[u8], value: &[u8]) -> Result<Self> {
        let shown = || full.escape_ascii().to_string();
        if let Some((_, name)) = ACLS.iter().find(|(known, _)| *known == full) {
            let value = acl(value).with_context(|| format!("reading {}", shown()))?;
            return Ok(Self { flags: ROOT, name: name.to_vec(), value });
        }
        let known = PREFIXES
            .iter()
            .find_map(|(prefix, flags)| full.strip_prefix(*prefix).map(|name| (name, *flags)));
        let Some((name, flags)) = known else {
            return Err(unsupported(
                format!("XFS cannot store the extended attribute {}", shown()),
                None,
            ));
        };
        ensure!(!name.is_empty(), corrupt(shown(), "an extended attribute without a name"));
        if name.len() > MAX_NAME || value.len() > MAX_VALUE {
            return Err(unsupported(
                format!(
                    "XFS cannot store the extended attribute {}: its name has {} bytes and its value {}; the limits are {MAX_NAME} and {MAX_VALUE}",
                    shown(),
                    name.len(),
                    value.len()
                ),
                None,
            ));
        }
        Ok(Self { flags, name: name.to_vec(), value: value.to_vec() })
    }

    fn is_remote(&self) -> bool {
        (3 + self.name.len() + self.value.len()).next_multiple_of(4) >= REMOTE_FROM
    }

    fn remote_blocks(&self) -> usize {
        if self.is_remote() { self.value.len().div_ceil(REMOTE_ROOM) } else { 0 }
    }

    /// Bytes of name and value, or of name and place of the value, in a leaf.
    fn body_size(&self) -> usize {
        let size = if self.is_remote() {
            9 + self.name.len()
        } else {
            3 + self.name.len() + self.value.len()
        };
        size.next_multiple_of(4)
    }

    fn body(&self, value_at: u64) -> Vec<u8> {
        let Self { name, value, .. } = self;
        let mut bytes = Vec::with_capacity(self.body_size());
        if self.is_remote() {
            bytes.extend((value_at as u32).to_be_bytes());
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.push(name.len() as u8);
            bytes.extend(name);
        } else {
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.push(name.len() as u8);
            bytes.extend(name);
            bytes.extend(value);
        }
        bytes
    }
}

/// A leaf, and the blocks of its large values, the first of which is at `value_at`.
fn emit_leaf(
    home: &Home<'_>,
    index: u64,
    (back, forw): (u64, u64),
    leaf: &[&Attribute],
    value_at: &mut u64,
    put: &mut dyn FnMut(u64, Vec<u8>),
) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut end = BLOCK_BYTES;
    for (place, one) in leaf.iter().enumerate() {
        let body = one.body(*value_at);
        end -= one.body_size();
        block[end..end + body.len()].copy_from_slice(&body);
        let entry = &mut block[HEADER + ENTRY * place..][..ENTRY];
        entry[..4].copy_from_slice(&hash(&one.name).to_be_bytes());
        entry[4..6].copy_from_slice(&(end as u16).to_be_bytes());
        entry[6] = one.flags | if one.is_remote() { 0 } else { LOCAL };
        if one.is_remote() {
            emit_value(home, &one.value, value_at, put);
        }
    }
    let base = HEADER + ENTRY * leaf.len();
    let free = |offset: usize, length: usize| Free {
        offset: (offset as u16).into(),
        length: (length as u16).into(),
    };
    let head = AttributeLeaf {
        forw: (forw as u32).into(),
        back: (back as u32).into(),
        magic: LEAF_MAGIC.into(),
        pad: 0.into(),
        crc: 0.into(),
        blkno: (home.daddr)(index).into(),
        lsn: 0.into(),
        uuid: home.uuid,
        owner: home.owner.into(),
        count: (leaf.len() as u16).into(),
        usedbytes: ((BLOCK_BYTES - end) as u16).into(),
        firstused: (end as u16).into(),
        holes: 0,
        pad1: 0,
        freemap: [free(base, end - base), free(0, 0), free(0, 0)],
        pad2: 0.into(),
    };
    block[..HEADER].copy_from_slice(&headed(&head, HEADER));
    seal_da(block)
}

fn emit_value(
    home: &Home<'_>,
    value: &[u8],
    value_at: &mut u64,
    put: &mut dyn FnMut(u64, Vec<u8>),
) {
    for (place, piece) in value.chunks(REMOTE_ROOM).enumerate() {
        let head = RemoteBlock {
            magic: REMOTE_MAGIC,
            offset: ((place * REMOTE_ROOM) as u32).into(),
            bytes: (piece.len() as u32).into(),
            crc: 0.into(),
            uuid: home.uuid,
            owner: home.owner.into(),
            blkno: (home.daddr)(*value_at).into(),
            lsn: 0.into(),
        };
        let mut block = headed(&head, BLOCK_BYTES);
        block[size_of::<RemoteBlock>()..][..piece.len()].copy_from_slice(piece);
        seal(&mut block, std::mem::offset_of!(RemoteBlock, crc));
        put(*value_at, block);
        *value_at += 1;
    }
}

/// A POSIX ACL as XFS has it (`xfs_acl`), from what Linux programs see: version 2, then tag, permissions and id of each entry, little-endian
/// (`posix_acl_xattr.h`).
fn acl(value: &[u8]) -> Result<Vec<u8>> {
    let entries = value.strip_prefix(&2_u32.to_le_bytes()).map(|rest| rest.as_chunks::<8>());
    let Some((entries, [])) = entries else {
        return Err(corrupt("the POSIX ACL", "it is not of version 2, or is cut off"));
    };
    let mut bytes = (entries.len() as u32).to_be_bytes().to_vec();
    for &[tag_lo, tag_hi, perm_lo, perm_hi, a, b, c, d] in entries {
        bytes.extend(u32::from(u16::from_le_bytes([tag_lo, tag_hi])).to_be_bytes());
        bytes.extend(u32::from_le_bytes([a, b, c, d]).to_be_bytes());
        bytes.extend([perm_hi, perm_lo, 0, 0]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Unsupported;

    fn attributes(pairs: &[(&[u8], &[u8])]) -> Result<Attributes> {
        let mut xattrs = Xattrs::NONE;
        pairs.iter().for_each(|(name, value)| xattrs.set(name, value));
        Attributes::of(&xattrs)
    }

    #[test]
    fn acl_is_turned_around() {
        let linux = [2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 4, 0, 0xe8, 3, 0, 0];
        let xfs = [
            0, 0, 0, 2, // entries
            0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 6, 0, 0, // owner: rw-
            0, 0, 0, 2, 0, 0, 3, 0xe8, 0, 4, 0, 0, // user 1000: r--
        ];
        assert_eq!(acl(&linux).unwrap(), xfs);
        assert!(acl(&linux[..19]).is_err());
        assert!(acl(b"").is_err());
    }

    #[test]
    fn sizes_decide_the_form() {
        let small = attributes(&[(b"security.selinux", b"label\0")]).unwrap();
        assert_eq!(small.short_size(), Some(4 + 3 + 7 + 6));
        assert_eq!(small.block_count().unwrap(), 1);
        let long = attributes(&[(b"user.x", &[0; 256])]).unwrap();
        assert_eq!(long.short_size(), None);
        // The leaf, and sixteen blocks of 4040 bytes.
        let far = attributes(&[(b"user.x", &[0; 60_000])]).unwrap();
        assert_eq!(far.block_count().unwrap(), 1 + 15);
        // A leaf holds two of 1500: a node, two leaves.
        let three =
            [(&b"user.a"[..], &[0; 1500][..]), (b"user.b", &[0; 1500]), (b"user.c", &[0; 1500])];
        assert_eq!(attributes(&three).unwrap().block_count().unwrap(), 3);
    }

    #[test]
    fn what_xfs_cannot_hold_is_refused() {
        for (name, value) in [
            (&b"system.nfs4_acl"[..], &b"x"[..]),
            (b"user.x", &[0; 65537]),
            (&[&b"user."[..], &[b'n'; 256]].concat(), b""),
        ] {
            let error = attributes(&[(name, value)]).unwrap_err();
            assert!(error.is::<Unsupported>(), "{error:#}");
        }
        assert!(attributes(&[(b"user.", b"")]).is_err());
    }
}
