//! `policy.json`: what an image from a certain place needs to be accepted. Whatever is not understood makes the whole file
//! invalid, so that nothing is accepted by mistake.
//!
//! ```text
//! { "default": [REQUIREMENT…],
//!   "transports": { TRANSPORT: { SCOPE: [REQUIREMENT…], "": [REQUIREMENT…] } } }
//! ```
//!
//! The most exact scope alone counts, and all of its requirements.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::reference::Identity;
use crate::error::corrupt;
use crate::signature::from_base64;

/// A policy.
#[derive(Debug)]
pub(super) struct Policy {
    /// The file it was read from.
    pub(super) path: PathBuf,
    file: File,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: Unique<Unique<Vec<Requirement>>>,
}

/// What an image needs.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(super) enum Requirement {
    /// Nothing.
    InsecureAcceptAnything(Nothing),
    /// What no image has.
    Reject(Nothing),
    /// A simple signature.
    SignedBy(SignedBy),
    /// That the image below is what it says; nobody has ever implemented it, so no image has it.
    SignedBaseLayer(SignedBaseLayer),
    /// A sigstore signature.
    SigstoreSigned(Box<SigstoreSigned>),
}

/// No more fields.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Fields of a requirement for a simple signature.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SignedBy {
    key_type: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    #[serde(default)]
    pub(super) signed_identity: Identity,
}

/// Fields of a requirement for the image below.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SignedBaseLayer {
    base_layer_identity: Identity,
}

/// Kinds of keys that a policy may name. Only the first is implemented, here and elsewhere.
const KEY_TYPES: [&str; 4] = [GPG_KEYS, "signedByGPGKeys", "X509Certificates", "signedByX509CAs"];
const GPG_KEYS: &str = "GPGKeys";

/// Fields of a requirement for a sigstore signature.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SigstoreSigned {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    pub(super) fulcio: Option<Fulcio>,
    pub(super) pki: Option<Pki>,
    rekor_public_key_path: Option<PathBuf>,
    rekor_public_key_paths: Option<Vec<PathBuf>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    #[serde(default)]
    pub(super) signed_identity: Identity,
}

/// A certificate authority that gives certificates to people who log in somewhere.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Fulcio {
    ca_path: Option<PathBuf>,
    ca_data: Option<String>,
    /// Where they logged in.
    pub(super) oidc_issuer: String,
    /// As whom.
    pub(super) subject_email: String,
}

/// An ordinary certificate authority.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Pki {
    ca_roots_path: Option<PathBuf>,
    ca_roots_data: Option<String>,
    ca_intermediates_path: Option<PathBuf>,
    ca_intermediates_data: Option<String>,
    pub(super) subject_email: Option<String>,
    pub(super) subject_hostname: Option<String>,
}

/// Bytes of a key or certificate, and what people call it.
#[derive(Clone, Debug)]
pub(super) struct Material {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl Material {
    /// From a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self { name: path.display().to_string(), bytes })
    }

    fn data(text: &str) -> Result<Self> {
        let bytes = from_base64(text).context("reading key data of the policy")?;
        Ok(Self { name: "key data of the policy".to_owned(), bytes })
    }
}

/// What exactly one of several fields gives.
fn one_of(
    path: Option<&PathBuf>,
    paths: Option<&Vec<PathBuf>>,
    data: Option<&String>,
    datas: Option<&Vec<String>>,
) -> Result<Option<Vec<Material>>> {
    let given = [path.is_some(), paths.is_some(), data.is_some(), datas.is_some()];
    ensure!(
        given.iter().filter(|given| **given).count() <= 1,
        "more than one of path, paths and data is given"
    );
    ensure!(
        paths.is_none_or(|paths| !paths.is_empty()) && datas.is_none_or(|datas| !datas.is_empty()),
        "a list of keys is empty"
    );
    let paths = path.into_iter().chain(paths.into_iter().flatten());
    let datas = data.into_iter().chain(datas.into_iter().flatten());
    let material = paths
        .map(|path| Material::read(path))
        .chain(datas.map(|data| Material::data(data)))
        .collect::<Result<Vec<_>>>()?;
    Ok((!material.is_empty()).then_some(material))
}

/// Whether all of it is base64; other tools find out when they read the file, too.
fn check_data<'a>(data: impl Iterator<Item = &'a String>) -> Result<()> {
    for text in data {
        Material::data(text)?;
    }
    Ok(())
}

/// What is wrong with a scope, by the rules of its transport.
fn check_scope(transport: &str, scope: &str) -> Result<()> {
    if scope.is_empty() {
        return Ok(());
    }
    let is_path = |path: &str| {
        let mut parts = path.split('/').skip(1);
        path.starts_with('/') && path != "/" && parts.all(|part| !matches!(part, "" | "." | ".."))
    };
    let good = match transport {
        "dir" | "oci" | "oci-archive" | "sif" => is_path(scope),
        "docker-archive" | "tarball" => false,
        "docker-daemon" => !is_digest(scope),
        // HOST/NAMESPACE/STREAM:TAG, or the beginning of it.
        "atomic" => {
            let parts: Vec<&str> = scope.split('/').collect();
            parts.len() <= 3
                && parts
                    .iter()
                    .skip(1)
                    .enumerate()
                    .all(|(number, part)| part.matches(':').count() <= usize::from(number == 1))
        }
        "containers-storage" => is_store(scope),
        _ => true,
    };
    ensure!(good, "{scope:?} is not a scope of {transport}");
    Ok(())
}

fn is_digest(text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let lengths = [("sha256:", 64), ("sha384:", 96), ("sha512:", 128)];
    lengths.iter().any(|(name, length)| {
        text.strip_prefix(name).is_some_and(|digits| digits.len() == *length && hex(digits))
    })
}

/// `[DRIVER@/ROOT]` or `[/ROOT]`, and perhaps a name with a digest, an ID or both.
fn is_store(scope: &str) -> bool {
    let Some((store, name)) = scope.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return false;
    };
    let good_store = match store.split_once('@') {
        Some((driver, root)) => !driver.is_empty() && root.starts_with('/'),
        None => store.starts_with('/'),
    };
    let is_id = |id: &str| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let good_name = match *name.splitn(3, '@').collect::<Vec<_>>() {
        [_] => true,
        [_, one] => is_id(one) || is_digest(one),
        [_, digest, id] => is_digest(digest) && is_id(id),
        _ => false,
    };
    good_store && good_name
}

impl SignedBy {
    /// The key rings.
    pub(super) fn keys(&self) -> Result<Vec<Material>> {
        ensure!(
            self.key_type == GPG_KEYS,
            "keys of type {} are not implemented, here or in other tools",
            self.key_type
        );
        one_of(self.key_path.as_ref(), self.key_paths.as_ref(), self.key_data.as_ref(), None)?
            .context("one of keyPath, keyPaths and keyData has to be given")
    }

    fn check(&self) -> Result<()> {
        ensure!(
            KEY_TYPES.contains(&self.key_type.as_str()),
            "invalid keyType {:?}: expected one of: {}",
            self.key_type,
            KEY_TYPES.join(", ")
        );
        check_data(self.key_data.iter())?;
        let given = usize::from(self.key_path.is_some())
            + usize::from(self.key_paths.is_some())
            + usize::from(self.key_data.is_some());
        ensure!(given == 1, "exactly one of keyPath, keyPaths and keyData has to be given");
        self.signed_identity.check()
    }
}

impl SigstoreSigned {
    /// The public keys; `None` where certificates are asked for.
    pub(super) fn keys(&self) -> Result<Option<Vec<Material>>> {
        one_of(
            self.key_path.as_ref(),
            self.key_paths.as_ref(),
            self.key_data.as_ref(),
            self.key_datas.as_ref(),
        )
    }

    /// The keys of transparency logs; `None`: no log has to know the signature.
    pub(super) fn log_keys(&self) -> Result<Option<Vec<Material>>> {
        one_of(
            self.rekor_public_key_path.as_ref(),
            self.rekor_public_key_paths.as_ref(),
            self.rekor_public_key_data.as_ref(),
            self.rekor_public_key_datas.as_ref(),
        )
    }

    fn check(&self) -> Result<()> {
        let keys = [
            self.key_path.is_some(),
            self.key_paths.is_some(),
            self.key_data.is_some(),
            self.key_datas.is_some(),
            self.fulcio.is_some(),
            self.pki.is_some(),
        ];
        ensure!(
            keys.iter().filter(|given| **given).count() == 1,
            "exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki has to be given"
        );
        check_data(self.key_data.iter().chain(self.key_datas.iter().flatten()))?;
        check_data(
            self.rekor_public_key_data.iter().chain(self.rekor_public_key_datas.iter().flatten()),
        )?;
        let logs = [
            self.rekor_public_key_path.is_some(),
            self.rekor_public_key_paths.is_some(),
            self.rekor_public_key_data.is_some(),
            self.rekor_public_key_datas.is_some(),
        ];
        let logs = logs.iter().filter(|given| **given).count();
        ensure!(logs <= 1, "more than one kind of Rekor keys is given");
        if let Some(fulcio) = &self.fulcio {
            ensure!(logs == 1, "fulcio needs a key of Rekor, too");
            ensure!(
                fulcio.ca_path.is_some() != fulcio.ca_data.is_some(),
                "exactly one of caPath and caData has to be given"
            );
            ensure!(
                !fulcio.oidc_issuer.is_empty() && !fulcio.subject_email.is_empty(),
                "fulcio needs oidcIssuer and subjectEmail"
            );
        }
        if let Some(pki) = &self.pki {
            ensure!(logs == 0, "pki goes without keys of Rekor");
            ensure!(
                pki.ca_roots_path.is_some() != pki.ca_roots_data.is_some(),
                "exactly one of caRootsPath and caRootsData has to be given"
            );
            ensure!(
                pki.subject_email.is_some() || pki.subject_hostname.is_some(),
                "pki needs subjectEmail or subjectHostname"
            );
        }
        self.signed_identity.check()
    }
}

impl Fulcio {
    /// Certificates of the authority.
    pub(super) fn authority(&self) -> Result<Material> {
        let found = one_of(self.ca_path.as_ref(), None, self.ca_data.as_ref(), None)?;
        found.into_iter().flatten().next().context("no authority is given")
    }
}

impl Pki {
    /// Certificates of the authority, and those between it and a key.
    pub(super) fn authority(&self) -> Result<(Material, Option<Material>)> {
        let roots = one_of(self.ca_roots_path.as_ref(), None, self.ca_roots_data.as_ref(), None)?;
        let between = one_of(
            self.ca_intermediates_path.as_ref(),
            None,
            self.ca_intermediates_data.as_ref(),
            None,
        )?;
        let roots = roots.into_iter().flatten().next().context("no authority is given")?;
        Ok((roots, between.into_iter().flatten().next()))
    }
}

impl Policy {
    /// Reads a file. Corrupt if anything in it is not understood.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(path, &bytes)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let blame = |reason: String| corrupt(path.display().to_string(), reason);
        let file: File = serde_json::from_slice(bytes).map_err(|error| blame(error.to_string()))?;
        let scoped = file.transports.0.iter().flat_map(|(transport, scopes)| {
            scopes.0.iter().map(move |(scope, list)| (format!("{transport} {scope:?}"), list))
        });
        for (place, list) in std::iter::once(("default".to_owned(), &file.default)).chain(scoped) {
            let check = || -> Result<()> {
                ensure!(!list.is_empty(), "the list of requirements is empty");
                list.iter().try_for_each(|requirement| match requirement {
                    Requirement::SignedBy(fields) => fields.check(),
                    Requirement::SigstoreSigned(fields) => fields.check(),
                    Requirement::SignedBaseLayer(fields) => fields.base_layer_identity.check(),
                    Requirement::InsecureAcceptAnything(_) | Requirement::Reject(_) => Ok(()),
                })
            };
            check().map_err(|error| blame(format!("{place}: {error:#}")))?;
        }
        for (transport, scopes) in &file.transports.0 {
            for scope in scopes.0.keys() {
                check_scope(transport, scope).map_err(|error| blame(format!("{error:#}")))?;
            }
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// The requirements for an image: by the first of `scopes` that there is, else for its transport, else for all. The
    /// second value says which, for people.
    pub(super) fn find(&self, transport: &str, scopes: &[String]) -> (&[Requirement], String) {
        if let Some(known) = self.file.transports.0.get(transport) {
            for scope in scopes.iter().filter(|scope| !scope.is_empty()) {
                if let Some(found) = known.0.get(scope) {
                    return (found, format!("{transport}:{scope}"));
                }
            }
            if let Some(found) = known.0.get("") {
                return (found, format!("{transport}:"));
            }
        }
        (&self.file.default, "default".to_owned())
    }
}

/// A map each of whose keys may come once.
#[derive(Debug)]
struct Unique<T>(BTreeMap<String, T>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Once<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if found.contains_key(&key) {
                        return Err(A::Error::custom(format!("{key:?} comes twice")));
                    }
                    found.insert(key, value);
                }
                Ok(Unique(found))
            }
        }
        deserializer.deserialize_map(Once(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Corrupt;

    fn parse(text: &str) -> Result<Policy> {
        Policy::parse(Path::new("policy.json"), text.as_bytes())
    }

    #[test]
    fn the_most_exact_scope_counts() {
        let policy = parse(
            r#"{"default":[{"type":"reject"}],"transports":{
                "docker":{"quay.io/a/b:1":[{"type":"insecureAcceptAnything"}],
                          "quay.io/a":[{"type":"reject"},{"type":"reject"}],
                          "":[{"type":"reject"},{"type":"reject"},{"type":"reject"}]},
                "dir":{"/x":[{"type":"reject"}]}}}"#,
        )
        .unwrap();
        let find = |transport: &str, scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            let (found, place) = policy.find(transport, &scopes);
            (found.len(), place)
        };
        let (one, two) = ("quay.io/a/b:1", "quay.io/a/b:2");
        assert_eq!(
            find("docker", &[one, "quay.io/a/b", "quay.io/a"]),
            (1, format!("docker:{one}"))
        );
        assert_eq!(
            find("docker", &[two, "quay.io/a/b", "quay.io/a"]),
            (2, "docker:quay.io/a".into())
        );
        assert_eq!(find("docker", &["quay.io/b"]), (3, "docker:".into()));
        assert_eq!(find("dir", &["/y"]), (1, "default".into()));
        assert_eq!(find("oci", &["/x"]), (1, "default".into()));
    }

    /// The verdicts are those of `skopeo` (tests/conformance compares).
    #[test]
    fn policies_get_the_verdict_of_the_corpus() {
        let corpus = include_str!("../../tests/config/policies.txt");
        let mut count = 0;
        for case in corpus.split("### ").skip(1) {
            let (verdict, text) = case.split_once('\n').unwrap();
            let said = parse(text);
            assert_eq!(said.is_ok(), verdict == "accepted", "{said:?}\n{text}");
            count += 1;
        }
        assert!(count > 90, "only {count} cases");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "",
            "{}",
            r#"{"default":[]}"#,
            r#"{"default":[{"type":"accept"}]}"#,
            r#"{"default":[{"type":"reject","x":1}]}"#,
            r#"{"default":[{"type":"reject"}],"x":1}"#,
            r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"a":{},"a":{}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"a":{"x":[{"type":"reject"}],"x":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"a":{"x":[]}}}"#,
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"X","keyPath":"/x"}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x","keyData":""}]}"#,
            r#"{"default":[{"type":"sigstoreSigned"}]}"#,
            r#"{"default":[{"type":"signedBaseLayer"}]}"#,
            r#"{"default":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"exactRepository","dockerRepository":"a:b:c"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyData":"no base64"}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"dir":{"x":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"oci":{"/":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"oci":{"/x/../y":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker-archive":{"/x":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"atomic":{"h:5000/a:b":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"containers-storage":{"x":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"containers-storage":{"[@/r]x":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"/x","signedIdentity":{"type":"x"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","fulcio":{"caPath":"/x","oidcIssuer":"i","subjectEmail":"e"}}]}"#,
        ] {
            assert!(parse(bad).unwrap_err().is::<Corrupt>(), "{bad}");
        }
        for good in [
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"/x"}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyData":"bm9u\nc2Vuc2U="}]}"#,
            // What nobody implements is in real policies, for images that this one need not be.
            r#"{"default":[{"type":"signedBy","keyType":"signedByGPGKeys","keyPath":"/x"}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"X509Certificates","keyPath":"/x"}]}"#,
            r#"{"default":[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"exactReference","dockerReference":"r.example/a:1"}}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"atomic":{"h:5000/a/b:c":[{"type":"reject"}]},"containers-storage":{"[overlay@/r]":[{"type":"reject"}],"[/r]q.io/x":[{"type":"reject"}]},"unheard-of":{"what ever":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"sigstoreSigned","rekorPublicKeyPath":"/r","fulcio":{"caPath":"/x","oidcIssuer":"i","subjectEmail":"e"}}]}"#,
            r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/x"],"signedIdentity":{"type":"matchRepository"}}]}"#,
        ] {
            parse(good).unwrap();
        }
    }
}
