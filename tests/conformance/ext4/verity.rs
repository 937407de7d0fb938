//! Files with fs-verity: hashes as `fsverity` computes them, where the kernel looks for them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bootpress::content::{Content, ContentStore};
use bootpress::filesystem::verity::{descriptor, measure};
use bootpress::tree::{Kind, Metadata, Tree};

use super::{MIB, e2fsck, listing, load, options, press, store, view};
use support::tool::{run, tool};

const BLOCK: u64 = 4096;

/// Around every border: of a block, of the 64 KiB after which hashes begin, of one and two levels.
const SIZES: [u64; 14] = [
    0,
    1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    15 * BLOCK + 1,
    16 * BLOCK,
    16 * BLOCK + 1,
    128 * BLOCK - 1,
    128 * BLOCK,
    128 * BLOCK + 1,
    256 * BLOCK + 1,
    1000 * BLOCK + 7,
];

/// What `fsverity` says of a file.
struct Said {
    digest: String,
    tree: Vec<u8>,
    descriptor: Vec<u8>,
}

fn fsverity(content: &Content, contents: &ContentStore, directory: &Path) -> Option<Said> {
    let [file, tree, descriptor] = ["file", "tree", "descriptor"].map(|name| directory.join(name));
    std::io::copy(&mut contents.reader(content), &mut File::create(&file).unwrap()).unwrap();
    // A file that needs no tree makes none.
    fs::write(&tree, "").unwrap();
    let mut fsverity = tool("fsverity")?;
    let option = |name: &str, path: &Path| format!("--out-{name}={}", path.display());
    let arguments = [option("merkle-tree", &tree), option("descriptor", &descriptor)];
    let digest = run(fsverity.args(["digest", "--compact"]).args(arguments).arg(&file));
    let (tree, descriptor) = (fs::read(tree).unwrap(), fs::read(descriptor).unwrap());
    Some(Said { digest: digest.trim().to_owned(), tree, descriptor })
}

fn bytes(size: u64) -> Vec<u8> {
    (0..size).map(|i| (i ^ (i >> 9) ^ size) as u8).collect()
}

/// 70 MiB, three levels of hashes, and little data.
fn sparse(contents: &ContentStore) -> Content {
    let mut writer = contents.writer(70 * MIB);
    for _ in 0..7 {
        writer.skip(10 * MIB - 5000);
        writer.write_all(&[b'x'; 5000]).unwrap();
    }
    writer.finish().unwrap()
}

/// A file of each size, and the sparse one; every one has a second name.
fn tree(contents: &ContentStore) -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755));
    let boot = tree.create(Tree::ROOT, b"boot", Metadata::root(0o755), Kind::directory());
    let named = SIZES.map(|size| (size, contents.insert_bytes(&bytes(size)).unwrap()));
    for (size, content) in named.into_iter().chain([(70 * MIB, sparse(contents))]) {
        let verity = measure(&content, contents).unwrap();
        let name = size.to_string();
        let metadata = Metadata::root(0o644);
        let id = tree.create(Tree::ROOT, name.as_bytes(), metadata, Kind::File(content));
        tree.link(boot, name.as_bytes(), id);
        tree.set_verity(id, verity);
    }
    tree
}

#[test]
fn hashes_are_those_of_fsverity() {
    let contents = store();
    let directory = tempfile::tempdir().unwrap();
    let named = SIZES.map(|size| contents.insert_bytes(&bytes(size)).unwrap());
    for content in named.into_iter().chain([sparse(&contents)]) {
        let Some(said) = fsverity(&content, &contents, directory.path()) else { return };
        let verity = measure(&content, &contents).unwrap();
        let digest: String = verity.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let levels = verity.levels.iter().map(|level| contents.bytes(level).unwrap());
        assert_eq!(digest, said.digest, "{} bytes", content.size);
        assert!(levels.collect::<Vec<_>>().concat() == said.tree, "{} bytes", content.size);
        assert!(descriptor(content.size, &verity.root_hash)[..] == said.descriptor);
    }
}

/// Finds them as the kernel does: the descriptor from the end of the last extent, the tree from the end of the data.
#[test]
fn hashes_are_where_the_kernel_looks() {
    let contents = store();
    let tree = tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    let volume = press(&tree, &contents, &options(64 * MIB));
    volume.write(&path);
    e2fsck(&path);
    assert_eq!(view(&load(&volume), false), listing(&tree, &contents, false));
    for (name, id) in tree.inode(Tree::ROOT).children() {
        let Kind::File(content) = &tree.inode(id).kind else { continue };
        let name = String::from_utf8(name.to_vec()).unwrap();
        let Some(said) = fsverity(content, &contents, directory.path()) else { return };
        let Some(extents) = extents(&path, &name) else { return };
        let read = |position: u64, count: usize| read(&path, &extents, position, count);
        let end = extents.last().unwrap().logical_end * BLOCK;
        let size = u32::from_le_bytes(read(end - 4, 4).try_into().unwrap());
        assert_eq!(size, 256, "{name}");
        let start = (end - 4 - u64::from(size)) / BLOCK * BLOCK;
        assert!(read(start, 256) == said.descriptor, "{name}");
        let tree = content.size.next_multiple_of(65_536);
        assert!(read(tree, said.tree.len()) == said.tree, "{name}");
        assert_eq!(start, tree + said.tree.len() as u64, "{name}");
    }
}

struct Extent {
    logical: u64,
    logical_end: u64,
    physical: u64,
}

/// The extents of a file with the verity flag, as `debugfs` lists them.
fn extents(volume: &Path, name: &str) -> Option<Vec<Extent>> {
    let stat = run(tool("debugfs")?.args(["-R", &format!("stat /{name}")]).arg(volume));
    assert!(stat.contains("Flags: 0x180000"), "{stat}");
    assert!(stat.contains(&format!("Size: {name}\n")), "{stat}");
    let list = run(tool("debugfs")?.args(["-R", &format!("dump_extents -l /{name}")]).arg(volume));
    // " 0/ 0   1/  1     0 -     0   4711 -  4711      1"
    let line = |line: &str| {
        let text = line.replace(['/', '-'], " ");
        let numbers: Vec<u64> =
            text.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [_, _, _, _, logical, last, physical, ..] = numbers[..] else { return None };
        Some(Extent { logical, logical_end: last + 1, physical })
    };
    Some(list.lines().filter_map(line).collect())
}

/// Reads a file through its extents, whatever its size says.
fn read(volume: &Path, extents: &[Extent], position: u64, count: usize) -> Vec<u8> {
    let file = File::open(volume).unwrap();
    let block = |number: u64| {
        let mut block = vec![0; BLOCK as usize];
        let extent = extents.iter().find(|e| (e.logical..e.logical_end).contains(&number));
        let extent = extent.unwrap_or_else(|| panic!("block {number} is a hole"));
        let physical = extent.physical + number - extent.logical;
        file.read_exact_at(&mut block, physical * BLOCK).unwrap();
        block
    };
    let blocks = position / BLOCK..(position + count as u64).div_ceil(BLOCK);
    let bytes = blocks.flat_map(block).collect::<Vec<_>>();
    let start = (position % BLOCK) as usize;
    bytes[start..start + count].to_vec()
}

/// Kernels in `/boot` are hard links to objects.
#[test]
fn grub_reads_them() {
    let contents = store();
    let tree = tree(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ext4");
    press(&tree, &contents, &options(64 * MIB)).write(&path);
    for size in SIZES {
        let Some(mut grub) = tool("grub-fstest") else { return };
        let output = grub.arg(&path).args(["cat", &format!("/boot/{size}")]).output().unwrap();
        assert!(output.status.success() && output.stdout == bytes(size), "{size}: {output:?}");
    }
}

/// What it costs is known before: nothing that is laid out is too much for what was fitted.
#[test]
fn it_fits() {
    let contents: Arc<ContentStore> = store();
    let tree = tree(&contents);
    let wanted = bootpress::filesystem::ext4::Wanted {
        free_bytes: 0,
        free_inodes: 0,
        bytes_per_inode: 16_384,
        hash_seed: options(0).hash_seed,
    };
    let fitted = bootpress::filesystem::ext4::fit(&tree, &wanted).unwrap();
    let options = super::Options {
        inode_count: fitted.inode_count,
        journal_blocks: fitted.journal_blocks,
        ..options(fitted.size)
    };
    super::check(&press(&tree, &contents, &options));
}
