//! `bootpress inspect IMAGE`: what an image is, for people and for programs.

use std::path::Path;

use anyhow::{Context, Result};
use bootpress::oci::Reference;
use bootpress::report::human;
use bootpress::request::Request;
use bootpress::survey::{ImageFacts, Pressable, survey};
use clap::Args;

use super::flags;
use super::flags::registry::RegistryFlags;
use super::say::{self, Page};
use super::{build, terminal};

/// Layers that are listed one by one.
const LISTED: usize = 12;

/// Characters of a label's value that are shown.
const SHOWN: usize = 100;

/// Transports of container tools; what begins with one is not a disk.
const TRANSPORTS: [&str; 6] =
    ["docker://", "oci:", "oci-archive:", "docker-archive:", "containers-storage:", "dir:"];

#[derive(Debug, Args)]
pub(crate) struct ImageFlags {
    /// Choose the architecture of the image
    ///
    /// Without this flag it is that of this machine, else what there is.
    #[arg(long, value_parser = flags::architecture, help_heading = "Image")]
    arch: Option<String>,

    /// Fetch and read the layers too, to see whether a build works
    #[arg(long, help_heading = "Image")]
    deep: bool,

    #[command(flatten)]
    registry: RegistryFlags,
}

/// Whether the argument of `inspect` means an image. What is a file, or is named like one, is a disk.
pub(super) fn is_image(target: &Path) -> bool {
    let Some(text) = target.to_str() else { return false };
    if TRANSPORTS.iter().any(|transport| text.starts_with(transport)) {
        return true;
    }
    let like_a_path = text.starts_with(['.', '/', '~']);
    let like_a_disk =
        ["raw", "img", "qcow2", "iso", "vmdk", "vhd", "vhdx", "vdi", "ova", "xz", "zst", "gz"];
    let extension = target.extension().and_then(|extension| extension.to_str());
    let like_a_disk = extension.is_some_and(|extension| like_a_disk.contains(&extension));
    !target.is_file() && !like_a_path && !like_a_disk && text.parse::<Reference>().is_ok()
}

/// Looks at the image and prints what was seen.
pub(super) fn run(target: &Path, flags: &ImageFlags, json: bool) -> Result<()> {
    let text = target.to_str().context("the image's name is not UTF-8")?;
    let reference = text.parse().with_context(|| format!("invalid image name {text:?}"))?;
    let architecture = build::architecture(flags.arch.as_deref())?;
    // As a build without any flags would take it.
    let mut request = Request::new(reference, architecture, Path::new("."));
    request.image.access = flags.registry.access()?;
    let progress = terminal::automatic();
    let facts = survey(&request, flags.arch.is_none(), flags.deep, &progress)?;
    if json {
        say::print_json(&facts, "printing the facts")
    } else {
        say::print(&self::text(&facts), "printing the facts")
    }
}

/// The facts for people.
fn text(facts: &ImageFacts) -> String {
    let mut page = Page::default();
    write(facts, &mut page);
    page.into_text()
}

fn write(facts: &ImageFacts, out: &mut Page) {
    let mut row = |name: &str, value: &str| out.line(format_args!("{name:<13} {value}"));
    row("image", &facts.reference);
    let (verdict, reason) = match &facts.pressable {
        Pressable::Yes => ("yes", ""),
        Pressable::Probably => ("probably", "; --deep reads the layers to be sure"),
        Pressable::No(reason) => ("no: ", reason.as_str()),
    };
    row("can be built", &format!("{verdict}{reason}"));
    if facts.top.digest != facts.digest {
        row("index", &facts.top.digest);
    }
    row("digest", &facts.digest);
    row("architecture", facts.architecture);
    for (name, value) in [("version", &facts.version), ("created", &facts.created)] {
        row(name, value.as_deref().unwrap_or("-"));
    }
    row("kernel", facts.kernel.as_deref().unwrap_or("not in the labels; --deep looks for it"));
    match &facts.bootloader {
        Some(lines) => lines.iter().for_each(|line| row("boot loader", line)),
        None => row("boot loader", "in the layers; --deep looks for it"),
    }
    let encapsulated = if facts.encapsulated { "yes, it carries an ostree commit" } else { "no" };
    row("encapsulated", encapsulated);
    match facts.signatures.as_deref() {
        None => row("signatures", "not looked for: they are kept in registries"),
        Some([]) => row("signatures", "none found"),
        Some(_) => {}
    }
    for signature in facts.signatures.iter().flatten() {
        let about = if signature.about == facts.digest { "the image" } else { "the index" };
        row(
            "signature",
            &format!("{} of {about}, {} (not verified)", signature.kind, signature.digest),
        );
    }
    if !facts.top.entries.is_empty() {
        out.blank();
        out.line("platforms");
    }
    for entry in &facts.top.entries {
        let platform = entry.platform.as_deref().unwrap_or("-");
        let artifact =
            entry.artifact.as_ref().map_or(String::new(), |kind| format!("  (no image: {kind})"));
        out.line(format_args!("  {platform:<16} {}{artifact}", entry.digest));
    }
    out.blank();
    out.line(format_args!("layers        {}, {}", facts.layers.len(), human(facts.size)));
    for layer in facts.layers.iter().take(LISTED) {
        let kind = layer.media_type.rsplit('.').next().unwrap_or(&layer.media_type);
        out.line(format_args!("  {:>10}  {:<12} {}", human(layer.size), kind, layer.digest));
    }
    if let Some(more) = facts.layers.get(LISTED..).filter(|more| !more.is_empty()) {
        let size = more.iter().map(|layer| layer.size).sum();
        out.line(format_args!("  {:>10}  in {} more (--json has all)", human(size), more.len()));
    }
    if !facts.labels.is_empty() {
        out.blank();
        out.line("labels");
    }
    for (key, value) in &facts.labels {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let short: String = value.chars().take(SHOWN).collect();
        let dots = if short.len() < value.len() { "…" } else { "" };
        out.line(format_args!("  {key} = {short}{dots}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_disks_are_told_apart_by_their_names() {
        for image in [
            "quay.io/fedora/fedora-bootc:43",
            "oci:dir",
            "oci-archive:x.raw",
            "localhost/x",
            "docker://a/b",
        ] {
            assert!(is_image(Path::new(image)), "{image}");
        }
        for disk in [
            "disk.raw",
            "fedora-bootc-43.x86_64.qcow2",
            "./quay.io",
            "/tmp/x",
            "Cargo.toml",
            "x/UPPER",
        ] {
            assert!(!is_image(Path::new(disk)), "{disk}");
        }
    }
}
