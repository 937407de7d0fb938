//! `registries.conf`, version 2: short names, mirrors, what is blocked and what needs no TLS.
//!
//! ```text
//! registries.conf               the user's, else the machine's
//! registries.conf.d/*.conf      over it, in the order of their names; the user's last
//!
//! name ─ longest prefix ─► its mirrors, then its location
//! ```
//!
//! Specification: containers-registries.conf(5), containers-registries.conf.d(5).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_client::Reference;
use serde::Deserialize;

use crate::oci::access::Places;

/// What the files say, merged.
#[derive(Debug, Default)]
pub(in crate::oci) struct Registries {
    /// By prefix.
    tables: BTreeMap<String, Table>,
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    /// Where credentials are looked for: `containers-auth.json` for files, else the name of a helper.
    pub(super) credential_helpers: Option<Vec<String>>,
}

/// A place to ask for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::oci) struct Source {
    /// The image's name there.
    pub(in crate::oci) reference: Reference,
    /// Whether the place needs not prove who it is, or speak TLS at all.
    pub(in crate::oci) insecure: bool,
    /// Whether it stands in for the place that the name means.
    pub(in crate::oci) mirror: bool,
}

/// A short name, found.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::oci) struct Expanded {
    pub(in crate::oci) reference: Reference,
    /// Why this one, when nobody said so: worth a warning.
    pub(in crate::oci) guess: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    credential_helpers: Option<Vec<String>>,
    short_name_mode: String,
    registry: Option<Vec<Table>>,
    aliases: BTreeMap<String, String>,
    registries: Option<Version1>,
}

/// What version 1 of the format had; a file has only this or only the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: List,
    insecure: List,
    block: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Option<Vec<String>>,
}

impl File {
    /// The file in version 2. `is_main`: whether it is the one that is not in a directory of drop-ins, where alone version 1 may be.
    fn modern(mut self, is_main: bool) -> Result<Self> {
        let Some(Version1 { search, insecure, block }) = self.registries.take() else {
            return Ok(self);
        };
        let lists = [search.registries, insecure.registries, block.registries];
        if lists.iter().all(Option::is_none) {
            return Ok(self);
        }
        ensure!(is_main, "it is in version 1 of its format, which drop-ins cannot be in");
        let is_mixed = self.unqualified_search_registries.is_some()
            || self.registry.is_some()
            || self.credential_helpers.is_some()
            || !self.short_name_mode.is_empty()
            || !self.aliases.is_empty();
        ensure!(!is_mixed, "it mixes versions 1 and 2 of its format");
        let [search, insecure, block] = lists;
        let mut tables: BTreeMap<String, Table> = BTreeMap::new();
        for location in insecure.into_iter().flatten() {
            let location = place(&location)?;
            tables.entry(location.clone()).or_default().insecure = true;
        }
        for location in block.into_iter().flatten() {
            let location = place(&location)?;
            tables.entry(location.clone()).or_default().blocked = true;
        }
        for (location, table) in &mut tables {
            table.location.clone_from(location);
        }
        self.unqualified_search_registries = Some(search.unwrap_or_default());
        self.registry = Some(tables.into_values().collect());
        Ok(self)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
    /// Only mirrors may have it.
    pull_from_mirror: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl Registries {
    /// Reads what this machine has. A file that is not there says nothing; one that cannot be understood is an error.
    pub(in crate::oci) fn load(places: &Places) -> Result<Self> {
        let user = places.config.as_ref().map(|config| config.join("containers"));
        let system = places.etc.join("containers");
        let users_file = user.as_ref().map(|user| user.join("registries.conf"));
        let users_file = users_file.filter(|file| file.exists());
        let mut files: Vec<PathBuf> = Vec::new();
        let mut directories = Vec::new();
        match (&places.registries_conf, users_file) {
            (Some(named), _) => {
                ensure!(
                    named.exists(),
                    "{} ($CONTAINERS_REGISTRIES_CONF) is not there",
                    named.display()
                );
                files.push(named.clone());
                directories.push(system.join("registries.conf.d"));
            }
            // Whoever has a file of their own wants nothing of the machine's.
            (None, Some(file)) => files.push(file),
            (None, None) => {
                let candidates = [system.clone(), places.share.join("containers")];
                let found = candidates.map(|directory| directory.join("registries.conf"));
                files.extend(found.into_iter().find(|file| file.exists()));
                directories.push(places.share.join("containers/registries.conf.d"));
                directories.push(system.join("registries.conf.d"));
            }
        }
        let main_files = files.len();
        directories.extend(user.map(|user| user.join("registries.conf.d")));
        for directory in directories {
            files.extend(drop_ins(&directory)?);
        }
        // Names that somebody chose at a prompt of podman.
        let chosen =
            places.cache.as_ref().map(|cache| cache.join("containers/short-name-aliases.conf"));
        files.extend(chosen);
        let mut all = Self::default();
        for (number, file) in files.into_iter().enumerate() {
            let context = || format!("reading {}", file.display());
            let text = match fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(context),
            };
            all.add(&text, number < main_files).with_context(context)?;
        }
        Ok(all)
    }

    /// Takes over what one file says: it wins over the files before it.
    fn add(&mut self, text: &str, is_main: bool) -> Result<()> {
        let file = toml::from_str::<File>(text)?.modern(is_main)?;
        ensure!(
            ["", "enforcing", "permissive", "disabled"].contains(&file.short_name_mode.as_str()),
            "invalid short-name-mode {:?}: expected one of: enforcing, permissive, disabled",
            file.short_name_mode
        );
        if let Some(search) = file.unqualified_search_registries {
            self.search = search.iter().map(|name| searched(name)).collect::<Result<_>>()?;
        }
        if file.credential_helpers.is_some() {
            self.credential_helpers = file.credential_helpers;
        }
        for (name, target) in file.aliases {
            check_alias(&name, &target)?;
            // An empty target takes back what a file before said.
            if target.is_empty() {
                self.aliases.remove(&name);
            } else {
                self.aliases.insert(name, target);
            }
        }
        let mut tables = file.registry.unwrap_or_default();
        tables.iter_mut().try_for_each(Table::complete)?;
        check_conflicts(&tables)?;
        // Of several in one file the first counts, of several files the last.
        for table in tables.into_iter().rev() {
            self.tables.insert(table.prefix.clone(), table);
        }
        Ok(())
    }

    /// Where to ask for an image, best first: its mirrors, then itself. An error if it is blocked.
    pub(in crate::oci) fn sources(&self, reference: &Reference) -> Result<Vec<Source>> {
        let name = reference.whole();
        let longest = self
            .tables
            .values()
            .filter_map(|table| Some((matched(&name, &table.prefix)?, table)))
            .max_by_key(|(length, table)| (*length, table.prefix.len()));
        let Some((length, table)) = longest else {
            return Ok(vec![Source {
                reference: reference.clone(),
                insecure: false,
                mirror: false,
            }]);
        };
        if table.blocked {
            bail!("{name} is blocked: registries.conf blocks {}", table.prefix);
        }
        let rewritten = |location: &str| -> Result<Reference> {
            if location.is_empty() {
                return Ok(reference.clone());
            }
            let there = format!("{location}{}", &name[length..]);
            there.parse().with_context(|| {
                format!(
                    "going from {} to {location}, as registries.conf says: {there:?} is not a name",
                    table.prefix
                )
            })
        };
        let by_digest = reference.digest().is_some();
        let mut sources = Vec::new();
        for mirror in &table.mirror {
            let serves = match mirror.pull_from_mirror.as_str() {
                "digest-only" => by_digest,
                "tag-only" => !by_digest,
                _ => by_digest || !table.mirror_by_digest_only,
            };
            if serves {
                let reference = rewritten(&mirror.location)?;
                sources.push(Source { reference, insecure: mirror.insecure, mirror: true });
            }
        }
        let reference = rewritten(&table.location)?;
        sources.push(Source { reference, insecure: table.insecure, mirror: false });
        Ok(sources)
    }

    /// The full name of a short one such as `fedora-bootc:43`: an alias, else what the only registry to search would call it,
    /// else what docker calls it. An error if there are several registries to search: asking all of them would be an invitation
    /// to whoever registers the name first.
    pub(in crate::oci) fn expand(&self, typed: &str, dockers: &Reference) -> Result<Expanded> {
        let name = typed.split_once('@').map_or(typed, |(name, _)| name);
        let name = name.split_once(':').map_or(name, |(name, _)| name);
        let suffix = &typed[name.len()..];
        let full = |name: String, guess| -> Result<Expanded> {
            let reference = format!("{name}{suffix}");
            let reference =
                reference.parse().with_context(|| format!("{reference:?} is not an image name"))?;
            Ok(Expanded { reference, guess })
        };
        if let Some(target) = self.aliases.get(name) {
            return full(target.clone(), None);
        }
        match &self.search[..] {
            [] => Ok(Expanded {
                reference: dockers.clone(),
                guess: Some("a name without registry means docker's".to_owned()),
            }),
            [only] => full(
                format!("{only}/{name}"),
                Some(format!("{only} is the only registry that registries.conf searches")),
            ),
            several => {
                let names = several.iter().map(|registry| format!("{registry}/{typed}"));
                bail!("{typed} could be any of {}: say which", Vec::from_iter(names).join(", "))
            }
        }
    }
}

impl Table {
    /// Brings prefix and locations into the form in which they are compared, and refuses what other tools refuse.
    fn complete(&mut self) -> Result<()> {
        self.location = place(&self.location)?;
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        self.prefix = place(&self.prefix)?;
        let prefix = &self.prefix;
        ensure!(!prefix.is_empty(), "a [[registry]] has neither prefix nor location");
        let is_pattern = prefix.starts_with("*.");
        ensure!(is_pattern || !self.location.is_empty(), "the registry {prefix} has no location");
        ensure!(
            !(is_pattern && prefix.contains(['/', '@', ':'])),
            "invalid prefix {prefix:?}: expected a pattern such as *.example.com"
        );
        ensure!(
            self.pull_from_mirror.is_empty(),
            "the registry {prefix} has pull-from-mirror, which only mirrors may have"
        );
        for mirror in &mut self.mirror {
            mirror.location = place(&mirror.location)?;
            ensure!(!mirror.location.is_empty(), "a mirror of {prefix} has no location");
            let rule = mirror.pull_from_mirror.as_str();
            ensure!(
                ["", "all", "digest-only", "tag-only"].contains(&rule),
                "invalid pull-from-mirror {rule:?}: expected one of: all, digest-only, tag-only"
            );
            ensure!(
                !self.mirror_by_digest_only || rule.is_empty(),
                "the registry {prefix} has mirror-by-digest-only, and its mirror {} has pull-from-mirror",
                mirror.location
            );
        }
        Ok(())
    }
}

/// Refuses a file that says of one place that it is insecure or blocked, and that it is not.
fn check_conflicts(tables: &[Table]) -> Result<()> {
    let mut known: BTreeMap<&str, &Table> = BTreeMap::new();
    for table in tables {
        let place = if table.location.is_empty() { &table.prefix } else { &table.location };
        let first = known.entry(place).or_insert(table);
        for (key, same) in [
            ("insecure", first.insecure == table.insecure),
            ("blocked", first.blocked == table.blocked),
        ] {
            ensure!(same, "the registry {place} is defined several times with different {key}");
        }
    }
    Ok(())
}

/// A registry of `unqualified-search-registries`: a host and perhaps a port.
fn searched(text: &str) -> Result<String> {
    let name = place(text)?;
    let (host, port) = match name.rsplit_once(':').filter(|(host, _)| !host.ends_with(':')) {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (name.as_str(), None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_address = address.is_some_and(|address| {
        !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
    });
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(
        (is_address || host.split('.').all(label)) && port.is_none_or(is_port),
        "invalid registry {text:?} in unqualified-search-registries: expected a host, perhaps with a port"
    );
    Ok(name)
}

/// Refuses what is not a short name, and what is not a full name without tag and digest; an empty one takes back an alias.
fn check_alias(name: &str, target: &str) -> Result<()> {
    let parts = |text: &str| -> Option<(bool, String)> {
        let reference: Reference = text.parse().ok()?;
        let first = text.split('/').next().filter(|first| *first != text);
        let has_registry =
            first.is_some_and(|first| first.contains(['.', ':']) || first == "localhost");
        let last = text.rsplit('/').next().unwrap_or(text);
        (!last.contains([':', '@'])).then(|| (has_registry, reference.whole()))
    };
    ensure!(
        parts(name).is_some_and(|(has_registry, _)| !has_registry),
        "invalid alias {name:?}: expected a name without registry, tag and digest"
    );
    ensure!(
        target.is_empty() || parts(target).is_some_and(|(has_registry, _)| has_registry),
        "invalid target {target:?} of the alias {name:?}: expected a name with a registry, without tag and digest"
    );
    Ok(())
}

/// The files of a directory that end in `.conf`, by name; none if there is no such directory.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("reading {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(context),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A prefix or location as it is compared: without a slash at the end; a scheme is a mistake that container tools refuse, too.
fn place(text: &str) -> Result<String> {
    let name = text.trim_end_matches('/');
    if name.contains("://") {
        bail!("{text:?} must be a name without http:// or https://");
    }
    Ok(name.to_owned())
}

/// How much of a name a prefix covers: `quay.io/a` covers `quay.io/a/b:1` but not `quay.io/ab`; `*.x.org` covers hosts below.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(domain) => {
            let host = name.split('/').next()?;
            let start = name.find(domain)?;
            // The pattern begins inside of the host, after at least one label.
            (start > 0 && start < host.len()).then_some(start + domain.len())?
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(name.as_bytes().get(end), None | Some(b':' | b'@' | b'/')).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(texts: &[&str]) -> Registries {
        let mut all = Registries::default();
        texts.iter().for_each(|text| all.add(text, true).unwrap());
        all
    }

    fn sources(all: &Registries, name: &str) -> Vec<String> {
        let sources = all.sources(&name.parse().unwrap()).unwrap();
        let shown = |source: &Source| {
            format!(
                "{}{}",
                source.reference.whole(),
                if source.insecure { " insecure" } else { "" }
            )
        };
        sources.iter().map(shown).collect()
    }

    #[test]
    fn the_longest_prefix_counts_and_mirrors_come_first() {
        let all = registries(&[r#"
            [[registry]]
            location = "quay.io"
            insecure = true
            [[registry]]
            prefix = "quay.io/a/b"
            location = "mine.example.org/x/"
            [[registry.mirror]]
            location = "m1.example.org:5000/y"
            insecure = true
            [[registry.mirror]]
            location = "digests.example.org"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tags.example.org"
            pull-from-mirror = "tag-only"
        "#]);
        assert_eq!(sources(&all, "quay.io/c:1"), ["quay.io/c:1 insecure"]);
        assert_eq!(sources(&all, "docker.io/library/c:1"), ["docker.io/library/c:1"]);
        assert_eq!(sources(&all, "quay.io/a/bc:1"), ["quay.io/a/bc:1 insecure"]);
        assert_eq!(
            sources(&all, "quay.io/a/b/c:1"),
            [
                "m1.example.org:5000/y/c:1 insecure",
                "tags.example.org/c:1",
                "mine.example.org/x/c:1"
            ]
        );
        let digest = format!("@sha256:{}", "0".repeat(64));
        assert_eq!(
            sources(&all, &format!("quay.io/a/b/c{digest}")),
            ["m1.example.org:5000/y/c", "digests.example.org/c", "mine.example.org/x/c"].map(
                |name| format!(
                    "{name}{digest}{}",
                    if name.starts_with("m1") { " insecure" } else { "" }
                )
            )
        );
    }

    #[test]
    fn wildcards_cover_hosts_below_and_blocked_is_blocked() {
        let all = registries(&[
            "[[registry]]\nprefix = '*.example.org'\ninsecure = true",
            "[[registry]]\nlocation = 'bad.example.org/evil'\nblocked = true",
        ]);
        assert_eq!(sources(&all, "a.b.example.org/x:1"), ["a.b.example.org/x:1 insecure"]);
        assert_eq!(sources(&all, "example.org/x:1"), ["example.org/x:1"]);
        assert_eq!(sources(&all, "other.com/y.example.org/x:1"), ["other.com/y.example.org/x:1"]);
        assert_eq!(sources(&all, "bad.example.org/good:1"), ["bad.example.org/good:1 insecure"]);
        let error = all.sources(&"bad.example.org/evil/x".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("is blocked"), "{error}");
    }

    #[test]
    fn short_names_are_aliases_or_have_one_meaning() {
        let dockers: Reference = "fedora:43".parse().unwrap();
        let expand = |texts: &[&str]| registries(texts).expand("fedora:43", &dockers);
        let name = |texts: &[&str]| expand(texts).map(|found| found.reference.whole());
        let alias = "[aliases]\nfedora = 'quay.io/fedora/fedora'";
        let one = "unqualified-search-registries = ['quay.io']";
        let two = "unqualified-search-registries = ['quay.io', 'docker.io']";
        assert_eq!(name(&[alias, two]).unwrap(), "quay.io/fedora/fedora:43");
        assert_eq!(name(&[one]).unwrap(), "quay.io/fedora:43");
        assert_eq!(name(&[]).unwrap(), "docker.io/library/fedora:43");
        assert_eq!(name(&[alias, "[aliases]\nfedora = ''", one]).unwrap(), "quay.io/fedora:43");
        assert!(
            expand(&[alias]).unwrap().guess.is_none() && expand(&[one]).unwrap().guess.is_some()
        );
        let error = expand(&[two]).unwrap_err().to_string();
        assert!(error.contains("quay.io/fedora:43, docker.io/fedora:43"), "{error}");
    }

    /// The verdicts of containers' own tool on each, as `skopeo` gives them (tests/conformance compares).
    #[test]
    fn invalid_files_are_refused_and_valid_ones_read() {
        let corpus = include_str!("../../../tests/config/registries.txt");
        let mut count = 0;
        for case in corpus.split("### ").skip(1) {
            let (verdict, text) = case.split_once('\n').unwrap();
            let said = Registries::default().add(text, true);
            let is_good = verdict.starts_with("accepted");
            assert_eq!(said.is_ok(), is_good, "{verdict}: {said:?}\n{text}");
            count += 1;
        }
        assert!(count > 50, "only {count} cases");
    }

    #[test]
    fn the_first_of_a_file_and_the_last_of_files_counts() {
        let one = "[[registry]]\nprefix = 'a.org'\nlocation = 'x.org'\n[[registry]]\nprefix = 'a.org'\nlocation = 'y.org'\n";
        assert_eq!(sources(&registries(&[one]), "a.org/i:1"), ["x.org/i:1"]);
        let later = "[[registry]]\nprefix = 'a.org'\nlocation = 'z.org'\n";
        assert_eq!(sources(&registries(&[one, later]), "a.org/i:1"), ["z.org/i:1"]);
    }

    #[test]
    fn files_are_found_in_order_and_mistakes_are_told() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        let mut places = Places::of(|_| None, 0);
        places.etc = at("etc");
        places.share = at("share");
        places.config = Some(at("home/.config"));
        let search = |places: &Places| Registries::load(places).unwrap().search;
        assert!(search(&places).is_empty());
        let text = |name: &str| format!("unqualified-search-registries = ['{name}']");
        write("share/containers/registries.conf", &text("share"));
        assert_eq!(search(&places), ["share"]);
        write("etc/containers/registries.conf", &text("etc"));
        assert_eq!(search(&places), ["etc"]);
        write("etc/containers/registries.conf.d/b.conf", &text("b"));
        write("etc/containers/registries.conf.d/a.conf", &text("a"));
        write("etc/containers/registries.conf.d/c.conf.bak", &text("c"));
        assert_eq!(search(&places), ["b"]);
        write("home/.config/containers/registries.conf.d/0.conf", &text("user"));
        assert_eq!(search(&places), ["user"]);
        fs::remove_file(at("home/.config/containers/registries.conf.d/0.conf")).unwrap();
        write("home/.config/containers/registries.conf", "");
        assert!(search(&places).is_empty());
        for (mistake, said) in [
            ("[[registry]]\nlocation = 'https://x.org'", "without http://"),
            ("[[registry]]\nprefix = 'x.org'", "no location"),
            ("[[registry]]\ninsecure = true", "neither"),
            ("[[registry", "registries.conf"),
        ] {
            write("home/.config/containers/registries.conf", mistake);
            let error = format!("{:#}", Registries::load(&places).unwrap_err());
            assert!(error.contains(said), "{mistake}: {error}");
        }
        let old = "[registries.search]\nregistries = ['x']";
        write("home/.config/containers/registries.conf", old);
        assert_eq!(search(&places), ["x"]);
        write("home/.config/containers/registries.conf.d/1.conf", old);
        let error = format!("{:#}", Registries::load(&places).unwrap_err());
        assert!(error.contains("version 1"), "{error}");
        places.registries_conf = Some(at("nowhere"));
        assert!(Registries::load(&places).is_err());
    }
}
