//! The disk as a guest left it: a kernel that did not write the file systems has read and changed them.

use std::fs;

use qemu::{Guest, Session};

use crate::machine::Case;
use support::tool::{run, tool};

/// Boots the disk, which must succeed, and then checks every ext4 of it; returns what the guest said.
pub(crate) fn file_systems_are_sound(case: &Case) -> Guest {
    let (overlay, raw) = (case.directory().join("after.qcow2"), case.directory().join("after.raw"));
    let guest = case.passes_leaving(Some(&overlay), Session::default());
    let Some(mut convert) = tool("qemu-img") else { return guest };
    run(convert.args(["convert", "-O", "raw"]).args([&overlay, &raw]));
    let mut checked = 0;
    for partition in case.disk.pressed().ext4() {
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
    assert!(checked > 0, "there is no ext4 on the disk");
    fs::remove_file(overlay).unwrap();
    fs::remove_file(raw).unwrap();
    guest
}
