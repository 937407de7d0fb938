//! `bootpress pull`: an image into the cache.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use bootpress::oci::{self, Access, Reference};
use bootpress::publish::{self, PullRequest};
use bootpress::report::human;
use clap::Args;
use serde_json::json;

use super::build;
use super::flags::registry::RegistryFlags;
use super::flags::{self, ProgressFlag};
use super::say::{self, Page};

#[derive(Debug, Args)]
pub(crate) struct PullFlags {
    /// Name the image in a registry: NAME or docker://NAME
    #[arg(value_name = "IMAGE")]
    image: Reference,

    /// Choose the architecture
    ///
    /// Without this flag it is that of this machine.
    #[arg(long, value_parser = flags::architecture)]
    arch: Option<String>,

    /// Choose how progress is shown, on standard error
    #[arg(long, value_enum, default_value_t = ProgressFlag::Auto)]
    progress: ProgressFlag,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// Fetch a disk that was pushed, into this directory
    ///
    /// The image is then what `bootpress push` left in the registry, a containerDisk of KubeVirt, or another artifact with one
    /// file. The cache is not used.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Choose one of several disks by the end of its name
    ///
    /// Such as qcow2 or raw.xz.
    #[arg(long, value_name = "FORMAT", requires = "output")]
    format: Option<String>,

    #[command(flatten)]
    registry: RegistryFlags,
}

/// Fetches the image and prints its digest.
pub(super) fn run(flags: &PullFlags) -> Result<()> {
    let access = flags.registry.access()?;
    if let Some(directory) = &flags.output {
        return disk(flags, access, directory);
    }
    let Some(cache) = access.cache.clone() else {
        bail!(
            "there is no cache to pull into: --no-cache was given, or neither HOME nor XDG_CACHE_HOME is set"
        );
    };
    let progress = build::progress(flags.progress);
    let architecture = build::architecture(flags.arch.as_deref())?;
    let (image, sent) = oci::pull(&access, &flags.image, architecture, &progress)?;
    let size: u64 = image.layers.iter().map(|layer| layer.size).sum();
    let context = "printing the result";
    if flags.json {
        let told = json!({
            "image": image.reference, "digest": image.manifest_digest, "architecture": image.architecture.name(),
            "size": size, "fetched": sent, "cache": cache,
        });
        return say::print_json(&told, context);
    }
    let mut page = Page::default();
    page.line(&image.reference);
    page.line(&image.manifest_digest);
    let (size, sent) = (human(size), human(sent));
    page.line(format_args!("{size} in layers, {sent} fetched, now in {}", cache.display()));
    say::print(&page.into_text(), context)
}

/// Fetches a disk and prints where it is.
fn disk(flags: &PullFlags, access: Access, directory: &Path) -> Result<()> {
    publish::create_directory(directory)?;
    let request = PullRequest {
        from: flags.image.clone(),
        access,
        architecture: build::architecture(flags.arch.as_deref())?,
        formats: flags.format.iter().cloned().collect(),
        directory: directory.to_owned(),
    };
    let pulled = publish::pull(&request, &build::progress(flags.progress))?;
    let context = "printing the result";
    if flags.json {
        return say::print_json(&pulled, context);
    }
    let mut page = Page::default();
    page.line(pulled.path.display());
    page.line(format_args!("{}, {}", pulled.digest, human(pulled.size)));
    say::print(&page.into_text(), context)
}
