//! The first half of a build: an image, found, accepted, unpacked and united, with what it configures.
//!
//! Builds, `inspect --deep` and the updates of chains read images here, so that they see the same.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::bootc::{self, Settings};
use crate::bootloader;
use crate::config::{self, Layout, MediumInImage};
use crate::content::ContentStore;
use crate::oci::{self, Source};
use crate::ostree::{self, Union};
use crate::plan::Known;
use crate::progress::{Code, Progress};
use crate::request::Request;
use crate::selinux::Policy;
use crate::trust::{self, Verdict};

/// An image that has been read.
#[derive(Debug)]
pub struct Loaded {
    /// Where the contents of its files are.
    pub contents: ContentStore,
    /// Where it comes from.
    pub source: Source,
    /// Who vouches for it; `None`: nobody was asked.
    pub verdict: Option<Verdict>,
    /// Its layers, united.
    pub union: Union,
    /// What it configures.
    pub settings: Settings,
    /// When its bootupd was built, in seconds since 1970, if a layer says so.
    pub bootupd_age: Option<i64>,
    /// Its SELinux policy, if it enables one.
    pub policy: Option<Policy>,
    /// The partitions that the configuration or the image lays out; `None`: those of the preset.
    pub layout: Option<Layout>,
    /// What it says about media.
    pub medium: MediumInImage,
}

impl Loaded {
    /// What choices are made from.
    pub fn known(&self) -> Known<'_> {
        Known {
            image: &self.source.image,
            settings: &self.settings,
            layout: self.layout.as_ref(),
            root: &self.union.root,
        }
    }
}

/// Opens the image of a request, asks whether it may be used, and reads all of it.
///
/// Fails if nobody vouches for it though somebody has to, and if the files to write have no place: before anything is unpacked.
pub fn load(request: &Request, progress: &Progress) -> Result<Loaded> {
    let contents = ContentStore::create_in(&request.work_directory)?;
    let wanted = &request.image;
    let opened = oci::open_with(&wanted.access, &wanted.reference, wanted.architecture, progress)?;
    let judge =
        |subject: &_, claims: &dyn Fn(&_) -> _| trust::check(&wanted.trust, subject, claims);
    let (source, verdict) = opened.vouched(judge)?;
    let source = match &wanted.called {
        Some(name) => source.called(name.clone()),
        None => source,
    };
    // Whether there is room for files is known before their names are, which may depend on what is in the image.
    let documents = request.documents.extensions();
    request.output.targets(&wanted.reference, &source.image, None, &documents)?;
    read(request, source, Some(verdict), contents, progress)
}

/// Unpacks an image and reads what it configures.
pub fn read(
    request: &Request,
    source: Source,
    verdict: Option<Verdict>,
    contents: ContentStore,
    progress: &Progress,
) -> Result<Loaded> {
    let image = &source.image;
    let layers = source.unpack(&contents, progress)?;
    let bootupd_age = bootloader::bootupd_age(&layers);
    let union = ostree::unite(image, layers, &contents).context("uniting the layers")?;
    bootc::check(image, &union.root)?;
    let settings = Settings::load(&union.root, &contents, image.architecture, progress)?;
    let policy = Policy::load(&union.root, &contents)?;
    let layout = layout(request, &union, &contents, image.architecture, progress)?;
    let medium = if request.output.medium.is_some() {
        let (medium, warnings) = config::medium_in_image(&union.root, &contents)?;
        warnings.into_iter().for_each(|warning| progress.warn(Code::ImageConfiguration, warning));
        medium
    } else {
        MediumInImage::default()
    };
    Ok(Loaded { contents, source, verdict, union, settings, bootupd_age, policy, layout, medium })
}

/// The layout that counts: the user's, else the image's, else none and the preset's.
fn layout(
    request: &Request,
    union: &Union,
    contents: &ContentStore,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Option<Layout>> {
    let mut layout = request.config.blueprint.layout.clone();
    if layout.is_none() && request.disk.image_layout {
        let (found, warnings) = config::layout_in_image(&union.root, contents, architecture)?;
        warnings.into_iter().for_each(|warning| progress.warn(Code::ImageConfiguration, warning));
        layout = found;
    }
    if let (Some(layout), Some(how)) = (&mut layout, &request.disk.btrfs_compression) {
        layout.compress(how.as_str());
    }
    Ok(layout)
}

/// A label of SELinux, without the final NUL; `None`: the policy has none.
type Label = Option<Arc<[u8]>>;

/// Gives labels by the policy of an image.
pub fn labels(policy: Option<&Policy>) -> Option<impl Fn(&str, u32) -> Result<Label> + Sync> {
    policy.map(|policy| |path: &str, mode| policy.label(path, mode))
}
