//! What an image configures, part by part: where [`Settings`](super::Settings) stop at the first mistake, this tells all of them.

use std::collections::BTreeMap;

use super::{
    Files, INITRAMFS, MODULES, backend, configured, install, is_file, kernel_arguments,
    kernel_versions, os_release, prepare_root,
};
use crate::architecture::Architecture;
use crate::content::{Content, ContentStore};
use crate::progress::Progress;
use crate::tree::Tree;

/// What was found, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// Versions of kernels.
    pub kernels: Vec<String>,
    /// The initramfs beside the only kernel.
    pub initramfs: Option<Content>,
    /// What is wrong with kargs.d.
    pub kargs: Option<String>,
    /// What is wrong with the install configuration.
    pub install: Option<String>,
    /// What is wrong with the configuration of the root.
    pub root_config: Option<String>,
    /// Whether the image is made for bootc's composefs backend.
    pub composefs_backend: bool,
    /// os-release.
    pub os_release: BTreeMap<String, String>,
    /// What is wrong with it.
    pub os_release_error: Option<String>,
}

/// Looks at all of it; an error of one part keeps no other from being looked at.
pub fn diagnose(root: &Tree, contents: &ContentStore, architecture: Architecture) -> Diagnosis {
    let files = Files { root, contents };
    let quiet = Progress::default();
    let versions = kernel_versions(root);
    let initramfs = match versions[..] {
        [(name, directory)] => INITRAMFS
            .into_iter()
            .find(|file| is_file(root, directory, file))
            .and_then(|file| {
                root.file(&format!("{MODULES}/{}/{file}", String::from_utf8_lossy(name)))
            })
            .cloned(),
        _ => None,
    };
    let ostree = prepare_root::PATHS.iter().any(|path| configured(root, path).is_some());
    let composefs_backend = !ostree && configured(root, backend::SETUP_ROOT).is_some();
    let wrong = |result: anyhow::Result<()>| result.err().map(|error| format!("{error:#}"));
    let root_config = if composefs_backend {
        wrong(setup_root(&files))
    } else if ostree {
        wrong(prepare_root::load(&files, &quiet).map(drop))
    } else {
        Some(format!("neither /{} nor /{} is there", prepare_root::PATHS[1], backend::SETUP_ROOT))
    };
    let (os_release, os_release_error) = match os_release::all(&files) {
        Ok(pairs) => (pairs, None),
        Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
    };
    Diagnosis {
        kernels: versions
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect(),
        initramfs,
        kargs: wrong(kernel_arguments::load(&files, architecture).map(drop)),
        install: wrong(install::load(&files, architecture, &quiet).map(drop)),
        root_config,
        composefs_backend,
        os_release,
        os_release_error,
    }
}

/// The other backend's file is TOML.
fn setup_root(files: &Files<'_>) -> anyhow::Result<()> {
    let path = backend::SETUP_ROOT;
    let text = files.text(path)?.unwrap_or_default();
    match toml::from_str::<toml::Table>(&text) {
        Ok(_) => Ok(()),
        Err(error) => Err(crate::error::corrupt(path, error.to_string().trim_end().to_owned())),
    }
}
