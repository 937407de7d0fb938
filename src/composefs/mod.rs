//! Layers → the repository and deployment of bootc's composefs backend, as a tree.
//!
//! ```text
//! layers ─unite─► Union ─transform─► boot tree ─► EROFS image, whose fs-verity digest names the deployment
//!    └─pieces─► split streams ─┐                      │
//! manifest, config ────────────┴─► /composefs/objects ┴─► Installed: /composefs, /state, boot entries
//! ```
//!
//! The rules are those of composefs-rs 0.9 and bootc 1.16 to 1.17; they differ from those of the ostree backend in almost everything.

mod deploy;
mod entry;
mod images;
mod objects;
mod state;
mod stream;
mod transform;
mod uki;
mod union;

use std::fmt;
use std::sync::Arc;

use anyhow::Result;

use crate::content::{Content, ContentStore};
use crate::tree::{InodeId, Stored, Tree, Verity};

pub use deploy::{
    BootFiles, Customize, DeployOptions, Deployed, Import, Starter, SystemParts, deploy,
};
pub use images::{Imaging, check};
pub use state::RootSshKeys;
pub use uki::Uki;
pub use union::{Union, unite};

/// The largest content that is kept in a split stream and in an EROFS image; larger ones are objects (composefs 0.9,
/// `INLINE_CONTENT_MAX_V0`).
pub const LARGEST_INLINE: u64 = 64;

/// The SHA-512 fs-verity digest that names an object and an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 64]);

impl ObjectId {
    /// The path of the object below `objects`: `XX/` and 126 digits.
    fn path(&self) -> String {
        let name = self.to_string();
        format!("{}/{}", &name[..2], &name[2..])
    }

    /// Reads 128 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 64];
        if text.len() != 128 || !text.is_ascii() {
            return None;
        }
        for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The formats of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What repositories have.
    V1,
    /// What some unified kernel images name.
    V2,
}

/// Writes an image of a tree: given the tree, where the content of each regular file is, and the format.
pub type ImageWriter<'a> =
    dyn Fn(&Tree, &dyn Fn(InodeId) -> Option<Stored>, Format) -> Result<Vec<u8>> + 'a;

/// Computes the SHA-512 fs-verity of a content, which is in this store; what has to be stored of it goes there, too.
pub type FsVerity<'a> = dyn Fn(&Content, &ContentStore) -> Result<Verity> + Sync + 'a;

/// The label of a path, given the `st_mode` of what is there; `None`: it has none.
pub type LabelOf<'a> = dyn Fn(&str, u32) -> Result<Option<Arc<[u8]>>> + Sync + 'a;

/// The label of a path inside an image, given the `st_mode` of what is there.
pub type ImageLabel<'a> = dyn Fn(&[u8], u32) -> Result<Option<Arc<[u8]>>> + 'a;

/// How composefs-rs labels what is in an image.
#[derive(Clone, Copy)]
pub struct ImageLabels<'a> {
    /// The path as which a path is labelled, with everything below it, if it is another one.
    pub alias: &'a (dyn Fn(&[u8]) -> Option<Vec<u8>> + 'a),
    /// The label of a path, without the final NUL.
    pub label: &'a ImageLabel<'a>,
}

impl fmt::Debug for ImageLabels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImageLabels")
    }
}
