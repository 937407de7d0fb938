//! Certificates for one registry: whom to trust besides the system's authorities, and who we are.
//!
//! ```text
//! certs.d/quay.example.org:8443/
//!   ca.crt                  an authority
//!   client.cert client.key  ours
//! ```
//!
//! Specification: containers-certs.d(5).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::oci::access::Access;

/// PEM, file by file.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    pub(super) authorities: Vec<(PathBuf, Vec<u8>)>,
    /// Certificate and key in one text.
    pub(super) identity: Option<(PathBuf, Vec<u8>)>,
}

impl Certificates {
    /// Reads the directory that the user names, else the first of the usual ones that knows the registry (host, and port if any).
    pub(super) fn load(access: &Access, registry: &str) -> Result<Self> {
        if let Some(directory) = &access.certificate_directory {
            let found = Self::read(directory)?;
            return found.with_context(|| format!("{} is not there", directory.display()));
        }
        let Some(places) = &access.places else { return Ok(Self::default()) };
        let mut directories: Vec<PathBuf> =
            places.config.iter().map(|config| config.join("containers/certs.d")).collect();
        directories.push(places.etc.join("containers/certs.d"));
        directories.push(places.etc.join("docker/certs.d"));
        for directory in directories {
            if let Some(found) = Self::read(&directory.join(registry))? {
                return Ok(found);
            }
        }
        Ok(Self::default())
    }

    fn read(directory: &Path) -> Result<Option<Self>> {
        let context = || format!("reading {}", directory.display());
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(context),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.with_context(context)?.path());
        }
        paths.sort();
        let text =
            |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        let mut found = Self::default();
        for path in &paths {
            let partner = |extension| {
                let partner = path.with_extension(extension);
                if paths.contains(&partner) {
                    return Ok(partner);
                }
                bail!("{} lacks its {}", path.display(), partner.display())
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.push((path.clone(), text(path)?)),
                Some("cert") => {
                    let both = [text(path)?, text(&partner("key")?)?].join(&b'\n');
                    // A connection has one; several would be for several authorities, and the first is as good as any.
                    found.identity.get_or_insert((path.clone(), both));
                }
                Some("key") => drop(partner("cert")?),
                _ => {}
            }
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::access::Places;

    #[test]
    fn the_first_directory_that_knows_the_registry_counts() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mut places = Places::of(|_| None, 0);
        (places.etc, places.config) = (at("etc"), Some(at("config")));
        let access = Access { places: Some(places), ..Access::default() };
        let load = |access: &Access| Certificates::load(access, "x.org:5000");
        assert!(load(&access).unwrap().authorities.is_empty());
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        write("etc/docker/certs.d/x.org:5000/ca.crt", "docker");
        write("etc/docker/certs.d/other.org/ca.crt", "other");
        assert_eq!(load(&access).unwrap().authorities[0].1, b"docker");
        write("config/containers/certs.d/x.org:5000/ca.crt", "mine");
        write("config/containers/certs.d/x.org:5000/me.cert", "certificate");
        let lonely = format!("{:#}", load(&access).unwrap_err());
        assert!(lonely.contains("me.cert lacks its"), "{lonely}");
        write("config/containers/certs.d/x.org:5000/me.key", "key");
        let found = load(&access).unwrap();
        assert_eq!(found.authorities[0].1, b"mine");
        assert_eq!(found.identity.unwrap().1, b"certificate\nkey");
        let named = Access { certificate_directory: Some(at("nowhere")), ..access };
        assert!(load(&named).is_err());
    }
}
