//! DEFLATE of pieces that are in memory; as vmdk, qcow2 and gzip want it, each in another wrapping.

use anyhow::{Result, ensure};
use flate2::{Compress, Compression, FlushCompress, Status};

/// The level that zlib's own tools take when nobody names one.
const LEVEL: u32 = 6;

/// How a piece ends, and what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// zlib's header and checksum (RFC 1950).
    Zlib,
    /// Nothing, and references no further back than 4 KiB: qcow2's readers remember no more.
    Window4K,
    /// Nothing, and no end: the next piece follows at a byte's border.
    Open,
}

/// Compresses one piece after another, each on its own.
pub(super) struct Deflate {
    inner: Compress,
    flush: FlushCompress,
}

impl Deflate {
    pub(super) fn new(wrapping: Wrapping) -> Self {
        let level = Compression::new(LEVEL);
        let (inner, flush) = match wrapping {
            Wrapping::Zlib => (Compress::new(level, true), FlushCompress::Finish),
            Wrapping::Window4K => {
                (Compress::new_with_window_bits(level, false, 12), FlushCompress::Finish)
            }
            Wrapping::Open => (Compress::new(level, false), FlushCompress::Sync),
        };
        Self { inner, flush }
    }

    pub(super) fn compress(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.inner.reset();
        // What cannot be compressed grows by 5 bytes for 16 KiB at most (RFC 1951, 3.2.4); this is more than that.
        let mut packed = Vec::with_capacity(bytes.len() + bytes.len() / 256 + 256);
        let status = self.inner.compress_vec(bytes, &mut packed, self.flush)?;
        let done = self.flush != FlushCompress::Finish || status == Status::StreamEnd;
        ensure!(done && self.inner.total_in() == bytes.len() as u64, "deflate stopped midway");
        Ok(packed)
    }
}
