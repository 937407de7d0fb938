//! A root that grows to fill its disk at the first boot, with what the image has for that.

use anyhow::Result;

use crate::filesystem_kind::FileSystem;

use super::services;
use super::system::{Access, System};

/// What `--grow` knows of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grow {
    /// UUID of its file system.
    pub uuid: String,
    /// Its kind.
    pub filesystem: FileSystem,
    /// The type of its partition as systemd-repart names it: `root`, `linux-generic`.
    pub partition_type: &'static str,
    /// Whether nothing lies behind it.
    pub is_last: bool,
}

const SCRIPT: &str = "/etc/bootpress/grow-root";
const DEFINITIONS: &str = "/etc/bootpress/repart.d";
const UNIT: &str = "bootpress-grow-root.service";
const PENDING: &str = "/var/lib/bootpress/pending";

/// Services of images that do it themselves.
const OTHERS: [&str; 2] = ["bootc-generic-growpart.service", "growpart.service"];

/// Adds a unit that runs once, or says why the root stays as it is.
pub(super) fn apply(system: &mut System<'_>, grow: &Grow) -> Result<()> {
    let nothing = |reason: &str| format!("--grow: the root will not grow: {reason}");
    if !grow.is_last {
        system.warn(nothing("another partition lies behind it"));
        return Ok(());
    }
    for unit in OTHERS {
        let wants =
            ["/usr/lib/systemd/system", "/etc/systemd/system"].into_iter().flat_map(|place| {
                ["multi-user", "default", "local-fs", "sysinit"]
                    .map(|target| format!("{place}/{target}.target.wants/{unit}"))
            });
        if wants.into_iter().any(|link| system.link(&link).is_some()) {
            system.warn(format!(
                "--grow: the image's own {unit} makes the root grow; nothing was added"
            ));
            return Ok(());
        }
    }
    let has = |system: &System<'_>, name: &str| {
        ["/usr/bin", "/usr/sbin"].iter().any(|place| system.exists(&format!("{place}/{name}")))
    };
    let partition = if has(system, "systemd-repart") {
        let text = format!("[Partition]\nType={}\n", grow.partition_type);
        system.write(
            &format!("{DEFINITIONS}/50-root.conf"),
            text.as_bytes(),
            Access::root(0o644),
        )?;
        format!("systemd-repart --dry-run=no --definitions={DEFINITIONS} \"$disk\"")
    } else if has(system, "growpart") {
        // It says 1 when there is nothing to do.
        "growpart \"$disk\" \"$number\" || [ $? -eq 1 ]".to_owned()
    } else if has(system, "sfdisk") && has(system, "partx") {
        "echo ', +' | sfdisk --no-reread --force -N \"$number\" \"$disk\"\npartx --update --nr \"$number\" \"$disk\"".to_owned()
    } else {
        system.warn(nothing("the image has neither systemd-repart nor growpart nor sfdisk"));
        return Ok(());
    };
    let (program, command) = match grow.filesystem {
        FileSystem::Xfs => ("xfs_growfs", "xfs_growfs /sysroot"),
        FileSystem::Btrfs => ("btrfs", "btrfs filesystem resize max /sysroot"),
        _ => ("resize2fs", "resize2fs \"$partition\""),
    };
    let filesystem = if system.exists("/usr/lib/systemd/systemd-growfs") {
        "/usr/lib/systemd/systemd-growfs /sysroot"
    } else if has(system, program) {
        command
    } else {
        system.warn(nothing(&format!("the image has neither systemd-growfs nor {program}")));
        return Ok(());
    };
    write(system, grow, &partition, filesystem)
}

fn write(system: &mut System<'_>, grow: &Grow, partition: &str, filesystem: &str) -> Result<()> {
    let uuid = &grow.uuid;
    let script = format!(
        "#!/bin/sh\n# Makes the root's partition fill its disk, and then the file system its partition.\nset -e\n\
         partition=$(readlink -f /dev/disk/by-uuid/{uuid})\nname=${{partition##*/}}\n\
         above=$(readlink -f \"/sys/class/block/$name/..\")\ndisk=/dev/${{above##*/}}\n\
         number=$(cat \"/sys/class/block/$name/partition\")\n{partition}\n\
         mount -o remount,rw /sysroot\n{filesystem}\n"
    );
    let stamp = format!("{PENDING}/grow-root");
    system.make_directory_once(PENDING, Access::root(0o700))?;
    system.write(&stamp, b"", Access::root(0o600))?;
    system.write(SCRIPT, script.as_bytes(), Access::root(0o755))?;
    // The remount above must stay with this unit: for everybody else /sysroot is read-only.
    let unit = format!(
        "[Unit]\nDescription=Let the root file system fill its disk\nConditionPathExists={stamp}\nAfter=local-fs.target systemd-udev-settle.service\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nPrivateMounts=yes\nExecStart=/bin/sh {SCRIPT}\nExecStartPost=rm -f {stamp}\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    system.write(&format!("/etc/systemd/system/{UNIT}"), unit.as_bytes(), Access::root(0o644))?;
    services::enable_own(system, UNIT)
}
