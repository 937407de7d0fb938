//! dpkg's database: paragraphs of `Field: value` lines (deb822(5)), and licences from copyright files (DEP 5).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Inventory, Manager, Package, clean, some};
use crate::files::Files;

/// Where it is, and where systems keep it whose /var does not belong to the image.
const STATUS: [&str; 4] = [
    "var/lib/dpkg/status",
    "usr/lib/sysimage/dpkg/status",
    "usr/lib/dpkg/status",
    "usr/share/dpkg-db/status",
];

/// Where images without dpkg have a file for each package.
const PARTS: &str = "var/lib/dpkg/status.d";

/// The largest database; Debian's with everything installed has 64 MB.
const LARGEST: u64 = 64 << 20;

/// The largest copyright file that is read; the kernel's has 200 kB.
const LARGEST_COPYRIGHT: u64 = 1 << 20;

pub(super) fn read(files: Files<'_>, inventory: &mut Inventory) -> Result<()> {
    for path in STATUS {
        if let Some(bytes) = files.bytes(path, LARGEST)? {
            packages(files, &bytes, true, inventory)?;
            inventory.databases.push(path.to_owned());
            break;
        }
    }
    let parts = files.names(PARTS);
    for name in parts.iter().filter(|name| !name.ends_with(".md5sums")) {
        let path = format!("{PARTS}/{name}");
        if let Some(bytes) = files.bytes(&path, LARGEST_COPYRIGHT)? {
            packages(files, &bytes, false, inventory)?;
            inventory.databases.push(path);
        }
    }
    Ok(())
}

/// Adds the packages of a database; with `status`, those that are installed.
fn packages(files: Files<'_>, bytes: &[u8], status: bool, inventory: &mut Inventory) -> Result<()> {
    for paragraph in paragraphs(bytes) {
        let field = |name: &str| paragraph.get(name).map(String::as_str).unwrap_or_default();
        let name = clean(field("package"));
        // want, error, state (dpkg(1), "Package states").
        let installed = !status || field("status").split_whitespace().nth(2) == Some("installed");
        if name.is_empty() || !installed {
            continue;
        }
        let version = clean(field("version"));
        let source = match field("source") {
            "" => None,
            source => match source.split_once(" (") {
                Some((source, version)) => {
                    Some(format!("{source} {}", version.trim_end_matches(')')))
                }
                None => Some(format!("{source} {version}")),
            },
        };
        inventory.add(Package {
            manager: Manager::Deb,
            licence: licence(files, &name)?,
            epoch: None,
            architecture: clean(field("architecture")),
            source: source.as_deref().and_then(some),
            supplier: some(field("maintainer")),
            url: some(field("homepage")),
            summary: some(field("description").lines().next().unwrap_or_default()),
            name,
            version,
        })?;
    }
    Ok(())
}

/// Fields of each paragraph, names in lower case; lines that continue a field are joined by newlines.
fn paragraphs(bytes: &[u8]) -> impl Iterator<Item = BTreeMap<String, String>> {
    let mut lines = bytes.split(|&byte| byte == b'\n').map(String::from_utf8_lossy).peekable();
    std::iter::from_fn(move || {
        while lines.next_if(|line| line.trim().is_empty()).is_some() {}
        lines.peek()?;
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut last: Option<String> = None;
        while let Some(line) = lines.next_if(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) {
                let field = last.as_ref().and_then(|name| fields.get_mut(name));
                if let Some(field) = field {
                    field.push('\n');
                    field.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                let name = name.to_ascii_lowercase();
                fields.insert(name.clone(), value.trim().to_owned());
                last = Some(name);
            }
        }
        Some(fields)
    })
}

/// The short names of licences in a copyright file of the machine-readable form, joined by AND.
fn licence(files: Files<'_>, package: &str) -> Result<Option<String>> {
    if package.contains('/') {
        return Ok(None);
    }
    let path = format!("usr/share/doc/{package}/copyright");
    if files.root.file(&path).is_none_or(|content| content.size > LARGEST_COPYRIGHT) {
        return Ok(None);
    }
    let bytes = files.bytes(&path, LARGEST_COPYRIGHT)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    if !text.trim_start().starts_with("Format:") {
        return Ok(None);
    }
    let names: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("License:").or_else(|| line.strip_prefix("license:")))
        .map(clean)
        .filter(|name| !name.is_empty() && name.len() < 100)
        .collect();
    let names: Vec<String> = names.into_iter().collect();
    Ok((!names.is_empty()).then(|| names.join(" AND ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_end_at_empty_lines_and_fields_go_on() {
        let text =
            b"\nPackage: a\nDescription: one\n two\n .\n\n\nPackage: b\nno colon\n continued\n";
        let found: Vec<_> = paragraphs(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["description"], "one\ntwo\n.");
        assert_eq!(found[1]["package"], "b\ncontinued");
    }
}
