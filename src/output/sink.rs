//! A file under way: written from front to back, zeros left out, hashed by a thread of its own.
//!
//! ```text
//! writing thread    fill buffer → write its non-zero blocks → ┐            ┌→ (the same buffers, again)
//! hashing thread                                              └→ SHA-256 → ┘
//! ```

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::{Result, anyhow};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::progress::StageGuard;

/// Bytes of a buffer: large enough that system calls do not matter, small enough that it stays in the cache between writing
/// and hashing.
pub(super) const BUFFER: usize = 1 << 20;

/// Buffers between the two threads.
const BUFFERS: usize = 4;

/// The unit in which zeros become holes: the block size of nearly every host file system.
const BLOCK: usize = 4096;

/// Another file could not be written, so this one was given up.
#[derive(Debug, Error)]
#[error("stopped, because another file could not be written")]
pub(super) struct Stopped;

enum Chunk {
    Data(Vec<u8>),
    Zeros(u64),
}

/// Where a format's writer puts its bytes.
pub(super) struct Sink<'a> {
    file: &'a File,
    stage: &'a StageGuard,
    stop: &'a AtomicBool,
    position: u64,
    chunks: SyncSender<Chunk>,
    used: Receiver<Vec<u8>>,
}

impl<'a> Sink<'a> {
    /// Has `write` fill a new, empty `file` of `size` bytes; the file's SHA-256 in hexadecimal. On failure `stop` is set.
    pub(super) fn run(
        file: &'a File,
        size: u64,
        stage: &'a StageGuard,
        stop: &'a AtomicBool,
        write: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<String> {
        let (chunks, to_hash) = sync_channel(BUFFERS);
        let (give_back, used) = sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            give_back.send(Vec::new()).expect("we hold the other end");
        }
        thread::scope(|scope| {
            let hasher = scope.spawn(|| hash(to_hash, give_back));
            let mut sink = Self { file, stage, stop, position: 0, chunks, used };
            let written = file.set_len(size).map_err(Into::into).and_then(|()| write(&mut sink));
            let position = sink.position;
            drop(sink);
            let digest = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if let Err(error) = written {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
            assert_eq!(position, size, "a file is as long as its layout said");
            Ok(digest)
        })
    }

    /// Bytes so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Appends `len` bytes, at most [`BUFFER`], that `fill` puts into a buffer of zeros or of old bytes.
    pub(super) fn fill(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        assert!(len <= BUFFER, "{len} bytes are more than a buffer");
        let mut buffer = self.used.recv().map_err(|_| hasher_gone())?;
        buffer.resize(len, 0);
        fill(&mut buffer)?;
        write_blocks(self.file, self.position, &buffer)?;
        self.chunks.send(Chunk::Data(buffer)).map_err(|_| hasher_gone())?;
        self.advance(len as u64)
    }

    /// Appends bytes that are in memory already.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(BUFFER).try_for_each(|chunk| {
            self.fill(chunk.len(), |buffer| {
                buffer.copy_from_slice(chunk);
                Ok(())
            })
        })
    }

    /// Appends `count` zeros, as a hole.
    pub(super) fn zeros(&mut self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            // In steps, so that progress moves and stopping works.
            let step = left.min(64 * BUFFER as u64);
            self.chunks.send(Chunk::Zeros(step)).map_err(|_| hasher_gone())?;
            self.advance(step)?;
            left -= step;
        }
        Ok(())
    }

    fn advance(&mut self, count: u64) -> Result<()> {
        self.position += count;
        self.stage.advance(count);
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Stopped.into()),
            false => Ok(()),
        }
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

fn hash(chunks: Receiver<Chunk>, give_back: SyncSender<Vec<u8>>) -> String {
    let zeros = vec![0; BUFFER];
    let mut sha256 = Sha256::new();
    for chunk in chunks {
        match chunk {
            Chunk::Data(buffer) => {
                sha256.update(&buffer);
                // At the end nobody waits for buffers any more.
                let _ = give_back.send(buffer);
            }
            Chunk::Zeros(mut left) => {
                while left > 0 {
                    let count = left.min(BUFFER as u64);
                    sha256.update(&zeros[..count as usize]);
                    left -= count;
                }
            }
        }
    }
    sha256.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
