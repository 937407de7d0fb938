//! The disk under test as QEMU sees it: block nodes that name every file and every format.
//!
//! ```text
//! "disk"   qcow2   our overlay, which takes the guest's writes
//! "below1" qcow2   what an earlier boot of a chain has left, read-only
//! "base"   raw …   the disk's file, read-only
//! ```
//!
//! A disk is data of somebody else's, and disk formats can name other files: qcow2 a backing file and a data file, VMDK a parent and
//! extents. QEMU would open them and show them to the guest, who could show them to us. So disks that name other files are refused,
//! no node looks for a backing file by itself, and the format is what the file's name says: a raw disk whose guest wrote a qcow2
//! header into its first sector stays raw.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::BootError;
use crate::program;

/// A format of a disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes; ISOs are raw, too.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// VMware's, in one file.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// Hyper-V's older one; Azure's.
    Vhd,
    /// VirtualBox'.
    Vdi,
}

impl DiskFormat {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhdx, Self::Vhd, Self::Vdi];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Vdi => "vdi",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// QEMU's name of its driver.
    const fn driver(self) -> &'static str {
        match self {
            Self::Vhd => "vpc",
            other => other.name(),
        }
    }

    /// The format that a file's name says, if it says one. `.img` is used for raw and qcow2 alike.
    fn of_name(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "raw" | "iso" => Some(Self::Raw),
            "vpc" => Some(Self::Vhd),
            other => Self::parse(other),
        }
    }
}

/// The file of a disk: what QEMU may open, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Absolute, so that no part of it is taken for a protocol, and UTF-8, as JSON is.
    file: String,
    format: DiskFormat,
}

impl Disk {
    /// Looks at a file. `format` is what the caller says it is; without that its name counts, and after that its first bytes.
    /// `directory` is the machine's own; a file whose path is not UTF-8 gets a name there.
    ///
    /// # Errors
    /// [`BootError::Refused`] when it names other files or is not what its name says, [`BootError::Io`] when it cannot be read.
    pub(crate) fn open(
        file: &Path,
        format: Option<DiskFormat>,
        directory: &Path,
    ) -> Result<Self, BootError> {
        let doing = || BootError::io(format!("reading {}", file.display()));
        let path = fs::canonicalize(file).map_err(doing())?;
        let mut opened = File::open(&path).map_err(doing())?;
        let shown = format_of(&mut opened).map_err(doing())?;
        let format = format.or_else(|| DiskFormat::of_name(file)).unwrap_or(shown);
        let refused = |why: String| BootError::Refused { disk: file.to_owned(), why };
        if format != DiskFormat::Raw && format != shown {
            return Err(refused(format!("it is not in the format {}", format.name())));
        }
        if let Some(other) = other_file(&mut opened, format).map_err(doing())? {
            return Err(refused(format!(
                "it names {other}, which QEMU would read on this machine"
            )));
        }
        Ok(Self { file: utf8(&path, directory)?, format })
    }

    /// Whether there is nothing in the file but the disk's bytes.
    pub(crate) fn is_raw(&self) -> bool {
        self.format == DiskFormat::Raw
    }

    /// The node that QEMU reads it through; with `write` the guest's writes go into the file itself.
    fn node(&self, name: &str, write: bool) -> String {
        let driver = self.format.driver();
        let (access, file_access) = if write {
            ("\"discard\":\"unmap\"", ",\"discard\":\"unmap\"")
        } else {
            ("\"read-only\":true", "")
        };
        // The drivers that could have one are told that there is no backing file.
        let backing = match self.format {
            DiskFormat::Qcow2 | DiskFormat::Vmdk => ",\"backing\":null",
            _ => "",
        };
        format!(
            "{{\"driver\":\"{driver}\",\"node-name\":\"{name}\",{access},\"file\":{{\"driver\":\"file\",\"filename\":{}{file_access}}}{backing}}}",
            quoted(&self.file)
        )
    }

    /// Bytes of the disk that the file holds.
    ///
    /// # Errors
    /// [`BootError::Damaged`] when qemu-img cannot make sense of the file.
    fn size(&self) -> Result<u64, BootError> {
        let options = format!(
            "driver={},file.driver=file,file.filename={}",
            self.format.driver(),
            self.file.replace(',', ",,")
        );
        let said = program::run(
            Command::new(program::find("qemu-img")?).args([
                "info",
                "--output=json",
                "--image-opts",
                &options,
            ]),
            "qemu-img",
        );
        let said = match said {
            Err(BootError::Start { reason, .. }) => {
                let why = format!("qemu-img cannot read it: {reason}");
                return Err(BootError::Damaged { disk: PathBuf::from(&self.file), why });
            }
            said => said?,
        };
        let size = serde_json::from_str::<serde_json::Value>(&said)
            .ok()
            .and_then(|info| info.get("virtual-size")?.as_u64());
        size.ok_or_else(|| BootError::Start {
            program: "qemu-img".to_owned(),
            reason: format!("it does not tell the size of {}", self.file),
        })
    }
}

/// What a machine boots from: the nodes from the lowest to the one that is called `disk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    /// The values of `-blockdev`, in this order.
    pub(crate) nodes: Vec<String>,
    /// Bytes of the disk.
    pub(crate) size: u64,
}

/// How the overlay is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// What the guest has flushed outlives QEMU's sudden end.
    pub(crate) durable: bool,
    /// The medium is in a drive that cannot write.
    pub(crate) optical: bool,
}

impl Drive {
    /// Makes a new overlay over a disk and what earlier boots have left over it, the oldest first. All of those overlays are ours:
    /// what they say they lie over is not asked.
    ///
    /// # Errors
    /// [`BootError::Start`] when qemu-img cannot read the disk or write the overlay.
    pub(crate) fn over(
        disk: &Disk,
        below: &[&Path],
        overlay: &Path,
        using: Use,
    ) -> Result<Self, BootError> {
        let mut nodes = vec![disk.node("base", false)];
        let (mut lowest, mut file, mut format) =
            ("base".to_owned(), disk.file.clone(), disk.format);
        for (number, layer) in (1..).zip(below) {
            let directory = layer.parent().unwrap_or(Path::new("/"));
            let layer = fs::canonicalize(layer)
                .map_err(BootError::io(format!("finding {}", layer.display())))?;
            file = utf8(&layer, directory)?;
            format = DiskFormat::Qcow2;
            let name = format!("below{number}");
            nodes.push(format!(
                "{{\"driver\":\"qcow2\",\"node-name\":\"{name}\",\"read-only\":true,\"file\":{{\"driver\":\"file\",\"filename\":{}}},\"backing\":\"{lowest}\"}}",
                quoted(&file)
            ));
            lowest = name;
        }
        let size = disk.size()?;
        // For who looks into the overlay later; with -u qemu-img does not open what it is told here.
        program::run(
            Command::new(program::find("qemu-img")?)
                .args(["create", "-q", "-f", "qcow2", "-u", "-b", &file, "-F", format.driver()])
                .arg(overlay)
                .arg(size.to_string()),
            "qemu-img",
        )?;
        let overlay = fs::canonicalize(overlay)
            .map_err(BootError::io(format!("finding {}", overlay.display())))?;
        let directory = overlay.parent().unwrap_or(Path::new("/")).to_owned();
        let overlay = utf8(&overlay, &directory)?;
        nodes.push(top(&overlay, &lowest, using));
        Ok(Self { nodes, size })
    }

    /// The disk itself, to be written to unless its drive cannot.
    pub(crate) fn itself(disk: &Disk, optical: bool) -> Result<Self, BootError> {
        Ok(Self { nodes: vec![disk.node("disk", !optical)], size: disk.size()? })
    }
}

/// The node of the overlay.
fn top(overlay: &str, below: &str, using: Use) -> String {
    let access = match (using.optical, using.durable) {
        (true, _) => "\"read-only\":true".to_owned(),
        // A test's overlay is thrown away: waiting for the host's disk at each flush would buy nothing. Unless QEMU is killed: it
        // keeps some of the overlay's tables to itself until the guest flushes.
        (false, durable) => {
            format!("\"discard\":\"unmap\",\"cache\":{{\"no-flush\":{}}}", !durable)
        }
    };
    format!(
        "{{\"driver\":\"qcow2\",\"node-name\":\"disk\",{access},\"file\":{{\"driver\":\"file\",\"filename\":{},{access}}},\"backing\":\"{below}\"}}",
        quoted(overlay)
    )
}

/// A path as JSON has it.
pub(crate) fn quoted(path: &str) -> String {
    serde_json::Value::from(path).to_string()
}

/// A path that can stand in JSON: a link in `directory` for those that cannot.
fn utf8(path: &Path, directory: &Path) -> Result<String, BootError> {
    if let Ok(text) = String::from_utf8(path.as_os_str().as_bytes().to_vec()) {
        return Ok(text);
    }
    let doing = || BootError::io(format!("making a link to {}", path.display()));
    let link = tempfile::Builder::new()
        .prefix("disk-")
        .make_in(directory, |link| std::os::unix::fs::symlink(path, link))
        .and_then(|link| link.into_temp_path().keep().map_err(|error| error.error))
        .map_err(doing())?;
    link.into_os_string().into_string().map_err(|_| {
        BootError::Unsupported(format!("the path {} is not UTF-8", directory.display()))
    })
}

/// The format that a file's bytes show.
fn format_of(file: &mut (impl Read + Seek)) -> io::Result<DiskFormat> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut magic = [0; 8];
    for (magic_at, formats) in [
        (
            0,
            &[
                (&b"QFI\xfb"[..], DiskFormat::Qcow2),
                (b"KDMV", DiskFormat::Vmdk),
                (b"vhdxfile", DiskFormat::Vhdx),
                (b"conectix", DiskFormat::Vhd),
            ][..],
        ),
        (64, &[(b"\x7f\x10\xda\xbe", DiskFormat::Vdi)]),
        // A fixed VHD is a raw disk with a footer.
        (size.saturating_sub(512), &[(b"conectix", DiskFormat::Vhd)]),
    ] {
        if size < magic_at + 512 {
            continue;
        }
        file.seek(SeekFrom::Start(magic_at))?;
        file.read_exact(&mut magic)?;
        if let Some((_, format)) = formats.iter().find(|(start, _)| magic.starts_with(start)) {
            return Ok(*format);
        }
    }
    Ok(DiskFormat::Raw)
}

/// What other file a disk's header names, if it does. QEMU's drivers for the other formats know no such thing.
fn other_file(
    file: &mut (impl Read + Seek),
    format: DiskFormat,
) -> io::Result<Option<&'static str>> {
    match format {
        DiskFormat::Qcow2 => in_qcow2(file),
        DiskFormat::Vmdk => in_vmdk(file),
        DiskFormat::Raw | DiskFormat::Vhdx | DiskFormat::Vhd | DiskFormat::Vdi => Ok(None),
    }
}

/// QEMU, docs/interop/qcow2.txt: `backing_file_offset` at 8; from version 3 on `incompatible_features` at 72, whose bit 2 says that
/// the data are in another file.
fn in_qcow2(file: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    let mut header = [0; 80];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut header)?;
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| header[at + i]));
    let version = number(4) >> 32;
    Ok(if number(8) != 0 {
        Some("a backing file")
    } else if version >= 3 && number(72) & 4 != 0 {
        Some("a data file")
    } else {
        None
    })
}

/// VMware, Virtual Disk Format 5.0, "Hosted Sparse Extent Header": capacity at 12, offset and size of the descriptor at 28 and 36,
/// in sectors, little-endian. QEMU takes a file without capacity for nothing but a descriptor, and opens the extents that it names.
fn in_vmdk(file: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    /// Longer descriptors than QEMU reads.
    const LONGEST: u64 = 1 << 20;
    let mut header = [0; 44];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut header)?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    if number(12) == 0 {
        return Ok(Some("extents in other files"));
    }
    file.seek(SeekFrom::Start(number(28).saturating_mul(512)))?;
    let mut descriptor = Vec::new();
    file.take(number(36).saturating_mul(512).min(LONGEST)).read_to_end(&mut descriptor)?;
    let descriptor = String::from_utf8_lossy(&descriptor);
    for line in descriptor.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        let orphan = value.eq_ignore_ascii_case("ffffffff");
        if key.eq_ignore_ascii_case("parentFileNameHint")
            || key.eq_ignore_ascii_case("parentCID") && !orphan
        {
            return Ok(Some("a parent"));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;
