//! Where facts come from: the documents of an image, its registry, its layers.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::content_facts;
use super::facts::{ContentFacts, Facts, ImageFacts, Parent, TagFacts, TrustFacts};
use super::policy::Policy;
use crate::architecture::Architecture;
use crate::content::ContentStore;
use crate::error::{Corrupt, Unsupported};
use crate::files::Files;
use crate::image::Image;
use crate::inspect;
use crate::oci::{self, Access, Reference, Survey, Unvouched};
use crate::ostree;
use crate::progress::{Code, Progress};
use crate::trust::{self, Demand};

/// How an image is looked at.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Where it is.
    pub reference: &'a Reference,
    /// The architecture to look at; `None`: this machine's, else what there is.
    pub architecture: Option<Architecture>,
    /// How registries are reached.
    pub access: &'a Access,
    /// Who has to vouch for it.
    pub trust: &'a Demand,
    /// Whether the layers are read, too.
    pub content: bool,
    /// Where layers are unpacked.
    pub work_directory: &'a Path,
    /// Seconds since 1970.
    pub now: i64,
}

/// Facts about an image. Fails if its documents cannot be read; what else cannot be known is said in the facts.
pub fn gather_image(wanted: &Wanted<'_>, policy: &Policy, progress: &Progress) -> Result<Facts> {
    let survey = oci::survey(wanted.access, wanted.reference, wanted.architecture, progress)?;
    let image = Some(image(&survey, wanted, policy, progress));
    let content = if wanted.content {
        Some(content_of(survey.source, wanted.work_directory, progress)?)
    } else {
        None
    };
    Ok(Facts { image, content, now: wanted.now, ..Facts::default() })
}

/// Facts about a file: an ISO, or a disk. An ISO that is a disk, too, is judged as an ISO.
pub fn gather_file(path: &Path, now: i64) -> Result<Facts> {
    if inspect::is_iso(path) {
        let iso = Some(inspect::examine_iso(path)?);
        return Ok(Facts { iso, now, ..Facts::default() });
    }
    let disk = Some(inspect::examine(path)?);
    Ok(Facts { disk, now, ..Facts::default() })
}

fn image(survey: &Survey, wanted: &Wanted<'_>, policy: &Policy, progress: &Progress) -> ImageFacts {
    let source = &survey.source;
    let image = &source.image;
    let (repository, tag) = image.name.as_deref().map(split_name).unzip();
    let strings = |map: Option<&serde_json::Map<String, Value>>| {
        let pairs = map.into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    let is_index = !survey.top.entries.is_empty();
    let platforms = survey.top.entries.iter().filter(|entry| entry.artifact.is_none());
    let annotations = source.annotations();
    let text = |key: &str| image.config.get(key).and_then(Value::as_str).map(str::to_owned);
    let sboms = source.sboms(wanted.access.offline).unwrap_or_else(|error| {
        progress.warn(Code::Signatures, format!("attachments cannot be looked for: {error:#}"));
        None
    });
    ImageFacts {
        repository,
        tag: tag.flatten(),
        digest: image.manifest_digest.clone(),
        top_digest: survey.top.digest.clone(),
        platforms: is_index.then(|| platforms.filter_map(|entry| entry.platform.clone()).collect()),
        architecture: image.architecture.name().to_owned(),
        labels: strings(image.labels()),
        created: text("created"),
        parent: parent(&annotations, wanted, policy, progress),
        annotations,
        tags: tags(source, wanted, policy),
        signatures: survey.signatures.clone(),
        trust: trust_facts(source, wanted.trust),
        sboms,
    }
}

/// Repository and tag of a name such as `quay.io/fedora/fedora-bootc:43@sha256:…`.
fn split_name(name: &str) -> (String, Option<String>) {
    let name = name.split('@').next().unwrap_or(name);
    let last = name.rfind('/').map_or(0, |at| at + 1);
    match name[last..].split_once(':') {
        Some((short, tag)) => (format!("{}{short}", &name[..last]), Some(tag.to_owned())),
        None => (name.to_owned(), None),
    }
}

fn tags(source: &Unvouched, wanted: &Wanted<'_>, policy: &Policy) -> TagFacts {
    let unknown = |why: String| TagFacts { unknown: Some(why), ..TagFacts::default() };
    if !policy.wants_tags() {
        return unknown("the policy asks about no tags".to_owned());
    }
    if wanted.access.offline {
        return unknown("--offline: the registry was not asked for tags".to_owned());
    }
    let ask = || -> Result<Option<TagFacts>> {
        let Some(names) = source.tags()? else { return Ok(None) };
        let mut digests = BTreeMap::new();
        for tag in policy.tags_to_ask(&names) {
            if let Some(digest) = source.tag_digest(&tag)? {
                digests.insert(tag, digest);
            }
        }
        Ok(Some(TagFacts { unknown: None, names, digests }))
    };
    match ask() {
        Ok(Some(facts)) => facts,
        Ok(None) => unknown("there is no registry to ask for tags".to_owned()),
        Err(error) => unknown(format!("the registry does not tell its tags: {error:#}")),
    }
}

fn trust_facts(source: &Unvouched, demand: &Demand) -> TrustFacts {
    match trust::check(demand, &source.subject(), &|wanted| source.claims(wanted)) {
        Ok(verdict) => TrustFacts::Accepted { verified: verdict.verified, by: verdict.to_string() },
        Err(error) => TrustFacts::Refused(format!("{error:#}")),
    }
}

/// The image that annotations name as the base, if a rule wants to compare with it.
fn parent(
    annotations: &BTreeMap<String, String>,
    wanted: &Wanted<'_>,
    policy: &Policy,
    progress: &Progress,
) -> Parent {
    let value = |key: &str| {
        let key = format!("org.opencontainers.image.base.{key}");
        annotations.get(&key).filter(|value| !value.is_empty())
    };
    let (Some(name), Some(digest)) = (value("name"), value("digest")) else {
        return Parent::Unnamed;
    };
    if policy.labels("disallowed_inherited_labels").is_empty() {
        return Parent::Unnamed;
    }
    let name = format!("{}@{digest}", split_name(name).0);
    let read = || -> Result<BTreeMap<String, String>> {
        let reference: Reference =
            format!("docker://{name}").parse().with_context(|| format!("invalid name {name:?}"))?;
        let access = wanted.access.beside(wanted.reference, &reference);
        let survey = oci::survey(&access, &reference, wanted.architecture, progress)?;
        Ok(labels(&survey.source.image))
    };
    match read() {
        Ok(labels) => Parent::Known(labels),
        Err(error) => Parent::Inaccessible(name, format!("{error:#}")),
    }
}

fn labels(image: &Image) -> BTreeMap<String, String> {
    let pairs = image.labels().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Facts about an image's files. What is wrong with the image is a fact, what is wrong with this machine an error.
pub fn content_of(
    source: Unvouched,
    work_directory: &Path,
    progress: &Progress,
) -> Result<ContentFacts> {
    let contents = ContentStore::create_in(work_directory)?;
    let source = source.unjudged("it is looked at, and nothing is made of it");
    let mut facts = ContentFacts::default();
    let read = source.unpack(&contents, progress).and_then(|layers| {
        content_facts::of_layers(&layers, &mut facts);
        ostree::unite(&source.image, layers, &contents).context("uniting the layers")
    });
    match read {
        Ok(union) => {
            let files = Files { root: &union.root, contents: &contents };
            content_facts::of_tree(&files, source.image.architecture, &mut facts)?;
        }
        Err(error) if error.is::<Unsupported>() || error.is::<Corrupt>() => {
            facts.broken = Some(format!("{error:#}"));
        }
        Err(error) => return Err(error),
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_repository_and_tag() {
        let split = |name: &str| {
            let (repository, tag) = split_name(name);
            format!("{repository} {}", tag.unwrap_or_default())
        };
        assert_eq!(split("quay.io/fedora/fedora-bootc:43"), "quay.io/fedora/fedora-bootc 43");
        assert_eq!(split("localhost:5000/a/b"), "localhost:5000/a/b ");
        assert_eq!(split("localhost:5000/a:1@sha256:00"), "localhost:5000/a 1");
    }
}
