//! How people name images: `quay.io/fedora/fedora-bootc:43`, `docker://…`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use crate::error::unsupported;

/// Prefixes that other container tools know and bootpress does not. `docker-archive:` and `dir:` could be mistaken for a name
/// and a tag, and then somebody would wait for a registry.
const FOREIGN_TRANSPORTS: [&str; 8] = [
    "docker-archive",
    "docker-daemon",
    "containers-storage",
    "dir",
    "atomic",
    "sif",
    "tarball",
    "ostree",
];

/// Where an image is. Parse it from what the user typed; printing gives the spelling of container tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(pub(super) Place);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Registry(Name),
    Layout { directory: PathBuf, tag: Option<String> },
    Archive { file: PathBuf, tag: Option<String> },
}

/// The name of an image in a registry.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// In full; a short name as docker completes it.
    pub(super) reference: oci_client::Reference,
    /// What was typed, if it has no registry: the machine may have another opinion on what it means.
    pub(super) short: Option<String>,
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
    /// A name for files made from this image: `fedora-bootc` for `quay.io/fedora/fedora-bootc:43`, the name of the directory
    /// or archive for local ones; `disk` when there is none.
    pub fn file_stem(&self) -> String {
        let last = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
        let name = match &self.0 {
            Place::Registry(reference) => {
                reference.repository().rsplit('/').next().map(str::to_owned)
            }
            Place::Layout { directory, .. } => last(directory),
            Place::Archive { file, .. } => last(file).map(|name| {
                let suffixes = [".tar", ".ociarchive", ".oci-archive", ".oci"];
                let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
                stem.unwrap_or(&name).to_owned()
            }),
        };
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| "disk".to_owned())
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
        let supported = "bootpress reads oci:DIR[:TAG], oci-archive:FILE[:TAG] and docker://NAME; \
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
                Ok(Self(Place::Registry(Name { reference, short })))
            }
            Err(error) => bail!("{name:?} is no image name: {error}"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match &self.0 {
            Place::Registry(reference) => return write!(f, "docker://{}", reference.whole()),
            Place::Layout { directory, tag } => ("oci", directory, tag),
            Place::Archive { file, tag } => ("oci-archive", file, tag),
        };
        write!(f, "{transport}:{}", path.display())?;
        tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
    }
}

/// The name in full, if `text` is that of an image in a registry, registry included.
pub(super) fn full_name(text: &str) -> Option<String> {
    let reference = has_registry(text).then(|| oci_client::Reference::from_str(text))?.ok()?;
    Some(reference.whole())
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
        for text in [
            "docker-archive:x.tar",
            "containers-storage:x",
            "dir:x",
            "docker-daemon:x:y",
            "https://quay.io/x",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.is::<Unsupported>(), "{text}");
            assert!(error.to_string().contains("oci-archive:FILE"), "{error}");
        }
        for text in
            ["", "oci:", "oci::x", "oci:x:", "docker:x", "./dir", "/dir", "Quay.io/UPPER", "a b"]
        {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(!error.is::<Unsupported>(), "{text}: {error}");
        }
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
