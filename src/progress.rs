//! What the engine announces while it works; somebody else draws it.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A part of the work that takes long enough to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading blobs from a registry.
    Fetch,
    /// Decompressing, verifying and reading layers.
    Unpack,
    /// Hashing objects and building the installed system.
    Deploy,
    /// Deciding what goes where on the disk.
    LayOut,
    /// Hashing and compressing the disk for a medium.
    Compress,
    /// Writing the disk files.
    Write,
    /// Sending blobs to a registry.
    Push,
}

impl Stage {
    /// All stages in the order in which they run.
    pub const ALL: [Self; 7] = [
        Self::Fetch,
        Self::Unpack,
        Self::Deploy,
        Self::LayOut,
        Self::Compress,
        Self::Write,
        Self::Push,
    ];

    /// The stage as a present participle, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetching",
            Self::Unpack => "unpacking",
            Self::Deploy => "deploying",
            Self::LayOut => "laying out",
            Self::Compress => "compressing",
            Self::Write => "writing",
            Self::Push => "pushing",
        }
    }
}

/// What a warning is about, for programs: the words may change, these do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The boot loader is not quite what one would expect.
    BootLoader,
    /// An application image that the system is bound to.
    BoundImage,
    /// Something in `--config`, or what came of it.
    Configuration,
    /// The disk has another size than it was asked to have.
    DiskSize,
    /// Bills of materials and statements.
    Documents,
    /// Something that the image configures.
    ImageConfiguration,
    /// The image is taken from this machine.
    LocalImage,
    /// Something about a medium.
    Medium,
    /// The cache of images cannot be used.
    NoCache,
    /// A file is not entered in a compose's metadata.
    NotEntered,
    /// Layers are packed again, so that digests differ.
    Repacked,
    /// A name without registry was completed.
    ShortName,
    /// Signatures cannot be looked for.
    Signatures,
    /// Nobody answers, and what is in the cache is used.
    StaleImage,
    /// Where the machine looks for updates.
    UpdateSource,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::BootLoader,
        Self::BoundImage,
        Self::Configuration,
        Self::DiskSize,
        Self::Documents,
        Self::ImageConfiguration,
        Self::LocalImage,
        Self::Medium,
        Self::NoCache,
        Self::NotEntered,
        Self::Repacked,
        Self::ShortName,
        Self::Signatures,
        Self::StaleImage,
        Self::UpdateSource,
    ];

    /// The code as programs see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BootLoader => "boot-loader",
            Self::BoundImage => "bound-image",
            Self::Configuration => "configuration",
            Self::DiskSize => "disk-size",
            Self::Documents => "documents",
            Self::ImageConfiguration => "image-configuration",
            Self::LocalImage => "local-image",
            Self::Medium => "medium",
            Self::NoCache => "no-cache",
            Self::NotEntered => "not-entered",
            Self::Repacked => "repacked",
            Self::ShortName => "short-name",
            Self::Signatures => "signatures",
            Self::StaleImage => "stale-image",
            Self::UpdateSource => "update-source",
        }
    }
}

/// Something that the user should know, though the work goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub code: Code,
    /// The words.
    pub message: String,
}

impl Warning {
    /// A warning.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// One announcement.
#[derive(Clone, Debug)]
pub enum Event {
    /// A stage began; `bytes` is its whole size, if known.
    Started { stage: Stage, bytes: Option<u64> },
    /// `bytes` more are done.
    Advanced { stage: Stage, bytes: u64 },
    /// A stage ended, well or not.
    Finished { stage: Stage, took: Duration },
    /// Something the user should know, though the work goes on.
    Warning { code: Code, message: String },
}

type Listener = dyn Fn(Event) + Send + Sync;

/// The engine's end of the line. Cheap to clone; silent by default.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Listener>>);

impl Progress {
    /// Announces to `listener`, which may be called from several threads.
    pub fn to(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Begins a stage, which ends when the guard drops.
    pub fn stage(&self, stage: Stage, bytes: Option<u64>) -> StageGuard {
        self.send(Event::Started { stage, bytes });
        StageGuard { progress: self.clone(), stage, started: Instant::now() }
    }

    /// Tells the user something without stopping.
    pub fn warn(&self, code: Code, message: impl Into<String>) {
        self.send(Event::Warning { code, message: message.into() });
    }

    /// Tells the user several things.
    pub fn warn_all(&self, warnings: &[Warning]) {
        warnings.iter().for_each(|warning| self.warn(warning.code, warning.message.as_str()));
    }

    /// Announces; for listeners that pass on what they hear.
    pub fn send(&self, event: Event) {
        if let Some(listener) = &self.0 {
            listener(event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(..)" } else { "Progress(silent)" })
    }
}

/// A stage under way. Shared by reference between the threads that work on it.
#[derive(Debug)]
pub struct StageGuard {
    progress: Progress,
    stage: Stage,
    started: Instant,
}

impl StageGuard {
    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        self.progress.send(Event::Advanced { stage: self.stage, bytes });
    }

    /// Counts what is read through it.
    pub fn read<'a, R: Read>(&'a self, inner: R) -> Counted<'a, R> {
        Counted { stage: self, inner }
    }
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        self.progress.send(Event::Finished { stage: self.stage, took: self.started.elapsed() });
    }
}

/// A reader that advances its stage.
#[derive(Debug)]
pub struct Counted<'a, R> {
    stage: &'a StageGuard,
    inner: R,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.stage.advance(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_stage_ends_also_when_it_is_left_early() {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let progress = Progress::to(move |event| seen.lock().unwrap().push(format!("{event:?}")));
        let result: io::Result<u64> = (|| {
            let stage = progress.stage(Stage::Unpack, Some(3));
            io::copy(&mut stage.read(&b"abc"[..]), &mut io::sink())?;
            Err(io::Error::other("early"))
        })();
        assert!(result.is_err());
        let events = events.lock().unwrap();
        assert!(events[0].starts_with("Started { stage: Unpack, bytes: Some(3) }"), "{events:?}");
        assert!(events.last().unwrap().starts_with("Finished { stage: Unpack"), "{events:?}");
    }
}
