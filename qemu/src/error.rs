//! Why a boot could not be tried.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a boot could not be tried. A disk that does not boot is not an error: it is a [`BootReport`](crate::BootReport) whose verdict is failed.
#[derive(Debug, Error)]
pub enum BootError {
    /// A program or a firmware image is not on this machine.
    #[error("{what} was not found: install {packages}")]
    Missing {
        /// What was looked for.
        what: String,
        /// The packages that bring it, per distribution.
        packages: String,
    },
    /// No such machine can be made.
    #[error("{0}")]
    Unsupported(String),
    /// The disk is not one that may be booted.
    #[error("cannot boot {}: {why}", disk.display())]
    Refused {
        /// Its file.
        disk: PathBuf,
        /// Why not.
        why: String,
    },
    /// The file of the disk does not make sense.
    #[error("the disk {} is damaged: {why}", disk.display())]
    Damaged {
        /// The file.
        disk: PathBuf,
        /// How that showed.
        why: String,
    },
    /// QEMU or qemu-img gave up before the guest ran.
    #[error("{program} did not start: {reason}")]
    Start {
        /// The program.
        program: String,
        /// What it said.
        reason: String,
    },
    /// This side's files and sockets.
    #[error("{doing}")]
    Io {
        /// Present participle with its object.
        doing: String,
        /// What happened.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Stopped,
}

impl BootError {
    /// Makes an error of what the system said while something was done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
