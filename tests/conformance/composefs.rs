//! composefs images against `mkcomposefs` and `composefs-info`: from PATH, or where `tests/support/forky` put them.

mod backend;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use bootpress::content::{Content, ContentStore};
use bootpress::filesystem::erofs::{self, Options};
use bootpress::filesystem::verity;
use bootpress::tree::{InodeId, Kind, Metadata, Payload, Tree};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::tool::forky;

fn payload(id: InodeId) -> Option<Payload> {
    let number = id.index() as u8;
    let digest = number
        .is_multiple_of(3)
        .then(|| (0..32).map(|i: u8| number.wrapping_mul(i)).collect::<Box<[u8]>>());
    // Some files have the same content.
    Some(Payload { redirect: format!("{:02x}/{:062x}.file", number / 2, number / 2), digest })
}

/// Everything but printable ASCII, and what separates fields, becomes `\xNN`.
fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, &byte| {
        match byte {
            b'\\' | b'=' => write!(out, "\\x{byte:02x}").unwrap(),
            0x21..=0x7e => out.push(byte.into()),
            _ => write!(out, "\\x{byte:02x}").unwrap(),
        }
        out
    })
}

/// The tree in `mkcomposefs --from-file`'s language (composefs-dump(5)).
fn dump(tree: &Tree) -> String {
    let counts = tree.link_counts();
    let mut first = vec![None; tree.inode_count()];
    let mut out = String::new();
    for (path, id) in tree.walk() {
        let inode = tree.inode(id);
        let path = format!("/{}", escape(&path));
        if let Some(first) = &first[id.index()] {
            writeln!(out, "{path} 0 @{:o} 0 0 0 0 0.0 {first} - -", inode.st_mode()).unwrap();
            continue;
        }
        let (mut size, mut device, mut target, mut digest) = (0, 0, "-".to_owned(), "-".to_owned());
        match &inode.kind {
            Kind::File(content) if content.size > 0 => {
                size = content.size;
                let payload = payload(id).unwrap();
                target = payload.redirect;
                if let Some(bytes) = payload.digest {
                    digest = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                }
            }
            Kind::Symlink(to) => {
                size = to.len() as u64;
                target = escape(to);
            }
            Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
                device = (major << 8) | (minor & 0xff) | ((minor & !0xff) << 12);
            }
            _ => {}
        }
        let Metadata { uid, gid, mtime, xattrs, .. } = &inode.metadata;
        let (mode, links) = (inode.st_mode(), counts[id.index()]);
        write!(
            out,
            "{path} {size} {mode:o} {links} {uid} {gid} {device} {mtime}.0 {target} - {digest}"
        )
        .unwrap();
        for (name, value) in xattrs.iter() {
            write!(out, " {}={}", escape(name), escape(value)).unwrap();
        }
        out.push('\n');
        first[id.index()] = Some(path);
    }
    out
}

fn mkcomposefs(mut command: Command, tree: &Tree, (min, max): (u8, u8)) -> Vec<u8> {
    let mut child = command
        .args(["--from-file", "-", "-"])
        .args([format!("--min-version={min}"), format!("--max-version={max}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(dump(tree).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "mkcomposefs: {}\n{}", output.status, cut(&dump(tree)));
    output.stdout
}

/// One name more in a tree: where, which, and what.
type Step = (prop::sample::Index, Vec<u8>, What, Look);

#[derive(Clone, Debug)]
enum What {
    Directory,
    File(u64),
    Symlink(usize),
    Device(bool, u32, u32),
    Pipe,
    Socket,
    Link(prop::sample::Index),
    /// A directory with this many names of this length.
    Crowd(usize, usize),
}

#[derive(Clone, Debug)]
struct Look {
    mode: u16,
    owner: (u32, u32),
    mtime: i64,
    xattrs: Vec<(&'static str, Vec<u8>)>,
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => Just(What::Directory),
        4 => prop_oneof![0..3_u64, 4090..4100_u64, Just(1 << 32), Just(1 << 43), any::<u32>().prop_map(u64::from)]
            .prop_map(What::File),
        3 => prop_oneof![1..80_usize, 1800..2300_usize, 3800..4095_usize].prop_map(What::Symlink),
        1 => (any::<bool>(), 0..3_u32, prop_oneof![0..2_u32, 255..70_000_u32])
            .prop_map(|(block, major, minor)| What::Device(block, major, minor)),
        1 => Just(What::Pipe),
        1 => Just(What::Socket),
        2 => any::<prop::sample::Index>().prop_map(What::Link),
        1 => (1..400_usize, 3..250_usize).prop_map(|(count, size)| What::Crowd(count, size)),
    ]
}

fn look() -> impl Strategy<Value = Look> {
    let names = prop::sample::select(vec![
        "security.selinux",
        "security.capability",
        "user.a",
        "user.b",
        // Not `opaque`: mkcomposefs 1.0.8 refuses a directory of whiteouts that has a long one already.
        "trusted.overlay.origin",
        "trusted.overlay.redirect",
        "trusted.x",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "btrfs.other",
    ]);
    let value = prop_oneof![
        4 => prop::sample::select(vec![&b""[..], b"x", b"same", b"system_u:object_r:usr_t:s0\0"]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (0..4200_usize).prop_map(|size| vec![b'v'; size]),
    ];
    let owner = prop_oneof![3 => Just(0_u32), 1 => 1000..1003_u32, 1 => 65_534..65_540_u32, 1 => any::<u32>()];
    (0..0o10000_u16, owner.clone(), owner, 0..2_i64, prop::collection::vec((names, value), 0..4))
        .prop_map(|(mode, uid, gid, mtime, xattrs)| Look { mode, owner: (uid, gid), mtime, xattrs })
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![
        prop::collection::vec(prop::sample::select(b"!-.az0=\\ \xc3\xa9".to_vec()), 1..6),
        (1..256_usize).prop_map(|size| vec![b'n'; size]),
        (0..=255_u8).prop_map(|byte| format!("{byte:02x}").into_bytes()),
    ];
    let name = name.prop_filter("reserved", |name| name != b"." && name != b"..");
    (any::<prop::sample::Index>(), name, what(), look())
}

fn metadata(look: &Look) -> Metadata {
    let mut metadata = Metadata::root(look.mode);
    (metadata.uid, metadata.gid) = look.owner;
    metadata.mtime = look.mtime;
    for (name, value) in &look.xattrs {
        metadata.xattrs.set(name.as_bytes(), value);
    }
    metadata
}

fn grow(root: &Look, steps: &[Step]) -> Tree {
    let mut tree = Tree::new(metadata(root));
    let mut directories = vec![Tree::ROOT];
    let mut others = Vec::new();
    for (place, name, what, look) in steps {
        let directory = *place.get(&directories);
        if tree.lookup(directory, name).is_some() {
            continue;
        }
        let kind = match what {
            What::Directory | What::Crowd(..) => Kind::directory(),
            What::File(size) => Kind::File(Content { size: *size, ..Content::EMPTY }),
            What::Symlink(size) => Kind::Symlink(vec![b't'; *size].into()),
            What::Device(true, major, minor) => Kind::BlockDevice(*major, *minor),
            What::Device(false, major, minor) => Kind::CharacterDevice(*major, *minor),
            What::Pipe => Kind::Fifo,
            What::Socket => Kind::Socket,
            What::Link(_) if others.is_empty() => Kind::Fifo,
            What::Link(to) => {
                tree.link(directory, name, *to.get(&others));
                continue;
            }
        };
        let id = tree.create(directory, name, metadata(look), kind);
        if let What::Crowd(count, size) = what {
            for i in 0..*count {
                let name = format!("{i:0size$}");
                tree.create(id, name.as_bytes(), Metadata::root(0o600), Kind::Fifo);
            }
        }
        if tree.inode(id).is_directory() { directories.push(id) } else { others.push(id) }
    }
    tree
}

#[test]
fn any_tree_gives_the_bytes_of_mkcomposefs() {
    if forky("mkcomposefs").is_none() {
        return;
    }
    let cases = Config {
        cases: 150,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let trees = (
        look(),
        prop::collection::vec(step(), 0..60),
        prop::sample::select(vec![(0, 0), (0, 1), (1, 1)]),
    );
    let checked = TestRunner::new(cases).run(&trees, |(root, steps, versions)| {
        let tree = grow(&root, &steps);
        let (min_version, max_version) = versions;
        let options = Options { min_version, max_version, keep_links: true, keep_times: true };
        let ours = erofs::composefs(&tree, &payload, &options).unwrap();
        let theirs = mkcomposefs(forky("mkcomposefs").unwrap(), &tree, versions);
        // A failing case is long: only its first lines are shown, cut.
        let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        prop_assert!(
            ours == theirs,
            "{} and {} bytes, first difference at {differ:?}\n{}",
            ours.len(),
            theirs.len(),
            cut(&dump(&tree))
        );
        Ok(())
    });
    if let Err(proptest::test_runner::TestError::Fail(reason, _)) = checked {
        panic!("{reason}");
    }
}

fn cut(dump: &str) -> String {
    dump.lines()
        .take(40)
        .map(|line| line.chars().take(200).chain(['\n']).collect::<String>())
        .collect()
}

/// A second reader: what `composefs-info dump` reads from our image is an image's source again, and gives the same bytes.
#[test]
fn composefs_info_reads_what_was_written() {
    let (Some(mut info), Some(mut make)) = (forky("composefs-info"), forky("mkcomposefs")) else {
        return;
    };
    let mut tree = Tree::new(Metadata::root(0o755));
    let bin = tree.make_directories("usr/bin", &Metadata::root(0o755));
    let size = |size| Kind::File(Content { size, ..Content::EMPTY });
    let file = tree.create(bin, b"true", Metadata::root(0o4755), size(35_000));
    tree.inode_mut(file).metadata.xattrs.set(b"security.capability", b"\x01\0\0\x02");
    tree.create(bin, b"empty", Metadata::root(0o644), size(0));
    tree.create(Tree::ROOT, b"bin", Metadata::root(0o777), Kind::Symlink((*b"usr/bin").into()));
    let ours = erofs::ostree_image(&tree, &payload).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let (image, text) = (directory.path().join("image"), directory.path().join("dump"));
    std::fs::write(&image, &ours).unwrap();
    let read = info.arg("dump").arg(&image).output().unwrap();
    assert!(read.status.success());
    let read = String::from_utf8(read.stdout).unwrap();
    let line = format!(
        "/usr/bin/true 35000 104755 1 0 0 0 0.0 {} - {} security.capability=\\x01\\x00\\x00\\x02",
        payload(file).unwrap().redirect,
        payload(file)
            .unwrap()
            .digest
            .map_or("-".to_owned(), |digest| digest.iter().map(|b| format!("{b:02x}")).collect())
    );
    assert!(read.lines().any(|read| read == line), "{line}\nis not in\n{read}");
    for name in ["/usr ", "/etc ", "/boot ", "/var ", "/sysroot "] {
        assert!(read.lines().any(|line| line.starts_with(name)), "{name}is not in\n{read}");
    }
    std::fs::write(&text, read).unwrap();
    let again =
        make.arg("--from-file").arg(&text).arg("-").stdout(Stdio::piped()).output().unwrap();
    assert_eq!(again.stdout, ours);
}

/// Of an image with 60,000 files, which has a hash tree of three levels.
#[test]
fn our_digest_of_an_image_is_that_of_composefs_info() {
    let Some(mut info) = forky("composefs-info") else { return };
    let mut tree = Tree::new(Metadata::root(0o755));
    for directory in 0..200 {
        let directory = tree.make_directories(&format!("usr/{directory}"), &Metadata::root(0o755));
        for file in 0..300 {
            let kind = Kind::File(Content { size: 1 + file, ..Content::EMPTY });
            tree.create(directory, format!("file-{file}").as_bytes(), Metadata::root(0o644), kind);
        }
    }
    let ours = erofs::ostree_image(&tree, &payload).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::write(&image, &ours).unwrap();
    let measured = info.arg("measure-file").arg(&image).output().unwrap();
    let contents = ContentStore::create_in(directory.path()).unwrap();
    let ours = contents.insert_bytes(&ours).unwrap();
    let digest = verity::measure(&ours, &contents).unwrap().digest;
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(String::from_utf8(measured.stdout).unwrap().trim(), digest);
}
