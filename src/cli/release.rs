//! What is written after a build: CHECKSUM, signatures, metadata of composes and builds.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bootpress::output;
use bootpress::progress::Warning;
use bootpress::release::checksum::Checksums;
use bootpress::release::koji::{self, Period};
use bootpress::release::metadata::{self, Build};
use bootpress::release::productmd::{self, Placed};
use bootpress::release::{self, Artifact};
use bootpress::report::{PublishedReport, Report};
use bootpress::request::Request;

use super::flags::release::{ReleasePlan, below, existing, shelf};

/// Writes what the flags ask for, for the files of a build that began at a time. Returns the files that were written.
pub(super) fn publish(
    plan: &ReleasePlan,
    request: &Request,
    report: &Report,
    warnings: &[Warning],
    began: SystemTime,
) -> Result<Vec<PublishedReport>> {
    if request.output.dry_run {
        return Ok(Vec::new());
    }
    let work = Work { plan, request, artifacts: release::artifacts(report)? };
    let mut published = Vec::new();
    let mut add = |path: PathBuf, what| published.push(PublishedReport { path, what });
    for artifact in &work.artifacts {
        for signer in &plan.signers {
            add(signer.sign(&artifact.path)?, "signature");
        }
    }
    if let Some(path) = &plan.checksum {
        for (path, what) in work.checksum(path)? {
            add(path, what);
        }
    }
    for path in work.compose()? {
        add(path, "compose metadata");
    }
    if let Some(path) = &plan.koji_metadata {
        let stem = request.image.reference.file_stem();
        let period = Period { start: seconds(began), end: seconds(SystemTime::now()) };
        let text = koji::metadata(report, &work.artifacts, &plan.naming, &stem, period)?;
        output::write_document(path, text.as_bytes())?;
        add(path.clone(), "koji metadata");
    }
    if let Some(path) = &plan.build_metadata {
        let build = Build { report, artifacts: &work.artifacts, naming: &plan.naming, warnings };
        let text = metadata::text(&metadata::document(build));
        output::write_document(path, text.as_bytes())?;
        add(path.clone(), "build metadata");
    }
    Ok(published)
}

struct Work<'a> {
    plan: &'a ReleasePlan,
    request: &'a Request,
    artifacts: Vec<Artifact>,
}

impl Work<'_> {
    /// Writes CHECKSUM, and signs it if somebody signs.
    fn checksum(&self, path: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
        let name = path.display().to_string();
        let there = existing(path)?.map(|text| Checksums::parse(&name, &text)).transpose()?;
        let mut sums = there.unwrap_or_default();
        self.artifacts.iter().for_each(|artifact| sums.put(artifact));
        output::write_document(path, sums.to_string().as_bytes())?;
        // One text has one clear signature; signatures of files may be many.
        if let Some(signer) = self.plan.signers.iter().find(|signer| signer.is_openpgp()) {
            signer.clear_sign(path)?;
        }
        let mut written = vec![(path.to_owned(), "checksums")];
        for signer in self.plan.signers.iter().filter(|signer| !signer.is_openpgp()) {
            written.push((signer.sign(path)?, "signature"));
        }
        Ok(written)
    }

    /// Adds to the compose's metadata.
    fn compose(&self) -> Result<Vec<PathBuf>> {
        let naming = &self.plan.naming;
        let (Some(files), Some(compose), Some(variant)) =
            (&self.plan.productmd, &naming.compose, &naming.variant)
        else {
            return Ok(Vec::new());
        };
        let architecture = self.request.image.architecture;
        let shelf = shelf(compose, variant, naming.subvariant.as_deref(), architecture);
        let paths = self.artifacts.iter().map(|artifact| below(&files.root, &artifact.path));
        let paths: Vec<String> = paths.collect::<Result<_>>()?;
        let placed: Vec<Placed<'_>> = self
            .artifacts
            .iter()
            .zip(&paths)
            .map(|(artifact, path)| Placed { artifact, path })
            .collect();
        let directory = paths
            .first()
            .map_or("", |path| path.rsplit_once('/').map_or(".", |(directory, _)| directory));
        let (images, info) = (existing(&files.images)?, existing(&files.info)?);
        let (images_name, info_name) =
            (files.images.display().to_string(), files.info.display().to_string());
        let images = images.as_deref().map(|text| (images_name.as_str(), text));
        let info = info.as_deref().map(|text| (info_name.as_str(), text));
        let texts = [
            (&files.images, productmd::images(images, shelf, &placed)?),
            (&files.info, productmd::compose_info(info, shelf, directory)?),
        ];
        for (path, text) in &texts {
            output::write_document(path, text.as_bytes())
                .context("adding to the compose's metadata")?;
        }
        Ok(texts.into_iter().map(|(path, _)| path.clone()).collect())
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
