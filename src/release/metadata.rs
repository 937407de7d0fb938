//! `build-metadata.json`: what was built from what, by what, for infrastructure that keeps records of builds.
//!
//! `build-metadata.schema.json` beside this file describes it.

use serde_json::{Value, json};

use super::{Artifact, productmd};
use crate::naming::Naming;
use crate::progress::Warning;
use crate::report::Report;

/// The form of the document; grows by one when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// What is known besides the report.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// The report.
    pub report: &'a Report,
    /// Its files.
    pub artifacts: &'a [Artifact],
    /// The compose that they belong to, and names.
    pub naming: &'a Naming,
    /// Warnings.
    pub warnings: &'a [Warning],
}

/// The document.
pub fn document(build: Build<'_>) -> Value {
    let Build { report, artifacts, naming, warnings } = build;
    let labels = report.origin.as_ref().and_then(|origin| origin.image.labels());
    let artifacts: Vec<Value> = artifacts
        .iter()
        .map(|artifact| {
            json!({
                "file": artifact.name(),
                "format": artifact.format(),
                "size": artifact.size,
                "sha256": artifact.sha256,
                "disk_size": artifact.disk_size,
                "uncompressed": artifact.uncompressed,
                "volume_id": artifact.volume_id,
            })
        })
        .collect();
    let compose = naming.compose.as_ref().map(|id| {
        json!({
            "id": id.to_string(),
            "variant": naming.variant,
            "subvariant": naming.subvariant,
        })
    });
    let warnings: Vec<Value> = warnings
        .iter()
        .map(|warning| json!({ "code": warning.code.name(), "message": warning.message }))
        .collect();
    json!({
        "version": VERSION,
        "tool": { "name": "bootpress", "version": env!("CARGO_PKG_VERSION") },
        "compose": compose,
        "image": {
            "reference": report.image.reference,
            "digest": report.image.digest,
            "version": report.image.version,
            "labels": labels,
            "layers": report.image.layers,
        },
        "trust": report.trust,
        "architecture": report.architecture,
        "system": report.system,
        "artifacts": artifacts,
        "stages": report.stages,
        "warnings": warnings,
    })
}

/// The document as text.
pub fn text(document: &Value) -> String {
    productmd::text(document)
}
