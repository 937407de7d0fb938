//! Images besides the one that is built: those that a system is bound to, or that a configuration puts beside it, with their
//! layers; and the one that Anaconda installs, as it was published.

use anyhow::{Context, Result};

use crate::config::Container;
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::iso::Payload;
use crate::load::Loaded;
use crate::oci::{self, Reference, Saved, Source};
use crate::progress::Progress;
use crate::request::{ApplicationSource, BoundImages, ImageRequest, Request};
use crate::storage::Application;
use crate::trust::{self, Demand};

/// The images besides the one that is built.
#[derive(Debug, Default)]
pub struct Others {
    /// Application images that the system is bound to.
    pub bound: Vec<Application>,
    /// Application images that the configuration puts on the disk.
    pub configured: Vec<Application>,
    /// What Anaconda installs.
    pub payload: Option<Payload>,
}

/// Fetches the images that a build needs beside the one that was loaded.
pub fn fetch(request: &Request, loaded: &Loaded, progress: &Progress) -> Result<Others> {
    let contents = &loaded.contents;
    Ok(Others {
        bound: fetch_bound(request, &loaded.settings.bound_images, contents, progress)?,
        configured: fetch_configured(request, contents, progress)?,
        payload: payload(request, &loaded.source, contents, progress)?,
    })
}

/// Unpacks the images that shall be on the disk; none if the machine is to pull them.
///
/// `declared`: the names by which the system is bound to them. `Unsupported`: one that is wanted was neither given nor may be
/// pulled, or one was given that nothing is bound to.
fn fetch_bound(
    request: &Request,
    declared: &[String],
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Vec<Application>> {
    let configured = &request.config.blueprint.containers.images;
    let mut unknown = request.applications.sources.iter().filter(|given| {
        !declared.contains(&given.name)
            && !configured.iter().any(|container| is_called(container, &given.name))
    });
    if let Some(ApplicationSource { name, .. }) = unknown.next() {
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
            let other = beside(request, &reference);
            let application = unpack(name, &other, contents, progress)
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
fn fetch_configured(
    request: &Request,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Vec<Application>> {
    let fetch = |container: &Container| {
        let reference = source_of(request, container)?;
        let name = full_name(container.name.as_ref().unwrap_or(&container.source));
        let mut other = beside(request, &reference);
        other.access.verify_tls = container.verify_tls.or(other.access.verify_tls);
        unpack(&name, &other, contents, progress)
            .with_context(|| format!("fetching the container {}", container.source))
    };
    request.config.blueprint.containers.images.iter().map(fetch).collect()
}

/// Copies the image that Anaconda installs into an OCI layout; `None`: no medium with Anaconda is asked for. `source`: the image that
/// Anaconda is in.
fn payload(
    request: &Request,
    source: &Source,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Option<Payload>> {
    let anaconda = request.output.medium.as_ref().and_then(|medium| medium.anaconda.as_ref());
    let Some(anaconda) = anaconda else { return Ok(None) };
    let context = || "copying what Anaconda installs";
    let Some(reference) = &anaconda.payload else {
        let Saved { layout, image } = source.save(contents, progress).with_context(context)?;
        return Ok(Some(Payload { layout, image }));
    };
    // It is a system's image as much as the other: whoever has to vouch for that one has to vouch for this one.
    let wanted = ImageRequest { trust: request.image.trust.clone(), ..beside(request, reference) };
    let other = accepted(&wanted, progress)?;
    let Saved { layout, image } = other.save(contents, progress).with_context(context)?;
    Ok(Some(Payload { layout, image }))
}

fn is_called(container: &Container, name: &str) -> bool {
    container.source == name || container.name.as_deref() == Some(name)
}

/// Where a container comes from: from where the user says that it is, else from where the configuration does.
fn source_of(request: &Request, container: &Container) -> Result<Reference> {
    let mut given = request.applications.sources.iter();
    if let Some(given) = given.find(|given| is_called(container, &given.name)) {
        return Ok(given.reference.clone());
    }
    let source = &container.source;
    let text =
        if container.local { format!("containers-storage:{source}") } else { source.clone() };
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
    let given = request.applications.sources.iter().find(|given| given.name == name);
    match (given, request.applications.bound) {
        (_, BoundImages::Skip) => Ok(None),
        (Some(given), _) => Ok(Some(given.reference.clone())),
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

/// Another image of the same build, reached like the first.
fn beside(request: &Request, reference: &Reference) -> ImageRequest {
    let first = &request.image;
    ImageRequest {
        access: first.access.beside(&first.reference, reference),
        trust: asked_of(&first.trust),
        reference: reference.clone(),
        architecture: first.architecture,
        called: None,
    }
}

/// Opens an image and asks whether it may be used.
fn accepted(wanted: &ImageRequest, progress: &Progress) -> Result<Source> {
    let opened = oci::open_with(&wanted.access, &wanted.reference, wanted.architecture, progress)?;
    let judge =
        |subject: &_, claims: &dyn Fn(&_) -> _| trust::check(&wanted.trust, subject, claims);
    opened.vouched(judge).map(|(source, _)| source)
}

fn unpack(
    name: &str,
    wanted: &ImageRequest,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Application> {
    let source = accepted(wanted, progress)?;
    let layers = source.unpack(contents, progress)?;
    let oci::Documents { manifest, config, config_digest } = source.documents()?;
    let image = source.into_image();
    Ok(Application { name: name.to_owned(), image, manifest, config, config_digest, layers })
}
