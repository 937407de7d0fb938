//! The inodes of an image in their order, with everything that composefs adds to a tree.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Result, bail, ensure};

use super::Options;
use super::xattr::{PairId, Pairs, Xattrs};
use crate::error::{corrupt, unsupported};
use crate::tree::{InodeId, Kind, Stored, Tree};

/// An inode of the image.
pub(super) struct Node<'a> {
    /// `st_mode`.
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) mtime: (u64, u32),
    /// In bytewise order of their names.
    pub(super) xattrs: Box<[PairId]>,
    pub(super) body: Body<'a>,
}

/// What an inode holds.
pub(super) enum Body<'a> {
    /// Names, `.` and `..` among them, in bytewise order; each with the index of its node.
    Directory(Vec<(&'a [u8], u32)>),
    /// Target.
    Symlink(&'a [u8]),
    /// A regular file whose content is elsewhere; bytes.
    External(u64),
    /// A small regular file.
    Inline(Box<[u8]>),
    /// A device: its number as the kernel encodes it.
    Device(u32),
    /// Empty regular file, pipe, socket.
    Nothing,
}

/// All inodes, in the order of their numbers: breadth first, names in bytewise order.
pub(super) struct Image<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) xattrs: Xattrs,
    /// Format: 0 or 1.
    pub(super) version: u8,
}

impl<'a> Image<'a> {
    pub(super) fn of(
        tree: &'a Tree,
        stored: &'a dyn Fn(InodeId) -> Option<Stored>,
        options: &'a Options,
    ) -> Result<Self> {
        let links = if options.keep_links { Links::of(tree) } else { Links::default() };
        let whiteouts = tree.walk().any(|(_, id)| is_whiteout(tree, id));
        let version = if whiteouts { options.max_version } else { options.min_version };
        let mut builder = Builder {
            tree,
            stored,
            options,
            version,
            links,
            nodes: Vec::with_capacity(tree.inode_count() + STUBS.len()),
            pairs: Pairs::default(),
            queue: VecDeque::new(),
            later: Vec::new(),
            numbers: BTreeMap::new(),
        };
        builder.run()?;
        Ok(Self { nodes: builder.nodes, xattrs: builder.pairs.finish(), version })
    }
}

/// The names of the data layer's 256 directories of objects; whiteouts with these names hide them.
const STUBS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut names = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        names[i] = [digits[i / 16], digits[i % 16]];
        i += 1;
    }
    names
};

/// Inodes with several names.
#[derive(Default)]
struct Links<'a> {
    /// The place that gives such an inode its number: its first name, depth first.
    first: BTreeMap<InodeId, (InodeId, &'a [u8])>,
    counts: Vec<u32>,
}

impl<'a> Links<'a> {
    fn of(tree: &'a Tree) -> Self {
        let counts = tree.link_counts();
        let mut first = BTreeMap::new();
        let mut stack = vec![(Tree::ROOT, None)];
        while let Some((id, place)) = stack.pop() {
            let inode = tree.inode(id);
            if inode.is_directory() {
                let below: Vec<_> = inode.children().map(|(n, c)| (c, Some((id, &**n)))).collect();
                stack.extend(below.into_iter().rev());
            } else if counts[id.index()] > 1
                && let Some(place) = place
            {
                first.entry(id).or_insert(place);
            }
        }
        Self { first, counts }
    }
}

struct Builder<'a> {
    tree: &'a Tree,
    stored: &'a dyn Fn(InodeId) -> Option<Stored>,
    options: &'a Options,
    version: u8,
    links: Links<'a>,
    nodes: Vec<Node<'a>>,
    pairs: Pairs,
    /// Directories whose names come next: inode, node, node of the directory above.
    queue: VecDeque<(InodeId, u32, u32)>,
    /// Names of inodes that have their number elsewhere: node of the directory, place in it, inode.
    later: Vec<(u32, usize, InodeId)>,
    /// The numbers of inodes with several names.
    numbers: BTreeMap<InodeId, u32>,
}

impl<'a> Builder<'a> {
    fn run(&mut self) -> Result<()> {
        self.add(Tree::ROOT)?;
        self.queue.push_back((Tree::ROOT, 0, 0));
        while let Some((id, node, above)) = self.queue.pop_front() {
            let names = self.names(id);
            let mut entries = Vec::with_capacity(names.len());
            for (name, child) in names {
                let number = match child {
                    Child::Itself => node,
                    Child::Above => above,
                    Child::Stub => self.add_stub()?,
                    Child::Inode(child) => match self.links.first.get(&child).copied() {
                        Some(first) if first != (id, name) => {
                            self.later.push((node, entries.len(), child));
                            0
                        }
                        _ => self.add_child(child, node)?,
                    },
                };
                entries.push((name, number));
            }
            self.nodes[node as usize].body = Body::Directory(entries);
        }
        for &(node, place, id) in &self.later {
            if let Body::Directory(entries) = &mut self.nodes[node as usize].body {
                entries[place].1 = self.numbers[&id];
            }
        }
        Ok(())
    }

    /// Numbers an inode of the directory that is the node `above`.
    fn add_child(&mut self, id: InodeId, above: u32) -> Result<u32> {
        let number = self.add(id)?;
        if self.tree.inode(id).is_directory() {
            self.nodes[above as usize].nlink += 1;
            self.queue.push_back((id, number, above));
        } else if self.links.first.contains_key(&id) {
            self.numbers.insert(id, number);
        }
        Ok(number)
    }

    /// What a directory of the image lists.
    fn names(&self, id: InodeId) -> Vec<(&'a [u8], Child)> {
        let inode = self.tree.inode(id);
        let mut names = vec![(&b"."[..], Child::Itself), (b"..", Child::Above)];
        names.extend(inode.children().map(|(name, child)| (&**name, Child::Inode(child))));
        if id == Tree::ROOT {
            let stubs = STUBS.iter().filter(|name| self.tree.lookup(id, *name).is_none());
            names.extend(stubs.map(|name| (&name[..], Child::Stub)));
        }
        names.sort_unstable_by_key(|(name, _)| *name);
        names
    }

    fn add(&mut self, id: InodeId) -> Result<u32> {
        let inode = self.tree.inode(id);
        let (uid, gid) = (inode.metadata.uid, inode.metadata.gid);
        let stored = find_stored(self.tree, id, self.stored)?;
        let whiteout = is_whiteout(self.tree, id);
        let type_bits = if whiteout { 0o100_000 } else { inode.kind.type_bits() };
        let xattrs = self.xattrs(id, stored.as_ref())?;
        let body = match &inode.kind {
            Kind::Directory(names) => {
                if let Some((name, _)) = names.iter().find(|(name, _)| name.len() > 255) {
                    let name = String::from_utf8_lossy(name);
                    return Err(unsupported(format!("a file name above 255 bytes: {name}"), None));
                }
                Body::Directory(Vec::new())
            }
            Kind::Symlink(target) => {
                ensure_target(target)?;
                Body::Symlink(target)
            }
            Kind::File(content) => match stored {
                None => Body::Nothing,
                Some(Stored::Inside(bytes)) => Body::Inline(bytes),
                Some(Stored::Outside(_)) => Body::External(content.size),
            },
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) if !whiteout => {
                Body::Device(device_number(*major, *minor)?)
            }
            _ => Body::Nothing,
        };
        let node = Node {
            mode: (type_bits as u16) | inode.metadata.mode,
            nlink: match self.links.first.get(&id) {
                Some(_) => self.links.counts[id.index()],
                None if inode.is_directory() => 2,
                None => 1,
            },
            uid,
            gid,
            mtime: self.time(id)?,
            xattrs,
            body,
        };
        self.push(node)
    }

    fn add_stub(&mut self) -> Result<u32> {
        let root = &self.tree.inode(Tree::ROOT).metadata;
        let label = root.xattrs.get(b"security.selinux");
        let label = label.map(|label| self.pairs.add(b"security.selinux", label)).transpose()?;
        let node = Node {
            mode: 0o020_644,
            nlink: 1,
            uid: root.uid,
            gid: root.gid,
            mtime: self.time(Tree::ROOT)?,
            xattrs: label.into_iter().collect(),
            body: Body::Device(0),
        };
        self.push(node)
    }

    fn push(&mut self, node: Node<'a>) -> Result<u32> {
        let number = u32::try_from(self.nodes.len())
            .map_err(|_| unsupported("more than 2^32 inodes", None))?;
        self.nodes.push(node);
        Ok(number)
    }

    fn time(&self, id: InodeId) -> Result<(u64, u32)> {
        if !self.options.keep_times {
            return Ok((0, 0));
        }
        Ok((seconds(self.tree, id)?, self.tree.nanoseconds(id)))
    }

    /// The pairs of an inode of the tree.
    fn xattrs(&mut self, id: InodeId, stored: Option<&Stored>) -> Result<Box<[PairId]>> {
        let inode = self.tree.inode(id);
        let mut xattrs = inode.metadata.xattrs.clone();
        for (name, value) in inode.metadata.xattrs.iter() {
            // What the tree says to overlayfs must not speak to the overlay that is mounted from this image.
            if let Some(rest) = name.strip_prefix(b"trusted.overlay.") {
                xattrs.remove(name);
                xattrs.set(&[b"trusted.overlay.overlay.", rest].concat(), value);
            }
        }
        if let Some(Stored::Outside(payload)) = stored {
            xattrs.set(b"trusted.overlay.metacopy", &metacopy(payload.digest.as_deref()));
            let redirect = [b"/", payload.redirect.as_bytes()].concat();
            xattrs.set(b"trusted.overlay.redirect", &redirect);
        }
        if is_whiteout(self.tree, id) {
            xattrs.set(b"trusted.overlay.overlay.whiteout", b"");
            xattrs.set(b"user.overlay.whiteout", b"");
        }
        if inode.children().any(|(name, child)| self.hides(id, name, child)) {
            xattrs.set(b"trusted.overlay.overlay.whiteouts", b"");
            xattrs.set(b"user.overlay.whiteouts", b"");
            if self.version >= 1 {
                xattrs.set(b"trusted.overlay.overlay.opaque", b"x");
                xattrs.set(b"user.overlay.opaque", b"x");
            }
        }
        if id == Tree::ROOT {
            // The root hides everything that lies in the data layer.
            xattrs.set(b"trusted.overlay.opaque", b"y");
        }
        xattrs.iter().map(|(name, value)| self.pairs.add(name, value)).collect()
    }

    /// Whether a name makes its directory one with whiteouts. Of a whiteout's several names only the first does: so
    /// libcomposefs has it.
    fn hides(&self, directory: InodeId, name: &[u8], child: InodeId) -> bool {
        let first = self.links.first.get(&child);
        is_whiteout(self.tree, child) && first.is_none_or(|&first| first == (directory, name))
    }
}

/// Where a name in a directory leads.
enum Child {
    Itself,
    Above,
    Stub,
    Inode(InodeId),
}

fn is_whiteout(tree: &Tree, id: InodeId) -> bool {
    matches!(tree.inode(id).kind, Kind::CharacterDevice(0, 0))
}

/// The value of `trusted.overlay.metacopy` (overlayfs' `struct ovl_metacopy`): empty unless a digest is to be checked.
pub(super) fn metacopy(digest: Option<&[u8]>) -> Vec<u8> {
    digest.map_or_else(Vec::new, |digest| {
        let (version, flags) = (0, 0);
        // FS_VERITY_HASH_ALG_SHA256 or _SHA512.
        let algorithm = if digest.len() == 32 { 1 } else { 2 };
        let size = 4 + digest.len() as u8;
        [&[version, size, flags, algorithm], digest].concat()
    })
}

/// Where the content of a regular file is; `None`: it has none, or is no regular file. Fails if nobody knows.
pub(super) fn find_stored(
    tree: &Tree,
    id: InodeId,
    stored: &dyn Fn(InodeId) -> Option<Stored>,
) -> Result<Option<Stored>> {
    /// More than this would not be a tail.
    const MOST: usize = 2048;
    let size = match &tree.inode(id).kind {
        Kind::File(content) if content.size > 0 => content.size,
        _ => return Ok(None),
    };
    match stored(id) {
        None => bail!("no payload for a file of {size} bytes"),
        Some(Stored::Inside(bytes)) => {
            assert!(bytes.len() as u64 == size && bytes.len() <= MOST, "{size} bytes in the image");
            Ok(Some(Stored::Inside(bytes)))
        }
        outside => Ok(outside),
    }
}

/// The seconds of an inode's time.
pub(super) fn seconds(tree: &Tree, id: InodeId) -> Result<u64> {
    let mtime = tree.inode(id).metadata.mtime;
    u64::try_from(mtime).map_err(|_| unsupported(format!("a time before 1970: {mtime}"), None))
}

/// Linux takes no target of 4096 bytes or more, and an empty one is none.
pub(super) fn ensure_target(target: &[u8]) -> Result<()> {
    let fits = (1..4096).contains(&target.len());
    ensure!(fits, corrupt("a symbolic link", format!("its target has {} bytes", target.len())));
    Ok(())
}

/// The kernel's `new_encode_dev`.
pub(super) fn device_number(major: u32, minor: u32) -> Result<u32> {
    ensure!(
        major < 1 << 12 && minor < 1 << 20,
        corrupt("a device file", format!("it has the numbers {major}, {minor}"))
    );
    Ok((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}
