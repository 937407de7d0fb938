//! Rules about an image's name, tags, platforms, labels and attachments.

use super::facts::{Facts, ImageFacts, TrustFacts};
use super::policy::{Policy, parse_date};
use super::{Judge, Outcome, Violation};

pub(super) const JUDGES: &[(&str, Judge)] = &[
    ("image.bootc-label", bootc_label),
    ("image.repository-name", repository_name),
    ("image.tag-form", tag_form),
    ("image.tags-present", tags_present),
    ("image.tags-agree", tags_agree),
    ("image.index-complete", index_complete),
    ("image.created", created),
    ("image.version-labels-agree", labels_agree),
    ("image.source-revision", source_revision),
    ("image.licences", licences),
    ("image.annotations", annotations),
    ("image.signed", signed),
    ("image.sbom", sbom),
];

/// Labels that bootc looks for; the keys count, not the values.
const BOOTC_LABELS: [&str; 2] = ["containers.bootc", "ostree.bootable"];

/// Labels that state the same fact.
const SAME: [(&str, &str); 6] = [
    ("version", "org.opencontainers.image.version"),
    ("url", "org.opencontainers.image.url"),
    ("vendor", "org.opencontainers.image.vendor"),
    ("description", "org.opencontainers.image.description"),
    ("vcs-ref", "org.opencontainers.image.revision"),
    ("license", "org.opencontainers.image.licenses"),
];

const LICENCES: &str = "org.opencontainers.image.licenses";
const SOURCE: &str = "org.opencontainers.image.source";
const REVISION: &str = "org.opencontainers.image.revision";

/// What OCI and kernels call one architecture.
const ARCHITECTURES: [(&str, &str); 4] =
    [("amd64", "x86_64"), ("arm64", "aarch64"), ("ppc64le", "ppc64le"), ("s390x", "s390x")];

fn with(facts: &Facts, judge: impl FnOnce(&ImageFacts) -> Outcome) -> Outcome {
    facts.image.as_ref().map_or_else(|| Outcome::skipped("there is no image"), judge)
}

fn bootc_label(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |image| {
        let missing = BOOTC_LABELS.iter().all(|key| !image.labels.contains_key(*key));
        Outcome::unless(missing.then(|| {
            Violation::at(
                BOOTC_LABELS[0],
                "neither label containers.bootc nor ostree.bootable is set",
            )
        }))
    })
}

fn repository_name(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |image| {
        let Some(rule) = &policy.repository else {
            return Outcome::skipped("the policy says nothing about repositories");
        };
        let Some(repository) = &image.repository else {
            return Outcome::skipped("the image has no name in a registry");
        };
        let mut violations = Vec::new();
        let name = repository.rsplit('/').next().unwrap_or(repository);
        if let Some(allowed) = &rule.allowed
            && !allowed.matches(name)
        {
            let message =
                format!("the repository is called {name:?}; the policy allows {}", allowed.text());
            violations.push(Violation::at(repository.clone(), message));
        }
        if let Some(forbidden) = rule.forbidden.iter().find(|forbidden| forbidden.matches(name)) {
            let message = format!(
                "the repository's name {name:?} has a version or branch in it ({})",
                forbidden.text()
            );
            violations.push(Violation::at(repository.clone(), message));
        }
        Outcome::of(violations)
    })
}

fn tag_form(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |image| {
        if policy.tags.forms.is_empty() {
            return Outcome::skipped("the policy says nothing about tags");
        }
        let Some(tag) = &image.tag else {
            return Outcome::skipped("the image was not asked for by a tag");
        };
        let known = policy.tags.forms.iter().chain(&policy.tags.moving);
        let found = (!known.clone().any(|form| form.matches(tag))).then(|| {
            let forms: Vec<&str> = known.map(|form| form.text()).collect();
            Violation::at(tag.clone(), format!("the tag {tag:?} is none of: {}", forms.join(", ")))
        });
        Outcome::unless(found)
    })
}

fn tags_present(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |image| {
        if policy.tags.required.is_empty() {
            return Outcome::skipped("the policy asks for no tags");
        }
        let tags = &image.tags;
        if let Some(why) = &tags.unknown {
            return Outcome::skipped(why.clone());
        }
        let missing = policy.tags.required.iter().filter(|tag| !tags.names.contains(tag));
        Outcome::of(
            missing
                .map(|tag| Violation::at(tag.clone(), format!("the repository has no tag {tag:?}")))
                .collect(),
        )
    })
}

fn tags_agree(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |image| {
        if policy.tags.agree.is_empty() {
            return Outcome::skipped("the policy names no tags that have to agree");
        }
        let tags = &image.tags;
        if let Some(why) = &tags.unknown {
            return Outcome::skipped(why.clone());
        }
        let (mut violations, mut compared) = (Vec::new(), false);
        for group in &policy.tags.agree {
            let named: Vec<&str> =
                group.iter().filter_map(|tag| policy.resolve_tag(tag, &tags.names)).collect();
            let known: Vec<(&str, &String)> =
                named.into_iter().filter_map(|tag| Some((tag, tags.digests.get(tag)?))).collect();
            let Some(((first, digest), others)) = known.split_first() else { continue };
            compared |= !others.is_empty();
            for (tag, other) in others.iter().filter(|(_, other)| *other != *digest) {
                let message = format!("the tag {first:?} is {digest}, and {tag:?} is {other}");
                violations.push(Violation::at((*first).to_owned(), message));
            }
        }
        if !compared {
            return Outcome::skipped("fewer than two of the tags are there");
        }
        Outcome::of(violations)
    })
}

fn index_complete(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |image| {
        if policy.platforms.is_empty() {
            return Outcome::skipped("the policy asks for no platforms");
        }
        let Some(platforms) = &image.platforms else {
            let message = format!(
                "the name leads to a manifest, not to an index with {}",
                policy.platforms.join(", ")
            );
            return Outcome::of(vec![Violation::at(image.top_digest.clone(), message)]);
        };
        // `linux/arm64/v8` serves those who ask for `linux/arm64`.
        let has = |wanted: &&String| {
            platforms.iter().any(|one| {
                one.strip_prefix(wanted.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let missing = policy.platforms.iter().filter(|wanted| !has(wanted));
        Outcome::of(
            missing
                .map(|platform| {
                    Violation::at(
                        platform.clone(),
                        format!("the index has no image for {platform}"),
                    )
                })
                .collect(),
        )
    })
}

fn created(facts: &Facts, _: &Policy) -> Outcome {
    /// Clocks of build machines may be wrong by this many seconds: a day.
    const TOLERATED: i64 = 86_400;
    with(facts, |image| {
        let what = match image.created.as_deref() {
            None | Some("") => "the config does not say when the image was made".to_owned(),
            Some(text) => match parse_date(text) {
                None => format!(
                    "the config says that the image was made at {text:?}, which is not an RFC 3339 time"
                ),
                Some(..=0) => format!("the config says that the image was made at {text}"),
                Some(time) if time > facts.now + TOLERATED => {
                    format!(
                        "the config says that the image was made at {text}, which is still to come"
                    )
                }
                Some(_) => return Outcome::Passed,
            },
        };
        Outcome::of(vec![Violation::at("created", what)])
    })
}

fn labels_agree(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |image| {
        let mut violations = Vec::new();
        for (one, other) in SAME {
            if let (Some(a), Some(b)) = (image.labels.get(one), image.labels.get(other))
                && a != b
            {
                let message = format!("label {one} is {a:?}, and label {other} is {b:?}");
                violations.push(Violation::at(other, message));
            }
        }
        if let Some(label) = image.labels.get("architecture") {
            let kernel = |name: &str| {
                ARCHITECTURES
                    .iter()
                    .find(|(oci, _)| *oci == name)
                    .map_or(name, |(_, kernel)| *kernel)
                    .to_owned()
            };
            if kernel(label) != kernel(&image.architecture) {
                let message = format!(
                    "label architecture is {label:?}, and the image is for {}",
                    image.architecture
                );
                violations.push(Violation::at("architecture", message));
            }
        }
        Outcome::of(violations)
    })
}

fn source_revision(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |image| {
        let value = |key: &str| {
            let own = image.labels.get(key).or_else(|| image.annotations.get(key));
            own.map(String::as_str).filter(|value| !value.is_empty())
        };
        let mut violations = Vec::new();
        match value(SOURCE).or_else(|| value("vcs-url")) {
            Some(source) if source.starts_with("https://") => {}
            Some(source) => violations.push(Violation::at(
                SOURCE,
                format!("label {SOURCE} is {source:?}, which is not an https URL"),
            )),
            None => violations.push(Violation::at(SOURCE, format!("label {SOURCE} is missing"))),
        }
        if value(REVISION).or_else(|| value("vcs-ref")).is_none() {
            violations.push(Violation::at(REVISION, format!("label {REVISION} is missing")));
        }
        Outcome::of(violations)
    })
}

fn licences(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |image| {
        let label = image.labels.get(LICENCES).or_else(|| image.annotations.get(LICENCES));
        let Some(text) = label else {
            return Outcome::of(vec![Violation::at(
                LICENCES,
                format!("label {LICENCES} is missing"),
            )]);
        };
        let found = (!is_spdx_expression(text)).then(|| {
            Violation::at(
                LICENCES,
                format!("label {LICENCES} is {text:?}, which is not an SPDX expression"),
            )
        });
        Outcome::unless(found)
    })
}

/// Whether a text has the grammar of an SPDX licence expression (SPDX 2.3, annex D). Which identifiers there are, it does not know.
pub(crate) fn is_spdx_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut depth, mut wants_operand, mut after_with) = (0_u32, true, false);
    for word in spaced.split_whitespace() {
        match (word, wants_operand) {
            ("(", true) if !after_with => depth += 1,
            (")", false) if depth > 0 => depth -= 1,
            ("AND" | "OR", false) => (wants_operand, after_with) = (true, false),
            ("WITH", false) if !after_with => (wants_operand, after_with) = (true, true),
            ("(" | ")" | "AND" | "OR" | "WITH", _) | (_, false) => return false,
            (identifier, true) => {
                let bare = identifier.strip_suffix('+').unwrap_or(identifier);
                let allowed = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
                if bare.is_empty() || !bare.chars().all(allowed) {
                    return false;
                }
                wants_operand = false;
            }
        }
    }
    depth == 0 && !wants_operand
}

fn annotations(facts: &Facts, policy: &Policy) -> Outcome {
    with(facts, |image| {
        if policy.annotations.is_empty() {
            return Outcome::skipped("the policy asks for no annotations");
        }
        let judged = policy.annotations.iter().filter_map(|rule| {
            let message = match image.annotations.get(&rule.name) {
                None => format!("annotation {} is missing", rule.name),
                Some(value) if !rule.values.is_empty() && !rule.values.contains(value) => {
                    format!(
                        "annotation {} is {value:?}; expected one of: {}",
                        rule.name,
                        rule.values.join(", ")
                    )
                }
                Some(_) => return None,
            };
            Some(Violation::at(rule.name.clone(), message))
        });
        Outcome::of(judged.collect())
    })
}

fn signed(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |image| match (&image.trust, image.signatures.as_deref()) {
        (TrustFacts::Accepted { verified: true, .. }, _) => Outcome::Passed,
        (TrustFacts::Refused(why), _) => {
            Outcome::of(vec![Violation::at(image.digest.clone(), why.clone())])
        }
        (_, Some([])) => {
            let message = "the registry has no signature of the image or its index".to_owned();
            Outcome::of(vec![Violation::at(image.digest.clone(), message)])
        }
        (_, Some(_)) => Outcome::Passed,
        (_, None) => Outcome::skipped("there is no registry to ask for signatures"),
    })
}

fn sbom(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |image| match image.sboms.as_deref() {
        Some([]) => {
            let message = "no SPDX or CycloneDX document is attached to the image or its index";
            Outcome::of(vec![Violation::at(image.digest.clone(), message)])
        }
        Some(_) => Outcome::Passed,
        None => Outcome::skipped("there is no registry to ask for attachments"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spdx_expression_has_operators_between_identifiers() {
        for good in [
            "MIT",
            "GPL-2.0-or-later WITH Classpath-exception-2.0",
            "(MIT OR Apache-2.0) AND LicenseRef-Fedora-Public-Domain",
            "GPL-2.0+ AND (LGPL-2.1-only OR (BSD-3-Clause AND Zlib))",
        ] {
            assert!(is_spdx_expression(good), "{good}");
        }
        for bad in [
            "",
            "GPLv2+ and MIT",
            "MIT,BSD",
            "MIT OR",
            "(MIT",
            "MIT)",
            "AND MIT",
            "MIT WITH WITH x",
            "a/b",
        ] {
            assert!(!is_spdx_expression(bad), "{bad}");
        }
    }
}
