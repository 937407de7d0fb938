//! `bootpress inspect`: what is on a disk, for people and for programs.

use std::path::PathBuf;

use anyhow::Result;
use bootpress::inspect::{EfiProgram, Facts, PartitionFacts, inspect};
use bootpress::report::{Row, human, picture};
use clap::Args;
use serde::Serialize;

use super::inspect_image::{self, ImageFlags};
use super::iso::MediumFacts;
use super::say::{self, Page};

/// Columns of a table with UUIDs.
const WIDTH: usize = 132;

#[derive(Debug, Args)]
pub(crate) struct InspectFlags {
    /// Name a disk, or an image as `build` takes it
    ///
    /// The format of a disk is raw or qcow2, also compressed as .xz, .zst or .gz. It is only read.
    #[arg(value_name = "DISK|IMAGE")]
    disk: PathBuf,

    /// Print the facts as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    image: ImageFlags,
}

/// Looks at the disk and prints what was seen.
pub(super) fn run(flags: &InspectFlags) -> Result<()> {
    if inspect_image::is_image(&flags.disk) {
        return inspect_image::run(&flags.disk, &flags.image, flags.json);
    }
    let facts = inspect(&flags.disk)?;
    // A medium of ours is a disk, too, with settings besides.
    let medium = MediumFacts::of(&flags.disk).ok();
    if flags.json {
        say::print_json(&Seen { facts, medium }, "printing the facts")
    } else {
        let medium = medium.map_or(String::new(), |medium| format!("\nmedium\n{}", medium.text()));
        say::print(&(text(&facts) + &medium), "printing the facts")
    }
}

/// What is printed for programs.
#[derive(Serialize)]
struct Seen {
    #[serde(flatten)]
    facts: Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    medium: Option<MediumFacts>,
}

/// The facts for people.
fn text(facts: &Facts) -> String {
    let mut page = Page::default();
    write(facts, &mut page);
    page.into_text()
}

fn write(facts: &Facts, out: &mut Page) {
    let architecture = facts.architecture.map_or("unknown architecture", |a| a.name());
    out.line(format_args!(
        "{} disk{} of {} for {architecture}, sectors of {} bytes, {} {}",
        facts.format,
        facts.compression.map_or(String::new(), |how| format!(" in {how}")),
        human(facts.size),
        facts.sector_size,
        if facts.table == "dos" { "MBR" } else { "GUID" },
        facts.guid
    ));
    out.blank();
    out.lines(&picture(facts.partitions.iter().map(row), facts.size, WIDTH));
    out.blank();
    for partition in facts.partitions.iter().filter(|partition| !partition.name.is_empty()) {
        out.line(format_args!(
            "partition {:<3} {:<12} {}",
            partition.number, partition.name, partition.guid
        ));
    }
    if !facts.esp.is_empty() {
        out.blank();
        out.line("EFI system partition");
    }
    for file in &facts.esp {
        let path = file.path.trim_end_matches('/');
        let (indent, name) = match path.rsplit_once('/') {
            Some((above, name)) => (2 * (above.matches('/').count() + 1), name),
            None => (0, path),
        };
        let slash = if file.path.ends_with('/') { "/" } else { "" };
        let shown = format!("{:indent$}{name}{slash}", "");
        let size = if slash.is_empty() { human(file.size) } else { String::new() };
        let program = facts.programs.iter().find(|program| program.path == file.path);
        let mut notes = program.map(notes).unwrap_or_default().into_iter();
        let note = notes.next().unwrap_or_default();
        out.line(format_args!("{}", format!("  {shown:<28} {size:>10}  {note}").trim_end()));
        for note in notes {
            out.line(format_args!("{:43}{note}", ""));
        }
    }
    for entry in &facts.boot_entries {
        out.blank();
        out.line(format_args!("boot entry    {}", entry.title));
        out.line(format_args!("  {:<11} {}", "file", entry.path));
        out.line(format_args!("  {:<11} {}", "kernel", entry.linux));
        out.line(format_args!("  {:<11} {}", "arguments", entry.options));
    }
    for deployment in &facts.deployments {
        let version = deployment.version.as_deref().unwrap_or("of an unknown version");
        out.blank();
        out.line(format_args!("deployment    {version}, in {}", deployment.stateroot));
        out.line(format_args!("  {:<11} {}.{}", "commit", deployment.commit, deployment.serial));
        for (name, value) in [("origin", &deployment.origin), ("image", &deployment.image_digest)] {
            if let Some(value) = value {
                out.line(format_args!("  {name:<11} {value}"));
            }
        }
    }
    if !facts.bootupd.is_empty() {
        out.blank();
    }
    for component in &facts.bootupd {
        out.line(format_args!(
            "bootupd       {}: {}, {}",
            component.name, component.version, component.timestamp
        ));
    }
    if !facts.warnings.is_empty() {
        out.blank();
    }
    for warning in &facts.warnings {
        out.line(format_args!("warning: {warning}"));
    }
}

fn row(partition: &PartitionFacts) -> Row<'_> {
    let filesystem = partition.filesystem.as_ref();
    Row {
        number: partition.number,
        role: partition.role.unwrap_or("-"),
        type_name: partition.type_name,
        start: partition.start,
        size: partition.size,
        used: filesystem.and_then(|filesystem| filesystem.used),
        filesystem: [
            filesystem.map(|filesystem| filesystem.kind),
            filesystem.and_then(|filesystem| filesystem.label.as_deref()),
            filesystem.and_then(|filesystem| filesystem.uuid.as_deref()),
        ],
    }
}

/// Who signed a program, a line each.
fn notes(program: &EfiProgram) -> Vec<String> {
    let signed = program.signatures.iter().map(|signature| {
        let signer = signature.signer.as_deref().unwrap_or("somebody");
        let altered = if signature.intact == Some(false) { ", altered since" } else { "" };
        format!("signed by {signer} ({}){altered}", signature.issuer)
    });
    let mut notes: Vec<String> = signed.collect();
    if notes.is_empty() {
        notes.push("not signed".to_owned());
    }
    notes.extend(program.vendor_certificate.iter().map(|trusted| format!("trusts {trusted}")));
    notes
}
