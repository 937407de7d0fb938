//! The provenance of a build: what it states, and how it is signed.

use anyhow::{Context, Result};

use super::bill;
use crate::make::Made;
use crate::plan::Plan;
use crate::provenance::{self, Input, Provenance, Subject};
use crate::request::ProvenanceRequest;
use crate::written::Written;

/// The document.
pub(super) fn document(
    wanted: &ProvenanceRequest,
    plan: &Plan,
    made: &Made,
    written: &Written,
) -> Result<Vec<u8>> {
    let subjects = bill::artifacts(written).into_iter().map(|artifact| Subject {
        name: artifact.name,
        sha256: artifact.sha256,
        format: artifact.format,
    });
    let image = &made.image;
    let inputs = wanted
        .inputs
        .iter()
        .map(|(flag, sha256)| Input { flag: flag.clone(), sha256: sha256.clone() });
    let provenance = Provenance {
        subjects: subjects.collect(),
        // A path says something about this machine, and nothing about the image.
        reference: Some(image.reference.clone()).filter(|text| text.starts_with("docker://")),
        digest: image.manifest_digest.clone(),
        name: image.name.clone(),
        target: plan.system.target.clone(),
        architecture: image.architecture.name().to_owned(),
        arguments: wanted.arguments.clone(),
        inputs: inputs.collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let statement = provenance.statement();
    let document = match &wanted.key {
        None => statement,
        Some(key) => {
            let statement = serde_json::to_vec(&statement).context("writing the statement")?;
            let signature = key.sign(&provenance::pre_authentication(&statement));
            provenance::bundle(&statement, &key.hint(), &signature)
        }
    };
    let mut bytes = serde_json::to_vec_pretty(&document).context("writing the provenance")?;
    bytes.push(b'\n');
    Ok(bytes)
}
