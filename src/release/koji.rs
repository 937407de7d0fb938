//! `metadata.json` of a content generator: how Koji imports builds that it did not make.
//!
//! ```text
//! {"metadata_version": 0, "build": {name, version, release, …}, "buildroots": [{id: 1, …}], "output": [{buildroot_id: 1, …}]}
//! ```
//!
//! Source: Koji's documentation, "Content Generator Metadata".

use anyhow::Result;
use serde_json::{Value, json};

use super::{Artifact, productmd};
use crate::error::unsupported;
use crate::naming::{Naming, Origin, Value as Named};
use crate::report::Report;

/// When the work was done, in seconds since 1970. Koji wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// The beginning.
    pub start: u64,
    /// The end.
    pub end: u64,
}

/// The document of a build; `stem` is the image's name.
///
/// `Unsupported` if the build cannot be named: the error names the flag.
pub fn metadata(
    report: &Report,
    artifacts: &[Artifact],
    naming: &Naming,
    stem: &str,
    period: Period,
) -> Result<String> {
    let unknown = |what: &str| {
        unsupported(
            format!("Koji wants a {what}, and the image does not tell it"),
            Some(&format!("add --compose-id ID or --name-value {what}=TEXT")),
        )
    };
    let origin = report.origin.as_ref().ok_or_else(|| unknown("version"))?;
    let origin = Origin { stem, image: &origin.image, os_version: &origin.version };
    let value = |value: Named| naming.value(value, origin).ok_or_else(|| unknown(value.name()));
    let release = format!("{}.{}", value(Named::Date)?, value(Named::Respin)?);
    let architecture = report.architecture.name();
    let output: Vec<Value> = artifacts
        .iter()
        .map(|artifact| {
            json!({
                "buildroot_id": 1,
                "filename": artifact.name(),
                "filesize": artifact.size,
                "arch": architecture,
                "checksum_type": "sha256",
                "checksum": artifact.sha256,
                "type": "image",
                "components": [],
                "extra": { "image": { "arch": architecture, "format": artifact.format() } },
            })
        })
        .collect();
    let document = json!({
        "metadata_version": 0,
        "build": {
            "name": value(Named::Name)?,
            "version": value(Named::Version)?,
            "release": release,
            "epoch": null,
            "source": format!("{}@{}", report.image.reference, report.image.digest),
            "start_time": period.start,
            "end_time": period.end,
            "extra": { "typeinfo": { "image": {} }, "image": {
                "source_image": report.image.reference,
                "source_digest": report.image.digest,
            } },
        },
        "buildroots": [{
            "id": 1,
            "host": { "os": std::env::consts::OS, "arch": std::env::consts::ARCH },
            "content_generator": { "name": "bootpress", "version": env!("CARGO_PKG_VERSION") },
            "container": { "type": "none", "arch": std::env::consts::ARCH },
            "tools": [{ "name": "bootpress", "version": env!("CARGO_PKG_VERSION") }],
            "components": [],
            "extra": {},
        }],
        "output": output,
    });
    Ok(productmd::text(&document))
}
