//! Layers as they were unpacked, kept in the cache for later builds: found by diff ID, neither decompressed nor hashed again.
//!
//! ```text
//! unpacked/<diff ID>        | contents at multiples of 4096 … | index | trailer |
//! unpacked/<diff ID>.sums   checksums of ostree's objects, which depend on labels, too (`content/shelf.rs`)
//!
//! index      bytes of the archive, bytes that its names cost, entries in archive order
//! trailer    magic | offset and size of the index | SHA-256 of the index
//! ```
//!
//! A layer gets here when its diff ID has proved right. Nothing is synced: what a power cut or a bad disk damages is noticed by
//! the index's SHA-256 and by a checksum of each content, before anything of it is used, and then the layer is unpacked anew.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;
use tempfile::NamedTempFile;

use super::cache::{Cache, InUse};
use super::digest::Digest;
use crate::content::{Content, ContentStore, PutUp, Shelf, Sum};
use crate::layer::{Entry, EntryKind};
use crate::limits::{Budget, KEPT_LAYERS};
use crate::sha256::{SIZE, Sha256};
use crate::tree::{Metadata, Xattrs};

/// Below the cache's directory.
pub(super) const DIRECTORY: &str = "unpacked";

/// What files of checksums are called besides.
const SUMS: &str = ".sums";

/// With the version of the layout; another one is not looked at.
const MAGIC: &[u8; 16] = b"bootpress layer1";

const TRAILER: usize = MAGIC.len() + 2 * 8 + SIZE;

/// Bytes of metadata of a layer that is kept, at most: its index is in memory as a whole. A whole distribution has 60 MB.
const LARGEST_METADATA: u64 = 96 << 20;

/// Room that has to be free for a compressed layer: so many times its size, and [`FREE`] bytes besides: builds need the room more.
const GROWTH: u64 = 8;
const FREE: u64 = 2 << 30;

/// The layers of a cache.
pub(super) struct Kept {
    directory: PathBuf,
    _in_use: InUse,
}

impl Kept {
    /// The layers of a cache; nobody removes them until it is dropped.
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let cache = Cache::open(cache)?;
        Ok(Self { directory: cache.directory().join(DIRECTORY), _in_use: cache.enter()? })
    }

    /// Whether a layer may be here; [`Kept::recall`] knows.
    pub(super) fn has(&self, diff_id: &Digest) -> bool {
        self.path(diff_id).exists()
    }

    /// The entries of a layer, their contents in the store; `None`: it is not here, or damaged. An error is the budget's.
    pub(super) fn recall(
        &self,
        diff_id: &Digest,
        contents: &ContentStore,
        budget: &Budget,
    ) -> Result<Option<Vec<Entry>>> {
        let Ok(file) = File::open(self.path(diff_id)) else { return Ok(None) };
        let Some((whose, index)) = index(&file) else {
            tracing::info!("the kept layer {diff_id} is damaged: it is unpacked anew");
            return Ok(None);
        };
        // What is removed first is what was not used for the longest time; nothing else depends on it.
        let _ = file.set_modified(SystemTime::now());
        let shelf = Shelf::kept(file, self.sums(diff_id), whose);
        let Some(put_up) = contents.add_shelf(shelf) else { return Ok(None) };
        let whole = read(&index, &put_up).filter(|layer| layer.is_whole(put_up.shelf()));
        let Some(layer) = whole else {
            tracing::info!("the kept layer {diff_id} is damaged: it is unpacked anew");
            return Ok(None);
        };
        layer.spend(budget)?;
        Ok(Some(layer.entries))
    }

    /// A place for a layer that is unpacked from so many bytes; `None`: none is kept.
    pub(super) fn begin(&self, size: u64, contents: &ContentStore) -> Option<Draft> {
        let free = statvfs(&self.directory).ok()?;
        let free = free.blocks_available().saturating_mul(free.fragment_size());
        if free < size.saturating_mul(GROWTH).saturating_add(FREE) {
            tracing::info!("too little room in {}: a layer is not kept", self.directory.display());
            return None;
        }
        let file = NamedTempFile::new_in(&self.directory).ok()?;
        let shelf = Shelf::new(file.reopen().ok()?);
        Some(Draft { file, put_up: contents.add_shelf(shelf)? })
    }

    /// Keeps a layer that was unpacked, and is what its diff ID says. It is no error if it cannot be kept.
    pub(super) fn keep(&self, diff_id: &Digest, draft: Draft, layer: &[Entry], costs: Costs) {
        if costs.metadata > LARGEST_METADATA {
            tracing::info!("the layer {diff_id} has too many names to be kept");
        } else if let Err(error) = self.try_keep(diff_id, draft, layer, costs) {
            tracing::info!("keeping the layer {diff_id}: {error}");
        }
    }

    fn try_keep(
        &self,
        diff_id: &Digest,
        draft: Draft,
        layer: &[Entry],
        costs: Costs,
    ) -> io::Result<()> {
        let shelf = draft.put_up.shelf();
        let mut index = write(layer, costs, &draft.put_up);
        let (whose, size) = (Sha256::of(&index), index.len() as u64);
        index.extend(MAGIC);
        index.extend(shelf.end().to_le_bytes());
        index.extend(size.to_le_bytes());
        index.extend(whose);
        shelf.file().write_all_at(&index, shelf.end())?;
        draft.file.persist(self.path(diff_id)).map_err(|error| error.error)?;
        shelf.name(self.sums(diff_id), whose);
        Ok(())
    }

    /// Removes layers, those first that were not used for the longest time, until they have [`KEPT_LAYERS`] bytes at most.
    pub(super) fn trim(&self) {
        let trimmed = layers(&self.directory).and_then(|layers| {
            let mut left: u64 = layers.iter().map(|layer| layer.size).sum();
            for layer in layers {
                if left <= KEPT_LAYERS {
                    break;
                }
                layer.remove()?;
                left -= layer.size;
            }
            Ok(())
        });
        if let Err(error) = trimmed {
            tracing::info!("trimming {}: {error:#}", self.directory.display());
        }
    }

    fn path(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join(diff_id.hex())
    }

    fn sums(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join(diff_id.hex() + SUMS)
    }
}

/// A layer that is being unpacked.
pub(super) struct Draft {
    file: NamedTempFile,
    put_up: PutUp,
}

impl Draft {
    /// Where its contents go.
    pub(super) fn put_up(&self) -> &PutUp {
        &self.put_up
    }
}

/// What a layer takes of a budget besides its contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Costs {
    /// Bytes of its archive.
    pub(super) archive: u64,
    /// Bytes that its names and attributes take in memory.
    pub(super) metadata: u64,
}

/// A layer that lies in a cache.
pub(super) struct KeptFile {
    path: PathBuf,
    /// Bytes on the host, those of its checksums included.
    pub(super) size: u64,
    used: i64,
}

impl KeptFile {
    /// Removes it.
    pub(super) fn remove(&self) -> Result<()> {
        let mut sums = self.path.clone().into_os_string();
        sums.push(SUMS);
        for path in [Path::new(&sums), &self.path] {
            match fs::remove_file(path) {
                // Somebody else removes things, too.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The layers in a directory, those first that were not used for the longest time.
pub(super) fn layers(directory: &Path) -> Result<Vec<KeptFile>> {
    let mut layers = Vec::new();
    let context = || format!("reading {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let is_layer = path.file_name().and_then(|name| name.to_str()).is_some_and(is_hex);
        if let (true, Ok(facts)) = (is_layer, fs::metadata(&path)) {
            // st_blocks counts 512 bytes (stat(2)); contents may have holes.
            let bytes = |facts: &fs::Metadata| facts.blocks() * 512;
            let sums = fs::metadata(path.with_extension(&SUMS[1..])).map_or(0, |sums| bytes(&sums));
            layers.push(KeptFile { size: bytes(&facts) + sums, used: facts.mtime(), path });
        }
    }
    layers.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    Ok(layers)
}

/// Files in a directory that are no layers and belong to none: what broken builds left.
pub(super) fn leavings(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut leavings = Vec::new();
    let context = || format!("reading {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let layer = name.strip_suffix(SUMS).unwrap_or(name);
        let belongs = is_hex(layer) && directory.join(layer).exists();
        if let (false, Ok(facts)) = (belongs, fs::metadata(&path)) {
            leavings.push((path, facts.len()));
        }
    }
    Ok(leavings)
}

fn is_hex(name: &str) -> bool {
    name.len() == 2 * SIZE && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The SHA-256 of a layer's index, and the index; `None`: damaged.
fn index(file: &File) -> Option<(Sum, Vec<u8>)> {
    let size = file.metadata().ok()?.len();
    let mut trailer = [0; TRAILER];
    let at = size.checked_sub(TRAILER as u64)?;
    file.read_exact_at(&mut trailer, at).ok()?;
    let mut trailer = Fields(&trailer);
    if trailer.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let (offset, size) = (trailer.u64()?, trailer.u64()?);
    let sum: Sum = trailer.take(SIZE)?.try_into().ok()?;
    if offset.checked_add(size)? != at {
        return None;
    }
    let mut index = vec![0; usize::try_from(size).ok()?];
    file.read_exact_at(&mut index, offset).ok()?;
    (Sha256::of(&index) == sum).then_some((sum, index))
}

/// A layer as its index tells it.
struct Read {
    entries: Vec<Entry>,
    costs: Costs,
    /// For each content, its offset and its checksum against damage.
    checks: Vec<(Content, u64, u64)>,
}

impl Read {
    fn is_whole(&self, shelf: &Shelf) -> bool {
        self.checks.iter().all(|(content, offset, check)| {
            shelf.is_whole(*offset, &content.data_ranges(), *check).unwrap_or(false)
        })
    }

    /// Takes from a budget what unpacking the layer would have taken.
    fn spend(&self, budget: &Budget) -> Result<()> {
        if !budget.take_archive(self.costs.archive) {
            return Err(budget.too_large());
        }
        let mut metadata = self.costs.metadata;
        for entry in &self.entries {
            budget.take_entry(std::mem::take(&mut metadata))?;
            if let EntryKind::File(content) = &entry.kind
                && content.size > 0
            {
                budget.take_content(content.size)?;
            }
        }
        Ok(())
    }
}

/// The kinds of entries, as the index numbers them.
const DIRECTORY_ENTRY: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const HARD_LINK: u8 = 3;
const CHARACTER_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const EMPTY_FILE: u8 = 7;

/// The number of ranges that stands for all of a content.
const ALL: u64 = u64::MAX;

fn write(layer: &[Entry], costs: Costs, put_up: &PutUp) -> Vec<u8> {
    let mut index = Vec::new();
    let bytes = |index: &mut Vec<u8>, bytes: &[u8]| {
        index.extend((bytes.len() as u64).to_le_bytes());
        index.extend(bytes);
    };
    let numbers = |index: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|number| index.extend(number.to_le_bytes()));
    };
    numbers(&mut index, &[costs.archive, costs.metadata, layer.len() as u64]);
    for Entry { path, metadata, nanoseconds, kind } in layer {
        bytes(&mut index, path);
        let Metadata { mode, uid, gid, mtime, xattrs, immutable: _ } = metadata;
        numbers(&mut index, &[(*mode).into(), (*uid).into(), (*gid).into(), mtime.cast_unsigned()]);
        numbers(&mut index, &[(*nanoseconds).into(), xattrs.iter().count() as u64]);
        for (name, value) in xattrs.iter() {
            bytes(&mut index, name);
            bytes(&mut index, value);
        }
        match kind {
            EntryKind::Directory => index.push(DIRECTORY_ENTRY),
            EntryKind::File(content) if content.size == 0 => index.push(EMPTY_FILE),
            EntryKind::File(content) => {
                index.push(FILE);
                let offset = put_up.offset(content.id).expect("all contents are on the shelf");
                let check = put_up.shelf().check(offset).expect("the shelf wrote them");
                numbers(&mut index, &[content.size, offset, check]);
                match &content.data {
                    None => numbers(&mut index, &[ALL]),
                    Some(ranges) => {
                        numbers(&mut index, &[ranges.len() as u64]);
                        ranges
                            .iter()
                            .for_each(|range| numbers(&mut index, &[range.start, range.end]));
                    }
                }
            }
            EntryKind::Symlink(target) => {
                index.push(SYMLINK);
                bytes(&mut index, target);
            }
            EntryKind::HardLink(target) => {
                index.push(HARD_LINK);
                bytes(&mut index, target);
            }
            EntryKind::CharacterDevice(major, minor) => {
                index.push(CHARACTER_DEVICE);
                numbers(&mut index, &[(*major).into(), (*minor).into()]);
            }
            EntryKind::BlockDevice(major, minor) => {
                index.push(BLOCK_DEVICE);
                numbers(&mut index, &[(*major).into(), (*minor).into()]);
            }
            EntryKind::Fifo => index.push(FIFO),
        }
    }
    index
}

/// Reads what [`write`] writes; `None`: it is something else.
fn read(index: &[u8], put_up: &PutUp) -> Option<Read> {
    let mut fields = Fields(index);
    let costs = Costs { archive: fields.u64()?, metadata: fields.u64()? };
    let count = usize::try_from(fields.u64()?).ok()?;
    // An entry has more bytes than that, so the number cannot ask for much.
    let mut entries = Vec::with_capacity(count.min(index.len() / 40));
    let mut checks = Vec::new();
    // Neighbours often have the same attributes: they share them.
    let mut last = Xattrs::NONE;
    for _ in 0..count {
        let path = fields.bytes()?.into();
        let mut metadata = Metadata {
            mode: u16::try_from(fields.u64()?).ok()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
            mtime: fields.u64()?.cast_signed(),
            ..Metadata::root(0)
        };
        let nanoseconds = fields.u32()?;
        let mut xattrs = Xattrs::NONE;
        for _ in 0..fields.u64()? {
            let name = fields.bytes()?;
            xattrs.set(name, fields.bytes()?);
        }
        if xattrs != last {
            last = xattrs;
        }
        metadata.xattrs = last.clone();
        let kind = match fields.take(1)?[0] {
            DIRECTORY_ENTRY => EntryKind::Directory,
            EMPTY_FILE => EntryKind::File(Content::EMPTY),
            FILE => {
                let (size, offset, check) = (fields.u64()?, fields.u64()?, fields.u64()?);
                let data = fields.ranges(size)?;
                let content = Content { id: put_up.id(offset), size, data };
                checks.push((content.clone(), offset, check));
                EntryKind::File(content)
            }
            SYMLINK => EntryKind::Symlink(fields.bytes()?.into()),
            HARD_LINK => EntryKind::HardLink(fields.bytes()?.into()),
            CHARACTER_DEVICE => EntryKind::CharacterDevice(fields.u32()?, fields.u32()?),
            BLOCK_DEVICE => EntryKind::BlockDevice(fields.u32()?, fields.u32()?),
            FIFO => EntryKind::Fifo,
            _ => return None,
        };
        entries.push(Entry { path, metadata, nanoseconds, kind });
    }
    fields.0.is_empty().then_some(Read { entries, costs, checks })
}

/// What is left of an index.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::try_from(self.u64()?).ok()?;
        self.take(count)
    }

    /// The ranges of a content of `size` bytes that hold data.
    fn ranges(&mut self, size: u64) -> Option<Option<Arc<[Range<u64>]>>> {
        let count = self.u64()?;
        if count == ALL {
            return Some(None);
        }
        let mut ranges = Vec::new();
        let mut end = 0;
        for _ in 0..count {
            let range = self.u64()?..self.u64()?;
            if range.start < end || range.end <= range.start || range.end > size {
                return None;
            }
            end = range.end;
            ranges.push(range);
        }
        Some(Some(ranges.into()))
    }
}

#[cfg(test)]
mod tests;
