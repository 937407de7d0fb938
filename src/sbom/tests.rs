//! Documents of a small build; the validators of both formats are asked in the conformance tests.

use expect_test::expect;

use super::*;
use crate::packages::{Manager, Package};

fn package(manager: Manager, name: &str, version: &str) -> Package {
    Package {
        manager,
        name: name.to_owned(),
        epoch: None,
        version: version.to_owned(),
        architecture: "x86_64".to_owned(),
        licence: None,
        source: None,
        supplier: None,
        url: None,
        summary: None,
    }
}

#[test]
fn purls_are_those_that_scanners_look_up() {
    let system = |id: &str, version: &str| OperatingSystem {
        id: id.to_owned(),
        version: version.to_owned(),
        title: String::new(),
    };
    let rpm = Package {
        epoch: Some(1),
        source: Some("grub2-2.12-40.fc43.src.rpm".to_owned()),
        ..package(Manager::Rpm, "grub2-efi-x64", "2.12-40.fc43")
    };
    let deb = Package {
        architecture: "amd64".to_owned(),
        source: Some("glibc 2.41-12".to_owned()),
        ..package(Manager::Deb, "libc6", "2.41-12+b1")
    };
    let purls = [
        purl(&rpm, &system("fedora", "43")),
        purl(&deb, &system("debian", "13")),
        purl(&package(Manager::Apk, "musl", "1.2.5-r0"), &system("alpine", "3.22.1")),
        purl(&package(Manager::Alpm, "bash", "5.3-1"), &system("arch", "")),
        purl(&package(Manager::Rpm, "a/b c", "1:2"), &system("", "")),
    ];
    expect![[r#"
        pkg:rpm/fedora/grub2-efi-x64@2.12-40.fc43?arch=x86_64&distro=fedora-43&epoch=1&upstream=grub2-2.12-40.fc43.src.rpm
        pkg:deb/debian/libc6@2.41-12%2Bb1?arch=amd64&distro=debian-13&upstream=glibc%402.41-12
        pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.22.1
        pkg:alpm/arch/bash@5.3-1?arch=x86_64
        pkg:rpm/linux/a%2Fb%20c@1:2?arch=x86_64"#]]
    .assert_eq(&purls.join("\n"));
    let image = SourceImage {
        name: "quay.io/fedora/fedora-bootc:43".to_owned(),
        digest: "sha256:00".to_owned(),
        architecture: "x86_64",
        version: None,
    };
    expect!["pkg:oci/fedora-bootc@sha256:00?arch=x86_64&repository_url=quay.io%2Ffedora%2Ffedora-bootc&tag=43"]
        .assert_eq(&super::purl::of_image(&image));
}

#[test]
fn urls_that_are_none_are_left_out() {
    assert_eq!(web_url("https://example.org/a?b"), Some("https://example.org/a?b"));
    for bad in
        ["example.org", "javascript:alert(1)", "https://a b/", "https://x/\u{1b}", "https://"]
    {
        assert_eq!(web_url(bad), None, "{bad}");
    }
}
