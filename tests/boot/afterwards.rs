//! The disk as a guest left it: a kernel that did not write the file systems has read and changed them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qemu::{Ending, Guest, Session};

use crate::disk::Partition;
use crate::machine::Case;
use support::tool::{run, tool};

/// Writes more than memory keeps to itself, and says so; then writes on until the power is cut.
const WRITES: &str = "\
write() { for number in $(seq \"$1\" \"$2\"); do
  mkdir -p /var/written/$number
  head -c 300000 /dev/urandom >/var/written/$number/file
  ln /var/written/$number/file /var/written/$number/link
done; }
write 1 40
sync
say wrote 40
write 41 4000";

/// How long after that the power is cut, in the guest's time: some of what is written is on the disk, some of it not.
const LATER: Duration = Duration::from_secs(2);

/// Boots the disk, which must succeed, and then checks every file system of it that Linux wrote to; returns what the guest said.
pub(crate) fn file_systems_are_sound(case: &Case) -> Guest {
    let overlay = case.directory().join("after.qcow2");
    let guest = case.passes_leaving(Some(&overlay), Session::default());
    let raw = flattened(&overlay, "after.raw");
    check(case, &raw);
    fs::remove_file(raw).unwrap();
    guest
}

/// Cuts the power while the guest writes; then the disk boots again, with what had been synchronized, and is sound.
pub(crate) fn a_power_cut_does_no_harm(case: &Case) {
    let overlay = case.directory().join("after.qcow2");
    let ending = Ending::CutAfter("wrote", LATER);
    let session = Session { errand: Some(WRITES), ending, ..Session::default() };
    case.passes_leaving(Some(&overlay), session);
    let cut = flattened(&overlay, "cut.raw");
    let errand = "for number in $(seq 40); do cmp /var/written/$number/file /var/written/$number/link || exit 1
[ \"$(stat -c %s /var/written/$number/link)\" = 300000 ] || exit 1; done; rm -r /var/written";
    let session = Session { errand: Some(errand), ..Session::default() };
    let report = case.tried(&cut, Some(&overlay), session);
    if let Some(failure) = crate::machine::failure("after the power cut", &report) {
        panic!("{failure}");
    }
    let raw = flattened(&overlay, "after.raw");
    check(case, &raw);
    fs::remove_file(raw).unwrap();
    fs::remove_file(cut).unwrap();
}

/// What an overlay and what is below it make together; the overlay goes.
fn flattened(overlay: &Path, name: &str) -> PathBuf {
    let raw = overlay.with_file_name(name);
    let mut convert = tool("qemu-img").expect("QEMU has it");
    run(convert.args(["convert", "-O", "raw"]).arg(overlay).arg(&raw));
    fs::remove_file(overlay).unwrap();
    raw
}

/// Checks the file systems of a disk with their own tools; at least one there must be, and the guest must have written to the root.
fn check(case: &Case, raw: &Path) {
    let mut checked = 0;
    for partition in case.disk.pressed().of_kind("ext4") {
        ext4(raw, partition);
        checked += 1;
    }
    for (kind, check) in [("xfs", xfs as fn(&Path)), ("btrfs", btrfs)] {
        for partition in case.disk.pressed().of_kind(kind) {
            let alone = raw.with_extension(kind);
            cut_out(raw, partition, &alone);
            check(&alone);
            fs::remove_file(alone).unwrap();
            checked += 1;
        }
    }
    assert!(checked > 0, "there is no file system on the disk that can be checked");
}

fn ext4(raw: &Path, partition: &Partition) {
    let Some(mut e2fsck) = tool("e2fsck") else { return };
    let place = format!("{}?offset={}", raw.display(), partition.start);
    let said = run(e2fsck.arg("-fn").arg(&place));
    // A journal that was not empty would mean that the power-off was none, and that what was checked is not all.
    assert!(!said.contains("recover"), "{}: {said}", partition.role);
    if partition.role == "root" {
        let Some(mut dumpe2fs) = tool("dumpe2fs") else { return };
        let header = run(dumpe2fs.arg("-h").arg(&place));
        let written = header.lines().find_map(|line| line.strip_prefix("Mount count:"));
        assert_ne!(written.map(str::trim), Some("0"), "the guest never mounted it: {header}");
    }
}

fn xfs(alone: &Path) {
    let (Some(mut xfs_repair), Some(mut xfs_logprint)) = (tool("xfs_repair"), tool("xfs_logprint"))
    else {
        return;
    };
    run(xfs_repair.args(["-n", "-f"]).arg(alone));
    // The log is clean, and no longer where it was made: the guest wrote to it. (`-f` would mean a file that is only a log.)
    let said = run(xfs_logprint.arg("-t").arg(alone));
    assert!(said.contains("<CLEAN>"), "{said}");
    assert!(!said.contains("log tail: 2 head: 2 "), "the guest never wrote to it: {said}");
}

fn btrfs(alone: &Path) {
    let Some(mut check) = tool("btrfs") else { return };
    let said = run(check.args(["check", "--readonly", "--check-data-csum"]).arg(alone));
    // A block of a tree that has a good copy besides is read from there, and the exit code is 0.
    assert!(!said.contains("verify failed"), "{said}");
    let Some(mut facts) = tool("btrfs") else { return };
    let facts = run(facts.args(["inspect-internal", "dump-super"]).arg(alone));
    let value = |name: &str| {
        let line = facts.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {facts}")).trim().to_owned()
    };
    assert_eq!(value("log_root\t"), "0", "a log would mean that the power-off was none");
    assert_ne!(value("generation"), "1", "the guest never wrote to it: {facts}");
}

/// A partition in a file of its own, for tools that want one.
fn cut_out(disk: &Path, partition: &Partition, alone: &Path) {
    let option = |name: &str, bytes: u64| format!("{name}={}", bytes >> 20);
    let mut dd = tool("dd").expect("dd is everywhere");
    run(dd
        .args(["bs=1M", "conv=sparse", "status=none"])
        .args([option("skip", partition.start), option("count", partition.size)])
        .arg(format!("if={}", disk.display()))
        .arg(format!("of={}", alone.display())));
}
