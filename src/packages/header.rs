//! Headers of RPM packages, as databases keep them (rpm's "Header format", without the magic).
//!
//! ```text
//! | entries | bytes | entry: tag, type, offset, count │ … | data … |        big-endian
//! ```

use anyhow::{Result, ensure};

use super::{Manager, Package, some};

const ENTRY: usize = 16;

// Tags (rpm's rpmtag.h).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const SUMMARY: u32 = 1004;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const URL: u32 = 1020;
const ARCH: u32 = 1022;
const SOURCERPM: u32 = 1044;

// Types.
const INT32: u32 = 4;
const STRING: u32 = 6;
const I18N_STRING: u32 = 9;

/// A package by its header.
pub(super) fn package(blob: &[u8]) -> Result<Package> {
    let header = Header::parse(blob)?;
    let text = |tag| header.text(tag).unwrap_or_default();
    let name = text(NAME);
    ensure!(!name.is_empty(), "a header has no name");
    let version = format!("{}-{}", text(VERSION), text(RELEASE));
    Ok(Package {
        manager: Manager::Rpm,
        name: super::clean(&name),
        epoch: header.number(EPOCH),
        version: super::clean(&version),
        architecture: super::clean(&text(ARCH)),
        licence: some(&text(LICENSE)),
        source: some(&text(SOURCERPM)).filter(|source| source != "(none)"),
        supplier: some(&text(VENDOR)),
        url: some(&text(URL)),
        summary: some(&text(SUMMARY)),
    })
}

struct Header<'a> {
    entries: &'a [u8],
    data: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]))
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self> {
        ensure!(blob.len() >= 8, "a header is cut short");
        let (entries, size) = (u32_at(blob, 0) as usize, u32_at(blob, 4) as usize);
        let start = entries.checked_mul(ENTRY).and_then(|bytes| bytes.checked_add(8));
        let end = start.and_then(|start| start.checked_add(size));
        match (start, end) {
            (Some(start), Some(end)) if end <= blob.len() => {
                Ok(Self { entries: &blob[8..start], data: &blob[start..end] })
            }
            _ => anyhow::bail!("a header is longer than what holds it"),
        }
    }

    /// Type and data of a tag, from its first byte to the end of all data.
    fn find(&self, tag: u32) -> Option<(u32, &'a [u8])> {
        let entry = self
            .entries
            .as_chunks::<ENTRY>()
            .0
            .iter()
            .find(|entry| u32_at(&entry[..], 0) == tag)?;
        Some((u32_at(entry, 4), self.data.get(u32_at(entry, 8) as usize..)?))
    }

    /// The first of a tag's strings.
    fn text(&self, tag: u32) -> Option<String> {
        let (kind, data) = self.find(tag)?;
        let text = data.split(|&byte| byte == 0).next()?;
        matches!(kind, STRING | I18N_STRING).then(|| String::from_utf8_lossy(text).into_owned())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        let (kind, data) = self.find(tag)?;
        (kind == INT32 && data.len() >= 4).then(|| u32_at(data, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with a name and an epoch.
    fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        let data = b"tiny\0\0\0\0\0\0\0\x02";
        let numbers = [2, data.len() as u32, NAME, STRING, 0, 1, EPOCH, INT32, 8, 1];
        numbers.iter().for_each(|number: &u32| bytes.extend(number.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    #[test]
    fn fields_are_found_by_their_tags() {
        let package = package(&header()).unwrap();
        assert_eq!((package.name.as_str(), package.epoch), ("tiny", Some(2)));
        assert_eq!((package.version.as_str(), package.licence), ("-", None));
    }

    #[test]
    fn no_byte_and_no_cut_panics() {
        let whole = header();
        for at in 0..whole.len() {
            let _ = package(&whole[..at]);
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                let _ = package(&broken);
            }
        }
    }
}
