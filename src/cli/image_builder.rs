//! `image-builder`: called by that name, or as `bootpress image-builder`, the program takes the part of that tool's command line which
//! is about bootc images, and leaves files where it leaves them.
//!
//! ```text
//! image-builder build qcow2 --bootc-ref IMAGE ─► bootc-qcow2-x86_64/bootc-qcow2-x86_64.qcow2
//! ```
//!
//! That tool also builds systems from packages. bootpress does not, and says so.

mod flags;
mod types;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bootpress::architecture::Architecture;
use bootpress::error::unsupported;
use bootpress::oci;
use bootpress::progress::Progress;
use bootpress::request::{Destination, Request};
use bootpress::sbom::Form;
use clap::Parser;
use serde_json::{Value, json};

use self::flags::{BuildOptions, DescribeOptions, ImageBuilderFlags, ListOptions, Source, Verb};
use self::types::ImageType;
use super::bib::request::{Wish, reference};
use super::build;
use super::say::{self, Page};

/// What that tool calls the distribution of a bootc image, in names of files and in lists.
const DISTRO: &str = "bootc";

/// Whether the program was called by that tool's name.
pub(super) fn is_called() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_owned();
    let name = name.as_encoded_bytes();
    name.ends_with(b"image-builder") && !name.ends_with(b"bootc-image-builder")
}

/// Runs it with these words; the first is its name.
pub(super) fn run(words: Vec<OsString>) -> ExitCode {
    let flags = ImageBuilderFlags::parse_from(words);
    let result = match &flags.verb {
        Verb::Build(options) => press(options, &flags),
        Verb::Manifest(source) => print_manifest(source),
        Verb::List(options) => list(options),
        Verb::Describe(options) => describe(options),
        Verb::Upload { .. } => Err(no_upload()),
        Verb::Version { format } => version(format.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&error),
    }
}

/// Whether that tool's command line takes these words, and what they ask for is something that bootpress does.
#[cfg(test)]
pub(super) fn try_parse(words: &[String]) -> Result<(), clap::Error> {
    ImageBuilderFlags::try_parse_from(words).map(drop)
}

fn press(options: &BuildOptions, flags: &ImageBuilderFlags) -> Result<()> {
    let kind = judged(&options.source)?;
    if let Some(flag) = options.upload() {
        return Err(no_upload()).with_context(|| format!("{flag} was given"));
    }
    let basename = basename(&options.source, kind, options.output_name.as_deref())?;
    let usual = || self::basename(&options.source, kind, None).map(PathBuf::from);
    let directory = flags.output_dir.clone().map_or_else(usual, Ok)?;
    let file = directory.join(format!("{basename}.{}", kind.extension()));
    let mut request = request(&options.source, kind)?;
    fs::create_dir_all(&directory)
        .with_context(|| format!("creating directory {}", directory.display()))?;
    request.output.destination = Destination::Files(vec![file.clone()]);
    request.work_directory.clone_from(&directory);
    if let Some(cache) = &options.cache {
        let cache = cache.join("bootpress");
        fs::create_dir_all(&cache)
            .with_context(|| format!("creating directory {}", cache.display()))?;
        request.image.access.cache = Some(cache);
    }
    if options.with_manifest {
        let path = directory.join(format!("{basename}.osbuild-manifest.json"));
        let manifest = manifest(&request, kind, &file)?;
        fs::write(&path, manifest).with_context(|| format!("writing {}", path.display()))?;
    }
    let as_json = options.format.as_deref() == Some("json");
    let progress = options.progress.flag(flags.verbose);
    let listening = build::Listening { progress, events: None, release: None };
    build::print(&build::press(&request, &listening)?, as_json)?;
    if options.with_upload_result {
        let path = directory.join(format!("{basename}.upload-result"));
        let result = json!({"Provider": "LocalPath", "ImageID": file});
        fs::write(&path, result.to_string())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if as_json {
        return Ok(());
    }
    let text = format!("Image build successful: {}\n", file.display());
    say::print(&say::line(text.trim_end()), "printing the result")?;
    say::print("\n", "printing the result")
}

/// The type of a command line whose flags go together.
fn judged(source: &Source) -> Result<ImageType> {
    let kind = types::parse(&source.image_type)?;
    if source.distro.is_some() && source.bootc_ref.is_some() {
        bail!("cannot use --distro with --bootc-ref");
    }
    if source.bootc_ref.is_none() {
        return Err(unsupported(
            "building from packages is not supported: bootpress builds from bootc images",
            Some("name the image with --bootc-ref"),
        ));
    }
    if let Some(flag) = source.about_packages() {
        return Err(unsupported(
            format!("{flag} is about systems that are built from packages"),
            Some("leave it out: a bootc image brings its packages"),
        ));
    }
    if source.bootc_installer_payload_ref.is_some() && kind != ImageType::BootcInstaller {
        bail!("--bootc-installer-payload-ref is for the image type bootc-installer");
    }
    Ok(kind)
}

/// The request that a command line comes to, without a place for the file.
fn request(source: &Source, kind: ImageType) -> Result<Request> {
    let image = source.bootc_ref.as_deref().unwrap_or_default();
    let (architecture, local) = (source.arch.as_deref(), !source.bootc_pull_container);
    let storage = Path::new(super::bib::request::STORAGE);
    let payload = source.bootc_installer_payload_ref.as_deref();
    let payload = payload.map(|payload| reference(payload, architecture, local, storage).parse());
    let wish = Wish {
        image,
        local,
        architecture,
        root: source.bootc_default_fs,
        size: source.image_size,
        seed: source.seed,
        default_arguments: !source.bootc_no_default_kernel_args,
        payload: payload.transpose().context("reading --bootc-installer-payload-ref")?,
        config: source.blueprint.clone(),
        lenient: source.ignore_warnings,
        formats: vec![kind.wanted()],
    };
    let mut request = wish.request()?;
    if source.with_sbom {
        request.documents.sboms = vec![Form::Spdx];
    }
    Ok(request)
}

/// The name of the file without its extension; one that has it already keeps the rest.
fn basename(source: &Source, kind: ImageType, asked: Option<&str>) -> Result<String> {
    if let Some(asked) = asked {
        let extension = format!(".{}", kind.extension());
        let name = asked.strip_suffix(&extension).unwrap_or(asked);
        if name.is_empty() || name.contains('/') {
            bail!("invalid --output-name {asked:?}: expected a file name without directory");
        }
        return Ok(name.to_owned());
    }
    let architecture = build::architecture(source.arch.as_deref())?;
    Ok(format!("{DISTRO}-{}-{}", kind.name(), architecture.name()))
}

fn print_manifest(source: &Source) -> Result<()> {
    let kind = judged(source)?;
    let name = basename(source, kind, None)?;
    let file = Path::new(&name).join(format!("{name}.{}", kind.extension()));
    let manifest = manifest(&request(source, kind)?, kind, &file)?;
    say::print(&say::json(&manifest), "printing the manifest")
}

/// What is going to be built, as JSON. It stands where that tool has osbuild's manifest, and is none.
fn manifest(request: &Request, kind: ImageType, file: &Path) -> Result<String> {
    let wanted = &request.image;
    let (reference, architecture) = (&wanted.reference, wanted.architecture);
    let opened = oci::open_with(&wanted.access, reference, architecture, &Progress::default())?;
    let manifest = json!({
        "bootpress_manifest": 1,
        "bootpress": env!("CARGO_PKG_VERSION"),
        "image": opened.image.reference,
        "digest": opened.image.manifest_digest,
        "architecture": architecture.name(),
        "exports": [{"types": [kind.name()], "format": kind.wanted().to_string(), "path": file}],
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&manifest)?))
}

/// A line for each type and architecture.
fn list(options: &ListOptions) -> Result<()> {
    let mut rows = Vec::new();
    for kind in ImageType::ALL {
        for architecture in Architecture::ALL {
            if options.filter.iter().all(|filter| filter.matches(kind, architecture)) {
                rows.push((kind.name(), architecture.name()));
            }
        }
    }
    let context = "printing the list";
    if options.format.as_deref() == Some("json") {
        let row = |(kind, architecture): &(&str, &str)| -> Value {
            json!({"distro": {"name": DISTRO}, "arch": {"name": architecture}, "image_type": {"name": kind}})
        };
        return say::print_json(&rows.iter().map(row).collect::<Vec<_>>(), context);
    }
    let mut page = Page::default();
    for (kind, architecture) in rows {
        page.line(format_args!("{DISTRO} type:{kind} arch:{architecture}"));
    }
    say::print(&page.into_text(), context)
}

/// What is known of a type without an image.
fn describe(options: &DescribeOptions) -> Result<()> {
    let kind = types::parse(&options.image_type)?;
    let architecture = build::architecture(options.arch.as_deref())?;
    let mut page = Page::default();
    page.line(format_args!("distro: {DISTRO}"));
    page.line(format_args!("type: {}", kind.name()));
    page.line(format_args!("arch: {}", architecture.name()));
    page.line(format_args!("description: {}", kind.about()));
    page.line(format_args!("filename: {}", kind.extension()));
    page.line(format_args!("bootpress_format: {}", kind.wanted()));
    say::print(&page.into_text(), "printing the description")
}

fn version(format: Option<&str>) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let told = json!({"image-builder": {"version": format!("bootpress-{version}")}});
    let context = "printing the version";
    match format {
        Some("json") => say::print_json(&told, context),
        _ => say::print(&format!("image-builder:\n  version: bootpress-{version}\n"), context),
    }
}

fn no_upload() -> anyhow::Error {
    unsupported(
        "uploads are not supported: bootpress sends nothing to anyone",
        Some("build without upload flags, and upload the file with the cloud's own tool"),
    )
}

#[cfg(test)]
mod tests;
