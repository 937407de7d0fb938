//! The rules that say what a console's lines mean: read from TOML, tried on their own samples, and applied in order.

use std::collections::HashSet;
use std::sync::OnceLock;

use regex::{Regex, RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::reached::Milestone;

/// The rules that are built in.
const BUILT_IN: &str = include_str!("../console-rules.toml");

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The boot will get no further, so waiting is useless.
    Fatal,
    /// The boot may go on, but has failed.
    Error,
    /// Somebody should look.
    Warning,
    /// Nothing.
    Ignore,
}

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Reaches(Milestone),
    Severity(Severity),
}

/// A rule, sound.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) meaning: Meaning,
    /// Half a sentence for people.
    pub(crate) text: String,
    until: Milestone,
}

/// Rules in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    patterns: RegexSet,
}

/// Why rules cannot be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RuleError(String);

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Stated>,
}

/// A rule as it is written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    name: String,
    pattern: Option<String>,
    severity: Option<Severity>,
    reaches: Option<Milestone>,
    meaning: Option<String>,
    until: Option<Milestone>,
    samples: Option<Vec<String>>,
    others: Option<Vec<String>>,
}

impl Rules {
    /// The rules that are built in.
    pub fn built_in() -> &'static Self {
        static RULES: OnceLock<Rules> = OnceLock::new();
        RULES.get_or_init(|| Self::with("").expect("the built-in rules are sound: see the tests"))
    }

    /// The built-in rules changed by a file of the same form. Rules of a known name change that rule, others come before
    /// all known ones.
    ///
    /// # Errors
    /// When the file or a pattern cannot be read, or a rule does not do on its samples what it says.
    pub fn with(file: &str) -> Result<Self, RuleError> {
        let mut stated = read(BUILT_IN)?;
        let mut new = Vec::new();
        for rule in read(file)? {
            match stated.iter_mut().find(|known| known.name == rule.name) {
                Some(known) => known.change(rule),
                None => new.push(rule),
            }
        }
        new.extend(stated);
        let rules = new.iter().map(Stated::sound).collect::<Result<Vec<_>, _>>()?;
        let patterns = RegexSetBuilder::new(new.iter().filter_map(|rule| rule.pattern.as_ref()))
            .size_limit(64 << 20)
            .build()
            .map_err(|error| RuleError(format!("console rules: {error}")))?;
        Ok(Self { rules, patterns })
    }

    /// The first rule that applies to a line when the boot has got so far.
    pub(crate) fn first(&self, text: &str, reached: Milestone) -> Option<&Rule> {
        let found = self.patterns.matches(text);
        found.iter().map(|index| &self.rules[index]).find(|rule| reached <= rule.until)
    }

    /// Whether a line shows, whatever else it says, that the boot has got to a milestone.
    pub(crate) fn shows(&self, text: &str, milestone: Milestone) -> bool {
        let found = self.patterns.matches(text);
        found.iter().any(|index| self.rules[index].meaning == Meaning::Reaches(milestone))
    }
}

fn read(file: &str) -> Result<Vec<Stated>, RuleError> {
    let File { rule } =
        toml::from_str(file).map_err(|error| RuleError(format!("console rules: {error}")))?;
    let mut names = HashSet::new();
    match rule.iter().find(|rule| !names.insert(rule.name.as_str())) {
        Some(rule) => Err(RuleError(format!("console rules: `{}` is there twice", rule.name))),
        None => Ok(rule),
    }
}

impl Stated {
    /// Takes what another rule of the same name states. Samples belong to the pattern that they are samples of.
    fn change(&mut self, other: Self) {
        if other.pattern.is_some() {
            (self.samples, self.others) = (None, None);
        }
        if other.severity.is_some() || other.reaches.is_some() {
            (self.severity, self.reaches) = (other.severity, other.reaches);
        }
        self.pattern = other.pattern.or(self.pattern.take());
        self.meaning = other.meaning.or(self.meaning.take());
        self.until = other.until.or(self.until);
        self.samples = other.samples.or(self.samples.take());
        self.others = other.others.or(self.others.take());
    }

    /// Checks a rule by itself: complete, and right about its samples.
    fn sound(&self) -> Result<Rule, RuleError> {
        let wrong = |why: String| RuleError(format!("console rule `{}`: {why}", self.name));
        let pattern = self.pattern.as_ref().ok_or_else(|| wrong("it has no pattern".to_owned()))?;
        let regex = Regex::new(pattern).map_err(|error| wrong(error.to_string()))?;
        if regex.is_match("") {
            return Err(wrong("its pattern matches every line".to_owned()));
        }
        for sample in self.samples.iter().flatten() {
            if !regex.is_match(sample) {
                return Err(wrong(format!("it does not match its sample `{sample}`")));
            }
        }
        for other in self.others.iter().flatten() {
            if regex.is_match(other) {
                return Err(wrong(format!("it matches `{other}`, which it must not")));
            }
        }
        let meaning = match (self.severity, self.reaches) {
            (Some(severity), None) => Meaning::Severity(severity),
            (None, Some(milestone)) => Meaning::Reaches(milestone),
            _ => return Err(wrong("it needs either a severity or what it reaches".to_owned())),
        };
        let text = match (&self.meaning, meaning) {
            (Some(text), _) => text.clone(),
            (None, Meaning::Reaches(milestone)) => milestone.name().to_owned(),
            (None, Meaning::Severity(_)) => return Err(wrong("it has no meaning".to_owned())),
        };
        Ok(Rule {
            name: self.name.clone(),
            meaning,
            text,
            until: self.until.unwrap_or(Milestone::Running),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_rule_applies_to_its_samples_and_no_other_rule_comes_first() {
        let rules = Rules::built_in();
        for stated in read(BUILT_IN).unwrap() {
            let samples = stated.samples.as_deref().unwrap_or_default();
            let others = stated.others.as_deref().unwrap_or_default();
            assert!(!samples.is_empty() && !others.is_empty(), "{} is untried", stated.name);
            for sample in samples {
                let until = stated.until.unwrap_or(Milestone::Running);
                let first = rules.first(sample, until).map(|rule| rule.name.as_str());
                assert_eq!(first, Some(stated.name.as_str()), "{sample}");
                let later = rules.first(sample, Milestone::Running).map(|rule| &rule.name);
                assert!(until == Milestone::Running || later != Some(&stated.name), "{sample}");
            }
            for other in others {
                let found = rules.first(other, Milestone::Nothing);
                assert!(found.is_none_or(|rule| rule.name != stated.name), "{other}");
            }
        }
    }

    fn meaning(rules: &Rules, line: &str) -> Option<Meaning> {
        rules.first(line, Milestone::Userspace).map(|rule| rule.meaning)
    }

    #[test]
    fn a_file_adds_rules_and_changes_known_ones() {
        let rules = Rules::with(
            "[[rule]]\nname = 'unit-failed'\nseverity = 'error'\n\
             [[rule]]\nname = 'ours'\npattern = 'Failed to start our'\nseverity = 'ignore'\nmeaning = 'known'\n\
             [[rule]]\nname = 'segfault'\npattern = 'SEGV'\n",
        )
        .unwrap();
        let severity = |line| meaning(&rules, line);
        assert_eq!(severity("Failed to start x"), Some(Meaning::Severity(Severity::Error)));
        assert_eq!(severity("Failed to start ours"), Some(Meaning::Severity(Severity::Ignore)));
        assert_eq!(severity("segfault at 8"), None);
        assert_eq!(severity("SEGV"), Some(Meaning::Severity(Severity::Warning)));
    }

    #[test]
    fn files_that_are_wrong_say_where() {
        let told = |file: &str| Rules::with(file).unwrap_err().to_string();
        let rule = |rest: &str| format!("[[rule]]\nname = 'x'\n{rest}");
        let complete = "severity = 'error'\nmeaning = 'm'\n";
        assert!(told(&rule(complete)).contains("console rule `x`: it has no pattern"));
        assert!(told(&rule("pattern = 'a'\nmeaning = 'm'")).contains("either a severity"));
        assert!(told(&rule("pattern = 'a'\nseverity = 'error'")).contains("no meaning"));
        assert!(told(&rule(&format!("pattern = 'a*'\n{complete}"))).contains("every line"));
        assert!(told(&rule(&format!("pattern = '('\n{complete}"))).contains("`x`: regex"));
        assert!(
            told(&rule(&format!("pattern = 'a'\nsamples = ['b']\n{complete}"))).contains("`b`")
        );
        assert!(told(&rule(&format!("pattern = 'a'\nothers = ['a']\n{complete}"))).contains("`a`"));
        assert!(told(&rule("severity = 'bad'")).contains("bad"));
        assert!(told(&rule("color = 'red'")).contains("color"));
        assert!(told("rule = 3").contains("console rules: "));
        assert!(told(&format!("{0}\n{0}", rule("pattern = 'a'"))).contains("twice"));
    }
}
