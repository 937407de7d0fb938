//! What was made, for people.

use bootpress::output::{FileFormat, Format};
use bootpress::report::{Report, human, picture};

use super::ami;
use super::say::Page;
use super::terminal::duration;

/// Columns that fit everywhere.
const WIDTH: usize = 100;

/// A picture of the disk, and what one would otherwise have to look for.
pub(super) fn text(report: &Report) -> String {
    let mut page = Page::default();
    write(report, &mut page);
    page.into_text()
}

fn write(report: &Report, out: &mut Page) {
    let image = &report.image;
    let version =
        image.version.as_deref().map_or(String::new(), |version| format!(", version {version}"));
    out.blank();
    if !report.partitions.is_empty() {
        out.lines(&picture(&report.partitions, report.size, WIDTH));
        out.blank();
    }
    let mut row = |name: &str, value: &str| out.line(format_args!("{name:<13} {value}"));
    row("image", &format!("{}{version}", image.reference));
    row("digest", &image.digest);
    if let Some(verdict) = &report.trust {
        row("signature", &verdict.to_string());
    }
    row("architecture", report.architecture.name());
    for line in &report.system.bootloader {
        row("boot loader", line);
    }
    row("kernel", &report.system.kernel);
    if let Some(system) = &report.system.installed {
        row("command line", &system.command_line);
        let because = system.root_filesystem_because;
        row("root", &format!("{}, {because}", system.root_filesystem));
        row("backend", &format!("{}, {}", system.backend, system.backend_because));
        row("commit", &system.commit);
    }
    for stored in &report.stored_images {
        row("bound image", stored);
    }
    for bound in &report.bound_images {
        row("bound image", &format!("{bound} (not on the disk)"));
    }
    for path in &report.configured {
        row("configured", path);
    }
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.stage.name(), duration(stage.took)))
        .collect();
    if !stages.is_empty() {
        row("time", &stages.join(", "));
    }
    out.blank();
    if !report.planned.is_empty() {
        rehearsed(report, out);
    }
    for file in &report.files {
        out.line(file.path.display());
        let format = FileFormat { format: file.format, packing: file.compression }.to_string();
        let (written, size) = (human(file.allocated), human(report.size));
        out.line(format_args!("{format:<13} {written} written, a disk of {size}"));
        out.line(format_args!("{:<13} {}", "sha256", file.sha256));
        if let Some(inside) = &file.uncompressed {
            out.line(format_args!("{:<13} {} (uncompressed)", "", inside.sha256));
        }
        if file.format == Format::Ami {
            out.blank();
            out.lines(&ami::instructions(report, file));
            out.blank();
        }
    }
    for medium in &report.media {
        out.line(medium.path.display());
        let (format, size) = (medium.format, human(medium.size));
        out.line(format_args!("{format:<13} {size}, boots live and installs"));
        out.line(format_args!("{:<13} {}", "sha256", medium.sha256));
    }
    documents(report, out);
    for published in &report.published {
        out.line(format_args!("{} ({})", published.path.display(), published.what));
    }
}

/// Documents that stand beside the files.
fn documents(report: &Report, out: &mut Page) {
    for document in &report.documents {
        out.line(document.path.display());
        out.line(format_args!("{:<13} {}", document.kind, human(document.size)));
        out.line(format_args!("{:<13} {}", "sha256", document.sha256));
    }
}

/// What a dry run has to say besides.
fn rehearsed(report: &Report, out: &mut Page) {
    out.line(" layer  digest              size  media type");
    for (layer, number) in report.image.layers.iter().zip(1..) {
        let digest = layer.digest.trim_start_matches("sha256:");
        let short = digest.get(..12).unwrap_or(digest);
        out.line(format_args!(
            "{number:>6}  {short:<12}  {:>10}  {}",
            human(layer.size),
            layer.media_type
        ));
    }
    let content: u64 = report
        .partitions
        .iter()
        .filter_map(|one| one.filesystem.as_ref())
        .map(|one| one.used)
        .sum();
    out.blank();
    for decision in &report.decisions {
        out.line(format_args!("{:<24} {}", decision.about, decision.chosen));
    }
    out.blank();
    if report.partitions.is_empty() {
        out.line("nothing was written");
    } else {
        out.line(format_args!(
            "nothing was written: this is what a disk of {} would be, {} of it in use",
            human(report.size),
            human(content)
        ));
    }
    for file in &report.planned {
        out.line(format_args!("{:<13} {} ({})", "would write", file.path.display(), file.format));
    }
}
