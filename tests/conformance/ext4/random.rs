//! Trees that nobody thought of, for every file system.

use bootpress::content::ContentStore;
use bootpress::tree::{Kind, Metadata, Tree};
use proptest::prelude::*;

use super::{MIB, check, listing, load, options, press, store, target, view};

/// What a file system can hold, and how much of it there shall be.
pub(crate) struct Limits {
    /// Bytes of a symbolic link's target.
    pub(crate) target: usize,
    /// Bits that a device's numbers may have.
    pub(crate) device: (u32, u32),
    /// Names in the largest of its directories.
    pub(crate) names: usize,
}

/// One step of making a random tree.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    parent: usize,
    name: Vec<u8>,
    metadata: (u16, u32, u32, i64),
    xattrs: Vec<(u8, Vec<u8>)>,
    kind: u8,
    bytes: Vec<u8>,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = proptest::collection::vec(
        prop_oneof![Just(b'a'), Just(0xe9), b'0'..=b'9', 128..=255_u8],
        1..40,
    )
    .prop_filter("reserved", |name| name != b"." && name != b"..");
    let metadata = (0..0o10_000_u16, any::<u32>(), any::<u32>(), 0..i64::from(i32::MAX));
    let xattrs =
        proptest::collection::vec((0..6_u8, proptest::collection::vec(any::<u8>(), 0..200)), 0..5);
    let bytes = proptest::collection::vec(1..=255_u8, 0..9000);
    let step = (any::<usize>(), name, metadata, xattrs, 0..10_u8, bytes).prop_map(
        |(parent, name, metadata, xattrs, kind, bytes)| Step {
            parent,
            name,
            metadata,
            xattrs,
            kind,
            bytes,
        },
    );
    proptest::collection::vec(step, 0..120)
}

pub(crate) fn grow(steps: Vec<Step>, contents: &ContentStore, limits: &Limits) -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755));
    let mut directories = vec![Tree::ROOT];
    let mut files = Vec::new();
    for step in steps {
        let parent = directories[step.parent % directories.len()];
        // Replacing a directory would take away what is below it.
        if tree.lookup(parent, &step.name).is_some() {
            continue;
        }
        let (mode, uid, gid, mtime) = step.metadata;
        let mut metadata = Metadata { uid, gid, mtime, ..Metadata::root(mode) };
        for (name, value) in &step.xattrs {
            let name = [
                "user.a",
                "user.bb",
                "security.selinux",
                "security.ima",
                "trusted.c",
                "user.d\u{e9}",
            ][*name as usize];
            metadata.xattrs.set(name.as_bytes(), value);
        }
        let kind = match step.kind {
            0..=2 => Kind::directory(),
            3 if !files.is_empty() => {
                tree.link(parent, &step.name, files[step.bytes.len() % files.len()]);
                continue;
            }
            4 => Kind::Symlink(target(1 + step.bytes.len() % limits.target)),
            5 => Kind::CharacterDevice(step.parent as u32 & limits.device.0, uid & limits.device.1),
            6 => Kind::Fifo,
            7 if limits.names > 0 => {
                let id = tree.create(parent, &step.name, metadata, Kind::directory());
                for number in 0..step.bytes.len() % limits.names {
                    let name = format!("{number}-{}", "x".repeat(number % 100));
                    tree.create(id, name.as_bytes(), Metadata::root(0o600), Kind::Fifo);
                }
                continue;
            }
            _ => {
                metadata.immutable = uid % 2 == 0;
                Kind::File(contents.insert_bytes(&step.bytes).unwrap())
            }
        };
        let (directory, file) = (matches!(kind, Kind::Directory(_)), matches!(kind, Kind::File(_)));
        let id = tree.create(parent, &step.name, metadata, kind);
        if directory {
            directories.push(id);
        } else if file {
            files.push(id);
        }
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_reads_back(steps in steps()) {
        let contents = store();
        let limits = Limits { target: 4095, device: (0xfff, 0xf_ffff), names: 0 };
        let tree = grow(steps, &contents, &limits);
        let volume = press(&tree, &contents, &options(32 * MIB));
        check(&volume);
        prop_assert_eq!(view(&load(&volume), true), listing(&tree, &contents, true));
    }
}
