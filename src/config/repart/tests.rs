//! What definitions of systemd-repart come to, and what is refused of them.

use super::*;
use crate::error::{Corrupt, Unsupported};
use crate::tree::Metadata;

type Read = Result<Option<(Layout, Vec<String>)>>;

fn read_all(files: &[(&str, &str)]) -> Read {
    let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
    let mut tree = Tree::new(Metadata::root(0o755));
    for (path, text) in files {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let directory = tree.make_directories(directory, &Metadata::root(0o755));
        let kind = match text.strip_prefix("-> ") {
            Some(target) => Kind::Symlink(target.as_bytes().into()),
            None => Kind::File(contents.insert_bytes(text.as_bytes()).unwrap()),
        };
        tree.create(directory, name.as_bytes(), Metadata::root(0o644), kind);
    }
    layout(&tree, &contents, Architecture::X86_64)
}

fn read(text: &str) -> Read {
    read_all(&[("usr/lib/repart.d/10-a.conf", text), ("usr/bin/systemd-repart", "ELF")])
}

const ESP_CONF: &str = "[Partition]\nType=esp\nFormat=vfat\nSizeMinBytes=2G\nSizeMaxBytes=2G\n";
const ROOT_CONF: &str = "# the root\n[Partition]\nType = root\nFormat=xfs\nLabel=system\nUUID=6264d520-3fb9-423f-8ab8-7a0a8e3d3562\nWeight=500\n";

#[test]
fn esp_and_root_are_read_in_the_order_of_file_names() {
    let (layout, warnings) = read_all(&[
        ("usr/lib/repart.d/50-root.conf", ROOT_CONF),
        ("usr/lib/repart.d/10-esp.conf", ESP_CONF),
        ("usr/lib/repart.d/README", "no definition"),
    ])
    .unwrap()
    .unwrap();
    assert!(warnings[0].contains("the image has no /usr/bin/systemd-repart"), "{warnings:?}");
    assert_eq!(layout.origin, "the image's usr/lib/repart.d");
    let [esp, root] = &layout.partitions[..] else { panic!("{layout:?}") };
    assert_eq!((esp.type_guid, esp.minsize, esp.maxsize), (Some(ESP), 2 << 30, Some(2 << 30)));
    assert_eq!((esp.name.as_deref(), esp.weight), (Some("esp"), Some(1000)));
    assert_eq!((root.mountpoint(), layout.root_kind()), (Some("/"), Some(FileSystem::Xfs)));
    assert_eq!((root.name.as_deref(), root.weight), (Some("system"), Some(500)));
    assert!(root.guid.is_some() && root.minsize == 0 && root.maxsize.is_none());
}

#[test]
fn root_is_added_and_files_hide_files_of_the_same_name() {
    let (layout, _) = read_all(&[
        ("usr/lib/repart.d/10-esp.conf", ESP_CONF),
        ("usr/lib/repart.d/20-home.conf", "[Partition]\nType=home\nFormat=ext4\n"),
        ("usr/lib/repart.d/30-swap.conf", "[Partition]\nType=swap\nFormat=swap\n"),
        ("usr/lib/repart.d/40-gone.conf", "[Partition]\nType=srv\n"),
        ("etc/repart.d/20-home.conf", "-> /dev/null"),
        (
            "usr/local/lib/repart.d/30-swap.conf",
            "[Partition]\nType=var\nFormat=btrfs\nSizeMaxBytes=5M\n",
        ),
        ("etc/repart.d/40-gone.conf", ""),
    ])
    .unwrap()
    .unwrap();
    assert_eq!(layout.partitions.len(), 3, "{layout:?}");
    assert_eq!(layout.partitions[1].minsize, 5 << 20);
    assert_eq!(layout.partitions[2].mountpoint(), Some("/"));
    assert_eq!(layout.root_kind(), None);
    assert_eq!(layout.origin, "the image's usr/lib/repart.d and usr/local/lib/repart.d");
    assert!(read_all(&[]).unwrap().is_none());
}

#[test]
fn unknown_keys_are_named() {
    let (_, warnings) =
        read(&format!("{ROOT_CONF}Colour=blue\nX-Ours=1\n[Other]\nKey=1\n")).unwrap().unwrap();
    assert_eq!(
        warnings,
        [
            "the image's usr/lib/repart.d/10-a.conf: unknown section [Other]",
            "the image's usr/lib/repart.d/10-a.conf: unknown key Colour"
        ]
    );
}

#[test]
fn flags_and_subvolumes_are_honoured() {
    let text = "[Partition]\nType=root\nFormat=btrfs\nSubvolumes=/root /other\nDefaultSubvolume=/root\nReadOnly=yes\nFlags=0x4\n";
    let (layout, _) = read(text).unwrap().unwrap();
    let root = &layout.partitions[0];
    assert_eq!(root.attributes, READ_ONLY | 4);
    let names: Vec<_> = root.subvolumes().iter().map(|one| one.name.as_str()).collect();
    assert_eq!((names, root.mountpoint()), (vec!["root", "other"], Some("/")));
}

#[test]
fn what_cannot_be_honoured_is_refused_with_the_way_out() {
    for (line, what) in [
        ("CopyFiles=/usr", "CopyFiles= is not supported"),
        ("MakeDirectories=/home", "MakeDirectories= is not supported"),
        ("CopyBlocks=auto", "CopyBlocks= is not supported"),
        ("Encrypt=tpm2", "Encrypt=tpm2 is not supported"),
        ("Verity=hash", "Verity=hash is not supported"),
        ("Format=erofs", "Format=erofs is not supported: expected one of: ext4"),
        ("Label=%M_%A", "specifiers"),
        ("Type=root-arm64", "the root of another architecture"),
        ("Type=root-riscv64", "Type=root-riscv64 is not supported: expected root"),
        ("PaddingMinBytes=1G", "PaddingMinBytes= is not supported"),
        ("Subvolumes=/x", "Subvolumes= is for Format=btrfs"),
    ] {
        let error = read(&format!("{ROOT_CONF}{line}\n")).unwrap_err();
        let said = error.downcast_ref::<Unsupported>().unwrap_or_else(|| panic!("{line}: {error}"));
        assert!(said.what.contains(what), "{line}: {}", said.what);
        assert!(said.hint.as_ref().unwrap().contains("--ignore-image-layout"), "{line}");
    }
    for (line, what) in [
        ("SizeMinBytes=5 apples", "invalid SizeMinBytes \"5 apples\""),
        ("SizeMinBytes=2G\nSizeMaxBytes=1G", "invalid SizeMaxBytes"),
        ("UUID=7", "invalid UUID"),
        ("Weight=heavy", "invalid Weight"),
        ("NoAuto=perhaps", "invalid NoAuto"),
        ("nonsense", "neither [section] nor key=value"),
    ] {
        let error = read(&format!("{ROOT_CONF}{line}\n")).unwrap_err();
        assert!(error.is::<Corrupt>() && error.to_string().contains(what), "{line}: {error}");
    }
    assert!(read("Type=root\n").unwrap_err().to_string().contains("before the first section"));
    assert!(read("[Partition]\nFormat=ext4\n").unwrap_err().to_string().contains("invalid Type"));
}
