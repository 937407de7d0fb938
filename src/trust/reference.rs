//! Names of images as policies and signatures spell them, completed as docker does, and how one name may stand for another.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

/// `host[:port]/path[:tag][@digest]`, nothing left out but tag and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Host and path.
    pub(super) repository: String,
    /// `:tag`, `@digest`, both, or nothing.
    suffix: String,
}

impl Name {
    /// Completes a name: `x:1` is `docker.io/library/x:1`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let (host, path) = match path.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            _ => ("docker.io", path.to_owned()),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let path = if host == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good_path = path.split('/').all(|part| {
            part.bytes().next().is_some_and(lower)
                && part.bytes().all(|b| lower(b) || matches!(b, b'.' | b'_' | b'-'))
        });
        let good_host = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let good_tag = tag.is_none_or(|tag| {
            tag.bytes().next().is_some_and(word)
                && tag.len() <= 128
                && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
        });
        let good_digest = digest.is_none_or(|digest| {
            digest.split_once(':').is_some_and(|(algorithm, hex)| {
                !algorithm.is_empty()
                    && algorithm.bytes().all(lower)
                    && hex.len() >= 32
                    && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            })
        });
        ensure!(
            good_path && good_host && good_tag && good_digest,
            "{text:?} is not a name of an image"
        );
        let mut suffix = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        suffix.extend(digest.map(|digest| format!("@{digest}")));
        Ok(Self { repository: format!("{host}/{path}"), suffix })
    }

    /// All of it.
    pub(super) fn whole(&self) -> String {
        format!("{}{}", self.repository, self.suffix)
    }

    fn is_bare(&self) -> bool {
        self.suffix.is_empty()
    }

    fn is_tagged(&self) -> bool {
        self.suffix.starts_with(':')
    }
}

fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':'])
}

/// What name a signature has to have: `signedIdentity` of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(super) enum Identity {
    /// The name of the image, tag or digest included.
    MatchExact {},
    /// The name of the image, tag included; for an image asked for by digest, any name of its repository.
    #[default]
    #[serde(skip)]
    Default,
    /// See [`Self::Default`], which is what is meant when nothing is said.
    MatchRepoDigestOrExact {},
    /// Any name of the image's repository.
    MatchRepository {},
    /// This very name.
    ExactReference { docker_reference: String },
    /// Any name of this repository.
    ExactRepository { docker_repository: String },
    /// As `MatchRepoDigestOrExact`, for images below one prefix with another one in its place.
    #[serde(rename = "remapIdentity")]
    Remap { prefix: String, signed_prefix: String },
    /// Any name at all; no policy can say that.
    #[serde(skip)]
    Any,
}

impl Identity {
    /// What a policy may get wrong.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::ExactReference { docker_reference } => {
                let name = Name::parse(docker_reference)?;
                ensure!(!name.is_bare(), "{docker_reference:?} has neither tag nor digest");
            }
            Self::ExactRepository { docker_repository } => {
                let name = Name::parse(docker_repository)?;
                ensure!(name.is_bare(), "{docker_repository:?} has a tag or a digest");
            }
            Self::Remap { prefix, signed_prefix } => {
                for prefix in [prefix, signed_prefix] {
                    let good = !prefix.contains('@')
                        && !prefix.ends_with('/')
                        && (Name::parse(prefix).is_ok_and(|name| name.is_bare())
                            || is_host(prefix) && !prefix.contains('/'));
                    ensure!(good, "{prefix:?} is not a host, namespace or repository");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a signature that names `signed` is one of `image`, the image's own name where its place gives it one. The error
    /// says why not.
    pub(super) fn accepts(&self, signed: &str, image: Option<&str>) -> Result<()> {
        if *self == Self::Any {
            return Ok(());
        }
        let signed = Name::parse(signed)?;
        let own = || match image {
            Some(image) => Name::parse(image),
            None => bail!(
                "it is for {}, and the image's place gives it no name to compare with",
                signed.whole()
            ),
        };
        let good = match self {
            Self::MatchExact {} => {
                let image = own()?;
                !image.is_bare() && !signed.is_bare() && image == signed
            }
            Self::Default | Self::MatchRepoDigestOrExact {} => or_digest(&signed, &own()?),
            Self::MatchRepository {} => signed.repository == own()?.repository,
            Self::ExactReference { docker_reference } => {
                let wanted = Name::parse(docker_reference)?;
                !wanted.is_bare() && signed == wanted
            }
            Self::ExactRepository { docker_repository } => {
                signed.repository == Name::parse(docker_repository)?.repository
            }
            Self::Remap { prefix, signed_prefix } => {
                or_digest(&signed, &remap(own()?, prefix, signed_prefix)?)
            }
            Self::Any => true,
        };
        ensure!(good, "it is for {}, not for {}", signed.whole(), self.wanted(image));
        Ok(())
    }

    /// The name that is wanted, for people.
    pub(super) fn wanted(&self, image: Option<&str>) -> String {
        let image = image.unwrap_or("this image");
        match self {
            Self::MatchExact {} | Self::Default | Self::MatchRepoDigestOrExact {} => {
                image.to_owned()
            }
            Self::MatchRepository {} => format!("the repository of {image}"),
            Self::ExactReference { docker_reference } => docker_reference.clone(),
            Self::ExactRepository { docker_repository } => docker_repository.clone(),
            Self::Remap { prefix, signed_prefix } => {
                format!("{image} with {signed_prefix} instead of {prefix}")
            }
            Self::Any => "anything".to_owned(),
        }
    }
}

fn or_digest(signed: &Name, image: &Name) -> bool {
    match image {
        image if image.is_tagged() => signed == image,
        image if image.is_bare() => false,
        image => signed.repository == image.repository,
    }
}

fn remap(image: Name, prefix: &str, signed_prefix: &str) -> Result<Name> {
    // A host alone is not completed; anything else could be `library/x` for docker.io.
    let complete = |text: &str| {
        if text.contains('/') || !is_host(text) {
            Name::parse(text).map(|name| name.repository)
        } else {
            Ok(text.to_owned())
        }
    };
    let (prefix, signed_prefix) = (complete(prefix)?, complete(signed_prefix)?);
    let rest = match image.repository.strip_prefix(&prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => return Ok(image),
    };
    Name::parse(&format!("{signed_prefix}{rest}{}", image.suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_completed() {
        for (text, whole) in [
            ("x", "docker.io/library/x"),
            ("x:1", "docker.io/library/x:1"),
            ("a/b", "docker.io/a/b"),
            ("index.docker.io/x", "docker.io/library/x"),
            ("localhost/x", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("quay.io/a/b/c:V1.2-x", "quay.io/a/b/c:V1.2-x"),
        ] {
            assert_eq!(Name::parse(text).unwrap().whole(), whole);
        }
        let digest = format!("quay.io/x@{DIGEST}");
        assert_eq!(Name::parse(&digest).unwrap().whole(), digest);
        for bad in [
            "",
            "X",
            "quay.io/",
            "quay.io/X",
            "a//b",
            "x:",
            "x:-",
            "x@",
            "x@sha256:0",
            "a b",
            "x:1:2",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_stands_for_whom() {
        let kind = |json: &str| serde_json::from_str::<Identity>(json).unwrap();
        let exact = kind(r#"{"type":"matchExact"}"#);
        let default = kind(r#"{"type":"matchRepoDigestOrExact"}"#);
        let repository = kind(r#"{"type":"matchRepository"}"#);
        let one = kind(r#"{"type":"exactReference","dockerReference":"quay.io/a/b:1"}"#);
        let some = kind(r#"{"type":"exactRepository","dockerRepository":"quay.io/a/b"}"#);
        let mirror = kind(r#"{"type":"remapIdentity","prefix":"m:5/v","signedPrefix":"quay.io"}"#);
        let by_digest = format!("quay.io/a/b@{DIGEST}");
        for (identity, signed, image, good) in [
            (&exact, "quay.io/a/b:1", Some("quay.io/a/b:1"), true),
            (&exact, "quay.io/a/b:2", Some("quay.io/a/b:1"), false),
            (&exact, "quay.io/a/b", Some("quay.io/a/b"), false),
            (&exact, "quay.io/a/b:1", Some(&*by_digest), false),
            (&default, "quay.io/a/b:1", Some("quay.io/a/b:1"), true),
            (&default, "quay.io/a/b", Some("quay.io/a/b:1"), false),
            (&default, "quay.io/a/c:1", Some("quay.io/a/b:1"), false),
            (&default, "quay.io/a/b:7", Some(&by_digest), true),
            (&default, "quay.io/a/c:7", Some(&by_digest), false),
            (&default, "quay.io/a/b:1", None, false),
            (&repository, "quay.io/a/b", Some("quay.io/a/b:1"), true),
            (&repository, "quay.io/a/bb", Some("quay.io/a/b:1"), false),
            (&repository, "quay.io/a/b", None, false),
            (&one, "quay.io/a/b:1", None, true),
            (&one, "quay.io/a/b:2", Some("quay.io/a/b:2"), false),
            (&some, "quay.io/a/b:2", None, true),
            (&some, "quay.io/a/b/c:2", None, false),
            (&mirror, "quay.io/a/b:1", Some("m:5/v/a/b:1"), true),
            (&mirror, "quay.io/a/b:2", Some("m:5/v/a/b:1"), false),
            (&mirror, "m:5/va/b:1", Some("m:5/va/b:1"), true),
            (&mirror, "quay.io/a/b:1", Some("m:5/va/b:1"), false),
        ] {
            let outcome = identity.accepts(signed, image);
            assert_eq!(outcome.is_ok(), good, "{identity:?} {signed} {image:?}: {outcome:?}");
        }
        for bad in [
            r#"{"type":"exactReference","dockerReference":"quay.io/a/b"}"#,
            r#"{"type":"exactRepository","dockerRepository":"quay.io/a/b:1"}"#,
            r#"{"type":"remapIdentity","prefix":"quay.io/a:1","signedPrefix":"quay.io"}"#,
        ] {
            assert!(kind(bad).check().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Identity>(r#"{"type":"matchExact","x":1}"#).is_err());
        assert!(serde_json::from_str::<Identity>(r#"{"type":"any"}"#).is_err());
    }
}
