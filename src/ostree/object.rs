//! ostree's objects as bytes, and their checksums.
//!
//! ```text
//! file     (uuuusa(ayay))      owner, group, st_mode, 0, link target, xattrs — a header, hashed before the content
//! dirmeta  (uuua(ayay))        owner, group, st_mode, xattrs
//! dirtree  (a(say)a(sayay))    names of files; names of directories with their dirtree and dirmeta
//! commit   (a{sv}aya(say)sstayay)
//! ```
//!
//! The integers are big-endian inside little-endian variants. Times, link counts and sizes are in none of them.

use std::io;

use super::Checksum;
use super::gvariant::{self, Member, Tuple};
use crate::content::ContentStore;
use crate::sha256::Sha256;
use crate::tree::{Inode, Kind, Metadata, Xattrs};

/// Bytes that are read from the spool at once.
const BUFFER: usize = 256 * 1024;

/// The extensions of objects that are values; a content object's is `file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum MetadataKind {
    Commit,
    /// Signatures and caches beside a commit; the commit's checksum names it, its own bytes do not.
    CommitMeta,
    DirMeta,
    DirTree,
}

impl MetadataKind {
    pub(super) const ALL: [Self; 4] =
        [Self::Commit, Self::CommitMeta, Self::DirMeta, Self::DirTree];

    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::CommitMeta => "commitmeta",
            Self::DirMeta => "dirmeta",
            Self::DirTree => "dirtree",
        }
    }
}

/// A directory's names, in bytewise order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DirTree {
    /// Regular files and symbolic links, with their content objects.
    pub(super) files: Vec<(String, Checksum)>,
    /// Directories: dirtree and dirmeta.
    pub(super) directories: Vec<(String, Checksum, Checksum)>,
}

/// What a commit says, without the metadata and words that nobody here asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitRoot {
    pub(super) dirtree: Checksum,
    pub(super) dirmeta: Checksum,
}

/// What goes into a commit; subject and body are empty in all that we make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit<'a> {
    /// String values, in the order in which they are written.
    pub(super) metadata: &'a [(&'a str, &'a str)],
    pub(super) parent: Option<Checksum>,
    /// Seconds since 1970.
    pub(super) timestamp: u64,
    pub(super) root: CommitRoot,
}

/// SHA-256 of bytes: the name of a metadata object.
pub(super) fn checksum(bytes: &[u8]) -> Checksum {
    Checksum(Sha256::of(bytes))
}

/// 64 lower-case hexadecimal digits.
pub(super) fn parse_checksum(digits: &str) -> Option<Checksum> {
    if digits.len() != 64 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(Checksum(bytes))
}

/// `a(ayay)`: names with their NUL, and values.
pub(super) fn xattr_list(xattrs: &Xattrs) -> Vec<u8> {
    gvariant::array(xattrs.iter().map(|(name, value)| Tuple::new().string(name).last(value, 1)), 1)
}

/// Reads [`xattr_list`]; `None` unless it is exactly what that writes.
pub(super) fn parse_xattr_list(bytes: &[u8]) -> Option<Xattrs> {
    let mut xattrs = Xattrs::NONE;
    for item in gvariant::items(bytes, 1)? {
        let pair = gvariant::members(item, &[Member::Variable(1), Member::Variable(1)])?;
        let (last, name) = pair[0].split_last()?;
        if *last != 0 || name.is_empty() || name.contains(&0) {
            return None;
        }
        xattrs.set(name, pair[1]);
    }
    (xattr_list(&xattrs) == bytes).then_some(xattrs)
}

/// The bytes that are hashed before a content object's content: length, padding and header.
/// The inode must be a regular file or a symbolic link.
pub(super) fn file_header(inode: &Inode) -> Vec<u8> {
    let target: &[u8] = match &inode.kind {
        Kind::Symlink(target) => target,
        Kind::File(_) => b"",
        other => panic!("{other:?} is not a content object"),
    };
    let metadata = &inode.metadata;
    let header = Tuple::new()
        .fixed(&metadata.uid.to_be_bytes())
        .fixed(&metadata.gid.to_be_bytes())
        .fixed(&inode.st_mode().to_be_bytes())
        // The device number of special files, which are no objects any more.
        .fixed(&[0; 4])
        .string(target)
        .last(&xattr_list(&metadata.xattrs), 1);
    let length = u32::try_from(header.len()).expect("xattrs of less than 4 GiB");
    [&length.to_be_bytes()[..], &[0; 4], &header].concat()
}

/// The name of a content object, from an earlier build if the store knows it. `advance` hears how many bytes of content are done.
pub(super) fn file_checksum(
    inode: &Inode,
    contents: &ContentStore,
    advance: &dyn Fn(u64),
) -> io::Result<Checksum> {
    let header = file_header(inode);
    let known = match &inode.kind {
        Kind::File(content) if contents.keeps_sums_of(content.id) => {
            Some((content, Sha256::of(&header)))
        }
        _ => None,
    };
    if let Some((content, what)) = &known
        && let Some(sum) = contents.known_sum(content.id, what)
    {
        advance(content.size);
        return Ok(Checksum(sum));
    }
    let mut hash = Sha256::new();
    hash.update(header);
    if let Kind::File(content) = &inode.kind {
        let mut buffer = vec![0; BUFFER.min(usize::try_from(content.size).unwrap_or(BUFFER))];
        let mut position = 0;
        while position < content.size {
            let left = usize::try_from(content.size - position).unwrap_or(usize::MAX);
            let count = buffer.len().min(left);
            contents.read_exact_at(content.id, position, &mut buffer[..count])?;
            hash.update(&buffer[..count]);
            position += count as u64;
            advance(count as u64);
        }
    }
    let sum = hash.finish();
    if let Some((content, what)) = known {
        contents.note_sum(content.id, what, sum);
    }
    Ok(Checksum(sum))
}

/// A dirmeta object.
pub(super) fn dirmeta(metadata: &Metadata) -> Vec<u8> {
    let mode = Kind::directory().type_bits() | u32::from(metadata.mode);
    Tuple::new()
        .fixed(&metadata.uid.to_be_bytes())
        .fixed(&metadata.gid.to_be_bytes())
        .fixed(&mode.to_be_bytes())
        .last(&xattr_list(&metadata.xattrs), 1)
}

/// Reads a dirmeta object; `None` unless it is one, in normal form.
pub(super) fn parse_dirmeta(bytes: &[u8]) -> Option<Metadata> {
    let layout = [Member::Fixed(4), Member::Fixed(4), Member::Fixed(4), Member::Variable(1)];
    let members = gvariant::members(bytes, &layout)?;
    let integer = |index: usize| Some(u32::from_be_bytes(members[index].try_into().ok()?));
    let metadata = Metadata {
        uid: integer(0)?,
        gid: integer(1)?,
        mode: u16::try_from(integer(2)? & 0o7777).ok()?,
        xattrs: parse_xattr_list(members[3])?,
        ..Metadata::root(0)
    };
    (dirmeta(&metadata) == bytes).then_some(metadata)
}

impl DirTree {
    /// A dirtree object.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let files = gvariant::array(
            self.files
                .iter()
                .map(|(name, file)| Tuple::new().string(name.as_bytes()).last(&file.0, 1)),
            1,
        );
        let directories = gvariant::array(
            self.directories.iter().map(|(name, tree, meta)| {
                Tuple::new().string(name.as_bytes()).variable(&tree.0, 1).last(&meta.0, 1)
            }),
            1,
        );
        Tuple::new().variable(&files, 1).last(&directories, 1)
    }

    /// Reads a dirtree object; `None` unless it is one, in normal form, with names that a directory can have.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut tree = Self::default();
        let arrays = gvariant::members(bytes, &[Member::Variable(1); 2])?;
        for item in gvariant::items(arrays[0], 1)? {
            let file = gvariant::members(item, &[Member::Variable(1); 2])?;
            tree.files.push((name(file[0])?, Checksum(file[1].try_into().ok()?)));
        }
        for item in gvariant::items(arrays[1], 1)? {
            let directory = gvariant::members(item, &[Member::Variable(1); 3])?;
            tree.directories.push((
                name(directory[0])?,
                Checksum(directory[1].try_into().ok()?),
                Checksum(directory[2].try_into().ok()?),
            ));
        }
        let sorted = tree.files.is_sorted_by(|a, b| a.0 < b.0)
            && tree.directories.is_sorted_by(|a, b| a.0 < b.0);
        (sorted && tree.to_bytes() == bytes).then_some(tree)
    }
}

impl Commit<'_> {
    /// The commit object.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        commit_bytes(
            &gvariant::strings(self.metadata),
            self.parent.as_ref().map_or(&[], |parent| &parent.0),
            [b"", b""],
            self.timestamp,
            self.root,
        )
    }
}

/// Where a commit's tree begins; `None` unless it is a commit in normal form (its metadata is not looked into).
pub(super) fn parse_commit(bytes: &[u8]) -> Option<CommitRoot> {
    let layout = [
        Member::Variable(8),
        Member::Variable(1),
        Member::Variable(1),
        Member::Variable(1),
        Member::Variable(1),
        Member::Fixed(8),
        Member::Variable(1),
        Member::Variable(1),
    ];
    let members = gvariant::members(bytes, &layout)?;
    let root = CommitRoot {
        dirtree: Checksum(members[6].try_into().ok()?),
        dirmeta: Checksum(members[7].try_into().ok()?),
    };
    let words = [gvariant::text(members[3])?.as_bytes(), gvariant::text(members[4])?.as_bytes()];
    let time = u64::from_be_bytes(members[5].try_into().ok()?);
    // `related` has never been anything but empty.
    let again = commit_bytes(members[0], members[1], words, time, root);
    (again == bytes).then_some(root)
}

fn commit_bytes(
    metadata: &[u8],
    parent: &[u8],
    [subject, body]: [&[u8]; 2],
    timestamp: u64,
    root: CommitRoot,
) -> Vec<u8> {
    Tuple::new()
        .variable(metadata, 8)
        .variable(parent, 1)
        .variable(&[], 1)
        .string(subject)
        .string(body)
        .fixed(&timestamp.to_be_bytes())
        .variable(&root.dirtree.0, 1)
        .last(&root.dirmeta.0, 1)
}

/// A string that can name something in a directory.
fn name(bytes: &[u8]) -> Option<String> {
    let name = gvariant::text(bytes)?;
    let usable = !matches!(name, "" | "." | "..") && !name.contains('/') && name.len() <= 255;
    usable.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> ContentStore {
        ContentStore::create_in(&std::env::temp_dir()).unwrap()
    }

    fn inode(mode: u16, kind: Kind, xattrs: &[(&[u8], &[u8])]) -> Inode {
        let mut metadata = Metadata::root(mode);
        for (name, value) in xattrs {
            metadata.xattrs.set(name, value);
        }
        Inode { metadata, kind }
    }

    /// What ostree 2022.7 calls these objects.
    #[test]
    fn names_are_those_of_ostree() {
        let label = (&b"security.selinux"[..], &b"system_u:object_r:usr_t:s0\0"[..]);
        let plain = dirmeta(&Metadata::root(0o755));
        assert_eq!(plain, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0xed]);
        let labelled = dirmeta(&inode(0o755, Kind::directory(), &[label]).metadata);
        let empty = DirTree::default().to_bytes();
        assert_eq!(empty, [0]);
        let root = CommitRoot { dirtree: checksum(&empty), dirmeta: checksum(&plain) };
        let commit = Commit { metadata: &[], parent: None, timestamp: 0, root }.to_bytes();
        assert_eq!(commit[80..], [0x30, 2, 1, 0, 0, 0]);
        for (bytes, name) in [
            (&plain, "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"),
            (&labelled, "9c359a8bcc95143dcc1db8f6e3897d4e53e2562aa9ac41b1d5a0c1dfb2f6c468"),
            (&empty, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (&commit, "6109d33e99f48e9b90cdf8ad037b8e5d20ef899697cfd3eb492cf78800aed498"),
        ] {
            assert_eq!(checksum(bytes).to_string(), name);
        }
    }

    #[test]
    fn contents_are_named_with_their_metadata() {
        let store = store();
        let hello = store.insert_bytes(b"hello\n").unwrap();
        let label = (&b"security.selinux"[..], &b"system_u:object_r:usr_t:s0\0"[..]);
        for (inode, name) in [
            (
                inode(0o644, Kind::File(crate::content::Content::EMPTY), &[]),
                "cc700d46f407c6c5ab2d5dde474366a928b7398277e61162e7f8ec06f469f07e",
            ),
            (
                inode(0o755, Kind::File(hello.clone()), &[(b"user.test", b"abc")]),
                "1b345c5d43d07eb89787ae5a11d9e67fe1702365a27d74f951b8845707a41972",
            ),
            (
                inode(0o777, Kind::Symlink((*b"hello").into()), &[]),
                "73baaba0102e9154b8522687d33eedb8ed1bc78eadb82428b2616144ec502934",
            ),
            (
                inode(0o644, Kind::File(hello), &[label]),
                "8428bf5e7cc4ff7f258dad715c4da28d103dd5d1aa5dfc2e3d7c92f5ca28deee",
            ),
        ] {
            let read = std::cell::Cell::new(0);
            let found = file_checksum(&inode, &store, &|n| read.set(read.get() + n)).unwrap();
            assert_eq!(found.to_string(), name);
            if let Kind::File(content) = inode.kind {
                assert_eq!(read.get(), content.size);
            }
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let metadata =
            inode(0o1770, Kind::directory(), &[(b"user.a", b""), (b"user.b", &[0; 300])]).metadata;
        assert_eq!(parse_dirmeta(&dirmeta(&metadata)), Some(metadata));
        let sum = checksum(b"x");
        let tree = DirTree {
            files: vec![("a".into(), sum), ("ä".into(), sum)],
            directories: vec![("b".into(), sum, checksum(b"y"))],
        };
        assert_eq!(DirTree::parse(&tree.to_bytes()), Some(tree));
        let root = CommitRoot { dirtree: sum, dirmeta: checksum(b"z") };
        let commit =
            Commit { metadata: &[("k", "v")], parent: Some(sum), timestamp: 1 << 40, root };
        assert_eq!(parse_commit(&commit.to_bytes()), Some(root));
        assert_eq!(parse_checksum(&sum.to_string()), Some(sum));
        assert_eq!(parse_checksum(&sum.to_string().to_uppercase()), None);
    }

    #[test]
    fn names_that_would_leave_a_directory_are_refused() {
        let sum = checksum(b"x");
        let tree = |names: &[&str]| DirTree {
            files: names.iter().map(|name| ((*name).to_owned(), sum)).collect(),
            directories: Vec::new(),
        };
        for names in [&["."][..], &[".."], &[""], &["a/b"], &["b", "a"], &["a", "a"]] {
            assert_eq!(DirTree::parse(&tree(names).to_bytes()), None, "{names:?}");
        }
        let mut bytes = tree(&["a", "b"]).to_bytes();
        assert!(DirTree::parse(&bytes).is_some());
        bytes.push(0);
        assert_eq!(DirTree::parse(&bytes), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(0_u8..=255, 0..400)) {
            let _ = (parse_commit(&bytes), DirTree::parse(&bytes));
            let _ = (parse_dirmeta(&bytes), parse_xattr_list(&bytes));
        }
    }
}
