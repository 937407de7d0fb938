//! Rules about ISOs.

use super::facts::Facts;
use super::policy::Policy;
use super::{Judge, Outcome, Violation};
use crate::inspect::{Implanted, IsoHealth};

pub(super) const JUDGES: &[(&str, Judge)] = &[
    ("iso.volume", volume),
    ("iso.boot-catalog", boot_catalog),
    ("iso.hybrid", hybrid),
    ("iso.md5", md5),
];

fn with(facts: &Facts, judge: impl FnOnce(&IsoHealth) -> Outcome) -> Outcome {
    facts.iso.as_ref().map_or_else(|| Outcome::skipped("there is no ISO"), judge)
}

fn each(list: &[String]) -> Outcome {
    Outcome::of(list.iter().map(Violation::new).collect())
}

fn volume(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |iso| each(&iso.volume))
}

fn boot_catalog(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |iso| each(&iso.boot_catalog))
}

fn hybrid(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |iso| each(&iso.hybrid))
}

fn md5(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |iso| {
        let what = match &iso.md5 {
            Implanted::Right => return Outcome::Passed,
            Implanted::Absent => "no MD5 is implanted in the volume descriptor".to_owned(),
            Implanted::Wrong { says, is } => {
                format!("the implanted MD5 is {says}, and the medium has {is}")
            }
        };
        Outcome::of(vec![Violation::new(what)])
    })
}
