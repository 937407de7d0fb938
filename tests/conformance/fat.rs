//! The ESP, read by fsck.fat, mtools and the `fatfs` crate.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::FileExt;

use bootpress::content::ContentStore;
use bootpress::filesystem::fat::{self, Options};
use bootpress::sparse::SparseMap;
use bootpress::tree::{Kind, Metadata, Tree};
use support::tool::{run, tool};
use tempfile::NamedTempFile;

/// Sizes that somebody uses, and the smallest that are FAT32 at all.
const VOLUMES: [(u64, u32); 5] =
    [(34 << 20, 512), (501 << 20, 512), (512 << 20, 512), (260 << 20, 4096), (512 << 20, 4096)];

fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

/// What an ESP holds, odd names, and a directory of several clusters.
fn files() -> BTreeMap<String, Vec<u8>> {
    let noise = |seed: u32, len: usize| -> Vec<u8> {
        (0..)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8)
            .take(len)
            .collect()
    };
    let mut files = BTreeMap::from([
        ("EFI/BOOT/BOOTX64.EFI".to_owned(), noise(1, 959_224)),
        ("EFI/BOOT/fbx64.efi".to_owned(), noise(2, 87_816)),
        ("EFI/fedora/BOOTX64.CSV".to_owned(), noise(3, 110)),
        ("EFI/fedora/shimx64.efi".to_owned(), noise(1, 959_224)),
        ("EFI/fedora/grubx64.efi".to_owned(), noise(4, 3_972_416)),
        ("EFI/fedora/grub.cfg".to_owned(), b"set prefix=($root)/grub2\n".to_vec()),
        ("EFI/fedora/a file with blanks and a long name.conf".to_owned(), noise(5, 4096)),
        ("EFI/fedora/größe.txt".to_owned(), noise(6, 4097)),
        ("empty".to_owned(), Vec::new()),
        ("zeros".to_owned(), vec![0; 20_000]),
    ]);
    files.extend(
        (0..300).map(|n| (format!("loader/entries/ostree-{n:03}.conf"), noise(n, n as usize))),
    );
    files
}

fn tree(files: &BTreeMap<String, Vec<u8>>, store: &ContentStore) -> Tree {
    let directory = Metadata::root(0o700);
    let mut tree = Tree::new(directory.clone());
    tree.make_directories("EFI/nothing", &directory);
    for (path, bytes) in files {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = tree.make_directories(parent, &directory);
        let content = store.insert_bytes(bytes).unwrap();
        tree.create(parent, name.as_bytes(), Metadata::root(0o600), Kind::File(content));
    }
    tree
}

fn volume(size: u64, sector_size: u32) -> NamedTempFile {
    let store = store();
    let options = Options { size, sector_size, volume_id: 0x7b77_95e7, label: "EFI-SYSTEM" };
    let map = fat::format(&tree(&files(), &store), &store, &options).unwrap();
    assert_eq!(map.size(), size);
    let file = NamedTempFile::new().unwrap();
    write(file.as_file(), &map, &store);
    file
}

fn write(file: &std::fs::File, map: &SparseMap, store: &ContentStore) {
    file.set_len(map.size()).unwrap();
    for (&offset, source) in map.segments() {
        let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
        map.read_at(store, offset, &mut bytes).unwrap();
        file.write_all_at(&bytes, offset).unwrap();
    }
}

#[test]
fn fsck_is_content_and_sees_fat32() {
    for (size, sector_size) in VOLUMES {
        let Some(mut fsck) = tool("fsck.fat") else { return };
        let output = run(fsck.arg("-nv").arg(volume(size, sector_size).path()));
        assert!(output.contains("32 bit entries"), "{size} {sector_size}: {output}");
        let complaints = ["differ", "dirty", "wrong", "Wrong", "invalid", "Invalid"];
        for line in output.lines() {
            assert!(
                !complaints.iter().any(|word| line.contains(word)),
                "{size} {sector_size}: {output}"
            );
        }
    }
}

#[test]
fn blkid_reads_type_label_and_id() {
    let Some(mut blkid) = tool("blkid") else { return };
    let volume = volume(512 << 20, 512);
    let output = run(blkid.args(["--probe", "--output", "export"]).arg(volume.path()));
    for line in [
        "TYPE=vfat",
        "VERSION=FAT32",
        "LABEL=EFI-SYSTEM",
        "LABEL_FATBOOT=EFI-SYSTEM",
        "UUID=7B77-95E7",
    ] {
        assert!(output.lines().any(|found| found == line), "{line}: {output}");
    }
    assert_eq!(fat::uuid(0x7b77_95e7), "7B77-95E7");
}

#[test]
fn fatfs_reads_every_file_back() {
    for (size, sector_size) in VOLUMES {
        let volume = volume(size, sector_size);
        let fs = fatfs::FileSystem::new(volume.reopen().unwrap(), fatfs::FsOptions::new()).unwrap();
        assert_eq!(fs.fat_type(), fatfs::FatType::Fat32);
        assert_eq!(fs.read_volume_label_from_root_dir().unwrap().as_deref(), Some("EFI-SYSTEM"));
        let mut found = BTreeMap::new();
        let mut directories = Vec::new();
        collect(&fs.root_dir(), "", &mut found, &mut directories);
        let expected = files();
        assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
        assert!(found == expected, "contents differ");
        directories.sort();
        assert_eq!(
            directories,
            ["EFI", "EFI/BOOT", "EFI/fedora", "EFI/nothing", "loader", "loader/entries"]
        );
    }
}

fn collect<T: fatfs::ReadWriteSeek>(
    directory: &fatfs::Dir<'_, T>,
    path: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
    directories: &mut Vec<String>,
) {
    for entry in directory.iter() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if [".", ".."].contains(&name.as_str()) {
            continue;
        }
        // FAT's first day: no clock has been near this disk.
        let modified = entry.modified();
        assert_eq!(
            (modified.date.year, modified.date.month, modified.date.day),
            (1980, 1, 1),
            "{name}"
        );
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        if entry.is_dir() {
            collect(&entry.to_dir(), &path, files, directories);
            directories.push(path);
        } else {
            let mut bytes = Vec::new();
            entry.to_file().read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
    }
}

#[test]
fn mtools_list_names_in_their_case_and_copy_contents() {
    let (Some(mut mdir), Some(mut mcopy)) = (tool("mdir"), tool("mcopy")) else { return };
    let volume = volume(501 << 20, 512);
    let listing = run(mdir.args(["-b", "-/", "-i"]).arg(volume.path()).arg("::"));
    for path in [
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/BOOT/fbx64.efi",
        "EFI/fedora/shimx64.efi",
        "loader/entries/ostree-299.conf",
    ] {
        assert!(listing.lines().any(|line| line == format!("::/{path}")), "{path}: {listing}");
    }
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("grub");
    run(mcopy.arg("-i").arg(volume.path()).arg("::EFI/fedora/grubx64.efi").arg(&target));
    assert!(std::fs::read(target).unwrap() == files()["EFI/fedora/grubx64.efi"]);
}
