//! Who may use whom: the table of the documentation's map, enforced on the source text. Documents are judged by a module.

mod documents;
mod language;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Used by all, uses nothing but itself.
const VOCABULARY: &[&str] = &[
    "architecture",
    "command_line",
    "content",
    "error",
    "files",
    "filesystem_kind",
    "identity",
    "image",
    "installed",
    "layer",
    "limits",
    "name",
    "progress",
    "sha256",
    "signature",
    "sparse",
    "tree",
    "yaml",
];

/// Rooms of the engine and what each may use besides itself and the vocabulary. A room that is not here is an error.
const MAY_USE: &[(&str, &[&str])] = &[
    ("bootc", &[]),
    ("bootloader", &[]),
    ("composefs", &[]),
    ("config", &[]),
    ("filesystem", &[]),
    ("oci", &[]),
    ("ostree", &[]),
    ("packages", &[]),
    ("provenance", &[]),
    ("sbom", &["packages"]),
    ("output", &[]),
    ("selinux", &[]),
    ("storage", &[]),
    ("trust", &[]),
    // Looks at a file that is there: it must not share code with what wrote it.
    ("inspect", &[]),
    // Users choose partitions in files.
    ("disk", &["bootloader", "config", "filesystem"]),
    // A medium carries a disk and starts it, so it joins what the disk joined; it may read and write finished media.
    ("iso", &["bootloader", "disk", "filesystem"]),
    // Everything that is asked for, in the words of those who are asked.
    (
        "request",
        &[
            "bootc",
            "bootloader",
            "config",
            "disk",
            "iso",
            "naming",
            "oci",
            "output",
            "sbom",
            "trust",
        ],
    ),
    // Names of the files that are written.
    ("naming", &["iso", "output"]),
    // The first half of a build: read, and decide nothing.
    (
        "load",
        &[
            "bootc",
            "bootloader",
            "composefs",
            "config",
            "iso",
            "oci",
            "ostree",
            "plan",
            "request",
            "selinux",
            "trust",
        ],
    ),
    // Choices, from values.
    (
        "plan",
        &[
            "bootc",
            "bootloader",
            "composefs",
            "config",
            "disk",
            "iso",
            "ostree",
            "output",
            "request",
        ],
    ),
    // Second images, from where the request says they are.
    ("bound", &["config", "iso", "load", "oci", "request", "storage", "trust"]),
    // The second half: what was loaded becomes disks and media, by the plan.
    (
        "make",
        &[
            "bootc",
            "bootloader",
            "bound",
            "composefs",
            "config",
            "disk",
            "filesystem",
            "iso",
            "load",
            "oci",
            "ostree",
            "plan",
            "request",
            "selinux",
            "storage",
            "trust",
        ],
    ),
    ("written", &["iso", "make", "output", "plan", "request"]),
    // Documents about what was made and written.
    (
        "attest",
        &[
            "bootc",
            "iso",
            "load",
            "make",
            "oci",
            "output",
            "packages",
            "plan",
            "provenance",
            "request",
            "sbom",
            "written",
        ],
    ),
    ("report", &["attest", "disk", "iso", "make", "output", "plan", "trust", "written"]),
    // From facts of a build to the files that are published with it.
    ("release", &["iso", "naming", "output", "report"]),
    // Disks to a registry, and back.
    ("publish", &["oci", "release"]),
    // What a machine pulls when it upgrades: the first half, and the commits.
    ("update", &["load", "ostree", "request"]),
    // As far as a build reads, without making anything.
    ("survey", &["bootloader", "load", "make", "oci", "plan", "request"]),
    // A gate over facts, which it gathers from images as `survey` does.
    ("check", &["bootc", "bootloader", "inspect", "iso", "oci", "ostree", "trust"]),
    ("pipeline", &["attest", "bound", "load", "make", "plan", "report", "request", "written"]),
];

/// Crates that one room alone names.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli"]),
    ("partitioning", &["disk", "inspect", "iso"]),
    ("der", &["inspect"]),
    ("ext4_view", &["inspect"]),
    ("gpt", &[]),
    ("qemu", &["cli"]),
    ("oci_client", &["oci"]),
    ("reqwest", &["oci"]),
    ("http_auth", &["oci"]),
    ("rustls", &["oci"]),
    ("bytes", &["oci"]),
    ("http_body", &["oci"]),
    ("tokio", &["oci"]),
    ("flate2", &["filesystem", "inspect", "iso", "oci", "output"]),
    ("md5", &["inspect", "iso"]),
    ("zstd", &["composefs", "filesystem", "inspect", "iso", "oci", "output"]),
    ("aws_lc_rs", &["oci", "sha256", "trust"]),
    ("p256", &["trust"]),
    ("pgp", &["trust"]),
    ("webpki", &["trust"]),
    ("x509_cert", &["trust"]),
    ("spdx", &["sbom"]),
    ("tar", &["oci"]),
    ("zerocopy", &["filesystem"]),
    ("hadris_fat", &["filesystem"]),
    ("regex_automata", &["check", "selinux"]),
    ("tempfile", &["cli", "content", "filesystem", "inspect", "oci", "output", "publish"]),
    ("saphyr", &["check", "config", "trust"]),
    ("saphyr_parser", &["yaml"]),
];

/// Rooms that decide and compute, and never touch a file.
const NO_FILES: &[&str] = &[
    "bootc",
    "bootloader",
    "composefs",
    "config",
    "disk",
    "filesystem",
    "ostree",
    "packages",
    "sbom",
    "selinux",
    "storage",
    "tree",
    "sparse",
    "identity",
];

#[test]
fn stages_do_not_import_stages() {
    let mut wrong = Vec::new();
    for (room, path, text) in engine() {
        let depth = depth(&path);
        for used in paths_after("crate::", &text).into_iter().chain(paths_above(depth, &text)) {
            let allowed = used == room
                || VOCABULARY.contains(&used.as_str())
                || MAY_USE
                    .iter()
                    .any(|(name, uses)| *name == room && uses.contains(&used.as_str()));
            if !allowed {
                wrong.push(format!("{}: {room} may not use {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    let known: BTreeSet<&str> =
        MAY_USE.iter().map(|(name, _)| *name).chain(VOCABULARY.iter().copied()).collect();
    for (room, path, _) in engine() {
        assert!(known.contains(room.as_str()), "{} is in no room of the table", path.display());
    }
}

#[test]
fn each_library_is_named_in_its_room_only() {
    let mut wrong = Vec::new();
    for (room, path, text) in engine().into_iter().chain(command()) {
        for (library, rooms) in ONLY_IN {
            if names_crate(&text, library) && !rooms.contains(&room.as_str()) {
                wrong.push(format!("{}: {library} is for {rooms:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_computes_touches_no_files() {
    let mut wrong = Vec::new();
    for (room, path, text) in engine() {
        if NO_FILES.contains(&room.as_str()) && reaches_outside(&text) {
            wrong.push(path.display().to_string());
        }
    }
    for path in sources(Path::new("partitioning/src")) {
        if reaches_outside(&code(&fs::read_to_string(&path).unwrap())) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "these name std::fs or std::process: {wrong:?}");
}

#[test]
fn the_engine_starts_no_program() {
    for (_, path, text) in engine() {
        assert!(!text.contains("process::Command"), "{} starts a program", path.display());
    }
}

#[test]
fn members_use_nothing_of_ours() {
    for member in ["partitioning", "qemu"] {
        for path in sources(&Path::new(member).join("src")) {
            let text = code(&fs::read_to_string(&path).unwrap());
            assert!(!names_crate(&text, "bootpress"), "{} names bootpress", path.display());
        }
    }
}

/// Each file of the harness can be read without one that needs it.
#[test]
fn harness_modules_form_no_circle() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(Path::new("qemu/src")).into_iter().filter(|path| !is_test(path)) {
        let first = path.components().nth(2).unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first).to_owned();
        let mut used = paths_after("crate::", &code(&fs::read_to_string(&path).unwrap()));
        used.remove(&module);
        if module != "lib" {
            uses.entry(module).or_default().extend(used);
        }
    }
    assert!(uses.len() > 20, "{uses:?}");
    assert_eq!(circle(uses), BTreeMap::new(), "these need each other, or what lib.rs exports");
}

/// What is left when whatever needs nothing that is left has gone.
fn circle(mut uses: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let free: Vec<String> = uses
            .iter()
            .filter(|(_, used)| used.is_empty())
            .map(|(module, _)| module.clone())
            .collect();
        if free.is_empty() {
            return uses;
        }
        for module in &free {
            uses.remove(module);
            uses.values_mut().for_each(|used| {
                used.remove(module);
            });
        }
    }
}

#[test]
fn circle_is_found_behind_what_leads_to_it() {
    let uses = |pairs: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, used) in pairs {
            uses.entry((*used).to_owned()).or_default();
            uses.entry((*module).to_owned()).or_default().insert((*used).to_owned());
        }
        circle(uses).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("a", "c")]), [""; 0]);
    assert_eq!(uses(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]), ["a", "b", "c"]);
}

#[test]
fn every_file_opens_with_a_sentence() {
    for root in ["src", "partitioning/src", "qemu/src", "tests"] {
        for path in sources(Path::new(root)) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(
                text.starts_with("//! "),
                "{} does not open with a //! sentence",
                path.display()
            );
        }
    }
}

/// Room, path and code of each source file of the engine (everything but the command).
fn engine() -> Vec<(String, PathBuf, String)> {
    rooms()
        .into_iter()
        .filter(|(room, ..)| !["cli", "main", "lib"].contains(&room.as_str()))
        .collect()
}

/// The same for the command.
fn command() -> Vec<(String, PathBuf, String)> {
    rooms().into_iter().filter(|(room, ..)| ["cli", "main"].contains(&room.as_str())).collect()
}

fn rooms() -> Vec<(String, PathBuf, String)> {
    sources(Path::new("src"))
        .into_iter()
        .map(|path| {
            let first = path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
            let room = first.strip_suffix(".rs").unwrap_or(first).to_owned();
            let text = code(&fs::read_to_string(&path).unwrap());
            (room, path, text)
        })
        .filter(|(_, path, _)| !is_test(path))
        .collect()
}

/// Files of unit tests that outgrew the file they test; they may use more than it does.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| ["tests", "tests.rs", "testing.rs"].iter().any(|name| part == *name))
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(root)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no sources below {}", root.display());
    found
}

/// The text without comments, so that prose may name anything, and without unit tests, which may use more.
fn code(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    shipped.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Whether code names files or processes of the host: `std::fs`, `use std::{fs, io}`.
fn reaches_outside(code: &str) -> bool {
    let names = paths_after("std::", code);
    names.contains("fs") || names.contains("process")
}

/// How many modules a file is below the crate: 1 for `src/plan.rs` and `src/plan/mod.rs`, 2 for `src/plan/root.rs`.
fn depth(path: &Path) -> usize {
    let below = path.components().count() - 1;
    if path.ends_with("mod.rs") { below - 1 } else { below }
}

/// The first names after a prefix such as `crate::`, of single paths and of groups over several lines.
fn paths_after(prefix: &str, code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            first_names(&code[at + prefix.len()..], &mut names);
        }
    }
    names
}

/// The rooms that paths of `super::` lead to, from a file so many modules below the crate.
fn paths_above(depth: usize, code: &str) -> BTreeSet<String> {
    paths_after(&"super::".repeat(depth), code)
        .into_iter()
        .filter(|name| name != "super" && name != "self")
        .collect()
}

fn first_names(rest: &str, names: &mut BTreeSet<String>) {
    let Some(group) = rest.strip_prefix('{') else {
        names.extend(identifier(rest));
        return;
    };
    let mut depth = 1;
    let mut start = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return,
            '}' => depth -= 1,
            ',' if depth == 1 => start = true,
            c if c.is_whitespace() => {}
            _ if start => {
                start = false;
                names.extend(identifier(&group[at..]));
            }
            _ => {}
        }
    }
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Whether a crate is named in a path: `use tar::…`, `tar::Header`.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        let inside_path =
            code[..at].ends_with("::") || before.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside_path
            && (after.starts_with("::")
                || (code[..at].ends_with("use ") && after.starts_with([';', ' '])))
    })
}

#[test]
fn the_scanner_sees_groups_and_ignores_prose() {
    let text = "//! crate::oci\nuse crate::{\n    tree::{Tree, Inode},\n    oci,\n};\nfn f() { crate::disk::x() } // crate::selinux";
    let names: Vec<String> = paths_after("crate::", &code(text)).into_iter().collect();
    assert_eq!(names, ["disk", "oci", "tree"]);
    assert!(reaches_outside("use std::{\n    fs::{self, File},\n    io,\n};"));
    assert!(reaches_outside("std::process::Command::new(x)") && !reaches_outside("use std::io;"));
    let above = |depth| paths_above(depth, "use super::{a, super::b};\nuse super::super::oci::X;");
    assert_eq!(above(2).into_iter().collect::<Vec<_>>(), ["oci"]);
    assert_eq!(depth(Path::new("src/plan/root.rs")), 2);
    assert_eq!((depth(Path::new("src/plan/mod.rs")), depth(Path::new("src/plan.rs"))), (1, 1));
    assert!(names_crate("use tar::Header;", "tar") && names_crate("let x = tar::f();", "tar"));
    assert!(!names_crate("use crate::tar::x; let guitar::y", "tar"));
}
