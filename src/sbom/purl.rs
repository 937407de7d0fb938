//! Package URLs (purl-spec 1.0): what scanners look packages up by.

use super::{OperatingSystem, SourceImage};
use crate::packages::{Manager, Package};

/// The package URL of an installed package.
pub fn purl(package: &Package, system: &OperatingSystem) -> String {
    let id = if system.id.is_empty() { "linux" } else { &system.id };
    let namespace = match package.manager {
        // purl-spec: the vendor is the distribution, in lower case.
        Manager::Alpm if id != "arch" => "arch",
        _ => id,
    };
    let mut purl = format!(
        "pkg:{}/{}/{}",
        package.manager.purl_type(),
        encoded(namespace),
        encoded(&package.name)
    );
    if !package.version.is_empty() {
        purl.push('@');
        purl.push_str(&encoded(&package.version));
    }
    // Sorted by their keys, as the specification wants it.
    let distribution =
        if system.version.is_empty() { String::new() } else { format!("{id}-{}", system.version) };
    let epoch = package.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
    let source = package.source.as_deref().unwrap_or_default();
    let upstream =
        if package.manager == Manager::Deb { source.replace(' ', "@") } else { source.to_owned() };
    let qualifiers = [
        ("arch", package.architecture.as_str()),
        ("distro", &distribution),
        ("epoch", &epoch),
        ("upstream", &upstream),
    ];
    let mut separator = '?';
    for (key, value) in qualifiers.into_iter().filter(|(_, value)| !value.is_empty()) {
        purl.push(separator);
        purl.push_str(&format!("{key}={}", encoded(value)));
        separator = '&';
    }
    purl
}

/// The package URL of an image.
pub(super) fn of_image(image: &SourceImage) -> String {
    let name = image.name.split('@').next().unwrap_or(&image.name);
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let (short, tag) = name[last..].split_once(':').unwrap_or((&name[last..], ""));
    let short = if short.is_empty() { "image" } else { short };
    let mut purl = format!("pkg:oci/{}@{}", encoded(&short.to_lowercase()), encoded(&image.digest));
    purl.push_str(&format!("?arch={}", image.architecture));
    // Local images have no repository that anybody could reach.
    let repository = format!("{}{short}", &name[..last]);
    if last > 0 {
        purl.push_str(&format!("&repository_url={}", encoded(&repository)));
    }
    if !tag.is_empty() {
        purl.push_str(&format!("&tag={}", encoded(tag)));
    }
    purl
}

/// Percent-encoding of everything but what the specification leaves alone.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
