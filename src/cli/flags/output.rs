//! Flags about the files that are written.

use bootpress::output::ClusterCompression;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct OutputFlags {
    /// Compresses the clusters of a qcow2; QEMU reads zstd since version 5.1
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Qcow2Compress::None)]
    qcow2_compress: Qcow2Compress,

    /// How a root on btrfs compresses: zstd, zstd:LEVEL, lzo or zlib [default: not at all]
    #[arg(long = "btrfs-compress", value_name = "HOW", value_parser = compression, help_heading = "Disk")]
    pub(crate) btrfs_compression: Option<String>,

    /// The subvolume that a root on btrfs is in [default: none is made]
    #[arg(long, value_name = "NAME", value_parser = subvolume, help_heading = "Disk")]
    pub(crate) btrfs_subvolume: Option<String>,
}

/// What the kernel will understand; it ends on the machine's command line.
fn compression(text: &str) -> Result<String, String> {
    match bootpress::config::is_compression(text) {
        true => Ok(text.to_owned()),
        false => Err(
            "zstd, zlib and lzo are known, and levels as in zstd:3: up to 15 of zstd, 9 of zlib"
                .to_owned(),
        ),
    }
}

fn subvolume(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "@-_.".contains(c);
    match !name.is_empty() && name.chars().all(fits) && name != "." && name != ".." {
        true => Ok(name.to_owned()),
        false => Err("names have letters, digits, @, -, _ and .".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Qcow2Compress {
    Zstd,
    Zlib,
    None,
}

impl OutputFlags {
    pub(crate) fn qcow2_compression(&self) -> Option<ClusterCompression> {
        match self.qcow2_compress {
            Qcow2Compress::Zstd => Some(ClusterCompression::Zstd),
            Qcow2Compress::Zlib => Some(ClusterCompression::Zlib),
            Qcow2Compress::None => None,
        }
    }
}
