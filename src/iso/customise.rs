//! Changing a finished medium: the files with its settings and its configuration are overwritten in place, everything else
//! stays byte for byte.
//!
//! The settings are found as any reader finds them, through the directories of the ISO 9660, and the implanted MD5 is made
//! anew, since it covers them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::menu::{SETTINGS_SIZE, Settings};
use super::{checksum, cpio};
use crate::error::{corrupt, unsupported};
use crate::filesystem::iso9660::{APPLICATION_USE, PRIMARY, SECTOR};

/// Where the settings are on the medium.
pub(super) const SETTINGS: &str = "bootpress/settings.cfg";
/// Where the settings of the build are, which a reset restores.
pub(super) const DEFAULTS: &str = "bootpress/defaults.cfg";
/// An initramfs with the script that configures the system; zeros, which are an empty one, if there is none.
pub(super) const CONFIGURATION: &str = "bootpress/config.img";

/// Bytes of the configuration, whatever is in it: what users and services take is a few KiB.
pub(super) const CONFIGURATION_SIZE: usize = 256 << 10;
/// Where the live system's scripts find it.
const SCRIPT: &str = "usr/lib/bootpress/config.sh";

/// No directory that leads to the settings is larger.
const LARGEST_DIRECTORY: u64 = 1 << 20;

/// What a medium says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What `blkid` calls it.
    pub volume_id: String,
    /// Tells it from every other.
    pub build_id: String,
    /// The settings as they are now.
    pub settings: Settings,
    /// The script that configures the system live and installed; its second line is a comment that says what it does.
    pub configuration: Option<String>,
}

/// Reads what is set on a medium. `Unsupported`: it is none of ours. `Corrupt`: its structures lead nowhere.
pub fn show(path: &Path) -> Result<Shown> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Medium::read(&file, path)?.shown)
}

/// Gives a medium other settings and another configuration. The same errors as [`show`], and `Unsupported` for what it cannot
/// hold; then nothing has changed.
pub fn set(path: &Path, settings: &Settings, configuration: Option<&str>) -> Result<()> {
    let settings = settings.file()?;
    let mut configuration =
        configuration.map_or(Vec::new(), |text| cpio::of_one(SCRIPT, text.as_bytes()));
    if configuration.len() > CONFIGURATION_SIZE {
        return Err(unsupported(
            format!(
                "the configuration takes {} bytes, and a medium has room for {CONFIGURATION_SIZE}",
                configuration.len()
            ),
            Some("build a medium with it: `bootpress build --format iso --config FILE`"),
        ));
    }
    configuration.resize(CONFIGURATION_SIZE, 0);
    rewrite(path, |_| Ok((settings, configuration)))
}

/// Gives a medium the settings that it was made with, and no configuration: the very bytes from then. The same errors as
/// [`show`].
pub fn reset(path: &Path) -> Result<()> {
    rewrite(path, |medium| Ok((medium.defaults.clone(), vec![0; CONFIGURATION_SIZE])))
}

/// Overwrites settings and configuration, and sums the medium up again.
fn rewrite(path: &Path, choose: impl FnOnce(&Medium) -> Result<(Vec<u8>, Vec<u8>)>) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    let medium = Medium::read(&file, path)?;
    let (settings, configuration) = choose(&medium)?;
    let writing = || format!("writing to {}", path.display());
    file.write_all_at(&settings, medium.settings_at).with_context(writing)?;
    file.write_all_at(&configuration, medium.configuration_at).with_context(writing)?;
    let sum = checksum::implanted(medium.size, |offset, buffer| file.read_exact_at(buffer, offset))
        .with_context(|| format!("summing {} up", path.display()))?;
    file.write_all_at(&sum, PRIMARY + APPLICATION_USE.0 as u64).with_context(writing)?;
    file.sync_all().with_context(writing)
}

/// A medium that has been looked into.
struct Medium {
    shown: Shown,
    /// Bytes of the volume.
    size: u64,
    /// Offset of the settings.
    settings_at: u64,
    /// Offset of the configuration.
    configuration_at: u64,
    /// The settings' file as it was when the medium was made.
    defaults: Vec<u8>,
}

impl Medium {
    fn read(file: &File, path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let foreign = || {
            unsupported(
                format!("{name} is not a medium of bootpress' that can be changed"),
                Some(
                    "make one with `bootpress build --format iso`; what Anaconda is told stands in the kickstart of its medium",
                ),
            )
        };
        let mut primary = vec![0; SECTOR as usize];
        file.read_exact_at(&mut primary, PRIMARY).map_err(|_| foreign())?;
        if !primary.starts_with(b"\x01CD001\x01") {
            return Err(foreign());
        }
        let size = u64::from(word(&primary, 80)) * SECTOR;
        let length = file.metadata().with_context(|| format!("looking at {name}"))?.len();
        if size > length {
            return Err(corrupt(name, format!("it has {length} bytes of {size}")));
        }
        let read = |at: Place| -> Result<Vec<u8>> {
            if at.size > LARGEST_DIRECTORY || at.offset + at.size > size {
                return Err(corrupt(name.clone(), "a directory leads out of it"));
            }
            let mut bytes = vec![0; at.size as usize];
            file.read_exact_at(&mut bytes, at.offset).with_context(|| format!("reading {name}"))?;
            Ok(bytes)
        };
        let root = Place::of(&primary[156..190]);
        let directory = find(&read(root)?, b"BOOTPRESS").ok_or_else(foreign)?;
        let directory = read(directory)?;
        let sized = |identifier: &[u8], size: usize| {
            find(&directory, identifier)
                .filter(|place| place.size == size as u64)
                .ok_or_else(foreign)
        };
        let settings_at = sized(b"SETTINGS.CFG;1", SETTINGS_SIZE)?;
        let defaults = read(sized(b"DEFAULTS.CFG;1", SETTINGS_SIZE)?)?;
        let configuration_at = sized(b"CONFIG.IMG;1", CONFIGURATION_SIZE)?;
        let id = read(
            find(&directory, b"ID.;1").or_else(|| find(&directory, b"ID;1")).ok_or_else(foreign)?,
        )?;
        let settings = Settings::parse(&read(settings_at)?)
            .ok_or_else(|| corrupt(format!("{SETTINGS} of {name}"), "it cannot be read"))?;
        let archive = read(configuration_at)?;
        let configuration =
            cpio::first(&archive).map(|(_, script)| String::from_utf8_lossy(script).into_owned());
        if configuration.is_none() && archive.iter().any(|byte| *byte != 0) {
            return Err(corrupt(format!("{CONFIGURATION} of {name}"), "it cannot be read"));
        }
        let shown = Shown {
            volume_id: String::from_utf8_lossy(&primary[40..72]).trim_end().to_owned(),
            build_id: String::from_utf8_lossy(&id).trim_end().to_owned(),
            settings,
            configuration,
        };
        Ok(Self {
            shown,
            size,
            settings_at: settings_at.offset,
            configuration_at: configuration_at.offset,
            defaults,
        })
    }
}

/// Where a file or directory is.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    size: u64,
}

impl Place {
    /// From a directory record.
    fn of(record: &[u8]) -> Self {
        Self { offset: u64::from(word(record, 2)) * SECTOR, size: word(record, 10).into() }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The record of an identifier in a directory (ECMA-119, 9.1).
fn find(directory: &[u8], identifier: &[u8]) -> Option<Place> {
    let mut at = 0;
    while at < directory.len() {
        let len = usize::from(directory[at]);
        if len == 0 {
            // No record crosses a sector; what is left of one is zero.
            at = (at + 1).next_multiple_of(SECTOR as usize);
            continue;
        }
        let record = directory.get(at..at + len)?;
        let name_len = usize::from(*record.get(32)?);
        if record.get(33..33 + name_len)? == identifier {
            return Some(Place::of(record));
        }
        at += len;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Corrupt, Unsupported};

    #[test]
    fn what_is_no_medium_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.iso");
        std::fs::write(&path, vec![0; 100_000]).unwrap();
        assert!(show(&path).unwrap_err().is::<Unsupported>());
        assert!(set(&path, &Settings::default(), None).unwrap_err().is::<Unsupported>());
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 100_000], "nothing was written");
        let mut bytes = vec![0; 100_000];
        bytes[PRIMARY as usize..PRIMARY as usize + 7].copy_from_slice(b"\x01CD001\x01");
        bytes[PRIMARY as usize + 80..PRIMARY as usize + 84]
            .copy_from_slice(&1000_u32.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(show(&path).unwrap_err().is::<Corrupt>());
        bytes[PRIMARY as usize + 80..PRIMARY as usize + 84].copy_from_slice(&40_u32.to_le_bytes());
        bytes[PRIMARY as usize + 158..PRIMARY as usize + 162]
            .copy_from_slice(&u32::MAX.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(show(&path).is_err());
    }

    #[test]
    fn broken_directories_end() {
        for directory in [&[5, 0, 0][..], &[40; 60], &[34; 34], &[0; 4096]] {
            assert!(find(directory, b"X").is_none());
        }
    }
}
