//! What output files are called: a template, and the values that stand in it.
//!
//! ```text
//! {name}-{kind}-{version}-{date}.{respin}.{arch}.{ext}  ──►  Fedora-IoT-raw-43-20251014.0.x86_64.raw.xz
//!   values: --name-value, else --compose-id, else the image's labels, else its os-release
//! ```

mod compose_id;

use std::fmt;
use std::str::FromStr;

use anyhow::Result;

use crate::error::unsupported;
use crate::image::Image;
use crate::iso::MediumKind;
use crate::output::{FileFormat, Format, Packing};

pub use compose_id::{ComposeId, ComposeKind};

/// Templates that have a name: those of the field's composes and tools.
///
/// Sources: names in Fedora's IoT and Cloud composes of release 43; Koji's image builds (`N-V-R.A`); coreos-assembler's
/// artifacts; bootc-image-builder's fixed names.
pub const PRESETS: [(&str, &str); 5] = [
    ("fedora-iot", "{name}-{kind}-{version}-{date}.{respin}.{arch}.{ext}"),
    ("fedora-cloud", "{name}-Base-{cloud}-{version}-{date}.{respin}.{arch}.{ext}"),
    ("koji", "{name}-{version}-{date}.{respin}.{arch}.{ext}"),
    ("cosa", "{name}-{build}-{platform}.{arch}.{ext}"),
    ("bib", "disk.{ext}"),
];

/// What a template's braces can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The product: the compose's short name, else the image's name.
    Name,
    /// The kind of file in one word: `raw`, `qcow2`, `live`.
    Kind,
    /// The kind as Fedora's cloud images spell it: `Generic`, `AmazonEC2`.
    Cloud,
    /// The kind as CoreOS' artifacts spell it: `qemu`, `metal`, `aws`.
    Platform,
    /// The release, such as `43`.
    Version,
    /// The day, as `YYYYMMDD`.
    Date,
    /// The number on that day.
    Respin,
    /// The image's version label, else version, date and respin.
    Build,
    /// The architecture.
    Arch,
    /// How the file's name ends.
    Ext,
    /// What `--format` was given.
    Format,
    /// The first twelve digits of the manifest's digest.
    Digest,
    /// The compose's variant.
    Variant,
    /// The compose's subvariant.
    Subvariant,
}

impl Value {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Name,
        Self::Kind,
        Self::Cloud,
        Self::Platform,
        Self::Version,
        Self::Date,
        Self::Respin,
        Self::Build,
        Self::Arch,
        Self::Ext,
        Self::Format,
        Self::Digest,
        Self::Variant,
        Self::Subvariant,
    ];

    /// What stands between the braces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Kind => "kind",
            Self::Cloud => "cloud",
            Self::Platform => "platform",
            Self::Version => "version",
            Self::Date => "date",
            Self::Respin => "respin",
            Self::Build => "build",
            Self::Arch => "arch",
            Self::Ext => "ext",
            Self::Format => "format",
            Self::Digest => "digest",
            Self::Variant => "variant",
            Self::Subvariant => "subvariant",
        }
    }

    fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|value| value.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown value {{{name}}}: expected one of: {names}")
        })
    }
}

/// A file name with values in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

impl FromStr for Template {
    type Err = String;

    /// A preset's name, or a template.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, template)) = PRESETS.into_iter().find(|(name, _)| *name == text) {
            return Self::parse(template);
        }
        if !text.contains('{') {
            let names = PRESETS.map(|(name, _)| name).join(", ");
            return Err(format!("expected one of: {names}, or a template with {{ext}} in it"));
        }
        Self::parse(text)
    }
}

impl Template {
    /// A template for whoever wants values and no names.
    pub fn usual() -> Self {
        Self(vec![Part::Value(Value::Name), Part::Text(".".to_owned()), Part::Value(Value::Ext)])
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("a { has no }")?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Value(Value::parse(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Value(_) => None,
        });
        if let Some(wrong) = texts.flat_map(str::chars).find(|c| !is_safe(*c)) {
            return Err(format!(
                "{wrong:?} cannot stand in a file's name; letters, digits and -_.+~ can"
            ));
        }
        // Programs tell disk formats by the end of the name.
        if parts.last() != Some(&Part::Value(Value::Ext)) {
            return Err("a template ends in {ext}".to_owned());
        }
        Ok(Self(parts))
    }

    fn uses(&self, value: Value) -> bool {
        self.0.contains(&Part::Value(value))
    }
}

/// What names are made from besides the image.
#[derive(Clone, Debug)]
pub struct Naming {
    /// The form of the names.
    pub template: Template,
    /// The compose that the files belong to.
    pub compose: Option<ComposeId>,
    /// The compose's variant.
    pub variant: Option<String>,
    /// The compose's subvariant.
    pub subvariant: Option<String>,
    /// Values that somebody gave; they go before all others.
    pub given: Vec<(Value, String)>,
}

/// A file to be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A disk.
    Disk(FileFormat),
    /// A medium.
    Medium(MediumKind),
}

impl Subject {
    fn kind(self) -> &'static str {
        match self {
            Self::Disk(format) => format.format.name(),
            Self::Medium(MediumKind::Iso) => "live",
            Self::Medium(MediumKind::Anaconda) => "installer",
            Self::Medium(MediumKind::Pxe) => "netboot",
        }
    }

    fn cloud(self) -> &'static str {
        match self {
            Self::Disk(format) => match format.format {
                Format::Ami => "AmazonEC2",
                Format::Vhd => "Azure",
                Format::Gce => "GCE",
                Format::Vhdx => "HyperV",
                Format::Vdi => "VirtualBox",
                Format::Vmdk | Format::Ova => "VMware",
                Format::Raw | Format::Qcow2 => "Generic",
            },
            Self::Medium(_) => self.kind(),
        }
    }

    fn platform(self) -> &'static str {
        match self {
            Self::Disk(format) => match format.format {
                Format::Raw => "metal",
                Format::Qcow2 => "qemu",
                Format::Ami => "aws",
                Format::Vhd => "azure",
                Format::Gce => "gcp",
                Format::Vhdx => "hyperv",
                Format::Vdi => "virtualbox",
                Format::Vmdk | Format::Ova => "vmware",
            },
            Self::Medium(_) => self.kind(),
        }
    }

    /// What whoever reads the file looks for; unlike the ends of names without template, two formats may share one.
    fn extension(self) -> String {
        match self {
            Self::Disk(FileFormat { format, packing }) => {
                let end = match format {
                    Format::Gce => "tar.gz",
                    Format::Ami => "raw",
                    other => other.extension(),
                };
                packing
                    .map(Packing::extension)
                    .into_iter()
                    .fold(end.to_owned(), |end, packing| format!("{end}.{packing}"))
            }
            Self::Medium(kind) => kind.extension().to_owned(),
        }
    }

    /// What `--format` calls it.
    pub fn format(self) -> String {
        match self {
            Self::Disk(format) => format.to_string(),
            Self::Medium(kind) => kind.name().to_owned(),
        }
    }
}

/// The image that files are named after.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The name by which it was asked for, without registry and tag.
    pub stem: &'a str,
    /// What it says about itself.
    pub image: &'a Image,
    /// `VERSION_ID` of its os-release; empty: not known.
    pub os_version: &'a str,
}

impl Naming {
    /// Refuses what no image could make a name of, for the files of one build.
    pub fn check(&self, subjects: &[Subject]) -> Result<()> {
        for (value, given, flag) in [
            (Value::Variant, &self.variant, "--variant"),
            (Value::Subvariant, &self.subvariant, "--subvariant"),
        ] {
            if self.template.uses(value) && given.is_none() && self.given(value).is_none() {
                let what =
                    format!("--name-template uses {{{}}}, which was not given", value.name());
                return Err(unsupported(what, Some(&format!("add {flag} NAME"))));
            }
        }
        // What the image says is the same for all files.
        let mut names = Vec::new();
        for subject in subjects {
            let name =
                self.render(&|value| self.of_subject(value, *subject).or(Some(String::new())));
            let name = name?;
            if names.contains(&name) {
                let what = format!(
                    "--name-template gives two files the same name: that of {}",
                    subject.format()
                );
                return Err(unsupported(what, Some("add {kind} or {format} to the template")));
            }
            names.push(name);
        }
        Ok(())
    }

    /// The name of a file.
    ///
    /// `Unsupported` if a value is not known, with the flag that gives it.
    pub fn name(&self, subject: Subject, origin: Origin<'_>) -> Result<String> {
        let name = self.render(&|value| {
            self.of_subject(value, subject).or_else(|| self.of_image(value, origin))
        })?;
        Ok(name.trim_start_matches(['.', '-']).to_owned())
    }

    /// The values of `version`, `date` and `respin`, which other documents name, too.
    pub fn value(&self, value: Value, origin: Origin<'_>) -> Option<String> {
        self.given(value).or_else(|| self.of_image(value, origin))
    }

    fn given(&self, value: Value) -> Option<String> {
        self.given.iter().rev().find(|(key, _)| *key == value).map(|(_, text)| text.clone())
    }

    fn render(&self, value_of: &dyn Fn(Value) -> Option<String>) -> Result<String> {
        let mut name = String::new();
        for part in &self.template.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Value(value) => {
                    let text = value_of(*value).ok_or_else(|| {
                        let value = value.name();
                        unsupported(
                            format!(
                                "the image does not tell the {value} that --name-template uses"
                            ),
                            Some(&format!("add --compose-id ID or --name-value {value}=TEXT")),
                        )
                    })?;
                    name.extend(text.chars().map(|c| if is_safe(c) { c } else { '_' }));
                }
            }
        }
        Ok(name)
    }

    /// What differs between the files of a build.
    fn of_subject(&self, value: Value, subject: Subject) -> Option<String> {
        if let Some(given) = self.given(value) {
            return Some(given);
        }
        Some(match value {
            Value::Kind => subject.kind().to_owned(),
            Value::Cloud => subject.cloud().to_owned(),
            Value::Platform => subject.platform().to_owned(),
            Value::Ext => subject.extension(),
            Value::Format => subject.format(),
            _ => return None,
        })
    }

    fn of_image(&self, value: Value, origin: Origin<'_>) -> Option<String> {
        let (compose, image) = (self.compose.as_ref(), origin.image);
        let labelled = image.version().map(Labelled::of).unwrap_or_default();
        let digest = image.manifest_digest.trim_start_matches("sha256:");
        match value {
            Value::Name => Some(
                compose.map_or_else(|| origin.stem.to_owned(), |compose| compose.short.clone()),
            ),
            Value::Version => compose
                .map(|compose| compose.version.as_str())
                .or(labelled.version)
                .or_else(|| image.label("redhat.version-id"))
                .or(image.version())
                .or(Some(origin.os_version).filter(|version| !version.is_empty()))
                .map(str::to_owned),
            Value::Date => compose
                .map(|compose| compose.dated().to_owned())
                .or(labelled.date.map(str::to_owned))
                .or_else(|| created(image)),
            Value::Respin => {
                let respin = compose.map(|compose| compose.respin.to_string());
                Some(respin.unwrap_or_else(|| labelled.respin.unwrap_or("0").to_owned()))
            }
            Value::Build => match image.version() {
                Some(version) if compose.is_none() => Some(version.to_owned()),
                _ => {
                    let part = |value| self.value(value, origin);
                    let (version, date) = (part(Value::Version)?, part(Value::Date)?);
                    Some(format!("{version}.{date}.{}", part(Value::Respin)?))
                }
            },
            Value::Arch => Some(image.architecture.name().to_owned()),
            Value::Digest => Some(digest[..digest.len().min(12)].to_owned()),
            Value::Variant => self.variant.clone(),
            Value::Subvariant => self.subvariant.clone(),
            Value::Kind | Value::Cloud | Value::Platform | Value::Ext | Value::Format => None,
        }
    }
}

/// The parts of a version label in the form of Fedora's bootc images: `43.20250530.0`.
#[derive(Clone, Copy, Debug, Default)]
struct Labelled<'a> {
    version: Option<&'a str>,
    date: Option<&'a str>,
    respin: Option<&'a str>,
}

impl<'a> Labelled<'a> {
    fn of(label: &'a str) -> Self {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let parts: Vec<&str> = label.split('.').collect();
        match parts[..] {
            [version, date, respin] if date.len() == 8 && is_number(date) && is_number(respin) => {
                Self { version: Some(version), date: Some(date), respin: Some(respin) }
            }
            _ => Self::default(),
        }
    }
}

/// The day on which an image says that it was made, as `YYYYMMDD`: a label, else the config.
fn created(image: &Image) -> Option<String> {
    let label = image.label("org.opencontainers.image.created");
    let time = label.or_else(|| image.config.get("created")?.as_str())?;
    let day: String = time.chars().take(10).filter(|c| *c != '-').collect();
    (day.len() == 8 && day.bytes().all(|c| c.is_ascii_digit())).then_some(day)
}

/// Whether a character may stand in a file's name on any system.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.+~".contains(c)
}

/// Reads `KEY=VALUE`, a value of a template.
pub fn given(text: &str) -> Result<(Value, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in version=43")?;
    if value.is_empty() || !value.chars().all(is_safe) {
        return Err("a value has letters, digits and -_.+~".to_owned());
    }
    Ok((Value::parse(key)?, value.to_owned()))
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Value(value) => write!(f, "{{{}}}", value.name()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::architecture::Architecture;
    use crate::error::Unsupported;

    fn image(version: Option<&str>) -> Image {
        Image {
            reference: "docker://quay.io/fedora/fedora-bootc:43".to_owned(),
            name: None,
            architecture: Architecture::X86_64,
            manifest_digest: format!("sha256:{}", "0f".repeat(32)),
            manifest: json!({}),
            config: json!({
                "created": "2025-05-30T01:02:03Z",
                "config": { "Labels": { "org.opencontainers.image.version": version } },
            }),
            layers: Vec::new(),
        }
    }

    fn naming(template: &str, compose: Option<&str>) -> Naming {
        Naming {
            template: template.parse().unwrap(),
            compose: compose.map(|id| id.parse().unwrap()),
            variant: None,
            subvariant: None,
            given: Vec::new(),
        }
    }

    fn disk(format: &str) -> Subject {
        Subject::Disk(format.parse().unwrap())
    }

    fn named(naming: &Naming, subject: Subject, image: &Image) -> Result<String> {
        naming.name(subject, Origin { stem: "fedora-bootc", image, os_version: "43" })
    }

    #[test]
    fn presets_name_files_as_their_tools_do() {
        let image = image(Some("43.20250530.2"));
        for (preset, compose, format, name) in [
            (
                "fedora-iot",
                Some("Fedora-IoT-43-20250912.0"),
                "raw.xz",
                "Fedora-IoT-raw-43-20250912.0.x86_64.raw.xz",
            ),
            (
                "fedora-iot",
                Some("Fedora-IoT-44-20250912.n.1"),
                "qcow2",
                "Fedora-IoT-qcow2-44-20250912.n.1.x86_64.qcow2",
            ),
            (
                "fedora-cloud",
                Some("Fedora-Cloud-43-20251014.0"),
                "qcow2",
                "Fedora-Cloud-Base-Generic-43-20251014.0.x86_64.qcow2",
            ),
            (
                "fedora-cloud",
                Some("Fedora-Cloud-43-20251014.0"),
                "gce",
                "Fedora-Cloud-Base-GCE-43-20251014.0.x86_64.tar.gz",
            ),
            (
                "fedora-cloud",
                Some("Fedora-Cloud-43-20251014.0"),
                "ami.xz",
                "Fedora-Cloud-Base-AmazonEC2-43-20251014.0.x86_64.raw.xz",
            ),
            ("koji", None, "qcow2", "fedora-bootc-43-20250530.2.x86_64.qcow2"),
            ("cosa", None, "qcow2", "fedora-bootc-43.20250530.2-qemu.x86_64.qcow2"),
            ("cosa", Some("Fedora-43-20251014.0"), "vhd", "Fedora-43.20251014.0-azure.x86_64.vhd"),
            ("bib", None, "qcow2", "disk.qcow2"),
        ] {
            let naming = naming(preset, compose);
            assert_eq!(named(&naming, disk(format), &image).unwrap(), name);
        }
        let iso = named(&naming("fedora-iot", None), Subject::Medium(MediumKind::Iso), &image);
        assert_eq!(iso.unwrap(), "fedora-bootc-live-43-20250530.2.x86_64.iso");
    }

    #[test]
    fn values_come_from_labels_then_from_os_release() {
        let template = naming("{version}_{date}_{respin}_{build}_{digest}.{ext}", None);
        let name = |version| named(&template, disk("raw"), &image(version)).unwrap();
        assert_eq!(name(Some("43.20250101.7")), "43_20250101_7_43.20250101.7_0f0f0f0f0f0f.raw");
        assert_eq!(name(Some("9.4 rc/1")), "9.4_rc_1_20250530_0_9.4_rc_1_0f0f0f0f0f0f.raw");
        assert_eq!(name(None), "43_20250530_0_43.20250530.0_0f0f0f0f0f0f.raw");
        let mut given = template.clone();
        given.given = vec![(Value::Version, "1".to_owned()), (Value::Version, "2".to_owned())];
        assert!(named(&given, disk("raw"), &image(None)).unwrap().starts_with("2_"));
        let nothing = Origin { stem: "x", image: &image(None), os_version: "" };
        let error = template.name(disk("raw"), nothing).unwrap_err();
        let hint = error.downcast_ref::<Unsupported>().unwrap().hint.clone();
        assert!(hint.unwrap().contains("--name-value version=TEXT"), "{error}");
    }

    #[test]
    fn templates_without_sense_are_refused() {
        for (text, why) in [
            ("fedora", "expected one of: fedora-iot, fedora-cloud, koji, cosa, bib"),
            ("{name", "has no }"),
            ("{nam}.{ext}", "unknown value {nam}: expected one of: name, kind"),
            ("a/{ext}", "'/' cannot stand"),
            ("{name}.qcow2", "ends in {ext}"),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!("bib".parse::<Template>().unwrap().to_string(), "disk.{ext}");
    }

    #[test]
    fn two_files_of_one_name_are_refused_before_the_image_is_known() {
        let (raw, ami, qcow2) = (disk("raw"), disk("ami"), disk("qcow2"));
        let bib = naming("bib", None);
        assert!(bib.check(&[raw, qcow2]).is_ok());
        let error = bib.check(&[raw, ami]).unwrap_err();
        assert!(error.to_string().contains("the same name: that of ami"), "{error}");
        assert!(naming("fedora-iot", None).check(&[raw, ami]).is_ok());
        let error = naming("{variant}.{ext}", None).check(&[raw]).unwrap_err();
        assert!(error.to_string().contains("{variant}"), "{error}");
    }
}
