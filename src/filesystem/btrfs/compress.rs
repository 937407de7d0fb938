//! What a file's bytes become before they are laid out: as they are, or compressed in pieces of 128 KiB, by all cores.
//!
//! ```text
//! content  |128 KiB|128 KiB|128 KiB|…        spool  |zstd|zstd|      the third did not shrink by a sector: as it is,
//!             └──────zstd──────┘─────────►                            and so is the rest of its span
//! ```
//!
//! The rules are the kernel's (`fs/btrfs/inode.c`, `compress_file_range`): a piece has to save a sector at least, and one that does
//! not ends the compressing of its file. Here it ends that of a span of 16 MiB, so that cores can share a large file. What comes out
//! depends on content, algorithm and level alone.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use flate2::write::ZlibEncoder;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::lzo;
use super::on_disk::SECTOR;
use crate::content::{Content, ContentId, ContentStore};

/// What is compressed as one: `BTRFS_MAX_UNCOMPRESSED`.
pub(super) const PIECE: u64 = 128 << 10;
/// What one thread does in one go, and what a piece that does not shrink ends.
const SPAN: u64 = 16 << 20;
/// The window of zstd that the kernel's decompressor has memory for: `ZSTD_BTRFS_MAX_WINDOWLOG`.
const WINDOW_LOG: u32 = 17;
/// The level that `compress=zstd` and `compress=zlib` mean.
const DEFAULT_LEVEL: u8 = 3;

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd, by level 1 to 15.
    Zstd(u8),
    /// zlib, by level 1 to 9.
    Zlib(u8),
    /// LZO, which has no levels.
    Lzo,
}

impl Compression {
    /// `compression` of an extent.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Zlib(_) => 1,
            Self::Lzo => 2,
            Self::Zstd(_) => 3,
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    /// What the mount option `compress=` takes: `zstd`, `zstd:15`, `zlib`, `zlib:9`, `lzo`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "unknown compression \"{text}\": expected one of: zstd, zstd:1 to zstd:15, zlib, zlib:1 to zlib:9, lzo"
            )
        };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let level_up_to = |most| {
            let level = level.unwrap_or(DEFAULT_LEVEL);
            if (1..=most).contains(&level) { Ok(level) } else { Err(wrong()) }
        };
        match name {
            "zstd" => level_up_to(15).map(Self::Zstd),
            "zlib" => level_up_to(9).map(Self::Zlib),
            "lzo" if level.is_none() => Ok(Self::Lzo),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::Zlib(level) => write!(f, "zlib:{level}"),
            Self::Lzo => f.write_str("lzo"),
        }
    }
}

/// A stretch of a file that is stored in the same way; whole sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Offset in the file.
    pub(super) start: u64,
    /// Bytes of the file, of which the last may lie behind its end.
    pub(super) length: u64,
    /// `None`: as they are.
    pub(super) packed: Option<Packed>,
}

/// Compressed bytes, in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) id: ContentId,
    /// Bytes without the zeros that fill the last sector.
    pub(super) size: u32,
    pub(super) how: Compression,
}

/// A file to store.
#[derive(Clone, Debug)]
pub(super) struct Job<'a> {
    pub(super) content: &'a Content,
    pub(super) how: Option<Compression>,
}

/// The sectors of a content that hold data, ascending, not touching.
pub(super) fn sectors(content: &Content) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in content.data_ranges() {
        let (start, end) = (range.start / SECTOR * SECTOR, range.end.next_multiple_of(SECTOR));
        match merged.last_mut() {
            Some(last) if last.end >= start => last.end = last.end.max(end),
            _ => merged.push(start..end),
        }
    }
    merged
}

/// Stores files: for each, its pieces in ascending order. Compressed bytes go into `contents`, once for each content.
pub(super) fn store(jobs: &[Job<'_>], contents: &ContentStore) -> Result<Vec<Arc<Vec<Piece>>>> {
    let known =
        |job: &Job<'_>| contents.recall::<Vec<Piece>>(job.content.id, &job.how?.to_string());
    let mut files: Vec<Option<Arc<Vec<Piece>>>> = jobs.iter().map(known).collect();
    let mut spans = Vec::new();
    for (file, job) in jobs.iter().enumerate().filter(|(file, _)| files[*file].is_none()) {
        for range in sectors(job.content) {
            // What is as it is need not be looked at.
            let step = if job.how.is_some() { SPAN } else { u64::MAX };
            let mut start = range.start;
            while start < range.end {
                let end = start.saturating_add(step).min(range.end);
                spans.push(Span { file, range: start..end });
                start = end;
            }
        }
    }
    let done = in_parallel(&spans, Worker::default, |worker, span| {
        let Job { content, how } = &jobs[span.file];
        match how {
            Some(how) => worker.span(content, span.range.clone(), *how, contents),
            None => Ok(vec![plain(span.range.clone())]),
        }
    })?;
    let mut done = spans.iter().zip(done).peekable();
    for (file, job) in jobs.iter().enumerate() {
        if files[file].is_none() {
            let mut pieces = Vec::new();
            while let Some((_, some)) = done.next_if(|(span, _)| span.file == file) {
                some.into_iter().for_each(|piece| add(&mut pieces, piece));
            }
            let pieces = Arc::new(pieces);
            if let Some(how) = job.how {
                contents.remember(job.content.id, &how.to_string(), Arc::clone(&pieces));
            }
            files[file] = Some(pieces);
        }
    }
    Ok(files.into_iter().map(|pieces| pieces.expect("every file was stored")).collect())
}

/// What one thread does in one go: part of a file.
struct Span {
    file: usize,
    range: Range<u64>,
}

fn plain(range: Range<u64>) -> Piece {
    Piece { start: range.start, length: range.end - range.start, packed: None }
}

/// Adds a piece; what is as it is grows together.
fn add(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last)
            if last.packed.is_none()
                && piece.packed.is_none()
                && last.start + last.length == piece.start =>
        {
            last.length += piece.length;
        }
        _ => pieces.push(piece),
    }
}

/// Does jobs with all cores; results come in the order of the jobs, whoever did them. `worker` makes what each thread keeps.
pub(super) fn in_parallel<J: Sync, W, R: Send>(
    jobs: &[J],
    worker: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, &J) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    if threads <= 1 {
        let mut own = worker();
        return jobs.iter().map(|job| work(&mut own, job)).collect();
    }
    let queue = Mutex::new(jobs.iter().enumerate());
    let done = thread::scope(|scope| {
        let one = || {
            let mut own = worker();
            let mut done = Vec::new();
            loop {
                let next = queue.lock().expect("nobody panics holding it").next();
                let Some((index, job)) = next else { return Ok(done) };
                done.push((index, work(&mut own, job)?));
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<Vec<(usize, R)>>>>()
    })?;
    let mut all: Vec<(usize, R)> = done.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// What a thread keeps between files.
#[derive(Default)]
struct Worker {
    plain: Vec<u8>,
    zstd: Option<(u8, Compressor<'static>)>,
}

impl Worker {
    fn span(
        &mut self,
        content: &Content,
        range: Range<u64>,
        how: Compression,
        contents: &ContentStore,
    ) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = (start + PIECE).min(range.end);
            // Nothing is to be gained from a single sector.
            let packed = match end - start {
                SECTOR => None,
                _ => self.piece(content, start..end, how, contents)?,
            };
            if packed.is_none() {
                add(&mut pieces, plain(start..range.end));
                break;
            }
            pieces.push(Piece { start, length: end - start, packed });
            start = end;
        }
        Ok(pieces)
    }

    /// `None`: it saves nothing.
    fn piece(
        &mut self,
        content: &Content,
        range: Range<u64>,
        how: Compression,
        contents: &ContentStore,
    ) -> Result<Option<Packed>> {
        let size = (range.end.min(content.size) - range.start) as usize;
        self.plain.resize(size, 0);
        contents
            .read_exact_at(content.id, range.start, &mut self.plain)
            .context("reading the spool")?;
        let packed = self.compress(how).with_context(|| format!("compressing with {how}"))?;
        if (packed.len() as u64).next_multiple_of(SECTOR) >= range.end - range.start {
            return Ok(None);
        }
        let id = contents.insert_bytes(&packed)?.id;
        Ok(Some(Packed { id, size: packed.len() as u32, how }))
    }

    fn compress(&mut self, how: Compression) -> Result<Vec<u8>> {
        match how {
            Compression::Zstd(level) => {
                if self.zstd.as_ref().is_none_or(|(at, _)| *at != level) {
                    let mut made = Compressor::new(i32::from(level))?;
                    made.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                    self.zstd = Some((level, made));
                }
                let (_, compressor) = self.zstd.as_mut().expect("it was made above");
                Ok(compressor.compress(&self.plain)?)
            }
            Compression::Zlib(level) => {
                let level = flate2::Compression::new(level.into());
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(&self.plain)?;
                Ok(encoder.finish()?)
            }
            Compression::Lzo => Ok(lzo::compress(&self.plain)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_named_as_mount_options_name_it() {
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        assert_eq!("zstd:15".parse(), Ok(Compression::Zstd(15)));
        assert_eq!("zlib:9".parse(), Ok(Compression::Zlib(9)));
        assert_eq!("lzo".parse(), Ok(Compression::Lzo));
        for text in ["", "zstd:0", "zstd:16", "zlib:10", "lzo:1", "gzip", "zstd:"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_piece_that_does_not_shrink_ends_its_span() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let mut bytes = vec![b'a'; PIECE as usize];
        bytes.extend(noise.take(PIECE as usize));
        bytes.extend(vec![b'b'; PIECE as usize + 1]);
        let content = contents.insert_bytes(&bytes).unwrap();
        for how in [Compression::Zstd(1), Compression::Zlib(1), Compression::Lzo] {
            let job = Job { content: &content, how: Some(how) };
            let pieces = store(&[job], &contents).unwrap().remove(0);
            let shape: Vec<_> =
                pieces.iter().map(|p| (p.start, p.length, p.packed.is_some())).collect();
            assert_eq!(shape, [(0, PIECE, true), (PIECE, 2 * PIECE + SECTOR, false)], "{how}");
        }
    }

    #[test]
    fn ranges_that_share_a_sector_are_one() {
        let ranges = [0..100, 200..4096, 8191..8192, 12_288..12_289];
        let content = Content { size: 20_000, data: Some(ranges.into()), ..Content::EMPTY };
        assert_eq!(sectors(&content), [0..8192, 12_288..16_384]);
    }
}
