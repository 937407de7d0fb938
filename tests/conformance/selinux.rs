//! Labels against `matchpathcon`, this system's and a newer one where `tests/support/forky` put it, for a policy of our own and
//! for Debian's, where `tests/support/policy` put it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::content::ContentStore;
use bootpress::selinux::Policy;
use bootpress::tree::{Kind, Metadata, Tree};
use support::tool::{fetched, tool};

/// `matchpathcon -m` for each type of `st_mode`.
const TYPES: [(&str, u32); 7] = [
    ("file", 0o100_000),
    ("dir", 0o040_000),
    ("lnk_file", 0o120_000),
    ("chr_file", 0o020_000),
    ("blk_file", 0o060_000),
    ("pipe", 0o010_000),
    ("sock_file", 0o140_000),
];

/// Everything that a line can say, in an order that tells precedence from luck.
const OWN: [(&str, &str); 5] = [
    (
        "",
        "/.*  any\n/usr/lib(64)?/[^/]*\\.so(\\.[^/]*)*  -- shlib\n/usr/lib/exact\\.so exact\n/usr(/.*)? usr\n\
         /usr/lib/.*\\.so.* -l link\n/dev/[0-9a-f]+ -c char\n/dev/[^0-9].* -b block\n/dev/.{2,3} fifo\n/none/.* <<none>>\n\
         /none/but some\n/usr/? -d quirk\n/a|/b either\n/x/a|/x/b|/x/c three\n/br[[]ck et\n/cl[]a-]ss class\n/lt\\<x lt\n\
         /w\\w\\d\\s.* perl\n/opt/a+?b*c{2}d{1,}e{x f\n/run/.*\\.pid$ pid\n/(home|root)(/[^/]+)?/\\.ssh(/.*)? ssh\n\
         /home/exact/path exact_home\n/posix/[[:upper:][:digit:]_]+ posix\n",
    ),
    (".homedirs", "/home/[^/]+ -d home\n/home/[^/]+/.+ user\n/root(/.*)? root\n"),
    (".local", "/home/local.* local\n/usr/lib/special/.* special\n"),
    (".subs", "/srv /home\n/srv/www /var/www\n/nested /sub\n/whole /\n"),
    (".subs_dist", "# a comment\n/sub /usr\n/lib /usr/lib\n/lib64 /usr/lib\n"),
];

/// Paths around what [`OWN`] names.
const PATHS: [&str; 64] = [
    "/",
    "/usr",
    "/usr/",
    "/usr/lib",
    "/usr/lib/libc.so",
    "/usr/lib64/libc.so.6",
    "/usr/lib/exact.so",
    "/usr/lib/exactXso",
    "/usr/lib/a/b.so",
    "/usr/lib/special/x",
    "/usr/lib/special",
    "/dev/ff",
    "/dev/fg",
    "/dev/abc",
    "/dev/0",
    "/dev/zz/top",
    "/dev",
    "/none",
    "/none/x",
    "/none/but",
    "/none/but/x",
    "/a",
    "/ab",
    "/b",
    "/cb",
    "/x/a",
    "/x/abc",
    "/x/b",
    "/x/c",
    "/x/bc",
    "/y/x/c",
    "/x/y/x/c",
    "/br[ck",
    "/brick",
    "/cl]ss",
    "/cl-ss",
    "/clbss",
    "/lt<x",
    "/ltx",
    "/wz1 x",
    "/w-1 x",
    "/wz1x",
    "/opt/aabbccde{x",
    "/opt/abccddde{x",
    "/opt/acde{x",
    "/run/x.pid",
    "/run/a/x.pid",
    "/run/x.pidx",
    "/home/u/.ssh/id",
    "/root/.ssh",
    "/home/.ssh",
    "/home/u",
    "/home/u/x",
    "/home/exact/path",
    "/home/local",
    "/home/local/x",
    "/srv/u",
    "/srv/www/x",
    "/nested/lib/libc.so",
    "/lib/libc.so",
    "/lib64/libc.so.1",
    "/whole/usr/lib/exact.so",
    "/posix/A_1",
    "/posix/a",
];

fn matchpathcons() -> Vec<Command> {
    let forky = fetched("forky/bin/matchpathcon");
    tool("matchpathcon").into_iter().chain(forky.is_file().then(|| Command::new(forky))).collect()
}

fn theirs(
    matchpathcon: &Command,
    file_contexts: &Path,
    kind: &str,
    paths: &[String],
) -> Vec<String> {
    let mut labels = Vec::new();
    for paths in paths.chunks(2000) {
        let mut command = Command::new(matchpathcon.get_program());
        let output = command
            .args(["-n", "-m", kind, "-f"])
            .arg(file_contexts)
            .arg("--")
            .args(paths)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        labels.extend(text.lines().map(str::to_owned));
    }
    assert_eq!(labels.len(), paths.len(), "{matchpathcon:?} has not answered for each path");
    labels
}

/// A tree with the policy in `directory`.
fn policy(directory: &Path) -> Policy {
    let contents = ContentStore::create_in(directory).unwrap();
    let mut tree = Tree::new(Metadata::root(0o755));
    let mut add = |path: &str, bytes: &[u8]| {
        let (above, name) = path.rsplit_once('/').unwrap();
        let above = tree.make_directories(above, &Metadata::root(0o755));
        let content = contents.insert_bytes(bytes).unwrap();
        tree.create(above, name.as_bytes(), Metadata::root(0o644), Kind::File(content));
    };
    add("etc/selinux/config", b"SELINUX=enforcing\nSELINUXTYPE=test\n");
    for (end, _) in OWN {
        if let Ok(bytes) = fs::read(directory.join(format!("file_contexts{end}"))) {
            add(&format!("etc/selinux/test/contexts/files/file_contexts{end}"), &bytes);
        }
    }
    Policy::load(&tree, &contents).unwrap().unwrap()
}

fn compare(directory: &Path, paths: &[String], types: &[(&str, u32)]) {
    let policy = policy(directory);
    let file_contexts = directory.join("file_contexts");
    for matchpathcon in matchpathcons() {
        let mut labels = BTreeSet::new();
        for &(kind, bits) in types {
            for (path, expected) in
                paths.iter().zip(theirs(&matchpathcon, &file_contexts, kind, paths))
            {
                let ours = policy.label(path, bits | 0o644).unwrap();
                let ours =
                    ours.map_or("<<none>>".to_owned(), |l| String::from_utf8(l.to_vec()).unwrap());
                assert_eq!(ours, expected, "{path} as {kind}, {matchpathcon:?}");
                labels.insert(expected);
            }
        }
        eprintln!(
            "{} paths, {} types, {} labels, {matchpathcon:?}",
            paths.len(),
            types.len(),
            labels.len()
        );
    }
}

#[test]
fn every_kind_of_line_gives_the_label_of_libselinux() {
    let directory = tempfile::tempdir().unwrap();
    for (end, text) in OWN {
        fs::write(directory.path().join(format!("file_contexts{end}")), text).unwrap();
    }
    // matchpathcon strips final slashes itself; a path of a tree has none.
    let paths: Vec<String> =
        PATHS.iter().filter(|p| **p == "/" || !p.ends_with('/')).map(|p| (*p).to_owned()).collect();
    compare(directory.path(), &paths, &TYPES);
}

#[test]
fn debians_policy_gives_the_labels_of_libselinux() {
    let directory = fetched("policy");
    if !directory.join("file_contexts").is_file() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "tests/support/policy has not been run"
        );
        eprintln!("skipped: tests/support/policy has not been run");
        return;
    }
    // A system's policy is sorted when it is installed, less specific lines first. It has to be: for lines that overlap,
    // libselinux before 3.8 takes the last, later ones the most specific.
    let text = fs::read_to_string(directory.join("file_contexts")).unwrap();
    let mut lines: Vec<&str> = text.lines().filter(|line| line.starts_with('/')).collect();
    lines.sort_by_key(|line| specificity(line));
    let sorted = tempfile::tempdir().unwrap();
    fs::write(sorted.path().join("file_contexts"), lines.join("\n")).unwrap();
    fs::copy(
        directory.join("file_contexts.subs_dist"),
        sorted.path().join("file_contexts.subs_dist"),
    )
    .unwrap();

    let mut paths = BTreeSet::new();
    // Each line of the policy, read as a path in two ways, and with something behind it.
    for line in lines {
        let regex = line.split_whitespace().next().unwrap();
        let plain: String = regex.chars().filter(|c| !"\\()?^$|[]".contains(*c)).collect();
        let filled = regex
            .replace("(/.*)?", "/x/y")
            .replace("\\.", ".")
            .replace("[^/]*", "z")
            .replace(".*", "w");
        paths.extend([plain.replace(".*", "").replace('*', ""), format!("{plain}/below"), filled]);
    }
    paths.extend(system(&[
        "/etc",
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib/systemd",
        "/var/lib",
        "/boot",
        "/usr/share/doc",
    ]));
    let paths: Vec<String> =
        paths.into_iter().filter(|path| !path.ends_with('/') && !path.contains("//")).collect();
    // All 24,000 take minutes, which libselinux needs; a prime step keeps a bit of everything.
    let paths: Vec<String> = paths.into_iter().step_by(13).collect();
    compare(sorted.path(), &paths, &TYPES[..2]);
}

/// semodule's order: by what is literal at the beginning, then by length, then with a file type.
fn specificity(line: &str) -> (bool, usize, usize, bool) {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (mut literal, mut exact) = (0, true);
    let mut characters = fields[0].chars();
    while let Some(character) = characters.next() {
        if ".^$?*+|[({".contains(character) {
            exact = false;
            break;
        }
        if character == '\\' {
            characters.next();
        }
        literal += 1;
    }
    (exact, literal, fields[0].len(), fields.len() > 2)
}

/// Real paths, as far as they are text on one line.
fn system(roots: &[&str]) -> Vec<String> {
    let mut stack: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    let mut paths = Vec::new();
    while let Some(path) = stack.pop() {
        if !path.is_symlink() && path.is_dir() {
            stack.extend(
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()),
            );
        }
        paths.extend(
            path.to_str().filter(|path| path.is_ascii() && !path.contains('\n')).map(str::to_owned),
        );
    }
    paths
}
