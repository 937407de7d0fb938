//! Which of bootc's two storage backends an image is installed by: the image itself says it.
//!
//! ```text
//! composefs   it boots a unified kernel image: boot/EFI/Linux/*.efi, or usr/lib/modules/VERSION/*.efi without a vmlinuz beside it
//! composefs   it has usr/lib/composefs/setup-root-conf.toml, and neither usr/lib/ostree/ nor etc/ostree/prepare-root.conf
//! ostree      else
//! ```
//!
//! Source: bootc-installation(7), "The storage backend".

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;

use anyhow::Result;

use crate::error::unsupported;
use crate::layer::{EntryKind, Layer};
use crate::tree::components;

/// Where images of the composefs backend say how their root is set up; an empty file counts, too.
pub(super) const SETUP_ROOT: &str = "usr/lib/composefs/setup-root-conf.toml";

const PREPARE_ROOT: [&str; 3] = [
    "usr/lib/ostree/prepare-root.conf",
    "etc/ostree/prepare-root.conf",
    "usr/etc/ostree/prepare-root.conf",
];

/// A storage backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// An ostree repository, deployed by hard links.
    #[default]
    Ostree,
    /// A composefs repository, whose images are mounted.
    Composefs,
}

impl Backend {
    /// The name that flags use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ostree => "ostree",
            Self::Composefs => "composefs",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A storage backend, and why it is that one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendChoice {
    /// Which.
    pub backend: Backend,
    /// Why: half a sentence for people.
    pub because: String,
    /// The unified kernel images that the image boots, by their paths.
    pub unified: Vec<String>,
}

impl BackendChoice {
    /// The backend for an image, which its layers say unless somebody asks for one.
    ///
    /// `Unsupported`: the image boots by Android's boot images, or has a unified kernel image and ostree is asked for.
    pub fn of(layers: &[Layer], asked: Option<Backend>) -> Result<Self> {
        let census = Census::of(layers);
        if let Some(path) = census.paths.iter().find(|path| path.starts_with("boot/aboot-")) {
            return Err(unsupported(
                format!(
                    "the image boots by an Android boot image ({path}), which bootpress does not install"
                ),
                Some("bootpress makes disks for UEFI and BIOS machines"),
            ));
        }
        let unified = census.unified();
        let (backend, because) = census.backend(&unified);
        let Some(asked) = asked else { return Ok(Self { backend, because, unified }) };
        if asked == Backend::Ostree
            && let Some(path) = unified.first()
        {
            return Err(unsupported(
                format!(
                    "the image boots the unified kernel image {path}, which only the composefs backend installs"
                ),
                Some("build without --backend, or with --backend composefs"),
            ));
        }
        Ok(Self { backend: asked, because: "as asked for".to_owned(), unified })
    }
}

/// The files that decide, as they are when all layers are applied.
struct Census {
    paths: BTreeSet<String>,
}

impl Census {
    fn of(layers: &[Layer]) -> Self {
        let mut paths: BTreeSet<String> = BTreeSet::new();
        for layer in layers {
            let entries = || {
                layer.entries.iter().filter_map(|entry| {
                    let names: Vec<&str> = components(&entry.path)
                        .map(std::str::from_utf8)
                        .collect::<std::result::Result<_, _>>()
                        .ok()?;
                    Some((names.join("/"), &entry.kind))
                })
            };
            // What a layer hides is of the layers below it.
            for (path, _) in entries() {
                let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
                if name == ".wh..wh..opq" {
                    remove_below(&mut paths, above);
                } else if let Some(hidden) = name.strip_prefix(".wh.") {
                    let hidden = format!("{above}/{hidden}");
                    let hidden = hidden.trim_start_matches('/');
                    paths.remove(hidden);
                    remove_below(&mut paths, hidden);
                }
            }
            let files = entries().filter(|(_, kind)| **kind != EntryKind::Directory);
            paths.extend(files.map(|(path, _)| path).filter(|path| matters(path)));
        }
        Self { paths }
    }

    /// The unified kernel images that are booted. One beside a `vmlinuz`, as package kernel-uki-virt has it, boots nothing.
    fn unified(&self) -> Vec<String> {
        let is_unified = |path: &&String| {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            let booted = directory == "boot/EFI/Linux"
                || directory.starts_with("usr/lib/modules/")
                    && !self.paths.contains(&format!("{directory}/vmlinuz"));
            name.to_ascii_lowercase().ends_with(".efi") && booted
        };
        self.paths.iter().filter(is_unified).cloned().collect()
    }

    fn backend(&self, unified: &[String]) -> (Backend, String) {
        if let Some(path) = unified.first() {
            let because = format!("because the image boots a unified kernel image, {path}");
            return (Backend::Composefs, because);
        }
        let prepare_root = PREPARE_ROOT.into_iter().find(|path| self.paths.contains(*path));
        match (self.paths.contains(SETUP_ROOT), prepare_root) {
            (true, None) => (
                Backend::Composefs,
                format!("because the image has {SETUP_ROOT} and no prepare-root.conf"),
            ),
            (_, Some(path)) => (Backend::Ostree, format!("because the image has {path}")),
            (false, None) => (
                Backend::Ostree,
                "bootc's default: the image has neither prepare-root.conf nor setup-root-conf.toml"
                    .to_owned(),
            ),
        }
    }
}

/// Removes what is below a directory; the root's path is empty.
fn remove_below(paths: &mut BTreeSet<String>, directory: &str) {
    if directory.is_empty() {
        paths.clear();
        return;
    }
    let prefix = format!("{directory}/");
    let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
    let below = paths.range(from).take_while(|path| path.starts_with(&prefix));
    for path in below.cloned().collect::<Vec<String>>() {
        paths.remove(&path);
    }
}

/// Whether a file has a say in it.
fn matters(path: &str) -> bool {
    let directory = |prefix: &str, depth: usize| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.split('/').count() == depth)
    };
    path == SETUP_ROOT
        || PREPARE_ROOT.contains(&path)
        || directory("boot/EFI/Linux/", 1)
        || directory("usr/lib/modules/", 2)
        || path.starts_with("boot/aboot-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::layer::Entry;
    use crate::tree::Metadata;

    fn layer(paths: &[&str]) -> Layer {
        let entry = |path: &&str| Entry {
            path: path.as_bytes().into(),
            metadata: Metadata::root(0o644),
            nanoseconds: 0,
            kind: EntryKind::File(Content::EMPTY),
        };
        let entries = paths.iter().map(entry).collect();
        Layer { digest: String::new(), diff_id: String::new(), size: 0, entries }
    }

    #[track_caller]
    fn check(layers: &[&[&str]], expected: Backend, why: &str) {
        let layers: Vec<Layer> = layers.iter().map(|paths| layer(paths)).collect();
        let choice = BackendChoice::of(&layers, None).unwrap();
        assert_eq!(choice.backend, expected, "{layers:?}");
        assert!(choice.because.contains(why), "{}", choice.because);
    }

    const PREPARE: &str = "usr/lib/ostree/prepare-root.conf";

    #[test]
    fn image_chooses_the_backend_as_for_bootc() {
        check(&[&["./usr/bin/x"]], Backend::Ostree, "default");
        check(&[&[PREPARE]], Backend::Ostree, PREPARE);
        check(&[&[SETUP_ROOT]], Backend::Composefs, "no prepare-root.conf");
        check(&[&[SETUP_ROOT, PREPARE]], Backend::Ostree, PREPARE);
        check(&[&[SETUP_ROOT], &["etc/ostree/prepare-root.conf"]], Backend::Ostree, "etc/ostree");
        let hidden = "usr/lib/ostree/.wh.prepare-root.conf";
        check(&[&[SETUP_ROOT, PREPARE], &[hidden]], Backend::Composefs, SETUP_ROOT);
        check(&[&[SETUP_ROOT, PREPARE], &["usr/lib/.wh.ostree"]], Backend::Composefs, SETUP_ROOT);
        let opaque = "usr/lib/composefs/.wh..wh..opq";
        check(&[&[SETUP_ROOT], &[opaque]], Backend::Ostree, "default");
        check(&[&[SETUP_ROOT], &[opaque, SETUP_ROOT]], Backend::Composefs, SETUP_ROOT);
    }

    #[test]
    fn unified_kernel_image_means_composefs_unless_a_kernel_lies_beside_it() {
        let booted = "boot/EFI/Linux/6.1.efi";
        check(&[&[PREPARE, booted]], Backend::Composefs, booted);
        let beside = "usr/lib/modules/6.1/linux.efi";
        check(&[&[PREPARE, beside]], Backend::Composefs, beside);
        check(&[&[PREPARE, beside, "usr/lib/modules/6.1/vmlinuz"]], Backend::Ostree, PREPARE);
        check(&[&["boot/EFI/Linux/6.1.efi.extra.d/a.addon.efi"]], Backend::Ostree, "default");
    }

    #[test]
    fn user_has_the_last_word_where_it_can_be_had() {
        let of = |paths: &[&str], asked| BackendChoice::of(&[layer(paths)], Some(asked));
        let choice = of(&[SETUP_ROOT], Backend::Ostree).unwrap();
        assert_eq!((choice.backend, choice.because.as_str()), (Backend::Ostree, "as asked for"));
        assert_eq!(of(&[PREPARE], Backend::Composefs).unwrap().backend, Backend::Composefs);
        let error = of(&["boot/EFI/Linux/a.efi"], Backend::Ostree).unwrap_err();
        assert!(error.to_string().contains("only the composefs backend"), "{error}");
        let error = BackendChoice::of(&[layer(&["boot/aboot-6.1.img"])], None).unwrap_err();
        assert!(error.to_string().contains("Android boot image"), "{error}");
    }
}
