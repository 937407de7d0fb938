//! Programs of the image with all that their dynamic loader asks for, so that they run in a directory of their own.
//!
//! An ELF file names its loader in the segment `PT_INTERP` and its libraries in `PT_DYNAMIC` (System V ABI, chapter 5).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};
use crate::tree::Tree;

/// Where images keep programs, first come first.
const PATH: [&str; 4] = ["usr/bin", "usr/sbin", "bin", "sbin"];

/// Larger than any program or library that is taken.
const LARGEST: u64 = 64 << 20;

/// Programs, and what they need to run.
#[derive(Debug)]
pub(super) struct Programs {
    /// Contents by the name they are called by.
    pub(super) programs: BTreeMap<String, Content>,
    /// Libraries by the name they are asked for, the loader among them.
    pub(super) libraries: BTreeMap<String, Content>,
    /// File name of the loader.
    pub(super) loader: String,
}

/// Whether an image has a program.
pub(super) fn find<'a>(root: &'a Tree, name: &str) -> Option<&'a Content> {
    PATH.iter().find_map(|directory| root.file(&format!("{directory}/{name}")))
}

impl Programs {
    /// Takes programs out of an image: (name to call it by, where it is: a name or a path). `Unsupported`: one is missing.
    pub(super) fn take(
        root: &Tree,
        contents: &ContentStore,
        architecture: Architecture,
        wanted: &[(&str, &str)],
    ) -> Result<Self> {
        let mut taken =
            Self { programs: BTreeMap::new(), libraries: BTreeMap::new(), loader: String::new() };
        let mut pending = Vec::new();
        for (name, place) in wanted {
            let content = if place.contains('/') { root.file(place) } else { find(root, place) };
            let content = unwrapped(root, contents, content.ok_or_else(|| missing(place))?)?;
            taken.programs.insert((*name).to_owned(), content.clone());
            pending.push(((*place).to_owned(), content.clone()));
        }
        let mut seen = BTreeSet::new();
        while let Some((path, content)) = pending.pop() {
            let elf = Elf::read(&path, &content, contents)?;
            if let Some(interpreter) = &elf.interpreter {
                let file = root
                    .file(interpreter)
                    .with_context(|| format!("{path} asks for {interpreter}"))?;
                taken.loader = interpreter.rsplit('/').next().unwrap_or_default().to_owned();
                taken.libraries.insert(taken.loader.clone(), file.clone());
            }
            for name in elf.needed {
                if !seen.insert(name.clone()) {
                    continue;
                }
                let (place, library) =
                    library(root, &name, &elf.places, architecture).ok_or_else(|| {
                        corrupt(
                            path.clone(),
                            format!("it needs {name}, which the image does not have"),
                        )
                    })?;
                taken.libraries.insert(name, library.clone());
                pending.push((place, library.clone()));
            }
        }
        if taken.loader.is_empty() {
            return Err(unsupported("the image's programs are not dynamically linked", None));
        }
        Ok(taken)
    }
}

/// Some images have one program for all of coreutils, which acts by the name it is called by, and scripts that start it.
fn unwrapped<'a>(
    root: &'a Tree,
    contents: &ContentStore,
    content: &'a Content,
) -> Result<&'a Content> {
    const SCRIPT: &[u8] = b"#!/usr/bin/coreutils ";
    if content.size > 200 || !contents.bytes(content)?.starts_with(SCRIPT) {
        return Ok(content);
    }
    find(root, "coreutils").ok_or_else(|| missing("coreutils"))
}

fn missing(name: &str) -> anyhow::Error {
    let package = match name {
        "dmsetup" => " (package device-mapper, Debian: dmsetup)",
        "losetup" | "mount" | "umount" => " (package util-linux)",
        "kmod" => " (package kmod)",
        _ => "",
    };
    unsupported(
        format!("the image has no {name}{package}, which its live system needs"),
        Some("add it to the image; nothing on a medium comes from anywhere else"),
    )
}

/// A library where the loader would find it: (path, content).
fn library<'a>(
    root: &'a Tree,
    name: &str,
    places: &[String],
    architecture: Architecture,
) -> Option<(String, &'a Content)> {
    let triplet = match architecture {
        Architecture::X86_64 => "x86_64-linux-gnu",
        Architecture::Aarch64 => "aarch64-linux-gnu",
    };
    let usual = ["usr/lib64".to_owned(), format!("usr/lib/{triplet}"), "usr/lib".to_owned()];
    places.iter().chain(&usual).find_map(|place| {
        let path = format!("{}/{name}", place.trim_start_matches('/'));
        root.file(&path).map(|content| (path, content))
    })
}

/// What a program asks of the loader.
#[derive(Debug, Default)]
struct Elf {
    interpreter: Option<String>,
    needed: Vec<String>,
    /// Directories of `DT_RUNPATH`, in which libraries are looked for first.
    places: Vec<String>,
}

impl Elf {
    fn read(path: &str, content: &Content, contents: &ContentStore) -> Result<Self> {
        if content.size > LARGEST {
            return Err(corrupt(path, format!("{} bytes are too many for it", content.size)));
        }
        let bytes = contents.bytes(content).with_context(|| format!("reading {path}"))?;
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err(unsupported(
                format!("{path} is not a 64-bit program, so it cannot run in an initramfs"),
                None,
            ));
        }
        Self::parse(&bytes, path).ok_or_else(|| corrupt(path, "its ELF headers lead nowhere"))
    }

    fn parse(elf: &[u8], path: &str) -> Option<Self> {
        const LOAD: u32 = 1;
        const DYNAMIC: u32 = 2;
        const INTERPRETER: u32 = 3;
        let half = |at: usize| Some(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_le_bytes(*elf.get(at..)?.first_chunk()?));
        let long =
            |at: usize| usize::try_from(u64::from_le_bytes(*elf.get(at..)?.first_chunk()?)).ok();
        let mut found = Self::default();
        let mut loads = Vec::new();
        let mut dynamic = None;
        let first = long(32)?;
        for index in 0..usize::from(half(56)?) {
            let at = first.checked_add(index.checked_mul(half(54)?.into())?)?;
            let (offset, address, size) =
                (long(at.checked_add(8)?)?, long(at + 16)?, long(at + 32)?);
            match word(at)? {
                LOAD => loads.push((address, offset, size)),
                DYNAMIC => dynamic = Some((offset, size)),
                INTERPRETER => {
                    let bytes = elf.get(offset..offset.checked_add(size)?)?;
                    let text = std::str::from_utf8(bytes).ok()?;
                    found.interpreter =
                        Some(text.trim_end_matches('\0').trim_start_matches('/').to_owned());
                }
                _ => {}
            }
        }
        let Some((offset, size)) = dynamic else { return Some(found) };
        let entries: Vec<(usize, usize)> = (0..size / 16)
            .map_while(|index| {
                Some((long(offset.checked_add(16 * index)?)?, long(offset + 16 * index + 8)?))
            })
            .take_while(|(tag, _)| *tag != 0)
            .collect();
        let value =
            |tag: usize| entries.iter().find(|(other, _)| *other == tag).map(|(_, value)| *value);
        let (needed, strings, rpath, runpath) = (1, 5, 15, 29);
        let table = value(strings)?;
        let table = loads.iter().find_map(|(address, offset, size)| {
            let inside = table.checked_sub(*address).filter(|inside| inside < size)?;
            offset.checked_add(inside)
        })?;
        let string = |at: usize| {
            let text = elf.get(table.checked_add(at)?..)?.split(|&byte| byte == 0).next()?;
            Some(std::str::from_utf8(text).ok()?.to_owned())
        };
        for (_, at) in entries.iter().filter(|(tag, _)| *tag == needed) {
            found.needed.push(string(*at)?);
        }
        let origin = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for at in [value(runpath), value(rpath)].into_iter().flatten() {
            let places = string(at)?;
            found.places.extend(places.split(':').map(|place| place.replace("$ORIGIN", origin)));
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_libraries_are_found() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let elf = Elf::parse(&bytes, "usr/bin/test").unwrap();
        assert!(elf.interpreter.unwrap().contains("ld-linux"));
        assert!(elf.needed.iter().any(|name| name == "libc.so.6"), "{:?}", elf.needed);
    }

    #[test]
    fn broken_headers_end_in_nothing() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        for cut in [0, 6, 32, 57, 64, 100, 700] {
            assert!(Elf::parse(&bytes[..cut], "x").is_none(), "{cut}");
        }
        let mut wild = bytes[..4096].to_vec();
        wild[32..40].fill(0xff);
        assert!(Elf::parse(&wild, "x").is_none());
    }
}
