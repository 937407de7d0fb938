//! The small files of an image: looked up by path, read whole, and never larger than what reads them expects.

use anyhow::{Context, Result};

use crate::content::{Content, ContentStore};
use crate::error::corrupt;
use crate::tree::{InodeId, Kind, Tree};

/// Bytes of a text that configures something, at most. Real ones have a few thousand.
const LARGEST_TEXT: u64 = 4 << 20;

/// The inode at a path, following links. What is below `etc/` may have been moved to `usr/etc/` already, as in a deployment.
pub fn configured(root: &Tree, path: &str) -> Option<InodeId> {
    let moved = path.strip_prefix("etc/").and_then(|rest| root.resolve(&format!("usr/etc/{rest}")));
    moved.or_else(|| root.resolve(path))
}

/// A tree and the store that its contents are in.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The tree of the image; paths are relative to its root, without a leading slash.
    pub root: &'a Tree,
    /// What its files contain.
    pub contents: &'a ContentStore,
}

impl Files<'_> {
    /// The content of a regular file, following links; `None`: there is none.
    pub fn content(&self, path: &str) -> Option<&Content> {
        match &self.root.inode(configured(self.root, path)?).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// The bytes of a regular file, following links; `None`: there is none. `Corrupt`: it has more than `most` bytes.
    pub fn bytes(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(content) = self.content(path) else { return Ok(None) };
        if content.size > most {
            return Err(corrupt(path, format!("{} bytes are too many for it", content.size)));
        }
        self.contents.bytes(content).map(Some).with_context(|| format!("reading {path}"))
    }

    /// The text of a regular file, following links; `None`: there is none. `Corrupt`: it has more than 4 MiB, or is not UTF-8.
    pub fn text(&self, path: &str) -> Result<Option<String>> {
        self.text_up_to(path, LARGEST_TEXT)
    }

    /// The text of a file of at most `most` bytes, for texts whose reading costs a multiple of their size.
    pub fn text_up_to(&self, path: &str, most: u64) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(path, most)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| corrupt(path, "it is not UTF-8"))
    }

    /// The names in a directory, in bytewise order; none if there is no such directory.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let Some(id) = configured(self.root, directory) else { return Vec::new() };
        self.root
            .inode(id)
            .children()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    /// The target of a symbolic link.
    pub fn link(&self, path: &str) -> Option<String> {
        let (directory, name) = path.rsplit_once('/')?;
        let directory = configured(self.root, directory)?;
        match &self.root.inode(self.root.lookup(directory, name.as_bytes())?).kind {
            Kind::Symlink(target) => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Corrupt;
    use crate::tree::Metadata;

    #[test]
    fn a_file_is_read_where_the_image_keeps_it_and_never_past_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let contents = ContentStore::create_in(directory.path()).unwrap();
        let mut root = Tree::new(Metadata::root(0o755));
        let mut put = |place: &str, name: &str, kind: Kind| {
            let parent = root.make_directories(place, &Metadata::root(0o755));
            root.create(parent, name.as_bytes(), Metadata::root(0o644), kind);
        };
        put("usr/etc", "a.conf", Kind::File(contents.insert_bytes(b"moved").unwrap()));
        put("usr/lib", "raw", Kind::File(contents.insert_bytes(b"\xff").unwrap()));
        put("usr/lib", "link", Kind::Symlink((*b"raw").into()));
        let files = Files { root: &root, contents: &contents };

        assert_eq!(files.text("etc/a.conf").unwrap().as_deref(), Some("moved"));
        assert_eq!(files.bytes("usr/lib/link", 1).unwrap().as_deref(), Some(&b"\xff"[..]));
        assert_eq!(files.link("usr/lib/link").as_deref(), Some("raw"));
        assert_eq!(files.names("usr/lib"), ["link", "raw"]);
        assert_eq!(files.text("usr/lib").unwrap(), None, "a directory is not a file");
        for refused in
            [files.text("usr/lib/raw").map(|_| ()), files.bytes("etc/a.conf", 4).map(|_| ())]
        {
            assert!(refused.unwrap_err().is::<Corrupt>());
        }
    }
}
