//! Rules about labels as Conforma has them (conforma/policy, policy/release/labels), over the same rule data.

use std::collections::BTreeMap;

use super::facts::{Facts, Parent};
use super::policy::{LabelRule, Policy};
use super::{Judge, Outcome, Violation};

pub(super) const JUDGES: &[(&str, Judge)] = &[
    ("labels.required_labels", required),
    ("labels.optional_labels", optional),
    ("labels.deprecated_labels", deprecated),
    ("labels.disallowed_inherited_labels", inherited),
    ("labels.inaccessible_parent_manifest", parent),
    ("labels.rule_data_provided", rule_data),
    ("quay_expiration.expires_label", expires),
];

/// The label by which Conforma knows a catalogue of operators, for which it has rule data of its own.
const CATALOGUE: &str = "operators.operatorframework.io.index.configs.v1";

/// The label that has quay remove an image.
const EXPIRES: &str = "quay.expires-after";

fn labels(facts: &Facts) -> Option<&BTreeMap<String, String>> {
    Some(&facts.image.as_ref()?.labels)
}

/// The rule data of a key, of the other kind for catalogues.
fn data<'a>(facts: &Facts, policy: &'a Policy, key: &str) -> &'a [LabelRule] {
    let catalogue = labels(facts).is_some_and(|labels| labels.contains_key(CATALOGUE));
    let key = if catalogue { format!("fbc_{key}") } else { key.to_owned() };
    policy.labels(&key)
}

fn violation(rule: &LabelRule, message: String) -> Violation {
    Violation { message, place: Some(rule.name.clone()), effective_on: rule.effective_on.clone() }
}

fn required(facts: &Facts, policy: &Policy) -> Outcome {
    let rules = data(facts, policy, "required_labels");
    let Some(labels) = labels(facts).filter(|_| !rules.is_empty()) else {
        return Outcome::skipped("the policy has no required_labels");
    };
    let judged = rules.iter().filter_map(|rule| match labels.get(&rule.name) {
        None => {
            let message = format!(
                "The required {:?} label is missing. Label description: {}",
                rule.name, rule.description
            );
            Some(violation(rule, message))
        }
        Some(value) if !rule.values.is_empty() && !rule.values.contains(value) => {
            let message = format!(
                "The {:?} label has an unexpected {value:?} value. Must be one of: {}",
                rule.name,
                rule.values.join(", ")
            );
            Some(violation(rule, message))
        }
        Some(_) => None,
    });
    Outcome::of(judged.collect())
}

fn optional(facts: &Facts, policy: &Policy) -> Outcome {
    let rules = data(facts, policy, "optional_labels");
    let Some(labels) = labels(facts).filter(|_| !rules.is_empty()) else {
        return Outcome::skipped("the policy has no optional_labels");
    };
    let missing = rules.iter().filter(|rule| !labels.contains_key(&rule.name)).map(|rule| {
        let message = format!(
            "The optional {:?} label is missing. Label description: {}",
            rule.name, rule.description
        );
        violation(rule, message)
    });
    Outcome::of(missing.collect())
}

fn deprecated(facts: &Facts, policy: &Policy) -> Outcome {
    // Catalogues have no list of their own.
    let rules = policy.labels("deprecated_labels");
    let Some(labels) = labels(facts).filter(|_| !rules.is_empty()) else {
        return Outcome::skipped("the policy has no deprecated_labels");
    };
    let found = rules.iter().filter(|rule| labels.contains_key(&rule.name)).map(|rule| {
        let replacement = rule.replacement.as_deref().unwrap_or_default();
        let message =
            format!("The {:?} label is deprecated, replace with {replacement:?}", rule.name);
        violation(rule, message)
    });
    Outcome::of(found.collect())
}

fn inherited(facts: &Facts, policy: &Policy) -> Outcome {
    let rules = data(facts, policy, "disallowed_inherited_labels");
    let Some(image) = facts.image.as_ref().filter(|_| !rules.is_empty()) else {
        return Outcome::skipped("the policy has no disallowed_inherited_labels");
    };
    let parent = match &image.parent {
        Parent::Unnamed => {
            return Outcome::skipped(
                "no annotations org.opencontainers.image.base.name and .digest name a parent image",
            );
        }
        Parent::Inaccessible(name, _) => {
            return Outcome::skipped(format!("the parent image {name} cannot be read"));
        }
        Parent::Known(labels) => labels,
    };
    let same = rules.iter().filter(|rule| {
        let value = image.labels.get(&rule.name);
        value.is_some() && value == parent.get(&rule.name)
    });
    let found = same.map(|rule| {
        let message =
            format!("The {:?} label should not be inherited from the parent image", rule.name);
        violation(rule, message)
    });
    Outcome::of(found.collect())
}

fn parent(facts: &Facts, policy: &Policy) -> Outcome {
    if data(facts, policy, "disallowed_inherited_labels").is_empty() {
        return Outcome::skipped("the policy has no disallowed_inherited_labels");
    }
    match facts.image.as_ref().map(|image| (&image.parent, &image.digest)) {
        Some((Parent::Inaccessible(name, why), digest)) => Outcome::of(vec![Violation::at(
            name.clone(),
            format!(
                "Manifest of the image {name:?}, parent of image {digest:?} is inaccessible: {why}"
            ),
        )]),
        Some((Parent::Unnamed, _)) | None => Outcome::skipped("no annotations name a parent image"),
        Some((Parent::Known(_), _)) => Outcome::Passed,
    }
}

fn rule_data(_: &Facts, policy: &Policy) -> Outcome {
    Outcome::of(policy.data_errors.iter().map(Violation::new).collect())
}

fn expires(facts: &Facts, policy: &Policy) -> Outcome {
    if !policy.release {
        return Outcome::skipped("the policy is not for releases");
    }
    let found = labels(facts).and_then(|labels| labels.get(EXPIRES));
    Outcome::unless(found.map(|value| {
        Violation::at(
            EXPIRES,
            format!("the label {EXPIRES}={value} has the registry delete the image"),
        )
    }))
}
