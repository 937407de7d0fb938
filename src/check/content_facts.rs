//! Facts about files, from layers and from the tree that they unite to (in which `/etc` is `usr/etc`).

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::facts::{Backend, ContentFacts, Initramfs, SetId};
use crate::architecture::Architecture;
use crate::bootc;
use crate::bootloader;
use crate::files::Files;
use crate::iso;
use crate::layer::{EntryKind, Layer};
use crate::tree::{Kind, Tree};

/// What an initramfs needs, by backend.
const OSTREE_PROGRAM: &str = "usr/lib/ostree/ostree-prepare-root";
const BOOTC_PROGRAM: &str = "usr/lib/bootc/initramfs-setup";

/// Unified kernel images are looked for here (bootc, composefs backend).
const UNIFIED: &str = "boot/EFI/Linux/";

/// Seeds and secrets that systemd and older systems save; one on two machines makes guessable keys.
const SEEDS: [&str; 4] = [
    "var/lib/systemd/random-seed",
    "var/lib/random-seed",
    "var/lib/systemd/credential.secret",
    "boot/loader/random-seed",
];

/// Files of accounts and settings; larger ones are none.
const LARGEST: u64 = 4 << 20;

/// Paths of one kind that are kept; a rule shows fewer.
const MOST: usize = 1000;

/// What only the layers know: what uniting drops or refuses.
pub(super) fn of_layers(layers: &[Layer], facts: &mut ContentFacts) {
    let (mut etc, mut usr_etc) = (false, false);
    let (mut bad, mut dropped) = (BTreeSet::new(), BTreeSet::new());
    for entry in layers.iter().flat_map(|layer| &layer.entries) {
        let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let Ok(text) = std::str::from_utf8(path) else {
            bad.insert(path.escape_ascii().to_string());
            continue;
        };
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        let whiteout = text.rsplit('/').next().is_some_and(|name| name.starts_with(".wh."));
        if is_directory || whiteout {
            continue;
        }
        etc |= text.starts_with("etc/");
        usr_etc |= text.starts_with("usr/etc/");
        if text.starts_with("run/") || text.starts_with("tmp/") {
            dropped.insert(text.to_owned());
        }
    }
    facts.bad_names = bad.into_iter().take(MOST).collect();
    facts.run_tmp = dropped.into_iter().take(MOST).collect();
    facts.usr_etc = etc && usr_etc;
}

/// What the united tree says.
pub(super) fn of_tree(
    files: &Files<'_>,
    architecture: Architecture,
    facts: &mut ContentFacts,
) -> Result<()> {
    let diagnosis = bootc::diagnose(files.root, files.contents, architecture);
    facts.backend = if diagnosis.composefs_backend { Backend::Composefs } else { Backend::Ostree };
    facts.initramfs = diagnosis.initramfs.as_ref().map(|initramfs| {
        let has = |path: &str| iso::initramfs_has(initramfs, files.contents, path);
        match facts.backend {
            Backend::Ostree => Initramfs { ostree: has(OSTREE_PROGRAM), bootc: None },
            Backend::Composefs => Initramfs { ostree: None, bootc: has(BOOTC_PROGRAM) },
        }
    });
    facts.kernels = diagnosis.kernels;
    facts.kargs = diagnosis.kargs;
    facts.install = diagnosis.install;
    facts.root_config = diagnosis.root_config;
    facts.os_release = diagnosis.os_release;
    facts.boot_payload = bootloader::check_payload(files.root, files.contents, architecture)
        .err()
        .map(|error| format!("{error:#}"));
    facts.missing_base = missing_base(files.root);
    facts.machine_id = text(files, "usr/etc/machine-id")?;
    facts.host_keys = below(files, "usr/etc/ssh")
        .into_iter()
        .filter(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            name.starts_with("ssh_host_") && name.ends_with("_key")
        })
        .map(|path| path.replacen("usr/etc", "etc", 1))
        .take(MOST)
        .collect();
    facts.random_seeds = SEEDS
        .iter()
        .filter(|path| files.root.find(path).is_some())
        .map(|path| (*path).to_owned())
        .collect();
    let is_unified = |path: &String| path.starts_with(UNIFIED) && path.ends_with(".efi");
    let (unified, boot): (Vec<_>, Vec<_>) = below(files, "boot").into_iter().partition(is_unified);
    facts.unified = !unified.is_empty();
    facts.boot = boot.into_iter().take(MOST).collect();
    let made = tmpfiles(files)?;
    facts.var =
        below(files, "var").into_iter().filter(|path| !made.makes(path)).take(MOST).collect();
    facts.passwords = passwords(files)?;
    facts.set_id = set_id(files.root);
    Ok(())
}

fn missing_base(root: &Tree) -> Vec<String> {
    let mut missing = Vec::new();
    if !root.find("sysroot").is_some_and(|id| root.inode(id).is_directory()) {
        missing.push("the directory /sysroot is missing".to_owned());
    }
    let link = root.find("ostree").map(|id| &root.inode(id).kind);
    match link {
        Some(Kind::Symlink(target)) if target.trim_ascii() == b"sysroot/ostree" => {}
        Some(Kind::Symlink(target)) => missing
            .push(format!("/ostree leads to {}, not to sysroot/ostree", target.escape_ascii())),
        Some(_) => missing.push("/ostree is not a link to sysroot/ostree".to_owned()),
        None => missing.push("the link /ostree → sysroot/ostree is missing".to_owned()),
    }
    missing
}

fn set_id(root: &Tree) -> Vec<SetId> {
    let mut found = Vec::new();
    for (path, id) in root.walk() {
        let inode = root.inode(id);
        let set = inode.metadata.mode & 0o6000 != 0;
        if set && matches!(inode.kind, Kind::File(_)) && found.len() < MOST {
            let path = String::from_utf8_lossy(&path).into_owned();
            found.push(SetId { path, mode: inode.metadata.mode, uid: inode.metadata.uid });
        }
    }
    found
}

/// The text of a small file; `None`: there is none.
fn text(files: &Files<'_>, path: &str) -> Result<Option<String>> {
    let Some(content) = files.root.file(path).filter(|content| content.size <= LARGEST) else {
        return Ok(None);
    };
    let bytes = files.contents.bytes(content).with_context(|| format!("reading {path}"))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Everything but directories below a directory, in the order of paths.
fn below(files: &Files<'_>, directory: &str) -> Vec<String> {
    let id = files.root.find(directory).filter(|id| files.root.inode(*id).is_directory());
    let walk = id.map(|id| files.root.walk_from(id)).into_iter().flatten();
    walk.filter(|(_, id)| !files.root.inode(*id).is_directory())
        .map(|(path, _)| format!("{directory}/{}", String::from_utf8_lossy(&path)))
        .collect()
}

/// What tmpfiles.d makes.
fn tmpfiles(files: &Files<'_>) -> Result<Tmpfiles> {
    let mut made = Tmpfiles::default();
    for directory in ["usr/lib/tmpfiles.d", "usr/etc/tmpfiles.d"] {
        for path in below(files, directory).iter().filter(|path| path.ends_with(".conf")) {
            made.read(&text(files, path)?.unwrap_or_default());
        }
    }
    Ok(made)
}

/// Accounts whose field in shadow or passwd lets somebody in.
fn passwords(files: &Files<'_>) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for file in ["usr/etc/shadow", "usr/etc/passwd", "usr/lib/passwd"] {
        for line in text(files, file)?.unwrap_or_default().lines() {
            let mut fields = line.split(':');
            let (Some(account), Some(field)) = (fields.next(), fields.next()) else { continue };
            let what = match field {
                "" => "an empty password, which lets anybody in",
                "x" => continue,
                // Locked, or no hash at all (shadow(5)).
                locked if locked.starts_with(['!', '*']) => continue,
                _ => "a password hash, which can be cracked",
            };
            if found.len() < MOST {
                found.push((account.to_owned(), what.to_owned()));
            }
        }
    }
    Ok(found)
}

/// Paths that tmpfiles.d(5) makes.
#[derive(Default)]
struct Tmpfiles {
    paths: BTreeSet<String>,
    /// Paths that are copied with everything below them.
    trees: Vec<String>,
}

impl Tmpfiles {
    fn read(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let mut fields = line.split_whitespace();
            let (Some(kind), Some(path)) = (fields.next(), fields.next()) else { continue };
            let path = path.trim_matches(['"', '/']).to_owned();
            if kind.starts_with('C') {
                self.trees.push(path.clone());
            }
            self.paths.insert(path);
        }
    }

    fn makes(&self, path: &str) -> bool {
        let below = |tree: &String| {
            path.strip_prefix(tree.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        self.paths.contains(path) || self.trees.iter().any(below)
    }
}
