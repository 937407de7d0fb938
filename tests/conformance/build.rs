//! The whole program and the real tools: the same bytes for everybody, without privilege; every witness on one pressed disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::output::Format;
use support::Build;
use support::bootc_image::bootc_image;
use support::program::bootpress_for_everybody;
use support::tool::{forky, is_root, run, tool};

/// An image, and room to build in for anybody.
struct Workshop {
    directory: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        bootc_image().write_oci_layout(&directory.path().join("image"));
        Self { directory }
    }

    /// A directory that anybody may write to.
    fn room(&self, name: &str) -> PathBuf {
        let room = self.directory.path().join(name);
        fs::create_dir(&room).unwrap();
        fs::set_permissions(&room, fs::Permissions::from_mode(0o777)).unwrap();
        room
    }

    /// A build into `room`, by a program that everybody may run.
    fn build(&self, room: &Path) -> Build {
        Build::new(format!("oci:{}", self.directory.path().join("image").display()))
            .by(bootpress_for_everybody(self.directory.path()))
            .format("raw")
            .format("qcow2,vmdk,vhd,vhdx,vdi,gce,ova,ami,raw.zst")
            .flags(["--target-imgref", "example.com/tiny:43"])
            .output(room)
    }
}

/// The files of a build into `room`, one of each format.
fn files(room: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(room).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), Format::ALL.len() + 1, "{files:?}");
    files
}

/// Compares byte by byte: digests of disks of a gibibyte take several times as long.
#[track_caller]
fn same(one: &Path, two: &Path, why: &str) {
    for (one, two) in files(one).iter().zip(files(two)) {
        assert_eq!(one.file_name(), two.file_name());
        let status = Command::new("cmp").arg(one).arg(&two).status().unwrap();
        assert!(status.success(), "{why}: {} is another file", two.display());
    }
}

#[test]
fn everybody_gets_the_same_bytes_at_any_time() {
    let workshop = Workshop::new();
    let (one, two) = (workshop.room("one"), workshop.room("two"));
    workshop.build(&one).run();
    let Some(mut faketime) = tool("faketime") else { return };
    faketime.arg("2031-05-06 07:08:09");
    workshop.build(&two).under(faketime).env("TZ", "Asia/Tokyo").run();
    same(&one, &two, "another directory, another year");
    if !is_root() {
        return;
    }
    let (Some(mut unshare), Some(_)) = (tool("unshare"), tool("setpriv")) else { return };
    let three = workshop.room("three");
    unshare.args(["--mount", "--net", "--pid", "--fork", "sh", "-euc", CELL, "cell"]);
    workshop.build(&three).under(unshare).run();
    same(&one, &three, "another user, without devices and capabilities");
}

#[test]
fn btrfs_is_the_same_bytes_for_nobody_and_on_one_thread() {
    let workshop = Workshop::new();
    let build = |name: &str, wrapper: Option<Command>| {
        let room = workshop.room(name);
        let build =
            Build::new(format!("oci:{}", workshop.directory.path().join("image").display()))
                .by(bootpress_for_everybody(workshop.directory.path()))
                .format("raw")
                .flags(["--target-imgref", "example.com/tiny:43", "--filesystem", "btrfs"])
                .flags(["--btrfs-compress", "zstd", "--btrfs-subvolume", "root"])
                .output(room.join("disk.raw"));
        match wrapper {
            Some(wrapper) => build.under(wrapper).run(),
            None => build.run(),
        };
        let sum = run(Command::new("sha256sum").arg(room.join("disk.raw")));
        sum[..64].to_owned()
    };
    let expected = build("one", None);
    let Some(mut taskset) = tool("taskset") else { return };
    taskset.args(["--cpu-list", "0"]);
    assert_eq!(build("two", Some(taskset)), expected, "one thread");
    let (Some(mut unshare), Some(_)) = (tool("unshare"), tool("setpriv")) else { return };
    if is_root() {
        unshare.args(["--mount", "--net", "--pid", "--fork", "sh", "-euc", CELL, "cell"]);
        assert_eq!(build("three", Some(unshare)), expected, "another user, without devices");
    }
}

/// Runs its arguments as nobody: no capability, no way to get one, and of all devices just three.
const CELL: &str = "
mount -t tmpfs -o mode=755 none /dev
mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/urandom c 1 9
test ! -e /dev/kvm; test ! -e /dev/loop-control; test ! -e /dev/loop0
exec setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \"$@\"";

#[test]
fn nothing_is_mounted_and_nothing_is_run() {
    let workshop = Workshop::new();
    let room = workshop.room("room");
    let trace = workshop.directory.path().join("trace");
    let Some(mut strace) = tool("strace") else { return };
    strace
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=mount,umount2,move_mount,fsopen,fsmount,open_tree,mount_setattr",
        ])
        .args([
            "-e",
            "trace=execve,execveat,ioctl,unshare,setns,chroot,pivot_root,bpf,init_module,ptrace",
        ])
        .arg("-o")
        .arg(&trace);
    workshop.build(&room).under(strace).run();
    let trace = fs::read_to_string(trace).unwrap();
    // The first call is strace's own, which starts us; terminals may be asked for their size.
    let calls: Vec<&str> = trace
        .lines()
        .filter(|line| !line.contains("TCGETS") && !line.contains("TIOCGWINSZ"))
        .collect();
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert!(calls[0].contains("execve("), "{calls:#?}");
    files(&room);
}

#[test]
fn every_witness_accepts_the_disk() {
    let workshop = Workshop::new();
    let room = workshop.room("room");
    workshop.build(&room).run();
    let raw = room.join("image-43.1.x86_64.raw");
    let qcow2 = room.join("image-43.1.x86_64.qcow2");
    table_and_containers(&raw, &qcow2);
    let (esp, root) = (partition(&raw, 2), partition(&raw, 3));
    if let Some(mut fsck) = tool("fsck.fat") {
        let copy = cut(&raw, esp, &workshop.directory.path().join("esp"));
        run(fsck.arg("-n").arg(copy));
    }
    if let Some(mut e2fsck) = tool("e2fsck") {
        run(e2fsck.arg("-fn").arg(format!("{}?offset={}", raw.display(), root.0)));
    }
    if is_root() {
        mounted(&raw, root.0, &workshop);
    }
}

fn table_and_containers(raw: &Path, qcow2: &Path) {
    if let Some(mut sgdisk) = tool("sgdisk") {
        let said = run(sgdisk.arg("-v").arg(raw));
        assert!(said.contains("No problems found"), "{said}");
    }
    if let (Some(mut check), Some(mut compare)) = (tool("qemu-img"), tool("qemu-img")) {
        run(check.args(["check", "-f", "qcow2"]).arg(qcow2));
        run(compare.args(["compare", "-f", "raw", "-F", "qcow2"]).arg(raw).arg(qcow2));
    }
}

/// Offset and size of a partition, in bytes, as sfdisk sees them.
fn partition(raw: &Path, number: usize) -> (u64, u64) {
    let Some(mut sfdisk) = tool("sfdisk") else { return (0, 0) };
    let table: serde_json::Value =
        serde_json::from_str(&run(sfdisk.arg("--json").arg(raw))).unwrap();
    let partition = &table["partitiontable"]["partitions"][number - 1];
    let bytes = |key: &str| partition[key].as_u64().unwrap() * 512;
    (bytes("start"), bytes("size"))
}

fn cut(raw: &Path, (offset, size): (u64, u64), to: &Path) -> PathBuf {
    run(Command::new("dd")
        .arg(format!("if={}", raw.display()))
        .arg(format!("of={}", to.display()))
        .args(["bs=1M", "conv=sparse", "status=none"])
        .arg(format!("skip={}", offset >> 20))
        .arg(format!("count={}", size >> 20)));
    to.to_owned()
}

/// Mounts the root with the running kernel, and takes it down again whatever happens.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn mounted(raw: &Path, offset: u64, workshop: &Workshop) {
    let target = workshop.room("mounted");
    run(Command::new("mount")
        .args(["-o", &format!("loop,ro,noload,offset={offset}")])
        .arg(raw)
        .arg(&target));
    let mounted = Mounted(target);
    let root = &mounted.0;
    let repo = format!("--repo={}", root.join("ostree/repo").display());
    if let Some(mut ostree) = tool("ostree") {
        run(ostree.arg("fsck").arg(&repo));
    }
    let sysroot = format!("--sysroot={}", root.display());
    if let Some(mut ostree) = tool("ostree") {
        let said = run(ostree.args(["admin", "status", &sysroot]));
        assert!(said.contains("default "), "{said}");
    }
    if let Some(mut ostree) = tool("ostree") {
        let said = run(ostree.args(["admin", "config-diff", "--os=default", &sysroot]));
        assert_eq!(said, "", "/etc is as the image has it");
    }
    composefs(root, workshop);
    let deployment = deployment(root);
    if let Some(mut lsattr) = tool("lsattr") {
        let said = run(lsattr.arg("-d").arg(&deployment));
        assert!(said.starts_with("----i"), "{said}");
    }
    let su = fs::metadata(deployment.join("usr/bin/su")).unwrap();
    assert_eq!(su.permissions().mode() & 0o7777, 0o4755);
    // Two names in the deployment, one in the repository.
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&su), 3);
    assert!(!deployment.join("usr/share/removed").exists());
    let entry = fs::read_to_string(root.join("boot/loader/entries/ostree-1.conf")).unwrap();
    for line in entry.lines() {
        if let Some(path) = line.strip_prefix("linux ").or(line.strip_prefix("initrd ")) {
            assert!(root.join(path.trim_start_matches('/')).is_file(), "{line}");
        }
    }
}

fn deployment(root: &Path) -> PathBuf {
    let directory = root.join("ostree/deploy/default/deploy");
    let mut paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.is_dir()).unwrap()
}

/// `composefs-info dump` of our image, given to `mkcomposefs`, is our image.
fn composefs(root: &Path, workshop: &Workshop) {
    let image = deployment(root).join(".ostree.cfs");
    let (Some(mut info), Some(mut mkcomposefs)) = (forky("composefs-info"), forky("mkcomposefs"))
    else {
        return;
    };
    let dump = info.arg("dump").arg(&image).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let file = workshop.directory.path().join("dump");
    fs::write(&file, &dump.stdout).unwrap();
    let again = workshop.directory.path().join("again.cfs");
    run(mkcomposefs.arg("--from-file").arg(&file).arg(&again));
    assert!(
        fs::read(&image).unwrap() == fs::read(&again).unwrap(),
        "mkcomposefs makes another image of our dump"
    );
}
