//! xfs, which nobody writes but the running kernel: a loop device over a file without name, `mkfs`, a mount that only one
//! thread sees, everything copied into it, and the file's bytes taken for a map like any other.
//!
//! ```text
//! tree ─► file ─► loop device ─► mkfs ─► mount ─► copy ─► unmount ─► SparseMap
//! ```
//!
//! It needs root, so it is the exception: the only room that starts programs. And it is not the same bytes each time: the kernel
//! puts the hour into each inode (of its last change), and what is written back first depends on timing. Names, contents and
//! metadata are the same.

mod attach;
mod fill;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::SeekFrom;

use super::{Filling, VolumeOptions};
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::sparse::SparseMap;

/// Features of an xfs that newer mkfs turn on, and that kernels of releases with a long life cannot mount.
const XFS_WITHOUT: [&str; 2] = ["nrext64=0", "exchange=0"];

/// The unit in which zeros become holes.
const BLOCK: usize = 4096;

/// A file system that the kernel writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// XFS.
    Xfs,
}

impl Kind {
    /// As `mount -t` and `blkid` say it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
        }
    }

    const fn mkfs(self) -> &'static str {
        match self {
            Self::Xfs => "mkfs.xfs",
        }
    }

    /// Bytes that the file system needs for itself besides what ext4 would need: its log.
    pub(super) const fn overhead(self) -> u64 {
        match self {
            Self::Xfs => 192 << 20,
        }
    }

    /// The least size in bytes: mkfs.xfs wants 300 MiB.
    pub(super) const MINIMUM_SIZE: u64 = 320 << 20;
}

/// A file system that was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Its bytes, which are contents of the store.
    pub(super) map: SparseMap,
    /// Bytes of it that are in use.
    pub(super) used: u64,
}

/// Refuses what cannot work on this machine, before any work is done.
pub(super) fn check(kind: Kind) -> Result<()> {
    let name = kind.name();
    let hint = Some("build with --filesystem ext4, which needs nothing of all this");
    let refuse = |what: String| Err(unsupported(what, hint));
    if !nix::unistd::geteuid().is_root() {
        return refuse(format!(
            "{name} is written by the kernel, through a loop device and a mount, and that needs root"
        ));
    }
    for program in [kind.mkfs(), "losetup"] {
        if find(program).is_none() {
            return refuse(format!(
                "{name} is written by the kernel, and {program} is not installed"
            ));
        }
    }
    if !Path::new("/dev/loop-control").exists() {
        return refuse(format!(
            "{name} is written through a loop device, and /dev/loop-control is not there"
        ));
    }
    let known = || {
        let list = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        list.lines().any(|line| line.split_whitespace().next_back() == Some(name))
    };
    if !known() {
        // The kernel loads it itself when it is mounted; whether it could is seen by trying.
        let _ = find("modprobe").map(|modprobe| Command::new(modprobe).args(["-q", name]).status());
        if !known() {
            return refuse(format!(
                "{name} is written by the kernel, and the one that runs does not know it"
            ));
        }
    }
    let private = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNS)).join();
    if !matches!(private, Ok(Ok(()))) {
        return refuse(format!("{name} is written through a mount, and this root may not mount"));
    }
    Ok(())
}

/// Writes a tree as a file system; its bytes go into `contents`.
pub(super) fn write(
    kind: Kind,
    filling: &Filling<'_>,
    size: u64,
    options: &VolumeOptions<'_>,
    contents: &ContentStore,
) -> Result<Written> {
    let work_directory = contents.directory();
    // losetup wants a name, but only for a moment.
    let named = tempfile::NamedTempFile::new_in(work_directory)
        .with_context(|| format!("creating a file in {}", work_directory.display()))?;
    named.as_file().set_len(size).context("making room for the file system")?;
    let device = attach::Device::over(named.path(), options.sector_size)?;
    let file = named.into_file();
    make(kind, &device.path, options)?;
    let on = tempfile::tempdir_in(work_directory).context("creating a mount point")?;
    // In a thread of its own, for a view of the file system of its own: the mount goes with it, whatever happens.
    let used = thread::scope(|scope| {
        let writing = scope.spawn(|| -> Result<u64> {
            unshare(CloneFlags::CLONE_NEWNS).context("leaving the others' mounts")?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .context("keeping mounts to ourselves")?;
            fill_device(kind, filling, contents, device, on.path())
        });
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(Written { map: map_of(&file, size, contents)?, used })
}

fn make(kind: Kind, device: &Path, options: &VolumeOptions<'_>) -> Result<()> {
    let mut mkfs = Command::new(find(kind.mkfs()).context("it was here before")?);
    match kind {
        Kind::Xfs => {
            for feature in XFS_WITHOUT {
                // A dry run: older ones know neither the feature nor how to leave it out.
                let mut trial = Command::new(mkfs.get_program());
                if run(trial.args(["-N", "-q", "-f", "-i", feature]).arg(device)).is_ok() {
                    mkfs.args(["-i", feature]);
                }
            }
            mkfs.args(["-q", "-f", "-L", options.label, "-m"]);
            mkfs.arg(format!("uuid={}", options.uuid));
        }
    }
    // As far as mkfs.xfs can be kept from clock and dice: newer ones can.
    mkfs.envs([("SOURCE_DATE_EPOCH", "0"), ("DETERMINISTIC_SEED", "1")]);
    run(mkfs.arg(device)).map(drop)
}

fn fill_device(
    kind: Kind,
    filling: &Filling<'_>,
    contents: &ContentStore,
    device: attach::Device,
    on: &Path,
) -> Result<u64> {
    let name = kind.name();
    mount(Some(&device.path), on, Some(name), MsFlags::MS_NOATIME, None::<&str>)
        .with_context(|| format!("mounting {} as {name}", device.path.display()))?;
    // From now on the device goes when it is unmounted.
    drop(device);
    let full = |error: anyhow::Error| {
        let full = error.downcast_ref::<std::io::Error>();
        if full.is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
            return unsupported(
                format!("the image does not fit the {name} of the root ({error:#})"),
                Some("ask for a larger disk with --size"),
            );
        }
        error
    };
    fill::fill(filling.root, contents, on).map_err(full)?;
    let directory = File::open(on).context("opening the mount point")?;
    nix::unistd::syncfs(&directory).with_context(|| format!("syncing the {name}"))?;
    let usage = nix::sys::statvfs::fstatvfs(&directory).context("asking how full it is")?;
    drop(directory);
    umount(on).with_context(|| format!("unmounting the {name}"))?;
    Ok((usage.blocks() - usage.blocks_free()) * usage.fragment_size())
}

/// What of the file is not zero, as contents.
fn map_of(file: &File, size: u64, contents: &ContentStore) -> Result<SparseMap> {
    let mut writer = contents.writer(size);
    let (mut position, mut written) = (0, 0);
    let mut buffer = vec![0; 1 << 20];
    let reading = || "reading what the kernel wrote";
    while let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(position)) {
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).with_context(reading)?.min(size);
        position = start;
        while position < end {
            let len = (end - position).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..len], position).with_context(reading)?;
            for block in buffer[..len].chunks(BLOCK) {
                if block.iter().any(|&byte| byte != 0) {
                    writer.skip(position - written);
                    std::io::Write::write_all(&mut writer, block)
                        .context("writing to the spool")?;
                    written = position + block.len() as u64;
                }
                position += block.len() as u64;
            }
        }
    }
    writer.skip(size - written);
    let content = writer.finish()?;
    let mut map = SparseMap::new(size);
    for range in content.data_ranges() {
        map.put_content(range.start, content.id, range.start, range.end - range.start);
    }
    Ok(map)
}

/// A program, also where only root looks.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|place| place.join(name))
        .find(|file| file.is_file())
}

/// Runs a program, which must succeed; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_owned();
    let name = name.to_string_lossy();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!(
            "{name} failed ({}): {} {}",
            output.status,
            text(&output.stderr),
            text(&output.stdout)
        );
    }
    Ok(text(&output.stdout))
}
