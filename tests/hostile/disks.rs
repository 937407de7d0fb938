//! Disks that `inspect` is given: headers that lie, tables that overlap, chains that never end.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::runner::Case;
use support::bootc_image::bootc_image;

const CORRUPT: i32 = 4;
const UNSUPPORTED: i32 = 3;
const FAILED: i32 = 1;
const GOOD: i32 = 0;

/// A sound disk, and where its ESP and its root begin.
struct Sound {
    disk: PathBuf,
    esp: u64,
    root: u64,
    _place: tempfile::TempDir,
}

/// Built once for all cases.
fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        bootc_image().write_oci_layout(&place.path().join("image"));
        let built = support::bootpress()
            .args(["build", "oci:image", "--arch", "x86_64", "--format", "raw", "--json"])
            .args(["--output", "disk.raw", "--progress", "none"])
            .current_dir(place.path())
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let report: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
        let start = |role: &str| {
            let partitions = report["partitions"].as_array().unwrap();
            let found = partitions.iter().find(|one| one["role"] == role).unwrap();
            found["start"].as_u64().unwrap()
        };
        let (esp, root) = (start("esp"), start("root"));
        Sound { disk: place.path().join("disk.raw"), esp, root, _place: place }
    })
}

/// `inspect` of the sound disk with some bytes changed.
fn changed(
    name: &str,
    exit: i32,
    change: impl Fn(&fs::File, &Sound) + Send + Sync + 'static,
) -> Case {
    Case::new(format!("disk {name}"), exit, &["inspect", "disk.raw"], move |place| {
        let (sound, copy) = (sound(), place.join("disk.raw"));
        let copied = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([&sound.disk, &copy])
            .status();
        assert!(copied.unwrap().success());
        change(&fs::OpenOptions::new().read(true).write(true).open(copy).unwrap(), sound);
    })
    .within(30, 200)
}

/// A file that is not a disk of ours.
fn file(
    name: &str,
    exit: i32,
    file: &'static str,
    write: impl Fn(&Path) + Send + Sync + 'static,
) -> Case {
    Case::new(format!("disk {name}"), exit, &["inspect", file], move |place| {
        write(&place.join(file))
    })
    .within(30, 200)
}

pub(crate) fn cases() -> Vec<Case> {
    [tables(), file_systems(), qcow2(), others()].into_iter().flatten().collect()
}

fn tables() -> Vec<Case> {
    let mut cases = Vec::new();
    // Offsets are those of UEFI 2.10, table 5.5; the header is in the second sector.
    for (name, exit, at, value) in [
        ("without the mark of its MBR", GOOD, 510, &[0, 0][..]),
        ("whose table has no signature", CORRUPT, 512, b"NOT PART"),
        ("whose table's checksum is wrong", CORRUPT, 512 + 16, &[1, 2, 3, 4]),
        ("whose table has 2^32 entries", CORRUPT, 512 + 80, &[0xff; 4]),
        ("whose table has entries of 0 bytes", CORRUPT, 512 + 84, &[0; 4]),
        ("whose table is elsewhere", CORRUPT, 512 + 72, &[0xff; 8]),
        ("whose table's header has 4 GiB", CORRUPT, 512 + 12, &[0xff; 4]),
        ("whose partition begins at the end", CORRUPT, 1024 + 32, &[0xff; 8]),
        ("whose partition ends before it begins", CORRUPT, 1024 + 40, &[0; 8]),
    ] {
        cases.push(changed(name, exit, move |file, _| {
            file.write_all_at(value, at).unwrap();
            // Nor is the other copy of use.
            let end = file.metadata().unwrap().len();
            file.write_all_at(&[0; 512], end - 512).unwrap();
        }));
    }
    cases
}

fn file_systems() -> Vec<Case> {
    let mut cases = Vec::new();
    // Microsoft FAT specification 1.03, boot sector.
    for (name, exit, at, value) in [
        ("sectors have 0 bytes", CORRUPT, 11, &[0, 0][..]),
        ("clusters have 0 sectors", CORRUPT, 13, &[0]),
        ("clusters have 3 sectors", CORRUPT, 13, &[3]),
        ("tables are none", CORRUPT, 16, &[0]),
        ("tables are 255", GOOD, 16, &[255]),
        ("tables have 2^32 sectors", CORRUPT, 36, &[0xff; 4]),
        ("volume has 2^32 sectors", CORRUPT, 32, &[0xff; 4]),
        ("root is nowhere", CORRUPT, 44, &[0xff; 4]),
        ("root is cluster 0", CORRUPT, 44, &[0; 4]),
    ] {
        cases.push(changed(&format!("whose FAT's {name}"), exit, move |file, sound| {
            file.write_all_at(value, sound.esp + at).unwrap();
        }));
    }
    cases.push(changed("whose FAT's directories share one chain", CORRUPT, |file, sound| {
        shared_chain(file, sound.esp)
    }));
    // ext4's super block, at 1024; offsets are those of the kernel's documentation.
    for (name, exit, at, value) in [
        ("magic is wrong", GOOD, 0x38, &[0, 0][..]),
        ("blocks have 2^31 bytes", CORRUPT, 0x18, &[21, 0, 0, 0]),
        ("groups have no blocks", CORRUPT, 0x20, &[0; 4]),
        ("groups have no inodes", CORRUPT, 0x28, &[0; 4]),
        ("inodes have 0 bytes", CORRUPT, 0x58, &[0, 0]),
        ("features are unknown", UNSUPPORTED, 0x60, &[0xff; 4]),
        ("blocks are 2^32", CORRUPT, 0x04, &[0xff; 4]),
    ] {
        cases.push(changed(&format!("whose ext4's {name}"), exit, move |file, sound| {
            file.write_all_at(value, sound.root + 1024 + at).unwrap();
        }));
    }
    cases
}

/// A root directory of which every entry is a directory that begins somewhere in one long chain.
fn shared_chain(file: &fs::File, esp: u64) {
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, esp).unwrap();
    let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let u32_at = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|i| boot[at + i])));
    let (sector, cluster) = (u16_at(11), u16_at(11) * u64::from(boot[13]));
    let fat = esp + u16_at(14) * sector;
    let data = fat + u64::from(boot[16]) * u32_at(36) * sector;
    let count = (1 << 20) / cluster;
    let first = u32_at(44).max(2) + 100;
    for number in first..first + count {
        let next = if number + 1 == first + count { 0x0fff_ffff } else { number as u32 + 1 };
        file.write_all_at(&next.to_le_bytes(), fat + 4 * number).unwrap();
        let mut entries = Vec::new();
        for entry in 0..cluster / 32 {
            let target = first + (number * 7 + entry * 13) % count;
            let mut one = [b' '; 32];
            one[..8].copy_from_slice(format!("{:08X}", number * 1000 + entry).as_bytes());
            one[11] = 0x10;
            one[12..].fill(0);
            one[20..22].copy_from_slice(&((target >> 16) as u16).to_le_bytes());
            one[26..28].copy_from_slice(&(target as u16).to_le_bytes());
            entries.extend_from_slice(&one);
        }
        file.write_all_at(&entries, data + (number - 2) * cluster).unwrap();
    }
    // The root begins with the chain, too.
    file.write_all_at(&(first as u32).to_le_bytes(), esp + 44).unwrap();
}

fn qcow2() -> Vec<Case> {
    /// A header of version 3 without any cluster (QEMU, docs/interop/qcow2.txt).
    fn header() -> Vec<u8> {
        let mut bytes = vec![0; 4 << 16];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[20..24].copy_from_slice(&16_u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(64_u64 << 20).to_be_bytes());
        bytes[36..40].copy_from_slice(&1_u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&(1_u64 << 16).to_be_bytes());
        bytes[48..56].copy_from_slice(&(2_u64 << 16).to_be_bytes());
        bytes[56..60].copy_from_slice(&1_u32.to_be_bytes());
        bytes[96..100].copy_from_slice(&4_u32.to_be_bytes());
        bytes[100..104].copy_from_slice(&104_u32.to_be_bytes());
        bytes
    }
    let mut cases = Vec::new();
    for (name, exit, at, value) in [
        ("is empty", CORRUPT, 0, &b"QFI\xfb"[..]),
        ("version is 9", UNSUPPORTED, 4, &[0, 0, 0, 9]),
        ("has a backing file", UNSUPPORTED, 8, &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 11]),
        ("clusters have 2^63 bytes", CORRUPT, 20, &[0, 0, 0, 63]),
        ("clusters have 1 byte", CORRUPT, 20, &[0; 4]),
        ("size is 2^64", CORRUPT, 24, &[0xff; 8]),
        ("is encrypted", UNSUPPORTED, 32, &[0, 0, 0, 1]),
        ("table has 2^32 entries", CORRUPT, 36, &[0xff; 4]),
        ("table is nowhere", CORRUPT, 40, &[0x7f; 8]),
        ("table is behind the end", CORRUPT, 40, &[0, 0, 0, 1, 0, 0, 0, 0]),
        ("has a data file", UNSUPPORTED, 79, &[4]),
        ("has features that nobody knows", UNSUPPORTED, 72, &[0x40]),
        ("points to itself", CORRUPT, 1 << 16, &[0x80, 0, 0, 0, 0, 1, 0, 0]),
        ("points nowhere", CORRUPT, 1 << 16, &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    ] {
        cases.push(file(&format!("qcow2 that {name}"), exit, "disk.qcow2", move |path| {
            let mut bytes = header();
            bytes[at..at + value.len()].copy_from_slice(value);
            fs::write(path, bytes).unwrap();
        }));
    }
    cases.push(file("qcow2 that is cut", CORRUPT, "disk.qcow2", |path| {
        fs::write(path, &header()[..60]).unwrap();
    }));
    cases
}

fn others() -> Vec<Case> {
    vec![
        file("that is empty", CORRUPT, "disk.raw", |path| fs::write(path, "").unwrap()),
        file("of noise", CORRUPT, "disk.raw", |path| {
            let noise: Vec<u8> =
                (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
            fs::write(path, noise).unwrap();
        }),
        file("of 8 EiB", CORRUPT, "disk.raw", |path| {
            let file = fs::File::create(path).unwrap();
            // As much as this file system takes.
            for bits in (40..63).rev() {
                if file.set_len(1 << bits).is_ok() {
                    break;
                }
            }
        }),
        file("that is a directory", FAILED, "disk.raw", |path| fs::create_dir(path).unwrap()),
        file("that is endless", CORRUPT, "disk.raw", |path| {
            std::os::unix::fs::symlink("/dev/zero", path).unwrap()
        }),
    ]
}
