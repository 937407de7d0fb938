//! Flags about the files that are written.

use bootpress::name::{Compression, SubvolumeName};
use bootpress::output::ClusterCompression;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct OutputFlags {
    /// Compresses the clusters of a qcow2; QEMU reads zstd since version 5.1
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Qcow2Compress::None)]
    qcow2_compress: Qcow2Compress,

    /// How a root on btrfs compresses: zstd, zstd:LEVEL, lzo or zlib [default: not at all]
    #[arg(long = "btrfs-compress", value_name = "HOW", help_heading = "Disk")]
    pub(crate) btrfs_compression: Option<Compression>,

    /// The subvolume that a root on btrfs is in [default: none is made]
    #[arg(long, value_name = "NAME", help_heading = "Disk")]
    pub(crate) btrfs_subvolume: Option<SubvolumeName>,
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
