//! Directory records, and the system use entries of Rock Ridge behind them.
//!
//! ```text
//! 0 length   2 sector (both orders)   10 size (both)   18 time   25 flags   28 volume (both)   32 length of name   33 name
//! then, padded to two bytes:  SP (root only)  PX mode, links, owner  TF times  NM name  CE where more is
//! ```

use crate::tree::Inode;

/// The longest name whose record stays below 255 bytes, with its identifier of 32 and everything behind it.
pub(super) const LONGEST_NAME: usize = 120;

const DIRECTORY: u8 = 2;
const CONTINUED: u8 = 0x80;

/// Bytes in neighbouring sectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) sector: u32,
    pub(super) size: u32,
}

/// A directory record (ECMA-119, 9.1).
pub(super) struct Record<'a> {
    pub(super) identifier: &'a [u8],
    pub(super) extent: Extent,
    pub(super) directory: bool,
    /// Whether another record goes on with the same file.
    pub(super) continued: bool,
    pub(super) rock_ridge: &'a [u8],
}

impl Record<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        bytes.extend(both_u32(self.extent.sector));
        bytes.extend(both_u32(self.extent.size));
        bytes.extend(time());
        bytes.push(
            if self.directory { DIRECTORY } else { 0 } | if self.continued { CONTINUED } else { 0 },
        );
        bytes.extend([0, 0]);
        bytes.extend(both_u16(1));
        bytes.push(self.identifier.len() as u8);
        bytes.extend(self.identifier);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes.extend(self.rock_ridge);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        bytes[0] = u8::try_from(bytes.len()).expect("names are short enough");
        bytes
    }
}

/// 1970-01-01, Greenwich: years since 1900, month, day, hour, minute, second, quarters of an hour.
fn time() -> [u8; 7] {
    [70, 1, 1, 0, 0, 0, 0]
}

pub(super) fn both_u32(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(super) fn both_u16(number: u16) -> [u8; 4] {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// An entry: signature, length, version, data.
fn entry(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len() + 4).expect("entries are short");
    [&signature[..], &[len, 1], data].concat()
}

/// `SP`: entries begin right behind the name (SUSP, 5.3).
pub(super) fn sharing_protocol() -> Vec<u8> {
    entry(b"SP", &[0xbe, 0xef, 0])
}

/// `PX` and `TF`: mode, links and owner; times of modification, access and change (RRIP, 4.1.1 and 4.1.6).
pub(super) fn posix(inode: &Inode, links: u32) -> Vec<u8> {
    let metadata = &inode.metadata;
    let numbers = [inode.st_mode(), links, metadata.uid, metadata.gid];
    let mut entries = entry(b"PX", &numbers.map(both_u32).concat());
    entries.extend(entry(b"TF", &[&[0x0e][..], &time(), &time(), &time()].concat()));
    entries
}

/// `NM`: the name (RRIP, 4.1.4).
pub(super) fn name(name: &[u8]) -> Vec<u8> {
    entry(b"NM", &[&[0], name].concat())
}

/// `CE`: more entries are at the beginning of that sector (SUSP, 5.1).
pub(super) fn continuation(sector: u32) -> Vec<u8> {
    let len = extension_reference().len() as u32;
    entry(b"CE", &[sector, 0, len].map(both_u32).concat())
}

/// `ER`: which protocol the others follow (RRIP, 4.3).
pub(super) fn extension_reference() -> Vec<u8> {
    const ID: &[u8] = b"RRIP_1991A";
    const DESCRIPTION: &[u8] =
        b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS";
    let lengths = [ID.len() as u8, DESCRIPTION.len() as u8, 0, 1];
    entry(b"ER", &[&lengths[..], ID, DESCRIPTION].concat())
}
