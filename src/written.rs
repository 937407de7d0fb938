//! What a build leaves on the host: disk files and media.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::iso::{Medium, MediumKind};
use crate::make::Made;
use crate::output::{self, DirectoryReport, FileReport, Format, Target};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::request::Request;

/// What was written, or would have been if this had not been a dry run.
#[derive(Debug, Default)]
pub struct Written {
    /// Disk files, in the order in which they were asked for.
    pub files: Vec<FileReport>,
    /// Media.
    pub media: Vec<(MediumKind, WrittenMedium)>,
    /// Disk files of a dry run.
    pub planned_files: Vec<Target>,
    /// Media of a dry run.
    pub planned_media: Vec<(MediumKind, PathBuf)>,
}

/// A medium on the host.
#[derive(Debug)]
pub enum WrittenMedium {
    /// One file.
    File(FileReport),
    /// Files in directories.
    Directory(DirectoryReport),
}

/// Writes what was made; nothing in a dry run.
pub fn write(request: &Request, plan: &Plan, made: &Made, progress: &Progress) -> Result<Written> {
    let (reference, wanted) = (&request.image.reference, &request.output);
    let version = Some(made.product.1.as_str());
    let targets = wanted.targets(reference, &made.image, version, &[])?;
    let path = |kind: MediumKind| wanted.medium_path(reference, &made.image, version, kind);
    if wanted.dry_run {
        let media = wanted.medium.iter().flat_map(|medium| &medium.kinds);
        return Ok(Written {
            planned_files: targets,
            planned_media: media.map(|kind| Ok((*kind, path(*kind)?))).collect::<Result<_>>()?,
            ..Written::default()
        });
    }
    let files = match &made.disk {
        Some(made_disk) => {
            output::write(&made_disk.disk.map, &made.contents, &targets, &plan.files, progress)?
        }
        None => Vec::new(),
    };
    let media = made.media.iter().map(|(kind, medium)| {
        let written = match medium {
            Medium::Volume(map) => {
                let target = Target::new(Format::Raw, path(*kind)?);
                let mut files =
                    output::write(map, &made.contents, &[target], &plan.files, progress)?;
                WrittenMedium::File(files.pop().context("one file was asked for")?)
            }
            Medium::Directory(tree) => WrittenMedium::Directory(output::write_directory(
                tree,
                &made.contents,
                &path(*kind)?,
                progress,
            )?),
        };
        Ok((*kind, written))
    });
    Ok(Written { files, media: media.collect::<Result<_>>()?, ..Written::default() })
}
