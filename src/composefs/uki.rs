//! Unified kernel images: which composefs image they start, what they are called, and what is in them.
//!
//! ```text
//! | MZ … e_lfanew at 60 ─► "PE\0\0" │ COFF header 20 │ optional header │ section headers, 40 bytes each │ … sections
//!                                                       .cmdline .osrel .uname .linux .initrd .dtb
//! ```
//!
//! Source: UAPI.5 "Unified Kernel Image"; Microsoft PE/COFF, sections 2 to 4; bootc 1.17, `bootc_composefs/boot.rs`.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Format, ObjectId};
use crate::command_line;
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};

/// Section headers, at most: the format has 16 bits for their number, and real images have a dozen.
const MOST_SECTIONS: usize = 96;

/// Sections that are read as text have a few hundred bytes.
const LARGEST_TEXT: u64 = 64 << 10;

/// A unified kernel image.
#[derive(Clone, Debug)]
pub struct Uki {
    /// Its path in the image.
    pub path: String,
    /// The file.
    pub content: Content,
    /// Its kernel command line.
    pub command_line: String,
    /// Its os-release.
    pub os_release: String,
    /// The version of its kernel; empty: it does not say one.
    pub version: String,
    /// SHA-256 of kernel, initramfs and, if it has one, device tree.
    pub digest: String,
    /// The images that its command line names.
    pub wanted: Vec<Wanted>,
}

/// A composefs image that a command line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its digest.
    pub id: ObjectId,
    /// Its format; `None`: the argument does not say one.
    pub format: Option<Format>,
    /// Whether the machine boots even if nothing is verified.
    pub optional: bool,
}

impl Uki {
    /// Reads an image. `Corrupt`: it is none. `Unsupported`: it names no composefs image, or contradicts itself.
    pub fn read(path: &str, content: &Content, contents: &ContentStore) -> Result<Self> {
        let sections = Sections::read(path, content, contents)?;
        let text = |name: &str| -> Result<String> {
            let Some(place) = sections.find(name) else { return Ok(String::new()) };
            if place.size > LARGEST_TEXT {
                return Err(corrupt(path, format!("its section {name} has {} bytes", place.size)));
            }
            let mut bytes = vec![0; place.size as usize];
            contents
                .read_exact_at(content.id, place.offset, &mut bytes)
                .context("reading the spool")?;
            let text = String::from_utf8(bytes);
            let text =
                text.map_err(|_| corrupt(path, format!("its section {name} is not UTF-8")))?;
            Ok(text.trim_matches(['\0', '\n', ' ']).to_owned())
        };
        let command_line = text(".cmdline")?;
        let mut hash = Sha256::new();
        for name in [".linux", ".initrd", ".dtb"] {
            match sections.find(name) {
                Some(place) => sections.feed(place, &mut hash)?,
                None if name == ".dtb" => {}
                None => return Err(corrupt(path, format!("it has no section {name}"))),
            }
        }
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            path: path.to_owned(),
            content: content.clone(),
            wanted: wanted(path, &command_line)?,
            os_release: text(".osrel")?,
            version: text(".uname")?,
            command_line,
            digest,
        })
    }

    /// Whether the machine boots even if nothing is verified: all arguments say the same.
    pub fn is_optional(&self) -> bool {
        self.wanted.iter().all(|wanted| wanted.optional)
    }
}

/// The images that a command line names, those whose format is said first.
fn wanted(path: &str, line: &str) -> Result<Vec<Wanted>> {
    let mut found = Vec::new();
    for word in command_line::split(line) {
        let (value, format) = match word.split_once('=') {
            Some(("composefs", value)) => (value, None),
            Some(("composefs.digest", value)) => {
                let optional = value.strip_prefix('?');
                let (format, id) = match optional.unwrap_or(value).split_once(':') {
                    Some(("v1-sha512-12", id)) => (Format::V1, id),
                    Some(("v2-sha512-12", id)) => (Format::V2, id),
                    _ => {
                        let what = format!("{path} has the kernel argument {word}: unknown format");
                        return Err(unsupported(what, None));
                    }
                };
                found.push(one(path, word, id, Some(format), optional.is_some())?);
                continue;
            }
            _ => continue,
        };
        let optional = value.strip_prefix('?');
        found.push(one(path, word, optional.unwrap_or(value), format, optional.is_some())?);
    }
    if found.is_empty() {
        return Err(unsupported(
            format!(
                "{path} has no kernel argument composefs= or composefs.digest=, so that it would find no root"
            ),
            Some("make the unified kernel image with `bootc container ukify`"),
        ));
    }
    if found.iter().any(|one| one.optional != found[0].optional) {
        let what = format!("{path} demands fs-verity in one argument and not in another: {line}");
        return Err(corrupt(path, what));
    }
    found.sort_by_key(|one| one.format.is_none());
    Ok(found)
}

fn one(path: &str, word: &str, id: &str, format: Option<Format>, optional: bool) -> Result<Wanted> {
    let id = ObjectId::parse(id);
    let reason = || format!("invalid kernel argument {word}: expected 128 hexadecimal digits");
    Ok(Wanted { id: id.ok_or_else(|| corrupt(path, reason()))?, format, optional })
}

/// Where a section is in the file.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    size: u64,
}

/// The sections of a PE file.
struct Sections<'a> {
    path: &'a str,
    content: &'a Content,
    contents: &'a ContentStore,
    found: Vec<(String, Place)>,
}

impl<'a> Sections<'a> {
    fn read(path: &'a str, content: &'a Content, contents: &'a ContentStore) -> Result<Self> {
        let bytes = |offset: u64, size: usize| -> Result<Vec<u8>> {
            let end = offset.checked_add(size as u64).filter(|end| *end <= content.size);
            if end.is_none() {
                return Err(corrupt(path, "it is not a unified kernel image: its headers are cut"));
            }
            let mut bytes = vec![0; size];
            contents.read_exact_at(content.id, offset, &mut bytes).context("reading the spool")?;
            Ok(bytes)
        };
        let u16_at = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |bytes: &[u8], at: usize| {
            u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
        };
        let dos = bytes(0, 64)?;
        let header_at = u32_at(&dos, 60);
        let header = bytes(header_at, 24)?;
        if !dos.starts_with(b"MZ") || !header.starts_with(b"PE\0\0") {
            return Err(corrupt(path, "it is not an EFI program"));
        }
        let (count, optional) = (u16_at(&header, 6), u16_at(&header, 20));
        if usize::from(count) > MOST_SECTIONS {
            return Err(corrupt(path, format!("it has {count} sections")));
        }
        let mut found = Vec::new();
        for index in 0..u64::from(count) {
            let section = bytes(header_at + 24 + u64::from(optional) + index * 40, 40)?;
            let name = section[..8].split(|byte| *byte == 0).next().unwrap_or_default();
            // What is in memory beyond the raw data is zero, and what is in the file beyond that is padding.
            let size = u32_at(&section, 8).min(u32_at(&section, 16));
            let place = Place { offset: u32_at(&section, 20), size };
            if place.offset + place.size > content.size {
                return Err(corrupt(path, "one of its sections lies outside of it"));
            }
            found.push((String::from_utf8_lossy(name).into_owned(), place));
        }
        Ok(Self { path, content, contents, found })
    }

    fn find(&self, name: &str) -> Option<Place> {
        self.found.iter().find(|(found, _)| found == name).map(|(_, place)| *place)
    }

    fn feed(&self, place: Place, hash: &mut Sha256) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        let mut done = 0;
        while done < place.size {
            let count = (place.size - done).min(buffer.len() as u64) as usize;
            let chunk = &mut buffer[..count];
            let read = self.contents.read_exact_at(self.content.id, place.offset + done, chunk);
            read.with_context(|| format!("reading {}", self.path))?;
            hash.update(&*chunk);
            done += count as u64;
        }
        Ok(())
    }
}
