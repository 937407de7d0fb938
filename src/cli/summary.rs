//! What was made, for people.

use std::fmt::Write;

use bootpress::output::{FileFormat, Format};
use bootpress::report::{Report, human, picture};

use super::ami;
use super::terminal::duration;

/// Columns that fit everywhere.
const WIDTH: usize = 100;

/// A picture of the disk, and what one would otherwise have to look for.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let image = &report.image;
    let version =
        image.version.as_deref().map_or(String::new(), |version| format!(", version {version}"));
    writeln!(out)?;
    if !report.partitions.is_empty() {
        writeln!(out, "{}", picture(&report.partitions, report.size, WIDTH))?;
    }
    let mut row = |name: &str, value: &str| writeln!(out, "{name:<13} {value}");
    row("image", &format!("{}{version}", image.reference))?;
    row("digest", &image.digest)?;
    if let Some(verdict) = &report.trust {
        row("signature", &verdict.to_string())?;
    }
    row("architecture", report.architecture.name())?;
    for line in &report.system.bootloader {
        row("boot loader", line)?;
    }
    row("kernel", &report.system.kernel)?;
    if let Some(system) = &report.system.installed {
        row("command line", &system.command_line)?;
        let because = system.root_filesystem_because;
        row("root", &format!("{}, {because}", system.root_filesystem))?;
        row("commit", &system.commit)?;
    }
    for stored in &report.stored_images {
        row("bound image", stored)?;
    }
    for bound in &report.bound_images {
        row("bound image", &format!("{bound} (not on the disk)"))?;
    }
    for path in &report.configured {
        row("configured", path)?;
    }
    let stages: Vec<String> = report
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.stage.name(), duration(stage.took)))
        .collect();
    if !stages.is_empty() {
        row("time", &stages.join(", "))?;
    }
    writeln!(out)?;
    if !report.planned.is_empty() {
        rehearsed(report, out)?;
    }
    for file in &report.files {
        writeln!(
            out,
            "{}\n{:<13} {} written, a disk of {}\n{:<13} {}",
            file.path.display(),
            FileFormat { format: file.format, packing: file.compression }.to_string(),
            human(file.allocated),
            human(report.size),
            "sha256",
            file.sha256
        )?;
        if let Some(inside) = &file.uncompressed {
            writeln!(out, "{:<13} {} (uncompressed)", "", inside.sha256)?;
        }
        if file.format == Format::Ami {
            writeln!(out, "\n{}", ami::instructions(report, file))?;
        }
    }
    for medium in &report.media {
        writeln!(
            out,
            "{}\n{:<13} {}, boots live and installs\n{:<13} {}",
            medium.path.display(),
            medium.format,
            human(medium.size),
            "sha256",
            medium.sha256
        )?;
    }
    Ok(())
}

/// What a dry run has to say besides.
fn rehearsed(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, " layer  digest              size  media type")?;
    for (layer, number) in report.image.layers.iter().zip(1..) {
        let digest = layer.digest.trim_start_matches("sha256:");
        let short = digest.get(..12).unwrap_or(digest);
        writeln!(out, "{number:>6}  {short:<12}  {:>10}  {}", human(layer.size), layer.media_type)?;
    }
    let content: u64 = report
        .partitions
        .iter()
        .filter_map(|one| one.filesystem.as_ref())
        .map(|one| one.used)
        .sum();
    writeln!(out)?;
    for decision in &report.decisions {
        writeln!(out, "{:<24} {}", decision.about, decision.chosen)?;
    }
    if report.partitions.is_empty() {
        writeln!(out, "\nnothing was written")?;
    } else {
        writeln!(
            out,
            "\nnothing was written: this is what a disk of {} would be, {} of it in use",
            human(report.size),
            human(content)
        )?;
    }
    for file in &report.planned {
        writeln!(out, "{:<13} {} ({})", "would write", file.path.display(), file.format)?;
    }
    Ok(())
}
