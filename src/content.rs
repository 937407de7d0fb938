//! The contents of regular files, each in one range of an unnamed spool file, or of a file that is kept (`shelf`).
//!
//! ```text
//! spool   |content at 0     |pad|content at 8192|pad| …      ranges begin at multiples of 4096
//! shelf 1 |content|pad|content|pad| …                        the same; one layer of an image, known from an earlier build
//! ```
//!
//! The order of contents in the spool depends on threads, and which of them lie on shelves depends on earlier builds; nothing that
//! is written to a disk may depend on either.

mod shelf;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result, ensure};

pub use self::shelf::{Shelf, Sum};
use crate::error::unsupported;

/// Ranges begin at multiples of this, so that the kernel can share or move whole pages.
const ALIGNMENT: u64 = 4096;

/// Bytes of a content that is read into memory as a whole, at most. Larger ones are read piece by piece.
pub const LARGEST_WHOLE: u64 = 64 << 20;

/// Shelves of one store, at most: each is an open file, and a process may have 1024.
pub const MAXIMUM_SHELVES: usize = 256;

/// Names a content: its place in the spool or on a shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId {
    /// 0: the spool; else the number of a shelf, counted from 1.
    file: u16,
    offset: u64,
}

/// The bytes of a regular file: where they are and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its name in the store.
    pub id: ContentId,
    /// Bytes.
    pub size: u64,
    /// The ranges that hold data, ascending, not touching; everything else is a hole and reads as zero. `None`: all of it.
    pub data: Option<Arc<[Range<u64>]>>,
}

impl Content {
    /// The content of an empty file; needs no store.
    pub const EMPTY: Self = Self { id: ContentId { file: 0, offset: 0 }, size: 0, data: None };

    /// The ranges that hold data.
    pub fn data_ranges(&self) -> Vec<Range<u64>> {
        match &self.data {
            Some(ranges) => ranges.to_vec(),
            None if self.size == 0 => Vec::new(),
            None => std::iter::once(0..self.size).collect(),
        }
    }
}

/// File contents, each once. Shared by reference: writers and readers work at the same time.
pub struct ContentStore {
    directory: PathBuf,
    spool: File,
    end: AtomicU64,
    /// Filled from the front; the first one is number 1.
    shelves: Box<[OnceLock<Arc<Shelf>>]>,
    shelf_count: Mutex<usize>,
    derived: Derived,
}

/// What was made of contents, by what it is.
type Derived = Mutex<BTreeMap<(ContentId, String), Arc<dyn Any + Send + Sync>>>;

impl fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentStore").field("spool", &self.spool).finish_non_exhaustive()
    }
}

impl ContentStore {
    /// A new store in an unnamed file of `directory`, gone when the store is dropped or the process dies.
    pub fn create_in(directory: &Path) -> Result<Self> {
        let spool = tempfile::tempfile_in(directory)
            .with_context(|| format!("creating a spool in {}", directory.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            spool,
            end: AtomicU64::new(0),
            shelves: (0..MAXIMUM_SHELVES).map(|_| OnceLock::new()).collect(),
            shelf_count: Mutex::new(0),
            derived: Derived::default(),
        })
    }

    /// The directory that the store is in, for other files that live as long as the work does.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes exactly `size` bytes from `reader`.
    pub fn insert(&self, reader: &mut dyn Read, size: u64) -> Result<Content> {
        let mut writer = self.writer(size);
        let copied = io::copy(&mut reader.take(size), &mut writer)?;
        ensure!(copied == size, "unexpected end of stream: {copied} of {size} bytes");
        writer.finish()
    }

    /// Takes bytes that are in memory already.
    pub fn insert_bytes(&self, bytes: &[u8]) -> Result<Content> {
        let mut writer = self.writer(bytes.len() as u64);
        writer.write_all(bytes).context("writing to the spool")?;
        writer.finish()
    }

    /// A writer for a content of `size` bytes, some of which may be skipped as holes.
    pub fn writer(&self, size: u64) -> ContentWriter<'_> {
        let room = size.div_ceil(ALIGNMENT) * ALIGNMENT;
        let start = self.end.fetch_add(room, Ordering::Relaxed);
        let id = ContentId { file: 0, offset: start };
        ContentWriter { place: Place::Spool(&self.spool), id, size, position: 0, data: Vec::new() }
    }

    /// Adds a shelf; `None`: there are [`MAXIMUM_SHELVES`] already.
    pub fn add_shelf(&self, shelf: Shelf) -> Option<PutUp> {
        let mut count = self.shelf_count.lock().expect("nobody panics holding it");
        let place = self.shelves.get(*count)?;
        *count += 1;
        let number = u16::try_from(*count).expect("MAXIMUM_SHELVES is smaller");
        let shelf = Arc::clone(place.get_or_init(|| Arc::new(shelf)));
        Some(PutUp { shelf, number })
    }

    /// Whether checksums of a content are kept for later builds.
    pub fn keeps_sums_of(&self, id: ContentId) -> bool {
        id.file != 0
    }

    /// The checksum that an earlier build computed of a content together with `what`, if it lies on a shelf that has one.
    pub fn known_sum(&self, id: ContentId, what: &Sum) -> Option<Sum> {
        self.shelf(id)?.known(id.offset, what)
    }

    /// Notes such a checksum, if the content lies on a shelf.
    pub fn note_sum(&self, id: ContentId, what: Sum, sum: Sum) {
        if let Some(shelf) = self.shelf(id) {
            shelf.note(id.offset, what, sum);
        }
    }

    /// Keeps the checksums that were noted, for later builds. It is no error if they cannot be kept.
    pub fn keep_sums(&self) {
        for shelf in self.shelves.iter().map_while(OnceLock::get) {
            shelf.keep_sums();
        }
    }

    fn shelf(&self, id: ContentId) -> Option<&Shelf> {
        let index = usize::from(id.file).checked_sub(1)?;
        self.shelves[index].get().map(|shelf| &**shelf)
    }

    /// Reads all of `buffer` from `offset` on; `offset + buffer.len()` must be inside the content.
    pub fn read_exact_at(&self, id: ContentId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let file = self.shelf(id).map_or(&self.spool, Shelf::file);
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], id.offset + offset + done as u64) {
                // A hole at the spool's end was never written: it reads as zero.
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A reader over all of a content.
    pub fn reader<'a>(&'a self, content: &Content) -> ContentReader<'a> {
        ContentReader { store: self, id: content.id, position: 0, size: content.size }
    }

    /// All of a content in memory; for the small files that configure things.
    ///
    /// `Unsupported`: it has more than [`LARGEST_WHOLE`] bytes. A file of any size costs an image nothing: it may be a hole.
    pub fn bytes(&self, content: &Content) -> Result<Vec<u8>> {
        if content.size > LARGEST_WHOLE {
            let what = format!(
                "the file has {} bytes, and files that configure something may have {} MiB",
                content.size,
                LARGEST_WHOLE >> 20
            );
            return Err(unsupported(what, None));
        }
        let mut bytes = vec![0; usize::try_from(content.size)?];
        self.read_exact_at(content.id, 0, &mut bytes).context("reading the spool")?;
        Ok(bytes)
    }

    /// What was made of a content before, if [`ContentStore::remember`] was told: so that who asks for a size and who writes do
    /// not both compress.
    pub fn recall<T: Any + Send + Sync>(&self, id: ContentId, what: &str) -> Option<Arc<T>> {
        let derived = self.derived.lock().expect("nobody panics holding it");
        derived.get(&(id, what.to_owned()))?.clone().downcast().ok()
    }

    /// Keeps what was made of a content, by a name of what it is.
    pub fn remember<T: Any + Send + Sync>(&self, id: ContentId, what: &str, made: Arc<T>) {
        let mut derived = self.derived.lock().expect("nobody panics holding it");
        derived.insert((id, what.to_owned()), made);
    }
}

/// A shelf in its place in a store.
#[derive(Clone, Debug)]
pub struct PutUp {
    shelf: Arc<Shelf>,
    number: u16,
}

impl PutUp {
    /// The shelf.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// The name of what lies at an offset of it.
    pub fn id(&self, offset: u64) -> ContentId {
        ContentId { file: self.number, offset }
    }

    /// Where a content of it lies; `None`: it lies elsewhere.
    pub fn offset(&self, id: ContentId) -> Option<u64> {
        (id.file == self.number).then_some(id.offset)
    }

    /// A writer for a content of `size` bytes that lies on the shelf.
    pub fn writer(&self, size: u64) -> ContentWriter<'_> {
        let start = self.shelf.reserve(size.div_ceil(ALIGNMENT) * ALIGNMENT);
        let place = Place::Shelf(&self.shelf, Box::default());
        ContentWriter { place, id: self.id(start), size, position: 0, data: Vec::new() }
    }
}

/// Where a writer writes.
#[derive(Debug)]
enum Place<'a> {
    Spool(&'a File),
    /// What is kept has a checksum by which damage is noticed.
    Shelf(&'a Shelf, Box<shelf::Check>),
}

/// Fills a content from front to back.
#[derive(Debug)]
pub struct ContentWriter<'a> {
    place: Place<'a>,
    id: ContentId,
    size: u64,
    position: u64,
    data: Vec<Range<u64>>,
}

impl ContentWriter<'_> {
    /// Leaves a hole of `count` bytes.
    pub fn skip(&mut self, count: u64) {
        self.position += count;
    }

    /// Bytes that still fit into what was promised.
    pub fn room(&self) -> u64 {
        self.size.saturating_sub(self.position)
    }

    /// The finished content, shorter than was promised, with `head` in the place of its first bytes: for what knows its own
    /// size and beginning last. Fails if the spool does.
    pub fn finish_early(mut self, head: &[u8]) -> Result<Content> {
        assert!(head.len() as u64 <= self.position, "a head replaces what was written");
        let Place::Spool(spool) = &self.place else { panic!("what is on a shelf is written once") };
        spool.write_all_at(head, self.id.offset).context("writing to the spool")?;
        self.size = self.position;
        self.finish()
    }

    /// The finished content. Fails if not exactly as many bytes came as were promised.
    pub fn finish(self) -> Result<Content> {
        ensure!(
            self.position == self.size,
            "unexpected end of stream: {} of {} bytes",
            self.position,
            self.size
        );
        let whole = self.size == 0 || (self.data.len() == 1 && self.data[0] == (0..self.size));
        let data = if whole { None } else { Some(self.data.into()) };
        if let Place::Shelf(shelf, check) = self.place {
            shelf.note_check(self.id.offset, &check);
        }
        Ok(Content { id: self.id, size: self.size, data })
    }
}

impl Write for ContentWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.position + bytes.len() as u64;
        if end > self.size {
            return Err(io::Error::other("more bytes than were promised"));
        }
        let offset = self.id.offset + self.position;
        match &mut self.place {
            Place::Spool(spool) => spool.write_all_at(bytes, offset)?,
            Place::Shelf(shelf, check) => {
                shelf.file().write_all_at(bytes, offset)?;
                check.update(bytes);
            }
        }
        match self.data.last_mut() {
            Some(last) if last.end == self.position => last.end = end,
            _ if bytes.is_empty() => {}
            _ => self.data.push(self.position..end),
        }
        self.position = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a content from front to back.
#[derive(Debug)]
pub struct ContentReader<'a> {
    store: &'a ContentStore,
    id: ContentId,
    position: u64,
    size: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        self.store.read_exact_at(self.id, self.position, &mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> ContentStore {
        ContentStore::create_in(&std::env::temp_dir()).unwrap()
    }

    #[test]
    fn contents_come_back_whole() {
        let store = store();
        let one = store.insert_bytes(b"one").unwrap();
        let big: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let two = store.insert(&mut &big[..], big.len() as u64).unwrap();
        assert_eq!(store.bytes(&one).unwrap(), b"one");
        assert_eq!(store.bytes(&two).unwrap(), big);
        assert_eq!(two.data, None);
        let mut read = Vec::new();
        store.reader(&two).read_to_end(&mut read).unwrap();
        assert_eq!(read, big);
    }

    #[test]
    fn holes_read_as_zero_and_are_remembered() {
        let store = store();
        let mut writer = store.writer(10_000);
        writer.skip(4096);
        writer.write_all(b"data").unwrap();
        writer.skip(10_000 - 4100);
        let content = writer.finish().unwrap();
        assert_eq!(content.data_ranges(), std::iter::once(4096..4100).collect::<Vec<_>>());
        let bytes = store.bytes(&content).unwrap();
        assert_eq!(&bytes[4096..4100], b"data");
        assert!(bytes[4100..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_short_stream_is_an_error() {
        assert!(store().insert(&mut &b"abc"[..], 4).is_err());
        assert!(store().writer(1).write_all(b"ab").is_err());
    }
}
