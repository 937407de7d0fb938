//! `bootpress verify`: builds a disk again as its provenance says, and says whether it is the same, or what differs first.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use bootpress::inspect::{self, Difference};
use bootpress::pipeline;
use bootpress::provenance::{self, Document, Input, Provenance, Subject};
use bootpress::trust;
use clap::{Args, Parser};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::flags::{BuildFlags, Command, Flags};
use super::recorded;
use super::say::{self, Page, say};
use super::{build, exit, terminal};

#[derive(Debug, Args)]
pub(crate) struct VerifyFlags {
    /// File that `bootpress build` has written
    #[arg(value_name = "DISK")]
    disk: PathBuf,

    /// Provenance that it wrote beside it
    #[arg(value_name = "PROVENANCE")]
    provenance: PathBuf,

    /// Accept only a provenance signed with this public key
    ///
    /// PEM, as `openssl pkey -pubout` and cosign write it. Repeat it for keys any of which will do.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,

    /// Image to build from
    ///
    /// The default is the one that the provenance names, by its digest. An image that was on the machine that built the disk has
    /// to be named; another image than the recorded one is refused.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Directory to build in; needs room for the disk
    #[arg(long, value_name = "DIR", default_value = ".")]
    work_directory: PathBuf,

    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,

    /// Flags of `build` that the provenance does not record
    ///
    /// Those that name files, such as --config, and those about registries and caches.
    #[arg(last = true, value_name = "BUILD FLAGS")]
    more: Vec<OsString>,
}

/// The verdict.
#[derive(Debug, Serialize)]
struct Verdict {
    /// Whether the file is what its provenance says.
    verified: bool,
    /// Digest of the file, and of what was built.
    sha256: String,
    rebuilt: String,
    /// Digest of the image.
    image: String,
    /// Fingerprint of the key that signed the provenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// Where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
}

/// Builds again, compares and prints.
pub(super) fn run(flags: &VerifyFlags) -> Result<ExitCode> {
    let (provenance, signer) = read(flags)?;
    let sha256 = digest(&flags.disk)?;
    let subject = subject(&provenance, &flags.disk, &sha256)?;
    if provenance.version != env!("CARGO_PKG_VERSION") {
        say!(
            "warning: the disk was built by bootpress {}, and this is {}: other versions may write other bytes",
            provenance.version,
            env!("CARGO_PKG_VERSION")
        );
    }
    let place = tempfile::Builder::new()
        .prefix(".bootpress-verify-")
        .tempdir_in(&flags.work_directory)
        .with_context(|| format!("creating a directory in {}", flags.work_directory.display()))?;
    let file = place.path().join("rebuilt");
    let build_flags = build_flags(flags, &provenance, subject, &file)?;
    check_inputs(&provenance, &build_flags)?;
    let mut request = build::request(&build_flags)?;
    request.image.called = Some(provenance.name.clone());
    if request.system.target_image.is_none() {
        let name = provenance.target.strip_prefix("docker://");
        request.system.target_image =
            Some(name.context("the provenance names no target in a registry")?.to_owned());
    }
    let report = pipeline::build(&request, &terminal::automatic())?;
    ensure!(
        report.image.digest == provenance.digest,
        "the image is {}, and the provenance names {}",
        report.image.digest,
        provenance.digest
    );
    let files = report.files.iter().map(|file| &file.sha256);
    let rebuilt = files.chain(report.media.iter().map(|medium| &medium.sha256)).next();
    let rebuilt = rebuilt.context("nothing was built")?.clone();
    let verified = rebuilt == sha256;
    let difference = if verified { None } else { Some(inspect::difference(&flags.disk, &file)?) };
    let verdict =
        Verdict { verified, sha256, rebuilt, image: provenance.digest, signer, difference };
    if flags.json {
        say::print_json(&verdict, "printing the verdict")?;
    } else {
        say::print(&text(&verdict, &flags.disk), "printing the verdict")?;
    }
    Ok(if verified { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// The provenance, and whose signature it has.
fn read(flags: &VerifyFlags) -> Result<(Provenance, Option<String>)> {
    let file = &flags.provenance;
    let reading = || format!("reading {}", file.display());
    let bytes = small(file).with_context(reading)?;
    let document = Document::parse(&bytes).with_context(reading)?;
    let mut keys = Vec::new();
    for key in &flags.keys {
        keys.push(small(key).with_context(|| format!("reading {}", key.display()))?);
    }
    let signer =
        trust::signer(&document.signed, &document.signatures, &keys).context("reading --key")?;
    if signer.is_none() && !keys.is_empty() {
        bail!(
            "{} is not signed with {}",
            file.display(),
            if keys.len() == 1 { "this --key" } else { "any --key" }
        );
    }
    if keys.is_empty() && !document.signatures.is_empty() {
        say!(
            "warning: the signature of the provenance is not verified: name the public key with --key"
        );
    }
    Ok((Provenance::parse(&document.statement).with_context(reading)?, signer))
}

fn small(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(provenance::LARGEST + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= provenance::LARGEST,
        "it has more than {} bytes",
        provenance::LARGEST
    );
    Ok(bytes)
}

fn digest(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let reading = || format!("reading {}", file.display());
    let mut opened = File::open(file).with_context(reading)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match opened.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(reading),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The file of the provenance that this one is, or was: by digest, else by name, else the only one.
fn subject<'a>(provenance: &'a Provenance, disk: &Path, sha256: &str) -> Result<&'a Subject> {
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    let subjects = &provenance.subjects;
    let found = subjects
        .iter()
        .find(|one| one.sha256 == sha256)
        .or_else(|| subjects.iter().find(|one| one.name == *name))
        .or_else(|| if subjects.len() == 1 { subjects.first() } else { None });
    found.with_context(|| {
        let names: Vec<&str> = subjects.iter().map(|one| one.name.as_str()).collect();
        format!(
            "{name} has neither the digest nor the name of a file of the provenance: {}",
            names.join(", ")
        )
    })
}

/// The flags of the build, from the provenance and from those that were given. What a provenance must not say is refused.
fn build_flags(
    flags: &VerifyFlags,
    provenance: &Provenance,
    subject: &Subject,
    file: &Path,
) -> Result<BuildFlags> {
    let image = match (&flags.image, &provenance.reference) {
        (Some(image), _) => image.clone(),
        (None, Some(reference)) => {
            let name = reference.split('@').next().unwrap_or(reference);
            let last = name.rfind('/').map_or(0, |at| at + 1);
            let bare = name[last..].split(':').next().unwrap_or_default();
            format!("{}{bare}@{}", &name[..last], provenance.digest)
        }
        (None, None) => {
            bail!("the image was on the machine that built the disk: name it with --image")
        }
    };
    let mut arguments: Vec<OsString> = ["bootpress", "build"].map(OsString::from).to_vec();
    arguments.extend(["--arch".into(), OsString::from(&provenance.architecture)]);
    arguments.extend(["--format".into(), OsString::from(&subject.format)]);
    arguments.extend(["--output".into(), file.into()]);
    arguments.extend(["--work-directory".into(), flags.work_directory.clone().into()]);
    for argument in &provenance.arguments {
        let long = argument.strip_prefix("--").map(|rest| rest.split('=').next().unwrap_or(rest));
        match long {
            Some("format" | "arch") => {}
            Some(long) if recorded::counts(long) => arguments.push(argument.into()),
            _ => {
                bail!("the provenance records {argument:?}, which is not a flag that it may record")
            }
        }
    }
    arguments.extend(flags.more.iter().cloned());
    // Behind all flags, so that none of them can be taken for its value.
    arguments.extend(["--".into(), image.into()]);
    match Flags::try_parse_from(arguments) {
        Ok(Flags { command: Command::Build(flags) }) => Ok(*flags),
        Ok(_) => bail!("the provenance is not of a build"),
        Err(error) => {
            bail!("the flags of the build are not understood: {}", error.to_string().trim())
        }
    }
}

/// Files that flags named have to be the same ones.
fn check_inputs(provenance: &Provenance, flags: &BuildFlags) -> Result<()> {
    let given = recorded::inputs(flags)?;
    for Input { flag, sha256 } in &provenance.inputs {
        match given.iter().find(|(given, _)| given == flag) {
            Some((_, found)) if found == sha256 => {}
            Some((_, found)) => bail!(
                "{flag} names a file with SHA-256 {found}, and the provenance one with {sha256}"
            ),
            None => bail!("the disk was built with {flag}: give that file again behind `--`"),
        }
    }
    for (flag, _) in &given {
        ensure!(
            provenance.inputs.iter().any(|input| input.flag == *flag),
            "the disk was built without {flag}"
        );
    }
    Ok(())
}

fn text(verdict: &Verdict, disk: &Path) -> String {
    let mut page = Page::default();
    let answer = if verdict.verified { "yes" } else { "no" };
    page.line(format_args!("{:<12} {answer}", "verified"));
    page.line(format_args!("{:<12} {}", "file", disk.display()));
    page.line(format_args!("{:<12} {}", "sha256", verdict.sha256));
    if !verdict.verified {
        page.line(format_args!("{:<12} {}", "rebuilt", verdict.rebuilt));
    }
    page.line(format_args!("{:<12} {}", "image", verdict.image));
    let signer = verdict.signer.as_deref().unwrap_or("not verified");
    page.line(format_args!("{:<12} {signer}", "signature"));
    if let Some(difference) = &verdict.difference {
        page.blank();
        page.line(format_args!("{:<12} {}", "differs at", difference.place()));
        for (name, value) in [
            ("partition", &difference.partition),
            ("structure", &difference.structure),
            ("path", &difference.path),
        ] {
            if let Some(value) = value {
                page.line(format_args!("{name:<12} {value}"));
            }
        }
    }
    page.into_text()
}
