//! An empty file system beside that of `mkfs.xfs`: the same bytes, but for what the specification says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use bootpress::filesystem::xfs::{Options, Profile};
use bootpress::tree::{Metadata, Tree};

use super::{MIB, options, press};
use crate::ext4::store;
use support::tool::{newest, run, tool};

const SIZE: u64 = 10 << 30;
const GROUP: u64 = SIZE / 4;
const BLOCK: u64 = 4096;

#[test]
fn empty_file_system_is_that_of_mkfs() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    for find in [tool, newest] {
        for options in [
            options(SIZE),
            Options { profile: Profile::Lts61, ..options(SIZE) },
            Options { sector_size: 4096, ..options(SIZE) },
        ] {
            let Some(mkfs) = find("mkfs.xfs") else { return };
            File::create(&theirs).unwrap().set_len(SIZE).unwrap();
            make(mkfs, &options, &theirs);
            let tree = Tree::new(Metadata { mtime: options.time, ..Metadata::root(0o755) });
            press(&tree, &store(), &options).write(&ours);
            compare(&ours, &theirs, &options);
        }
    }
}

fn make(mut mkfs: Command, options: &Options, path: &Path) {
    let on = u8::from(options.profile == Profile::Lts612);
    let uuid = options.uuid;
    // Newer ones turn on what nobody shall have; older ones do not know it.
    let help = Command::new(mkfs.get_program()).args(mkfs.get_args()).arg("-V").output().unwrap();
    let version = String::from_utf8_lossy(&help.stdout).into_owned();
    let major = version.trim().rsplit(' ').next().and_then(|number| number.split('.').next());
    let newer = major.and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 7);
    let exchange = if newer { ",exchange=0" } else { "" };
    mkfs.args(["-q", "-f", "-L", &options.label, "-s", &format!("size={}", options.sector_size)])
        .args(["-m", &format!("uuid={uuid},finobt=1,reflink=1,bigtime=1,inobtcount=1,rmapbt={on}")])
        .args(["-i", &format!("sparse=1,nrext64={on}{exchange}")]);
    if newer {
        mkfs.args(["-n", "parent=0"]);
    }
    run(mkfs.arg(path));
}

/// Everything that has bytes in either: the first 80 MiB of each group, which hold the headers, the trees, inodes and the log.
fn compare(ours: &Path, theirs: &Path, options: &Options) {
    let (ours, theirs) = (File::open(ours).unwrap(), File::open(theirs).unwrap());
    for group in 0..4 {
        for block in 0..80 * MIB / BLOCK {
            let (mut one, mut two) = ([0; 4096], [0; 4096]);
            let offset = group * GROUP + block * BLOCK;
            ours.read_exact_at(&mut one, offset).unwrap();
            theirs.read_exact_at(&mut two, offset).unwrap();
            if one == two {
                continue;
            }
            for bytes in [&mut one, &mut two] {
                mask(bytes, group, block, options);
            }
            let differs = one.iter().zip(&two).position(|(a, b)| a != b);
            assert_eq!(differs, None, "block {block} of group {group}, {options:?}");
        }
    }
}

/// Takes away what may differ.
fn mask(block: &mut [u8; 4096], group: u64, number: u64, options: &Options) {
    let sector = options.sector_size;
    // Super block, free space and free list may be in one block or in four.
    let mut structure = |index: u64, ranges: &[std::ops::Range<usize>]| {
        let at = index * sector;
        if at / BLOCK == number {
            let start = (at % BLOCK) as usize;
            ranges.iter().for_each(|range| block[start..][range.clone()].fill(0));
        }
    };
    // The bit for attributes, which the kernel sets with the first one; the checksum.
    let mut super_block = vec![100..102, 224..228];
    if group > 0 {
        // mkfs leaves inode numbers and counters of copies as they were when it began.
        super_block.extend([56..80, 128..160]);
    }
    structure(0, &super_block);
    // Where the free list begins: mkfs has used a slot.
    structure(1, &[40..48, 216..220]);
    structure(3, std::slice::from_ref(&(32..sector as usize)));
    let is_inode = block.starts_with(b"IN");
    if is_inode {
        for inode in block.as_chunks_mut::<512>().0 {
            // Times, generation, checksum, count of changes, time of creation.
            for range in [32..56, 92..96, 100..112, 144..152] {
                inode[range].fill(0);
            }
        }
    }
}
