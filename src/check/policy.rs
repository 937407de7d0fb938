//! Policies: Conforma's rule data, read as it is, and a section of ours beside it.
//!
//! ```text
//! rule_data:                 Conforma's: required_labels, optional_labels, deprecated_labels, disallowed_inherited_labels, fbc_…;
//!   required_labels: […]     also as rule_data_custom, or as sources[].ruleData of a policy resource, with its config.exclude
//! bootpress:                 ours
//!   extends: default         the built-in policy that it begins with: default, fedora or none
//!   repository: { allowed: REGEX, forbidden: [REGEX] }
//!   tags: { forms: [date, semver, REGEX], moving: [REGEX], required: [TAG], agree: [[TAG, "@newest"]] }
//!   platforms: [linux/amd64]   annotations: [{ name, description, values }]   os_release: [KEY]
//!   setuid: [PATH]   release: BOOL   severity: { RULE: error|warning|note|off }
//! ```

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use regex_automata::meta::Regex;
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Rule, Severity, rule};

/// The policies that come with the program.
const BUILT_IN: [(&str, &str); 2] = [
    ("default", include_str!("policies/default.yaml")),
    ("fedora", include_str!("policies/fedora.yaml")),
];

/// Keys of rule data that are read; Conforma's policies have many more, for rules that are not here.
const LABEL_KEYS: [(&str, &[&str]); 7] = [
    ("required_labels", &["name", "description"]),
    ("fbc_required_labels", &["name", "description"]),
    ("optional_labels", &["name", "description"]),
    ("fbc_optional_labels", &["name", "description"]),
    ("disallowed_inherited_labels", &["name"]),
    ("fbc_disallowed_inherited_labels", &["name"]),
    ("deprecated_labels", &["name", "replacement"]),
];

/// What an entry of rule data may have besides; of which keys, Conforma's schema says.
const OPTIONAL_FIELDS: [(&str, &[&str]); 2] =
    [("effective_on", &[""]), ("values", &["required_labels", "fbc_required_labels"])];

/// Memory of one compiled expression.
const LARGEST_EXPRESSION: usize = 1 << 20;

/// A label that a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelRule {
    /// Its key.
    pub(super) name: String,
    /// What it is for.
    #[serde(default)]
    pub(super) description: String,
    /// The values that it may have; empty: any.
    #[serde(default)]
    pub(super) values: Vec<String>,
    /// What to use instead.
    #[serde(default)]
    pub(super) replacement: Option<String>,
    /// From when on it counts, RFC 3339.
    #[serde(default)]
    pub(super) effective_on: Option<String>,
}

/// A regular expression that has to match the whole of a text, or one of the forms that have a name.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    fn new(text: &str) -> Result<Self> {
        let expression = match text {
            // 20261201, 20261201.0, 43.20261201.0, 2026-12-01
            "date" => {
                r"([0-9]+\.)?(20[0-9]{2})-?(0[1-9]|1[0-2])-?(0[1-9]|[12][0-9]|3[01])([.-][0-9]+)?"
            }
            // Semantic Versioning 2.0; tags cannot have `+`, for which people write `_`.
            "semver" => {
                r"v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(_[0-9A-Za-z.-]+)?"
            }
            other => other,
        };
        let config = Regex::config().nfa_size_limit(Some(LARGEST_EXPRESSION));
        let regex = Regex::builder()
            .configure(config)
            .build(&format!("^(?:{expression})$"))
            .with_context(|| format!("invalid regular expression {text:?}"))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// What a repository may be called.
#[derive(Clone, Debug)]
pub(super) struct RepositoryRule {
    pub(super) allowed: Option<Pattern>,
    pub(super) forbidden: Vec<Pattern>,
}

/// What tags a repository has.
#[derive(Clone, Debug, Default)]
pub(super) struct TagRules {
    pub(super) forms: Vec<Pattern>,
    pub(super) moving: Vec<Pattern>,
    pub(super) required: Vec<String>,
    pub(super) agree: Vec<Vec<String>>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// What it was made of.
    pub names: Vec<String>,
    pub(super) repository: Option<RepositoryRule>,
    pub(super) tags: TagRules,
    pub(super) platforms: Vec<String>,
    pub(super) annotations: Vec<LabelRule>,
    pub(super) os_release: Vec<String>,
    pub(super) release: bool,
    /// What is wrong with the rule data.
    pub(super) data_errors: Vec<String>,
    labels: BTreeMap<String, Vec<LabelRule>>,
    set_id: BTreeSet<String>,
    severities: BTreeMap<String, Weight>,
    excluded: Vec<String>,
    included: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Weight {
    Off,
    Note,
    Warning,
    Error,
}

/// Our section of a policy file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    extends: Option<String>,
    repository: Option<RepositorySection>,
    tags: Option<TagSection>,
    platforms: Option<Vec<String>>,
    annotations: Option<Vec<LabelRule>>,
    os_release: Option<Vec<String>>,
    setuid: Option<Vec<String>>,
    release: Option<bool>,
    severity: Option<BTreeMap<String, Weight>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RepositorySection {
    allowed: Option<String>,
    #[serde(default)]
    forbidden: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TagSection {
    forms: Option<Vec<String>>,
    moving: Option<Vec<String>>,
    required: Option<Vec<String>>,
    agree: Option<Vec<Vec<String>>>,
}

impl Policy {
    /// The names of the policies that come with the program.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A policy that comes with the program.
    pub fn built_in(name: &str) -> Result<Self> {
        let mut policy = Self::default();
        policy.add_built_in(name)?;
        policy.names = vec![name.to_owned()];
        Ok(policy)
    }

    /// Unites policies, later ones first: each is a name of a built-in one, or a file's name and text.
    pub fn of(parts: &[(String, Option<String>)]) -> Result<Self> {
        let mut policy = Self::default();
        for (number, (name, text)) in parts.iter().enumerate() {
            match text {
                None => policy.add_built_in(name)?,
                Some(text) => {
                    let usual = if number == 0 { "default" } else { "none" };
                    policy.add(text, usual).with_context(|| format!("reading policy {name}"))?;
                }
            }
            policy.names.push(name.clone());
        }
        Ok(policy)
    }

    fn add_built_in(&mut self, name: &str) -> Result<()> {
        let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
            bail!(
                "unknown policy {name:?}: expected a file or one of: {}",
                BUILT_IN.map(|(name, _)| name).join(", ")
            );
        };
        self.add(text, "none")
    }

    /// Adds the text of a policy; `usual`: what it begins with if it does not say so.
    fn add(&mut self, text: &str, usual: &str) -> Result<()> {
        let mut document = match yaml(text)? {
            Value::Object(document) => document,
            _ => bail!("it is not a YAML mapping"),
        };
        let section: Section = match document.remove("bootpress") {
            None => Section::default(),
            Some(section) => {
                serde_json::from_value(section).context("invalid section bootpress")?
            }
        };
        match section.extends.as_deref().unwrap_or(usual) {
            "none" => {}
            name => self.add_built_in(name)?,
        }
        self.add_data(&document)?;
        self.add_section(section)
    }

    fn add_section(&mut self, section: Section) -> Result<()> {
        let patterns = |list: &[String]| {
            list.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>>>()
        };
        if let Some(repository) = section.repository {
            let allowed = repository.allowed.as_deref().map(Pattern::new).transpose()?;
            let forbidden = patterns(&repository.forbidden)?;
            self.repository = Some(RepositoryRule { allowed, forbidden });
        }
        if let Some(tags) = section.tags {
            if let Some(forms) = tags.forms {
                self.tags.forms = patterns(&forms)?;
            }
            if let Some(moving) = tags.moving {
                self.tags.moving = patterns(&moving)?;
            }
            self.tags.required = tags.required.unwrap_or(std::mem::take(&mut self.tags.required));
            self.tags.agree = tags.agree.unwrap_or(std::mem::take(&mut self.tags.agree));
        }
        for (ours, theirs) in
            [(&mut self.platforms, section.platforms), (&mut self.os_release, section.os_release)]
        {
            if let Some(theirs) = theirs {
                *ours = theirs;
            }
        }
        if let Some(annotations) = section.annotations {
            self.annotations = annotations;
        }
        // What one policy knows, another one need not repeat.
        self.set_id.extend(
            section
                .setuid
                .unwrap_or_default()
                .iter()
                .map(|path| path.trim_start_matches('/').to_owned()),
        );
        self.release = section.release.unwrap_or(self.release);
        for (id, weight) in section.severity.unwrap_or_default() {
            if rule(&id).is_none() {
                bail!(
                    "severity names the rule {id:?}, which does not exist; `bootpress check --list` has all rules"
                );
            }
            self.severities.insert(id, weight);
        }
        Ok(())
    }

    /// Adds Conforma's part of a document: rule data, and what a policy resource includes and excludes.
    fn add_data(&mut self, document: &Map<String, Value>) -> Result<()> {
        let document = match document.get("spec") {
            Some(Value::Object(spec)) => spec,
            _ => document,
        };
        let sources = document
            .get("sources")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        // What comes first wins, key by key: the policy's own data, then what is called custom, then the rest.
        let data: Vec<&Map<String, Value>> = sources
            .iter()
            .filter_map(|source| source.get("ruleData"))
            .chain(["rule_data_custom", "rule_data"].iter().filter_map(|key| document.get(*key)))
            .filter_map(Value::as_object)
            .collect();
        for (key, needed) in LABEL_KEYS {
            let is_there = |data: &&Map<String, Value>| {
                data.get(key).filter(|value| !value.is_null()).cloned()
            };
            if let Some(value) = data.iter().find_map(is_there) {
                let list = self.label_rules(key, needed, &value);
                self.labels.insert(key.to_owned(), list);
            }
        }
        let configs = sources
            .iter()
            .filter_map(|source| source.get("config"))
            .chain(document.get("configuration"));
        for config in configs {
            let list = |name: &str| {
                let list = config.get(name).and_then(Value::as_array).into_iter().flatten();
                list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
            };
            self.excluded.extend(list("exclude"));
            self.included.extend(list("include"));
        }
        Ok(())
    }

    /// The entries of a list that have the form of Conforma's schema; what has not becomes an error of the rule
    /// labels.rule_data_provided.
    fn label_rules(&mut self, key: &str, needed: &[&str], value: &Value) -> Vec<LabelRule> {
        let mut wrong = |at: &str, what: String| {
            self.data_errors.push(format!("Rule data {key} has unexpected format: {at}: {what}"));
        };
        let Some(list) = value.as_array() else {
            wrong("(Root)", "Invalid type. Expected: array".to_owned());
            return Vec::new();
        };
        let mut rules = Vec::new();
        for (number, entry) in list.iter().enumerate() {
            let at = number.to_string();
            if list[..number].contains(entry) {
                wrong("(Root)", "array items must be unique".to_owned());
                continue;
            }
            let Some(table) = entry.as_object() else {
                wrong(&at, "Invalid type. Expected: object".to_owned());
                continue;
            };
            let mut sound = true;
            for field in needed.iter().filter(|field| !table.contains_key(**field)) {
                wrong(&at, format!("{field} is required"));
                sound = false;
            }
            for (field, value) in table {
                let optional = OPTIONAL_FIELDS
                    .iter()
                    .any(|(name, keys)| name == field && (keys == &[""] || keys.contains(&key)));
                if !needed.contains(&field.as_str()) && !optional {
                    wrong(&at, format!("Additional property {field} is not allowed"));
                    sound = false;
                } else if field == "values" {
                    let texts =
                        value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
                    if !texts {
                        wrong(
                            &format!("{at}.values"),
                            "Invalid type. Expected: array of strings".to_owned(),
                        );
                        sound = false;
                    }
                } else if !value.is_string() {
                    wrong(&format!("{at}.{field}"), "Invalid type. Expected: string".to_owned());
                    sound = false;
                }
            }
            if let (true, Ok(rule)) = (sound, serde_json::from_value(entry.clone())) {
                rules.push(rule);
            }
        }
        rules
    }

    /// The rule data of a key; none if there is none.
    pub(super) fn labels(&self, key: &str) -> &[LabelRule] {
        self.labels.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// How much a violation of a rule weighs; `None`: the rule is switched off.
    pub(super) fn severity(&self, rule: &Rule) -> Option<Severity> {
        match self.severities.get(&rule.id) {
            None => Some(rule.severity),
            Some(Weight::Off) => None,
            Some(Weight::Note) => Some(Severity::Note),
            Some(Weight::Warning) => Some(Severity::Warning),
            Some(Weight::Error) => Some(Severity::Error),
        }
    }

    /// Whether a rule, or what it says about one term, is excluded as Conforma excludes: by package (`labels`, `labels.*`), code
    /// (`labels.required_labels`), or code and term. What it includes counts for rules that Conforma has.
    pub(super) fn excludes(&self, id: &str, term: Option<&str>) -> bool {
        let matches = |entry: &String| {
            let entry = entry.trim();
            let (code, of_term) =
                entry.split_once(':').map_or((entry, None), |(code, term)| (code, Some(term)));
            let package = id.split('.').next().unwrap_or(id);
            let same =
                code == id || code == "*" || code.strip_suffix(".*").unwrap_or(code) == package;
            same && match (of_term, term) {
                (None, _) => true,
                (Some(wanted), Some(term)) => wanted == term,
                (Some(_), None) => false,
            }
        };
        let conforma = id.starts_with("labels.") || id.starts_with("quay_expiration.");
        // Collections of rules (@redhat) are not known here: they include everything.
        let chosen = self.included.is_empty()
            || !conforma
            || self.included.iter().any(|entry| {
                entry.starts_with('@') || matches(entry) || entry.split(':').next() == Some(id)
            });
        !chosen || self.excluded.iter().any(matches)
    }

    /// Whether a set-uid or set-gid program is one that the policy knows.
    pub(super) fn knows_set_id(&self, path: &str) -> bool {
        // /usr/sbin and /usr/bin are one directory on some systems.
        self.set_id.contains(path)
            || self.set_id.contains(&path.replacen("usr/bin/", "usr/sbin/", 1))
    }

    /// The tag that a policy means by `@newest`, or by its name.
    pub(super) fn resolve_tag<'a>(&self, tag: &'a str, names: &'a [String]) -> Option<&'a str> {
        if tag != "@newest" {
            return names.iter().find(|name| *name == tag).map(String::as_str);
        }
        let dated =
            names.iter().filter(|name| self.tags.forms.iter().any(|form| form.matches(name)));
        dated.max_by(|one, other| by_version(one, other)).map(String::as_str)
    }

    /// The tags whose digests have to be known.
    pub fn tags_to_ask(&self, names: &[String]) -> BTreeSet<String> {
        let all = self.tags.agree.iter().flatten();
        all.filter_map(|tag| self.resolve_tag(tag, names)).map(str::to_owned).collect()
    }

    /// Whether tags of the repository have to be known.
    pub fn wants_tags(&self) -> bool {
        !self.tags.required.is_empty() || !self.tags.agree.is_empty()
    }
}

/// Compares versions part by part, numbers as numbers; a pre-release is older than its release.
fn by_version(one: &str, other: &str) -> Ordering {
    let release = |text: &str| {
        text.split_once('-')
            .map_or((text.to_owned(), None), |(a, b)| (a.to_owned(), Some(b.to_owned())))
    };
    let parts = |text: &str| {
        let parts = text.trim_start_matches('v').split(['.', '_', '-']).map(|part| {
            part.parse::<u64>()
                .map_or_else(|_| (0, part.to_owned()), |number| (number, String::new()))
        });
        parts.collect::<Vec<_>>()
    };
    let ((a, a_pre), (b, b_pre)) = (release(one), release(other));
    parts(&a).cmp(&parts(&b)).then_with(|| match (a_pre, b_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => parts(&a).cmp(&parts(&b)),
    })
}

/// A YAML text of one document as a JSON value. JSON is YAML, too.
fn yaml(text: &str) -> Result<Value> {
    crate::yaml::check(text)?;
    let documents = match Yaml::load_from_str(text) {
        Ok(documents) => documents,
        Err(error) => bail!("it is not YAML: {error}"),
    };
    match &documents[..] {
        [] => Ok(Value::Null),
        [document] => json(document),
        _ => bail!("it has more than one YAML document"),
    }
}

fn json(node: &Yaml<'_>) -> Result<Value> {
    Ok(match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => Value::Bool(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::FloatingPoint(value)) => Value::from(value.into_inner()),
        Yaml::Value(Scalar::String(text)) => Value::String(text.clone().into_owned()),
        Yaml::Representation(text, ..) => Value::String(text.clone().into_owned()),
        Yaml::Sequence(list) => Value::Array(list.iter().map(json).collect::<Result<_>>()?),
        Yaml::Mapping(map) => {
            let mut object = Map::new();
            for (key, value) in map {
                let Yaml::Value(Scalar::String(key)) = key else {
                    bail!("a key of a mapping is not a string")
                };
                object.insert(key.clone().into_owned(), json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(_, inner) => json(inner)?,
        Yaml::Alias(_) | Yaml::BadValue => bail!("it has a value that is none"),
    })
}

/// Seconds since 1970 of an RFC 3339 time, or of a date alone.
pub fn parse_date(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut numbers = date.splitn(3, '-').map(|part| {
        (part.len() == 2 || part.len() == 4).then(|| part.parse::<i64>().ok()).flatten()
    });
    let (year, month, day) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if !(0..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from a year that begins in March, so that leap days come last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    let Some(time) = time else { return Some(days * 86_400) };
    let (clock, offset) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => return None,
    };
    let clock = clock.split('.').next()?;
    let fields = |text: &str| {
        text.split(':').map(|part| part.parse::<i64>().ok()).collect::<Option<Vec<_>>>()
    };
    let &[hours, minutes, seconds] = &fields(clock)?[..] else { return None };
    let offset = match offset {
        "Z" | "z" => 0,
        signed => {
            let &[hours, minutes] = &fields(signed.get(1..)?)?[..] else { return None };
            let sign = if signed.starts_with('-') { -1 } else { 1 };
            sign * (hours * 3600 + minutes * 60)
        }
    };
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2025-01-02T03:04:05Z", 1_735_787_045),
            ("2025-01-02T03:04:05.999999999+02:00", 1_735_779_845),
            ("2024-02-29", 1_709_164_800),
        ] {
            assert_eq!(parse_date(text), Some(seconds), "{text}");
        }
        for bad in [
            "",
            "today",
            "2025-13-01",
            "2025-01-02T03:04",
            "2025-01-02T03:04:05",
            "99999999999-1-1",
            "2025-01-02T::Z",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn newest_tag_is_by_version_not_by_spelling() {
        let policy = Policy::built_in("default").unwrap();
        let names =
            ["latest", "43.20261201.9", "43.20261201.10", "9.20261201.0", "x"].map(str::to_owned);
        assert_eq!(policy.resolve_tag("@newest", &names), Some("43.20261201.10"));
        assert_eq!(by_version("1.2.0-rc.1", "1.2.0"), Ordering::Less);
        assert_eq!(by_version("1.10.0", "1.9.9"), Ordering::Greater);
    }

    #[test]
    fn unknown_keys_and_rules_of_our_section_are_refused() {
        let error = |text: &str| {
            format!("{:#}", Policy::of(&[("x".to_owned(), Some(text.to_owned()))]).unwrap_err())
        };
        assert!(error("bootpress: { tag: {} }").contains("unknown field `tag`"));
        assert!(
            error("bootpress: { severity: { image.nothing: off } }").contains("does not exist")
        );
        assert!(
            error("bootpress: { repository: { allowed: '(' } }")
                .contains("invalid regular expression")
        );
        assert!(
            error("bootpress: { extends: other }")
                .contains("expected a file or one of: default, fedora")
        );
        assert!(error("- a").contains("not a YAML mapping"));
        assert!(error(&"[".repeat(100)).contains("nested too deeply"));
    }
}
