//! `bootpress push`: disks to a registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use bootpress::architecture::Architecture;
use bootpress::error::unsupported;
use bootpress::iso::MediumKind;
use bootpress::naming::{ComposeId, Subject};
use bootpress::oci::Reference;
use bootpress::output::{FileFormat, Format, Packing};
use bootpress::publish::{self, PushDisk, PushReport, PushRequest};
use bootpress::release::artifact::{self, Attachment, Disk, Shape};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::build;
use super::flags::registry::RegistryFlags;
use super::flags::{self, ProgressFlag};
use super::say::{self, Page};
use super::sign::{self, Signer};

/// Annotation by which Fedora's tools find the compose of an image.
const COMPOSE: &str = "io.fedoraproject.compose-id";

/// Bytes of the largest record of a build that is read.
const LARGEST_RECORD: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct PushFlags {
    /// Push these disks, of any formats and architectures
    #[arg(value_name = "DISK", required = true)]
    disks: Vec<PathBuf>,

    /// Push to this place, such as quay.io/me/disks:43
    #[arg(value_name = "PLACE")]
    to: Reference,

    /// Choose how the registry keeps the disks
    #[arg(long = "as", value_enum, default_value_t = ShapeFlag::Artifact)]
    shape: ShapeFlag,

    /// Set the architecture of the disks
    ///
    /// Without this flag it is what --build-metadata or the names of the files say.
    #[arg(long, value_parser = flags::architecture)]
    arch: Option<String>,

    /// Read about the disks in the record of their build
    ///
    /// Repeat it for several. `bootpress build --build-metadata` writes it. Labels of the source image become annotations, and so do its name and digest.
    #[arg(long, value_name = "FILE")]
    build_metadata: Vec<PathBuf>,

    /// Name the compose that the disks belong to
    #[arg(long, value_name = "ID")]
    compose_id: Option<ComposeId>,

    /// Annotate disks and index
    ///
    /// Repeat it for several.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,

    /// Attach a file about a disk, such as an SBOM
    ///
    /// Repeat it for several. The end of the name says what it is: .spdx.json, .cdx.json, .dsse.json, .intoto.json, .intoto.jsonl, .sigstore.json, .asc. It belongs
    /// to the disk whose name it begins with, to all disks of its build, or to the only one. SBOMs and signed statements also get the tags that cosign looks for.
    #[arg(long = "attach", value_name = "FILE")]
    attach: Vec<PathBuf>,

    /// Keep disks for other machines that are under the tag
    #[arg(long)]
    add: bool,

    /// Put the one disk under the tag itself, without an index
    ///
    /// Konflux makes an index of such manifests later.
    #[arg(long)]
    no_index: bool,

    /// Sign what was pushed, with a key of cosign's
    #[arg(long = "sign", value_name = "cosign:KEY", value_parser = cosign)]
    sign: Option<Signer>,

    /// Choose how to show progress, on standard error
    #[arg(long, value_enum, default_value_t = ProgressFlag::Auto)]
    progress: ProgressFlag,

    /// Print what was pushed as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    registry: RegistryFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShapeFlag {
    /// OCI artifacts, with the types that Konflux uses
    Artifact,
    /// images for KubeVirt, with the disk in /disk
    Containerdisk,
    /// artifacts that podman machine pulls
    PodmanMachine,
}

impl From<ShapeFlag> for Shape {
    fn from(flag: ShapeFlag) -> Self {
        match flag {
            ShapeFlag::Artifact => Self::Artifact,
            ShapeFlag::Containerdisk => Self::ContainerDisk,
            ShapeFlag::PodmanMachine => Self::PodmanMachine,
        }
    }
}

/// Pushes the disks and prints the digests.
pub(super) fn run(flags: &PushFlags) -> Result<()> {
    let request = request(flags)?;
    request.check()?;
    if let Some(signer) = &flags.sign {
        signer.check()?;
    }
    let report = publish::push(&request, &build::progress(flags.progress))?;
    if let Some(Signer::Cosign(key)) = &flags.sign {
        sign_pushed(key, flags, &report)?;
    }
    let context = "printing the result";
    if flags.json {
        return say::print_json(&report, context);
    }
    let mut page = Page::default();
    page.line(format_args!("{}@{}", report.reference, report.digest));
    for disk in &report.disks {
        page.line(format_args!("  {}  {}", disk.digest, disk.path.display()));
        for attachment in &disk.attachments {
            page.line(format_args!("    {}  {}", attachment.digest, attachment.path.display()));
        }
    }
    say::print(&page.into_text(), context)
}

fn request(flags: &PushFlags) -> Result<PushRequest> {
    let records =
        flags.build_metadata.iter().map(|file| record(file)).collect::<Result<Vec<_>>>()?;
    let asked = flags.arch.as_deref().map(|arch| build::architecture(Some(arch))).transpose()?;
    let mut disks = Vec::new();
    for path in &flags.disks {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let record = records.iter().find_map(|record| Some((record, artifact_of(record, &name)?)));
        let subject = subject(&name)?;
        let architecture = match (asked, record) {
            (Some(asked), _) => asked,
            (None, Some((record, _))) => {
                let name = record["architecture"].as_str().unwrap_or_default();
                Architecture::parse(name)
                    .context("the record of the build names no architecture")?
            }
            (None, None) => architecture(&name)?,
        };
        let mut annotations = record.map(|(record, _)| described(record)).unwrap_or_default();
        let compose = flags.compose_id.iter().map(|id| (COMPOSE.to_owned(), id.to_string()));
        annotations.extend(compose);
        annotations.extend(flags.annotations.iter().cloned());
        let disk = Disk { name, subject, architecture, annotations };
        disks.push(PushDisk { path: path.clone(), disk, attachments: Vec::new() });
    }
    for file in &flags.attach {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = Attachment::of_name(&name).map_err(anyhow::Error::msg)?;
        let names: Vec<&str> = disks.iter().map(|disk| disk.disk.name.as_str()).collect();
        let about = about(&name, &names);
        if about.is_empty() {
            bail!(
                "{} is about none of the disks: its name begins with the name of no disk",
                file.display()
            );
        }
        for number in about {
            disks[number].attachments.push((kind, file.clone()));
        }
    }
    let access = flags.registry.access()?;
    Ok(PushRequest {
        to: flags.to.clone(),
        access,
        shape: flags.shape.into(),
        disks,
        add: flags.add,
        index: !flags.no_index,
    })
}

/// Which disks a file is about, by its name: the one whose name it begins with; else those of one build, whose names differ only in
/// how they end; else the only one.
fn about(name: &str, disks: &[&str]) -> Vec<usize> {
    let numbers = || 0..disks.len();
    // `a.raw.xz.asc` begins with `a.raw`, too.
    let exact = numbers().filter(|number| name.starts_with(disks[*number]));
    if let Some(exact) = exact.max_by_key(|number| disks[*number].len()) {
        return vec![exact];
    }
    let of_build = numbers().filter(|number| {
        let stem = disks[*number].rsplit_once(subject_end(disks[*number])).map(|(stem, _)| stem);
        stem.is_some_and(|stem| !stem.is_empty() && name.starts_with(&format!("{stem}.")))
    });
    let of_build: Vec<usize> = of_build.collect();
    if of_build.is_empty() && disks.len() == 1 { vec![0] } else { of_build }
}

/// How the name of a disk ends, dot included: `.qcow2`, `.raw.xz`.
fn subject_end(name: &str) -> &str {
    let end = subject(name).map(|subject| match subject {
        Subject::Disk(format) => format.extension().len(),
        Subject::Medium(kind) => kind.extension().len(),
    });
    let at = name.len().saturating_sub(end.unwrap_or(0) + 1);
    name.get(at..).filter(|end| end.starts_with('.')).unwrap_or(name)
}

/// A record of a build.
fn record(file: &Path) -> Result<Value> {
    let context = || format!("reading {}", file.display());
    let size = fs::metadata(file).with_context(context)?.len();
    if size > LARGEST_RECORD {
        bail!("{} has over {} MiB: it is something else", file.display(), LARGEST_RECORD >> 20);
    }
    let text = fs::read(file).with_context(context)?;
    let record: Value = serde_json::from_slice(&text).map_err(|error| {
        bootpress::error::corrupt(file.display().to_string(), error.to_string())
    })?;
    if record["version"] != 1 || !record["artifacts"].is_array() {
        return Err(unsupported(
            format!("{} is not a record of a build in version 1", file.display()),
            Some("`bootpress build --build-metadata` writes one"),
        ));
    }
    Ok(record)
}

/// What a record says of a file.
fn artifact_of<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    record["artifacts"].as_array()?.iter().find(|artifact| artifact["file"] == name)
}

/// Annotations from a record.
fn described(record: &Value) -> BTreeMap<String, String> {
    let image = &record["image"];
    let source = image["reference"].as_str().zip(image["digest"].as_str());
    let source = source.map(|(name, digest)| (name.trim_start_matches("docker://"), digest));
    let mut annotations = artifact::annotations(image["labels"].as_object(), source);
    if let Some(id) = record["compose"]["id"].as_str() {
        annotations.insert(COMPOSE.to_owned(), id.to_owned());
    }
    annotations
}

/// What a file is, by its name.
fn subject(name: &str) -> Result<Subject> {
    if name.ends_with(".iso") {
        return Ok(Subject::Medium(MediumKind::Iso));
    }
    if name.ends_with(".tar.gz") {
        return Ok(Subject::Disk(Format::Gce.into()));
    }
    let packed = Packing::ALL.into_iter().find_map(|packing| {
        Some((name.strip_suffix(&format!(".{}", packing.extension()))?, packing))
    });
    let (stem, packing) = match packed {
        Some((stem, packing)) => (stem, Some(packing)),
        None => (name, None),
    };
    let known = |format: &Format| stem.ends_with(&format!(".{}", format.extension()));
    // `.ami.raw` before `.raw`.
    match Format::ALL.into_iter().rev().find(known) {
        Some(format) => Ok(Subject::Disk(FileFormat { format, packing })),
        None => Err(unsupported(
            format!("the name {name} does not end as one of a disk"),
            Some("rename it so that it ends in .qcow2, .raw.xz, .iso or the like"),
        )),
    }
}

fn architecture(name: &str) -> Result<Architecture> {
    let found = Architecture::ALL.into_iter().find(|one| name.contains(one.name()));
    found.ok_or_else(|| {
        unsupported(
            format!("the name {name} does not say for which architecture the disk is"),
            Some("add --arch, or --build-metadata FILE"),
        )
    })
}

/// Signs the index and what it names with cosign, which leaves signatures where it looks for them.
fn sign_pushed(key: &str, flags: &PushFlags, report: &PushReport) -> Result<()> {
    let repository = report.reference.rsplit_once(':').map_or(&*report.reference, |(name, _)| name);
    let registry = repository.split('/').next().unwrap_or(repository);
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    // A referrer, and a tag for those who know no referrers; before its version 3 cosign makes tags only.
    let forms: &[Option<&str>] = if sign::cosign_is_new()? {
        &[Some("--new-bundle-format=true"), Some("--new-bundle-format=false")]
    } else {
        &[None]
    };
    let digests = [&report.digest].into_iter().chain(report.disks.iter().map(|disk| &disk.digest));
    for (digest, form) in digests.flat_map(|digest| forms.iter().map(move |form| (digest, form))) {
        let mut command = Command::new("cosign");
        command.args(["sign", "--yes", "--tlog-upload=false", "--key", key]);
        if let Some(form) = form {
            command.args(["--use-signing-config=false", form]);
        }
        if matches!(host, "localhost" | "127.0.0.1") {
            command.args(["--allow-http-registry", "--allow-insecure-registry"]);
        }
        command.arg(format!("{repository}@{digest}"));
        sign::run_cosign(&mut command)
            .with_context(|| format!("signing {}, which is pushed by now", flags.to))?;
    }
    Ok(())
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn cosign(text: &str) -> Result<Signer, String> {
    match text.parse::<Signer>()? {
        signer @ Signer::Cosign(_) => Ok(signer),
        _ => Err("what is in a registry is signed by cosign: expected cosign:KEY".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_find_their_disks() {
        let disks = ["a.x86_64.raw", "a.x86_64.raw.xz", "b.x86_64.qcow2"];
        assert_eq!(about("a.x86_64.raw.xz.asc", &disks), [1]);
        assert_eq!(about("a.x86_64.raw.asc", &disks), [0]);
        assert_eq!(about("a.x86_64.spdx.json", &disks), [0, 1]);
        assert_eq!(about("c.spdx.json", &disks), [0; 0]);
        assert_eq!(about("c.spdx.json", &disks[2..]), [0]);
    }

    #[test]
    fn names_say_what_a_disk_is() {
        for (name, format) in [
            ("os.x86_64.qcow2", "qcow2"),
            ("os.x86_64.raw.xz", "raw.xz"),
            ("os.ami.raw", "ami"),
            ("os.gce.tar.gz", "gce"),
            ("os.vhd.gz", "vhd.gz"),
            ("os.iso", "iso"),
        ] {
            assert_eq!(subject(name).unwrap().format(), format, "{name}");
        }
        for name in ["os", "os.txt", "os.gz"] {
            assert!(subject(name).is_err(), "{name}");
        }
        assert_eq!(architecture("os-43.aarch64.raw").unwrap(), Architecture::Aarch64);
        assert!(architecture("os.raw").is_err());
    }
}
