//! PAX records (POSIX.1-2017, pax, "pax Extended Header"), and what GNU tar, star and libarchive put into them.
//!
//! ```text
//! 30 mtime=1700000000.123456789\n   length of all of it, key, value; a value may hold any byte, also a newline
//! ```

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::number::{decimal, seconds};
use super::sparse::{MAXIMUM_RUNS, Run};
use crate::tree::Xattrs;

/// libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What one extended header says about the entry after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    /// The fraction of the time, as composefs reads it: nine digits, others are left away.
    pub(super) nanoseconds: u32,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
}

/// `GNU.sparse.*`. Version 0.0 repeats `offset` and `numbytes`, 0.1 has `map`, 1.0 keeps the map in front of the data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `size` in versions 0.x, `realsize` in 1.0.
    pub(super) real_size: Option<u64>,
    pub(super) runs: Option<Vec<Run>>,
    offset: Option<u64>,
}

impl Pax {
    /// Reads all records; the error is the reason why they are corrupt.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        let mut seen = BTreeSet::new();
        while !records.is_empty() {
            let (key, value, rest) =
                split_record(records).ok_or("a PAX record is malformed".to_owned())?;
            records = rest;
            let repeats = matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
            if !repeats && !seen.insert(key) {
                return Err(format!("the PAX record {} comes twice", key.escape_ascii()));
            }
            pax.record(key, value)
                .map_err(|reason| format!("the PAX record {}: {reason}", key.escape_ascii()))?;
        }
        match pax.sparse.offset {
            Some(_) => Err("a GNU.sparse.offset has no GNU.sparse.numbytes".to_owned()),
            None => Ok(pax),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        // POSIX: an empty value takes the record back. For a path that would leave nothing.
        if value.is_empty() && !matches!(key, b"path" | b"linkpath") {
            return Ok(());
        }
        let number = || decimal(value).ok_or("not a number".to_owned());
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => {
                self.mtime = Some(seconds(value).ok_or("not a time".to_owned())?);
                self.nanoseconds = nanoseconds(value);
            }
            // star's own way to store sparse files; ignoring it would give the file another content.
            b"SCHILY.realsize" => return Err("star's sparse files are not supported".to_owned()),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = url_decode(name).ok_or("the name is malformed".to_owned())?;
                    let value =
                        BASE64.decode(value).map_err(|_| "the value is not base64".to_owned())?;
                    self.xattr(&name, &value)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value)?;
                }
                // What is left has no place in a tree (atime, uname, comment, SCHILY.fflags, …) or comes from the
                // policy (RHT.security.selinux). SCHILY.acl is dropped as the real importer does.
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if name.is_empty() || name.len() > 255 || name.contains(&0) {
            return Err("the name of an extended attribute is malformed".to_owned());
        }
        // libarchive writes each attribute in both spellings, which is not a contradiction.
        if self.xattrs.get(name).is_some_and(|known| known != value) {
            return Err("the extended attribute has two values".to_owned());
        }
        // An attribute without a value breaks `ostree fsck` on the installed system.
        if !value.is_empty() {
            self.xattrs.set(name, value);
        }
        Ok(())
    }
}

impl SparseRecords {
    /// Whether the entry is a sparse file.
    pub(super) fn are_there(&self) -> bool {
        *self != Self::default()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let number = || decimal(value).ok_or("not a number".to_owned());
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => {
                let size = number()?;
                if self.real_size.is_some_and(|known| known != size) {
                    return Err("the file has two sizes".to_owned());
                }
                self.real_size = Some(size);
            }
            b"offset" if self.offset.is_some() => {
                return Err("the offset before it has no size".to_owned());
            }
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or("no offset comes before it".to_owned())?;
                self.runs.get_or_insert_default().push(Run { offset, size: number()? });
            }
            b"map" => {
                if self.runs.is_some() {
                    return Err("the file has two maps".to_owned());
                }
                self.runs = Some(comma_separated(value).ok_or("malformed".to_owned())?);
            }
            _ => {}
        }
        match &self.runs {
            Some(runs) if runs.len() > MAXIMUM_RUNS => {
                Err("the file has too many holes".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// `LEN KEY=VALUE\n` at the front, and what is behind it.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some((&pair[..equals], &pair[equals + 1..], rest))
}

fn comma_separated(value: &[u8]) -> Option<Vec<Run>> {
    let mut numbers = value.split(|&byte| byte == b',').map(decimal);
    let mut runs = Vec::new();
    while let Some(offset) = numbers.next() {
        runs.push(Run { offset: offset?, size: numbers.next()?? });
    }
    Some(runs)
}

fn url_decode(name: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? << 4 | digit(bytes.next())?).ok()?,
            _ => byte,
        });
    }
    Some(decoded)
}

/// The fraction of a decimal number of seconds; digits beyond the ninth do not count.
fn nanoseconds(value: &[u8]) -> u32 {
    let Some(point) = value.iter().position(|&byte| byte == b'.') else { return 0 };
    let digits = value[point + 1..].iter().take(9).take_while(|byte| byte.is_ascii_digit());
    let (number, count) = digits
        .fold((0, 0), |(number, count), digit| (number * 10 + u32::from(digit - b'0'), count + 1));
    number * 10_u32.pow(9 - count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length =
            (rest + 1..).find(|length| length.to_string().len() + rest == *length).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_are_binary() {
        let value = b"\x01\0\0\x02\n\x0a=12 x=y\n\xff";
        let records =
            [record("SCHILY.xattr.security.capability", value), record("path", b"a\xffb\n")]
                .concat();
        let pax = Pax::parse(&records).unwrap();
        assert_eq!(pax.xattrs.get(b"security.capability"), Some(&value[..]));
        assert_eq!(pax.path.as_deref(), Some(&b"a\xffb\n"[..]));
    }

    #[test]
    fn the_records_that_matter_are_read_and_the_others_ignored() {
        let records = [
            record("size", b"8589934592"),
            record("uid", b"4294967295"),
            record("gid", b"7"),
            record("mtime", b"1700000000.5"),
            record("linkpath", b"target"),
            record("atime", b"nonsense"),
            record("SCHILY.acl.access", b"user::rw-"),
            record("LIBARCHIVE.xattr.user.a%20b", b"AAEC"),
            record("SCHILY.xattr.user.empty", b""),
        ]
        .concat();
        let pax = Pax::parse(&records).unwrap();
        assert_eq!(
            (pax.size, pax.uid, pax.gid),
            (Some(1 << 33), Some(u64::from(u32::MAX)), Some(7))
        );
        assert_eq!((pax.mtime, pax.nanoseconds), (Some(1_700_000_000), 500_000_000));
        assert_eq!(pax.link.as_deref(), Some(&b"target"[..]));
        assert_eq!(pax.xattrs.iter().collect::<Vec<_>>(), [(&b"user.a b"[..], &b"\0\x01\x02"[..])]);
    }

    #[test]
    fn an_attribute_in_both_spellings_is_one_if_they_agree() {
        let both = |other: &[u8]| {
            Pax::parse(
                &[record("LIBARCHIVE.xattr.user.a", b"AAEC"), record("SCHILY.xattr.user.a", other)]
                    .concat(),
            )
        };
        assert_eq!(both(b"\0\x01\x02").unwrap().xattrs.iter().count(), 1);
        assert!(both(b"\0\x01\x03").is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\n\n",
            b"99 a=b\n",
            b"6 ab\n",
            b"5 =b\n",
            b"-6 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"10 size=x\n",
            b"11 mtime=x\n",
            b"11 path=a\n11 path=b\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(Pax::parse(&record("SCHILY.xattr.a\0b", b"x")).is_err());
        assert!(Pax::parse(&record("LIBARCHIVE.xattr.a%2", b"AA")).is_err());
        assert!(Pax::parse(&record("LIBARCHIVE.xattr.a", b"*")).is_err());
        let twice = record("SCHILY.xattr.user.a", b"1").repeat(2);
        assert!(Pax::parse(&twice).unwrap_err().contains("comes twice"));
    }
}
