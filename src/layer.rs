//! One layer of an image as its archive tells it: entries in their order, contents already in the store.
//!
//! Nothing is united, renamed or dropped here: what an entry does to a tree differs between ostree's importer and others,
//! so the back end that knows the rules applies them.

use crate::content::Content;
use crate::tree::Metadata;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Directory.
    Directory,
    /// Regular file; its content is whole, holes and all.
    File(Content),
    /// Symbolic link; the target is taken literally.
    Symlink(Box<[u8]>),
    /// Another name for an entry of the same layer; the target as the archive spells it.
    HardLink(Box<[u8]>),
    /// Character device.
    CharacterDevice(u32, u32),
    /// Block device.
    BlockDevice(u32, u32),
    /// Named pipe.
    Fifo,
}

/// One archive entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive spells it: may begin with `/` or `./`, may be `./` for the root; never contains NUL, never a
    /// `..` component (reading refuses those).
    pub path: Box<[u8]>,
    /// Mode, owner, time and extended attributes, PAX records applied. `immutable` is false.
    pub metadata: Metadata,
    /// The fraction of its time, in nanoseconds; archives say it in PAX records only.
    pub nanoseconds: u32,
    /// What it is.
    pub kind: EntryKind,
}

/// A piece of a layer's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Headers, padding and everything else, as it lies in the archive.
    Bytes(Content),
    /// The body of a regular file.
    File(Content),
}

/// One layer, unpacked.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Digest of the blob as stored: `sha256:…`.
    pub digest: String,
    /// Digest of the uncompressed archive.
    pub diff_id: String,
    /// Bytes of the blob as stored.
    pub size: u64,
    /// Entries in archive order.
    pub entries: Vec<Entry>,
}
