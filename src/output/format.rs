//! What a disk file can be: a disk format, and whether the file is compressed as a whole.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The kind of a disk file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The disk's bytes, with holes where they are zero.
    Raw,
    /// QEMU's format, version 3.
    Qcow2,
    /// VMware's stream-optimized format: compressed, for import.
    Vmdk,
    /// Virtual PC's format, of fixed size: what Azure takes.
    Vhd,
    /// Hyper-V's format, growing.
    Vhdx,
    /// VirtualBox's format, growing.
    Vdi,
    /// What Google Compute Engine imports: `disk.raw` in a gzipped tar archive of the old GNU kind.
    Gce,
    /// An appliance for VMware and VirtualBox: a description, a manifest and a vmdk in a tar archive.
    Ova,
    /// A raw disk, with what to do to make an AMI of it.
    Ami,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Raw,
        Self::Qcow2,
        Self::Vmdk,
        Self::Vhd,
        Self::Vhdx,
        Self::Vdi,
        Self::Gce,
        Self::Ova,
        Self::Ami,
    ];

    /// The format as one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
            Self::Gce => "gce",
            Self::Ova => "ova",
            Self::Ami => "ami",
        }
    }

    /// How names of its files end; no two formats end alike.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Gce => "gce.tar.gz",
            Self::Ami => "ami.raw",
            other => other.name(),
        }
    }

    /// The size of a disk must be a multiple of this: EBS volumes and Google's disks are whole GiB, Azure wants whole MiB.
    pub const fn size_unit(self) -> u64 {
        match self {
            Self::Gce | Self::Ami => GIB,
            _ => MIB,
        }
    }

    /// Whether whoever reads the format can be told, or does not care, that sectors have 4096 bytes.
    pub const fn takes_large_sectors(self) -> bool {
        matches!(self, Self::Raw | Self::Qcow2 | Self::Vhdx)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a file is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// gzip.
    Gz,
    /// xz, in blocks that can be unpacked side by side.
    Xz,
    /// Zstandard, in frames with a table at the end: the seekable format.
    Zst,
}

impl Packing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gz, Self::Xz, Self::Zst];

    /// What comes behind the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Gz => "gz",
            Self::Xz => "xz",
            Self::Zst => "zst",
        }
    }
}

/// A format, and whether the file is compressed as a whole: `raw`, `raw.xz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFormat {
    /// What is inside.
    pub format: Format,
    /// What is around it.
    pub packing: Option<Packing>,
}

impl FileFormat {
    /// How names of its files end: `raw.xz`.
    pub fn extension(self) -> String {
        match self.packing {
            Some(packing) => format!("{}.{}", self.format.extension(), packing.extension()),
            None => self.format.extension().to_owned(),
        }
    }
}

impl From<Format> for FileFormat {
    fn from(format: Format) -> Self {
        Self { format, packing: None }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packing {
            Some(packing) => f.pad(&format!("{}.{}", self.format, packing.extension())),
            None => self.format.fmt(f),
        }
    }
}

impl FromStr for FileFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, packing) = match text.split_once('.') {
            Some((name, packing)) => (name, Some(packing)),
            None => (text, None),
        };
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        let format = found.ok_or_else(|| {
            format!(
                "unknown format \"{name}\": expected one of: {}",
                Format::ALL.map(Format::name).join(", ")
            )
        })?;
        let packing = packing
            .map(|end| {
                Packing::ALL.into_iter().find(|known| known.extension() == end).ok_or_else(|| {
                    let known = Packing::ALL.map(Packing::extension).join(", ");
                    format!("unknown compression \"{end}\": expected one of: {known}")
                })
            })
            .transpose()?;
        if format == Format::Gce && packing.is_some() {
            return Err(format!("invalid format \"{text}\": gce is already compressed (.tar.gz)"));
        }
        Ok(Self { format, packing })
    }
}

/// How the clusters of a qcow2 are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterCompression {
    /// As every QEMU reads it.
    Zlib,
    /// Faster in both directions; QEMU reads it since 5.1, of 2020.
    Zstd,
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it shall be.
    pub format: FileFormat,
    /// Its name.
    pub path: PathBuf,
}

impl Target {
    /// A file of a format.
    pub fn new(format: impl Into<FileFormat>, path: impl Into<PathBuf>) -> Self {
        Self { format: format.into(), path: path.into() }
    }

    /// The name without directory and without what the format adds, fit to stand in descriptions of any kind.
    pub(super) fn stem(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let packed = self.format.packing.map(Packing::extension);
        let name = packed.and_then(|end| name.strip_suffix(&format!(".{end}"))).unwrap_or(&name);
        let end = format!(".{}", self.format.format.extension());
        let stem = name.strip_suffix(&end).unwrap_or(name);
        let safe: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        if safe.is_empty() { "disk".to_owned() } else { safe }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_names() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse::<FileFormat>().unwrap(), format.into());
        }
        let packed = FileFormat { format: Format::Raw, packing: Some(Packing::Xz) };
        assert_eq!("raw.xz".parse::<FileFormat>().unwrap(), packed);
        assert_eq!((packed.to_string(), packed.extension()), ("raw.xz".into(), "raw.xz".into()));
        let refusal = |name: &str| name.parse::<FileFormat>().unwrap_err();
        assert_eq!(
            refusal("floppy"),
            "unknown format \"floppy\": expected one of: raw, qcow2, vmdk, vhd, vhdx, vdi, gce, ova, ami"
        );
        assert_eq!(refusal("raw.rar"), "unknown compression \"rar\": expected one of: gz, xz, zst");
        assert!(refusal("gce.gz").contains("already"));
    }

    #[test]
    fn no_two_formats_share_a_file_name() {
        let mut ends: Vec<_> = Format::ALL.map(Format::extension).into();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(ends.len(), Format::ALL.len());
    }

    #[test]
    fn a_stem_is_what_the_format_did_not_add() {
        let stem = |format: &str, path: &str| {
            Target::new(format.parse::<FileFormat>().unwrap(), path).stem()
        };
        assert_eq!(stem("raw.xz", "out/a-43.x86_64.raw.xz"), "a-43.x86_64");
        assert_eq!(stem("ova", "image.ova"), "image");
        assert_eq!(stem("vmdk", "no extension\""), "no_extension_");
        assert_eq!(stem("vmdk", ".vmdk"), "disk");
    }
}
