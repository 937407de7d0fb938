//! Blobs in a directory as skopeo's `dir:` writes it.
//!
//! ```text
//! version                  Directory Transport Version: 1.1
//! manifest.json            the manifest or index
//! <hex>.manifest.json      manifests of an index
//! <hex>                    every other blob
//! signature-1 …            signatures of manifest.json; <hex>.signature-1 … of the manifests of an index
//! ```

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Blobs;
use super::digest::Digest;
use super::manifest::{Document, MAXIMUM_DOCUMENT};
use crate::error::unsupported;
use crate::signature::{Claim, Signature};

/// Signatures of one manifest that are looked at.
const MAXIMUM_SIGNATURES: usize = 128;

/// A directory with one image or index in it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    top: Digest,
}

impl Directory {
    /// The directory, and the document it begins with.
    pub(super) fn open(path: &Path) -> Result<(Self, Document)> {
        ensure!(path.is_dir(), "{} is not a directory", path.display());
        let file = path.join("manifest.json");
        ensure!(
            file.is_file(),
            "{} has no manifest.json: it is not what `skopeo copy … dir:` writes{}",
            path.display(),
            if path.join("index.json").is_file() {
                format!("; it looks like an OCI layout: say oci:{}", path.display())
            } else {
                String::new()
            }
        );
        let bytes = small(&file)?;
        let digest = Digest::of(&bytes);
        Ok((Self { path: path.to_owned(), top: digest }, Document { digest, bytes }))
    }

    fn file(&self, name: String) -> Result<Box<dyn Read + Send + '_>> {
        let path = self.path.join(name);
        let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
        let facts = file.metadata().with_context(|| format!("reading {}", path.display()))?;
        ensure!(facts.is_file(), "{} is not a file", path.display());
        Ok(Box::new(file))
    }
}

impl Blobs for Directory {
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        if *digest == self.top {
            return self.file("manifest.json".to_owned());
        }
        // Copies of one image have no others; its manifest may be among the blobs if somebody put it there.
        let name = format!("{}.manifest.json", digest.hex());
        if self.path.join(&name).is_file() { self.file(name) } else { self.blob(digest, size) }
    }

    fn blob(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.file(digest.hex())
    }

    fn claims(&self, about: &Digest, _: &crate::signature::Wanted) -> Result<Vec<Claim>> {
        let prefix = if *about == self.top { String::new() } else { format!("{}.", about.hex()) };
        numbered_signatures(&self.path, &prefix, about)
    }
}

/// What the files `<prefix>signature-1`, `…-2` and so on of a directory claim; the first number that is missing ends them.
pub(super) fn numbered_signatures(
    directory: &Path,
    prefix: &str,
    about: &Digest,
) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for number in 1..=MAXIMUM_SIGNATURES {
        let path = directory.join(format!("{prefix}signature-{number}"));
        if !path.try_exists().with_context(|| format!("reading {}", path.display()))? {
            break;
        }
        claims.push(Claim {
            about: about.to_string(),
            place: path.display().to_string(),
            signature: Signature::from_file(small(&path)?),
        });
    }
    Ok(claims)
}

fn small(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("reading {}", path.display());
    let size = fs::metadata(path).with_context(context)?.len();
    if size > MAXIMUM_DOCUMENT {
        let what = format!("{} of {size} bytes is larger than any real one", path.display());
        return Err(unsupported(what, None));
    }
    fs::read(path).with_context(context)
}
