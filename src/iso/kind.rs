//! The kinds of media, and what each of them is on the host: a file of bytes, or a directory of files.

use crate::sparse::SparseMap;
use crate::tree::Tree;

/// What can be made besides disk files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediumKind {
    /// A CD or stick that boots live and installs.
    Iso,
    /// What a server of TFTP or HTTP hands out to machines that boot from the network, to the same end.
    Pxe,
    /// A CD or stick that starts the image's own Anaconda, which installs an image that the medium carries. It has no disk in it.
    Anaconda,
}

impl MediumKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Iso, Self::Pxe, Self::Anaconda];

    /// What `--format` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iso => "iso",
            Self::Pxe => "pxe",
            Self::Anaconda => "anaconda-iso",
        }
    }

    /// What the file name ends in.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Iso | Self::Anaconda => "iso",
            Self::Pxe => "pxe",
        }
    }

    /// Whether the disk of the build is on it.
    pub const fn carries_disk(self) -> bool {
        match self {
            Self::Iso | Self::Pxe => true,
            Self::Anaconda => false,
        }
    }

    /// Whether it is a directory, not a file.
    pub const fn is_directory(self) -> bool {
        matches!(self, Self::Pxe)
    }
}

/// A medium that has been laid out.
#[derive(Debug)]
pub enum Medium {
    /// A file.
    Volume(SparseMap),
    /// Files in directories.
    Directory(Tree),
}
