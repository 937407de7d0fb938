//! The disk as a guest left it: a kernel that did not write the file systems has read and changed them.

use std::fs;
use std::path::Path;

use qemu::{Guest, Session};

use crate::disk::Partition;
use crate::machine::Case;
use support::tool::{run, tool};

/// Boots the disk, which must succeed, and then checks every ext4 and XFS of it; returns what the guest said.
pub(crate) fn file_systems_are_sound(case: &Case) -> Guest {
    let (overlay, raw) = (case.directory().join("after.qcow2"), case.directory().join("after.raw"));
    let guest = case.passes_leaving(Some(&overlay), Session::default());
    let Some(mut convert) = tool("qemu-img") else { return guest };
    run(convert.args(["convert", "-O", "raw"]).args([&overlay, &raw]));
    let mut checked = 0;
    for partition in case.disk.pressed().of_kind("ext4") {
        let Some(mut e2fsck) = tool("e2fsck") else { return guest };
        let place = format!("{}?offset={}", raw.display(), partition.start);
        let said = run(e2fsck.arg("-fn").arg(&place));
        // A journal that was not empty would mean that the power-off was none, and that what was checked is not all.
        assert!(!said.contains("recover"), "{}: {said}", partition.role);
        if partition.role == "root" {
            let Some(mut dumpe2fs) = tool("dumpe2fs") else { return guest };
            let header = run(dumpe2fs.arg("-h").arg(&place));
            let written = header.lines().find_map(|line| line.strip_prefix("Mount count:"));
            assert_ne!(written.map(str::trim), Some("0"), "the guest never mounted it: {header}");
        }
        checked += 1;
    }
    for partition in case.disk.pressed().of_kind("xfs") {
        let alone = case.directory().join("after.xfs");
        cut_out(&raw, partition, &alone);
        let (Some(mut xfs_repair), Some(mut xfs_logprint)) =
            (tool("xfs_repair"), tool("xfs_logprint"))
        else {
            return guest;
        };
        run(xfs_repair.args(["-n", "-f"]).arg(&alone));
        // The log is clean, and no longer where it was made: the guest wrote to it.
        let said = run(xfs_logprint.arg("-t").arg(&alone));
        assert!(said.contains("<CLEAN>"), "{said}");
        assert!(!said.contains("log tail: 2 head: 2 "), "the guest never wrote to it: {said}");
        fs::remove_file(alone).unwrap();
        checked += 1;
    }
    assert!(checked > 0, "there is no file system on the disk that can be checked");
    fs::remove_file(overlay).unwrap();
    fs::remove_file(raw).unwrap();
    guest
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
