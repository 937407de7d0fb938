//! The images of a deployment: one for a separate kernel; for a unified kernel image those that its command line names, which must be
//! images of the files at hand.
//!
//! Source: bootc 1.17, `bootc_composefs/boot.rs`: formats 1 and 2, each with either choice of extended attributes, are tried.

use anyhow::{Context, Result};

use super::objects::Objects;
use super::transform::{Xattrs, boot_tree};
use super::uki::{Uki, Wanted};
use super::{Format, FsVerity, ImageLabels, ImageWriter, LARGEST_INLINE, ObjectId, Union};
use crate::content::{Content, ContentStore};
use crate::error::unsupported;
use crate::layer::{EntryKind, Layer};
use crate::tree::{InodeId, Kind, Payload, Stored, Tree};

/// What images are made with.
#[derive(Clone, Copy)]
pub struct Imaging<'a> {
    /// Labels inside the image, if the image has a policy.
    pub labels: Option<ImageLabels<'a>>,
    /// Writes images.
    pub image: &'a ImageWriter<'a>,
    /// Hashes objects.
    pub fs_verity: &'a FsVerity<'a>,
}

/// Checks that a unified kernel image names images of these layers, without deploying anything.
///
/// `Unsupported`: it does not; the error names both digests.
pub fn check(
    union: &Union,
    layers: &[Layer],
    uki: &Uki,
    imaging: &Imaging<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let mut objects = Objects::new(imaging.fs_verity, contents);
    objects.add_all(&large_files(layers)).context("hashing files")?;
    choose_images(union, imaging, Some(uki), &objects, contents).map(drop)
}

/// The contents that are objects, each once.
pub(super) fn large_files(layers: &[Layer]) -> Vec<Content> {
    let entries = layers.iter().flat_map(|layer| &layer.entries);
    let mut files: Vec<Content> = entries
        .filter_map(|entry| match &entry.kind {
            EntryKind::File(content) if content.size > LARGEST_INLINE => Some(content.clone()),
            _ => None,
        })
        .collect();
    files.sort_unstable_by_key(|content| (content.id, content.size));
    files.dedup_by_key(|content| (content.id, content.size));
    files
}

/// The images of a deployment, the one that it boots first, and the tree that is in that one.
pub(super) struct Chosen {
    pub(super) tree: Tree,
    pub(super) images: Vec<Image>,
}

/// An image, written.
pub(super) struct Image {
    pub(super) format: Format,
    pub(super) bytes: Vec<u8>,
}

/// Writes the image of a separate kernel, or those that a unified kernel image names.
///
/// `Unsupported`: it names images of other files.
pub(super) fn choose_images(
    union: &Union,
    imaging: &Imaging<'_>,
    unified: Option<&Uki>,
    objects: &Objects<'_>,
    contents: &ContentStore,
) -> Result<Chosen> {
    let of = |tree: &Tree, format| image_of(tree, format, imaging, objects, contents);
    let tree = boot_tree(union, imaging.labels, Xattrs::CapabilitiesOnly)?;
    let Some(uki) = unified else {
        let bytes = of(&tree, Format::V1)?;
        return Ok(Chosen { tree, images: vec![Image { format: Format::V1, bytes }] });
    };
    let mut computed = Vec::new();
    for xattrs in [Xattrs::CapabilitiesOnly, Xattrs::WithUser] {
        let tree = boot_tree(union, imaging.labels, xattrs)?;
        let mut images = Vec::new();
        for format in [Format::V1, Format::V2] {
            let bytes = of(&tree, format)?;
            let content = contents.insert_bytes(&bytes)?;
            let digest = (imaging.fs_verity)(&content, contents)?.digest;
            let id: [u8; 64] = digest.as_ref().try_into().context("a digest of another length")?;
            images.push((ObjectId(id), Image { format, bytes }));
        }
        let fits = |wanted: &Wanted| {
            let mut fitting = images.iter();
            fitting.any(|(id, image)| {
                *id == wanted.id && wanted.format.is_none_or(|format| format == image.format)
            })
        };
        if uki.wanted.iter().all(fits) {
            let order = |id: ObjectId| uki.wanted.iter().position(|wanted| wanted.id == id);
            let mut named: Vec<_> =
                images.into_iter().filter_map(|(id, image)| Some((order(id)?, image))).collect();
            named.sort_by_key(|(order, _)| *order);
            let images = named.into_iter().map(|(_, image)| image).collect();
            return Ok(Chosen { tree, images });
        }
        computed.push(images.into_iter().map(|(id, image)| (image.format, id)).collect::<Vec<_>>());
    }
    Err(mismatch(uki, &computed))
}

/// The error for a unified kernel image of another system.
fn mismatch(uki: &Uki, computed: &[Vec<(Format, ObjectId)>]) -> anyhow::Error {
    let known = |id: ObjectId| computed.iter().flatten().any(|(_, known)| *known == id);
    let wrong = uki.wanted.iter().find(|wanted| !known(wanted.id)).unwrap_or(&uki.wanted[0]);
    let format = wrong.format.unwrap_or(Format::V1);
    let mut ours = computed.iter().flatten().filter(|(one, _)| *one == format);
    let ours = ours.next().map_or_else(String::new, |(_, id)| id.to_string());
    unsupported(
        format!(
            "{} starts the composefs image {}, but the image's files have the digest {ours}: the disk would not boot",
            uki.path, wrong.id
        ),
        Some(
            "build the unified kernel image anew from the image's final layers, with the version of bootc that is in the image: \
             either the files were changed after `bootc container ukify`, or its bootc computes digests in another way",
        ),
    )
}

/// The bytes of an image.
fn image_of(
    tree: &Tree,
    format: Format,
    imaging: &Imaging<'_>,
    objects: &Objects<'_>,
    contents: &ContentStore,
) -> Result<Vec<u8>> {
    let stored = |id: InodeId| {
        let Kind::File(content) = &tree.inode(id).kind else { return None };
        if content.size <= LARGEST_INLINE {
            return contents.bytes(content).ok().map(|bytes| Stored::Inside(bytes.into()));
        }
        let object = objects.id(content)?;
        Some(Stored::Outside(Payload { redirect: object.path(), digest: Some(object.0.into()) }))
    };
    (imaging.image)(tree, &stored, format).context("writing the composefs image")
}
