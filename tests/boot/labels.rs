//! SELinux labels, looked at from outside, in the file system, and from inside, by the policy's own tools.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use qemu::Guest;

use crate::disk::Disk;
use support::tool::{run, tool};

/// What the guest does: says what has no label, and what `restorecon` would relabel.
///
/// What stands below `/sysroot/ostree` is named by nobody there: its labels are those of the places where it shows up, as
/// `ostree` makes them. The kernel and its initramfs in `/boot` are the objects of the repository, under another name and with
/// the label of the first; and for what programs have made since the disk was, nobody here answers.
pub(crate) const ERRAND: &str = r#"
selinuxenabled || { echo "SELinux is not enabled"; exit 1; }
say selinux.unlabelled "$(find / /etc /var /boot /sysroot -xdev -context '*:unlabeled_t:*' 2>&1)"
restorecon -Rnv /etc /var /boot /usr 2>&1 | grep -v '^Would relabel /boot/ostree/[^/]*/\(vmlinuz\|initramfs\)-' >/run/relabel
say selinux.restorecon "$(while read -r line; do
    path=${line#Would relabel }
    path=${path%% from *}
    [ -n "$(find "$path" -maxdepth 0 -cmin -120 2>/dev/null)" ] || printf '%s\n' "$line"
done </run/relabel)"
say selinux.since "$(cat /run/relabel)"
/usr/libexec/fixture-check && ostree fsck --quiet
"#;

/// What the guest said is as it must be.
pub(crate) fn are_right(guest: &Guest) {
    assert_eq!(guest.fact("selinux"), Some("0"), "permissive, with a policy");
    assert_eq!(guest.fact("selinux.unlabelled"), Some(""), "inodes without a label");
    assert_eq!(
        guest.fact("selinux.restorecon"),
        Some(""),
        "labels that the policy's tools would change"
    );
}

/// Every inode in use of every ext4 on a raw disk has a label.
pub(crate) fn are_everywhere(disk: &Disk) {
    let pressed = disk.pressed();
    for partition in pressed.of_kind("ext4") {
        let place = format!("{}?offset={}", pressed.file.display(), partition.start);
        let (Some(mut dumpe2fs), Some(mut debugfs)) = (tool("dumpe2fs"), tool("debugfs")) else {
            return;
        };
        let header = run(dumpe2fs.arg("-h").arg(&place));
        let count = header.lines().find_map(|line| line.strip_prefix("Inode count:"));
        let count: u32 = count.and_then(|count| count.trim().parse().ok()).expect("a count");
        // The root, and from the first that is not reserved on.
        let mut commands = String::new();
        for inode in [2].into_iter().chain(11..=count) {
            writeln!(commands, "testi <{inode}>\nea_get <{inode}> security.selinux").unwrap();
        }
        let mut child = debugfs
            .args(["-f", "-"])
            .arg(&place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(commands.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (mut used, mut labelled) = (BTreeSet::new(), BTreeSet::new());
        let mut asked = 0_u32;
        for line in text.lines() {
            let number = |rest: &str| rest.split('>').next().and_then(|digits| digits.parse().ok());
            if let Some((_, rest)) = line.split_once("ea_get <") {
                asked = number(rest).expect("a number of an inode");
            } else if let Some(rest) = line.strip_prefix("Inode ")
                && rest.ends_with("is marked in use")
            {
                used.insert(rest.split(' ').next().unwrap().parse::<u32>().unwrap());
            } else if line.contains("_u:object_r:") {
                labelled.insert(asked);
            }
        }
        assert!(used.len() > 2000, "{} inodes are in use", used.len());
        let without: Vec<_> = used.difference(&labelled).collect();
        assert!(
            without.is_empty(),
            "{} of {} have no label: {without:?}",
            without.len(),
            used.len()
        );
    }
}
