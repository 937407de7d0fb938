//! The first half of a build: an image, found, accepted, unpacked and united, with what it configures.
//!
//! Builds, `inspect --deep` and the updates of chains read images here, so that they see the same.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::architecture::Architecture;
use crate::bootc::{self, Backend, BackendChoice, Settings};
use crate::bootloader;
use crate::composefs::{self, Uki};
use crate::config::{self, Layout, MediumInImage};
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::iso;
use crate::layer::Layer;
use crate::oci::{self, Source};
use crate::ostree;
use crate::plan::Known;
use crate::progress::{Code, Progress};
use crate::request::Request;
use crate::selinux::Policy;
use crate::tree::Tree;
use crate::trust::{self, Verdict};

/// Layers, united by the rules of a backend.
#[derive(Debug)]
pub enum United {
    /// By ostree's.
    Ostree(Box<ostree::Union>),
    /// By those of composefs-rs.
    Composefs {
        /// What comes of them.
        union: composefs::Union,
        /// The layers themselves, whose archives go into the repository.
        layers: Vec<Layer>,
    },
}

impl United {
    /// The merged tree.
    pub fn root(&self) -> &Tree {
        match self {
            Self::Ostree(union) => &union.root,
            Self::Composefs { union, .. } => &union.root,
        }
    }
}

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
    pub union: United,
    /// The unified kernel image that it boots, if it does.
    pub unified: Option<Uki>,
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
            root: self.union.root(),
            unified: self.unified.as_ref(),
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
    let backend = BackendChoice::of(&layers, request.system.backend)?;
    let union = match backend.backend {
        Backend::Ostree => {
            let union = ostree::unite(image, layers, &contents).context("uniting the layers")?;
            United::Ostree(Box::new(union))
        }
        Backend::Composefs => United::Composefs { union: composefs::unite(&layers)?, layers },
    };
    let root = union.root();
    bootc::check(image, root, &backend)?;
    let unified = unified(&backend, root, &contents)?;
    let settings = Settings::load(root, &contents, image.architecture, backend, progress)?;
    if settings.backend.backend == Backend::Composefs && unified.is_none() {
        check_initramfs(&settings, root, &contents)?;
    }
    let policy = Policy::load(root, &contents)?;
    let layout = layout(request, root, &contents, image.architecture, progress)?;
    let medium = if request.output.medium.is_some() {
        let (medium, warnings) = config::medium_in_image(root, &contents)?;
        warnings.into_iter().for_each(|warning| progress.warn(Code::ImageConfiguration, warning));
        medium
    } else {
        MediumInImage::default()
    };
    Ok(Loaded {
        contents,
        source,
        verdict,
        union,
        unified,
        settings,
        bootupd_age,
        policy,
        layout,
        medium,
    })
}

/// The unified kernel image that an image boots; `None`: it boots a separate kernel.
fn unified(backend: &BackendChoice, root: &Tree, contents: &ContentStore) -> Result<Option<Uki>> {
    match backend.unified.as_slice() {
        [] => Ok(None),
        [path] => {
            let content = root.file(path);
            let content = content
                .ok_or_else(|| unsupported(format!("the image has no file {path}"), None))?;
            Uki::read(path, content, contents).map(Some)
        }
        several => Err(unsupported(
            format!("the image has several unified kernel images: {}", several.join(", ")),
            Some("leave the one that is to be booted"),
        )),
    }
}

/// Refuses an initramfs that cannot mount a composefs root: the disk would stop in it. One that cannot be read passes.
fn check_initramfs(settings: &Settings, root: &Tree, contents: &ContentStore) -> Result<()> {
    /// What dracut's module `bootc` puts there.
    const SETUP: &str = "usr/lib/bootc/initramfs-setup";
    let kernel = settings.kernel.files(root)?;
    let Some(initramfs) = &kernel.initramfs else {
        let what = format!(
            "the kernel {} has no initramfs, which mounts a composefs root",
            kernel.version
        );
        return Err(unsupported(what, Some("make one with dracut and its module bootc")));
    };
    if iso::initramfs_has(initramfs, contents, SETUP) != Some(false) {
        return Ok(());
    }
    Err(unsupported(
        format!(
            "the initramfs of the image has no /{SETUP}, so that it cannot mount a composefs root"
        ),
        Some(
            "make it anew with dracut's module bootc: add_dracutmodules+=\" bootc \" in /usr/lib/dracut/dracut.conf.d",
        ),
    ))
}

/// The layout that counts: the user's, else the image's, else none and the preset's.
fn layout(
    request: &Request,
    root: &Tree,
    contents: &ContentStore,
    architecture: Architecture,
    progress: &Progress,
) -> Result<Option<Layout>> {
    let mut layout = request.config.blueprint.layout.clone();
    if layout.is_none() && request.disk.image_layout {
        let (found, warnings) = config::layout_in_image(root, contents, architecture)?;
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
