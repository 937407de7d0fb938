//! A layer's archive, put together again from what the store took it apart into.
//!
//! ```text
//! gzip │ {"type":2,"payload":BASE64}                    bytes of the archive: headers, padding, end blocks
//!      │ {"type":1,"name":PATH,"size":COUNT,…}          here come COUNT bytes: the file PATH below the layer's directory
//!      │ …
//! ```
//!
//! The result is not believed: whoever reads compares it with the diff id.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::Deserialize;

use crate::oci::decompressed::{Compression, decompressed};

const FILE: u8 = 1;
const SEGMENT: u8 = 2;

/// The longest line; programs cut padding into pieces of a megabyte.
const MAXIMUM_LINE: u64 = 64 << 20;

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    /// Base64, for names that are not UTF-8.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    /// Base64.
    #[serde(default)]
    payload: Option<String>,
}

/// A reader of the archive.
pub(super) struct TarSplit {
    lines: BufReader<Box<dyn Read + Send>>,
    root: OwnedFd,
    path: PathBuf,
    part: Part,
}

enum Part {
    Bytes(Cursor<Vec<u8>>),
    File { file: File, left: u64, name: PathBuf },
}

impl TarSplit {
    /// From the file that the store keeps, and the directory of the layer's contents.
    pub(super) fn open(path: &Path, root: &Path) -> Result<Self> {
        let context = || format!("reading {}", path.display());
        let mut file = File::open(path).with_context(context)?;
        let mut head = [0; 4];
        let count = file.read(&mut head).with_context(context)?;
        // Named .gz, and gzip so far; zstd may come.
        let compression = Compression::sniff(&head[..count]);
        let whole = Cursor::new(head[..count].to_vec()).chain(file);
        let lines = decompressed(whole, compression, &path.display().to_string())?;
        let root_file = File::open(root).with_context(|| denied(root))?;
        Ok(Self {
            lines: BufReader::new(lines),
            root: root_file.into(),
            path: root.to_owned(),
            part: Part::Bytes(Cursor::default()),
        })
    }

    /// The next part; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Part>> {
        let mut line = Vec::new();
        (&mut self.lines).take(MAXIMUM_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let entry: Entry = serde_json::from_slice(&line).map_err(|error| damaged(&error))?;
        let bytes = |text: Option<String>| {
            STANDARD.decode(text.unwrap_or_default()).map_err(|error| damaged(&error))
        };
        match entry.kind {
            SEGMENT => Ok(Some(Part::Bytes(Cursor::new(bytes(entry.payload)?)))),
            FILE if entry.size == 0 => Ok(Some(Part::Bytes(Cursor::default()))),
            FILE => {
                let name = match entry.name_raw {
                    Some(raw) => bytes(Some(raw))?,
                    None => entry.name.into_bytes(),
                };
                self.file(&name, entry.size).map(Some)
            }
            other => Err(damaged(&format!("an entry of type {other}"))),
        }
    }

    /// A file of the layer. Links in its path lead nowhere outside of the layer's directory.
    fn file(&self, name: &[u8], size: u64) -> io::Result<Part> {
        use std::os::unix::ffi::OsStrExt;
        let relative = Path::new(std::ffi::OsStr::from_bytes(name));
        let shown = self.path.join(relative.strip_prefix("/").unwrap_or(relative));
        // A name that means something else by now, such as a pipe, must not make us wait.
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let opened = openat2(&self.root, relative, how);
        let file = File::from(opened.map_err(|error| {
            let error = io::Error::from(error);
            match error.kind() {
                io::ErrorKind::PermissionDenied => io::Error::new(error.kind(), denied(&shown)),
                kind => io::Error::new(kind, format!("opening {}: {error}", shown.display())),
            }
        })?);
        if !file.metadata()?.is_file() {
            return Err(damaged(&format!("{} is not a file any more", shown.display())));
        }
        Ok(Part::File { file, left: size, name: shown })
    }
}

fn damaged(what: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the tar-split file is damaged: {what}"))
}

fn denied(path: &Path) -> String {
    format!(
        "{} may not be read: stores of ordinary users have files of other IDs; run bootpress inside `podman unshare`",
        path.display()
    )
}

impl Read for TarSplit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.part {
                Part::Bytes(bytes) => {
                    let count = bytes.read(buffer)?;
                    if count > 0 {
                        return Ok(count);
                    }
                }
                Part::File { left: 0, .. } => {}
                Part::File { file, left, name } => {
                    let count = file.take(*left).read(buffer)?;
                    if count == 0 {
                        let reason = format!("{} is shorter than it was", name.display());
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                    }
                    *left -= count as u64;
                    return Ok(count);
                }
            }
            match self.next()? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
    }
}
