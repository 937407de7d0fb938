//! `bootc-image-builder`: called by that name, the program takes that tool's verbs and flags (those of its old and of its new
//! home), reads what is mounted where its container has it, and leaves files where it leaves them.
//!
//! ```text
//! bootc-image-builder build --type qcow2 --type ami IMAGE
//!     ─► the flags of `bootpress build` ─► OUTPUT/manifest-qcow2-ami.json, OUTPUT/qcow2/disk.qcow2, OUTPUT/image/disk.raw
//! ```
//!
//! What it does not need, privileges and storage mounts first of all, is accepted and has no effect. What cannot be done is
//! refused with the reason. Messages that scripts look for keep their wording.

pub(super) mod flags;
pub(super) mod request;
mod types;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bootpress::error::unsupported;
use bootpress::iso::MediumKind;
use bootpress::oci;
use bootpress::progress::Progress;
use bootpress::request::{Destination, Request};
use clap::Parser;
use serde_json::json;

use self::flags::{BibFlags, BuildOptions, LogLevel, ManifestOptions, Owner, ProgressOption, Verb};
use self::request::{STORAGE, Wish, has_images, reference};
use self::types::{Export, ImageType};
use super::build;
use super::flags::iso::Wanted;
use super::say::{self, say};

/// Verbs, so that whatever else comes first is an image to build.
const VERBS: [&str; 5] = ["build", "manifest", "version", "help", "completion"];

/// Flags whose value is a word of its own, which is not a verb.
const WITH_VALUE: [&str; 1] = ["--log-level"];

/// Where the container has its output, if nobody says otherwise.
const CONTAINER_OUTPUT: &str = "/output";

/// Where the container keeps what the next build can use.
const STORE: &str = "/store";

/// Whether the program was called by that tool's name.
pub(super) fn is_called() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_owned();
    name.as_encoded_bytes().ends_with(b"bootc-image-builder")
}

/// Runs it with these words; the first is its name.
pub(super) fn run(words: Vec<OsString>) -> ExitCode {
    let flags = BibFlags::parse_from(with_verb(words));
    let debug = flags.log_level == LogLevel::Debug;
    super::install_tracing(debug.then_some("bootpress=debug"));
    let result = match &flags.verb {
        Verb::Build(options) => press(options, flags.verbose),
        Verb::Manifest(options) => print_manifest(options),
        Verb::Version => print_version(),
        Verb::Completion { shell } => flags::completion(*shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::fail(&error),
    }
}

/// The arguments, with `build` put before an image that comes without verb.
fn with_verb(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        if WITH_VALUE.contains(&argument) {
            at += 2;
        } else if argument == "--help" || argument == "-h" || argument == "--version" {
            return arguments;
        } else if matches!(argument, "-v" | "--verbose") || argument.starts_with("--log-level=") {
            at += 1;
        } else {
            break;
        }
    }
    let verb = arguments.get(at).and_then(|argument| argument.to_str());
    if verb.is_some_and(|verb| !VERBS.contains(&verb)) {
        arguments.insert(at, "build".into());
    }
    arguments
}

/// Whether that tool's command line takes these words.
#[cfg(test)]
pub(super) fn try_parse(words: &[String]) -> Result<(), clap::Error> {
    let words = with_verb(words.iter().map(OsString::from).collect());
    BibFlags::try_parse_from(words).map(drop)
}

fn press(options: &BuildOptions, verbose: bool) -> Result<()> {
    let types = types::parse(&options.common.types)?;
    let upload = upload(options, &types)?;
    let output = options.output.clone().unwrap_or_else(default_output);
    let exports = types::exports(&types, &output);
    let mut request = request(&options.common, &exports)?;
    for directory in exports.iter().filter_map(|export| export.path.parent()) {
        fs::create_dir_all(directory)
            .with_context(|| format!("creating directory {}", directory.display()))?;
    }
    request.output.destination =
        Destination::Files(exports.iter().map(|export| export.path.clone()).collect());
    request.work_directory.clone_from(&output);
    if let Some(cache) = cache(options.store.as_deref(), Path::new(STORE)) {
        request.image.access.cache = Some(cache);
    }
    let name = format!("manifest-{}.json", options.common.types.join("-"));
    tell(&format!("Generating {name} ...\n"));
    let manifest = manifest(&request, &exports)
        .map_err(|error| explain(error, &options.common.image, Path::new(STORAGE)))?;
    let path = output.join(&name);
    fs::write(&path, manifest).with_context(|| format!("writing {}", path.display()))?;
    tell(&format!("Building {name}\n"));
    let progress = options.progress.flag(verbose);
    let listening = build::Listening { progress, events: None, release: None };
    build::print(&build::press(&request, &listening)?, false)?;
    if let Some(owner) = &options.chown {
        owner.give(&output)?;
    }
    tell(&format!("Build complete!\nResults saved in\n{}\n", output.display()));
    match upload {
        None => Ok(()),
        Some(Upload { name, bucket, region }) => Err(unsupported(
            "the disk is made, but not uploaded: bootpress sends nothing to anyone",
            Some(&format!(
                "run the commands above with {bucket} for BUCKET, AWS_REGION={region} and {name} for the image's name"
            )),
        )),
    }
}

/// Tells how far it is, as that tool does on standard output. Nobody has to read it.
fn tell(text: &str) {
    let _ = say::print(text, "telling how far it is");
}

fn print_manifest(options: &ManifestOptions) -> Result<()> {
    let types = types::parse(&options.common.types)?;
    let exports = types::exports(&types, &default_output());
    let manifest = manifest(&request(&options.common, &exports)?, &exports)?;
    say::print(&say::json(&manifest), "printing the manifest")
}

/// What that tool prints, in its form.
fn print_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let text =
        format!("build_revision: bootpress-{version}\nbuild_time: unknown\nbuild_tainted: false\n");
    say::print(&text, "printing the version")
}

/// The container's directory if there is one, as its image has it for a working directory; else the current one.
fn default_output() -> PathBuf {
    if Path::new(CONTAINER_OUTPUT).is_dir() { CONTAINER_OUTPUT.into() } else { ".".into() }
}

/// The request that these options come to.
fn request(options: &flags::Common, exports: &[Export]) -> Result<Request> {
    let formats: Vec<_> = exports.iter().map(|export| export.format).collect();
    let (architecture, local) = (options.target_arch.as_deref(), options.is_local());
    let payload = options.installer_payload_ref.as_deref();
    let payload = payload
        .map(|payload| reference(payload, architecture, local, Path::new(STORAGE)).parse())
        .transpose()
        .context("reading --installer-payload-ref")?;
    if payload.is_some() && !formats.contains(&Wanted::Medium(MediumKind::Anaconda)) {
        bail!("--installer-payload-ref is for media: add --type {}", MediumKind::Anaconda.name());
    }
    let wish = Wish {
        image: &options.image,
        local,
        architecture,
        root: options.rootfs,
        size: None,
        seed: options.seed,
        default_arguments: !options.no_default_kernel_args,
        payload,
        config: config(options.config.as_deref(), Path::new("/"))?,
        // That tool only warns of keys that it does not know.
        lenient: true,
        formats,
    };
    wish.request()
}

/// The cache below a store that is named, or that the container has.
fn cache(named: Option<&Path>, usual: &Path) -> Option<PathBuf> {
    let store = named.or_else(|| Some(usual).filter(|store| store.is_dir()))?;
    let cache = store.join("bootpress");
    match fs::create_dir_all(&cache) {
        Ok(()) => Some(cache),
        Err(error) => {
            say!("warning: nothing is kept in {}: {error}", store.display());
            None
        }
    }
}

/// The configuration that is named or lies where the container has it.
fn config(named: Option<&Path>, root: &Path) -> Result<Option<PathBuf>> {
    if let Some(file) = named {
        return Ok(Some(file.to_owned()));
    }
    let found = |name: &str| Some(root.join(name)).filter(|path| path.exists());
    match (found("config.json"), found("config.toml")) {
        (Some(_), Some(_)) => {
            bail!("found \"config.json\" and also \"config.toml\", expected only one")
        }
        (json, toml) => Ok(json.or(toml)),
    }
}

/// Where an AMI shall go.
struct Upload<'a> {
    name: &'a str,
    bucket: &'a str,
    region: &'a str,
}

fn upload<'a>(options: &'a BuildOptions, types: &[ImageType]) -> Result<Option<Upload<'a>>> {
    if let (Some(name), Some(bucket), Some(region)) =
        (&options.aws_ami_name, &options.aws_bucket, &options.aws_region)
    {
        if !types.contains(&ImageType::Ami) {
            bail!("aws flags set for non-ami image type");
        }
        return Ok(Some(Upload { name, bucket, region }));
    }
    let flags = [
        ("aws-ami-name", &options.aws_ami_name),
        ("aws-bucket", &options.aws_bucket),
        ("aws-region", &options.aws_region),
    ];
    let missing: Vec<&str> =
        flags.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
    match missing.len() {
        3 => Ok(None),
        _ => bail!(
            "--aws-ami-name, --aws-bucket and --aws-region belong together: {} is missing",
            missing.join(" and ")
        ),
    }
}

/// What is going to be built, as JSON. It stands where that tool leaves osbuild's manifest, and is none.
fn manifest(request: &Request, exports: &[Export]) -> Result<String> {
    let progress = Progress::default();
    let wanted = &request.image;
    let opened = oci::open_with(&wanted.access, &wanted.reference, wanted.architecture, &progress)?;
    let image = &opened.image;
    let exports: Vec<_> = exports
        .iter()
        .map(|Export { types, format, path }| {
            let types: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            json!({"types": types, "format": format.to_string(), "path": path})
        })
        .collect();
    let manifest = json!({
        "bootpress_manifest": 1,
        "bootpress": env!("CARGO_PKG_VERSION"),
        "image": image.reference,
        "digest": image.manifest_digest,
        "architecture": image.architecture.name(),
        "exports": exports,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&manifest)?))
}

/// What is nowhere but in storage cannot be had without it.
fn explain(error: anyhow::Error, image: &str, storage: &Path) -> anyhow::Error {
    let here_only = image.starts_with("localhost/");
    if here_only && !has_images(storage) {
        return error.context(format!(
            "could not access container storage, did you forget -v {STORAGE}:{STORAGE}?"
        ));
    }
    error
}

impl ProgressOption {
    pub(super) fn flag(self, verbose: bool) -> super::flags::ProgressFlag {
        use super::flags::ProgressFlag as Flag;
        match self {
            Self::Auto if verbose => Flag::Lines,
            Self::Auto => Flag::Auto,
            Self::Term => Flag::Bars,
            Self::Verbose | Self::Debug => Flag::Lines,
        }
    }
}

impl Owner {
    /// Gives a directory and everything in it to the owner.
    fn give(&self, path: &Path) -> Result<()> {
        let context = || format!("giving {} to {self}", path.display());
        std::os::unix::fs::lchown(path, Some(self.user), self.group).with_context(context)?;
        if path.symlink_metadata().with_context(context)?.is_dir() {
            for entry in path.read_dir().with_context(context)? {
                self.give(&entry.with_context(context)?.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        BibFlags::command().debug_assert();
    }

    #[test]
    fn an_image_without_verb_is_built() {
        let verbs = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let words = with_verb(words);
            words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(verbs("bib quay.io/x/y:1"), "bib build quay.io/x/y:1");
        assert_eq!(verbs("bib --type raw x"), "bib build --type raw x");
        assert_eq!(verbs("bib -v --log-level debug x"), "bib -v --log-level debug build x");
        assert_eq!(verbs("bib manifest x"), "bib manifest x");
        assert_eq!(verbs("bib version"), "bib version");
        assert_eq!(verbs("bib --help"), "bib --help");
    }

    /// As templates, pipelines, test runners and desktop applications call it.
    #[test]
    fn the_command_lines_that_people_have_are_understood() {
        for line in [
            "bib --type qcow2 --use-librepo=True --rootfs=btrfs quay.io/x/desktop:latest",
            "bib build --type iso --rootfs btrfs --local=true localhost/desktop:latest",
            "bib --type qcow2 --type ami --type raw --chown 1000:1000 --target-arch arm64 quay.io/x/y@sha256:00",
            "bib build quay.io/x/y:1 --output /output/ --local --type vmdk --target-arch amd64 --rootfs xfs --chown 501:20",
            "bib --verbose --progress verbose --type qcow2 --rootfs xfs --tls-verify=false localhost/tests/bootc:1",
            "bib --config /config.json --store /store --rpmmd /rpmmd --aws-ami-name a --aws-bucket b --aws-region c --type ami x",
            "bib manifest --type qcow2 --installer-payload-ref quay.io/x/y:1 --build-container quay.io/x/z:1 x",
        ] {
            let words = with_verb(line.split(' ').map(OsString::from).collect());
            if let Err(error) = BibFlags::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn an_image_that_only_storage_can_have_asks_for_storage() {
        let storage = tempfile::tempdir().unwrap();
        let said = |image: &str| {
            format!("{:#}", explain(anyhow::anyhow!("no answer"), image, storage.path()))
        };
        let (here, there) = (said("localhost/x:1"), said("quay.io/x:1"));
        assert_eq!(
            here,
            "could not access container storage, did you forget -v /var/lib/containers/storage:/var/lib/containers/storage?: no answer"
        );
        assert_eq!(there, "no answer");
        fs::create_dir(storage.path().join("overlay-images")).unwrap();
        assert_eq!(said("localhost/x:1"), "no answer");
    }

    #[test]
    fn the_store_is_a_cache_where_there_is_one() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(cache(None, &place.path().join("none")), None);
        assert_eq!(cache(None, place.path()), Some(place.path().join("bootpress")));
        let named = place.path().join("named");
        assert_eq!(cache(Some(&named), place.path()), Some(named.join("bootpress")));
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(cache(Some(&file), place.path()), None);
    }

    #[test]
    fn configurations_lie_where_the_container_has_them() {
        let root = tempfile::tempdir().unwrap();
        let (toml, json) = (root.path().join("config.toml"), root.path().join("config.json"));
        assert_eq!(config(None, root.path()).unwrap(), None);
        fs::write(&toml, "").unwrap();
        assert_eq!(config(None, root.path()).unwrap(), Some(toml));
        fs::write(json, "").unwrap();
        let error = config(None, root.path()).unwrap_err().to_string();
        assert!(error.starts_with("found \"config.json\" and also \"config.toml\""), "{error}");
        assert_eq!(config(Some(Path::new("-")), root.path()).unwrap(), Some("-".into()));
    }
}
