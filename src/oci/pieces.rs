//! The archives of layers, byte for byte, with the bodies of files named by the contents that are in the store already.
//!
//! ```text
//! archive   | header | body of 64 bytes at most, padding | header | larger body | padding | header …
//! pieces    | Bytes ─────────────────────────────────────────────| File        | Bytes ──────────── …
//! ```
//!
//! Only bootc's composefs repositories want them, and nobody knows that an image is for those before its layers are read. So layers are
//! read a second time for it.

use std::cell::RefCell;
use std::io::{self, Read};

use anyhow::{Context, Result};

use super::digest::{Digest, Verified};
use super::tar::{MemberKind, Members, Stream};
use super::{Metered, Source, Unpacking, pass_trailer};
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::image::LayerRecord;
use crate::layer::{EntryKind, Layer, Piece};
use crate::progress::Progress;

/// A piece of bytes is put into the store when it has this many.
const BUFFER: usize = 1 << 20;

impl Source {
    /// The pieces of each layer's archive. `layers` are those that were unpacked before, and `inline` is the size of the largest body
    /// that stays among the bytes.
    ///
    /// `Corrupt`: a blob has changed since. `Unsupported`: a sparse file, which composefs does not know.
    pub fn pieces(
        &self,
        layers: &[Layer],
        inline: u64,
        contents: &ContentStore,
        progress: &Progress,
    ) -> Result<Vec<Vec<Piece>>> {
        self.each_layer(contents, progress, |unpacking, i, record| {
            unpacking
                .read(i, record, &|archive| pieces(unpacking, archive, record, &layers[i], inline))
        })
    }
}

fn pieces(
    unpacking: &Unpacking<'_>,
    archive: &mut dyn Read,
    record: &LayerRecord,
    layer: &Layer,
    inline: u64,
) -> Result<Vec<Piece>> {
    let diff_id = Digest::parse(&record.diff_id)?;
    let changed = || corrupt(record.digest.as_str(), "it has changed since it was unpacked");
    let mut archive = Verified::new(Metered { inner: archive, budget: unpacking.budget });
    let recording = RefCell::new(Recording {
        contents: unpacking.contents,
        buffer: Vec::new(),
        pieces: Vec::new(),
        passes: false,
    });
    let mut tee = Tee { inner: &mut archive, recording: &recording };
    let mut members = Members::new(Stream(&mut tee), record.digest.as_str());
    let mut entries = layer.entries.iter();
    let mut chunk = vec![0; 1 << 17];
    while let Some(member) = members.next()? {
        let entry = entries.next().ok_or_else(changed)?;
        if member.sparse.is_some() {
            let what = format!(
                "{} is a sparse file, which bootc's composefs backend does not import",
                member.path.escape_ascii()
            );
            return Err(unsupported(what, Some("write the layer without sparse files")));
        }
        let EntryKind::File(content) = &entry.kind else { continue };
        if member.kind != MemberKind::File || member.size != content.size {
            return Err(changed());
        }
        if content.size <= inline {
            continue;
        }
        recording.borrow_mut().begin_file()?;
        let mut left = content.size;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            members.read_data(&mut chunk[..count])?;
            left -= count as u64;
        }
        let mut recording = recording.borrow_mut();
        recording.passes = false;
        recording.pieces.push(Piece::File(content.clone()));
    }
    drop(members);
    pass_trailer(&mut tee, record)?;
    archive.finish(&diff_id, None).map_err(|_| changed())?;
    let mut recording = recording.into_inner();
    recording.flush()?;
    Ok(recording.pieces)
}

/// What was read.
struct Recording<'a> {
    contents: &'a ContentStore,
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    /// Whether what is read now is the body of a file.
    passes: bool,
}

impl Recording<'_> {
    fn begin_file(&mut self) -> Result<()> {
        self.flush()?;
        self.passes = true;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            let content = self.contents.insert_bytes(&self.buffer);
            self.pieces.push(Piece::Bytes(content.context("writing to the spool")?));
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Records what passes through it.
struct Tee<'t, 'c, R> {
    inner: R,
    recording: &'t RefCell<Recording<'c>>,
}

impl<R: Read> Read for Tee<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut recording = self.recording.borrow_mut();
        if !recording.passes {
            recording.buffer.extend_from_slice(&buffer[..count]);
            if recording.buffer.len() >= BUFFER {
                recording.flush().map_err(io::Error::other)?;
            }
        }
        Ok(count)
    }
}
