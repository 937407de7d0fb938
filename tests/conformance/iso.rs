//! Media: the ISO 9660 read by xorriso, isoinfo and the kernel; the squashfs by unsquashfs and the kernel; refusals.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::content::ContentStore;
use bootpress::filesystem::iso9660::{BootImages, Labels, Layout};
use bootpress::filesystem::squashfs;
use bootpress::progress::{Progress, Stage};
use bootpress::sparse::SparseMap;
use bootpress::tree::{Kind, Metadata, Tree};
use support::Build;
use support::bootc_image::bootc_image;
use support::program::Failed;
use support::tool::{is_root, run, tool};

const LABELS: Labels<'_> = Labels {
    volume_id: "TEST-43.1",
    publisher: "NOBODY",
    application: "BOOTPRESS TEST",
    application_use: &[],
};

fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

/// Bytes that do not compress, nor repeat.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn write(map: &SparseMap, contents: &ContentStore, path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(map.size()).unwrap();
    for (&offset, source) in map.segments() {
        let mut bytes = vec![0; source.len() as usize];
        map.read_at(contents, offset, &mut bytes).unwrap();
        file.write_all_at(&bytes, offset).unwrap();
    }
}

/// A mount of a file, read-only; `None` where the test may not mount.
struct Mount(PathBuf);

impl Mount {
    fn new(file: &Path, kind: &str) -> Option<Self> {
        if !is_root() || !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: mounting needs root and loop devices");
            return None;
        }
        let on = file.with_extension("mounted");
        fs::create_dir(&on).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", kind, "-o", "ro,loop"])
            .arg(file)
            .arg(&on)
            .status()
            .unwrap();
        if !mounted.success() {
            eprintln!("skipped: this kernel does not mount {kind}");
            return None;
        }
        Some(Self(on))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Names of all kinds, many of them, and a file over 4 GiB that is a hole but for its ends.
fn volume(contents: &ContentStore) -> (Tree, SparseMap) {
    let mut tree = Tree::new(Metadata::root(0o755));
    let put = |tree: &mut Tree, path: &str, bytes: &[u8]| {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let directory = tree.make_directories(directory, &Metadata::root(0o755));
        let content = contents.insert_bytes(bytes).unwrap();
        tree.create(directory, name.as_bytes(), Metadata::root(0o444), Kind::File(content));
    };
    put(&mut tree, "EFI/BOOT/BOOTX64.EFI", &noise(100_001));
    put(&mut tree, "EFI/BOOT/grub.cfg", b"menu\n");
    put(&mut tree, "EFI/BOOT/empty", b"");
    put(&mut tree, "a/b/c/d/e/A name with blanks, of some length.tar.gz", b"deep");
    for n in 0..150 {
        put(&mut tree, &format!("many/file-{n}.conf"), format!("{n}").as_bytes());
    }
    let mut writer = contents.writer(5 << 30);
    std::io::Write::write_all(&mut writer, b"begin").unwrap();
    writer.skip((5 << 30) - 8);
    std::io::Write::write_all(&mut writer, b"end").unwrap();
    let big = writer.finish().unwrap();
    tree.create(Tree::ROOT, b"big", Metadata::root(0o444), Kind::File(big));
    let layout = Layout::plan(&tree, 4096).unwrap();
    let bios = |sector: u32| {
        let mut image = vec![0; 4096];
        image[..4].copy_from_slice(&sector.to_le_bytes());
        image
    };
    let efi = layout.end();
    let boot = BootImages { bios: Some(&bios), efi: Some((efi, 4096)) };
    let map = layout.write(&LABELS, &boot, layout.end() + 16);
    (tree, map)
}

#[test]
fn xorriso_and_isoinfo_read_the_volume() {
    let (Some(mut xorriso), Some(mut isoinfo)) = (tool("xorriso"), tool("isoinfo")) else { return };
    let contents = store();
    let (tree, map) = volume(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("volume.iso");
    write(&map, &contents, &path);

    let said =
        run(xorriso.arg("-indev").arg(&path).args(["-pvd_info", "-report_el_torito", "plain"]));
    for line in
        ["Volume Id    : TEST-43.1", "Publisher Id : NOBODY", "App Id       : BOOTPRESS TEST"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("El Torito boot img :   1  BIOS  y   none"), "{said}");
    assert!(said.contains("El Torito boot img :   2  UEFI  y   none"), "{said}");
    assert!(!said.contains("FAILURE") && !said.contains("SORRY"), "{said}");

    let listing = run(isoinfo.args(["-f", "-R", "-i"]).arg(&path));
    let mut seen: Vec<&str> = listing.lines().map(|line| line.trim_start_matches('/')).collect();
    seen.sort_unstable();
    // A file of several extents has several records.
    seen.dedup();
    let mut expected: Vec<String> =
        tree.walk().skip(1).map(|(path, _)| String::from_utf8(path).unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn the_kernel_reads_the_volume() {
    let contents = store();
    let (tree, map) = volume(&contents);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("volume.iso");
    write(&map, &contents, &path);
    let Some(mount) = Mount::new(&path, "iso9660") else { return };
    let counts = tree.link_counts();
    for (path, id) in tree.walk().skip(1) {
        let place = mount.0.join(String::from_utf8(path).unwrap());
        let metadata = fs::symlink_metadata(&place).unwrap();
        let inode = tree.inode(id);
        assert_eq!(metadata.mode(), inode.st_mode(), "{}", place.display());
        assert_eq!(metadata.nlink(), u64::from(counts[id.index()]), "{}", place.display());
        let Kind::File(content) = &inode.kind else { continue };
        assert_eq!(metadata.len(), content.size, "{}", place.display());
        if content.size < 1 << 20 {
            assert_eq!(
                fs::read(&place).unwrap(),
                contents.bytes(content).unwrap(),
                "{}",
                place.display()
            );
        } else {
            let file = fs::File::open(&place).unwrap();
            let mut end = [0; 5];
            file.read_exact_at(&mut end, content.size - 5).unwrap();
            assert_eq!(&end, b"\0\0end");
            file.read_exact_at(&mut end, 0).unwrap();
            assert_eq!(&end, b"begin");
        }
    }
}

/// A disk with holes, blocks that compress, blocks that do not, and an end inside a block.
fn disk() -> SparseMap {
    let mut map = SparseMap::new((300 << 20) + 4096);
    map.put(0, vec![7; 1000]);
    map.put(5 << 20, noise(3_000_000));
    map.put(100 << 20, (0..400_000_u32).flat_map(u32::to_le_bytes).collect());
    map.put((300 << 20) + 4000, vec![9; 96]);
    map
}

#[test]
fn unsquashfs_and_the_kernel_read_the_container() {
    let contents = store();
    let (one, two) = (disk(), SparseMap::new(0));
    let stage = Progress::default().stage(Stage::LayOut, None);
    let packed =
        squashfs::format(&[("disk.raw", &one), ("empty", &two)], &contents, &stage).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (path, raw) = (directory.path().join("disk.squashfs"), directory.path().join("disk.raw"));
    fs::write(&path, contents.bytes(&packed).unwrap()).unwrap();
    write(&one, &contents, &raw);
    let Some(mut unsquashfs) = tool("unsquashfs") else { return };
    let out = directory.path().join("out");
    run(unsquashfs.args(["-no-progress", "-strict-errors", "-d"]).arg(&out).arg(&path));
    run(Command::new("cmp").arg(out.join("disk.raw")).arg(&raw));
    assert_eq!(fs::metadata(out.join("empty")).unwrap().len(), 0);
    assert!(fs::metadata(&path).unwrap().len() < 5_500_000, "holes and zeros are not stored");
    let Some(mount) = Mount::new(&path, "squashfs") else { return };
    run(Command::new("cmp").arg(mount.0.join("disk.raw")).arg(&raw));
}

#[test]
fn what_a_live_system_lacks_is_named_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    bootc_image().write_oci_layout(&directory.path().join("image"));
    let out = directory.path().join("out");
    fs::create_dir(&out).unwrap();
    let image = format!("oci:{}", directory.path().join("image").display());
    let build = |flags: &[&str]| {
        let build = Build::new(&image).flags(["--target-imgref", "example.com/tiny:43"]);
        build.flags(flags).output(&out).fails()
    };
    for (flags, code, told) in [
        (
            &["--format", "iso"][..],
            3,
            "the image has no blkdiscard, with which its medium would install it",
        ),
        (&["--format", "raw,iso", "--layout", "osbuild"], 3, "build media with --layout bootc"),
        (&["--format", "iso", "--sector-size", "4096"], 3, "sectors of 512 bytes"),
        (&["--format", "iso", "--bootloader", "none"], 3, "the image's boot loader"),
        (
            &["--format", "iso", "--volume-id", "a b"],
            2,
            "invalid value 'a b' for '--volume-id <LABEL>': expected 1 to 32 of the characters",
        ),
        (&["--format", "iso", "--install-to", "first"], 2, "selects no disk"),
        (&["--format", "raw", "--install-to", "only-disk"], 1, "--install-to is for media"),
    ] {
        let Failed { code: exit, said } = build(flags);
        assert_eq!(exit, code, "{flags:?}: {said}");
        assert!(said.contains(told), "{flags:?}: {said}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "{flags:?}");
    }
}
