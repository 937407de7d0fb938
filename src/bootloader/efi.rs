//! The ESP: shim, GRUB and their companions as the image brings them.
//!
//! ```text
//! usr/lib/efi/<package>/<evr>/EFI/<vendor>/…      Fedora 44 and later; merged over packages; wins
//! usr/lib/bootupd/updates/EFI/<vendor>/…          before
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::components::Loader;
use super::{NO_BOOTLOADER, UPDATES, names};
use crate::architecture::Architecture;
use crate::content::{Content, ContentStore};
use crate::error::{corrupt, unsupported};
use crate::tree::{Kind, Metadata, Tree};

/// Where packages bring their EFI files, each below its name and version.
const PACKAGES: &str = "usr/lib/efi";

/// Bytes of all EFI files, at most: ESPs have a GiB, where they are large.
const LARGEST: u64 = 1 << 30;

/// Files and directories, at most. Fedora has 30; with device trees for each board they are 2,000.
const MOST_ENTRIES: usize = 8192;

/// The packages below [`PACKAGES`] that bring EFI files, and their directories, in the order of their names.
pub(super) fn packages(root: &Tree) -> Vec<(String, String)> {
    let mut packages = Vec::new();
    for package in names(root, PACKAGES) {
        for version in names(root, &format!("{PACKAGES}/{package}")) {
            let path = format!("{PACKAGES}/{package}/{version}/EFI");
            if root.resolve(&path).is_some_and(|id| root.inode(id).is_directory()) {
                packages.push((package.clone(), path));
            }
        }
    }
    packages
}

/// The files that go below `EFI/` on the ESP.
pub(super) struct Payload {
    /// Where they are from.
    place: &'static str,
    /// The directory that bootupd reads: what it calls the source of a file begins behind it.
    read_from: String,
    /// By path below `EFI/`; parents come before what is in them.
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    Directory,
    File { source: String, content: Content },
}

impl Payload {
    /// The payload of an image, without the boot loaders that `loader` excludes.
    pub(super) fn find(root: &Tree, contents: &ContentStore, loader: Loader) -> Result<Self> {
        let packages: Vec<String> = packages(root)
            .into_iter()
            .filter(|(package, _)| !loader.excludes(package))
            .map(|(_, directory)| directory)
            .collect();
        let (place, read_from, directories) = if packages.is_empty() {
            let directory = format!("{UPDATES}/EFI");
            (UPDATES, directory.clone(), vec![directory])
        } else {
            (PACKAGES, PACKAGES.to_owned(), packages)
        };
        let mut payload = Self { place, read_from, entries: BTreeMap::new() };
        for directory in directories {
            payload.take(root, contents, &directory)?;
        }
        if payload.files().next().is_none() {
            let what =
                format!("the image has no EFI files, neither in {PACKAGES} nor in {UPDATES}/EFI");
            return Err(unsupported(what, Some(NO_BOOTLOADER)));
        }
        payload.check_case()?;
        payload.check_size()?;
        Ok(payload)
    }

    /// Adds all of a directory of the image.
    fn take(&mut self, root: &Tree, contents: &ContentStore, directory: &str) -> Result<()> {
        let Some(id) = root.resolve(directory) else { return Ok(()) };
        for (path, id) in root.walk_from(id).skip(1) {
            let path = String::from_utf8(path)
                .map_err(|e| corrupt(directory, format!("{e} in a file name for the ESP")))?;
            let source = format!("{directory}/{path}");
            let entry = match &root.inode(id).kind {
                Kind::Directory(_) => Entry::Directory,
                Kind::File(content) => Entry::File { source, content: content.clone() },
                _ => {
                    let what = format!(
                        "{source} is neither a file nor a directory: a FAT file system cannot hold it"
                    );
                    return Err(unsupported(what, None));
                }
            };
            match (self.entries.get(&path), &entry) {
                (None, _) | (Some(Entry::Directory), Entry::Directory) => {}
                (
                    Some(Entry::File { content: old, source: first }),
                    Entry::File { content: new, source },
                ) => {
                    if !same(contents, old, new)? {
                        return Err(conflict(first, source, &path));
                    }
                    continue;
                }
                _ => {
                    return Err(corrupt(
                        directory,
                        format!("EFI/{path} is a file and a directory"),
                    ));
                }
            }
            self.entries.insert(path, entry);
        }
        Ok(())
    }

    /// FAT does not tell `a` from `A`.
    fn check_case(&self) -> Result<()> {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for path in self.entries.keys() {
            if let Some(other) = seen.insert(path.to_uppercase(), path) {
                return Err(corrupt(
                    self.place,
                    format!("EFI/{other} and EFI/{path} have the same name on a FAT file system"),
                ));
            }
        }
        Ok(())
    }

    /// Names are cheap: hard links and holes make a payload that takes hours to hash out of nothing.
    fn check_size(&self) -> Result<()> {
        let size =
            self.files().fold(0_u64, |sum, (_, _, content)| sum.saturating_add(content.size));
        if size > LARGEST || self.entries.len() > MOST_ENTRIES {
            let what = format!(
                "the image's EFI files ({}) are {} of {size} bytes; the limits are {MOST_ENTRIES} and {} GiB",
                self.place,
                self.entries.len(),
                LARGEST >> 30
            );
            return Err(unsupported(what, Some(NO_BOOTLOADER)));
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = (&str, &str, &Content)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File { source, content } => Some((path.as_str(), source.as_str(), content)),
            Entry::Directory => None,
        })
    }

    /// The directory whose GRUB is started: the one with the shim.
    pub(super) fn vendor(&self, architecture: Architecture) -> Result<String> {
        let shim = format!("shim{}.efi", architecture.efi_suffix());
        let mut vendors: Vec<&str> = self
            .files()
            .filter_map(|(path, _, _)| path.rsplit_once('/'))
            .filter(|(_, name)| name.eq_ignore_ascii_case(&shim))
            .map(|(directory, _)| directory)
            .collect();
        match (vendors.pop(), vendors.pop()) {
            (Some(vendor), None) => Ok(vendor.to_owned()),
            (None, _) => {
                let what = format!(
                    "the image's EFI files ({}) have no {shim}: there is no telling the vendor's directory",
                    self.place
                );
                Err(unsupported(what, Some(NO_BOOTLOADER)))
            }
            (Some(one), Some(two)) => {
                let what = format!(
                    "the image's EFI files have {shim} twice: in EFI/{two} and in EFI/{one}"
                );
                Err(unsupported(what, Some(NO_BOOTLOADER)))
            }
        }
    }

    /// The ESP's tree. FAT has neither owners nor modes.
    pub(super) fn esp(&self) -> Tree {
        let directory = Metadata::root(0o755);
        let mut esp = Tree::new(directory.clone());
        let efi = esp.make_directories("EFI", &directory);
        for (path, entry) in &self.entries {
            let (above, name) = match path.rsplit_once('/') {
                Some((above, name)) => {
                    (esp.make_directories(&format!("EFI/{above}"), &directory), name)
                }
                None => (efi, path.as_str()),
            };
            match entry {
                Entry::Directory => {
                    esp.make_directories(&format!("EFI/{path}"), &directory);
                }
                Entry::File { content, .. } => {
                    let metadata = Metadata::root(0o644);
                    esp.create(above, name.as_bytes(), metadata, Kind::File(content.clone()));
                }
            }
        }
        esp
    }

    /// bootupd's record of the files: `{"children": {path below EFI: {source, size, sha512}}}`.
    pub(super) fn file_tree(&self, contents: &ContentStore) -> Result<Value> {
        let mut children = Map::new();
        for (path, source, content) in self.files() {
            let sha512 = sha512(contents, content).with_context(|| format!("reading {source}"))?;
            let source = source.strip_prefix(&self.read_from).unwrap_or(source);
            let source = source.trim_start_matches('/');
            let file = json!({"source": source, "size": content.size, "sha512": format!("sha512:{sha512}")});
            children.insert(path.to_owned(), file);
        }
        Ok(json!({ "children": children }))
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files from {}", self.files().count(), self.place)
    }
}

/// What is wrong with an image that has two files for one path on the ESP.
fn conflict(first: &str, second: &str, path: &str) -> anyhow::Error {
    let version = |source: &str| {
        let (package, rest) = source.strip_prefix(PACKAGES)?.strip_prefix('/')?.split_once('/')?;
        Some((package.to_owned(), rest.split_once('/')?.0.to_owned()))
    };
    match (version(first), version(second)) {
        (Some((package, one)), Some((other, two))) if package == other => {
            let what = format!(
                "the image has two versions of {package} below {PACKAGES}, {one} and {two}, and EFI/{path} differs between them"
            );
            let hint = format!(
                "remove one of them in the Containerfile (RUN rm -r /{PACKAGES}/{package}/{one}), or {NO_BOOTLOADER}"
            );
            unsupported(what, Some(&hint))
        }
        _ => corrupt(second, format!("it differs from {first}, and both go to EFI/{path}")),
    }
}

fn same(contents: &ContentStore, one: &Content, two: &Content) -> Result<bool> {
    Ok(one == two || one.size == two.size && sha512(contents, one)? == sha512(contents, two)?)
}

fn sha512(contents: &ContentStore, content: &Content) -> Result<String> {
    let mut hash = Sha512::new();
    let mut reader = contents.reader(content);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
