//! `prepare-root.conf`: how the initramfs turns the physical root into the running one.

use anyhow::Result;

use super::Files;
use super::keyfile::KeyFile;
use crate::error::corrupt;
use crate::progress::{Code, Progress};

/// bootc's search order; the first file counts alone.
pub(super) const PATHS: [&str; 2] =
    ["etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf"];

/// Whether the running root is a composefs image, and what is verified of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Composefs {
    /// The plain checkout is the root.
    Off,
    /// Used when the deployment has an image.
    Maybe,
    /// Required.
    On,
    /// Required, and each content must have fs-verity.
    Verity,
    /// Required, each content must have fs-verity, and the image's digest must be signed.
    Signed,
}

/// What the image configures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareRoot {
    /// `[composefs] enabled`.
    pub composefs: Composefs,
    /// `[sysroot] readonly`; on with composefs unless switched off.
    pub readonly: bool,
    /// `[root] transient`: changes to `/` last until the next boot.
    pub transient_root: bool,
    /// `[etc] transient`: the same for `/etc`.
    pub transient_etc: bool,
}

impl PrepareRoot {
    /// What counts where ostree has no say.
    pub(super) const NONE: Self = Self {
        composefs: Composefs::Off,
        readonly: false,
        transient_root: false,
        transient_etc: false,
    };
}

/// Reads the file that counts. Without one there is no composefs: bootc installs such an image, too.
pub(super) fn load(files: &Files<'_>, progress: &Progress) -> Result<PrepareRoot> {
    for path in PATHS {
        if let Some(text) = files.text(path)? {
            return parse(path, &text);
        }
    }
    progress.warn(
        Code::ImageConfiguration,
        format!("the image has no {}: it is installed without composefs, as bootc does", PATHS[1]),
    );
    parse(PATHS[1], "")
}

fn parse(path: &str, text: &str) -> Result<PrepareRoot> {
    let file = KeyFile::parse(path, text)?;
    let composefs = match file.get("composefs", "enabled") {
        None | Some("no" | "false" | "0") => Composefs::Off,
        Some("maybe") => Composefs::Maybe,
        Some("yes" | "true" | "1") => Composefs::On,
        Some("verity") => Composefs::Verity,
        Some("signed") => Composefs::Signed,
        Some(other) => {
            return Err(corrupt(path, format!("[composefs] enabled={other} is not known")));
        }
    };
    let with_composefs = !matches!(composefs, Composefs::Off | Composefs::Maybe);
    Ok(PrepareRoot {
        composefs,
        readonly: file.boolean("sysroot", "readonly")?.unwrap_or(with_composefs),
        transient_root: file.boolean("root", "transient")?.unwrap_or(false),
        transient_etc: file.boolean("etc", "transient")?.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composefs_makes_the_root_read_only() {
        let on = parse("x", "[composefs]\nenabled = yes\n").unwrap();
        assert_eq!((on.composefs, on.readonly), (Composefs::On, true));
        let off = parse("x", "[sysroot]\nreadonly=false\n[root]\ntransient=true\n").unwrap();
        assert_eq!(
            (off.composefs, off.readonly, off.transient_root),
            (Composefs::Off, false, true)
        );
        assert!(parse("x", "[composefs]\nenabled=perhaps\n").is_err());
    }
}
