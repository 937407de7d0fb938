//! Split streams: an archive or document without the contents that are objects of their own.
//!
//! ```text
//! 0     "SplitStream", version 0, flags u16, hash 2 (SHA-512), block size 12, range of the info
//! 32    info: ranges of stream refs, object refs, stream and named refs; kind, bytes of the original
//! 112   stream refs, 64 bytes each │ object refs │ named refs, zstd │ stream, zstd
//!
//! stream: i64 n < 0: n bytes follow │ i64 n ≥ 0: the object with that number among the object refs
//! named refs: `INDEX:NAME`, NUL, in the order of names; the index is of a stream ref
//! ```
//!
//! All numbers are little-endian. Source: composefs 0.9.4, `splitstream.rs`, `splitstream_format.rs`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use anyhow::{Context, Result};
use zstd::Encoder;

use super::ObjectId;
use super::objects::Objects;
use crate::content::{Content, ContentStore};
use crate::error::corrupt;
use crate::layer::Piece;

const MAGIC: &[u8; 11] = b"SplitStream";
const HEADER_BYTES: u64 = 32;
const INFO_BYTES: u64 = 80;

/// What a stream is of: eight letters, read as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    Layer,
    Config,
    Manifest,
}

impl StreamKind {
    const fn letters(self) -> &'static [u8; 8] {
        match self {
            Self::Layer => b"ocilayer",
            Self::Config => b"ociconfg",
            Self::Manifest => b"ocimanif",
        }
    }
}

/// Digests, each once, in the order of their first use.
#[derive(Default)]
struct Refs {
    ids: Vec<ObjectId>,
    indices: HashMap<ObjectId, usize>,
}

impl Refs {
    fn index(&mut self, id: ObjectId) -> usize {
        *self.indices.entry(id).or_insert_with(|| {
            self.ids.push(id);
            self.ids.len() - 1
        })
    }

    fn bytes(&self) -> Vec<u8> {
        self.ids.iter().flat_map(|id| id.0).collect()
    }
}

/// A stream that is being written.
pub(super) struct Stream {
    kind: StreamKind,
    stream_refs: Refs,
    object_refs: Refs,
    named: BTreeMap<String, usize>,
    body: Encoder<'static, Vec<u8>>,
    size: u64,
}

impl Stream {
    pub(super) fn new(kind: StreamKind) -> Result<Self> {
        Ok(Self {
            kind,
            stream_refs: Refs::default(),
            object_refs: Refs::default(),
            named: BTreeMap::new(),
            body: encoder()?,
            size: 0,
        })
    }

    /// The stream of a layer, whose files are objects already.
    pub(super) fn of_layer(
        pieces: &[Piece],
        objects: &Objects<'_>,
        contents: &ContentStore,
    ) -> Result<Vec<u8>> {
        let mut stream = Self::new(StreamKind::Layer)?;
        let is_bytes = |piece: &Piece| matches!(piece, Piece::Bytes(_));
        for run in pieces.chunk_by(|one, other| is_bytes(one) && is_bytes(other)) {
            match &run[0] {
                Piece::File(content) => {
                    let id = objects.id(content).context("a file is not an object")?;
                    stream.object(id, content.size)?;
                }
                Piece::Bytes(_) => {
                    let parts = run.iter().filter_map(|piece| match piece {
                        Piece::Bytes(content) => Some(content),
                        Piece::File(_) => None,
                    });
                    stream.inline(&parts.collect::<Vec<_>>(), contents)?;
                }
            }
        }
        stream.finish()
    }

    /// Names another stream or an image.
    pub(super) fn name(&mut self, name: impl Into<String>, id: ObjectId) {
        let index = self.stream_refs.index(id);
        self.named.insert(name.into(), index);
    }

    /// Refers to an object of so many bytes.
    pub(super) fn object(&mut self, id: ObjectId, size: u64) -> Result<()> {
        let index = self.object_refs.index(id) as i64;
        self.body.write_all(&index.to_le_bytes())?;
        self.size += size;
        Ok(())
    }

    fn inline(&mut self, parts: &[&Content], contents: &ContentStore) -> Result<()> {
        let size: u64 = parts.iter().map(|part| part.size).sum();
        let size_of_chunk = i64::try_from(size).ok();
        let count = size_of_chunk.ok_or_else(|| corrupt("a layer", "it is too large"))?;
        self.body.write_all(&(-count).to_le_bytes())?;
        for part in parts {
            io::copy(&mut contents.reader(part), &mut self.body).context("reading the spool")?;
        }
        self.size += size;
        Ok(())
    }

    /// The bytes of the stream.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        let body = self.body.finish()?;
        let mut named = encoder()?;
        for (name, index) in &self.named {
            write!(named, "{index}:{name}\0")?;
        }
        let named = named.finish()?;
        let (stream_refs, object_refs) = (self.stream_refs.bytes(), self.object_refs.bytes());
        let mut end = HEADER_BYTES + INFO_BYTES;
        let mut range = |bytes: &[u8]| {
            let start = end;
            end += bytes.len() as u64;
            [start, end]
        };
        // In the order in which they lie, which is not that of the info.
        let ranges = [&stream_refs, &object_refs, &named, &body].map(|bytes| range(bytes));
        let [of_streams, of_objects, of_named, of_body] = ranges;
        let mut out = MAGIC.to_vec();
        out.push(0); // version
        out.extend_from_slice(&[0, 0]); // flags
        out.push(2); // SHA-512
        out.push(12); // blocks of 4096 bytes
        let mut numbers = vec![HEADER_BYTES, HEADER_BYTES + INFO_BYTES];
        numbers.extend([of_streams, of_objects, of_body, of_named].concat());
        numbers.push(u64::from_le_bytes(*self.kind.letters()));
        numbers.push(self.size);
        out.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        out.extend([stream_refs, object_refs, named, body].concat());
        Ok(out)
    }
}

/// zstd at its default level, as composefs-rs compresses.
fn encoder() -> Result<Encoder<'static, Vec<u8>>> {
    Encoder::new(Vec::new(), 0).context("compressing")
}
