//! The application images that a system is bound to: where each is found, and its layers.

use anyhow::{Context, Result};

use crate::content::ContentStore;
use crate::error::unsupported;
use crate::oci::{self, Reference};
use crate::progress::Progress;
use crate::request::{BoundImages, Request};
use crate::storage::Application;

/// Unpacks the images that shall be on the disk; none if the machine is to pull them.
///
/// `declared`: the names by which the system is bound to them. `Unsupported`: one that is wanted was neither given nor may be
/// pulled, or one was given that nothing is bound to.
pub fn fetch(
    request: &Request,
    declared: &[String],
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Vec<Application>> {
    let mut unknown =
        request.bound_image_sources.iter().filter(|(name, _)| !declared.contains(name));
    if let Some((name, _)) = unknown.next() {
        let known = match declared {
            [] => "the image is bound to none".to_owned(),
            names => format!("it is bound to {}", names.join(", ")),
        };
        return Err(unsupported(format!("the image is not bound to {name}: {known}"), None));
    }
    let mut applications: Vec<Application> = Vec::new();
    for name in declared {
        if applications.iter().any(|known| known.name == *name) {
            continue;
        }
        if let Some(reference) = source(request, name)? {
            let application = unpack(name, &reference, request, contents, progress)
                .with_context(|| format!("fetching the bound image {name}"))?;
            applications.push(application);
        }
    }
    Ok(applications)
}

/// Where an image comes from; `None`: it is left to the machine.
fn source(request: &Request, name: &str) -> Result<Option<Reference>> {
    let given = request.bound_image_sources.iter().find(|(known, _)| known == name);
    match (given, request.bound_images) {
        (_, BoundImages::Skip) => Ok(None),
        (Some((_, reference)), _) => Ok(Some(reference.clone())),
        (None, BoundImages::Pull) => {
            let reference = format!("docker://{name}").parse();
            reference.map(Some).with_context(|| format!("the image is bound to {name}"))
        }
        (None, BoundImages::Stored) => {
            let hint = format!(
                "give it with --bound-image {name}=oci:DIR, or have it pulled with --bound-images pull"
            );
            Err(unsupported(
                format!("the image is bound to {name}, which is not given"),
                Some(&hint),
            ))
        }
    }
}

fn unpack(
    name: &str,
    reference: &Reference,
    request: &Request,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Application> {
    let access = request.access.beside(&request.image, reference);
    let source = oci::open_with(&access, reference, request.architecture, progress)?;
    let layers = source.unpack(contents, progress)?;
    let oci::Documents { manifest, config, config_digest } = source.documents()?;
    let image = source.image;
    Ok(Application { name: name.to_owned(), image, manifest, config, config_digest, layers })
}
