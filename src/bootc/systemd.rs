//! What the image's systemd will do at boot that a disk has to reckon with.

use anyhow::{Context, Result};

use super::{Composefs, Files, PrepareRoot};

/// Mounts what the Discoverable Partitions Specification describes.
const GENERATOR: &str = "usr/lib/systemd/system-generators/systemd-gpt-auto-generator";

/// Turns the physical root into the running one; the initramfs has a copy.
const PREPARE_ROOT: &str = "usr/lib/ostree/ostree-prepare-root";

/// Bytes of that program that are looked through, at most.
const LARGEST_PROGRAM: u64 = 4 << 20;

/// The file by which prepare-root (ostree 2026.3 and later) tells systemd which device a composefs root comes from. Its path is
/// in the program.
const TELLS_DEVICE: &[u8] = b"/run/systemd/volatile-root";

/// The version of systemd, by the name of the library that its programs share; `None`: there is no telling.
pub(super) fn version(files: &Files<'_>) -> Option<u32> {
    let multiarch = files.names("usr/lib").into_iter().filter(|name| name.ends_with("-linux-gnu"));
    let directories = ["usr/lib".to_owned(), "usr/lib64".to_owned()]
        .into_iter()
        .chain(multiarch.map(|name| format!("usr/lib/{name}")));
    let mut names = directories.flat_map(|directory| files.names(&format!("{directory}/systemd")));
    names.find_map(|name| {
        let rest = name.strip_prefix("libsystemd-shared-")?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// Whether systemd mounts the ESP over a `/boot` that is on the root file system, and unmounts it after 120 s without use, with the
/// `/boot` below it (bootc issue 2402).
///
/// That takes a root whose device systemd knows, and an image without `/efi`, which would be preferred.
pub(super) fn boot_idles(files: &Files<'_>, prepare_root: &PrepareRoot) -> Result<bool> {
    let units = files.names("etc/systemd/system");
    let masked =
        ["boot.automount", "boot.mount"].iter().any(|&unit| units.iter().any(|u| u == unit));
    let table = files.text("etc/fstab")?.unwrap_or_default();
    let in_table = table.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| {
        line.split_whitespace().nth(1).is_some_and(|place| ["/boot", "/efi"].contains(&place))
    });
    if matches!(prepare_root.composefs, Composefs::Off | Composefs::Maybe)
        || files.root.find("efi").is_some()
        || files.root.resolve(GENERATOR).is_none()
        || masked
        || in_table
    {
        return Ok(false);
    }
    let Some(program) = files.content(PREPARE_ROOT) else { return Ok(false) };
    if program.size > LARGEST_PROGRAM {
        return Ok(false);
    }
    let bytes = files.contents.bytes(program).with_context(|| format!("reading {PREPARE_ROOT}"))?;
    Ok(bytes.windows(TELLS_DEVICE.len()).any(|window| window == TELLS_DEVICE))
}
