//! Disks that are what they seem, and disks that are not.

use std::io::Cursor;

use super::*;

#[test]
fn formats_are_known_by_their_magic() {
    let disk = |at: usize, magic: &[u8]| {
        let mut bytes = vec![0; 4096];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        format_of(&mut Cursor::new(bytes)).unwrap()
    };
    assert_eq!(disk(0, b""), DiskFormat::Raw);
    assert_eq!(disk(0, b"QFI\xfb"), DiskFormat::Qcow2);
    assert_eq!(disk(0, b"KDMV"), DiskFormat::Vmdk);
    assert_eq!(disk(0, b"vhdxfile"), DiskFormat::Vhdx);
    assert_eq!(disk(64, b"\x7f\x10\xda\xbe"), DiskFormat::Vdi);
    assert_eq!(disk(3584, b"conectix"), DiskFormat::Vhd);
    assert_eq!(disk(3583, b"conectix"), DiskFormat::Raw);
    assert_eq!(format_of(&mut Cursor::new(b"QFI")).unwrap(), DiskFormat::Raw);
    for format in DiskFormat::ALL {
        assert_eq!(DiskFormat::parse(format.name()), Some(format));
    }
}

/// Opens a file of this name and these bytes.
fn opened(name: &str, bytes: &[u8], format: Option<DiskFormat>) -> Result<Disk, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    fs::write(&file, bytes).unwrap();
    Disk::open(&file, format, directory.path()).map_err(|error| match error {
        BootError::Refused { why, .. } => why,
        other => panic!("{other}"),
    })
}

fn qcow2(version: u32, backing: u64, features: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    bytes[4..8].copy_from_slice(&version.to_be_bytes());
    bytes[8..16].copy_from_slice(&backing.to_be_bytes());
    bytes[72..80].copy_from_slice(&features.to_be_bytes());
    bytes
}

fn vmdk(capacity: u64, descriptor: &str) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..4].copy_from_slice(b"KDMV");
    bytes[12..20].copy_from_slice(&capacity.to_le_bytes());
    bytes[28..36].copy_from_slice(&1_u64.to_le_bytes());
    bytes[36..44].copy_from_slice(&2_u64.to_le_bytes());
    bytes[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
    bytes
}

#[test]
fn disks_that_name_other_files_are_refused() {
    let read = ", which QEMU would read on this machine";
    for (name, bytes, what) in [
        ("a.qcow2", qcow2(3, 512, 0), "a backing file"),
        ("a.qcow2", qcow2(2, 512, 0), "a backing file"),
        ("a", qcow2(3, 512, 0), "a backing file"),
        ("a.qcow2", qcow2(3, 0, 4), "a data file"),
        ("a.vmdk", vmdk(0, ""), "extents in other files"),
        ("a.img", vmdk(8, "CID=1\nparentCID=12345678\n"), "a parent"),
        ("a.vmdk", vmdk(8, "parentFileNameHint=\"/etc/passwd\"\n"), "a parent"),
    ] {
        assert_eq!(opened(name, &bytes, None).unwrap_err(), format!("it names {what}{read}"));
    }
    // In version 2 there are no features where version 3 has them.
    assert!(opened("a.qcow2", &qcow2(2, 0, 4), None).is_ok());
    let sound =
        vmdk(8, "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 8 SPARSE \"a.vmdk\"\n");
    assert_eq!(opened("a.vmdk", &sound, None).unwrap().format, DiskFormat::Vmdk);
}

#[test]
fn names_decide_before_contents_and_the_caller_before_names() {
    let forged = qcow2(3, 512, 0);
    assert_eq!(opened("a.raw", &forged, None).unwrap().format, DiskFormat::Raw);
    assert_eq!(opened("a.iso", &forged, None).unwrap().format, DiskFormat::Raw);
    assert_eq!(opened("a.qcow2", &forged, Some(DiskFormat::Raw)).unwrap().format, DiskFormat::Raw);
    assert_eq!(opened("a.img", &qcow2(3, 0, 0), None).unwrap().format, DiskFormat::Qcow2);
    assert_eq!(opened("a.ami", &[0; 4096], None).unwrap().format, DiskFormat::Raw);
    let descriptor = b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n".repeat(30);
    assert_eq!(opened("a.vmdk", &descriptor, None).unwrap_err(), "it is not in the format vmdk");
    assert_eq!(opened("a.img", &descriptor, None).unwrap().format, DiskFormat::Raw);
}

#[test]
fn paths_that_are_not_utf8_get_another_name() {
    use std::os::unix::ffi::OsStringExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(std::ffi::OsString::from_vec(b"\xff.raw".to_vec()));
    fs::write(&file, [0; 4096]).unwrap();
    let disk = Disk::open(&file, None, directory.path()).unwrap();
    assert_eq!(fs::read(&disk.file).unwrap(), [0; 4096]);
}

#[test]
fn no_node_looks_for_a_backing_file() {
    let disk = Disk { file: "/d/a\"b,c".to_owned(), format: DiskFormat::Qcow2 };
    assert_eq!(
        disk.node("base", false),
        r#"{"driver":"qcow2","node-name":"base","read-only":true,"file":{"driver":"file","filename":"/d/a\"b,c"},"backing":null}"#
    );
    let written = Disk { format: DiskFormat::Vhd, ..disk }.node("disk", true);
    assert_eq!(
        written,
        r#"{"driver":"vpc","node-name":"disk","discard":"unmap","file":{"driver":"file","filename":"/d/a\"b,c","discard":"unmap"}}"#
    );
    let using = Use { durable: false, optical: false };
    assert_eq!(
        top("/t/o", "below1", using),
        r#"{"driver":"qcow2","node-name":"disk","discard":"unmap","cache":{"no-flush":true},"file":{"driver":"file","filename":"/t/o","discard":"unmap","cache":{"no-flush":true}},"backing":"below1"}"#
    );
    let optical = top("/t/o", "base", Use { optical: true, ..using });
    assert_eq!(optical.matches("\"read-only\":true").count(), 2);
}
