//! What a compose says of its images: `images.json` and `composeinfo.json`, versions 1.2, created or added to.
//!
//! ```text
//! {"header": {"type": "productmd.images", "version": "1.2"},
//!  "payload": {"compose": {"id", "date", "respin", "type"}, "images": {VARIANT: {ARCH: [{"path", "type", "format", …}]}}}}
//! ```
//!
//! Source: productmd 1.51, `images.py` and `composeinfo.py`. Formats that it does not know are left out, with a note.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Artifact;
use crate::architecture::Architecture;
use crate::error::{corrupt, unsupported};
use crate::iso::MediumKind;
use crate::naming::{ComposeId, Subject};
use crate::output::{FileFormat, Format, Packing};

/// Attributes by which productmd tells images apart. Those it has besides are always the same here.
const UNIQUE: [&str; 4] = ["subvariant", "type", "format", "arch"];

/// What an entry is filed under.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// The compose.
    pub compose: &'a ComposeId,
    /// The variant, such as `IoT`: letters and digits.
    pub variant: &'a str,
    /// What is in the image, such as `IoT` or `base`.
    pub subvariant: &'a str,
    /// The machine's architecture.
    pub architecture: Architecture,
}

/// A file, and where it is in the compose.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The file.
    pub artifact: &'a Artifact,
    /// Its path from the compose's directory on.
    pub path: &'a str,
}

/// productmd's type and format of a file; `None`: it knows none.
pub fn kind(subject: Subject) -> Option<(&'static str, &'static str)> {
    match subject {
        Subject::Medium(MediumKind::Iso) => Some(("live-osbuild", "iso")),
        Subject::Medium(MediumKind::Anaconda) => Some(("dvd-ostree", "iso")),
        Subject::Medium(MediumKind::Pxe) => None,
        Subject::Disk(FileFormat { format, packing }) => match (format, packing) {
            (Format::Raw | Format::Ami, None) => Some(("raw", "raw")),
            (Format::Raw | Format::Ami, Some(Packing::Xz)) => Some(("raw-xz", "raw.xz")),
            (Format::Qcow2, None) => Some(("qcow2", "qcow2")),
            (Format::Vmdk, None) => Some(("vmdk", "vmdk")),
            (Format::Vdi, None) => Some(("vdi", "vdi")),
            (Format::Vhd, None) => Some(("vpc", "vhd")),
            (Format::Vhd, Some(Packing::Gz)) => Some(("vhd-compressed", "vhd.gz")),
            (Format::Vhd, Some(Packing::Xz)) => Some(("vhd-compressed", "vhd.xz")),
            (Format::Gce, None) => Some(("tar-gz", "tar.gz")),
            (Format::Ova, None) => Some(("vsphere-ova", "vsphere.ova")),
            _ => None,
        },
    }
}

/// Refuses files of one build that productmd could not tell apart. Returns the formats that it does not know.
pub fn check(subjects: &[Subject]) -> Result<Vec<Subject>> {
    for (index, subject) in subjects.iter().enumerate() {
        let same = |other: &&Subject| kind(**other).is_some() && kind(**other) == kind(*subject);
        if let (Some((_, format)), Some(_)) = (kind(*subject), subjects[..index].iter().find(same))
        {
            return Err(unsupported(
                format!(
                    "two of the formats are {format:?} to productmd, which could not tell them apart"
                ),
                Some("build them one after the other, with different --subvariant"),
            ));
        }
    }
    Ok(subjects.iter().copied().filter(|subject| kind(*subject).is_none()).collect())
}

/// `images.json` with these files in it, besides those of `existing`, the text that is there.
///
/// `Corrupt` if that text is something else; `Unsupported` if it is of another compose, or has another image that productmd
/// could not tell from one of these.
pub fn images(
    existing: Option<(&str, &str)>,
    shelf: Shelf<'_>,
    files: &[Placed<'_>],
) -> Result<String> {
    let empty = || {
        json!({
            "header": { "type": "productmd.images", "version": "1.2" },
            "payload": { "compose": compose(shelf.compose), "images": {} },
        })
    };
    let mut document = match existing {
        Some((name, text)) => read(name, text, "productmd.images", shelf.compose)?,
        None => empty(),
    };
    let name = existing.map_or("images.json", |(name, _)| name);
    let images = object(name, &mut document, &["payload", "images"])?;
    for file in files {
        let Some(entry) = entry(shelf, *file) else { continue };
        for others in images.values_mut().filter_map(Value::as_object_mut) {
            for list in others.values_mut().filter_map(Value::as_array_mut) {
                // The same file, written anew.
                list.retain(|other| other["path"] != entry["path"]);
                if let Some(twin) = list.iter().find(|other| are_alike(other, &entry)) {
                    return Err(unsupported(
                        format!(
                            "productmd could not tell {} from {}, which {name} has already",
                            file.path,
                            twin["path"].as_str().unwrap_or("another image")
                        ),
                        Some("use another --subvariant"),
                    ));
                }
            }
        }
        let architecture = shelf.architecture.name();
        let variant = images.entry(shelf.variant).or_insert_with(|| json!({}));
        let list = variant
            .as_object_mut()
            .map(|variant| variant.entry(architecture).or_insert_with(|| json!([])))
            .and_then(Value::as_array_mut)
            .ok_or_else(|| corrupt(name, "payload.images is not VARIANT: ARCH: [images]"))?;
        list.push(entry);
        list.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
    }
    for variant in images.values_mut().filter_map(Value::as_object_mut) {
        variant.retain(|_, list| list.as_array().is_none_or(|list| !list.is_empty()));
    }
    Ok(text(&document))
}

/// Whether productmd takes two entries for the same image of different content.
fn are_alike(one: &Value, other: &Value) -> bool {
    UNIQUE.iter().all(|key| one[key] == other[key])
        && one["disc_number"] == other["disc_number"]
        && !one["unified"].as_bool().unwrap_or(false)
        && one["checksums"] != other["checksums"]
}

fn entry(shelf: Shelf<'_>, file: Placed<'_>) -> Option<Value> {
    let Artifact { size, sha256, modified, volume_id, implanted_md5, .. } = file.artifact;
    let (kind, format) = kind(file.artifact.subject)?;
    Some(json!({
        "path": file.path,
        "mtime": modified,
        "size": size,
        "volume_id": volume_id,
        "type": kind,
        "format": format,
        "arch": shelf.architecture.name(),
        "disc_number": 1,
        "disc_count": 1,
        "checksums": { "sha256": sha256 },
        "implant_md5": implanted_md5,
        "bootable": true,
        "subvariant": shelf.subvariant,
    }))
}

/// `composeinfo.json` that knows a variant and where its images are: `directory`, from the compose's directory on.
///
/// Fails as [`images`] does.
pub fn compose_info(
    existing: Option<(&str, &str)>,
    shelf: Shelf<'_>,
    directory: &str,
) -> Result<String> {
    let mut document = match existing {
        Some((name, text)) => read(name, text, "productmd.composeinfo", shelf.compose)?,
        None => json!({
            "header": { "type": "productmd.composeinfo", "version": "1.2" },
            "payload": {
                "compose": compose(shelf.compose),
                "release": {
                    "internal": false,
                    "name": shelf.compose.short,
                    "short": shelf.compose.short,
                    "type": shelf.compose.release_type.unwrap_or("ga"),
                    "version": shelf.compose.version,
                },
                "variants": {},
            },
        }),
    };
    let name = existing.map_or("composeinfo.json", |(name, _)| name);
    let wrong = || corrupt(name, "payload.variants is not of productmd's form");
    let variants = object(name, &mut document, &["payload", "variants"])?;
    let variant = variants.entry(shelf.variant).or_insert_with(|| {
        json!({
            "arches": [],
            "id": shelf.variant,
            "name": shelf.variant,
            "paths": { "images": {} },
            "type": "variant",
            "uid": shelf.variant,
        })
    });
    let variant = variant.as_object_mut().ok_or_else(wrong)?;
    let arches = variant.entry("arches").or_insert_with(|| json!([]));
    let arches = arches.as_array_mut().ok_or_else(wrong)?;
    let architecture = json!(shelf.architecture.name());
    if !arches.contains(&architecture) {
        arches.push(architecture);
        arches.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    let paths = variant.entry("paths").or_insert_with(|| json!({}));
    let paths = paths.as_object_mut().ok_or_else(wrong)?;
    let images = paths.entry("images").or_insert_with(|| json!({}));
    let images = images.as_object_mut().ok_or_else(wrong)?;
    images.insert(shelf.architecture.name().to_owned(), json!(directory));
    Ok(text(&document))
}

fn compose(id: &ComposeId) -> Value {
    json!({
        "date": id.date,
        "id": id.to_string(),
        "respin": id.respin,
        "type": id.kind.name(),
    })
}

/// A document that is there: of the right kind, in a version that can be added to, and of the same compose.
fn read(name: &str, text: &str, kind: &str, compose: &ComposeId) -> Result<Value> {
    let document: Value =
        serde_json::from_str(text).map_err(|error| corrupt(name, error.to_string()))?;
    let header = &document["header"];
    if header["type"] != kind {
        return Err(corrupt(name, format!("it is not a document of type {kind}")));
    }
    if header["version"] != "1.2" {
        return Err(unsupported(
            format!("{name} is of version {}, and only 1.2 can be added to", header["version"]),
            Some("name another file with --productmd"),
        ));
    }
    let there = &document["payload"]["compose"]["id"];
    if there.as_str() != Some(&compose.to_string()) {
        return Err(unsupported(
            format!("{name} belongs to compose {there}, not to {compose}"),
            Some("use that --compose-id, or name another file with --productmd"),
        ));
    }
    Ok(document)
}

fn object<'a>(
    name: &str,
    document: &'a mut Value,
    path: &[&str],
) -> Result<&'a mut Map<String, Value>> {
    let mut value = document;
    for key in path {
        value = value.get_mut(key).ok_or_else(|| corrupt(name, format!("there is no {key}")))?;
    }
    value
        .as_object_mut()
        .ok_or_else(|| corrupt(name, format!("{} is not an object", path.join("."))))
}

/// JSON as productmd writes it: sorted keys, four spaces.
pub(super) fn text(document: &Value) -> String {
    let mut document = document.clone();
    document.sort_all_objects();
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
    serde::Serialize::serialize(&document, &mut serializer).expect("a value is JSON");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("JSON is text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Corrupt, Unsupported};

    fn artifact(format: &str, sum: &str) -> Artifact {
        Artifact {
            path: format!("os.{format}").into(),
            subject: Subject::Disk(format.parse().unwrap()),
            size: 7,
            disk_size: Some(7),
            sha256: sum.repeat(32),
            uncompressed: None,
            modified: 1_760_000_000,
            volume_id: None,
            implanted_md5: None,
        }
    }

    fn shelf<'a>(compose: &'a ComposeId, subvariant: &'a str) -> Shelf<'a> {
        Shelf { compose, variant: "IoT", subvariant, architecture: Architecture::X86_64 }
    }

    fn add(
        existing: Option<&str>,
        subvariant: &str,
        format: &str,
        path: &str,
        sum: &str,
    ) -> Result<String> {
        let id = "Fedora-IoT-43-20251014.0".parse().unwrap();
        let artifact = artifact(format, sum);
        let existing = existing.map(|text| ("images.json", text));
        images(existing, shelf(&id, subvariant), &[Placed { artifact: &artifact, path }])
    }

    #[test]
    fn images_of_two_runs_are_merged_and_a_rebuilt_one_is_replaced() {
        let first = add(None, "IoT", "raw.xz", "b.raw.xz", "0a").unwrap();
        let second = add(Some(&first), "IoT", "qcow2", "a.qcow2", "0b").unwrap();
        let paths = |text: &str| -> Vec<String> {
            let document: Value = serde_json::from_str(text).unwrap();
            let list = document["payload"]["images"]["IoT"]["x86_64"].as_array().unwrap().clone();
            list.iter()
                .map(|one| format!("{} {}", one["path"], one["checksums"]["sha256"]))
                .collect()
        };
        assert_eq!(paths(&second).len(), 2);
        assert!(paths(&second)[0].starts_with("\"a.qcow2\""));
        let third = add(Some(&second), "IoT", "qcow2", "a.qcow2", "0c").unwrap();
        assert!(paths(&third)[0].contains("0c0c") && paths(&third).len() == 2, "{third}");
        assert_eq!(add(Some(&third), "IoT", "qcow2", "a.qcow2", "0c").unwrap(), third);
    }

    #[test]
    fn image_that_productmd_cannot_tell_from_another_is_refused() {
        let first = add(None, "IoT", "qcow2", "a.qcow2", "0a").unwrap();
        let error = add(Some(&first), "IoT", "qcow2", "b.qcow2", "0b").unwrap_err();
        assert!(error.is::<Unsupported>(), "{error}");
        assert!(error.to_string().contains("could not tell b.qcow2 from a.qcow2"), "{error}");
        assert!(add(Some(&first), "base", "qcow2", "b.qcow2", "0b").is_ok());
        let subjects = |formats: &[&str]| -> Vec<Subject> {
            formats.iter().map(|format| Subject::Disk(format.parse().unwrap())).collect()
        };
        assert!(check(&subjects(&["raw", "ami"])).is_err());
        assert!(check(&subjects(&["raw", "raw.xz", "qcow2", "vhd", "vhd.xz"])).unwrap().is_empty());
        assert_eq!(check(&subjects(&["raw.zst", "vhdx"])).unwrap().len(), 2);
    }

    #[test]
    fn documents_of_others_are_left_alone() {
        let first = add(None, "IoT", "qcow2", "a.qcow2", "0a").unwrap();
        let other = first.replace("20251014.0", "20251014.1");
        let error = add(Some(&other), "IoT", "raw", "b.raw", "0b").unwrap_err();
        assert!(error.is::<Unsupported>() && error.to_string().contains("belongs to"), "{error}");
        for text in [
            "",
            "{}",
            "[]",
            &first.replace("productmd.images", "x"),
            &first.replace("\"images\"", "\"x\""),
        ] {
            assert!(add(Some(text), "IoT", "raw", "b.raw", "0b").unwrap_err().is::<Corrupt>());
        }
    }

    #[test]
    fn compose_info_gathers_architectures() {
        let id = "Fedora-IoT-43-20251014.n.0".parse().unwrap();
        let one = compose_info(None, shelf(&id, "IoT"), "IoT/x86_64/images").unwrap();
        let other = Shelf { architecture: Architecture::Aarch64, ..shelf(&id, "IoT") };
        let both = compose_info(Some(("c", &one)), other, "IoT/aarch64/images").unwrap();
        let document: Value = serde_json::from_str(&both).unwrap();
        let variant = &document["payload"]["variants"]["IoT"];
        assert_eq!(variant["arches"], json!(["aarch64", "x86_64"]));
        assert_eq!(variant["paths"]["images"]["aarch64"], "IoT/aarch64/images");
        assert_eq!(document["payload"]["compose"]["type"], "nightly");
    }
}
