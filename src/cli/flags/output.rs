//! Flags about the files that are written.

use bootpress::filesystem_kind::XfsProfile;
use bootpress::name::{Compression, SubvolumeName};
use bootpress::output::ClusterCompression;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct OutputFlags {
    /// Compress the clusters of a qcow2
    ///
    /// QEMU reads zstd since version 5.1.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Qcow2Compress::None)]
    qcow2_compress: Qcow2Compress,

    /// Compress the files of a btrfs root: zstd, zlib or lzo
    ///
    /// zstd, zlib or lzo; a level may follow, from zstd:1 to zstd:15 and from zlib:1 to zlib:9. The machine mounts its root with
    /// compress=, so that it compresses what it writes, too.
    #[arg(
        long = "btrfs-compress",
        value_name = "HOW",
        help_heading = "Disk",
        hide_short_help = true
    )]
    pub(crate) btrfs_compression: Option<Compression>,

    /// Put a btrfs root into a subvolume of this name
    ///
    /// It becomes the default subvolume, and the machine mounts it with rootflags=subvol=.
    #[arg(long, value_name = "NAME", help_heading = "Disk", hide_short_help = true)]
    pub(crate) btrfs_subvolume: Option<SubvolumeName>,

    /// Choose the features of XFS: lts-6.1 or lts-6.12
    ///
    /// lts-6.1 is understood by kernels from 5.10 and GRUB from 2.06. lts-6.12 adds rmapbt and nrext64, which take a kernel
    /// from 5.19 and a GRUB from 2.12. Without this flag the versions of the image's kernel and GRUB decide.
    #[arg(long, value_name = "PROFILE", value_parser = xfs_profile, help_heading = "Disk", hide_short_help = true)]
    pub(crate) xfs_profile: Option<XfsProfile>,
}

fn xfs_profile(name: &str) -> Result<XfsProfile, String> {
    XfsProfile::parse(name).ok_or_else(|| {
        let names = XfsProfile::ALL.map(XfsProfile::name);
        format!("expected one of: {}", names.join(", "))
    })
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
