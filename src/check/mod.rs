//! A gate: rules as data, judged over facts about an image, a disk or an ISO.
//!
//! ```text
//! gather: image, registry, layers, disk, ISO ──► Facts ─┐
//! rules/*.toml: what each rule is and why ──────────────┼──► judge ──► Findings ──► report: JSON, SARIF, JUnit
//! policy: rule data (Conforma's), built in or a file ───┘
//! ```
//!
//! A rule is a function of [`Facts`] and [`Policy`], and reads nothing else. So each can be tried with values.

mod content;
mod content_facts;
mod disk;
mod facts;
mod gather;
mod image;
mod iso;
mod labels;
mod policy;
mod report;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use facts::{
    Backend, ContentFacts, Facts, ImageFacts, Initramfs, Parent, SetId, TagFacts, TrustFacts,
};
pub use gather::{Wanted, content_of, gather_file, gather_image};
pub use policy::{Policy, parse_date};
pub use report::{json, junit, sarif};

/// How much a violation weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// To be mended; does not fail a check unless somebody asks for that.
    Warning,
    /// Fails a check.
    Error,
}

impl Severity {
    /// All of them, the lightest first.
    pub const ALL: [Self; 3] = [Self::Note, Self::Warning, Self::Error];

    /// One word; SARIF's levels have the same names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// Documents of the image, and what its registry says.
    Image,
    /// Files of the image.
    Content,
    /// A disk.
    Disk,
    /// An ISO.
    Iso,
}

impl About {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Content => "content",
            Self::Disk => "disk",
            Self::Iso => "iso",
        }
    }
}

/// A rule, as data.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// What it looks at.
    pub about: About,
    /// What is written about it.
    #[serde(flatten)]
    pub text: RuleText,
}

/// What is written about a rule in `rules/*.toml`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// `image.tag-form`; those that Conforma has, too, have Conforma's codes.
    pub id: String,
    /// How much a violation weighs when no policy says otherwise.
    pub severity: Severity,
    /// What is the case when it is kept.
    pub title: String,
    /// Why it exists.
    pub why: String,
    /// How to mend a violation.
    pub fix: String,
}

impl Deref for Rule {
    type Target = RuleText;

    fn deref(&self) -> &RuleText {
        &self.text
    }
}

#[derive(Deserialize)]
struct Document {
    rule: Vec<RuleText>,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let texts = [
        (About::Image, include_str!("rules/image.toml")),
        (About::Content, include_str!("rules/content.toml")),
        (About::Disk, include_str!("rules/disk.toml")),
        (About::Iso, include_str!("rules/iso.toml")),
    ];
    let read = |(about, text)| {
        let document: Document = toml::from_str(text).expect("tests read the same text");
        document.rule.into_iter().map(move |text| Rule { about, text })
    };
    texts.into_iter().flat_map(read).collect()
});

/// All rules, in the order in which they are reported.
pub fn rules() -> &'static [Rule] {
    &RULES
}

/// The rule with an id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    rules().iter().find(|rule| rule.id == id)
}

/// A way in which a rule is violated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What is wrong, with the object named.
    pub message: String,
    /// The file, label or partition that it is about, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The date (RFC 3339) from which it counts; before, it is a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_on: Option<String>,
}

impl Violation {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    fn at(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..Self::new(message) }
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rule is kept.
    Passed,
    /// The rule is violated; never empty.
    Failed(Vec<Violation>),
    /// The rule could not be judged, or the policy does not ask for it: why.
    Skipped(String),
}

impl Outcome {
    /// Failed if there are violations.
    fn of(violations: Vec<Violation>) -> Self {
        if violations.is_empty() { Self::Passed } else { Self::Failed(violations) }
    }

    /// Failed with one violation if there is one.
    fn unless(violation: Option<Violation>) -> Self {
        Self::of(violation.into_iter().collect())
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }
}

/// The function of a rule.
type Judge = fn(&Facts, &Policy) -> Outcome;

/// The function of each rule, by its id.
fn judges() -> impl Iterator<Item = (&'static str, Judge)> {
    [image::JUDGES, labels::JUDGES, content::JUDGES, disk::JUDGES, iso::JUDGES]
        .into_iter()
        .flatten()
        .copied()
}

/// A rule, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// What it is about.
    pub about: About,
    /// The heaviest severity of its violations; of a rule that is kept, what a violation would have.
    pub severity: Severity,
    /// Whether it is kept, violated, or was not judged.
    pub status: Status,
    /// What is the case when it is kept.
    pub title: &'static str,
    /// How it is violated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Counted>,
    /// Why it was not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A violation, and how much it weighs here and now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// How much it weighs.
    pub severity: Severity,
    /// What was found.
    #[serde(flatten)]
    pub violation: Violation,
}

/// What came of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The rule is kept.
    Passed,
    /// The rule is violated.
    Failed,
    /// The rule was not judged.
    Skipped,
}

/// What came of all rules that apply.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The form of the JSON; grows by one when a field changes its meaning or goes away.
    pub version: u32,
    /// What was looked at, as it was named.
    pub target: String,
    /// Digest of an image's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The policies, in the order in which they were given.
    pub policies: Vec<String>,
    /// What came of each rule.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many violations have a severity.
    pub fn count(&self, severity: Severity) -> usize {
        let counted = self.findings.iter().flat_map(|finding| &finding.violations);
        counted.filter(|counted| counted.severity == severity).count()
    }

    /// How many rules have a status.
    pub fn with_status(&self, status: Status) -> usize {
        self.findings.iter().filter(|finding| finding.status == status).count()
    }

    /// The heaviest severity of any violation.
    pub fn worst(&self) -> Option<Severity> {
        let counted = self.findings.iter().flat_map(|finding| &finding.violations);
        counted.map(|counted| counted.severity).max()
    }
}

/// Judges facts by a policy. `now`: seconds since 1970, which decides what counts already.
pub fn judge(target: &str, facts: &Facts, policy: &Policy, now: i64) -> Report {
    let findings = rules().iter().filter_map(|rule| finding(rule, facts, policy, now)).collect();
    Report {
        version: 1,
        target: target.to_owned(),
        digest: facts.image.as_ref().map(|image| image.digest.clone()),
        policies: policy.names.clone(),
        findings,
    }
}

/// What comes of a rule; `None`: it is about something else, or the policy switches it off.
fn finding(rule: &'static Rule, facts: &Facts, policy: &Policy, now: i64) -> Option<Finding> {
    let applies = match rule.about {
        About::Image => facts.image.is_some(),
        About::Content => facts.content.is_some(),
        About::Disk => facts.disk.is_some(),
        About::Iso => facts.iso.is_some(),
    };
    let usual = policy.severity(rule)?;
    let (_, judge) = judges().find(|(id, _)| *id == rule.id)?;
    if !applies || policy.excludes(&rule.id, None) {
        return None;
    }
    let outcome = judge(facts, policy);
    let (mut violations, mut skipped) = (Vec::new(), None);
    match outcome {
        Outcome::Passed => {}
        Outcome::Skipped(why) => skipped = Some(why),
        Outcome::Failed(found) => {
            let counts = found
                .into_iter()
                .filter(|violation| !policy.excludes(&rule.id, violation.place.as_deref()));
            violations.extend(counts.map(|violation| {
                let later = violation.effective_on.as_deref().and_then(parse_date);
                let waits = later.is_some_and(|later| later > now);
                let severity = if waits { usual.min(Severity::Warning) } else { usual };
                Counted { severity, violation }
            }));
        }
    }
    let status = match (&skipped, violations.is_empty()) {
        (Some(_), _) => Status::Skipped,
        (None, true) => Status::Passed,
        (None, false) => Status::Failed,
    };
    let severity = violations.iter().map(|counted| counted.severity).max().unwrap_or(usual);
    let title = rule.title.as_str();
    Some(Finding {
        rule: &rule.id,
        about: rule.about,
        severity,
        status,
        title,
        violations,
        skipped,
    })
}
