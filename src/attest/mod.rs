//! What goes beside the files of a build and tells where they come from: bills of materials, provenance.
//!
//! ```text
//! loaded image: packages, documents that came with it ─┐
//! made: boot loader, kernel ───────────────────────────┼──► Bill ──► SPDX, CycloneDX
//! written: names and digests of files ─────────────────┘
//! ```

mod bill;
mod carried;
mod provenance;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use self::carried::Came;
use crate::bootc;
use crate::load::Loaded;
use crate::make::Made;
use crate::output;
use crate::packages::{self, Inventory};
use crate::plan::Plan;
use crate::progress::{Code, Progress};
use crate::request::{PROVENANCE, Request};
use crate::sbom::OperatingSystem;
use crate::written::Written;

/// A document that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentReport {
    /// Where it is.
    pub path: PathBuf,
    /// `spdx`, `cyclonedx`; with `source-` before it what came with the image.
    pub kind: String,
    /// Bytes of it.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// What is known of an image before it is consumed.
#[derive(Debug)]
pub struct Known {
    inventory: Inventory,
    system: OperatingSystem,
    came: Vec<Came>,
}

/// Reads what the documents will tell of the image; `None`: nobody asks for documents.
pub fn read(request: &Request, loaded: &Loaded, progress: &Progress) -> Option<Known> {
    if request.documents.sboms.is_empty() {
        return None;
    }
    let (root, contents) = (loaded.union.root(), &loaded.contents);
    let inventory = packages::read(root, contents);
    for warning in &inventory.warnings {
        progress.warn(Code::Documents, warning.as_str());
    }
    if inventory.packages.is_empty() && inventory.warnings.is_empty() {
        progress.warn(
            Code::Documents,
            "the image has no database of rpm, dpkg, apk or pacman: the bill of materials names no packages",
        );
    }
    let release = bootc::diagnose(root, contents, loaded.source.image.architecture).os_release;
    let value = |key: &str| release.get(key).cloned().unwrap_or_default();
    let system = OperatingSystem {
        id: value("ID"),
        version: value("VERSION_ID"),
        title: loaded.settings.title.clone(),
    };
    let came = carried::find(&loaded.source, request.image.access.offline, progress);
    Some(Known { inventory, system, came })
}

/// Writes the documents beside the files of a build.
pub fn write(
    request: &Request,
    known: Option<Known>,
    plan: &Plan,
    made: &Made,
    written: &Written,
) -> Result<Vec<DocumentReport>> {
    let documents = &request.documents;
    if request.output.dry_run {
        return Ok(Vec::new());
    }
    let mut reports = Vec::new();
    let mut put = |kind: String, extension: &str, bytes: &[u8]| -> Result<PathBuf> {
        let version = Some(made.product.1.as_str());
        let reference = &request.image.reference;
        let path = request.output.document_path(reference, &made.image, version, extension)?;
        let sha256 = output::write_document(&path, bytes)?;
        let size = bytes.len() as u64;
        reports.push(DocumentReport { path: path.clone(), kind, size, sha256 });
        Ok(path)
    };
    if let Some(Known { inventory, system, came }) = known {
        let mut carried = Vec::new();
        for (number, one) in (1..).zip(&came) {
            let extension = one.extension(number);
            let path = put(format!("source-{}", one.form), &extension, &one.bytes)?;
            carried.push(one.kept_as(&path));
        }
        let bill = bill::of(plan, made, written, inventory, system, carried)?;
        for form in &documents.sboms {
            put(form.name().to_owned(), form.extension(), bill.render(*form)?.as_bytes())?;
        }
    }
    if let Some(wanted) = &documents.provenance {
        let bytes = provenance::document(wanted, plan, made, written)?;
        put("provenance".to_owned(), PROVENANCE, &bytes)?;
    }
    Ok(reports)
}
