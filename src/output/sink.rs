//! A file under way: written from front to back, zeros left out, hashed by a thread of its own.
//!
//! ```text
//! writing thread    fill buffer → write its non-zero blocks → ┐            ┌→ (the same buffers, again)
//! hashing thread                                              └→ SHA-256 → ┘
//! third thread      asks the host to begin with writing back: at the end only little is left to wait for
//! ```
//!
//! Without the third, the host would begin when much is dirty, and with the spool, which came first and is soon thrown away.
//!
//! Formats whose beginning depends on their end come back to it; their files are read once more to be hashed.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use thiserror::Error;

use crate::progress::StageGuard;
use crate::sha256::Sha256;

/// Bytes of a buffer: large enough that system calls do not matter, small enough that it stays in the cache between writing
/// and hashing.
pub(super) const BUFFER: usize = 1 << 20;

/// Bytes that the host is asked to write back at once: long writes for disks, and early enough that they are not idle.
const WRITE_BACK: u64 = 16 << 20;

/// Buffers between the two threads.
const BUFFERS: usize = 4;

/// The unit in which zeros become holes: the block size of nearly every host file system.
const BLOCK: usize = 4096;

/// Another file could not be written, so this one was given up.
#[derive(Debug, Error)]
#[error("stopped, because another file could not be written")]
pub(super) struct Stopped;

/// Where a format's writer puts its bytes: a file, or something on the way to it.
pub(super) trait Sink {
    /// Bytes so far.
    fn position(&self) -> u64;

    /// Appends `len` bytes, at most [`BUFFER`], that `fill` puts into a buffer of zeros or of old bytes.
    fn fill(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<()>;

    /// Appends `count` zeros, as a hole where there can be one.
    fn zeros(&mut self, count: u64) -> Result<()>;

    /// Tells how much of the disk is done, where that is not the same as bytes written.
    fn advance(&mut self, bytes: u64) -> Result<()>;

    /// Appends bytes that are in memory already.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(BUFFER).try_for_each(|chunk| {
            self.fill(chunk.len(), &mut |buffer| {
                buffer.copy_from_slice(chunk);
                Ok(())
            })
        })
    }

    /// Appends zeros up to an offset.
    fn zeros_until(&mut self, offset: u64) -> Result<()> {
        let count = offset.checked_sub(self.position()).expect("offsets ascend");
        self.zeros(count)
    }
}

/// Who is told how far it is, and who can say that it shall stop.
#[derive(Clone, Copy)]
pub(super) struct Meter<'a> {
    pub(super) stage: &'a StageGuard,
    pub(super) stop: &'a AtomicBool,
    /// Whether every byte written counts; otherwise only what [`Sink::advance`] tells.
    pub(super) by_bytes: bool,
}

impl Meter<'_> {
    pub(super) fn bytes(&self, count: u64) -> Result<()> {
        if self.by_bytes {
            self.stage.advance(count);
        }
        if self.stop.load(Ordering::Relaxed) { Err(Stopped.into()) } else { Ok(()) }
    }

    pub(super) fn work(&self, count: u64) -> Result<()> {
        if !self.by_bytes {
            self.stage.advance(count);
        }
        self.bytes(0)
    }
}

/// When a file is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// While it is written, from front to back.
    Along,
    /// When it is whole: its beginning is written last.
    Afterwards,
    /// Not at all.
    Never,
}

enum Chunk {
    Data(Vec<u8>),
    Zeros(u64),
}

/// A new file that is filled.
pub(super) struct FileSink<'a> {
    file: &'a File,
    meter: Meter<'a>,
    position: u64,
    hasher: Option<(SyncSender<Chunk>, Receiver<Vec<u8>>)>,
    write_back: Option<WriteBack>,
    /// The buffer, when there is no hasher to share with.
    spare: Vec<u8>,
}

impl<'a> FileSink<'a> {
    /// Has `write` fill a new, empty `file`, of `size` bytes if that is known; the file's SHA-256 in hexadecimal, empty for
    /// [`Hash::Never`]. On failure the others are told to stop.
    pub(super) fn run(
        file: &'a File,
        size: Option<u64>,
        hash: Hash,
        meter: Meter<'a>,
        write: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<String> {
        let begin = |sink: &mut Self| {
            file.set_len(size.unwrap_or(0))?;
            write(sink)?;
            assert!(size.is_none_or(|size| size == sink.position), "as long as its layout said");
            Ok(file.set_len(sink.position)?)
        };
        let result = match hash {
            Hash::Along => Self::hashed(file, meter, begin),
            Hash::Never | Hash::Afterwards => {
                let mut sink = Self::new(file, meter);
                begin(&mut sink).and_then(|()| match hash {
                    Hash::Afterwards => hash_of(file, sink.position, meter),
                    _ => Ok(String::new()),
                })
            }
        };
        result.inspect_err(|_| meter.stop.store(true, Ordering::Relaxed))
    }

    fn new(file: &'a File, meter: Meter<'a>) -> Self {
        Self { file, meter, position: 0, hasher: None, write_back: None, spare: Vec::new() }
    }

    fn hashed(
        file: &'a File,
        meter: Meter<'a>,
        begin: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<String> {
        let (chunks, to_hash) = sync_channel(BUFFERS);
        let (give_back, used) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            give_back.send(Vec::new()).expect("we hold the other end");
        }
        thread::scope(|scope| {
            let hasher = scope.spawn(move || hash(to_hash, &give_back));
            let (ranges, written) = channel();
            scope.spawn(move || write_back(file, written));
            let mut sink = Self::new(file, meter);
            sink.hasher = Some((chunks, used));
            sink.write_back = Some(WriteBack { ranges, asked: 0 });
            let written = begin(&mut sink);
            drop(sink);
            let digest = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.map(|()| digest)
        })
    }

    /// Puts bytes somewhere, where there are others already or behind the end; for files that are hashed afterwards.
    pub(super) fn place(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert!(self.hasher.is_none(), "what was hashed does not change");
        self.file.write_all_at(bytes, offset)?;
        let end = offset + bytes.len() as u64;
        let more = end.saturating_sub(self.position);
        self.position += more;
        self.meter.bytes(more)
    }
}

impl Sink for FileSink<'_> {
    fn position(&self) -> u64 {
        self.position
    }

    fn fill(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        assert!(len <= BUFFER, "{len} bytes are more than a buffer");
        let mut buffer = match &self.hasher {
            Some((_, used)) => used.recv().map_err(|_| hasher_gone())?,
            None => std::mem::take(&mut self.spare),
        };
        buffer.resize(len, 0);
        fill(&mut buffer)?;
        write_blocks(self.file, self.position, &buffer)?;
        match &self.hasher {
            Some((chunks, _)) => chunks.send(Chunk::Data(buffer)).map_err(|_| hasher_gone())?,
            None => self.spare = buffer,
        }
        self.position += len as u64;
        if let Some(write_back) = &mut self.write_back {
            write_back.written_until(self.position);
        }
        self.meter.bytes(len as u64)
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            // In steps, so that progress moves and stopping works.
            let step = left.min(64 * BUFFER as u64);
            if let Some((chunks, _)) = &self.hasher {
                chunks.send(Chunk::Zeros(step)).map_err(|_| hasher_gone())?;
            }
            self.position += step;
            self.meter.bytes(step)?;
            left -= step;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<()> {
        self.meter.work(bytes)
    }
}

/// What is written by way of another sink, from its position on, and hashed on its own.
pub(super) struct Part<'a> {
    inner: &'a mut dyn Sink,
    start: u64,
    sha256: Sha256,
}

impl<'a> Part<'a> {
    pub(super) fn new(inner: &'a mut dyn Sink) -> Self {
        Self { start: inner.position(), inner, sha256: Sha256::new() }
    }

    /// SHA-256 of the part in hexadecimal.
    pub(super) fn finish(self) -> String {
        self.sha256.finish_hex()
    }
}

impl Sink for Part<'_> {
    fn position(&self) -> u64 {
        self.inner.position() - self.start
    }

    fn fill(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<()> {
        let sha256 = &mut self.sha256;
        self.inner.fill(len, &mut |buffer| {
            fill(buffer)?;
            sha256.update(buffer);
            Ok(())
        })
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        self.sha256.update_zeros(count);
        self.inner.zeros(count)
    }

    fn advance(&mut self, bytes: u64) -> Result<()> {
        self.inner.advance(bytes)
    }
}

/// Asks for what was written to be written back.
struct WriteBack {
    ranges: Sender<Range<u64>>,
    /// Where the last range ended.
    asked: u64,
}

impl WriteBack {
    fn written_until(&mut self, position: u64) {
        if position - self.asked >= WRITE_BACK {
            // If the thread is gone, the host does it later.
            let _ = self.ranges.send(self.asked..position);
            self.asked = position;
        }
    }
}

/// Has the host begin to write back ranges of a file. What is dirty is not dropped by this advice, only begun with
/// (Linux, mm/fadvise.c); it may block where the disk has enough to do, so it has a thread of its own.
fn write_back(file: &File, ranges: Receiver<Range<u64>>) {
    for range in ranges {
        let (Ok(start), Ok(len)) = (range.start.try_into(), (range.end - range.start).try_into())
        else {
            return;
        };
        // A host that does not take advice is as fast as it is.
        let _ = posix_fadvise(file, start, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

fn hasher_gone() -> anyhow::Error {
    anyhow!("the hashing thread is gone")
}

/// Writes those blocks that are not zero, neighbours together: in a new file the others are holes already.
fn write_blocks(file: &File, position: u64, bytes: &[u8]) -> Result<()> {
    let mut start = 0;
    while start < bytes.len() {
        let zero = |block: &&[u8]| is_zero(block);
        start += bytes[start..].chunks(BLOCK).take_while(zero).map(<[u8]>::len).sum::<usize>();
        let len: usize =
            bytes[start..].chunks(BLOCK).take_while(|block| !is_zero(block)).map(<[u8]>::len).sum();
        file.write_all_at(&bytes[start..start + len], position + start as u64)?;
        start += len;
    }
    Ok(())
}

/// Whether all bytes are zero; most blocks that are not say so early.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

fn hash(chunks: Receiver<Chunk>, give_back: &SyncSender<Vec<u8>>) -> String {
    let mut sha256 = Sha256::new();
    for chunk in chunks {
        match chunk {
            Chunk::Data(buffer) => {
                sha256.update(&buffer);
                // At the end nobody waits for buffers any more.
                let _ = give_back.send(buffer);
            }
            Chunk::Zeros(count) => sha256.update_zeros(count),
        }
    }
    sha256.finish_hex()
}

/// The hash of a file that is whole.
fn hash_of(file: &File, size: u64, meter: Meter<'_>) -> Result<String> {
    let (mut sha256, mut buffer, mut offset) = (Sha256::new(), vec![0; BUFFER], 0);
    while offset < size {
        let len = (size - offset).min(BUFFER as u64) as usize;
        file.read_exact_at(&mut buffer[..len], offset).context("reading what was written")?;
        sha256.update(&buffer[..len]);
        offset += len as u64;
        meter.work(0)?;
    }
    Ok(sha256.finish_hex())
}
