//! Flags about what goes along with the files when they are published.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bootpress::architecture::Architecture;
use bootpress::error::unsupported;
use bootpress::naming::{self, ComposeId, Naming, Subject, Template, Value};
use bootpress::output;
use bootpress::release::checksum::{self, Checksums};
use bootpress::release::productmd::{self, Shelf};
use bootpress::request::{Destination, Request};
use clap::Args;

use crate::cli::events::EventTarget;
use crate::cli::sign::Signer;

/// Bytes of the largest metadata file that is read to add to it; Fedora's images.json has some 300 KiB.
const LARGEST_METADATA: u64 = 64 << 20;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Release")]
pub(crate) struct ReleaseFlags {
    /// Name files by a preset or a template
    ///
    /// Presets: fedora-iot, fedora-cloud, koji, cosa, bib. A template such as {name}-{kind}-{version}.{date}.{respin}.{arch}.{ext}
    /// takes name, kind, cloud, platform, version, date, respin, build, arch, ext, format, digest, variant and subvariant. Values
    /// come from --name-value, else from --compose-id, else from the image's labels, else from its os-release.
    #[arg(long, value_name = "TEMPLATE")]
    name_template: Option<Template>,

    /// Set a value of --name-template, such as version=43
    ///
    /// Repeat it for several.
    #[arg(long = "name-value", value_name = "KEY=VALUE", value_parser = naming::given)]
    name_values: Vec<(Value, String)>,

    /// Name the compose that the files belong to
    ///
    /// Such as Fedora-IoT-43-20251014.0.
    #[arg(long, value_name = "ID")]
    compose_id: Option<ComposeId>,

    /// Name the variant of the compose, such as IoT
    #[arg(long, value_name = "NAME", value_parser = variant)]
    variant: Option<String>,

    /// Name the subvariant of the compose
    ///
    /// Without this flag it is the variant.
    #[arg(long, value_name = "NAME", value_parser = subvariant)]
    subvariant: Option<String>,

    /// Write a CHECKSUM file in Fedora's form beside the disks
    ///
    /// Files that it knows already stay in it. Without NAME it is called CHECKSUM, or by --compose-id and the architecture.
    /// `sha256sum -c` reads it.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    checksum: Option<String>,

    /// Sign disks and CHECKSUM
    ///
    /// Repeat it for several signatures. gpg:KEY signs with a key of gpg's keyring, sq:FILE with a key in a file: DISK.asc is the signature of DISK, and CHECKSUM
    /// is clear-signed. cosign:KEY signs with a key file or one in a key service: DISK.sigstore.json is the bundle.
    #[arg(long = "sign", value_name = "TOOL:KEY")]
    signers: Vec<Signer>,

    /// Create or add to productmd's images.json
    ///
    /// composeinfo.json is written beside it.
    ///
    /// FILE is usually COMPOSE/metadata/images.json: paths in it begin at COMPOSE. Formats that productmd does not know are left
    /// out with a warning.
    #[arg(long, value_name = "FILE", requires_all = ["compose_id", "variant"])]
    productmd: Option<PathBuf>,

    /// Write what happens as JSON lines
    ///
    /// They go to a file, or to the file descriptor of that number. A build that fails ends them with the error and its exit code. src/cli/events.schema.json describes every line.
    #[arg(long, value_name = "FILE|FD")]
    pub(crate) events: Option<EventTarget>,

    /// Write a record of the build as JSON
    ///
    /// It has image, disks, system, stages and warnings. src/release/build-metadata.schema.json describes it.
    #[arg(long, value_name = "FILE")]
    build_metadata: Option<PathBuf>,

    /// Write metadata.json for Koji's content generators
    #[arg(long, value_name = "FILE")]
    koji_metadata: Option<PathBuf>,
}

/// What is written after a build, judged before it.
#[derive(Debug)]
pub(crate) struct ReleasePlan {
    /// How files are named, and the compose that they belong to.
    pub(crate) naming: Naming,
    /// The CHECKSUM file.
    pub(crate) checksum: Option<PathBuf>,
    /// Who signs.
    pub(crate) signers: Vec<Signer>,
    /// Compose metadata.
    pub(crate) productmd: Option<ComposeFiles>,
    /// The record of the build.
    pub(crate) build_metadata: Option<PathBuf>,
    /// Koji's metadata.
    pub(crate) koji_metadata: Option<PathBuf>,
}

/// Where a compose's metadata goes.
#[derive(Debug)]
pub(crate) struct ComposeFiles {
    /// The compose's directory, resolved; paths in the metadata begin there.
    pub(crate) root: PathBuf,
    /// `images.json`.
    pub(crate) images: PathBuf,
    /// `composeinfo.json`.
    pub(crate) info: PathBuf,
    /// Formats that productmd does not know.
    pub(crate) unknown: Vec<Subject>,
}

impl ReleaseFlags {
    /// Whether files have names of a template, so that `--output` is a directory.
    pub(crate) fn names_files(&self) -> bool {
        self.name_template.is_some()
    }

    /// How files are named; `None`: as without these flags.
    pub(crate) fn naming(&self) -> Option<Naming> {
        self.name_template.clone().map(|template| self.naming_by(template))
    }

    fn naming_by(&self, template: Template) -> Naming {
        Naming {
            template,
            compose: self.compose_id.clone(),
            variant: self.variant.clone(),
            subvariant: self.subvariant.clone().or_else(|| self.variant.clone()),
            given: self.name_values.clone(),
        }
    }

    /// Judges all of it, and tries the keys, before anything is fetched. Creates no file.
    pub(crate) fn plan(&self, request: &Request) -> Result<ReleasePlan> {
        let dry_run = request.output.dry_run;
        let values = self.koji_metadata.is_some() || self.build_metadata.is_some();
        if !self.name_values.is_empty() && self.name_template.is_none() && !values {
            bail!("--name-value is for --name-template and --koji-metadata: add one of them");
        }
        let template = self.name_template.clone().unwrap_or_else(Template::usual);
        let plan = ReleasePlan {
            naming: self.naming_by(template),
            checksum: self.checksum_file(request)?,
            signers: self.signers.clone(),
            productmd: self.compose_files(request)?,
            build_metadata: self.build_metadata.clone(),
            koji_metadata: self.koji_metadata.clone(),
        };
        for file in
            [&plan.checksum, &plan.build_metadata, &plan.koji_metadata].into_iter().flatten()
        {
            if !dry_run {
                output::check_place(file)?;
            }
        }
        for signer in &plan.signers {
            signer.check()?;
        }
        Ok(plan)
    }

    fn checksum_file(&self, request: &Request) -> Result<Option<PathBuf>> {
        let Some(name) = &self.checksum else { return Ok(None) };
        if name.contains('/') {
            bail!(
                "invalid --checksum={name}: expected a name without directories, as the file is beside the disks"
            );
        }
        let architecture = request.image.architecture.name();
        let name = match name.as_str() {
            "" => checksum::file_name(self.compose_id.as_ref(), architecture),
            name => name.to_owned(),
        };
        let file = directory(request).join(name);
        if let Some(text) = existing(&file)? {
            Checksums::parse(&file.display().to_string(), &text)?;
            if checksum::is_signed(&text) && !self.signers.iter().any(Signer::is_openpgp) {
                return Err(unsupported(
                    format!("{} is signed, and its signature would be lost", file.display()),
                    Some("add --sign gpg:KEY or sq:FILE, or remove the file"),
                ));
            }
        }
        Ok(Some(file))
    }

    fn compose_files(&self, request: &Request) -> Result<Option<ComposeFiles>> {
        let (Some(images), Some(compose), Some(variant)) =
            (&self.productmd, &self.compose_id, &self.variant)
        else {
            return Ok(None);
        };
        let unknown = productmd::check(&request.output.subjects())?;
        let metadata = parent(images);
        let is_metadata = metadata.file_name().is_some_and(|name| name == "metadata");
        if !request.output.dry_run {
            fs::create_dir_all(&metadata)
                .with_context(|| format!("creating directory {}", metadata.display()))?;
            output::check_place(images)?;
        }
        let root = if is_metadata { metadata.join("..") } else { metadata.clone() };
        let info = metadata.join("composeinfo.json");
        if info == *images {
            bail!("invalid --productmd {}: expected the name of images.json", images.display());
        }
        let root = if root.exists() {
            root.canonicalize().context("looking at the compose")?
        } else {
            root
        };
        let disks = directory(request);
        if disks.exists() && root.exists() {
            below(&root, &disks)?;
        }
        let files = ComposeFiles { root, images: images.clone(), info, unknown };
        let shelf = shelf(compose, variant, self.subvariant.as_deref(), request.image.architecture);
        // What is there is judged now, as if there were nothing to add.
        for (file, judge) in [
            (
                &files.images,
                &(|text: (&str, &str)| productmd::images(Some(text), shelf, &[])) as &Judge<'_>,
            ),
            (&files.info, &|text| productmd::compose_info(Some(text), shelf, "images")),
        ] {
            if let Some(text) = existing(file)? {
                judge((&file.display().to_string(), &text))?;
            }
        }
        Ok(Some(files))
    }
}

type Judge<'a> = dyn Fn((&str, &str)) -> Result<String> + 'a;

/// What entries of a compose's metadata are filed under.
pub(crate) fn shelf<'a>(
    compose: &'a ComposeId,
    variant: &'a str,
    subvariant: Option<&'a str>,
    architecture: Architecture,
) -> Shelf<'a> {
    Shelf { compose, variant, subvariant: subvariant.unwrap_or(variant), architecture }
}

/// The path of a file from a compose's directory on.
pub(crate) fn below(root: &Path, file: &Path) -> Result<String> {
    let resolved = file.canonicalize().with_context(|| format!("looking at {}", file.display()))?;
    match resolved.strip_prefix(root) {
        Ok(path) => Ok(path.to_string_lossy().into_owned()),
        Err(_) => Err(unsupported(
            format!("{} is not in the compose {}", file.display(), root.display()),
            Some("--productmd COMPOSE/metadata/images.json needs an --output below COMPOSE"),
        )),
    }
}

/// The text of a file that is there.
pub(crate) fn existing(file: &Path) -> Result<Option<String>> {
    let context = || format!("reading {}", file.display());
    match fs::metadata(file) {
        Ok(metadata) if metadata.len() > LARGEST_METADATA => {
            bail!(
                "{} has over {} MiB: it is something else",
                file.display(),
                LARGEST_METADATA >> 20
            )
        }
        Ok(_) => fs::read_to_string(file).map(Some).with_context(context),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(context),
    }
}

/// The directory that a request's files go to.
pub(crate) fn directory(request: &Request) -> PathBuf {
    match &request.output.destination {
        Destination::Directory(directory) => directory.clone(),
        Destination::File(file) => parent(file),
        Destination::Files(files) => files.first().map_or_else(|| ".".into(), |file| parent(file)),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// productmd's rule for the ID of a variant at the top (`composeinfo.py`, `Variant._validate_id`).
fn variant(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("a variant has letters and digits, such as IoT".to_owned());
    }
    Ok(text.to_owned())
}

fn subvariant(text: &str) -> Result<String, String> {
    if text.is_empty()
        || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    {
        return Err("a subvariant has letters, digits and _.-, such as Cloud_Base".to_owned());
    }
    Ok(text.to_owned())
}
