//! `registries.d`: where signatures of images in registries are, besides the registry.
//!
//! ```text
//! default-docker: SECTION
//! docker:
//!   HOST[/PATH[:TAG]]: SECTION
//!
//! SECTION: { lookaside: URL, lookaside-staging: URL, use-sigstore-attachments: true|false }
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use saphyr::{LoadableYamlNode, Yaml};

use crate::error::corrupt;

/// A section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) lookaside: Option<String>,
    pub(super) attachments: Option<bool>,
}

/// All sections.
#[derive(Debug, Default)]
pub(super) struct Places {
    default: Option<(Section, PathBuf)>,
    scopes: BTreeMap<String, (Section, PathBuf)>,
}

impl Places {
    /// Reads the `.yaml` files of a directory, in the order of their names; without a directory there is nothing.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let context = || format!("reading {}", directory.display());
        let mut places = Self::default();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(places),
            Err(error) => return Err(error).with_context(context),
        };
        let mut files = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .with_context(context)?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        for file in files {
            let text =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            places
                .add(&file, &text)
                .map_err(|error| corrupt(file.display().to_string(), format!("{error:#}")))?;
        }
        Ok(places)
    }

    fn add(&mut self, file: &Path, text: &str) -> Result<()> {
        crate::yaml::check(text)?;
        let documents = Yaml::load_from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        let root = match &documents[..] {
            [] => return Ok(()),
            [root] => root,
            _ => bail!("it has several documents"),
        };
        if root.is_null() {
            return Ok(());
        }
        for (key, value) in root.as_mapping().context("it is not a mapping")?.iter() {
            match key.as_str() {
                Some("default-docker") => {
                    if let Some((_, other)) = &self.default {
                        bail!("default-docker is in {}, too", other.display());
                    }
                    self.default = Some((Section::parse(value)?, file.to_owned()));
                }
                Some("docker") => {
                    for (scope, value) in
                        value.as_mapping().context("docker is not a mapping")?.iter()
                    {
                        let scope = scope.as_str().context("a scope is not a string")?;
                        let section = Section::parse(value).with_context(|| scope.to_owned())?;
                        let entry = (section, file.to_owned());
                        if let Some((_, other)) = self.scopes.insert(scope.to_owned(), entry) {
                            bail!("{scope} is in {}, too", other.display());
                        }
                    }
                }
                _ => bail!("{key:?} is neither docker nor default-docker"),
            }
        }
        Ok(())
    }

    /// The section for the first of `scopes` that has one; else the default; `None`: there is none.
    pub(super) fn find(&self, scopes: &[String]) -> Option<&Section> {
        let found = scopes.iter().find_map(|scope| self.scopes.get(scope));
        found.or(self.default.as_ref()).map(|(section, _)| section)
    }
}

impl Section {
    fn parse(value: &Yaml<'_>) -> Result<Self> {
        let mut section = Self::default();
        if value.is_null() {
            return Ok(section);
        }
        let mut old = None;
        for (key, value) in value.as_mapping().context("a section is not a mapping")?.iter() {
            let url = || value.as_str().map(str::to_owned).context("a URL is not a string");
            match key.as_str() {
                Some("lookaside") => section.lookaside = Some(url()?),
                // What lookaside was called.
                Some("sigstore") => old = Some(url()?),
                Some("lookaside-staging" | "sigstore-staging") => drop(url()?),
                Some("use-sigstore-attachments") => {
                    let value =
                        value.as_bool().context("use-sigstore-attachments is not a boolean")?;
                    section.attachments = Some(value);
                }
                _ => bail!("{key:?} is not a key of a section"),
            }
        }
        section.lookaside = section.lookaside.or(old);
        if let Some(url) = &section.lookaside {
            let known =
                ["file:///", "http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
            ensure!(known, "{url:?} is not a URL of file, http or https");
        }
        Ok(section)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_section_counts() {
        let mut places = Places::default();
        let text = "# comment\ndefault-docker:\n  lookaside-staging: file:///x\ndocker:\n  quay.io/a:\n    use-sigstore-attachments: true\n  quay.io:\n    sigstore: https://old.example/s\n  localhost:5000:\n    lookaside: http://localhost:4242/lookaside\n";
        places.add(Path::new("a.yaml"), text).unwrap();
        let find = |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            places.find(&scopes).cloned().unwrap()
        };
        assert_eq!(
            find(&["quay.io/a/b:1", "quay.io/a/b", "quay.io/a", "quay.io"]).attachments,
            Some(true)
        );
        assert_eq!(
            find(&["quay.io/b", "quay.io"]).lookaside.as_deref(),
            Some("https://old.example/s")
        );
        let local = find(&["localhost:5000/x", "localhost:5000"]);
        assert_eq!(local.lookaside.as_deref(), Some("http://localhost:4242/lookaside"));
        assert_eq!(find(&["x"]), Section::default());
        assert_eq!(Places::default().find(&[]), None);
        assert!(places.add(Path::new("b.yaml"), "docker:\n  quay.io: {}\n").is_err());
        assert!(places.add(Path::new("b.yaml"), "default-docker: {}\n").is_err());
        for bad in [
            "x: 1",
            "docker: 1",
            "- a",
            "docker:\n  q: {lookaside: 'ftp://x'}",
            "docker: {a: {x: y}}",
            "a: [",
            "docker:\n  a: {use-sigstore-attachments: maybe}",
        ] {
            assert!(Places::default().add(Path::new("b.yaml"), bad).is_err(), "{bad}");
        }
        for empty in ["", "# nothing\n", "docker: {}\n"] {
            Places::default().add(Path::new("b.yaml"), empty).unwrap();
        }
    }
}
