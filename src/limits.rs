//! How much one image may take of the machine: one budget, spent by everything that reads what strangers made.
//!
//! Without it, a few kilobytes could ask for terabytes: holes, runs of one byte, names. Each limit is several times what the
//! largest images known in 2026 need, and each has a flag that raises it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::error::unsupported;

/// Bytes of file contents that no build goes beyond: the spool has an address for each byte, and ext4 takes no file beyond 16 TiB.
pub const LARGEST_IMAGE: u64 = 8 << 40;

/// Bytes of unpacked layers that the cache keeps for later builds, at most: a few distributions with some versions of each.
pub const KEPT_LAYERS: u64 = 20 << 30;

/// The limits of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of the images, holes included; as many may come out of decompressors. Images with AI models have 30 GiB.
    pub image_size: u64,
    /// Bytes that names, link targets, attributes and maps of sparse files take in memory; a whole distribution has 60 MB.
    pub metadata: u64,
    /// Entries in all layers; a whole distribution has 300,000.
    pub files: u64,
    /// Layers of one image; a base image in chunks has 65, and container storage takes 500.
    pub layers: u64,
    /// How long a registry may take for [`Limits::PACE`] bytes.
    pub patience: Duration,
}

impl Limits {
    /// The limits when nobody says otherwise.
    pub const USUAL: Self = Self {
        image_size: 128 << 30,
        metadata: 512 << 20,
        files: 4 << 20,
        layers: 1024,
        patience: Duration::from_secs(120),
    };

    /// Bytes that have to come within [`Limits::patience`], or the end of what was asked for: 1 KiB a second, as a modem did.
    pub const PACE: u64 = 120 << 10;
}

impl Default for Limits {
    fn default() -> Self {
        Self::USUAL
    }
}

/// What is left of the limits. Clones spend from the same budget.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Accounts>);

#[derive(Debug)]
struct Accounts {
    limits: Limits,
    contents: AtomicU64,
    archives: AtomicU64,
    metadata: AtomicU64,
    files: AtomicU64,
}

impl Budget {
    /// A budget of which nothing is spent.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { image_size: limits.image_size.min(LARGEST_IMAGE), ..limits };
        Self(Arc::new(Accounts {
            contents: limits.image_size.into(),
            // Headers and padding of an archive come to at most 3 blocks of 512 bytes an entry that is not a file.
            archives: limits.image_size.saturating_add(limits.files.saturating_mul(1536)).into(),
            metadata: limits.metadata.into(),
            files: limits.files.into(),
            limits,
        }))
    }

    /// The limits that it began with.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Takes a file of `size` bytes, holes included. `Unsupported`: that is more than is left.
    pub fn take_content(&self, size: u64) -> Result<()> {
        // The store begins each content at a new page.
        let size = size.saturating_add(4096);
        spend(&self.0.contents, size).then_some(()).ok_or_else(|| self.too_large())
    }

    /// Takes bytes that came out of a decompressor; false: that is more than is left, which is [`Budget::too_large`].
    pub fn take_archive(&self, size: u64) -> bool {
        spend(&self.0.archives, size)
    }

    /// Takes an entry whose name and attributes take so many bytes in memory. `Unsupported`: that is more than is left.
    pub fn take_entry(&self, metadata: u64) -> Result<()> {
        if !spend(&self.0.files, 1) {
            let what = format!("the layers have more than {} entries", self.0.limits.files);
            return Err(unsupported(what, Some("raise the limit with --max-files")));
        }
        if !spend(&self.0.metadata, metadata) {
            let limit = Size(self.0.limits.metadata);
            let what = format!("names and attributes of the image's files take more than {limit}");
            return Err(unsupported(what, Some("raise the limit with --max-metadata")));
        }
        Ok(())
    }

    /// Checks a number of layers and their sizes as stored, before any of them is read.
    pub fn check_layers(&self, sizes: impl Iterator<Item = u64>) -> Result<()> {
        let (mut count, mut total) = (0_u64, 0_u64);
        for size in sizes {
            count += 1;
            total = total.saturating_add(size);
        }
        if count > self.0.limits.layers {
            let what =
                format!("the image has {count} layers; the limit is {}", self.0.limits.layers);
            return Err(unsupported(what, Some("raise the limit with --max-layers")));
        }
        if total > self.0.limits.image_size { Err(self.too_large()) } else { Ok(()) }
    }

    /// The error for an image that is larger than it may be.
    pub fn too_large(&self) -> anyhow::Error {
        let what = format!("the image is larger than {}", Size(self.0.limits.image_size));
        unsupported(what, Some("raise the limit with --max-image-size"))
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::USUAL)
    }
}

/// Takes from an account, unless it has less.
fn spend(account: &AtomicU64, amount: u64) -> bool {
    let take = |left: u64| left.checked_sub(amount);
    account.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
}

/// Bytes in the largest unit that says them exactly.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let exact = |bits: u32| self.0 > 0 && self.0.is_multiple_of(1 << bits);
        match units.into_iter().find(|(bits, _)| exact(*bits)) {
            Some((bits, unit)) => write!(f, "{} {unit}", self.0 >> bits),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Unsupported;

    #[test]
    fn budget_shared_by_clones_is_spent_once() {
        let limits = Limits { image_size: 1 << 20, metadata: 100, files: 2, ..Limits::USUAL };
        let budget = Budget::new(limits);
        let other = budget.clone();
        budget.take_content(600 << 10).unwrap();
        let error = other.take_content(600 << 10).unwrap_err();
        assert_eq!(error.to_string(), "the image is larger than 1 MiB");
        budget.take_entry(60).unwrap();
        assert!(other.take_entry(60).unwrap_err().to_string().contains("more than 100 bytes"));
        assert!(other.take_entry(0).unwrap_err().to_string().contains("2 entries"));
        assert!(budget.take_archive(1 << 20) && !budget.take_archive(1 << 20));
        assert!(budget.take_content(u64::MAX).unwrap_err().is::<Unsupported>());
    }

    #[test]
    fn errors_name_the_flag_that_raises_the_limit() {
        let budget = Budget::new(Limits { layers: 2, ..Limits::USUAL });
        budget.check_layers([1, 2].into_iter()).unwrap();
        let hint = |error: anyhow::Error| error.downcast::<Unsupported>().unwrap().hint.unwrap();
        let error = budget.check_layers([1, 2, 3].into_iter()).unwrap_err();
        assert_eq!(hint(error), "raise the limit with --max-layers");
        let error = budget.check_layers([u64::MAX, u64::MAX].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "the image is larger than 128 GiB");
        assert_eq!(hint(error), "raise the limit with --max-image-size");
    }
}
