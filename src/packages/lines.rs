//! Databases of apk and pacman: small text files.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Inventory, Manager, Package, clean, some};
use crate::files::Files;

/// apk's database; it lists all files, so a large system's has 20 MB.
const APK: [&str; 2] = ["usr/lib/apk/db/installed", "lib/apk/db/installed"];
const LARGEST: u64 = 64 << 20;

/// Where pacman's is, and where image-based systems keep it.
const PACMAN: [&str; 3] =
    ["var/lib/pacman/local", "usr/lib/sysimage/lib/pacman/local", "usr/lib/sysimage/pacman/local"];
const LARGEST_DESC: u64 = 1 << 20;

/// Reads apk's database: a paragraph for each package, fields of one letter (apk-db(5)).
pub(super) fn read_apk(files: Files<'_>, inventory: &mut Inventory) -> Result<()> {
    for path in APK {
        let Some(bytes) = files.bytes(path, LARGEST)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for paragraph in text.split("\n\n") {
            let fields: BTreeMap<&str, &str> = paragraph
                .lines()
                .filter_map(|line| line.split_once(':'))
                // Files and directories come last, and have letters of their own.
                .take_while(|(name, _)| *name != "F")
                .collect();
            let field = |name: &str| fields.get(name).copied().unwrap_or_default();
            if field("P").is_empty() {
                continue;
            }
            inventory.add(Package {
                manager: Manager::Apk,
                name: clean(field("P")),
                epoch: None,
                version: clean(field("V")),
                architecture: clean(field("A")),
                licence: some(field("L")),
                source: some(field("o")),
                supplier: some(field("m")),
                url: some(field("U")),
                summary: some(field("T")),
            })?;
        }
        inventory.databases.push(path.to_owned());
        return Ok(());
    }
    Ok(())
}

/// Reads pacman's database: `%FIELD%`, then its values, a line each, then an empty line.
pub(super) fn read_pacman(files: Files<'_>, inventory: &mut Inventory) -> Result<()> {
    for directory in PACMAN {
        let before = inventory.packages.len();
        for name in files.names(directory) {
            let path = format!("{directory}/{name}/desc");
            let Some(bytes) = files.bytes(&path, LARGEST_DESC)? else { continue };
            let text = String::from_utf8_lossy(&bytes);
            let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            let mut current = "";
            for line in text.lines().map(str::trim) {
                match line.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')) {
                    Some(name) => current = name,
                    None if line.is_empty() => current = "",
                    None => fields.entry(current).or_default().push(line),
                }
            }
            let field = |name: &str| {
                fields.get(name).and_then(|list| list.first()).copied().unwrap_or_default()
            };
            if field("NAME").is_empty() {
                continue;
            }
            let licences = fields.get("LICENSE").map(|list| list.join(" AND "));
            inventory.add(Package {
                manager: Manager::Alpm,
                name: clean(field("NAME")),
                epoch: None,
                version: clean(field("VERSION")),
                architecture: clean(field("ARCH")),
                licence: licences.as_deref().and_then(some),
                source: some(field("BASE")),
                supplier: some(field("PACKAGER")),
                url: some(field("URL")),
                summary: some(field("DESC")),
            })?;
        }
        if inventory.packages.len() > before {
            inventory.databases.push(directory.to_owned());
            return Ok(());
        }
    }
    Ok(())
}
