//! Extended attributes: behind the inode while there is room, then in one block, which inodes with the same share.
//!
//! ```text
//! inode +a0   |magic|entry|entry|0000|    free    |value|value|     offsets count from the first entry
//! block       |header, 32 bytes|entry|entry|0000| free |value|      offsets count from the block's start
//! ```

use anyhow::{Result, ensure};
use zerocopy::IntoBytes;

use super::checksum::Crc;
use super::on_disk::{BLOCK_BYTES, INODE_XATTR_BYTES, XATTR_MAGIC, XattrEntry, XattrHeader};
use crate::error::{corrupt, unsupported};
use crate::tree::Xattrs;

const ENTRY: usize = size_of::<XattrEntry>();
const HEADER: usize = size_of::<XattrHeader>();
const MAGIC: usize = 4;
/// Four zero bytes after the last entry.
const END: usize = 4;
/// A block that more inodes share is written again: the kernel's EXT4_XATTR_REFCOUNT_MAX.
pub(super) const MAX_REFERENCES: u32 = 1024;

/// `e_name_index` of prefixes, which are not stored. Others the kernel would not show.
const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
/// `e_name_index` of whole names.
const ACLS: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];

/// The attributes of an inode, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// What stands behind the inode.
    pub(super) inode: [u8; INODE_XATTR_BYTES],
    /// The block for what did not fit there, without reference count and checksum; `seal` adds them.
    pub(super) block: Option<Vec<u8>>,
}

/// One attribute, its prefix already an index. The derived order is the one that the kernel wants in a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute {
    index: u8,
    length: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Encodes the attributes of an inode. Fails if they need more than one block, or are such as ext4 does not know.
pub(super) fn encode(xattrs: &Xattrs) -> Result<Encoded> {
    let mut attributes = xattrs
        .iter()
        .map(|(name, value)| Attribute::new(name, value))
        .collect::<Result<Vec<_>>>()?;
    attributes.sort();
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    let mut room = INODE_XATTR_BYTES - MAGIC - END;
    // The SELinux label is asked for at each access: it has the first claim on the inode.
    attributes.sort_by_key(|attribute| !(attribute.index == 6 && attribute.name == b"selinux"));
    for attribute in attributes {
        if attribute.bytes() <= room {
            room -= attribute.bytes();
            inside.push(attribute);
        } else {
            outside.push(attribute);
        }
    }
    let mut inode = [0; INODE_XATTR_BYTES];
    if !inside.is_empty() {
        inside.sort();
        inode[..MAGIC].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
        write(&mut inode, MAGIC, MAGIC, &inside);
    }
    let block = if outside.is_empty() { None } else { Some(encode_block(outside)?) };
    Ok(Encoded { inode, block })
}

fn encode_block(mut attributes: Vec<Attribute>) -> Result<Vec<u8>> {
    let needs: usize = attributes.iter().map(Attribute::bytes).sum();
    let room = BLOCK_BYTES - HEADER - END;
    if needs > room {
        let largest = attributes.iter().max_by_key(|attribute| attribute.bytes());
        let name = largest.map(|a| a.name.escape_ascii().to_string()).unwrap_or_default();
        return Err(unsupported(
            format!(
                "the extended attributes take {needs} bytes, and ext4 has room for {room}; the largest is \"{name}\""
            ),
            Some("use fewer or shorter extended attributes"),
        ));
    }
    attributes.sort();
    let mut block = vec![0; BLOCK_BYTES];
    write(&mut block, HEADER, 0, &attributes);
    // An attribute with hash zero makes the block's zero, which keeps the kernel from sharing it.
    let hashes = || attributes.iter().map(Attribute::hash);
    let hash = if hashes().all(|hash| hash != 0) {
        hashes().fold(0_u32, |sum, hash| sum.rotate_left(16) ^ hash)
    } else {
        0
    };
    let header = XattrHeader {
        h_magic: XATTR_MAGIC.into(),
        h_refcount: 0.into(),
        h_blocks: 1.into(),
        h_hash: hash.into(),
        h_checksum: 0.into(),
        h_reserved: [0.into(); 3],
    };
    block[..HEADER].copy_from_slice(header.as_bytes());
    Ok(block)
}

/// Adds to a block how many inodes share it, and its checksum, which covers where it is.
pub(super) fn seal(block: &mut [u8], references: u32, number: u64, filesystem: Crc) {
    block[4..8].copy_from_slice(&references.to_le_bytes());
    let sum = filesystem.with(&number.to_le_bytes()).with(block);
    block[16..20].copy_from_slice(&sum.value().to_le_bytes());
}

/// Writes entries from `start` on and values from the end back; `base` is what offsets count from.
fn write(place: &mut [u8], start: usize, base: usize, attributes: &[Attribute]) {
    let mut position = start;
    let mut end = place.len();
    for attribute in attributes {
        end -= attribute.value.len().next_multiple_of(4);
        let entry = XattrEntry {
            e_name_len: attribute.name.len() as u8,
            e_name_index: attribute.index,
            // The kernel writes no offset for an empty value.
            e_value_offs: if attribute.value.is_empty() { 0 } else { (end - base) as u16 }.into(),
            e_value_inum: 0.into(),
            e_value_size: (attribute.value.len() as u32).into(),
            e_hash: attribute.hash().into(),
        };
        place[position..position + ENTRY].copy_from_slice(entry.as_bytes());
        let name = position + ENTRY;
        place[name..name + attribute.name.len()].copy_from_slice(&attribute.name);
        place[end..end + attribute.value.len()].copy_from_slice(&attribute.value);
        position = name + attribute.name.len().next_multiple_of(4);
    }
    assert!(position + END <= end, "extended attributes overlap their values");
}

impl Attribute {
    fn new(name: &[u8], value: &[u8]) -> Result<Self> {
        let shown = || name.escape_ascii().to_string();
        if let Some(&(_, index)) = ACLS.iter().find(|(acl, _)| name == *acl) {
            let value = acl_from_xattr(value).ok_or_else(|| {
                corrupt(format!("the access list {}", shown()), "it is not in format 2")
            })?;
            return Ok(Self { index, length: 0, name: Vec::new(), value });
        }
        let known = PREFIXES
            .iter()
            .find_map(|(prefix, index)| Some((name.strip_prefix(*prefix)?, *index)))
            .filter(|(rest, _)| !rest.is_empty());
        let Some((rest, index)) = known else {
            return Err(unsupported(
                format!("ext4 cannot hold the extended attribute \"{}\"", shown()),
                Some(
                    "names begin with user., trusted. or security., or are those of POSIX access lists",
                ),
            ));
        };
        ensure!(
            rest.len() <= 255,
            corrupt(format!("the extended attribute \"{}\"", shown()), "its name is too long")
        );
        Ok(Self { index, length: rest.len(), name: rest.to_vec(), value: value.to_vec() })
    }

    /// What it takes of the room that entries and values share.
    fn bytes(&self) -> usize {
        ENTRY + self.name.len().next_multiple_of(4) + self.value.len().next_multiple_of(4)
    }

    /// `e_hash`: the name by bytes, then the value by words, padded with zeros. Bytes above 127 are taken as signed, as
    /// x86 always has; newer kernels and e2fsck accept both.
    fn hash(&self) -> u32 {
        let mut hash = 0_u32;
        for byte in &self.name {
            hash = hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned();
        }
        for chunk in self.value.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(word);
        }
        hash
    }
}

/// Turns a POSIX access list as `getxattr` gives it (version 2: tag, permissions and id for each entry) into ext4's own
/// (version 1: ids only where there are any). `None` if it is not such a list.
fn acl_from_xattr(value: &[u8]) -> Option<Vec<u8>> {
    /// ACL_USER and ACL_GROUP name someone.
    const WITH_ID: [u16; 2] = [0x02, 0x08];
    /// ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER do not.
    const WITHOUT_ID: [u16; 4] = [0x01, 0x04, 0x10, 0x20];

    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let (entries, rest) = entries.as_chunks::<8>();
    let mut out = 1_u32.to_le_bytes().to_vec();
    for entry in entries {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if WITH_ID.contains(&tag) {
            out.extend(entry);
        } else if WITHOUT_ID.contains(&tag) {
            out.extend(&entry[..4]);
        } else {
            return None;
        }
    }
    rest.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
        let mut xattrs = Xattrs::NONE;
        for (name, value) in pairs {
            xattrs.set(name.as_bytes(), value);
        }
        xattrs
    }

    #[test]
    fn none_is_nothing() {
        let encoded = encode(&Xattrs::NONE).unwrap();
        assert_eq!(encoded, Encoded { inode: [0; 96], block: None });
    }

    #[test]
    fn the_label_has_the_first_claim_on_the_inode() {
        let label = b"system_u:object_r:usr_t:s0\0";
        let encoded =
            encode(&xattrs(&[("security.selinux", label), ("user.a", &[1; 40]), ("user.b", &[])]))
                .unwrap();
        assert_eq!(&encoded.inode[96 - 28..96 - 1], label);
        let block = encoded.block.unwrap();
        assert_eq!(&block[HEADER..HEADER + 2], [1, 1]);
        assert_eq!(&block[HEADER + ENTRY..HEADER + ENTRY + 1], b"a");
        assert_eq!(block[4096 - 40..], [1; 40]);
    }

    #[test]
    fn what_fits_exactly_fits() {
        let room = BLOCK_BYTES - HEADER - END - ENTRY - 4;
        assert!(encode(&xattrs(&[("user.a", &vec![7; room])])).is_ok());
        let error = encode(&xattrs(&[("user.a", &vec![7; room + 1])])).unwrap_err();
        assert!(error.is::<crate::error::Unsupported>(), "{error}");
        // 96 bytes less magic, end, entry and name.
        assert_eq!(encode(&xattrs(&[("user.a", &[7; 68])])).unwrap().block, None);
        assert!(encode(&xattrs(&[("user.a", &[7; 69])])).unwrap().block.is_some());
    }

    #[test]
    fn access_lists_are_converted() {
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in [(1_u16, 7_u16, u32::MAX), (2, 5, 1000), (4, 5, u32::MAX)] {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        let expected = [1, 0, 0, 0, 1, 0, 7, 0, 2, 0, 5, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0];
        assert_eq!(acl_from_xattr(&list).unwrap(), expected);
        for bad in [&list[..9], b"", &[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0]] {
            assert_eq!(acl_from_xattr(bad), None);
            let error = encode(&xattrs(&[("system.posix_acl_access", bad)])).unwrap_err();
            assert!(error.is::<crate::error::Corrupt>(), "{error}");
        }
    }

    #[test]
    fn names_that_ext4_cannot_hold_are_refused() {
        for name in ["user.", "system.nfs4_acl", "com.apple.quarantine", ""] {
            assert!(encode(&xattrs(&[(name, b"x")])).is_err(), "{name}");
        }
    }
}
