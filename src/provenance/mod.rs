//! Provenance: an in-toto statement (v1) with SLSA's predicate (v1), bare or signed, in a sigstore bundle.
//!
//! ```text
//! statement: subject: names and digests of the files │ predicate:
//!   buildDefinition   externalParameters: image, arguments, digests of files that flags name │ resolvedDependencies: digests
//!   runDetails        builder: this program and its version
//!
//! bundle:   { mediaType, verificationMaterial, dsseEnvelope: { payloadType, payload: BASE64, signatures: [{ sig: BASE64 }] } }
//! signed:   "DSSEv1" SP length SP type SP length SP payload
//! ```
//!
//! Nothing in it depends on when, where or by whom a disk was built: times, which SLSA makes optional, are left out.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::signature::from_base64;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
const PAYLOAD: &str = "application/vnd.in-toto+json";
/// What the parameters mean: the flags of `bootpress build`.
const BUILD_TYPE: &str = "urn:bootpress:build:1";
const BUILDER: &str = "urn:bootpress";

/// Bytes of a document; real ones have 5 kB.
pub const LARGEST: u64 = 16 << 20;

/// A file that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its name, without directories.
    pub name: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Its format, as `--format` takes it.
    pub format: String,
}

/// A file that a flag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The flag: `--config`.
    pub flag: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// What was built, from what, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The files.
    pub subjects: Vec<Subject>,
    /// Where the image was: `docker://quay.io/fedora/fedora-bootc:43`; `None`: on the machine that built it.
    pub reference: Option<String>,
    /// Digest of the manifest: `sha256:…`.
    pub digest: String,
    /// What the image is called.
    pub name: Option<String>,
    /// What the machine follows for updates: `docker://…`.
    pub target: String,
    /// `x86_64`.
    pub architecture: String,
    /// Flags of the build that count for its bytes, as they are typed.
    pub arguments: Vec<String>,
    /// Files that flags name.
    pub inputs: Vec<Input>,
    /// The version of this program.
    pub version: String,
}

impl Provenance {
    /// The statement as JSON.
    pub fn statement(&self) -> Value {
        let subjects: Vec<Value> = self
            .subjects
            .iter()
            .map(|one| {
                json!({
                    "name": one.name,
                    "digest": { "sha256": one.sha256 },
                    "annotations": { "format": one.format },
                })
            })
            .collect();
        let mut inputs = serde_json::Map::new();
        let hex = self.digest.trim_start_matches("sha256:");
        let mut dependencies = vec![json!({
            "name": "image",
            "uri": self.reference.as_deref().unwrap_or("oci:"),
            "digest": { "sha256": hex },
        })];
        for Input { flag, sha256 } in &self.inputs {
            inputs.insert(flag.clone(), json!({ "sha256": sha256 }));
            dependencies.push(json!({ "name": flag, "digest": { "sha256": sha256 } }));
        }
        json!({
            "_type": STATEMENT,
            "subject": subjects,
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "image": self.reference,
                        "arguments": self.arguments,
                        "inputs": inputs,
                    },
                    "internalParameters": {
                        "architecture": self.architecture,
                        "imageName": self.name,
                        "target": self.target,
                    },
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": { "id": BUILDER, "version": { "bootpress": self.version } },
                },
            },
        })
    }

    /// Reads a statement of ours.
    pub fn parse(statement: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(statement).context("it is not JSON")?;
        let is = |pointer: &str, wanted: &str| {
            let found = value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            ensure!(
                found == wanted,
                "{} is {found:?}, not {wanted:?}",
                pointer.trim_start_matches('/')
            );
            Ok(())
        };
        is("/_type", STATEMENT)?;
        is("/predicateType", PREDICATE)?;
        is("/predicate/buildDefinition/buildType", BUILD_TYPE)?;
        let definition = &value["predicate"]["buildDefinition"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let listed = list(&value["subject"]);
        let subjects = listed.iter().filter_map(|one| {
            Some(Subject {
                name: text(&one["name"])?,
                sha256: text(&one["digest"]["sha256"])?,
                format: text(&one["annotations"]["format"])?,
            })
        });
        let inputs = definition["externalParameters"]["inputs"].as_object().cloned();
        let inputs = inputs
            .into_iter()
            .flatten()
            .filter_map(|(flag, value)| Some(Input { flag, sha256: text(&value["sha256"])? }));
        let image = list(&definition["resolvedDependencies"])
            .into_iter()
            .find(|one| one["name"] == "image");
        let digest = image
            .and_then(|image| text(&image["digest"]["sha256"]))
            .context("it names no image")?;
        let internal = &definition["internalParameters"];
        let provenance = Self {
            subjects: subjects.collect(),
            reference: text(&definition["externalParameters"]["image"]),
            digest: format!("sha256:{digest}"),
            name: text(&internal["imageName"]),
            target: text(&internal["target"]).context("it names no target of updates")?,
            architecture: text(&internal["architecture"]).context("it names no architecture")?,
            arguments: list(&definition["externalParameters"]["arguments"])
                .iter()
                .filter_map(text)
                .collect(),
            inputs: inputs.collect(),
            version: text(&value["predicate"]["runDetails"]["builder"]["version"]["bootpress"])
                .unwrap_or_default(),
        };
        ensure!(!provenance.subjects.is_empty(), "it names no files");
        Ok(provenance)
    }
}

/// A document as it was read: what it states, and who signed that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The statement.
    pub statement: Vec<u8>,
    /// What signatures are of; empty: it is not signed.
    pub signed: Vec<u8>,
    /// The signatures.
    pub signatures: Vec<Vec<u8>>,
}

impl Document {
    /// Reads a statement, or an envelope with one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).context("it is not JSON")?;
        // A sigstore bundle has the envelope inside.
        let value = value.get("dsseEnvelope").cloned().unwrap_or(value);
        let Some(payload) = value.get("payload").and_then(Value::as_str) else {
            return Ok(Self {
                statement: bytes.to_vec(),
                signed: Vec::new(),
                signatures: Vec::new(),
            });
        };
        let kind = value.get("payloadType").and_then(Value::as_str).unwrap_or_default();
        ensure!(kind == PAYLOAD, "its payload is {kind:?}, not {PAYLOAD:?}");
        let statement = from_base64(payload).context("its payload is not base64")?;
        let signatures = value.get("signatures").and_then(Value::as_array).into_iter().flatten();
        let signatures = signatures.filter_map(|one| from_base64(one.get("sig")?.as_str()?).ok());
        Ok(Self {
            signed: pre_authentication(&statement),
            statement,
            signatures: signatures.collect(),
        })
    }
}

/// What is signed of a statement (DSSE 1.0, "Signature Definition").
pub fn pre_authentication(statement: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), statement.len());
    [head.as_bytes(), statement].concat()
}

/// A signed statement as a sigstore bundle, which is what cosign 3 verifies; the DSSE envelope is its `dsseEnvelope`.
///
/// `hint`: which key it was. There is no entry of a log: who signs with a key of their own tells nobody.
pub fn bundle(statement: &[u8], hint: &str, signature: &[u8]) -> Value {
    json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": hint } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(statement),
            "payloadType": PAYLOAD,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        Provenance {
            subjects: vec![Subject {
                name: "x.qcow2".to_owned(),
                sha256: "00".repeat(32),
                format: "qcow2".to_owned(),
            }],
            reference: Some("docker://quay.io/x/y:1".to_owned()),
            digest: format!("sha256:{}", "11".repeat(32)),
            name: Some("quay.io/x/y:1".to_owned()),
            target: "docker://quay.io/x/y:1".to_owned(),
            architecture: "x86_64".to_owned(),
            arguments: vec!["--karg=quiet".to_owned()],
            inputs: vec![Input { flag: "--config".to_owned(), sha256: "22".repeat(32) }],
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn statement_is_read_as_it_was_written_bare_and_signed() {
        let statement = serde_json::to_vec(&provenance().statement()).unwrap();
        let bare = Document::parse(&statement).unwrap();
        assert!(bare.signatures.is_empty());
        assert_eq!(Provenance::parse(&bare.statement).unwrap(), provenance());
        let signed = bundle(&statement, "key", b"signature").to_string();
        let signed = Document::parse(signed.as_bytes()).unwrap();
        assert_eq!(signed.signatures, [b"signature"]);
        assert!(signed.signed.starts_with(b"DSSEv1 28 application/vnd.in-toto+json "));
        assert_eq!(Provenance::parse(&signed.statement).unwrap(), provenance());
    }

    #[test]
    fn statements_of_others_are_refused() {
        let parse = |text: &str| Provenance::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(parse("x").contains("not JSON"));
        assert!(parse("{}").contains("_type is \"\""));
        let mut other = provenance().statement();
        other["predicate"]["buildDefinition"]["buildType"] = json!("https://example.org/x");
        assert!(parse(&other.to_string()).contains("buildType is \"https://example.org/x\""));
        let mut none = provenance().statement();
        none["subject"] = json!([]);
        assert!(parse(&none.to_string()).contains("names no files"));
    }
}
