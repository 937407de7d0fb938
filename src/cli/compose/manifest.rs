//! What a compose is to have in it: a TOML file.
//!
//! ```toml
//! [compose]
//! id = "Fedora-IoT-43-20251014.0"
//! variant = "IoT"
//! name-template = "fedora-iot"
//! sign = ["gpg:release@example.org"]
//! sbom = ["spdx"]
//! check = ["--policy", "fedora"]                 # of `bootpress check`
//!
//! [[image]]
//! name = "IoT"                                   # the subvariant
//! source = "quay.io/fedora/fedora-iot:43"        # {arch} stands for the architecture
//! architectures = ["x86_64", "aarch64"]
//! formats = ["qcow2", { format = "raw.xz", blocking = true }]
//! options = ["--config", "iot.toml"]             # of `bootpress build`
//!
//! [[image.test]]
//! name = "boots"
//! formats = ["qcow2"]
//! options = ["--machine", "vm"]                  # of `bootpress test`
//! blocking = true
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bootpress::architecture::Architecture;
use bootpress::naming::{ComposeId, Template};
use clap::Parser;
use serde::Deserialize;

use crate::cli::flags::iso::Wanted;
use crate::cli::flags::{Command, Flags};
use crate::cli::sign::Signer;

/// A manifest as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Manifest {
    pub(super) compose: Compose,
    #[serde(rename = "image")]
    pub(super) images: Vec<Image>,
}

/// What all of a compose has in common.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Compose {
    pub(super) id: String,
    pub(super) variant: String,
    #[serde(default = "usual_template")]
    pub(super) name_template: String,
    #[serde(default)]
    pub(super) sign: Vec<String>,
    /// Forms of the bill of materials that stands beside the disks of each build: `spdx`, `cyclonedx`.
    #[serde(default)]
    pub(super) sbom: Vec<String>,
    /// Flags of `bootpress check`, which judges each image before it is built; none given: it does not.
    pub(super) check: Option<Vec<String>>,
    /// Flags of every build.
    #[serde(default)]
    pub(super) options: Vec<String>,
}

fn usual_template() -> String {
    "{subvariant}-{kind}-{version}-{date}.{respin}.{arch}.{ext}".to_owned()
}

/// An image, and what is made of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) architectures: Vec<String>,
    pub(super) formats: Vec<Format>,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default)]
    pub(super) blocking: bool,
    #[serde(default, rename = "test")]
    pub(super) tests: Vec<Test>,
}

/// A format, and whether a release waits for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Format {
    Name(String),
    Blocking(BlockingFormat),
}

/// A format that says whether a release waits for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockingFormat {
    format: String,
    blocking: bool,
}

impl Format {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Blocking(format) => &format.format,
        }
    }

    /// Whether a release waits for it; what it does not say, the image does.
    pub(super) fn is_blocking(&self, image: &Image) -> bool {
        match self {
            Self::Name(_) => image.blocking,
            Self::Blocking(format) => format.blocking,
        }
    }
}

/// A way in which an image's disks are booted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Test {
    pub(super) name: String,
    /// Which formats; none named: all.
    #[serde(default)]
    pub(super) formats: Vec<String>,
    /// Which architectures; none named: all.
    #[serde(default)]
    pub(super) architectures: Vec<String>,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default)]
    pub(super) blocking: bool,
}

impl Manifest {
    /// Reads and judges a manifest. Relative paths in it begin where the file is.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let context = || format!("reading {}", file.display());
        let text = std::fs::read_to_string(file).with_context(context)?;
        Self::parse(&text).with_context(context)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let manifest: Self = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        let compose = &self.compose;
        let told = |key: &str, error: String| anyhow::anyhow!("invalid {key}: {error}");
        compose.id.parse::<ComposeId>().map_err(|error| told("compose.id", error))?;
        compose
            .name_template
            .parse::<Template>()
            .map_err(|error| told("compose.name-template", error))?;
        for signer in &compose.sign {
            signer.parse::<Signer>().map_err(|error| told("compose.sign", error))?;
        }
        if self.images.is_empty() {
            bail!("a compose has at least one [[image]]");
        }
        for (number, image) in self.images.iter().enumerate() {
            if !is_name(&image.name) {
                bail!("invalid image.name {:?}: expected letters, digits and _.-", image.name);
            }
            if self.images[..number].iter().any(|other| other.name == image.name) {
                bail!("image {:?} is defined twice", image.name);
            }
            image.check().with_context(|| format!("image {:?}", image.name))?;
        }
        Ok(())
    }

    /// What is common to all builds is judged by the parser of the command line, which knows the flags.
    pub(super) fn check_options(&self) -> Result<()> {
        let line = ["bootpress", "check", "oci:image"].into_iter().map(str::to_owned);
        parse(line.chain(self.compose.check.clone().unwrap_or_default()))
            .context("invalid compose.check")?;
        for image in &self.images {
            let options = self.compose.options.iter().chain(&image.options);
            let line = ["bootpress", "build", "oci:image"].into_iter().map(str::to_owned);
            let sboms =
                self.compose.sbom.iter().flat_map(|form| ["--sbom".to_owned(), form.clone()]);
            parse(line.chain(sboms).chain(options.cloned()))
                .with_context(|| format!("invalid options of image {:?}", image.name))?;
            for test in &image.tests {
                let line = ["bootpress", "test", "disk"].into_iter().map(str::to_owned);
                parse(line.chain(test.options.iter().cloned())).with_context(|| {
                    format!("invalid options of test {:?} of image {:?}", test.name, image.name)
                })?;
            }
        }
        Ok(())
    }
}

fn parse(line: impl Iterator<Item = String>) -> Result<()> {
    match Flags::try_parse_from(line) {
        Ok(Flags { command: Command::Build(_) | Command::Check(_) | Command::Test(_) }) => Ok(()),
        Ok(_) => bail!("expected flags"),
        Err(error) => bail!("{}", error.to_string().lines().next().unwrap_or_default()),
    }
}

impl Image {
    fn check(&self) -> Result<()> {
        if self.architectures.is_empty() || self.formats.is_empty() {
            bail!("an image has at least one architecture and one format");
        }
        let architectures =
            self.architectures.iter().chain(self.tests.iter().flat_map(|test| &test.architectures));
        for name in architectures {
            if Architecture::parse(name).is_none() {
                let known = Architecture::ALL.map(Architecture::name).join(", ");
                bail!("invalid architecture {name:?}: expected one of: {known}");
            }
        }
        for (number, format) in self.formats.iter().enumerate() {
            let name = format.name();
            name.parse::<Wanted>().map_err(anyhow::Error::msg)?;
            if self.formats[..number].iter().any(|other| other.name() == name) {
                bail!("format {name:?} is named twice");
            }
        }
        for (number, test) in self.tests.iter().enumerate() {
            if !is_name(&test.name) {
                bail!("invalid test.name {:?}: expected letters, digits and _.-", test.name);
            }
            if self.tests[..number].iter().any(|other| other.name == test.name) {
                bail!("test {:?} is defined twice", test.name);
            }
            for format in &test.formats {
                if self.formats.iter().all(|other| other.name() != format) {
                    bail!("test {:?} is for {format:?}, which is not among the formats", test.name);
                }
            }
        }
        Ok(())
    }

    /// Where the image is, for an architecture.
    pub(super) fn source(&self, architecture: &str) -> String {
        self.source.replace("{arch}", architecture)
    }
}

/// A name that can stand in those of files.
fn is_name(name: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    !name.is_empty() && name.chars().all(is_safe) && !name.starts_with(['.', '-'])
}

/// The directory that relative paths of a manifest begin at.
pub(super) fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"
        [compose]
        id = "Fedora-IoT-43-20251014.0"
        variant = "IoT"
        [[image]]
        name = "base"
        source = "oci:base-{arch}"
        architectures = ["x86_64", "aarch64"]
        formats = ["qcow2", { format = "raw.xz", blocking = true }]
        [[image.test]]
        name = "boots"
        formats = ["qcow2"]
        options = ["--timeout", "60"]
    "#;

    #[test]
    fn manifest_says_what_blocks() {
        let manifest = Manifest::parse(SOUND).unwrap();
        manifest.check_options().unwrap();
        let image = &manifest.images[0];
        let blocking: Vec<bool> = image.formats.iter().map(|one| one.is_blocking(image)).collect();
        assert_eq!(blocking, [false, true]);
        assert_eq!(image.source("aarch64"), "oci:base-aarch64");
    }

    #[test]
    fn mistakes_are_told_before_anything_is_built() {
        for (from, to, told) in [
            ("Fedora-IoT-43-20251014.0", "Fedora", "invalid compose.id"),
            ("variant = \"IoT\"", "variant = \"IoT\"\ncolour = 1", "unknown field `colour`"),
            ("\"aarch64\"", "\"sparc\"", "invalid architecture \"sparc\""),
            ("\"qcow2\", {", "\"qcow9\", {", "qcow9"),
            ("format = \"raw.xz\"", "format = \"qcow2\"", "named twice"),
            ("formats = [\"qcow2\"]\n", "formats = [\"vmdk\"]\n", "not among the formats"),
            ("name = \"base\"", "name = \"../base\"", "invalid image.name"),
        ] {
            assert!(SOUND.contains(from), "{from}");
            let error = format!("{:#}", Manifest::parse(&SOUND.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
        let flags = SOUND.replace("--timeout", "--timeouts");
        let error = format!("{:#}", Manifest::parse(&flags).unwrap().check_options().unwrap_err());
        assert!(
            error.contains("invalid options of test \"boots\"") && error.contains("--timeouts"),
            "{error}"
        );
    }
}
