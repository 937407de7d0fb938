//! How people name images: `quay.io/fedora/fedora-bootc:43`, `docker://…`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
//! `docker-archive:FILE[:NAME]`, `dir:DIR`, `containers-storage:NAME`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::archive::STANDARD_INPUT;
use super::docker_archive::Which;
use super::storage::Spec;
use crate::error::unsupported;

/// Prefixes that other container tools know and bootpress does not. Some could be mistaken for a name and a tag, and then
/// somebody would wait for a registry.
const FOREIGN_TRANSPORTS: [&str; 5] = ["docker-daemon", "atomic", "sif", "tarball", "ostree"];

/// Where an image is. Parse it from what the user typed; printing gives the spelling of container tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(pub(super) Place);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Registry(Name),
    Layout { directory: PathBuf, tag: Option<String> },
    Archive { file: PathBuf, tag: Option<String> },
    DockerArchive { file: PathBuf, which: Which },
    Directory(PathBuf),
    Storage { spec: Option<Spec>, name: String },
}

/// The name of an image in a registry.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// In full; a short name as docker completes it.
    pub(super) reference: oci_client::Reference,
    /// What was typed, if it has no registry: the machine may have another opinion on what it means.
    pub(super) short: Option<String>,
    /// Whether it was typed without `docker://`, so that it may be meant for the machine's own store.
    pub(super) bare: bool,
}

impl Name {
    /// Whether podman gave the name to an image that was built here: `localhost/my-os`, which no registry serves.
    pub(super) fn is_built_here(&self) -> bool {
        self.bare && self.reference.registry() == "localhost"
    }
}

impl std::ops::Deref for Name {
    type Target = oci_client::Reference;

    fn deref(&self) -> &Self::Target {
        &self.reference
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.reference == other.reference
    }
}

impl Eq for Name {}

impl Reference {
    /// Whether both are in one registry, as they are spelled.
    pub(super) fn shares_registry(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Place::Registry(one), Place::Registry(other)) => one.registry() == other.registry(),
            _ => false,
        }
    }

    /// Whether it names a manifest by its digest.
    pub fn is_by_digest(&self) -> bool {
        matches!(&self.0, Place::Registry(name) if name.digest().is_some())
    }

    /// A name for files made from this image: `fedora-bootc` for `quay.io/fedora/fedora-bootc:43`, the name of the directory
    /// or archive for local ones; `disk` when there is none.
    pub fn file_stem(&self) -> String {
        let last = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
        let name = match &self.0 {
            Place::Registry(reference) => {
                reference.repository().rsplit('/').next().map(str::to_owned)
            }
            Place::Layout { directory, .. } | Place::Directory(directory) => last(directory),
            Place::Archive { file, .. } | Place::DockerArchive { file, .. } => {
                last(file).map(|name| {
                    let name = [".gz", ".zst"]
                        .iter()
                        .find_map(|suffix| name.strip_suffix(suffix))
                        .unwrap_or(&name);
                    let suffixes =
                        [".tar", ".tgz", ".ociarchive", ".oci-archive", ".docker-archive", ".oci"];
                    let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
                    stem.unwrap_or(name).to_owned()
                })
            }
            Place::Storage { name, .. } => {
                let name = name.split('@').next().unwrap_or(name);
                let last = name.rsplit('/').next().unwrap_or(name);
                last.split(':').next().map(str::to_owned)
            }
        };
        let name = name.filter(|name| !name.is_empty() && name != STANDARD_INPUT);
        name.unwrap_or_else(|| "disk".to_owned())
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    /// Local references split at their first colon, as container tools do: `oci:dir:quay.io/x/y:1` has the tag
    /// `quay.io/x/y:1`. A registry name without tag or digest has the tag `latest`.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("oci:") {
            let (directory, tag) = path_and_tag(text, rest)?;
            return Ok(Self(Place::Layout { directory, tag }));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (file, tag) = path_and_tag(text, rest)?;
            return Ok(Self(Place::Archive { file, tag }));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, name) = path_and_tag(text, rest)?;
            let which = match name {
                None => Which::Only,
                Some(name) => match name.strip_prefix('@') {
                    Some(number) => Which::Number(
                        number
                            .parse()
                            .ok()
                            .with_context(|| format!("{text:?} has no number behind its @"))?,
                    ),
                    None => Which::Named(name),
                },
            };
            return Ok(Self(Place::DockerArchive { file, which }));
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            ensure!(!rest.is_empty(), "{text:?} has no path");
            return Ok(Self(Place::Directory(rest.into())));
        }
        if let Some(rest) = text.strip_prefix("containers-storage:") {
            let (spec, name) = Spec::parse(rest)?;
            ensure!(!name.is_empty(), "{text:?} names no image");
            return Ok(Self(Place::Storage { spec, name: name.to_owned() }));
        }
        refuse_ostree(text)?;
        let supported = "bootpress reads docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], \
                         docker-archive:FILE[:NAME], dir:DIR and containers-storage:NAME; \
                         `skopeo copy` turns anything else into these";
        let name = match text.split_once(':') {
            Some(("docker", rest)) => match rest.strip_prefix("//") {
                Some(name) => name,
                None => bail!("{text:?} lacks the // of docker://NAME"),
            },
            Some((transport, _)) if FOREIGN_TRANSPORTS.contains(&transport) => {
                let what = format!("images in {transport}: are not supported; {supported}");
                return Err(unsupported(what, Some(supported)));
            }
            Some((scheme, rest)) if rest.starts_with("//") => {
                let what = format!("images at {scheme}:// are not supported; {supported}");
                return Err(unsupported(what, Some(supported)));
            }
            _ => text,
        };
        if name.starts_with(['.', '/', '~']) {
            bail!(
                "{name:?} looks like a path: say oci:{name} for a directory, oci-archive:{name} for a file"
            );
        }
        match oci_client::Reference::from_str(name) {
            // Who writes docker:// wants docker's meaning.
            Ok(reference) => {
                let short = (name == text && !has_registry(name)).then(|| name.to_owned());
                Ok(Self(Place::Registry(Name { reference, short, bare: name == text })))
            }
            Err(error) => bail!("{name:?} is not an image name: {error}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match &self.0 {
            Place::Registry(reference) => return write!(f, "docker://{}", reference.whole()),
            Place::Layout { directory, tag } => ("oci", directory, tag),
            Place::Archive { file, tag } => ("oci-archive", file, tag),
            Place::DockerArchive { file, which } => {
                write!(f, "docker-archive:{}", file.display())?;
                return match which {
                    Which::Only => Ok(()),
                    Which::Named(name) => write!(f, ":{name}"),
                    Which::Number(number) => write!(f, ":@{number}"),
                };
            }
            Place::Directory(directory) => return write!(f, "dir:{}", directory.display()),
            Place::Storage { spec, name } => {
                f.write_str("containers-storage:")?;
                spec.iter().try_for_each(|spec| write!(f, "{spec}"))?;
                return f.write_str(name);
            }
        };
        write!(f, "{transport}:{}", path.display())?;
        tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

/// Refuses the forms in which ostree and bootc's status name images, with the form that is read.
fn refuse_ostree(text: &str) -> Result<()> {
    let Some((prefix, rest)) = text.split_once(':') else { return Ok(()) };
    let name = match prefix {
        // Docker's image of this name has a tag behind it, and tags have no slash.
        "registry" if !rest.contains('/') => return Ok(()),
        "registry" | "ostree-unverified-registry" => rest,
        "ostree-unverified-image" | "ostree-image-signed" => {
            rest.strip_prefix("docker://").or(rest.strip_prefix("registry:")).unwrap_or(rest)
        }
        "ostree-remote-registry" | "ostree-remote-image" => {
            let rest = rest.split_once(':').map_or(rest, |(_, rest)| rest);
            rest.strip_prefix("docker://").or(rest.strip_prefix("registry:")).unwrap_or(rest)
        }
        _ => return Ok(()),
    };
    // Other transports stand in it as they are.
    let is_elsewhere = ["oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:"]
        .iter()
        .any(|transport| name.starts_with(transport));
    let use_instead = if is_elsewhere { name.to_owned() } else { format!("docker://{name}") };
    Err(unsupported(
        format!("{text:?} is how ostree spells the name of an image: use {use_instead}"),
        None,
    ))
}

/// The name in full, if `text` is that of an image in a registry, registry included.
pub(super) fn full_name(text: &str) -> Option<String> {
    let reference = has_registry(text).then(|| oci_client::Reference::from_str(text))?.ok()?;
    Some(reference.whole())
}

/// A name in full, as docker completes it: `x` is `docker.io/library/x:latest`.
pub(super) fn normal_name(text: &str) -> Result<String> {
    match oci_client::Reference::from_str(text) {
        Ok(reference) => Ok(reference.whole()),
        Err(error) => bail!("{text:?} is not an image name: {error}"),
    }
}

/// Whether a name begins with a registry: with what cannot be the first part of a short name.
fn has_registry(name: &str) -> bool {
    let registry = name.split_once('/').map(|(registry, _)| registry);
    registry.is_some_and(|registry| registry == "localhost" || registry.contains(['.', ':']))
}

fn path_and_tag(text: &str, rest: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    ensure!(!path.is_empty(), "{text:?} has no path");
    ensure!(tag != Some(""), "{text:?} has an empty tag");
    Ok((path.into(), tag.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Unsupported;

    #[test]
    fn what_people_type_is_what_container_tools_print() {
        for (typed, printed, stem) in [
            (
                "quay.io/fedora/fedora-bootc:43",
                "docker://quay.io/fedora/fedora-bootc:43",
                "fedora-bootc",
            ),
            ("docker://quay.io/a/b", "docker://quay.io/a/b:latest", "b"),
            ("localhost:5000/x:tag", "docker://localhost:5000/x:tag", "x"),
            ("fedora", "docker://docker.io/library/fedora:latest", "fedora"),
            ("oci:dir", "oci:dir", "dir"),
            ("oci:some/dir:43", "oci:some/dir:43", "dir"),
            ("oci:/d/e/:quay.io/x/y:1", "oci:/d/e/:quay.io/x/y:1", "e"),
            ("oci:.", "oci:.", "disk"),
            ("oci-archive:a/b.ociarchive", "oci-archive:a/b.ociarchive", "b"),
            ("oci-archive:b.tar:x", "oci-archive:b.tar:x", "b"),
            ("oci-archive:-", "oci-archive:-", "disk"),
            ("oci-archive:-:x", "oci-archive:-:x", "disk"),
            ("docker-archive:a/b.tar.gz", "docker-archive:a/b.tar.gz", "b"),
            ("docker-archive:b.tar:x/y:1", "docker-archive:b.tar:x/y:1", "b"),
            ("docker-archive:b.tar:@2", "docker-archive:b.tar:@2", "b"),
            ("dir:/a/b:c", "dir:/a/b:c", "b:c"),
            ("containers-storage:quay.io/x/y:1", "containers-storage:quay.io/x/y:1", "y"),
            ("containers-storage:[vfs@/r+/run:a=b]y", "containers-storage:[vfs@/r+/run:a=b]y", "y"),
            ("containers-storage:[/r]x/y@sha256:0", "containers-storage:[/r]x/y@sha256:0", "y"),
            ("containers-storage:@0123", "containers-storage:@0123", "disk"),
        ] {
            let reference: Reference = typed.parse().unwrap();
            assert_eq!(reference.to_string(), printed);
            assert_eq!(reference.file_stem(), stem);
            assert_eq!(printed.parse::<Reference>().unwrap(), reference);
        }
        let digest = format!("quay.io/a/b@sha256:{}", "0".repeat(64));
        assert_eq!(digest.parse::<Reference>().unwrap().to_string(), format!("docker://{digest}"));
    }

    #[test]
    fn other_transports_are_named_with_the_way_out() {
        for text in ["docker-daemon:x:y", "tarball:x", "https://quay.io/x"] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.is::<Unsupported>(), "{text}");
            assert!(error.to_string().contains("oci-archive:FILE"), "{error}");
        }
        for text in [
            "",
            "oci:",
            "oci::x",
            "oci:x:",
            "docker:x",
            "./dir",
            "/dir",
            "Quay.io/UPPER",
            "a b",
            "dir:",
            "docker-archive:",
            "docker-archive:x:@y",
            "containers-storage:",
            "containers-storage:[x",
            "containers-storage:[]x",
            "containers-storage:[relative]x",
            "containers-storage:[@/r]x",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(!error.is::<Unsupported>(), "{text}: {error}");
        }
    }

    #[test]
    fn spellings_of_ostree_are_refused_with_the_right_one() {
        for (text, right) in [
            ("registry:quay.io/x/y:1", "use docker://quay.io/x/y:1"),
            ("ostree-unverified-registry:quay.io/x/y", "use docker://quay.io/x/y"),
            ("ostree-unverified-image:docker://quay.io/x", "use docker://quay.io/x"),
            ("ostree-unverified-image:oci:/dir:tag", "use oci:/dir:tag"),
            ("ostree-image-signed:registry:quay.io/x", "use docker://quay.io/x"),
            ("ostree-remote-registry:fedora:quay.io/x:1", "use docker://quay.io/x:1"),
            ("ostree-remote-image:fedora:docker://quay.io/x", "use docker://quay.io/x"),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.is::<Unsupported>() && error.to_string().ends_with(right), "{error}");
        }
        assert_eq!(
            "registry:2".parse::<Reference>().unwrap().to_string(),
            "docker://docker.io/library/registry:2"
        );
    }

    #[test]
    fn names_without_a_registry_are_short_unless_docker_is_meant() {
        let short = |text: &str| match text.parse::<Reference>().unwrap().0 {
            Place::Registry(name) => name.short,
            other => panic!("{other:?}"),
        };
        assert_eq!(short("fedora/fedora-bootc:43").as_deref(), Some("fedora/fedora-bootc:43"));
        assert_eq!(short("fedora").as_deref(), Some("fedora"));
        for full in ["docker://fedora", "quay.io/x", "localhost/x", "host:5000/x"] {
            assert_eq!(short(full), None);
        }
    }

    #[test]
    fn only_full_names_are_names() {
        assert_eq!(full_name("quay.io/x/y:1").as_deref(), Some("quay.io/x/y:1"));
        assert_eq!(full_name("localhost/x").as_deref(), Some("localhost/x:latest"));
        for text in ["43", "latest", "x/y:1", "quay.io", "quay.io/UPPER"] {
            assert_eq!(full_name(text), None);
        }
    }
}
