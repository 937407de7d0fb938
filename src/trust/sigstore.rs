//! Sigstore signatures: detached ones as cosign attaches them, and bundles.
//!
//! A bundle holds a DSSE envelope around an in-toto statement:
//!
//! ```text
//! { "verificationMaterial": …, "dsseEnvelope": { "payloadType": TYPE, "payload": BASE64, "signatures": [{ "sig": BASE64 }] } }
//!
//! signed bytes: "DSSEv1" SP length SP TYPE SP length SP payload
//! payload: { "_type": …, "predicateType": …, "subject": [{ "digest": { "sha256": hex } }], … }
//! ```

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use x509_cert::der::pem;

use super::certificate::{self, Signer};
use super::key::Key;
use super::log;
use super::payload::{COSIGN, Statement};
use super::policy::{Material, SigstoreSigned};
use crate::signature::{Sigstore, from_base64};

const STATEMENTS: [&str; 2] =
    ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// What `cosign sign` states. Other predicates, such as provenance, say something about an image without approving of it.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A public key, and what people call it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) key: Key,
}

impl Named {
    pub(super) fn parse(material: &Material) -> Result<Self> {
        let key =
            Key::from_pem(&material.bytes).with_context(|| format!("reading {}", material.name))?;
        Ok(Self { name: material.name.clone(), key })
    }
}

/// Who has to have signed.
#[derive(Debug)]
pub(super) enum Signers {
    /// Somebody with one of these keys; if logs are given, one of them has to know.
    Keys { keys: Vec<Named>, logs: Option<Vec<Key>> },
    /// Somebody whom Fulcio knew, at a time that a log attests.
    Fulcio { roots: Vec<Vec<u8>>, logs: Vec<Key>, issuer: String, email: String },
    /// Somebody with a certificate that is good now.
    Pki { roots: Vec<Vec<u8>>, between: Vec<Vec<u8>>, email: Option<String>, host: Option<String> },
}

/// A key that signed, for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct By {
    pub(super) key: String,
    pub(super) fingerprint: String,
}

impl Signers {
    /// Reads the files that a requirement names.
    pub(super) fn of(requirement: &SigstoreSigned) -> Result<Self> {
        let logs = requirement.log_keys()?;
        let logs = logs
            .map(|logs| {
                logs.iter().map(|log| Ok(Named::parse(log)?.key)).collect::<Result<Vec<_>>>()
            })
            .transpose()?;
        let certificates = |material: &Material| {
            certificate::from_pem(&material.bytes)
                .with_context(|| format!("reading {}", material.name))
        };
        if let Some(fulcio) = &requirement.fulcio {
            return Ok(Self::Fulcio {
                roots: certificates(&fulcio.authority()?)?,
                logs: logs.context("fulcio needs a key of Rekor, too")?,
                issuer: fulcio.oidc_issuer.clone(),
                email: fulcio.subject_email.clone(),
            });
        }
        if let Some(pki) = &requirement.pki {
            let (roots, between) = pki.authority()?;
            return Ok(Self::Pki {
                roots: certificates(&roots)?,
                between: between.as_ref().map(certificates).transpose()?.unwrap_or_default(),
                email: pki.subject_email.clone(),
                host: pki.subject_hostname.clone(),
            });
        }
        let keys = requirement.keys()?.context("no key is given")?;
        let keys = keys.iter().map(Named::parse).collect::<Result<_>>()?;
        Ok(Self::Keys { keys, logs })
    }

    /// Verifies a detached signature. Returns what it states, and who made it; `now` in seconds since 1970.
    pub(super) fn verify(&self, signature: &Sigstore, now: u64) -> Result<(Statement, By)> {
        let bytes = from_base64(&signature.signature).context("it is not base64")?;
        let payload = &signature.payload[..];
        let promise = || signature.log_entry.as_deref().context("no log promises to know it");
        let by = match self {
            Self::Keys { keys, logs } => {
                let Named { name, key } = keys
                    .iter()
                    .find(|named| named.key.verifies(payload, &bytes))
                    .with_context(|| format!("it was not made with {}", names(keys)))?;
                if let Some(logs) = logs {
                    log::logged(promise()?, logs, payload, &bytes, key.der())?;
                }
                By { key: name.clone(), fingerprint: key.fingerprint() }
            }
            Self::Fulcio { roots, logs, issuer, email } => {
                let (own, chain) = certificates(signature)?;
                let time = log::logged(promise()?, logs, payload, &bytes, &own)?;
                let signer = Signer::trusted(&own, &chain, roots, time)?;
                signer.check_issuer(issuer)?;
                signer.check_email(email)?;
                ensure!(
                    signer.key.verifies(payload, &bytes),
                    "it was not made with the key of its certificate"
                );
                let fingerprint = signer.key.fingerprint();
                By { key: format!("{email}, logged in at {issuer}"), fingerprint }
            }
            Self::Pki { roots, between, email, host } => {
                let (own, mut chain) = certificates(signature)?;
                chain.extend_from_slice(between);
                let signer = Signer::trusted(&own, &chain, roots, now)?;
                email.iter().try_for_each(|email| signer.check_email(email))?;
                host.iter().try_for_each(|host| signer.check_host(host))?;
                ensure!(
                    signer.key.verifies(payload, &bytes),
                    "it was not made with the key of its certificate"
                );
                let whom: Vec<&str> = email.iter().chain(host).map(String::as_str).collect();
                By { key: whom.join(", "), fingerprint: signer.key.fingerprint() }
            }
        };
        Ok((Statement::parse(payload, COSIGN)?, by))
    }

    /// Verifies a bundle; only keys can have made it. What it states has no name in it.
    pub(super) fn verify_bundle(
        &self,
        bundle: &[u8],
        digests: &[String],
    ) -> Result<(Statement, By)> {
        let Self::Keys { keys, logs: None } = self else {
            bail!(
                "it is a sigstore bundle, of which only those made with a key and without a log are read"
            );
        };
        let bundle: Bundle =
            serde_json::from_slice(bundle).context("the bundle is not understood")?;
        let envelope = bundle.dsse_envelope.context("the bundle has no envelope")?;
        let payload = from_base64(&envelope.payload).context("its payload is not base64")?;
        let signed = [
            format!(
                "DSSEv1 {} {} {} ",
                envelope.payload_type.len(),
                envelope.payload_type,
                payload.len()
            )
            .as_bytes(),
            &payload,
        ]
        .concat();
        let by = envelope.signatures.iter().find_map(|signature| {
            let bytes = from_base64(&signature.sig).ok()?;
            keys.iter().find(|named| named.key.verifies(&signed, &bytes))
        });
        let Named { name, key } =
            by.with_context(|| format!("it was not made with {}", names(keys)))?;
        ensure!(
            envelope.payload_type == "application/vnd.in-toto+json",
            "what it signs is {:?}",
            envelope.payload_type
        );
        let statement: InToto =
            serde_json::from_slice(&payload).context("what it signs is not understood")?;
        ensure!(
            STATEMENTS.contains(&statement.kind.as_str()) && statement.predicate_type == PREDICATE,
            "it states {:?}, which is not an approval of an image",
            statement.predicate_type
        );
        let stated = statement.subject.iter().filter_map(|subject| subject.digest.sha256.as_ref());
        let stated: Vec<String> = stated.map(|hex| format!("sha256:{hex}")).collect();
        let digest = stated.iter().find(|digest| digests.contains(digest)).or(stated.first());
        let digest = digest.context("what it signs has no digest")?.clone();
        let by = By { key: name.clone(), fingerprint: key.fingerprint() };
        Ok((Statement { digest, identity: None }, by))
    }
}

fn names(keys: &[Named]) -> String {
    keys.iter().map(|named| named.name.as_str()).collect::<Vec<_>>().join(" or ")
}

/// The certificate of a signature, and those that came with it, in DER.
fn certificates(signature: &Sigstore) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let own = signature.certificate.as_ref().context("it has no certificate")?;
    let own = match pem::decode_vec(own.trim().as_bytes()) {
        Ok(("CERTIFICATE", der)) => der,
        _ => bail!("its certificate is not PEM"),
    };
    let chain = match signature.chain.as_deref().map(str::trim) {
        None | Some("") => Vec::new(),
        Some(chain) => certificate::from_pem(chain.as_bytes()).context("reading its chain")?,
    };
    Ok((own, chain))
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "dsseEnvelope")]
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
struct InToto {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}
