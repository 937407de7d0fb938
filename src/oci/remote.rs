//! An image in a registry: which one a name means, and its blobs from the network or the cache.
//!
//! ```text
//! name ─(aliases)─► full name ─► first document: from the registry; from the cache if it is named by digest, if nobody
//!                                answers, or if that was asked for
//! ```

use std::io::Read;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};

use super::Blobs;
use super::access::Access;
use super::cache::{Cache, Cached};
use super::digest::Digest;
use super::manifest::Document;
use super::reference::Name;
use super::registry::Registry;
use super::registry::conf::Registries;
use crate::progress::{Code, Progress};

/// What a name led to.
pub(super) struct Found {
    /// The full name.
    pub(super) name: String,
    /// The index or manifest.
    pub(super) top: Document,
    /// How to ask the registry for more.
    pub(super) connection: Arc<Connection>,
    /// The cache, if there is one.
    pub(super) cache: Option<Cache>,
}

/// A registry that is connected to when it is first needed.
pub(super) struct Connection {
    reference: oci_client::Reference,
    access: Access,
    registries: Registries,
    registry: Mutex<Option<Arc<Registry>>>,
}

/// Finds the first document of an image.
pub(super) fn find(name: &Name, access: &Access, progress: &Progress) -> Result<Found> {
    let registries = access.places.as_ref().map(Registries::load).transpose()?.unwrap_or_default();
    let reference = full(name, &registries, progress)?;
    let cache = open_cache(access, progress)?;
    let full_name = reference.whole();
    let connection = Arc::new(Connection {
        reference,
        access: access.clone(),
        registries,
        registry: Mutex::new(None),
    });
    let top = match known(&connection, cache.as_ref(), &full_name)? {
        Some(top) => top,
        None => ask(&connection, cache.as_ref(), &full_name, progress)?,
    };
    Ok(Found { name: full_name, top, connection, cache })
}

/// The full name, if need be by what this machine says about short ones.
fn full(
    name: &Name,
    registries: &Registries,
    progress: &Progress,
) -> Result<oci_client::Reference> {
    let Some(typed) = &name.short else { return Ok(name.reference.clone()) };
    let expanded = registries.expand(typed, &name.reference)?;
    if let Some(guess) = expanded.guess {
        progress.warn(
            Code::ShortName,
            format!("no registry in \"{typed}\": using {} ({guess})", expanded.reference.whole()),
        );
    }
    Ok(expanded.reference)
}

/// A cache that cannot be used is no reason not to build, unless there is nothing else.
fn open_cache(access: &Access, progress: &Progress) -> Result<Option<Cache>> {
    let Some(directory) = &access.cache else {
        if access.offline {
            bail!("--offline needs a cache");
        }
        return Ok(None);
    };
    match Cache::open(directory) {
        Ok(cache) => Ok(Some(cache)),
        Err(error) if access.offline => Err(error),
        Err(error) => {
            progress.warn(Code::NoCache, format!("building without a cache: {error:#}"));
            Ok(None)
        }
    }
}

/// What needs no network: a digest says it all.
fn known(connection: &Connection, cache: Option<&Cache>, name: &str) -> Result<Option<Document>> {
    let Some(cache) = cache else { return Ok(None) };
    let by_digest = connection.reference.digest().map(Digest::parse).transpose()?;
    if let Some(document) = by_digest.and_then(|digest| cache.document(&digest)) {
        return Ok(Some(document));
    }
    if !connection.access.offline {
        return Ok(None);
    }
    let document = cache.named(name);
    let document = document.with_context(|| {
        format!(
            "{name} is not in the cache {}; without --offline it is fetched",
            cache.directory().display()
        )
    });
    document.map(Some)
}

fn ask(
    connection: &Connection,
    cache: Option<&Cache>,
    name: &str,
    progress: &Progress,
) -> Result<Document> {
    let older = cache.and_then(|cache| cache.named(name));
    let Connection { reference, access, registries, .. } = connection;
    match Registry::find(reference, access, registries, older.is_some()) {
        Ok((registry, top)) => {
            connection.keep(Arc::new(registry));
            Ok(top)
        }
        Err(failure) => match older.filter(|_| failure.absent) {
            Some(older) => {
                progress.warn(
                    Code::StaleImage,
                    format!(
                        "nobody answers, so {name} is what it last was, {}: {:#}",
                        older.digest, failure.error
                    ),
                );
                Ok(older)
            }
            None => Err(failure.error),
        },
    }
}

impl Found {
    /// The image's blobs.
    pub(super) fn blobs(&self, progress: &Progress) -> Box<dyn Blobs> {
        let connection = Arc::clone(&self.connection);
        if let Some(cache) = &self.cache {
            match self.cached(cache) {
                Ok(cached) => return Box::new(cached),
                Err(error) => {
                    progress.warn(Code::NoCache, format!("building without a cache: {error:#}"))
                }
            }
        }
        Box::new(connection)
    }

    /// The image, with all its blobs through the cache.
    pub(super) fn cached(&self, cache: &Cache) -> Result<Cached> {
        let top = Document { digest: self.top.digest, bytes: self.top.bytes.clone() };
        Cached::new(cache.clone(), Arc::clone(&self.connection), self.name.clone(), top)
    }
}

impl Connection {
    /// The registry, connected.
    pub(super) fn registry(&self) -> Result<Arc<Registry>> {
        let mut known = self.registry.lock().expect("no thread panics with the lock");
        if let Some(registry) = &*known {
            return Ok(Arc::clone(registry));
        }
        if self.access.offline {
            bail!(
                "{} is not all in the cache; without --offline the rest is fetched",
                self.reference.whole()
            );
        }
        let found = Registry::find(&self.reference, &self.access, &self.registries, false);
        let (registry, _) = found.map_err(|failure| failure.error)?;
        Ok(Arc::clone(known.insert(Arc::new(registry))))
    }

    fn keep(&self, registry: Arc<Registry>) {
        *self.registry.lock().expect("no thread panics with the lock") = Some(registry);
    }

    /// A document by its digest.
    pub(super) fn document(&self, digest: &Digest, _: u64) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.registry()?.document(digest)?))
    }
}

impl Blobs for Arc<Connection> {
    fn document(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        Connection::document(self, digest, size)
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.registry()?.blob_from(digest, size, 0)))
    }
}
