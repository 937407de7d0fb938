//! Disks that name files of this machine: refused, or read as what they are called, and never a byte of such a file in the evidence.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::boot_sector::{Then, disk};
use support::tool;

use crate::bootpress;

const SECRET: &str = "a secret of the host";

/// A file with the secret, in every sector of it.
fn secret(place: &Path) -> String {
    let file = place.join("secret");
    let mut sector = SECRET.as_bytes().to_vec();
    sector.resize(512, b'.');
    fs::write(&file, sector.repeat(64)).unwrap();
    file.to_str().unwrap().to_owned()
}

fn qemu_img(place: &Path, arguments: &[&str]) {
    tool::run(Command::new("qemu-img").args(arguments).current_dir(place));
}

fn tested(place: &Path, file: &str, flags: &[&str]) -> Output {
    bootpress(place)
        .args(["test", file, "--firmware", "bios", "--memory", "64", "--arch", "x86_64"])
        .args(["--accel", "tcg", "--timeout", "20", "--evidence", "evidence"])
        .args(flags)
        .output()
        .unwrap()
}

/// All that is in the evidence, and what was printed.
fn told(place: &Path, output: &Output) -> String {
    let mut all = [output.stdout.as_slice(), &output.stderr].concat();
    let mut directories = vec![place.join("evidence")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
            } else {
                all.extend(fs::read(entry.path()).unwrap());
            }
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn disks_that_name_files_of_the_host_are_refused() {
    if tool::tool("qemu-img").is_none() || tool::tool("qemu-system-x86_64").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let secret = secret(place);
    let backing = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &secret];
    qemu_img(place, &[&backing[..], &["backing.qcow2", "8M"]].concat());
    fs::copy(place.join("backing.qcow2"), place.join("backing.img")).unwrap();
    qemu_img(
        place,
        &["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "data.qcow2", "8M"],
    );
    fs::remove_file(place.join("data.raw")).unwrap();
    std::os::unix::fs::symlink(&secret, place.join("data.raw")).unwrap();
    let extents = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW 64 FLAT \"{secret}\" 0\nddb.adapterType = \"ide\"\n"
    );
    let padded = extents.clone() + &"#\n".repeat(600);
    fs::write(place.join("flat.vmdk"), &padded).unwrap();
    let mut embedded = vec![0; 64 << 10];
    embedded[..4].copy_from_slice(b"KDMV");
    embedded[4] = 1;
    embedded[28..36].copy_from_slice(&1_u64.to_le_bytes());
    embedded[36..44].copy_from_slice(&20_u64.to_le_bytes());
    embedded[512..512 + extents.len()].copy_from_slice(extents.as_bytes());
    fs::write(place.join("embedded.vmdk"), &embedded).unwrap();

    for (file, why) in [
        ("backing.qcow2", "it names a backing file, which QEMU would read on this machine"),
        ("backing.img", "it names a backing file"),
        ("data.qcow2", "it names a data file"),
        ("flat.vmdk", "it is not in the format vmdk"),
        ("embedded.vmdk", "it names extents in other files"),
    ] {
        for command in ["test", "run"] {
            let output = match command {
                "test" => tested(place, file, &[]),
                _ => bootpress(place).args(["run", file, "--arch", "x86_64"]).output().unwrap(),
            };
            let said = told(place, &output);
            assert_eq!(output.status.code(), Some(3), "{file}: {said}");
            assert!(said.contains(&format!("error: cannot boot {file}: {why}")), "{file}: {said}");
            assert!(said.contains("hint: if you trust it, qemu-img convert"), "{said}");
            assert!(!said.contains(SECRET));
        }
    }
}

/// Headers of other formats in a raw disk are a raw disk's bytes, also where the script boots it once more.
#[test]
fn forged_headers_of_raw_disks_are_not_read() {
    if tool::tool("qemu-img").is_none() || tool::tool("qemu-system-x86_64").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let secret = secret(place);
    let backing = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &secret];
    qemu_img(place, &[&backing[..], &["forged.raw", "8M"]].concat());
    let mut flags = vec![vec![]];
    fs::copy(place.join("forged.raw"), place.join("forged.qcow2")).unwrap();
    flags.push(vec!["--disk-format", "raw"]);
    for (file, flags) in ["forged.raw", "forged.qcow2"].iter().zip(flags) {
        let output = tested(place, file, &flags);
        let said = told(place, &output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("firmware found nothing to boot"), "{said}");
        assert!(
            said.contains("\"driver\\\":\\\"raw\\\",\\\"node-name\\\":\\\"base\\\"")
                || said.contains("\"driver\":\"raw\",\"node-name\":\"base\""),
            "{said}"
        );
        assert!(!said.contains(SECRET), "{said}");
        let script = fs::read_to_string(place.join("evidence/reproduce.sh")).unwrap();
        assert!(script.contains("\"driver\":\"raw\",\"node-name\":\"base\""), "{script}");
        assert!(!script.contains("qemu-img info"), "{script}");
    }
}

/// A good host and a bad file: that is not an error of the host.
#[test]
fn damaged_disks_are_the_disks_fault() {
    if tool::tool("qemu-img").is_none() || tool::tool("qemu-system-x86_64").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    fs::write(place.join("a.raw"), disk("\r\nLinux version 7\r\nx login: ", Then::Halt)).unwrap();
    qemu_img(place, &["convert", "-O", "qcow2", "a.raw", "a.qcow2"]);
    let mut bytes = fs::read(place.join("a.qcow2")).unwrap();
    // The cluster of sector 0 is where no cluster can be: its L2 entry has a low bit that must be zero.
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = number(40) as usize;
    let l2 = (number(l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let entry = number(l2) | 0x200;
    bytes[l2..l2 + 8].copy_from_slice(&entry.to_be_bytes());
    fs::write(place.join("a.qcow2"), &bytes).unwrap();
    let output = tested(place, "a.qcow2", &[]);
    let said = told(place, &output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let reason = "the disk cannot be read: its file is damaged: Image is corrupt: Cluster";
    assert!(said.contains(reason), "{said}");
    fs::write(place.join("a.qcow2"), &bytes[..60]).unwrap();
    let output = tested(place, "a.qcow2", &[]);
    assert_eq!(output.status.code(), Some(3), "{}", told(place, &output));
}
