//! Files and directories that a blueprint asks for, and the places where it may.

use std::io;
use std::path::Path;

use super::accounts::{Owner, owner};
use super::table::{Found, Gravity, Problems, Table};

/// Reads a file of the machine that builds, for `uri = "file:…"`.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<Vec<u8>> + 'a;

/// Files below `/etc` that other keys, or the machine itself, write.
const NOT_FILES: [&str; 6] =
    ["/etc/fstab", "/etc/shadow", "/etc/passwd", "/etc/group", "/etc/gshadow", "/etc/machine-id"];

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute.
    pub path: String,
    /// Who owns it.
    pub owner: Ownership,
    /// Its content.
    pub data: Vec<u8>,
}

/// A directory to make, or to change if it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Absolute.
    pub path: String,
    /// Who owns it.
    pub owner: Ownership,
    /// Whether what is missing above it is made, too.
    pub ensure_parents: bool,
}

/// What is not said stays as it is, or is root's, 0644 for files and 0755 for directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Owner.
    pub user: Option<Owner>,
    /// Group.
    pub group: Option<Owner>,
    /// Permission bits.
    pub mode: Option<u16>,
}

pub(super) fn directories(table: &mut Table<'_>, problems: &mut Problems) -> Vec<Directory> {
    let mut directories: Vec<Directory> = Vec::new();
    for mut entry in table.tables("directories", problems) {
        let path = path(&mut entry, problems);
        let owner = ownership(&mut entry, problems);
        let ensure_parents = entry.bool("ensure_parents", problems) == Some(true);
        entry.finish(problems);
        let Some(path) = path else { continue };
        if !path.value.starts_with("/etc/") {
            let text = format!(
                "directories can be made below /etc only, not {path}; what belongs to the system belongs into the image"
            );
            problems.add(path.at, Gravity::Refused, text);
            continue;
        }
        if directories.iter().any(|other| other.path == path.value) {
            problems.wrong(path.at, format!("directory {path} is defined twice"));
        }
        directories.push(Directory { path: path.value, owner, ensure_parents });
    }
    directories
}

pub(super) fn files(
    table: &mut Table<'_>,
    directories: &[Directory],
    read: &ReadFile<'_>,
    problems: &mut Problems,
) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    for mut entry in table.tables("files", problems) {
        let path = path(&mut entry, problems);
        let owner = ownership(&mut entry, problems);
        let data = data(&mut entry, read, problems);
        entry.finish(problems);
        let Some(path) = path else { continue };
        if let Err(reason) = allowed(&path.value) {
            problems.add(path.at, Gravity::Refused, format!("{path} cannot be written: {reason}"));
            continue;
        }
        let twice = files.iter().any(|other| other.path == path.value)
            || directories.iter().any(|other| other.path == path.value);
        if twice {
            problems.wrong(path.at, format!("path {path} is defined twice"));
        }
        let inside = format!("{path}/");
        if files.iter().any(|other| other.path.starts_with(&inside))
            || files.iter().any(|other| path.value.starts_with(&format!("{}/", other.path)))
            || directories.iter().any(|other| other.path.starts_with(&inside))
        {
            problems.wrong(path.at, format!("{path} is a file, and a directory for another"));
        }
        files.push(File { path: path.value, owner, data });
    }
    files
}

/// The content, wherever it is said.
fn data(entry: &mut Table<'_>, read: &ReadFile<'_>, problems: &mut Problems) -> Vec<u8> {
    let (data, uri) = (entry.text("data", problems), entry.text("uri", problems));
    match (data, uri) {
        (Some(_), Some(uri)) => problems.wrong(uri.at, "`data` and `uri` exclude each other"),
        (Some(data), None) => return data.value.into_bytes(),
        (None, Some(uri)) => return fetched(&uri, read, problems),
        (None, None) => {}
    }
    Vec::new()
}

fn fetched(uri: &Found<String>, read: &ReadFile<'_>, problems: &mut Problems) -> Vec<u8> {
    // `file:///etc/motd`, and `file:motd` relative to where the command runs.
    let Some(path) = uri.value.strip_prefix("file:") else {
        let text = format!(
            "{uri}: only `file:` is read, since a build depends on nothing that may change"
        );
        problems.add(uri.at, Gravity::Refused, text);
        return Vec::new();
    };
    let path = path.strip_prefix("//localhost").or_else(|| path.strip_prefix("//")).unwrap_or(path);
    read(Path::new(path)).unwrap_or_else(|error| {
        problems.wrong(uri.at, format!("reading {path}: {error}"));
        Vec::new()
    })
}

fn allowed(path: &str) -> Result<(), &'static str> {
    if NOT_FILES.contains(&path) {
        return Err("users, groups, mounts and the machine itself write it");
    }
    let roots = ["/etc/", "/root/", "/usr/local/bin/", "/usr/local/sbin/"];
    if roots.iter().any(|root| path.starts_with(root)) {
        Ok(())
    } else {
        Err(
            "only /etc, /root, /usr/local/bin and /usr/local/sbin can be written; everything else belongs into the image",
        )
    }
}

fn path(entry: &mut Table<'_>, problems: &mut Problems) -> Option<Found<String>> {
    let path = entry.required("path", problems)?;
    let parts: Vec<&str> = path.value.split('/').skip(1).collect();
    let bad = |part: &&str| part.is_empty() || *part == "." || *part == ".." || part.contains('\0');
    if !path.value.starts_with('/') || parts.iter().any(bad) {
        problems.wrong(
            path.at,
            format!("`{path}` is not an absolute path without `.`, `..` and final `/`"),
        );
        return None;
    }
    Some(path)
}

fn ownership(entry: &mut Table<'_>, problems: &mut Problems) -> Ownership {
    Ownership {
        user: owner(entry, "user", problems),
        group: owner(entry, "group", problems),
        mode: entry.text("mode", problems).and_then(|mode| {
            let digits = mode.value.strip_prefix('0').filter(|rest| rest.len() == 3);
            let digits = digits.unwrap_or(&mode.value);
            match u16::from_str_radix(digits, 8) {
                Ok(bits) if digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                    Some(bits)
                }
                _ => {
                    problems.wrong(mode.at, format!("`{mode}` is not a mode such as \"0644\""));
                    None
                }
            }
        }),
    }
}
