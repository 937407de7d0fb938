//! A tar archive whose members are looked up once and then read in place: what `oci-archive:` and `docker-archive:` are.
//!
//! ```text
//! plain file ──────────────────────────────► read in place
//! standard input, compressed file ──► spool ──► read in place      one copy, already decompressed
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::decompressed::{Compression, decompressed};
use super::manifest::MAXIMUM_DOCUMENT;
use super::tar::{Input, MemberKind, Members};
use crate::error::{corrupt, unsupported};
use crate::tree::components;

/// The name that means standard input.
pub(super) const STANDARD_INPUT: &str = "-";

/// Links that lead to links; old docker wrote one.
const MAXIMUM_LINKS: usize = 8;

/// The first bytes of xz (its format description, section 2.1.1.1) and bzip2.
const OTHER_COMPRESSIONS: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2")];

/// An archive.
#[derive(Debug)]
pub(super) struct Archive {
    /// What the user calls it.
    path: PathBuf,
    file: File,
    size: u64,
    members: BTreeMap<Vec<u8>, Member>,
}

/// Where a member's bytes are.
#[derive(Clone, Debug)]
enum Member {
    File { start: u64, size: u64 },
    Link(Vec<u8>),
}

impl Archive {
    /// Opens the archive at `path`, `-` for standard input. What cannot be read in place is written to an unnamed file in
    /// `spool` first.
    pub(super) fn open(path: &Path, spool: &Path) -> Result<Self> {
        let (file, path) = if path == Path::new(STANDARD_INPUT) {
            (standard_input()?, PathBuf::from("standard input"))
        } else {
            let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
            (file, path.to_owned())
        };
        let context = || format!("reading {}", path.display());
        let facts = file.metadata().with_context(context)?;
        ensure!(!facts.is_dir(), "{} is a directory, not an archive", path.display());
        let mut head = [0; 6];
        let in_place = facts.is_file() && (&file).stream_position().with_context(context)? == 0;
        let (file, size) = if in_place {
            let count = file.read_at(&mut head, 0).with_context(context)?;
            match compression(&head[..count], &path)? {
                Compression::None => (file, facts.len()),
                _ => spooled(file, &path, spool)?,
            }
        } else {
            spooled(file, &path, spool)?
        };
        let members = index(&file, size, &path)?;
        Ok(Self { path, file, size, members })
    }

    /// What the user calls it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file or link of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(&*normal(name.as_bytes()))
    }

    /// Bytes of a file, links followed.
    pub(super) fn size(&self, name: &str) -> Result<u64> {
        Ok(self.find(name)?.1)
    }

    /// A reader of a file, links followed.
    pub(super) fn read(&self, name: &str) -> Result<Window<'_>> {
        let (start, size) = self.find(name)?;
        // A member that the archive's end cuts off reads short, as a cut blob does.
        let end = start.saturating_add(size).min(self.size);
        Ok(Window { file: &self.file, position: start, end })
    }

    /// A small file, whole.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>> {
        let size = self.size(name)?;
        if size > MAXIMUM_DOCUMENT {
            let path = self.path.join(name);
            let what = format!("{} of {size} bytes is larger than any real one", path.display());
            return Err(unsupported(what, None));
        }
        let mut bytes = Vec::new();
        self.read(name)?
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {}", self.path.join(name).display()))?;
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Result<(u64, u64)> {
        let mut at = normal(name.as_bytes());
        for _ in 0..MAXIMUM_LINKS {
            match self.members.get(&at) {
                Some(&Member::File { start, size }) => return Ok((start, size)),
                Some(Member::Link(target)) => at.clone_from(target),
                None => break,
            }
        }
        Err(anyhow::anyhow!("{} has no {name}", self.path.display()))
    }
}

fn standard_input() -> Result<File> {
    let input = io::stdin().as_fd().try_clone_to_owned().context("reading standard input")?;
    Ok(File::from(input))
}

fn compression(head: &[u8], path: &Path) -> Result<Compression> {
    for (magic, name) in OTHER_COMPRESSIONS {
        if head.starts_with(magic) {
            let what = format!("{} is compressed with {name}", path.display());
            let hint = "gzip and zstd are read; decompress anything else, the layers in it already are small";
            return Err(unsupported(what, Some(hint)));
        }
    }
    Ok(Compression::sniff(head))
}

/// The decompressed bytes of `file` in an unnamed file of `spool`, and how many there are.
fn spooled(mut file: File, path: &Path, spool: &Path) -> Result<(File, u64)> {
    let mut head = Vec::new();
    (&mut file)
        .take(6)
        .read_to_end(&mut head)
        .with_context(|| format!("reading {}", path.display()))?;
    let compression = compression(&head, path)?;
    let name = path.display().to_string();
    let whole = io::Cursor::new(head).chain(file);
    let mut reader = decompressed(whole, compression, &name)?;
    let mut out = tempfile::tempfile_in(spool)
        .with_context(|| format!("creating a spool in {}", spool.display()))?;
    let copied = io::copy(&mut reader, &mut out);
    let size = copied.map_err(|error| match (error.raw_os_error(), compression) {
        // An error without a number is the decoder's, about its input.
        (None, Compression::Gzip | Compression::Zstd) => corrupt(name.as_str(), error.to_string()),
        _ => anyhow::Error::from(error).context(format!("copying {name} to {}", spool.display())),
    })?;
    Ok((out, size))
}

fn normal(path: &[u8]) -> Vec<u8> {
    components(path).collect::<Vec<_>>().join(&b"/"[..])
}

/// The files of an archive by their normal paths. Of several with one path the last counts, as when it is extracted.
fn index(file: &File, size: u64, path: &Path) -> Result<BTreeMap<Vec<u8>, Member>> {
    let window = Window { file, position: 0, end: size };
    let mut members = Members::new(window, path.display().to_string());
    let mut found = BTreeMap::new();
    while let Some(member) = members.next()? {
        let name = normal(&member.path);
        match member.kind {
            MemberKind::File if member.sparse.is_none() => {
                let start = members.position();
                found.insert(name, Member::File { start, size: member.size });
            }
            MemberKind::HardLink => {
                found.insert(name, Member::Link(normal(&member.link)));
            }
            MemberKind::Symlink => {
                found.insert(name.clone(), Member::Link(resolved(&name, &member.link)));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Where a symbolic link at `from` leads, inside the archive: `..` never leaves its root.
fn resolved(from: &[u8], target: &[u8]) -> Vec<u8> {
    let mut path: Vec<&[u8]> = components(from).collect();
    path.pop();
    if target.starts_with(b"/") {
        path.clear();
    }
    for component in components(target) {
        match component {
            b".." => drop(path.pop()),
            other => path.push(other),
        }
    }
    path.join(&b"/"[..])
}

/// A range of a file. Several may read one file at a time.
#[derive(Debug)]
pub(super) struct Window<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..count], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Input for Window<'_> {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let skipped = count.min(self.end.saturating_sub(self.position));
        self.position += skipped;
        Ok(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        assert_eq!(resolved(b"a/b/layer.tar", b"../../x.tar"), b"x.tar");
        assert_eq!(resolved(b"a/layer.tar", b"../../../etc/x"), b"etc/x");
        assert_eq!(resolved(b"a/layer.tar", b"/x"), b"x");
        assert_eq!(resolved(b"a/layer.tar", b"y/./z"), b"a/y/z");
    }
}
