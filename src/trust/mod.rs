//! Who has to vouch for an image, and whether somebody does: signature policies, sigstore and simple signing.
//!
//! ```text
//! Demand ──► policy.json ──(transport, scope)──► requirements ─┐
//!        └──► --verify-key ───────────────────────────────────┴──► each: some claim whose signature is good,
//!                                                                  whose digest is the image's, whose name fits
//! ```
//!
//! An image that is not accepted is an error before anything of it is unpacked. A signature of an index counts for the image
//! that is chosen from it: the index names that image's manifest by digest.

mod certificate;
mod key;
mod log;
mod openpgp;
mod payload;
mod places;
mod policy;
mod reference;
mod signing;
mod sigstore;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use self::openpgp::Ring;
use self::payload::Statement;
use self::places::Places;
use self::policy::{Material, Policy, Requirement};
use self::reference::Identity;
pub use self::signing::{SigningKey, signer};
use self::sigstore::{By, Named, Signers};
use crate::signature::{Claim, Signature, Subject, Wanted};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// What the first policy says that container tools would find here; without one, nothing.
    #[default]
    Found,
    /// What this policy says.
    Policy(PathBuf),
    /// Nothing.
    Nothing,
    /// A signature with one of these public keys.
    Keys {
        /// Files, PEM for sigstore's keys, armoured or not for OpenPGP's.
        files: Vec<PathBuf>,
        /// The name that it has to be for, its tag does not matter; `None`: the image's own, if it has one.
        name: Option<String>,
    },
}

/// Why an image was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether somebody vouches for the image.
    pub verified: bool,
    /// What decided: a policy file, a flag, or that there is none.
    pub by: String,
    /// What the policy said it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// One good signature for each requirement.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Accepted>,
}

/// A signature that is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// `sigstore` or `simple signing`.
    pub kind: &'static str,
    /// The key, in words.
    pub key: String,
    /// The key's fingerprint.
    pub fingerprint: String,
    /// The name that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The manifest or index that it is for.
    pub digest: String,
    /// Where it was found.
    pub place: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verified, by, scope, signatures } = self;
        if !verified {
            return write!(f, "not verified ({by})");
        }
        f.write_str("verified: ")?;
        for (number, signature) in signatures.iter().enumerate() {
            let Accepted { kind, key, fingerprint, .. } = signature;
            let separator = if number == 0 { "" } else { ", and " };
            write!(f, "{separator}{kind} by {key} ({fingerprint})")?;
        }
        scope.iter().try_for_each(|scope| write!(f, "; {by}, {scope}"))
    }
}

/// What has to be met.
enum Need {
    Nothing,
    Rejection,
    Simple {
        rings: Vec<Ring>,
        identity: Identity,
    },
    /// `nameless`: a bundle, which names its image by digest alone, will do. For who brings a key it does; a policy protects
    /// the name.
    Sigstore {
        signers: Signers,
        identity: Identity,
        nameless: bool,
    },
}

/// Whether an image may be used. `find` looks for signatures; it is called only if some are needed.
///
/// The error names the policy and what is wrong with each signature that there is.
pub fn check(
    demand: &Demand,
    subject: &Subject,
    find: &dyn Fn(&Wanted) -> Result<Vec<Claim>>,
) -> Result<Verdict> {
    let policy = match demand {
        Demand::Nothing => return Ok(unverified("--insecure-policy")),
        Demand::Keys { files, name } => {
            let by = "--verify-key";
            let needs = vec![keys(files, name.as_deref(), subject)?];
            return decide(&needs, by, None, subject, find).with_context(|| refused(subject, by));
        }
        Demand::Policy(path) => Policy::read(path)?,
        Demand::Found => match policy_path() {
            Some(path) => Policy::read(&path)?,
            None => return Ok(unverified("there is no signature policy")),
        },
    };
    let by = policy.path.display().to_string();
    let (requirements, scope) = policy.find(subject.transport, &subject.scopes);
    let needs = requirements
        .iter()
        .map(Need::of)
        .collect::<Result<Vec<_>>>()
        .with_context(|| format!("reading {by}, {scope}"))?;
    let place = format!("{by}, {scope}");
    decide(&needs, &by, Some(scope), subject, find).with_context(|| refused(subject, &place))
}

fn refused(subject: &Subject, by: &str) -> String {
    let what = subject.scopes.first().or(subject.reference.as_ref());
    let what = what.map_or_else(String::new, |name| format!(" {}:{name}", subject.transport));
    format!("the image{what} is refused by {by}")
}

fn unverified(by: &str) -> Verdict {
    Verdict { verified: false, by: by.to_owned(), scope: None, signatures: Vec::new() }
}

/// The policy that container tools find here.
fn policy_path() -> Option<PathBuf> {
    let own = user_configuration().map(|directory| directory.join("policy.json"));
    let system = ["/etc/containers/policy.json", "/usr/share/containers/policy.json"];
    own.into_iter().chain(system.map(PathBuf::from)).find(|path| path.exists())
}

/// `~/.config/containers`, where a user's configuration of container tools is.
fn user_configuration() -> Option<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let directory = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
    Some(directory.join("containers"))
}

fn keys(files: &[PathBuf], name: Option<&str>, subject: &Subject) -> Result<Need> {
    let material = files.iter().map(|file| Material::read(file)).collect::<Result<Vec<_>>>()?;
    let is_sigstore = |material: &Material| {
        material.bytes.trim_ascii_start().starts_with(b"-----BEGIN PUBLIC KEY-----")
    };
    let identity = match name.or(subject.reference.as_deref()).or(subject.called.as_deref()) {
        Some(name) => {
            let name = reference::Name::parse(name)?;
            Identity::ExactRepository { docker_repository: name.repository }
        }
        None => Identity::Any,
    };
    if material.iter().all(is_sigstore) {
        let keys = material.iter().map(Named::parse).collect::<Result<_>>()?;
        let signers = Signers::Keys { keys, logs: None };
        return Ok(Need::Sigstore { signers, identity, nameless: name.is_none() });
    }
    ensure!(
        !material.iter().any(is_sigstore),
        "the keys are of different kinds: sigstore's and OpenPGP's"
    );
    let rings = material.iter().map(Ring::parse).collect::<Result<_>>()?;
    Ok(Need::Simple { rings, identity })
}

impl Need {
    fn of(requirement: &Requirement) -> Result<Self> {
        Ok(match requirement {
            Requirement::InsecureAcceptAnything(_) => Self::Nothing,
            Requirement::Reject(_) => Self::Rejection,
            Requirement::SignedBy(fields) => Self::Simple {
                rings: fields.keys()?.iter().map(Ring::parse).collect::<Result<_>>()?,
                identity: fields.signed_identity.clone(),
            },
            Requirement::SignedBaseLayer(_) => {
                bail!("signatures of base layers are not implemented, here or in other tools")
            }
            Requirement::SigstoreSigned(fields) => Self::Sigstore {
                signers: Signers::of(fields)?,
                identity: fields.signed_identity.clone(),
                nameless: false,
            },
        })
    }
}

fn decide(
    needs: &[Need],
    by: &str,
    scope: Option<String>,
    subject: &Subject,
    find: &dyn Fn(&Wanted) -> Result<Vec<Claim>>,
) -> Result<Verdict> {
    if needs.iter().any(|need| matches!(need, Need::Rejection)) {
        bail!("it rejects all images from there");
    }
    let wants = |kind: fn(&Need) -> bool| needs.iter().any(kind);
    let sigstore = wants(|need| matches!(need, Need::Sigstore { .. }));
    let simple = wants(|need| matches!(need, Need::Simple { .. }));
    if !sigstore && !simple {
        return Ok(Verdict { scope, ..unverified(&format!("{by} accepts anything")) });
    }
    let claims = find(&wanted(subject, sigstore)?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut signatures = Vec::new();
    for need in needs {
        let (kind, wanted_key) = match need {
            Need::Nothing | Need::Rejection => continue,
            Need::Simple { .. } => ("simple signing", "a simple signature"),
            Need::Sigstore { .. } => ("sigstore", "a sigstore signature"),
        };
        let mut reasons = Vec::new();
        let mut good = None;
        for claim in &claims {
            match need.met(claim, subject, now) {
                Ok((Statement { digest, identity }, By { key, fingerprint })) => {
                    let place = claim.place.clone();
                    good = Some(Accepted { kind, key, fingerprint, identity, digest, place });
                    break;
                }
                Err(error) => reasons.push(format!("{}: {error:#}", claim.place)),
            }
        }
        match good {
            Some(accepted) => signatures.push(accepted),
            None if reasons.is_empty() => bail!("it needs {wanted_key}, and the image has none"),
            None => bail!("it needs {wanted_key}, and none is good: {}", reasons.join("; ")),
        }
    }
    Ok(Verdict { verified: true, by: by.to_owned(), scope, signatures })
}

impl Need {
    fn met(&self, claim: &Claim, subject: &Subject, now: u64) -> Result<(Statement, By)> {
        let (statement, by, identity) = match (self, &claim.signature) {
            (Self::Simple { rings, identity }, Signature::Simple(message)) => {
                let (statement, by) = openpgp::verify(message, rings, now)?;
                (statement, by, identity)
            }
            (Self::Sigstore { signers, identity, .. }, Signature::Sigstore(signature)) => {
                let (statement, by) = signers.verify(signature, now)?;
                (statement, by, identity)
            }
            (Self::Sigstore { signers, identity, .. }, Signature::Bundle(bundle)) => {
                let (statement, by) = signers.verify_bundle(bundle, &subject.digests)?;
                (statement, by, identity)
            }
            (_, Signature::Unknown(form)) => bail!("it is of an unknown form, {form}"),
            (Self::Simple { .. }, _) => bail!("it is a sigstore signature"),
            _ => bail!("it is a simple signature"),
        };
        ensure!(
            subject.digests.contains(&statement.digest),
            "it is for {}, not for this image",
            statement.digest
        );
        match &statement.identity {
            Some(signed) => identity.accepts(signed, subject.reference.as_deref())?,
            None => ensure!(
                matches!(self, Self::Sigstore { nameless: true, .. }),
                "it is for no name, and {} is wanted",
                identity.wanted(subject.reference.as_deref())
            ),
        }
        Ok((statement, by))
    }
}

/// Where to look for signatures.
fn wanted(subject: &Subject, sigstore: bool) -> Result<Wanted> {
    let own = user_configuration().map(|directory| directory.join("registries.d"));
    let directory = own.filter(|path| path.is_dir());
    let directory = directory.as_deref().unwrap_or(Path::new("/etc/containers/registries.d"));
    if subject.transport != "docker" {
        return Ok(Wanted { lookaside: None, attachments: sigstore });
    }
    let places = Places::read(directory)?;
    Ok(match places.find(&subject.scopes) {
        Some(section) => Wanted {
            lookaside: section.lookaside.clone(),
            attachments: sigstore && section.attachments != Some(false),
        },
        None => Wanted { lookaside: default_lookaside(), attachments: sigstore },
    })
}

/// Where tools put signatures that nobody configured a place for.
fn default_lookaside() -> Option<String> {
    let directory = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/lib/containers/sigstore")
    } else {
        PathBuf::from(env::var_os("HOME")?).join(".local/share/containers/sigstore")
    };
    Some(format!("file://{}", directory.display()))
}

#[cfg(test)]
mod tests;
