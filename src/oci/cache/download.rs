//! Blobs through the cache: what is not there is fetched into it, several at a time, and can be read while it comes.
//!
//! ```text
//! registry ──► worker: hash ──► ingest/<hex> ──(digest right)──► blobs/sha256/<hex>
//!                                   └──► Follower: an ordinary reader that waits for what has not come yet
//! ```

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::{Cache, InUse, Place};
use crate::error::corrupt;
use crate::oci::Blobs;
use crate::oci::digest::Digest;
use crate::oci::manifest::Document;
use crate::oci::remote::Connection;
use crate::progress::StageGuard;
use crate::sha256::Sha256;

/// Blobs that are fetched at once: a registry often gives each connection only a part of what the line can carry.
const CONNECTIONS: usize = 6;

/// Bytes that are hashed and written at once.
const PIECE: usize = 128 << 10;

/// How often a bar moves.
const TICK: Duration = Duration::from_millis(50);

/// What is locked is consistent whenever it is unlocked, and no thread panics with the lock.
const POISON: &str = "no thread panics with the lock";

/// An image's blobs, from the cache if they are there.
pub(in crate::oci) struct Cached {
    shared: Arc<Shared>,
    _in_use: InUse,
}

struct Shared {
    cache: Cache,
    connection: Arc<Connection>,
    /// Full name and first document, to be noted when the image is complete.
    image: (String, Document),
    downloads: Mutex<HashMap<Digest, Arc<Download>>>,
    stop: AtomicBool,
}

/// A blob on its way.
#[derive(Default)]
struct Download {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes that can be read.
    written: u64,
    /// How many of them were here before we came.
    recalled: u64,
    end: Option<End>,
}

#[derive(Clone)]
enum End {
    /// All bytes are there, and right.
    Whole,
    /// All bytes are there, and wrong; whoever reads them finds the same.
    Wrong(String),
    /// The rest does not come.
    Failed(String),
}

impl Cached {
    /// The blobs of an image whose first document is known.
    pub(in crate::oci) fn new(
        cache: Cache,
        connection: Arc<Connection>,
        name: String,
        top: Document,
    ) -> Result<Self> {
        let in_use = cache.enter()?;
        cache.insert(&top.digest, &top.bytes)?;
        let shared = Shared {
            cache,
            connection,
            image: (name, top),
            downloads: Mutex::default(),
            stop: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), _in_use: in_use })
    }

    /// Sees to it that blobs are in the cache and are what they should be. Returns how many bytes the registry had to send.
    pub(in crate::oci) fn fetch(&self, blobs: &[(Digest, u64)], stage: &StageGuard) -> Result<u64> {
        let mut sent = 0;
        // What is damaged here is found in the first round, and comes anew in the second.
        for again in [true, false] {
            let downloads = self.start(blobs, true);
            let mut shown = 0;
            for ((digest, _), download) in &downloads {
                let mut state = download.lock();
                while state.end.is_none() {
                    state = download.changed.wait_timeout(state, TICK).expect(POISON).0;
                    drop(state);
                    let written =
                        downloads.iter().map(|(_, download)| download.lock().written).sum::<u64>();
                    stage.advance(written.saturating_sub(shown));
                    shown = shown.max(written);
                    state = download.lock();
                }
                match state.end.clone() {
                    Some(End::Failed(reason)) => {
                        return Err(anyhow!(reason).context(format!("fetching {digest}")));
                    }
                    Some(End::Wrong(reason)) if !again || state.recalled == 0 => {
                        return Err(corrupt(digest.to_string(), reason));
                    }
                    _ => {}
                }
            }
            let written =
                downloads.iter().map(|(_, download)| download.lock().written).sum::<u64>();
            stage.advance(written.saturating_sub(shown));
            let is_wrong = |download: &Download| matches!(download.lock().end, Some(End::Wrong(_)));
            let fetched = |download: &Download| {
                let state = download.lock();
                state.written - state.recalled
            };
            sent += downloads.iter().map(|(_, download)| fetched(download)).sum::<u64>();
            let wrong: Vec<Digest> = downloads
                .iter()
                .filter(|(_, download)| is_wrong(download))
                .map(|((digest, _), _)| *digest)
                .collect();
            if wrong.is_empty() {
                break;
            }
            self.shared.downloads.lock().expect(POISON).retain(|digest, _| !wrong.contains(digest));
        }
        self.note();
        Ok(sent)
    }

    fn note(&self) {
        let (name, top) = &self.shared.image;
        if let Err(error) = self.shared.cache.record(name, top) {
            // The image is there, only its name is not; nothing of a build depends on it.
            tracing::warn!("noting {name} in the cache: {error:#}");
        }
    }

    /// Begins to fetch what is not there. With `verify`, what is there is read, too.
    fn start(&self, blobs: &[(Digest, u64)], verify: bool) -> Vec<((Digest, u64), Arc<Download>)> {
        let mut downloads = self.shared.downloads.lock().expect(POISON);
        let mut queue = VecDeque::new();
        let mut all = Vec::new();
        for &(digest, size) in blobs {
            let known = downloads.get(&digest).cloned();
            if known.is_none() && !verify && self.shared.cache.blob(&digest, Some(size)).is_some() {
                continue;
            }
            let download = known.unwrap_or_else(|| {
                let download = Arc::new(Download::default());
                downloads.insert(digest, Arc::clone(&download));
                queue.push_back((digest, size, Arc::clone(&download)));
                download
            });
            all.push(((digest, size), download));
        }
        drop(downloads);
        let workers = queue.len().min(CONNECTIONS);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..workers {
            let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(&queue));
            std::thread::spawn(move || {
                loop {
                    let next = queue.lock().expect(POISON).pop_front();
                    let Some((digest, size, download)) = next else { return };
                    let end = match shared.bring(&digest, size, &download, verify) {
                        Ok(end) => end,
                        Err(error) => End::Failed(format!("{error:#}")),
                    };
                    download.update(|state| state.end = Some(end));
                }
            });
        }
        all
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Blobs for Cached {
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        let cache = &self.shared.cache;
        if let Some(document) = cache.document(digest) {
            return Ok(Box::new(Cursor::new(document.bytes)));
        }
        let mut bytes = Vec::new();
        self.shared.connection.document(digest, size)?.read_to_end(&mut bytes)?;
        if Digest::of(&bytes) == *digest {
            cache.insert(digest, &bytes)?;
        }
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        let is_coming = self.shared.downloads.lock().expect(POISON).contains_key(digest);
        if let Some(file) = self.shared.cache.blob(digest, Some(size)).filter(|_| !is_coming) {
            return Ok(Box::new(file));
        }
        match self.start(&[(*digest, size)], false).pop() {
            Some((_, download)) => Ok(Box::new(Follower { download, position: 0 })),
            // It came meanwhile, by somebody else.
            None => match self.shared.cache.blob(digest, Some(size)) {
                Some(file) => Ok(Box::new(file)),
                None => Err(anyhow!("{digest} vanished from the cache")),
            },
        }
    }

    fn announce(&self, blobs: &[(Digest, u64)]) {
        self.start(blobs, false);
    }

    fn forget(&self, digest: &Digest) -> bool {
        let mut downloads = self.shared.downloads.lock().expect(POISON);
        let recalled = downloads.remove(digest).is_none_or(|download| download.lock().recalled > 0);
        self.shared.cache.forget(digest);
        recalled
    }

    fn complete(&self) {
        self.note();
    }
}

impl Shared {
    /// Brings a blob here. An error is about the network or the disk.
    fn bring(&self, digest: &Digest, size: u64, download: &Download, verify: bool) -> Result<End> {
        match self.cache.place(digest, size)? {
            Place::There(file) => {
                let right = !verify || hash(&file, size)?.1 == *digest;
                download.update(|state| {
                    (state.file, state.written, state.recalled) =
                        (Some(Arc::new(file)), size, size);
                });
                if !right {
                    self.cache.forget(digest);
                    return Ok(End::Wrong("its bytes in the cache are damaged".to_owned()));
                }
                Ok(End::Whole)
            }
            Place::Ours(file) => {
                let file = Arc::new(file);
                let end = self.fill(digest, size, download, &file);
                // Readers keep it open, but nobody has to wait for them.
                let _ = file.unlock();
                end
            }
        }
    }

    /// Fetches into a file what is not in it yet.
    fn fill(
        &self,
        digest: &Digest,
        size: u64,
        download: &Download,
        file: &Arc<File>,
    ) -> Result<End> {
        let context = || {
            format!(
                "writing to the cache {}; --no-cache does without",
                self.cache.directory.display()
            )
        };
        let mut have = file.metadata().with_context(context)?.len();
        if have > size {
            file.set_len(0).with_context(context)?;
            have = 0;
        }
        let (mut hashed, _) = hash(file, have)?;
        download.update(|state| {
            (state.file, state.written, state.recalled) = (Some(Arc::clone(file)), have, have);
        });
        let mut written = have;
        if have < size {
            let mut blob = self.connection.registry()?.blob_from(digest, size, have);
            let mut piece = vec![0; PIECE];
            // More than there should be is enough to see that it is wrong.
            while written <= size {
                if self.stop.load(Ordering::Relaxed) {
                    bail!("stopped");
                }
                let count = blob.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                hashed.update(&piece[..count]);
                (&**file).write_all(&piece[..count]).with_context(context)?;
                written += count as u64;
                download.update(|state| state.written = written);
            }
        }
        let found = Digest::from(hashed);
        if written == size && found == *digest {
            self.cache.commit(digest).with_context(context)?;
            return Ok(End::Whole);
        }
        // Nothing of it is worth keeping, but it may still be read.
        self.cache.abandon(digest);
        Ok(End::Wrong(if written == size {
            format!("its bytes have the digest {found}")
        } else {
            format!("it has not the {size} bytes of its descriptor")
        }))
    }
}

/// Hashes the first bytes of a file, and leaves its position behind them.
fn hash(file: &File, size: u64) -> Result<(Sha256, Digest)> {
    let mut state = Sha256::new();
    let mut left = file.take(size);
    let mut piece = vec![0; PIECE];
    loop {
        let count = left.read(&mut piece).context("reading the cache")?;
        if count == 0 {
            break;
        }
        state.update(&piece[..count]);
    }
    let found = Digest::from(state.clone());
    Ok((state, found))
}

impl Download {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISON)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Reads a blob while it comes.
struct Follower {
    download: Arc<Download>,
    position: u64,
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.download.lock();
        loop {
            if let (Some(file), true) = (&state.file, self.position < state.written) {
                let left = usize::try_from(state.written - self.position).unwrap_or(usize::MAX);
                let file = Arc::clone(file);
                drop(state);
                let count = buffer.len().min(left);
                let read = file.read_at(&mut buffer[..count], self.position)?;
                self.position += read as u64;
                return Ok(read);
            }
            match &state.end {
                Some(End::Whole | End::Wrong(_)) => return Ok(0),
                Some(End::Failed(reason)) => return Err(io::Error::other(reason.clone())),
                None => state = self.download.changed.wait(state).expect(POISON),
            }
        }
    }
}
