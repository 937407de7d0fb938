//! The bill of materials of a build, from what was made and written.

use std::io::Read;

use anyhow::{Context, Result};
use serde_json::Value;
use sha1_smol::Sha1;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::content::{Content, ContentStore};
use crate::iso::MediumKind;
use crate::make::Made;
use crate::output::FileFormat;
use crate::packages::Inventory;
use crate::plan::Plan;
use crate::sbom::{Artifact, Bill, BootFile, Carried, OperatingSystem, SourceImage};
use crate::tree::{Kind, Tree};
use crate::written::{Written, WrittenMedium};

/// The time of documents about images that do not say when they were made.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

pub(super) fn of(
    plan: &Plan,
    made: &Made,
    written: &Written,
    inventory: Inventory,
    system: OperatingSystem,
    carried: Vec<Carried>,
) -> Result<Bill> {
    let image = &made.image;
    let reference = image.reference.split_once("://").map_or(&*image.reference, |(_, name)| name);
    // A path says something about this machine, and nothing about the image.
    let local = image.reference.contains(':') && !image.reference.contains("://");
    let fallback = if local { "image" } else { reference };
    Ok(Bill {
        artifacts: artifacts(written),
        image: SourceImage {
            name: image.name.clone().unwrap_or_else(|| fallback.to_owned()),
            digest: image.manifest_digest.clone(),
            architecture: image.architecture.name(),
            version: image.version().map(str::to_owned),
        },
        system,
        inventory,
        boot_files: boot_files(made)?,
        carried,
        created: created(image.config.get("created").and_then(Value::as_str)),
        identity: Uuid::new_v5(&plan.identity.disk, b"bill of materials"),
        tool: ("bootpress", env!("CARGO_PKG_VERSION")),
    })
}

/// A time of the image as both formats want it: UTC, whole seconds.
fn created(text: Option<&str>) -> String {
    let text = text.unwrap_or(NO_TIME);
    let seconds = text.get(..19).filter(|_| text.is_ascii());
    let utc = text.ends_with(['Z', 'z']);
    let shape = |text: &str| {
        text.bytes().zip(b"0000-00-00T00:00:00").all(|(byte, &like)| match like {
            b'0' => byte.is_ascii_digit(),
            like => byte == like,
        })
    };
    match seconds {
        Some(seconds) if utc && shape(seconds) => format!("{seconds}Z"),
        _ => NO_TIME.to_owned(),
    }
}

/// The files of a build: disks first, then media.
pub(super) fn artifacts(written: &Written) -> Vec<Artifact> {
    let name = |path: &std::path::Path| {
        path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let files = written.files.iter().map(|file| Artifact {
        name: name(&file.path),
        format: FileFormat { format: file.format, packing: file.compression }.to_string(),
        sha256: file.sha256.clone(),
        installs: false,
    });
    let media = written.media.iter().map(|(kind, medium)| match medium {
        WrittenMedium::File(file) => of_medium(*kind, name(&file.path), &file.sha256),
        WrittenMedium::Directory(files) => of_medium(*kind, name(&files.path), &files.sha256),
    });
    files.chain(media).collect()
}

fn of_medium(kind: MediumKind, name: String, sha256: &str) -> Artifact {
    Artifact { name, format: kind.name().to_owned(), sha256: sha256.to_owned(), installs: true }
}

/// What firmware and boot loader start: files of the ESP, the kernel and its initramfs.
fn boot_files(made: &Made) -> Result<Vec<BootFile>> {
    let mut found = Vec::new();
    if let Some(esp) = &made.boot.esp {
        files_of(esp, "ESP", &made.contents, &mut found)?;
    }
    let kernel = &made.kernel;
    let version = &kernel.version;
    let mut add = |name: String, content: &Content| -> Result<()> {
        found.push(file(name, content, &made.contents)?);
        Ok(())
    };
    add(format!("boot/vmlinuz-{version}"), &kernel.linux)?;
    if let Some(initramfs) = &kernel.initramfs {
        add(format!("boot/initramfs-{version}.img"), initramfs)?;
    }
    Ok(found)
}

fn files_of(
    tree: &Tree,
    prefix: &str,
    contents: &ContentStore,
    found: &mut Vec<BootFile>,
) -> Result<()> {
    for (path, id) in tree.walk() {
        if let Kind::File(content) = &tree.inode(id).kind {
            let path = format!("{prefix}/{}", String::from_utf8_lossy(&path));
            found.push(file(path, content, contents)?);
        }
    }
    Ok(())
}

fn file(path: String, content: &Content, contents: &ContentStore) -> Result<BootFile> {
    let (mut sha1, mut sha256) = (Sha1::new(), Sha256::new());
    let mut reader = contents.reader(content);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = reader.read(&mut buffer).with_context(|| format!("reading {path}"))?;
        if count == 0 {
            break;
        }
        sha1.update(&buffer[..count]);
        sha256.update(&buffer[..count]);
    }
    let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(BootFile { path, sha1: sha1.digest().to_string(), sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_and_whole_seconds() {
        assert_eq!(created(Some("2025-01-02T03:04:05.678901Z")), "2025-01-02T03:04:05Z");
        for odd in
            [None, Some(""), Some("2025-01-02T03:04:05+01:00"), Some("yesterday, of all days Z")]
        {
            assert_eq!(created(odd), NO_TIME, "{odd:?}");
        }
    }
}
