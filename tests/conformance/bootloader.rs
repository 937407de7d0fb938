//! GRUB's core.img against `grub-mkimage`: here, and of a newer GRUB where `tests/support/forky` put it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::architecture::Architecture;
use bootpress::bootloader::{self, BootOptions};
use bootpress::content::ContentStore;
use bootpress::tree::{Kind, Metadata, Tree};
use support::tool::{fetched, run, tool};
use uuid::Uuid;

const SECTOR: usize = 512;

/// Each `grub-mkimage` there is, with its modules.
fn grubs() -> Vec<(Command, PathBuf)> {
    let mut grubs = Vec::new();
    if let Some(command) = tool("grub-mkimage") {
        grubs.push((command, PathBuf::from("/usr/lib/grub/i386-pc")));
    }
    let forky = fetched("forky");
    if forky.join("bin/grub-mkimage").is_file() {
        let command = Command::new(forky.join("bin/grub-mkimage"));
        grubs.push((command, forky.join("root/usr/lib/grub/i386-pc")));
    }
    grubs
}

/// An image that boots by BIOS only, with the modules of a directory.
fn image(contents: &ContentStore, modules: &Path) -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755));
    let mut add = |path: &str, bytes: &[u8]| {
        let (above, name) = path.rsplit_once('/').unwrap();
        let above = tree.make_directories(above, &Metadata::root(0o755));
        let content = contents.insert_bytes(bytes).unwrap();
        tree.create(above, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
    };
    let metadata = br#"{"timestamp":"2025-01-01T00:00:00Z","version":"grub2"}"#;
    add("usr/lib/bootupd/updates/BIOS.json", metadata);
    add("usr/lib/bootupd/grub2-static/grub-static-pre.cfg", b"");
    for file in fs::read_dir(modules).unwrap() {
        let file = file.unwrap();
        let path = format!("usr/lib/grub/i386-pc/{}", file.file_name().to_str().unwrap());
        add(&path, &fs::read(file.path()).unwrap());
    }
    tree
}

/// Takes a core.img apart: its first sector, the decompressor, and what the decompressor makes of the rest.
fn take_apart(core: &[u8], decompressor: &[u8], directory: &Path) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let word =
        |at: usize| u32::from_le_bytes(core[SECTOR + at..][..4].try_into().unwrap()) as usize;
    let (compressed, size) = (word(0x08), word(0x0c));
    let start = SECTOR + decompressor.len();
    let packed = directory.join("packed");
    // GRUB pads to whole words.
    assert!(
        core.len() - start - compressed < 4,
        "{} bytes behind the payload",
        core.len() - start - compressed
    );
    fs::write(&packed, &core[start..start + compressed]).unwrap();
    let xz = tool("xz").expect("xz is part of every Debian");
    let unpacked = { xz }
        .args(["--decompress", "--stdout", "--format=raw", "--lzma1=lc=3,lp=0,pb=2,dict=64KiB"])
        .arg(&packed)
        .output()
        .unwrap();
    // grub-mkimage leaves out the end marker: xz says so, but has written everything by then.
    assert!(
        unpacked.stdout.len() >= size,
        "{} of {size} bytes: {:?}",
        unpacked.stdout.len(),
        unpacked.stderr
    );
    let mut middle = core[SECTOR..start].to_vec();
    // The sizes differ with the compressor.
    middle[0x08..0x0c].fill(0);
    (core[..SECTOR].to_vec(), middle, unpacked.stdout[..size].to_vec())
}

#[test]
fn the_kernel_and_its_modules_are_those_of_grub_mkimage() {
    for (mut mkimage, modules) in grubs() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("core.img");
        mkimage.arg("-d").arg(&modules).arg("-o").arg(&theirs);
        mkimage.args(["-O", "i386-pc", "-p", "(,gpt3)/boot/grub2"]);
        run(mkimage.args(["mdraid1x", "part_gpt", "ext2", "biosdisk"]));
        let theirs = fs::read(theirs).unwrap();

        let contents = ContentStore::create_in(directory.path()).unwrap();
        let options = BootOptions {
            architecture: Architecture::X86_64,
            loader: None,
            boot_uuid: Uuid::nil(),
            skip_boot_uuid: false,
            boot_partition: 3,
            boot_filesystem: bootpress::filesystem_kind::FileSystem::Ext4,
            separate_boot: false,
            dos: false,
            bios: true,
            composefs: false,
            time: 0,
        };
        let boot = bootloader::prepare(&image(&contents, &modules), &contents, &options).unwrap();
        let ours = contents.bytes(boot.boot.file("grub2/i386-pc/core.img").unwrap()).unwrap();

        let decompressor = fs::read(modules.join("lzma_decompress.img")).unwrap();
        let (head, middle, payload) = take_apart(&ours, &decompressor, directory.path());
        let (their_head, their_middle, their_payload) =
            take_apart(&theirs, &decompressor, directory.path());
        assert_eq!(head[..SECTOR - 4], their_head[..SECTOR - 4], "{}", modules.display());
        assert_eq!(head[SECTOR - 2..], their_head[SECTOR - 2..]);
        assert_eq!(middle, their_middle);
        assert!(
            payload == their_payload,
            "{}: {} and {} bytes",
            modules.display(),
            payload.len(),
            their_payload.len()
        );
        eprintln!(
            "{}: core.img of {} bytes, theirs {}",
            modules.display(),
            ours.len(),
            theirs.len()
        );

        let code = boot.bios.unwrap();
        let (_, embedded) = code.embed(2048, &[0; 512]);
        assert_eq!(embedded.len() as u64, code.sectors() * 512);
        assert_eq!(embedded[SECTOR..ours.len()], ours[SECTOR..]);
        let mode = |path: &str| boot.boot.inode(boot.boot.find(path).unwrap()).st_mode();
        assert_eq!((mode("grub2"), mode("grub2/i386-pc/normal.mod")), (0o040_700, 0o100_644));
    }
}
