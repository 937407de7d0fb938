//! Disks with XFS, by the program: the same bytes from whoever builds them, and `inspect` reads them.

use std::fs;
use std::path::Path;
use std::process::Command;

use bootpress::inspect::{Facts, inspect};

use support::bootc_image;
use support::program::bootpress_for_everybody;
use support::tool::{is_root, run, tool};

/// Builds a disk; as `nobody` without any capability, and without loop devices, where this test is root.
fn build(directory: &Path, name: &str, processors: &str, flags: &[&str]) -> std::path::PathBuf {
    let file = directory.join(name);
    let program = bootpress_for_everybody(directory);
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", processors]);
    if is_root()
        && let Some(setpriv) = tool("setpriv")
    {
        command.arg(setpriv.get_program()).args(["--reuid=65534", "--regid=65534"]);
        command.args([
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
        ]);
    }
    command
        .arg(program)
        .args(["build", "--json", "--progress", "none", "--arch", "x86_64"])
        .args(["--bootloader", "none", "--format", "raw", "--filesystem", "xfs"])
        .args(["--target-imgref", "example.com/x:1"])
        .args(flags)
        .arg("--output")
        .arg(&file)
        .arg(format!("oci:{}", directory.join("image").display()));
    run(&mut command);
    file
}

/// A directory that everybody may write to, with the image in it.
fn place() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let image = bootc_image::without_bootloader().layer(|mut layer| {
        for number in 0..300 {
            layer = layer.file(format!("usr/share/many/{number}"), "x".repeat(number * 100));
        }
        layer
    });
    image.write_oci_layout(&directory.path().join("image"));
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(directory.path(), open).unwrap();
    directory
}

fn root(facts: &Facts) -> (u64, u64) {
    let root = facts.partitions.iter().find(|one| one.role == Some("root")).unwrap();
    let filesystem = root.filesystem.as_ref().unwrap();
    assert_eq!((filesystem.kind, filesystem.label.as_deref()), ("xfs", Some("root")));
    assert!(filesystem.used.unwrap() > 10 << 20);
    (root.start, root.size)
}

#[test]
fn nobody_builds_the_same_bytes_on_one_processor_and_on_all() {
    let directory = place();
    let directory = directory.path();
    let one = build(directory, "one.raw", "0", &[]);
    let all = build(directory, "all.raw", "0-255", &[]);
    let bytes = fs::read(&one).unwrap();
    assert!(bytes == fs::read(&all).unwrap(), "the two disks differ");
    let facts = inspect(&one).unwrap();
    assert_eq!(facts.deployments.len(), 1);
    assert_eq!(facts.boot_entries.len(), 1, "the root is read: {:?}", facts.boot_entries);
    assert!(facts.partitions.iter().all(|partition| partition.role != Some("boot")));
    let (start, size) = root(&facts);
    let alone = directory.join("alone");
    let range = start as usize..(start + size) as usize;
    fs::write(&alone, &bytes[range]).unwrap();
    super::check(&alone);
}

#[test]
fn groups_and_profiles_follow_the_flags() {
    let directory = place();
    let directory = directory.path();
    for (flags, groups, profile) in [
        (&[][..], 2, 0),
        (&["--size", "3G"], 4, 0),
        (&["--size", "3G", "--grow"], 2, 0),
        (&["--size", "3G", "--xfs-profile", "lts-6.12"], 4, 0x20),
    ] {
        let disk = build(directory, "disk.raw", "0-255", flags);
        let facts = inspect(&disk).unwrap();
        let start = root(&facts).0 as usize;
        let bytes = fs::read(&disk).unwrap();
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[start + at + i]));
        // `sb_agcount`, and the bit of nrext64 in `sb_features_incompat`.
        assert_eq!((word(88), word(216) & 0x20), (groups, profile), "{flags:?}");
    }
}

/// Whatever is wrong with it: an answer or an error, and no panic.
#[test]
fn damaged_xfs_is_no_reason_to_panic() {
    use std::os::unix::fs::FileExt;
    let directory = place();
    let directory = directory.path();
    let disk = build(directory, "disk.raw", "0-255", &[]);
    let facts = inspect(&disk).unwrap();
    let (start, _) = root(&facts);
    let file = fs::OpenOptions::new().read(true).write(true).open(&disk).unwrap();
    // The super block, then the first inodes and what is behind them.
    let places = (0..264).chain((65_536..65_536 + 400 * 512).step_by(37));
    let mut refused = 0;
    for place in places {
        let mut before = [0];
        file.read_exact_at(&mut before, start + place).unwrap();
        file.write_all_at(&[before[0] ^ (1 << (place % 8))], start + place).unwrap();
        refused += u32::from(inspect(&disk).is_err());
        file.write_all_at(&before, start + place).unwrap();
    }
    assert!(refused > 20, "only {refused} of the changes were noticed");
    assert_eq!(inspect(&disk).unwrap(), facts);
}
