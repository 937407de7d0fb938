//! What an image is, before anything is made of it: from its documents, or with its layers, as far as a build would look.

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::bootloader;
use crate::content::ContentStore;
use crate::error::{Corrupt, Unsupported};
use crate::image::Image;
use crate::load;
use crate::make;
use crate::oci::{self, SignatureFacts, TopFacts, Unvouched};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::request::Request;

/// An image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFacts {
    /// How container tools spell it: `docker://quay.io/fedora/fedora-bootc:43`.
    pub reference: String,
    /// The document that the name means; an index, or the manifest itself.
    pub top: TopFacts,
    /// Digest of the platform's manifest, which an installed system records.
    pub digest: String,
    /// The architecture that was looked at.
    pub architecture: &'static str,
    /// When its config was made.
    pub created: Option<String>,
    /// The version in its labels.
    pub version: Option<String>,
    /// All labels.
    pub labels: Map<String, Value>,
    /// Layers, lowest first.
    pub layers: Vec<LayerFacts>,
    /// Bytes of all layers as they are fetched.
    pub size: u64,
    /// Whether layers carry an ostree commit, as those of rpm-ostree's composes do.
    pub encapsulated: bool,
    /// The kernel's version: from the layers, else from a label.
    pub kernel: Option<String>,
    /// What boots it, a line each; unknown without the layers.
    pub bootloader: Option<Vec<String>>,
    /// What claims to sign it, unverified; `None`: there was no registry to ask.
    pub signatures: Option<Vec<SignatureFacts>>,
    /// Whether a disk can be made of it.
    pub pressable: Pressable,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerFacts {
    /// Digest of the blob.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Media type.
    pub media_type: String,
}

/// Whether a disk can be made of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "reason")]
pub enum Pressable {
    /// The layers were read, and have everything.
    Yes,
    /// The documents say so; the layers were not read.
    Probably,
    /// Why not.
    No(String),
}

/// Looks at the image of a request, which a build with the same request would make a disk of. With `deep` the layers are read.
pub fn survey(
    request: &Request,
    any_architecture: bool,
    deep: bool,
    progress: &Progress,
) -> Result<ImageFacts> {
    let wanted = &request.image;
    let architecture = (!any_architecture).then_some(wanted.architecture);
    let found = oci::survey(&wanted.access, &wanted.reference, architecture, progress)?;
    let image = &found.source.image;
    let labels = image.labels().cloned().unwrap_or_default();
    let text = |key: &str| labels.get(key).and_then(Value::as_str).map(str::to_owned);
    let layers = image.layers.iter().map(|layer| LayerFacts {
        digest: layer.digest.clone(),
        size: layer.size,
        media_type: layer.media_type.clone(),
    });
    let layers: Vec<LayerFacts> = layers.collect();
    let mut facts = ImageFacts {
        reference: image.reference.clone(),
        top: found.top,
        digest: image.manifest_digest.clone(),
        architecture: image.architecture.name(),
        created: image.config.get("created").and_then(Value::as_str).map(str::to_owned),
        version: image.version().map(str::to_owned),
        size: layers.iter().map(|layer| layer.size).sum(),
        layers,
        // The label by which the importer knows them.
        encapsulated: labels.contains_key("ostree.final-diffid"),
        kernel: text("ostree.linux"),
        bootloader: None,
        signatures: found.signatures,
        pressable: by_labels(image),
        labels,
    };
    if deep {
        match look_inside(request, found.source, progress) {
            Ok(inside) => {
                facts.kernel = Some(inside.kernel);
                facts.bootloader = Some(inside.bootloader);
                facts.pressable = Pressable::Yes;
            }
            Err(error) if error.is::<Unsupported>() || error.is::<Corrupt>() => {
                facts.pressable = Pressable::No(format!("{error:#}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(facts)
}

fn by_labels(image: &Image) -> Pressable {
    // The keys count, as for bootc.
    if ["containers.bootc", "ostree.bootable"].iter().any(|key| image.label(key).is_some()) {
        return Pressable::Probably;
    }
    Pressable::No(
        "it is not a bootc image: it lacks label containers.bootc or ostree.bootable".to_owned(),
    )
}

struct Inside {
    kernel: String,
    bootloader: Vec<String>,
}

/// The steps of a build that read, and none that makes something.
fn look_inside(request: &Request, image: Unvouched, progress: &Progress) -> Result<Inside> {
    let contents = ContentStore::create_in(&request.work_directory)?;
    let source = image.unjudged("it is looked at, and nothing is made of it");
    let loaded = load::read(request, source, None, contents, progress)?;
    let plan = Plan::of(request, loaded.known())?;
    make::check_sealed(&loaded)?;
    progress.warn_all(&plan.warnings);
    let bootloader = match &plan.bootloader {
        Some(options) => {
            let boot = bootloader::prepare(loaded.union.root(), &loaded.contents, options)?;
            [boot.found, boot.warnings, Vec::from_iter(plan.boot_idles.clone())].concat()
        }
        None => vec!["none is wanted".to_owned()],
    };
    Ok(Inside { kernel: loaded.settings.kernel.version, bootloader })
}
