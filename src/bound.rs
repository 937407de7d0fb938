//! Images besides the one that is built: those that a system is bound to, or that a configuration puts beside it, with their
//! layers; and the one that Anaconda installs, as it was published.

use anyhow::{Context, Result};

use crate::config::Container;
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::image::Image;
use crate::oci::{self, Access, Reference, Source};
use crate::progress::Progress;
use crate::request::{BoundImages, Request};
use crate::storage::Application;
use crate::tree::Tree;
use crate::trust::{self, Demand};

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
    let configured = &request.config.blueprint.containers.images;
    let mut unknown = request.bound_image_sources.iter().filter(|(name, _)| {
        !declared.contains(name) && !configured.iter().any(|container| is_called(container, name))
    });
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
            let access = request.access.beside(&request.image, &reference);
            let application = unpack(name, &reference, (request, access), contents, progress)
                .with_context(|| format!("fetching the bound image {name}"))?;
            applications.push(application);
        }
    }
    Ok(applications)
}

/// Refuses what names no image, before anything is fetched.
pub fn check(request: &Request) -> Result<()> {
    for container in &request.config.blueprint.containers.images {
        source_of(request, container)?;
    }
    Ok(())
}

/// Unpacks the images that the configuration puts on the disk.
pub fn fetch_configured(
    request: &Request,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Vec<Application>> {
    let fetch = |container: &Container| {
        let reference = source_of(request, container)?;
        let name = full_name(container.name.as_ref().unwrap_or(&container.source));
        let mut access = request.access.beside(&request.image, &reference);
        access.verify_tls = container.verify_tls.or(access.verify_tls);
        unpack(&name, &reference, (request, access), contents, progress)
            .with_context(|| format!("fetching the container {}", container.source))
    };
    request.config.blueprint.containers.images.iter().map(fetch).collect()
}

/// Copies the image that Anaconda installs, as an OCI layout; `None`: no medium with Anaconda is asked for. `source`: the image that
/// Anaconda is in.
pub fn payload(
    request: &Request,
    source: &Source,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Option<(Tree, Image)>> {
    let anaconda = request.medium.as_ref().and_then(|medium| medium.anaconda.as_ref());
    let Some(anaconda) = anaconda else { return Ok(None) };
    let context = || "copying what Anaconda installs";
    let Some(reference) = &anaconda.payload else {
        let layout = source.save(contents, progress).with_context(context)?;
        return Ok(Some((layout, source.image.clone())));
    };
    let access = request.access.beside(&request.image, reference);
    let other = oci::open_with(&access, reference, request.architecture, progress)?;
    // It is a system's image as much as the other: whoever has to vouch for that one has to vouch for this one.
    trust::check(&request.trust, &other.subject(), &|wanted| other.claims(wanted))?;
    let layout = other.save(contents, progress).with_context(context)?;
    Ok(Some((layout, other.image)))
}

fn is_called(container: &Container, name: &str) -> bool {
    container.source == name || container.name.as_deref() == Some(name)
}

/// Where a container comes from: from where the user says that it is, else from where the configuration does.
fn source_of(request: &Request, container: &Container) -> Result<Reference> {
    let mut given = request.bound_image_sources.iter();
    if let Some((_, reference)) = given.find(|(name, _)| is_called(container, name)) {
        return Ok(reference.clone());
    }
    let source = &container.source;
    let text = match container.local {
        true => format!("containers-storage:{source}"),
        false => source.clone(),
    };
    text.parse().with_context(|| format!("{}: containers", request.config.origin))
}

/// A name as stores have it, with a registry: `app` is `localhost/app`.
fn full_name(name: &str) -> String {
    let name = name.strip_prefix("docker://").unwrap_or(name);
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        _ => format!("localhost/{name}"),
    }
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

/// What an application image has to satisfy: the policy, as when podman would pull it. A key that is demanded of the system's
/// image is not that of whoever signs applications.
fn asked_of(trust: &Demand) -> Demand {
    match trust {
        Demand::Keys { .. } => Demand::Found,
        policy => policy.clone(),
    }
}

fn unpack(
    name: &str,
    reference: &Reference,
    (request, access): (&Request, Access),
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Application> {
    let source = oci::open_with(&access, reference, request.architecture, progress)?;
    trust::check(&asked_of(&request.trust), &source.subject(), &|wanted| source.claims(wanted))?;
    let layers = source.unpack(contents, progress)?;
    let oci::Documents { manifest, config, config_digest } = source.documents()?;
    let image = source.image;
    Ok(Application { name: name.to_owned(), image, manifest, config, config_digest, layers })
}
