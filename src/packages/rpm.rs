//! rpm's databases: where they are, and which kind each is.

use anyhow::{Context, Result, bail};

use super::pages::Pages;
use super::sqlite::{self, Value};
use super::{Inventory, Stored, first, header, ndb};
use crate::files::Files;

/// Where the databases are: Fedora and SUSE, images of rpm-ostree, and the old place, which is often a link to the first.
const DIRECTORIES: [&str; 4] =
    ["usr/lib/sysimage/rpm", "usr/share/rpm", "usr/lib/sysimage/rpm-ostree-base-db", "var/lib/rpm"];

pub(super) fn read(files: Files<'_>, inventory: &mut Inventory) -> Result<()> {
    for directory in DIRECTORIES {
        let at = |name: &str| format!("{directory}/{name}");
        if let Some((path, content)) = first(files, &[&at("rpmdb.sqlite")]) {
            let open = |content| Stored { contents: files.contents, content };
            let log = first(files, &[&at("rpmdb.sqlite-wal")]);
            let log = log.map(|(_, content)| open(content));
            let reading = || format!("reading /{path}");
            let pages = Pages::open(open(content), log).with_context(reading)?;
            let found = sqlite::rows(&pages, "Packages", |columns| {
                // hnum, blob
                let Some(Value::Bytes(blob)) = columns.get(1) else {
                    bail!("a row of the table Packages has no header");
                };
                inventory.add(header::package(blob)?)
            });
            if !found.with_context(reading)? {
                bail!("/{path} has no table Packages");
            }
            inventory.databases.push(path);
            return Ok(());
        }
        if let Some((path, content)) = first(files, &[&at("Packages.db")]) {
            let stored = Stored { contents: files.contents, content };
            ndb::blobs(&stored, |blob| inventory.add(header::package(blob)?))
                .with_context(|| format!("reading /{path}"))?;
            inventory.databases.push(path);
            return Ok(());
        }
        if let Some((path, _)) = first(files, &[&at("Packages")]) {
            bail!(
                "/{path} is of Berkeley DB, which rpm has given up; convert it with rpmdb --rebuilddb"
            );
        }
    }
    Ok(())
}
