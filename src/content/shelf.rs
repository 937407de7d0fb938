//! A shelf: a file of contents that outlives the build, and beside it the checksums that were computed of them.
//!
//! ```text
//! LAYER       contents, and what their keeper puts behind them
//! LAYER.sums  magic | whose | (offset, what was hashed before the content, checksum) … | SHA-256 of all that
//! ```
//!
//! Nothing here is believed because of its name. Contents have a checksum each (XXH3, against damage: whoever can write to the cache
//! could as well replace the program), which is looked at before a kept shelf is used; a file of sums that is not what it says is
//! as good as none.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use tempfile::NamedTempFile;
use xxhash_rust::xxh3::Xxh3;

use crate::sha256::{SIZE, Sha256};

/// A SHA-256.
pub type Sum = [u8; SIZE];

const MAGIC: &[u8; 16] = b"bootpress sums 1";

/// Bytes of an entry of the file of sums.
const ENTRY: usize = 8 + 2 * SIZE;

/// Bytes that are read at once to see whether contents are whole.
const PIECE: usize = 1 << 20;

const POISON: &str = "nobody panics holding it";

/// The checksum of a content's data against damage.
#[derive(Default)]
pub(super) struct Check(Xxh3);

impl Check {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shelf {
    file: File,
    end: AtomicU64,
    /// For each content that was written, by offset, its checksum against damage.
    checks: Mutex<BTreeMap<u64, u64>>,
    /// Where sums are kept, and whose they are, once the file has a name.
    kept: OnceLock<(PathBuf, Sum)>,
    sums: Mutex<Sums>,
}

/// What a sum is of: the content at an offset, behind what was hashed before it.
type Key = (u64, Sum);

/// One for each content, so they are kept small.
#[derive(Debug, Default)]
struct Sums {
    /// Sums of earlier builds, in the order of their keys.
    known: Vec<(Key, Sum)>,
    /// Which of them this build needs: no others are kept, so that the file does not grow from build to build.
    needed: Vec<bool>,
    /// Sums of this build.
    fresh: Vec<(Key, Sum)>,
}

impl Sums {
    fn known(known: Vec<(Key, Sum)>) -> Self {
        Self { needed: vec![false; known.len()], known, fresh: Vec::new() }
    }

    /// Sums that are to be kept, in the order of their keys.
    fn kept(&self) -> Vec<(Key, Sum)> {
        let needed = self.known.iter().zip(&self.needed).filter(|(_, needed)| **needed);
        let mut kept: Vec<_> =
            needed.map(|(sum, _)| *sum).chain(self.fresh.iter().copied()).collect();
        kept.sort_unstable();
        kept.dedup();
        kept
    }
}

impl Shelf {
    /// An empty shelf in an empty file.
    pub fn new(file: File) -> Self {
        Self {
            file,
            end: AtomicU64::new(0),
            checks: Mutex::default(),
            kept: OnceLock::new(),
            sums: Mutex::default(),
        }
    }

    /// A shelf of an earlier build. `sums` is the file of its sums, `whose` what it was named with in [`Shelf::name`].
    pub fn kept(file: File, sums: PathBuf, whose: Sum) -> Self {
        let shelf = Self::new(file);
        *shelf.sums.lock().expect(POISON) =
            Sums::known(read_sums(&sums, &whose).unwrap_or_default());
        shelf.name(sums, whose);
        shelf
    }

    /// Says that the file is kept from now on, and with it sums: where, and by what to know that they belong to it.
    pub fn name(&self, sums: PathBuf, whose: Sum) {
        // A second name would say the same.
        let _ = self.kept.set((sums, whose));
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where what was written ends.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(super) fn reserve(&self, room: u64) -> u64 {
        self.end.fetch_add(room, Ordering::Relaxed)
    }

    pub(super) fn note_check(&self, offset: u64, check: &Check) {
        self.checks.lock().expect(POISON).insert(offset, check.0.digest());
    }

    /// The checksum against damage of a content that was written at an offset.
    pub fn check(&self, offset: u64) -> Option<u64> {
        self.checks.lock().expect(POISON).get(&offset).copied()
    }

    /// Whether a content at an offset, with data in some ranges of it, has that checksum.
    pub fn is_whole(&self, offset: u64, data: &[Range<u64>], check: u64) -> io::Result<bool> {
        let longest = data.iter().map(|range| range.end - range.start).max().unwrap_or(0);
        let mut piece = vec![0; PIECE.min(usize::try_from(longest).unwrap_or(PIECE))];
        let mut found = Xxh3::new();
        for range in data {
            let mut position = range.start;
            while position < range.end {
                let left = usize::try_from(range.end - position).unwrap_or(usize::MAX);
                let count = piece.len().min(left);
                match self.file.read_exact_at(&mut piece[..count], offset + position) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(error) => return Err(error),
                }
                found.update(&piece[..count]);
                position += count as u64;
            }
        }
        Ok(found.digest() == check)
    }

    pub(super) fn known(&self, offset: u64, what: &Sum) -> Option<Sum> {
        let mut sums = self.sums.lock().expect(POISON);
        let place = sums.known.binary_search_by_key(&(offset, *what), |(key, _)| *key).ok()?;
        sums.needed[place] = true;
        Some(sums.known[place].1)
    }

    pub(super) fn note(&self, offset: u64, what: Sum, sum: Sum) {
        self.sums.lock().expect(POISON).fresh.push(((offset, what), sum));
    }

    pub(super) fn keep_sums(&self) {
        let Some((path, whose)) = self.kept.get() else { return };
        let sums = self.sums.lock().expect(POISON);
        if !sums.fresh.is_empty()
            && let Err(error) = write_sums(path, whose, &sums.kept())
        {
            tracing::info!("keeping checksums in {}: {error}", path.display());
        }
    }
}

fn write_sums(path: &Path, whose: &Sum, sums: &[(Key, Sum)]) -> io::Result<()> {
    let mut bytes = [&MAGIC[..], whose].concat();
    bytes.reserve(sums.len() * ENTRY + SIZE);
    for ((offset, what), sum) in sums {
        bytes.extend(offset.to_le_bytes());
        bytes.extend(what);
        bytes.extend(sum);
    }
    bytes.extend(Sha256::of(&bytes));
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut draft = NamedTempFile::new_in(directory)?;
    draft.write_all(&bytes)?;
    draft.persist(path).map(drop).map_err(|error| error.error)
}

/// `None`: there is no file of sums, or it is damaged, or belongs to something else.
fn read_sums(path: &Path, whose: &Sum) -> Option<Vec<(Key, Sum)>> {
    let bytes = fs::read(path).ok()?;
    let (body, sum) = bytes.split_last_chunk::<SIZE>()?;
    let entries = body.strip_prefix(MAGIC)?.strip_prefix(whose)?;
    if Sha256::of(body) != *sum || !entries.len().is_multiple_of(ENTRY) {
        tracing::info!("{} is damaged: it is made anew", path.display());
        return None;
    }
    let entry = |bytes: &[u8]| {
        let (offset, sums) = bytes.split_first_chunk()?;
        let (what, sum) = sums.split_first_chunk()?;
        Some(((u64::from_le_bytes(*offset), *what), sum.try_into().ok()?))
    };
    entries.chunks_exact(ENTRY).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentStore;

    fn file(directory: &Path) -> File {
        let path = directory.join("layer");
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    #[test]
    fn content_on_a_shelf_is_read_again_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let store = ContentStore::create_in(directory.path()).unwrap();
        let put_up = store.add_shelf(Shelf::new(file(directory.path()))).unwrap();
        let spooled = store.insert_bytes(b"spooled").unwrap();
        let mut writer = put_up.writer(20_000);
        writer.write_all(b"head").unwrap();
        writer.skip(9996);
        writer.write_all(&[7; 10_000]).unwrap();
        let content = writer.finish().unwrap();
        let (offset, ranges) = (put_up.offset(content.id).unwrap(), content.data_ranges());
        assert_eq!(put_up.offset(spooled.id), None);
        assert_eq!(
            store.bytes(&content).unwrap()[9990..10_004],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7]
        );
        assert_eq!(store.bytes(&spooled).unwrap(), b"spooled");

        let check = put_up.shelf().check(offset).unwrap();
        let later = Shelf::new(file(directory.path()));
        assert!(later.is_whole(offset, &ranges, check).unwrap());
        for (at, byte) in [(0, b'H'), (offset + 19_999, 8)] {
            let there = later.file().metadata().unwrap().len();
            let mut before = [0];
            later.file().read_exact_at(&mut before, at).unwrap();
            later.file().write_all_at(&[byte], at).unwrap();
            assert!(!later.is_whole(offset, &ranges, check).unwrap());
            later.file().write_all_at(&before, at).unwrap();
            assert_eq!(later.file().metadata().unwrap().len(), there);
        }
        assert!(later.is_whole(offset, &ranges, check).unwrap());
        later.file().set_len(19_999).unwrap();
        assert!(!later.is_whole(offset, &ranges, check).unwrap());
    }

    #[test]
    fn sums_are_kept_for_the_file_they_belong_to_unless_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layer.sums");
        let shelf = |whose: Sum| Shelf::kept(file(directory.path()), path.clone(), whose);
        let first = shelf([1; SIZE]);
        assert_eq!(first.known(4096, &[2; SIZE]), None);
        first.note(4096, [2; SIZE], [3; SIZE]);
        first.note(0, [2; SIZE], [4; SIZE]);
        first.keep_sums();
        assert_eq!(shelf([1; SIZE]).known(4096, &[2; SIZE]), Some([3; SIZE]));
        assert_eq!(shelf([1; SIZE]).known(4096, &[9; SIZE]), None);
        assert_eq!(shelf([9; SIZE]).known(4096, &[2; SIZE]), None);

        // What no build needs any more goes when something is added.
        let second = shelf([1; SIZE]);
        assert!(second.known(0, &[2; SIZE]).is_some());
        second.note(8192, [2; SIZE], [5; SIZE]);
        second.keep_sums();
        let third = shelf([1; SIZE]);
        assert_eq!(third.known(4096, &[2; SIZE]), None);
        assert_eq!(third.known(8192, &[2; SIZE]), Some([5; SIZE]));

        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(read_sums(&path, &[1; SIZE]), None, "{at}");
        }
        fs::write(&path, &whole[..whole.len() - ENTRY]).unwrap();
        assert_eq!(read_sums(&path, &[1; SIZE]), None);
    }
}
