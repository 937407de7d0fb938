//! Disks as OCI artifacts: the manifests under which registries keep them. Values only; somebody else sends them.
//!
//! ```text
//! index TAG ─┬─► manifest  artifactType application/vnd.diskimage.qcow2, platform amd64 ─► one layer: the file
//!            └─► manifest  …, platform arm64                                   ▲
//!                                    manifest with `subject`: SBOM, provenance ┘    also as tag sha256-DIGEST.sbom, .att
//! ```
//!
//! Sources: OCI image 1.1 ("Guidelines for Artifact Usage"); Konflux' task build-vm-image 0.3 for artifact types; KubeVirt's user guide
//! for containerDisks; podman's `pkg/machine/ocipull` for what podman machine pulls; cosign's tag scheme for attachments.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::architecture::Architecture;
use crate::error::unsupported;
use crate::naming::Subject;
use crate::output::{FileFormat, Format, Packing};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// The config of what needs none (OCI image 1.1, "Guidance for an Empty Descriptor").
pub const EMPTY: &[u8] = b"{}";

/// Annotation with the name of a file.
pub const TITLE: &str = "org.opencontainers.image.title";

/// Annotation with the kind of machine that podman starts from a disk.
pub const DISK_TYPE: &str = "disktype";

/// Owner and group of files that QEMU reads in a KubeVirt pod.
const KUBEVIRT_USER: u64 = 107;

/// How disks are kept in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Artifacts with the types that Konflux uses.
    #[default]
    Artifact,
    /// Images for KubeVirt, with the disk in `/disk`.
    ContainerDisk,
    /// Artifacts that podman machine pulls.
    PodmanMachine,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Artifact, Self::ContainerDisk, Self::PodmanMachine];

    /// The shape as one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Artifact => "artifact",
            Self::ContainerDisk => "containerdisk",
            Self::PodmanMachine => "podman-machine",
        }
    }
}

/// A blob as manifests name it.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// `sha256:…`.
    pub digest: &'a str,
    /// Bytes.
    pub size: u64,
}

/// A disk to be kept.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file's name.
    pub name: String,
    /// What it is.
    pub subject: Subject,
    /// The machine's architecture.
    pub architecture: Architecture,
    /// What is said about it: the source image's labels, the compose.
    pub annotations: BTreeMap<String, String>,
}

impl Disk {
    /// Refuses what a shape has no room for.
    pub fn check(&self, shape: Shape) -> Result<()> {
        match shape {
            Shape::Artifact => Ok(()),
            Shape::ContainerDisk => match self.subject {
                Subject::Disk(FileFormat {
                    format: Format::Qcow2 | Format::Raw,
                    packing: None,
                }) => Ok(()),
                _ => Err(unsupported(
                    format!(
                        "KubeVirt starts no {} from a containerDisk: {}",
                        self.subject.format(),
                        self.name
                    ),
                    Some("push a qcow2; --qcow2-compress zstd makes it small"),
                )),
            },
            Shape::PodmanMachine => self.disk_type().map(drop),
        }
    }

    /// What podman machine calls the hypervisor that takes this file.
    fn disk_type(&self) -> Result<&'static str> {
        match self.subject {
            Subject::Disk(FileFormat { format: Format::Qcow2, packing: Some(Packing::Zst) }) => {
                Ok("qemu")
            }
            Subject::Disk(FileFormat { format: Format::Raw, packing: Some(Packing::Zst) }) => {
                Ok("applehv")
            }
            Subject::Disk(FileFormat { format: Format::Vhdx, packing: Some(Packing::Zst) }) => {
                Ok("hyperv")
            }
            _ => Err(unsupported(
                format!("podman machine starts no {}: {}", self.subject.format(), self.name),
                Some("push qcow2.zst (QEMU), raw.zst (Apple) or vhdx.zst (Hyper-V)"),
            )),
        }
    }

    /// The type by which registries know the artifact; Konflux' names where it has one.
    fn artifact_type(&self) -> String {
        let kind = match self.subject {
            Subject::Disk(FileFormat { format: Format::Gce, .. }) => "gce.tgz".to_owned(),
            Subject::Disk(FileFormat { format, packing }) => {
                let name = if format == Format::Ami { "raw" } else { format.name() };
                match packing {
                    None => name.to_owned(),
                    Some(Packing::Gz) => format!("{name}.gzip"),
                    Some(Packing::Xz) => format!("{name}.xz"),
                    Some(Packing::Zst) => format!("{name}.zstd"),
                }
            }
            Subject::Medium(kind) => kind.extension().to_owned(),
        };
        format!("application/vnd.diskimage.{kind}")
    }

    fn layer_type(&self) -> &'static str {
        match self.subject {
            Subject::Disk(FileFormat { format: Format::Gce, .. }) => "application/gzip",
            Subject::Disk(FileFormat { packing: Some(packing), .. }) => match packing {
                Packing::Gz => "application/gzip",
                Packing::Xz => "application/x-xz",
                Packing::Zst => "application/zstd",
            },
            _ => "application/octet-stream",
        }
    }

    /// The config of an artifact: its platform, which Konflux reads when it puts manifests into an index. What podman machine pulls
    /// has none.
    pub fn config(&self, shape: Shape) -> Vec<u8> {
        if shape == Shape::PodmanMachine {
            return EMPTY.to_vec();
        }
        let config = json!({ "architecture": go_name(self.architecture), "os": "linux" });
        config.to_string().into_bytes()
    }

    /// The manifest of an artifact, and of what podman machine pulls.
    pub fn manifest(&self, shape: Shape, layer: Blob<'_>, config: Blob<'_>) -> Result<Value> {
        let config_type = match shape {
            Shape::PodmanMachine => EMPTY_TYPE,
            _ => IMAGE_CONFIG,
        };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": self.artifact_type(),
            "config": descriptor(config_type, config),
            "layers": [{
                "mediaType": self.layer_type(),
                "digest": layer.digest,
                "size": layer.size,
                "annotations": { TITLE: self.name },
            }],
            "annotations": self.annotations,
        });
        if shape == Shape::PodmanMachine {
            manifest["annotations"][DISK_TYPE] = self.disk_type()?.into();
        }
        Ok(manifest)
    }

    /// The manifest of a containerDisk.
    pub fn container_manifest(&self, layer: Blob<'_>, config: Blob<'_>) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(IMAGE_CONFIG, config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
            "annotations": self.annotations,
        })
    }

    /// The config of a containerDisk. Its labels are the annotations, which tools that know nothing of these show.
    pub fn container_config(&self, diff_id: &str) -> Value {
        json!({
            "architecture": go_name(self.architecture),
            "os": "linux",
            "config": { "Labels": self.annotations },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created_by": concat!("bootpress ", env!("CARGO_PKG_VERSION")) }],
        })
    }

    /// What stands before and behind the disk in a containerDisk's layer: a tar archive of `disk/` and the file, which belong to the
    /// user that QEMU runs as there.
    pub fn container_layer(&self, size: u64) -> Result<(Vec<u8>, Vec<u8>)> {
        let name = format!("disk/{}", self.name);
        let mut before = header("disk/", 0, b'5', 0o755)?;
        before.extend(header(&name, size, b'0', 0o440)?);
        // Files fill blocks of 512 bytes, and two empty blocks end the archive (POSIX.1-2024, pax, "ustar Interchange Format").
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        Ok((before, vec![0; padding + 1024]))
    }

    /// How the index names this disk's manifest.
    pub fn entry(&self, shape: Shape, manifest: Blob<'_>) -> Result<Value> {
        let mut entry = descriptor(MANIFEST, manifest);
        let architecture = match shape {
            // podman machine looks for the kernel's names.
            Shape::PodmanMachine => self.architecture.name(),
            _ => go_name(self.architecture),
        };
        entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
        match shape {
            Shape::ContainerDisk => {}
            Shape::Artifact => entry["artifactType"] = self.artifact_type().into(),
            Shape::PodmanMachine => entry["annotations"] = json!({ DISK_TYPE: self.disk_type()? }),
        }
        Ok(entry)
    }
}

/// An index of entries, with those of an older one that are for something else.
pub fn index(
    entries: &[Value],
    older: Option<&Value>,
    annotations: &BTreeMap<String, String>,
) -> Value {
    let about = |entry: &Value| {
        let disk_type = entry["annotations"][DISK_TYPE].clone();
        [entry["platform"].clone(), entry["artifactType"].clone(), disk_type]
    };
    let older = older.and_then(|older| older["manifests"].as_array()).into_iter().flatten();
    let kept = older.filter(|old| entries.iter().all(|new| about(new) != about(old)));
    let manifests: Vec<&Value> = kept.chain(entries).collect();
    let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    if !annotations.is_empty() {
        index["annotations"] = json!(annotations);
    }
    index
}

/// What is attached to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// An SBOM in SPDX's JSON.
    Spdx,
    /// An SBOM in CycloneDX' JSON.
    CycloneDx,
    /// A statement in a signed envelope.
    Dsse,
    /// A statement of in-toto.
    InToto,
    /// A signature of sigstore, with what verifies it.
    SigstoreBundle,
    /// A signature of OpenPGP.
    OpenPgp,
}

impl Attachment {
    /// Ends of file names, and what is in such files.
    const ENDS: [(&'static str, Self); 7] = [
        (".spdx.json", Self::Spdx),
        (".cdx.json", Self::CycloneDx),
        (".dsse.json", Self::Dsse),
        (".intoto.json", Self::InToto),
        (".intoto.jsonl", Self::Dsse),
        (".sigstore.json", Self::SigstoreBundle),
        (".asc", Self::OpenPgp),
    ];

    /// What a file is, by the end of its name.
    pub fn of_name(name: &str) -> Result<Self, String> {
        let found = Self::ENDS.into_iter().find(|(end, _)| name.ends_with(end));
        found.map(|(_, kind)| kind).ok_or_else(|| {
            let ends = Self::ENDS.map(|(end, _)| end).join(", ");
            format!("{name} does not say what it is: expected a name that ends in one of: {ends}")
        })
    }

    /// The media type of the file.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Spdx => "application/spdx+json",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
            Self::Dsse => "application/vnd.dsse.envelope.v1+json",
            Self::InToto => "application/vnd.in-toto+json",
            Self::SigstoreBundle => "application/vnd.dev.sigstore.bundle.v0.3+json",
            Self::OpenPgp => "application/pgp-signature",
        }
    }

    /// The end of cosign's tag, and the media type that cosign gives it; `None`: cosign has no tag for it.
    pub const fn tag(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Spdx => Some(("sbom", "text/spdx+json")),
            Self::CycloneDx => Some(("sbom", "application/vnd.cyclonedx+json")),
            Self::Dsse => Some(("att", "application/vnd.dsse.envelope.v1+json")),
            Self::InToto | Self::SigstoreBundle | Self::OpenPgp => None,
        }
    }
}

/// A manifest that refers to another one.
pub fn referrer(
    kind: Attachment,
    name: &str,
    layer: Blob<'_>,
    empty: Blob<'_>,
    subject: Blob<'_>,
) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind.media_type(),
        "config": descriptor(EMPTY_TYPE, empty),
        "layers": [{
            "mediaType": kind.media_type(),
            "digest": layer.digest,
            "size": layer.size,
            "annotations": { TITLE: name },
        }],
        "subject": descriptor(MANIFEST, subject),
    })
}

/// A manifest under cosign's tag, with the same layers.
pub fn tagged(media_type: &str, layers: &[Blob<'_>], config: Blob<'_>) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(media_type, *layer)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(IMAGE_CONFIG, config),
        "layers": layers,
    })
}

/// The config of what stands under cosign's tags.
pub fn tagged_config(diff_ids: &[&str]) -> Value {
    json!({
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

/// Annotations of a disk from the labels of its source image.
pub fn annotations(
    labels: Option<&Map<String, Value>>,
    source: Option<(&str, &str)>,
) -> BTreeMap<String, String> {
    /// Labels that describe what is in the image, and so what is on the disk.
    const KEPT: &str = "org.opencontainers.image.";
    let labels = labels.into_iter().flatten();
    let mut all: BTreeMap<String, String> = labels
        .filter(|(key, _)| key.starts_with(KEPT) || key.starts_with("containers.bootc"))
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    if let Some((name, digest)) = source {
        all.insert(format!("{KEPT}base.name"), name.to_owned());
        all.insert(format!("{KEPT}base.digest"), digest.to_owned());
    }
    all
}

fn descriptor(media_type: &str, blob: Blob<'_>) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size })
}

/// OCI's name of an architecture, which is Go's.
pub const fn go_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "amd64",
        Architecture::Aarch64 => "arm64",
    }
}

/// A header of a ustar archive (POSIX.1-2024, pax, "ustar Interchange Format"), without a time.
fn header(name: &str, size: u64, kind: u8, mode: u32) -> Result<Vec<u8>> {
    /// Bytes of the field for the name.
    const LONGEST: usize = 100;
    /// Octal digits of the field for the size; GNU's and star's form holds more in base 256.
    const OCTAL: u64 = 1 << 33;
    if name.len() > LONGEST {
        return Err(unsupported(
            format!("{name} is longer than {LONGEST} bytes"),
            Some("give the disk a shorter name"),
        ));
    }
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{KUBEVIRT_USER:07o}").as_bytes());
    put(116, format!("{KUBEVIRT_USER:07o}").as_bytes());
    if size < OCTAL {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: Blob<'static> = Blob { digest: "sha256:00", size: 7 };

    fn disk(format: &str) -> Disk {
        Disk {
            name: format!("os.x86_64.{format}"),
            subject: Subject::Disk(format.parse().unwrap()),
            architecture: Architecture::X86_64,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn artifact_types_are_those_of_konflux() {
        for (format, kind) in [
            ("qcow2", "qcow2"),
            ("raw.gz", "raw.gzip"),
            ("vhd.gz", "vhd.gzip"),
            ("vmdk.gz", "vmdk.gzip"),
            ("ova.gz", "ova.gzip"),
            ("gce", "gce.tgz"),
            ("raw.zst", "raw.zstd"),
            ("ami", "raw"),
        ] {
            let manifest = disk(format).manifest(Shape::Artifact, BLOB, BLOB).unwrap();
            assert_eq!(manifest["artifactType"], format!("application/vnd.diskimage.{kind}"));
        }
    }

    #[test]
    fn podman_machine_gets_types_that_it_looks_for() {
        for (format, kind) in
            [("qcow2.zst", "qemu"), ("raw.zst", "applehv"), ("vhdx.zst", "hyperv")]
        {
            let entry = disk(format).entry(Shape::PodmanMachine, BLOB).unwrap();
            assert_eq!(entry["annotations"][DISK_TYPE], kind);
            assert_eq!(entry["platform"], json!({ "architecture": "x86_64", "os": "linux" }));
            let manifest = disk(format).manifest(Shape::PodmanMachine, BLOB, BLOB).unwrap();
            assert_eq!(manifest["layers"][0]["annotations"][TITLE], format!("os.x86_64.{format}"));
        }
        assert!(disk("qcow2").check(Shape::PodmanMachine).is_err());
        assert!(disk("vmdk").check(Shape::ContainerDisk).is_err());
        assert!(disk("qcow2.zst").check(Shape::ContainerDisk).is_err());
        assert!(disk("qcow2").check(Shape::ContainerDisk).is_ok());
    }

    #[test]
    fn index_keeps_what_is_for_other_machines() {
        let entry = |format: &str, digest: &str| {
            let blob = Blob { digest, size: 1 };
            disk(format).entry(Shape::Artifact, blob).unwrap()
        };
        let none = BTreeMap::new();
        let first = index(&[entry("qcow2", "sha256:1"), entry("raw", "sha256:2")], None, &none);
        let mut other = entry("qcow2", "sha256:3");
        other["platform"]["architecture"] = "arm64".into();
        let second = index(&[other], Some(&first), &none);
        assert_eq!(second["manifests"].as_array().unwrap().len(), 3);
        let third = index(&[entry("qcow2", "sha256:4")], Some(&second), &none);
        let digests: Vec<&str> = third["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["digest"].as_str().unwrap())
            .collect();
        assert_eq!(digests, ["sha256:2", "sha256:3", "sha256:4"]);
    }

    #[test]
    fn container_layer_is_a_tar_archive() {
        let disk = disk("qcow2");
        let content = b"seven b";
        let (mut archive, end) = disk.container_layer(7).unwrap();
        archive.extend(content);
        archive.extend(end);
        assert!(archive.len().is_multiple_of(512));
        let mut archive = tar::Archive::new(&archive[..]);
        let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        let told = |entry: &tar::Entry<'_, &[u8]>| {
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            (
                path,
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mode().unwrap(),
                header.size().unwrap(),
            )
        };
        assert_eq!(told(&entries[0]), ("disk/".to_owned(), 107, 107, 0o755, 0));
        assert_eq!(told(&entries[1]), ("disk/os.x86_64.qcow2".to_owned(), 107, 107, 0o440, 7));
        let huge = header("x", 1 << 40, b'0', 0o440).unwrap();
        assert_eq!(tar::Header::from_byte_slice(&huge).size().unwrap(), 1 << 40);
        assert!(header(&"x".repeat(101), 0, b'0', 0).is_err());
    }
}
