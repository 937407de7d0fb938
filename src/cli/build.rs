//! `bootpress build`: flags → request → pipeline → summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use bootpress::architecture::Architecture;
use bootpress::config::Purpose;
use bootpress::disk::SectorSize;
use bootpress::error::unsupported;
use bootpress::filesystem_kind::FileSystem;
use bootpress::iso::MediumKind;
use bootpress::oci::Access;
use bootpress::output::Format;
use bootpress::pipeline;
use bootpress::progress::{Code, Event, Progress, Warning};
use bootpress::report::{Report, StageReport};
use bootpress::request::{
    ApplicationsRequest, Destination, DiskRequest, OutputRequest, Request, SystemRequest,
};

use super::events::Events;
use super::flags::documents::Recorded;
use super::flags::iso::{MediumFlags, Wanted};
use super::flags::release::ReleasePlan;
use super::flags::{BootloaderFlag, BuildFlags, ProgressFlag};
use super::{json, recorded, release, say, summary, terminal};

/// Builds what the flags ask for and prints what was made.
pub(super) fn run(flags: &BuildFlags) -> Result<()> {
    let events = flags.release.events.as_ref().map(Events::open).transpose()?;
    if let Some(events) = &events {
        let formats: Vec<String> = formats(flags).iter().map(ToString::to_string).collect();
        events.begin(&flags.image.to_string(), flags.arch.as_deref(), &formats);
    }
    let result = build(flags, events.as_ref());
    if let Some(events) = &events {
        events.end(result.as_ref());
    }
    print(&result?, flags.json)
}

fn build(flags: &BuildFlags, events: Option<&Events>) -> Result<Report> {
    let request = request(flags)?;
    let plan = flags.release.plan(&request)?;
    let release = Some(&plan);
    press(&request, &Listening { progress: flags.progress, events, release })
}

/// Who hears of a build, and what is done after it.
pub(super) struct Listening<'a> {
    /// How progress is shown.
    pub(super) progress: ProgressFlag,
    /// The stream of events.
    pub(super) events: Option<&'a Events>,
    /// What is written along with the disks.
    pub(super) release: Option<&'a ReleasePlan>,
}

/// Builds what a request asks for, and writes what goes along with it.
pub(super) fn press(request: &Request, listening: &Listening<'_>) -> Result<Report> {
    let began = SystemTime::now();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let shown = progress(listening.progress);
    let progress = listen(&heard, shown, listening.events.cloned());
    // Judged once more by the pipeline, but here before what is only warned of.
    request.check()?;
    let compose = listening.release.and_then(|plan| plan.productmd.as_ref());
    for subject in compose.iter().flat_map(|files| &files.unknown) {
        let format = subject.format();
        let text = format!("productmd knows no {format}: it is not entered in images.json");
        progress.warn(Code::NotEntered, text);
    }
    let mut report = pipeline::build(request, &progress)?;
    // Through the same channel as those that came while it was built, so that people see them, too.
    for warning in std::mem::take(&mut report.warnings) {
        progress.warn(Code::BootLoader, warning);
    }
    let Heard { stages, warnings } =
        heard.lock().map(|mut heard| std::mem::take(&mut *heard)).unwrap_or_default();
    report.stages = stages;
    report.warnings.extend(warnings.iter().map(|warning| warning.message.clone()));
    if let Some(plan) = listening.release {
        report.published = release::publish(plan, request, &report, &warnings, began)
            .context("the disks were written, but not all that goes along with them")?;
    }
    Ok(report)
}

/// Prints what was made.
pub(super) fn print(report: &Report, as_json: bool) -> Result<()> {
    if as_json {
        say::print_json(report, "printing the report")
    } else {
        say::print(&summary::text(report), "printing the summary")
    }
}

/// What is worth repeating at the end.
#[derive(Default)]
struct Heard {
    stages: Vec<StageReport>,
    warnings: Vec<Warning>,
}

/// Passes on what is announced, and remembers some of it.
fn listen(heard: &Arc<Mutex<Heard>>, shown: Progress, events: Option<Events>) -> Progress {
    let heard = Arc::clone(heard);
    Progress::to(move |event| {
        if let Ok(mut heard) = heard.lock() {
            match &event {
                Event::Finished { stage, took } => {
                    heard.stages.push(StageReport { stage: *stage, took: *took });
                }
                Event::Warning { code, message } => {
                    heard.warnings.push(Warning::new(*code, message.as_str()));
                }
                Event::Started { .. } | Event::Advanced { .. } => {}
            }
        }
        if let Some(events) = &events {
            events.hear(&event);
        }
        shown.send(event);
    })
}

/// The request that the flags come to.
pub(super) fn request(flags: &BuildFlags) -> Result<Request> {
    let formats = formats(flags);
    let kinds: Vec<MediumKind> = formats.iter().copied().filter_map(Wanted::medium).collect();
    if let Some((flag, format)) = flags.medium.idle(&kinds) {
        bail!("{flag} is for media: add --format {format}");
    }
    let anaconda = kinds.contains(&MediumKind::Anaconda);
    if anaconda && formats.len() > 1 {
        bail!("--format anaconda-iso is built alone: its configuration is what Anaconda is told");
    }
    if let Some(flag) = of_the_disk(flags).filter(|_| anaconda) {
        bail!("{flag} is about a disk, and Anaconda makes its own: a kickstart tells it how");
    }
    // Mistakes in it are told before anything is touched.
    let config = flags.config.read(purpose(&kinds))?;
    let dry_run = flags.config.dry_run;
    // Who lets a template name files names a directory for them.
    let files = if flags.release.names_files() { usize::MAX } else { formats.len() };
    let destination = destination(&flags.output, files, dry_run)?;
    let work_directory = work_directory(flags.work_directory.as_deref(), &destination, dry_run);
    let architecture = architecture(flags.arch.as_deref())?;
    let mut request = Request::new(flags.image.clone(), architecture, &work_directory);
    request.image.access = Access { spool: Some(work_directory), ..flags.registry.access()? };
    request.image.trust = flags.trust.demand();
    request.disk = DiskRequest {
        preset: flags.layout.into(),
        sector_size: flags.sector_size,
        size: flags.size,
        least_size: 0,
        root: flags.filesystem,
        btrfs_compression: flags.output_flags.btrfs_compression.clone(),
        btrfs_subvolume: flags.output_flags.btrfs_subvolume.clone(),
        xfs_profile: flags.output_flags.xfs_profile,
        install_bootloader: flags.bootloader != BootloaderFlag::None,
        loader: flags.bootloader.loader(),
        image_layout: !flags.config.ignore_image_layout,
        grow: flags.config.grow,
    };
    request.system = system(flags)?;
    request.applications = ApplicationsRequest {
        bound: flags.bound.bound_images.into(),
        sources: flags.bound.bound_image.clone(),
    };
    request.output = OutputRequest {
        formats: formats.into_iter().filter_map(Wanted::disk).collect(),
        qcow2_compression: flags.output_flags.qcow2_compression(),
        medium: None,
        destination,
        naming: flags.release.naming(),
        dry_run,
    };
    request.documents = flags.documents.request(|| {
        let arguments = recorded::arguments(std::env::args_os())?;
        Ok(Recorded { arguments, inputs: recorded::inputs(flags)? })
    })?;
    request.seed.clone_from(&flags.seed);
    request.config = config;
    add_media(&mut request, kinds, &flags.medium)?;
    Ok(request)
}

/// The formats that are asked for, each once.
fn formats(flags: &BuildFlags) -> Vec<Wanted> {
    let mut formats: Vec<Wanted> = Vec::new();
    for format in &flags.formats {
        if !formats.contains(format) {
            formats.push(*format);
        }
    }
    if formats.is_empty() {
        formats.push(Wanted::Disk(Format::Qcow2.into()));
    }
    formats
}

/// What a configuration is for.
pub(super) fn purpose(kinds: &[MediumKind]) -> Purpose {
    if kinds.contains(&MediumKind::Anaconda) {
        Purpose::Anaconda
    } else if kinds.is_empty() {
        Purpose::Disk
    } else {
        Purpose::Medium
    }
}

/// Adds media of these kinds to a request whose configuration is there already. What Anaconda is told is nothing for the disk.
pub(super) fn add_media(
    request: &mut Request,
    kinds: Vec<MediumKind>,
    flags: &MediumFlags,
) -> Result<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    let anaconda = kinds.contains(&MediumKind::Anaconda);
    let mut medium = flags.medium(kinds, &request.config.blueprint.installer)?;
    if anaconda {
        let blueprint = std::mem::take(&mut request.config.blueprint);
        medium.anaconda = Some(flags.anaconda(blueprint, request.disk.root));
        request.disk.root = Some(FileSystem::Ext4);
        request.disk.image_layout = false;
    }
    request.output.medium = Some(medium);
    Ok(())
}

fn system(flags: &BuildFlags) -> Result<SystemRequest> {
    let keys = flags.root_ssh_authorized_keys.as_ref();
    let root_ssh_keys = keys
        .map(|file| fs::read(file).with_context(|| format!("reading {}", file.display())))
        .transpose()?;
    Ok(SystemRequest {
        backend: flags.backend.map(Into::into),
        stateroot: flags.stateroot.clone(),
        root_mount_spec: flags.root_mount_spec.clone(),
        boot_mount_spec: flags.boot_mount_spec.clone(),
        preset_arguments: true,
        kernel_arguments: flags.kargs.clone(),
        kernel_argument_deletes: flags.karg_deletes.clone(),
        target_image: flags.target_imgref.clone(),
        target_transport: flags.target_transport,
        enforce_container_sigpolicy: flags.enforce_container_sigpolicy,
        root_ssh_keys,
    })
}

/// Where the unpacked image is kept: where the files go, unless somebody says otherwise.
fn work_directory(asked: Option<&Path>, destination: &Destination, dry_run: bool) -> PathBuf {
    let output = match (asked, destination) {
        (Some(directory), _) => return directory.to_owned(),
        (None, Destination::Directory(directory)) => directory.clone(),
        (None, Destination::File(file)) => parent(file),
        (None, Destination::Files(files)) => {
            files.first().map_or_else(|| ".".into(), |file| parent(file))
        }
    };
    if dry_run { existing(&output) } else { output }
}

/// A flag that was given and counts for the disk that a build writes, but not for one that is installed by other means.
fn of_the_disk(flags: &BuildFlags) -> Option<&'static str> {
    let given = [
        ("--size", flags.size.is_some()),
        ("--sector-size", flags.sector_size != SectorSize::S512),
        ("--bootloader", flags.bootloader != BootloaderFlag::Auto),
        ("--backend", flags.backend.is_some()),
        ("--btrfs-compress", flags.output_flags.btrfs_compression.is_some()),
        ("--btrfs-subvolume", flags.output_flags.btrfs_subvolume.is_some()),
        ("--xfs-profile", flags.output_flags.xfs_profile.is_some()),
        ("--root-mount-spec", flags.root_mount_spec.is_some()),
        ("--boot-mount-spec", flags.boot_mount_spec.is_some()),
        ("--karg-delete", !flags.karg_deletes.is_empty()),
        ("--root-ssh-authorized-keys", flags.root_ssh_authorized_keys.is_some()),
        ("--stateroot", flags.stateroot.is_some()),
        ("--enforce-container-sigpolicy", flags.enforce_container_sigpolicy),
        ("--bound-image", !flags.bound.bound_image.is_empty()),
        ("--grow", flags.config.grow),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
}

pub(super) fn architecture(asked: Option<&str>) -> Result<Architecture> {
    if let Some(refused) = asked.and_then(Architecture::refusal) {
        return Err(refused);
    }
    // The parser let nothing else pass.
    asked.and_then(Architecture::parse).or_else(Architecture::host).ok_or_else(|| {
        let host = std::env::consts::ARCH;
        unsupported(
            format!("bootpress makes no disks for {host}, this machine's architecture"),
            Some("name one with --arch"),
        )
    })
}

/// A directory that exists, or a name that says it is one, is a directory; with several formats it has to be.
fn destination(output: &Path, formats: usize, dry_run: bool) -> Result<Destination> {
    let says_directory = output.as_os_str().as_encoded_bytes().ends_with(b"/");
    if output.is_dir() || says_directory || formats > 1 {
        if output.exists() && !output.is_dir() {
            bail!(
                "{} is a file; several formats, or --name-template, need a directory",
                output.display()
            );
        }
        if !dry_run {
            fs::create_dir_all(output)
                .with_context(|| format!("creating directory {}", output.display()))?;
        }
        return Ok(Destination::Directory(output.to_owned()));
    }
    if output.as_os_str() == "-" {
        return Err(unsupported(
            "disks cannot be written to standard output",
            Some("name a file or a directory with --output"),
        ));
    }
    Ok(Destination::File(through_link(output)?))
}

/// Where a link leads: the file behind it is replaced, and not the link.
fn through_link(output: &Path) -> Result<PathBuf> {
    /// As many as the kernel follows (`MAXSYMLINKS`).
    const MOST_LINKS: usize = 40;
    let mut path = output.to_owned();
    for _ in 0..MOST_LINKS {
        // Whatever is wrong with it is told when it is written.
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        path = parent(&path).join(target);
    }
    bail!("{} is a link that leads to itself", output.display());
}

/// The nearest directory above that is there: what a dry run unpacks is in a file without name, and makes no directory.
fn existing(directory: &Path) -> PathBuf {
    let mut above = directory.ancestors().filter(|above| !above.as_os_str().is_empty());
    above.find(|above| above.is_dir()).map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn parent(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn progress(flag: ProgressFlag) -> Progress {
    match flag {
        ProgressFlag::Auto => terminal::automatic(),
        ProgressFlag::Bars => terminal::bars(),
        ProgressFlag::Lines => terminal::lines(),
        ProgressFlag::Json => json::lines(),
        ProgressFlag::None => Progress::default(),
    }
}
