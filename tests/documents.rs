//! The documents hold together: links inside the repository lead somewhere, every page is in the table of contents, and the README
//! stays short.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Lines that the README may have.
const README_LINES: usize = 120;

/// Where documents are, besides the repository's own directory.
const DIRECTORIES: [&str; 2] = ["docs/src", "examples"];

#[test]
fn link_inside_the_repository_leads_somewhere() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(root().join(&document)).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            if let Some(reason) = broken(&document, &link) {
                wrong.push(format!("{}: {link}: {reason}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 60, "only {seen} links were found");
}

#[test]
fn page_of_the_book_is_in_its_table_of_contents() {
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let named: Vec<PathBuf> =
        links(&summary).iter().map(|link| Path::new("docs/src").join(link)).collect();
    let once: BTreeSet<&PathBuf> = named.iter().collect();
    assert_eq!(once.len(), named.len(), "a page is there twice");
    for document in documents().iter().filter(|document| document.starts_with("docs/src")) {
        let known = document.ends_with("SUMMARY.md") || once.contains(document);
        assert!(known, "{} is not in docs/src/SUMMARY.md", document.display());
    }
}

#[test]
fn readme_is_short_and_names_the_two_commands() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines, and may have {README_LINES}");
    for command in ["tests/demo", "tests/run"] {
        assert!(readme.lines().any(|line| line.starts_with(command)), "{command} is missing");
    }
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("/tests/run"), "{ci}");
}

#[test]
fn links_and_headings_are_found() {
    let text = "# A `b` & c\n[x](y.md#z) ![p](q.svg)\n`[no](no.md)`\n```sh\n# no\n[no](no.md)\n```\n## A b, c\n";
    assert_eq!(links(text), ["y.md#z", "q.svg"]);
    assert_eq!(headings(text), ["a-b--c", "a-b-c"]);
    assert!(broken(Path::new("README.md"), "nowhere.md").is_some());
    assert!(broken(Path::new("README.md"), "CONTRIBUTING.md#nowhere").is_some());
    assert!(broken(Path::new("README.md"), "../outside").is_some());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Paths of all documents, relative to the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
    let mut add = |directory: &Path, below: bool, directories: &mut Vec<PathBuf>| {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = directory.join(name);
            if root().join(&path).is_dir() {
                directories.extend(below.then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    };
    add(Path::new(""), false, &mut directories);
    while let Some(directory) = directories.pop() {
        add(&directory, true, &mut directories);
    }
    found.sort();
    found
}

/// Why a link of a document leads nowhere, if it does.
fn broken(document: &Path, link: &str) -> Option<String> {
    let (file, heading) = match link.split_once('#') {
        Some((file, heading)) => (file, Some(heading)),
        None => (link, None),
    };
    let target = match file {
        "" => document.to_owned(),
        file => match normal(&document.with_file_name(file)) {
            Some(target) => target,
            None => return Some("it leads out of the repository".to_owned()),
        },
    };
    if !root().join(&target).exists() {
        return Some(format!("there is no {}", target.display()));
    }
    let heading = heading?;
    let text = fs::read_to_string(root().join(&target)).unwrap();
    let known = headings(&text);
    (!known.iter().any(|known| known == heading))
        .then(|| format!("{} has the headings {}", target.display(), known.join(", ")))
}

/// A path without `..`; `None`: it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            part => clean.push(part),
        }
    }
    Some(clean)
}

/// Targets of the links and pictures of a document, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        // Every other part stands between backticks.
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for (at, _) in outside.match_indices("](") {
            let rest = &outside[at + 2..];
            found.extend(rest.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    found
}

/// Anchors of the headings of a document, as GitHub and mdBook make them.
fn headings(text: &str) -> Vec<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Lines outside of code blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push(line);
        }
    }
    lines
}
