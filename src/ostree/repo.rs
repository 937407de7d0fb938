//! An ostree repository of mode `bare`, and where its objects are on the disk.
//!
//! ```text
//! ostree/repo/config .lock extensions/ state/ tmp/cache/
//!             objects/xx/yyyy….{commit,commitmeta,dirmeta,dirtree}    values, 0644
//!             objects/xx/yyyy….file                                  the file or link itself, with owner, mode and xattrs
//!             refs/heads/ostree/container/{blob,image}/…   refs/heads/ostree/1/1/0   refs/mirrors/ refs/remotes/
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use super::object::{self, DirTree, MetadataKind};
use super::{Checksum, ObjectInodes};
use crate::content::ContentStore;
use crate::tree::{Inode, InodeId, Kind, Metadata, Tree};

/// Objects and the references that name commits among them.
#[derive(Debug, Default)]
pub struct Repository {
    pub(super) metadata: BTreeMap<(Checksum, MetadataKind), Vec<u8>>,
    /// Content objects: regular files and symbolic links.
    pub(super) files: BTreeMap<Checksum, Inode>,
    pub(super) refs: BTreeMap<String, Checksum>,
}

impl Repository {
    /// References (`ostree/1/1/0`) and the commits that they name.
    pub fn refs(&self) -> &BTreeMap<String, Checksum> {
        &self.refs
    }

    /// How many objects there are, of all kinds.
    pub fn object_count(&self) -> usize {
        self.metadata.len() + self.files.len()
    }

    /// Adds a metadata object; returns its name.
    pub(super) fn add(&mut self, kind: MetadataKind, bytes: Vec<u8>) -> Checksum {
        let checksum = object::checksum(&bytes);
        self.metadata.insert((checksum, kind), bytes);
        checksum
    }

    /// Adds the dirtree and dirmeta objects of a tree whose content objects are known by inode index; returns the root's.
    pub(super) fn add_tree(
        &mut self,
        tree: &Tree,
        files: &[Option<Checksum>],
    ) -> (Checksum, Checksum) {
        // Parents before children; going back, every directory finds its children named.
        let mut directories = vec![Tree::ROOT];
        let mut next = 0;
        while let Some(directory) = directories.get(next) {
            let inode = tree.inode(*directory);
            let below =
                inode.children().map(|(_, id)| id).filter(|id| tree.inode(*id).is_directory());
            let below: Vec<InodeId> = below.collect();
            directories.extend(below);
            next += 1;
        }
        let mut named: BTreeMap<InodeId, (Checksum, Checksum)> = BTreeMap::new();
        for directory in directories.into_iter().rev() {
            let inode = tree.inode(directory);
            let mut listing = DirTree::default();
            for (name, id) in inode.children() {
                let name =
                    String::from_utf8(name.to_vec()).expect("names were checked to be UTF-8");
                match named.get(&id) {
                    Some((dirtree, dirmeta)) => {
                        listing.directories.push((name, *dirtree, *dirmeta));
                    }
                    None => {
                        let file = files[id.index()].expect("everything else was hashed");
                        listing.files.push((name, file));
                    }
                }
            }
            let dirtree = self.add(MetadataKind::DirTree, listing.to_bytes());
            let dirmeta = self.add(MetadataKind::DirMeta, object::dirmeta(&inode.metadata));
            named.insert(directory, (dirtree, dirmeta));
        }
        named[&Tree::ROOT]
    }

    /// Puts the repository at `ostree/repo` in the tree of a physical root, where nothing may be in its way.
    ///
    /// `config`: group, key and value of what the repository's configuration says besides its version and mode; groups stay
    /// in the order in which they first come.
    pub fn place(
        &self,
        sysroot: &mut Tree,
        config: &[(&str, &str, &str)],
        contents: &ContentStore,
    ) -> Result<ObjectInodes> {
        let directory = Metadata::root(0o755);
        for path in ["extensions", "refs/mirrors", "refs/remotes", "state", "tmp/cache"] {
            sysroot.make_directories(&format!("ostree/repo/{path}"), &directory);
        }
        let top = sysroot.make_directories("ostree/repo", &directory);
        let text = contents.insert_bytes(configuration(config).as_bytes())?;
        sysroot.create(top, b"config", Metadata::root(0o644), Kind::File(text));
        // Made by ostree itself as 0660 less its umask.
        let nothing = Kind::File(crate::content::Content::EMPTY);
        sysroot.create(top, b".lock", Metadata::root(0o640), nothing);

        let heads = sysroot.make_directories("ostree/repo/refs/heads", &directory);
        for (name, commit) in &self.refs {
            let (above, last) = name.rsplit_once('/').unwrap_or(("", name));
            let parent = match above {
                "" => heads,
                _ => {
                    sysroot.make_directories(&format!("ostree/repo/refs/heads/{above}"), &directory)
                }
            };
            let line = contents.insert_bytes(format!("{commit}\n").as_bytes())?;
            sysroot.create(parent, last.as_bytes(), Metadata::root(0o644), Kind::File(line));
        }
        self.place_objects(sysroot, contents)
    }

    fn place_objects(&self, sysroot: &mut Tree, contents: &ContentStore) -> Result<ObjectInodes> {
        let top = sysroot.make_directories("ostree/repo/objects", &Metadata::root(0o755));
        // All of them, as ostree makes them: none has to be made on a full disk.
        let fans: Vec<InodeId> = (0..=u8::MAX)
            .map(|first| {
                let name = format!("{first:02x}");
                sysroot.create(top, name.as_bytes(), Metadata::root(0o755), Kind::directory())
            })
            .collect();
        let place = |sysroot: &mut Tree, checksum: &Checksum, extension: &str, inode: Inode| {
            let name = format!("{}.{extension}", &checksum.to_string()[2..]);
            let fan = fans[usize::from(checksum.0[0])];
            sysroot.create(fan, name.as_bytes(), inode.metadata, inode.kind)
        };
        for ((checksum, kind), bytes) in &self.metadata {
            let content = contents.insert_bytes(bytes)?;
            let inode = Inode { metadata: Metadata::root(0o644), kind: Kind::File(content) };
            place(sysroot, checksum, kind.extension(), inode);
        }
        let files = self.files.iter();
        Ok(files.map(|(c, inode)| (*c, place(sysroot, c, "file", inode.clone()))).collect())
    }
}

/// The text of `config`.
fn configuration(extra: &[(&str, &str, &str)]) -> String {
    let core = [("core", "repo_version", "1"), ("core", "mode", "bare")];
    let all: Vec<_> = core.iter().chain(extra).collect();
    let mut groups: Vec<&str> = Vec::new();
    for (group, ..) in &all {
        if !groups.contains(group) {
            groups.push(group);
        }
    }
    let mut text = String::new();
    for group in groups {
        if !text.is_empty() {
            text.push('\n');
        }
        writeln!(text, "[{group}]").expect("strings take all");
        for (_, key, value) in all.iter().filter(|(other, ..)| *other == group) {
            writeln!(text, "{key}={value}").expect("strings take all");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_reads_as_a_key_file() {
        let text = configuration(&[
            ("sysroot", "bootloader", "none"),
            ("sysroot", "readonly", "true"),
            ("ex-integrity", "fsverity", "yes"),
            ("core", "min-free-space-percent", "1"),
        ]);
        let expected = "[core]\nrepo_version=1\nmode=bare\nmin-free-space-percent=1\n\n\
                        [sysroot]\nbootloader=none\nreadonly=true\n\n[ex-integrity]\nfsverity=yes\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_repository_lies_where_ostree_looks() {
        let store = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut repository = Repository::default();
        let link = Inode {
            metadata: Metadata { gid: 7, ..Metadata::root(0o777) },
            kind: Kind::Symlink((*b"hello").into()),
        };
        let name = object::file_checksum(&link, &store, &|_| {}).unwrap();
        repository.files.insert(name, link.clone());
        let mut tree = Tree::new(Metadata::root(0o755));
        let id = tree.create(Tree::ROOT, b"l", link.metadata.clone(), link.kind.clone());
        let mut files = vec![None; tree.inode_count()];
        files[id.index()] = Some(name);
        let (dirtree, _) = repository.add_tree(&tree, &files);
        repository.refs.insert("a/b".into(), dirtree);

        let mut sysroot = Tree::new(Metadata::root(0o755));
        let inodes = repository.place(&mut sysroot, &[], &store).unwrap();
        assert_eq!(repository.object_count(), 3);
        assert_eq!(sysroot.inode(inodes[&name]), &link);
        let text = |path: &str| store.bytes(sysroot.file(path).unwrap()).unwrap();
        assert_eq!(text("ostree/repo/refs/heads/a/b"), format!("{dirtree}\n").as_bytes());
        let digits = dirtree.to_string();
        let object = format!("ostree/repo/objects/{}/{}.dirtree", &digits[..2], &digits[2..]);
        assert_eq!(object::checksum(&text(&object)), dirtree);
        assert_eq!(sysroot.inode(sysroot.find("ostree/repo/.lock").unwrap()).metadata.mode, 0o640);
        for path in
            ["tmp/cache", "state", "extensions", "refs/mirrors", "refs/remotes", "objects/ff"]
        {
            let id = sysroot.find(&format!("ostree/repo/{path}")).unwrap();
            assert_eq!(sysroot.inode(id).metadata, Metadata::root(0o755), "{path}");
        }
    }
}
