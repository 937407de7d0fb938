//! Names that end up in paths, on kernel command lines or in volume descriptors: judged once, where they enter.

use std::fmt;
use std::str::FromStr;

/// The name of a stateroot: one component of a path, and a part of kernel arguments and boot entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaterootName(String);

/// The name of a btrfs subvolume: its path from the top of the volume, such as `root` or `subvols/root`, and a part of mount options.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubvolumeName(String);

/// The volume ID of an ISO 9660: 1 to 32 characters. `blkid` calls it the label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeId(String);

/// How btrfs compresses, as its mount option `compress=` has it: `zstd`, `zstd:3`, `zlib`, `lzo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression(String);

/// Bytes of the longest volume ID (ECMA-119, section 8.4.8).
const LONGEST_VOLUME_ID: usize = 32;

impl FromStr for StaterootName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(r#"only letters, digits, "-", "_" and "." are allowed"#.to_owned());
        }
        if text.starts_with('.') {
            return Err(r#"the first character cannot be ".""#.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for StaterootName {
    /// What bootc takes when nobody says otherwise.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for SubvolumeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"@-_.+/".contains(&byte);
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(
                r#"only letters, digits, "@", "-", "_", ".", "+" and "/" are allowed"#.to_owned()
            );
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(r#"expected a path without ".", ".." and empty parts"#.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for VolumeId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > LONGEST_VOLUME_ID || !text.chars().all(of_a_volume_id) {
            return Err("expected 1 to 32 of the characters A-Z a-z 0-9 _ . -".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

fn of_a_volume_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

impl VolumeId {
    /// The volume ID that comes closest to a text: other characters become `_`, and what is too long is cut off.
    pub fn like(text: &str) -> Self {
        let fit = |c: char| if of_a_volume_id(c) { c } else { '_' };
        let id: String = text.chars().map(fit).take(LONGEST_VOLUME_ID).collect();
        Self(if id.is_empty() { "_".to_owned() } else { id })
    }
}

impl FromStr for Compression {
    type Err = String;

    /// Reads what mount(8) takes and btrfs(5) describes: `lzo`, and the others with a level or without.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) =
            text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let highest = match name {
            "zstd" => 15,
            "zlib" => 9,
            "lzo" => 0,
            _ => return Err("expected one of: zstd, zlib, lzo".to_owned()),
        };
        match level.map(str::parse::<u32>) {
            None => {}
            Some(Ok(level)) if (1..=highest).contains(&level) => {}
            Some(_) if highest == 0 => return Err(format!("{name} has no levels")),
            Some(_) => return Err(format!("expected a level from 1 to {highest} for {name}")),
        }
        Ok(Self(text.to_owned()))
    }
}

macro_rules! text {
    ($($name:ty),*) => {
        $(
            impl $name {
                /// As it is spelled.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(&self.0)
                }
            }
        )*
    };
}

text!(StaterootName, SubvolumeName, VolumeId, Compression);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_place_are_refused() {
        for bad in ["", "../x", "a/b", ".hidden", "a b", "ä", "a\n"] {
            assert!(bad.parse::<StaterootName>().is_err(), "{bad:?}");
        }
        assert_eq!("my-os_1.x".parse::<StaterootName>().unwrap().as_str(), "my-os_1.x");
        for bad in ["", ".", "..", "/a", "a/", "a//b", "a/../b", "a b", "a,b"] {
            assert!(bad.parse::<SubvolumeName>().is_err(), "{bad:?}");
        }
        assert!("@root+1".parse::<SubvolumeName>().is_ok());
        assert!("subvols/root".parse::<SubvolumeName>().is_ok());
    }

    #[test]
    fn volume_ids_have_one_rule() {
        for bad in ["", "a/b", "a b", &"x".repeat(33)] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad:?}");
        }
        assert!("FEDORA-43.1_x".parse::<VolumeId>().is_ok());
        assert_eq!(VolumeId::like("my os/1").as_str(), "my_os_1");
        assert_eq!(VolumeId::like(&"x".repeat(40)).as_str().len(), 32);
        assert!(VolumeId::like("").as_str().parse::<VolumeId>().is_ok());
    }

    #[test]
    fn compression_is_what_btrfs_takes() {
        for good in ["zstd", "zstd:15", "zlib:9", "lzo"] {
            assert!(good.parse::<Compression>().is_ok(), "{good}");
        }
        for bad in ["", "gzip", "zstd:16", "zstd:0", "zstd:", "zlib:x", "lzo:1"] {
            assert!(bad.parse::<Compression>().is_err(), "{bad}");
        }
    }
}
