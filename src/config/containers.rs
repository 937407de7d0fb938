//! `containers` and `containers-storage`: application images that are on the disk before it boots for the first time.

use super::disk::is_below;
use super::table::{Found, Gravity, Problems, Table};

/// Where podman keeps what it has, unless it is told otherwise.
const USUAL: &str = "/var/lib/containers/storage";

/// An application image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Where it comes from: `registry.example/app:1`, or with a transport as `build` takes it.
    pub source: String,
    /// What the machine calls it; `None`: as its source is called.
    pub name: Option<String>,
    /// Whether its registry must prove who it is; `None`: as usual.
    pub verify_tls: Option<bool>,
    /// Whether it is taken from what podman has on the machine that builds.
    pub local: bool,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// In order.
    pub images: Vec<Container>,
    /// Where they are kept, if not where podman looks by itself.
    pub destination: Option<String>,
}

impl Containers {
    /// Where they are kept in the running system.
    pub fn path(&self) -> &str {
        self.destination.as_deref().unwrap_or(USUAL)
    }
}

pub(super) fn images(top: &mut Table<'_>, problems: &mut Problems) -> Vec<Container> {
    let mut images: Vec<Container> = Vec::new();
    for mut entry in top.tables("containers", problems) {
        let at = entry.at();
        let source = entry.required("source", problems);
        let name = entry.text("name", problems).filter(|name| !name.value.is_empty());
        let verify_tls = entry.bool("tls-verify", problems);
        let local = entry.bool("local-storage", problems) == Some(true);
        entry.finish(problems);
        let fits = |text: &Found<String>| {
            !text.value.contains(|c: char| c.is_whitespace() || c.is_control())
                && !text.value.starts_with('-')
        };
        for text in [&source, &name].into_iter().flatten().filter(|text| !fits(text)) {
            problems.wrong(text.at, format!("`{text}` is not a name of an image"));
        }
        let Some(source) = source else { continue };
        let image = Container {
            source: source.value,
            name: name.map(|name| name.value),
            verify_tls,
            local,
        };
        let called = |one: &Container| one.name.clone().unwrap_or_else(|| one.source.clone());
        if images.iter().any(|other| called(other) == called(&image)) {
            problems.wrong(at, format!("container {} is defined twice", called(&image)));
        }
        images.push(image);
    }
    images
}

/// `containers-storage`: where the images go.
pub(super) fn storage(table: &mut Table<'_>, problems: &mut Problems) -> Containers {
    let mut containers = Containers::default();
    let Some(mut entry) = table.table("containers-storage", problems) else { return containers };
    let path = entry.text("destination-path", problems).filter(|path| !path.value.is_empty());
    entry.finish(problems);
    match path {
        Some(path) if !is_below("/var", &path.value) => problems.add(
            path.at,
            Gravity::Refused,
            format!("containers-storage.destination-path = {path} cannot be honoured: everything but /var belongs to the image or is not kept; name a directory below it"),
        ),
        Some(path) if path.value != USUAL => containers.destination = Some(path.value),
        _ => {}
    }
    containers
}
