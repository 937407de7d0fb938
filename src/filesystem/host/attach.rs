//! A loop device over a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{find, run};

/// A device that is given back when it is dropped: at once or, if it is mounted, as soon as it no longer is.
pub(super) struct Device {
    pub(super) path: PathBuf,
}

impl Device {
    /// Attaches a file. `losetup` finds a free device and tries again where another program was faster.
    pub(super) fn over(file: &Path, sector_size: u64) -> Result<Self> {
        let mut losetup = Command::new(find("losetup").context("it was here before")?);
        let path = run(losetup
            .args(["--find", "--show", "--sector-size", &sector_size.to_string()])
            .arg(file))
        .context("attaching a loop device")?;
        Ok(Self { path: path.into() })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(losetup) = find("losetup") {
            // Nothing can be done about a device that does not go; the next one will be another.
            let _ = run(Command::new(losetup).arg("--detach").arg(&self.path));
        }
    }
}
