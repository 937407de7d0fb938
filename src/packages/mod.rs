//! The packages that an image says are installed in it, from the databases of its package manager.
//!
//! ```text
//! rpm      rpmdb.sqlite (sqlite) or Packages.db (ndb) ──► headers ─┐
//! dpkg     status: paragraphs; copyright: licences ────────────────┤
//! apk      installed: paragraphs of one-letter fields ─────────────┼──► Packages, sorted
//! pacman   local/NAME-VERSION/desc: one file a package ────────────┘
//! ```
//!
//! Nothing of a database is believed: every size is bounded, every walk ends. What cannot be read is a warning, and the rest counts.

mod dpkg;
mod header;
mod lines;
mod ndb;
mod pages;
mod rpm;
mod sqlite;

use anyhow::Result;
use serde::Serialize;

use crate::content::{Content, ContentStore};
use crate::files::Files;
use crate::tree::{Kind, Tree};

/// Packages of one image, at most; a whole distribution has 70,000.
const MOST_PACKAGES: usize = 500_000;

/// Characters of one field of a package; summaries and licences of real ones stay below 4000.
const LONGEST_FIELD: usize = 16_384;

/// A package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// RPM.
    Rpm,
    /// dpkg.
    Deb,
    /// Alpine's.
    Apk,
    /// pacman.
    Alpm,
}

impl Manager {
    /// The type in package URLs (purl-spec, "Known purl types").
    pub const fn purl_type(self) -> &'static str {
        match self {
            Self::Rpm => "rpm",
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Alpm => "alpm",
        }
    }
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Who installed it.
    pub manager: Manager,
    /// Its name.
    pub name: String,
    /// The epoch of an RPM; others have it in the version.
    pub epoch: Option<u32>,
    /// Version, with an RPM's release: `2.12-40.fc43`.
    pub version: String,
    /// `x86_64`, `noarch`, `amd64`, `all`; empty: it has none.
    pub architecture: String,
    /// The licence, as the database or Debian's copyright file spells it.
    pub licence: Option<String>,
    /// The source that it was built from: `grub2-2.12-40.fc43.src.rpm`, or a source package's name and version.
    pub source: Option<String>,
    /// Who made the package.
    pub supplier: Option<String>,
    /// Its home page.
    pub url: Option<String>,
    /// What it is, in a line.
    pub summary: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Packages, sorted, each once.
    pub packages: Vec<Package>,
    /// The databases that they come from, by path.
    pub databases: Vec<String>,
    /// Databases that could not be read, and why.
    pub warnings: Vec<String>,
}

/// A reader of one kind of database: what it found, or nothing if there is none.
type Reader = fn(Files<'_>, &mut Inventory) -> Result<()>;

/// Reads all databases that an image has. Never fails for what is in them.
pub fn read(root: &Tree, contents: &ContentStore) -> Inventory {
    let files = Files { root, contents };
    let mut inventory = Inventory::default();
    let readers: [(&str, Reader); 4] = [
        ("RPM", rpm::read),
        ("dpkg", dpkg::read),
        ("apk", lines::read_apk),
        ("pacman", lines::read_pacman),
    ];
    for (name, reader) in readers {
        if let Err(error) = reader(files, &mut inventory) {
            inventory.warnings.push(format!("the database of {name} cannot be read: {error:#}"));
        }
    }
    inventory.packages.sort();
    inventory.packages.dedup();
    inventory
}

impl Inventory {
    /// Adds a package, unless there are too many.
    fn add(&mut self, package: Package) -> Result<()> {
        anyhow::ensure!(
            self.packages.len() < MOST_PACKAGES,
            "it has more than {MOST_PACKAGES} packages"
        );
        self.packages.push(package);
        Ok(())
    }
}

/// Text of a database as it may be passed on: cut where it is too long, without control characters.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(LONGEST_FIELD).map(shown).collect()
}

/// Cleaned text; `None`: there is nothing in it.
fn some(text: &str) -> Option<String> {
    Some(clean(text)).filter(|text| !text.is_empty())
}

/// A database in the image, read at any offset.
struct Stored<'a> {
    contents: &'a ContentStore,
    content: &'a Content,
}

impl Stored<'_> {
    fn size(&self) -> u64 {
        self.content.size
    }

    /// Fills `buffer`; false: that lies outside of the file.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.content.size) {
            return Ok(false);
        }
        self.contents.read_exact_at(self.content.id, offset, buffer)?;
        Ok(true)
    }
}

/// The regular file that is first of these paths, links followed.
fn first<'a>(files: Files<'a>, paths: &[&str]) -> Option<(String, &'a Content)> {
    paths.iter().find_map(|path| {
        let id = files.root.resolve(path)?;
        match &files.root.inode(id).kind {
            Kind::File(content) if content.size > 0 => Some(((*path).to_owned(), content)),
            _ => None,
        }
    })
}
