//! A repository as one of mode `archive`, which ostree pulls from by HTTP: the same objects, its files wrapped and "compressed".
//!
//! ```text
//! config   refs/heads/NAME   objects/xx/yyyy….{commit,commitmeta,dirmeta,dirtree}     as in mode bare
//! objects/xx/yyyy….filez
//!     0  length of the header  u32 BE      4  padding, 4 bytes
//!     8  header  (tuuuusa(ayay))           size of the content u64 BE; then as in a content object
//!     …  the content as a raw deflate stream (RFC 1951); a symbolic link has none
//! ```
//!
//! Nothing is compressed: every block of the stream is a stored one. What reads it is on the same machine.

use std::io::{self, Cursor, Read};

use super::gvariant::Tuple;
use super::object::{self, MetadataKind};
use super::repo::Repository;
use crate::content::ContentStore;
use crate::tree::{Inode, Kind};

const CONFIGURATION: &[u8] = b"[core]\nrepo_version=1\nmode=archive-z2\n";

/// Bytes of a stored block, at most; its length is a u16.
const BLOCK: u64 = 0xffff;

/// Bytes before a stored block: flags, length, length inverted.
const BLOCK_HEADER: u64 = 5;

/// A file of the repository.
pub struct Archived<'a> {
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes.
    pub body: Box<dyn Read + 'a>,
}

impl Repository {
    /// The file at a path below the repository: `objects/xx/yyyy.filez`; `None` if it has none there.
    pub fn archived<'a>(&'a self, path: &str, contents: &'a ContentStore) -> Option<Archived<'a>> {
        let whole = |bytes: Vec<u8>| Archived {
            size: bytes.len() as u64,
            body: Box::new(Cursor::new(bytes)),
        };
        if path == "config" {
            return Some(whole(CONFIGURATION.to_vec()));
        }
        if let Some(name) = path.strip_prefix("refs/heads/") {
            return self.refs.get(name).map(|commit| whole(format!("{commit}\n").into_bytes()));
        }
        let (digits, extension) = path.strip_prefix("objects/")?.rsplit_once('.')?;
        let checksum = object::parse_checksum(&digits.replacen('/', "", 1))?;
        if extension == "filez" {
            return self.files.get(&checksum).map(|inode| wrapped(inode, contents));
        }
        let kind = MetadataKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        self.metadata.get(&(checksum, kind)).map(|bytes| whole(bytes.clone()))
    }
}

/// A content object as a `.filez`.
fn wrapped<'a>(inode: &Inode, contents: &'a ContentStore) -> Archived<'a> {
    let header = header(inode);
    let Kind::File(content) = &inode.kind else {
        return Archived { size: header.len() as u64, body: Box::new(Cursor::new(header)) };
    };
    // At least one, which says that it is the last.
    let blocks = content.size.div_ceil(BLOCK).max(1);
    let size = header.len() as u64 + content.size + blocks * BLOCK_HEADER;
    let stream = Stored { content: contents.reader(content), left: content.size, block: None };
    Archived { size, body: Box::new(Cursor::new(header).chain(stream)) }
}

fn header(inode: &Inode) -> Vec<u8> {
    let (size, target): (u64, &[u8]) = match &inode.kind {
        Kind::File(content) => (content.size, b""),
        Kind::Symlink(target) => (0, target),
        other => panic!("{other:?} is not a content object"),
    };
    let metadata = &inode.metadata;
    let header = Tuple::new()
        .fixed(&size.to_be_bytes())
        .fixed(&metadata.uid.to_be_bytes())
        .fixed(&metadata.gid.to_be_bytes())
        .fixed(&inode.st_mode().to_be_bytes())
        .fixed(&[0; 4])
        .string(target)
        .last(&object::xattr_list(&metadata.xattrs), 1);
    let length = u32::try_from(header.len()).expect("xattrs of less than 4 GiB");
    [&length.to_be_bytes()[..], &[0; 4], &header].concat()
}

/// Content as a raw deflate stream of stored blocks.
struct Stored<R> {
    content: R,
    /// Bytes of content that are in no block yet.
    left: u64,
    /// The block that is being read: its header, and how much of its content is to come. `None` before the first.
    block: Option<(Cursor<[u8; BLOCK_HEADER as usize]>, u64)>,
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let finished = match &self.block {
            None => true,
            Some((header, data)) => *data == 0 && header.position() == BLOCK_HEADER,
        };
        if finished {
            if self.block.is_some() && self.left == 0 {
                return Ok(0);
            }
            let size = self.left.min(BLOCK);
            self.left -= size;
            let [low, high, ..] = size.to_le_bytes();
            let header = [u8::from(self.left == 0), low, high, !low, !high];
            self.block = Some((Cursor::new(header), size));
        }
        let (header, data) = self.block.as_mut().expect("there is one now");
        if header.position() < BLOCK_HEADER {
            return header.read(buffer);
        }
        let wanted = buffer.len().min(usize::try_from(*data).unwrap_or(usize::MAX));
        let count = self.content.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *data -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    fn store() -> ContentStore {
        ContentStore::create_in(&std::env::temp_dir()).unwrap()
    }

    fn read(archived: Archived<'_>) -> Vec<u8> {
        let Archived { size, mut body } = archived;
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        bytes
    }

    #[test]
    fn contents_come_out_of_stored_blocks() {
        let store = store();
        for size in [0, 1, 65_535, 65_536, 200_000_usize] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let content = store.insert_bytes(&bytes).unwrap();
            let inode = Inode { metadata: Metadata::root(0o644), kind: Kind::File(content) };
            let wrapped = read(wrapped(&inode, &store));
            let header = header(&inode);
            assert!(wrapped.starts_with(&header));
            assert_eq!(header[8..16], (size as u64).to_be_bytes());
            let mut inflated = Vec::new();
            let stream = &wrapped[header.len()..];
            flate2::read::DeflateDecoder::new(stream).read_to_end(&mut inflated).unwrap();
            assert!(inflated == bytes, "{size}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_served() {
        let (store, mut repository) = (store(), Repository::default());
        let link =
            Inode { metadata: Metadata::root(0o777), kind: Kind::Symlink((*b"target").into()) };
        let name = object::file_checksum(&link, &store, &|_| {}).unwrap();
        repository.files.insert(name, link);
        repository.refs.insert("a/b".to_owned(), name);
        let text = |path: &str| repository.archived(path, &store).map(read);
        assert_eq!(text("config").unwrap(), CONFIGURATION);
        assert_eq!(text("refs/heads/a/b").unwrap(), format!("{name}\n").as_bytes());
        let digits = name.to_string();
        let path = format!("objects/{}/{}", &digits[..2], &digits[2..]);
        assert!(text(&format!("{path}.filez")).unwrap().ends_with(b"target\0\x1f"));
        for absent in ["summary", "refs/heads/b", "objects/", "../etc/passwd", &path] {
            assert!(text(absent).is_none(), "{absent}");
        }
        assert!(text(&format!("{path}.dirtree")).is_none());
    }
}
