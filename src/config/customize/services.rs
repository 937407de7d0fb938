//! Which units start: links below `/etc/systemd/system`, as `systemctl enable` makes them, and presets that agree.

use std::collections::BTreeSet;

use anyhow::Result;

use super::system::System;
use crate::config::system::Services;
use crate::error::unsupported;

/// Where units are, those that win first.
const UNITS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

const LINKS: &str = "/etc/systemd/system";

/// On a first boot systemd applies presets, which would undo what was asked for.
const PRESET: &str = "/etc/systemd/system-preset/00-bootpress.preset";

/// Makes the links; units that are enabled go before those that are disabled, as in the file.
pub(super) fn apply(system: &mut System<'_>, services: &Services) -> Result<()> {
    for unit in &services.enabled {
        enable(system, unit)?;
    }
    for unit in &services.disabled {
        disable(system, unit)?;
    }
    for unit in &services.masked {
        mask(system, unit)?;
    }
    preset(system, services)
}

fn preset(system: &mut System<'_>, services: &Services) -> Result<()> {
    let lines = |verb: &str, units: &[String]| -> String {
        units.iter().map(|unit| format!("{verb} {unit}\n")).collect()
    };
    let (enabled, disabled) =
        (lines("enable", &services.enabled), lines("disable", &services.disabled));
    let rules = enabled + &disabled + &lines("disable", &services.masked);
    if rules.is_empty() {
        return Ok(());
    }
    let text = system
        .read(PRESET)?
        .unwrap_or_else(|| "# What the configuration of this disk asked for.\n".to_owned());
    system.rewrite(PRESET, &(text + &rules))
}

/// Enables one unit that is not in a list: a unit of ours.
pub(super) fn enable_own(system: &mut System<'_>, unit: &str) -> Result<()> {
    apply(system, &Services { enabled: vec![unit.to_owned()], ..Services::default() })
}

fn enable(system: &mut System<'_>, unit: &str) -> Result<()> {
    let (mut pending, mut done) = (vec![unit.to_owned()], BTreeSet::new());
    while let Some(unit) = pending.pop() {
        if !done.insert(unit.clone()) {
            continue;
        }
        // What masks a unit has to go before the unit is found.
        if system.link(&format!("{LINKS}/{unit}")).as_deref() == Some("/dev/null") {
            system.remove(&format!("{LINKS}/{unit}"))?;
        }
        let found = find(system, &unit)?;
        let install = Install::parse(&found.text);
        if install.is_empty() {
            system.warn(format!(
                "the service {unit} cannot be enabled: its unit has no [Install], so it starts when something else wants it"
            ));
            continue;
        }
        for (link, target) in install.links(&unit, &found) {
            system.make_link(&format!("{LINKS}/{link}"), &target)?;
        }
        pending.extend(install.also);
    }
    Ok(())
}

fn disable(system: &mut System<'_>, unit: &str) -> Result<()> {
    let found = find(system, unit)?;
    let install = Install::parse(&found.text);
    let mut aliases: Vec<String> = install.alias.iter().map(|alias| expand(alias, unit)).collect();
    aliases.push(unit.to_owned());
    for directory in dependency_directories(system, LINKS) {
        for name in &aliases {
            let link = format!("{LINKS}/{directory}/{name}");
            if system.link(&link).is_some() {
                system.remove(&link)?;
            }
        }
    }
    for alias in &install.alias {
        let link = format!("{LINKS}/{}", expand(alias, unit));
        if system.link(&link).is_some() {
            system.remove(&link)?;
        }
    }
    for directory in UNITS.into_iter().skip(1) {
        for wants in dependency_directories(system, directory) {
            if system.link(&format!("{directory}/{wants}/{unit}")).is_some() {
                system.warn(format!(
                    "the service {unit} is disabled, but {directory}/{wants} of the image starts it; `masked` keeps it from starting"
                ));
                return Ok(());
            }
        }
    }
    Ok(())
}

fn dependency_directories(system: &System<'_>, directory: &str) -> Vec<String> {
    let kinds = [".wants", ".requires", ".upholds"];
    let names = system.names(directory).into_iter();
    names.filter(|name| kinds.iter().any(|kind| name.ends_with(kind))).collect()
}

fn mask(system: &mut System<'_>, unit: &str) -> Result<()> {
    let path = format!("{LINKS}/{unit}");
    if system.exists(&path) && system.link(&path).is_none() {
        return Err(unsupported(
            format!("the service {unit} cannot be masked: its unit is {path} itself"),
            Some("disable it instead"),
        ));
    }
    system.make_link(&path, "/dev/null")
}

/// A unit's file.
struct Unit {
    path: String,
    text: String,
}

/// The file of a unit, or of the template that it is made from.
fn find(system: &System<'_>, unit: &str) -> Result<Unit> {
    let template = unit.split_once('@').and_then(|(prefix, rest)| {
        let (_, kind) = rest.rsplit_once('.')?;
        Some(format!("{prefix}@.{kind}"))
    });
    for name in std::iter::once(unit.to_owned()).chain(template) {
        for directory in UNITS {
            let path = format!("{directory}/{name}");
            if let Some(text) = system.read(&path)? {
                // A link in /etc is an alias: what it leads to is the unit.
                let path = system.canonical(&path)?;
                return Ok(Unit { path, text });
            }
        }
    }
    Err(unsupported(
        format!("there is no service {unit} in the image"),
        Some("add the package that has it in the image's Containerfile"),
    ))
}

/// The `[Install]` section of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Install {
    /// Unit and the kind of link: `wants`.
    wanted_by: Vec<(String, &'static str)>,
    alias: Vec<String>,
    also: Vec<String>,
    default_instance: Option<String>,
}

impl Install {
    fn parse(text: &str) -> Self {
        let mut install = Self::default();
        let mut inside = false;
        for line in text.replace("\\\n", " ").lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == "[Install]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
            let words = || value.split_whitespace().map(str::to_owned);
            match key.trim() {
                "WantedBy" => install.wanted_by.extend(words().map(|unit| (unit, "wants"))),
                "RequiredBy" => install.wanted_by.extend(words().map(|unit| (unit, "requires"))),
                "UpheldBy" => install.wanted_by.extend(words().map(|unit| (unit, "upholds"))),
                "Alias" => install.alias.extend(words()),
                "Also" => install.also.extend(words()),
                "DefaultInstance" => install.default_instance = words().next(),
                _ => {}
            }
        }
        install
    }

    fn is_empty(&self) -> bool {
        self.wanted_by.is_empty() && self.alias.is_empty() && self.also.is_empty()
    }

    /// The links below `/etc/systemd/system`, and their targets.
    fn links(&self, unit: &str, found: &Unit) -> Vec<(String, String)> {
        let template = unit.split_once("@.");
        let named = match (template, &self.default_instance) {
            (Some((prefix, kind)), Some(instance)) => Some(format!("{prefix}@{instance}.{kind}")),
            (Some(_), None) => None,
            (None, _) => Some(unit.to_owned()),
        };
        let target = || found.path.clone();
        let mut links: Vec<_> =
            self.alias.iter().map(|alias| (expand(alias, unit), target())).collect();
        if let Some(named) = named {
            let wanted = self.wanted_by.iter();
            links.extend(
                wanted.map(|(by, kind)| (format!("{}.{kind}/{named}", expand(by, unit)), target())),
            );
        }
        // A unit of /etc is its own file there; a link of that name would replace it.
        links.retain(|(link, target)| format!("{LINKS}/{link}") != *target);
        links
    }
}

/// The specifiers that make sense in `[Install]` (systemd.unit(5)).
fn expand(text: &str, unit: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    text.replace("%i", instance)
        .replace("%I", instance)
        .replace("%p", prefix)
        .replace("%P", prefix)
        .replace("%N", stem)
        .replace("%n", unit)
        .replace("%%", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_sections_become_links() {
        let text = "[Unit]\nAlias=no\n[Install]\nWantedBy=a.target \\\n  b.target\nRequiredBy=c.service\nAlias=other.service\nAlso=x.socket\n[X]\nWantedBy=no\n";
        let found =
            Unit { path: "/usr/lib/systemd/system/u.service".to_owned(), text: text.to_owned() };
        let install = Install::parse(text);
        let links: Vec<String> =
            install.links("u.service", &found).into_iter().map(|(link, _)| link).collect();
        assert_eq!(
            links,
            [
                "other.service",
                "a.target.wants/u.service",
                "b.target.wants/u.service",
                "c.service.requires/u.service"
            ]
        );
        assert_eq!(install.also, ["x.socket"]);
        let template = "[Install]\nWantedBy=getty.target %i.target\nDefaultInstance=tty1\n";
        let found = Unit {
            path: "/usr/lib/systemd/system/getty@.service".to_owned(),
            text: template.to_owned(),
        };
        let links = |unit: &str| Install::parse(template).links(unit, &found);
        assert_eq!(links("getty@.service")[0].0, "getty.target.wants/getty@tty1.service");
        assert_eq!(links("getty@tty9.service")[1].0, "tty9.target.wants/getty@tty9.service");
    }
}
