//! Where images are: archives, directories and layouts that are not what they say, and where disks shall go.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tar::EntryType;

use crate::runner::Case;
use support::bootc_image::bootc_image;
use support::tiny_image::{Item, TinyLayer};

const CORRUPT: i32 = 4;
const UNSUPPORTED: i32 = 3;
const FAILED: i32 = 1;

fn oci_archive(name: &str, exit: i32, fill: impl FnOnce(TinyLayer) -> TinyLayer) -> Case {
    let bytes = fill(TinyLayer::default()).archive();
    Case::new(format!("archive {name}"), exit, &["build", "oci-archive:image.tar"], move |place| {
        fs::write(place.join("image.tar"), &bytes).unwrap();
    })
}

fn docker_archive(name: &str, exit: i32, manifest: &str) -> Case {
    let bytes = TinyLayer::default().file("manifest.json", manifest).archive();
    let arguments = ["build", "docker-archive:image.tar"];
    Case::new(format!("docker archive {name}"), exit, &arguments, move |place| {
        fs::write(place.join("image.tar"), &bytes).unwrap();
    })
}

/// A layout in which a file is something else.
fn layout(name: &str, exit: i32, file: &'static str, replace: fn(&Path)) -> Case {
    Case::build(format!("layout {name}"), exit, move |place| {
        bootc_image().write_oci_layout(&place.join("image"));
        let path = place.join("image").join(file);
        fs::remove_file(&path).unwrap();
        replace(&path);
    })
}

fn output(name: &str, exit: i32, arguments: &[&str], prepare: fn(&Path)) -> Case {
    let make = move |place: &Path| {
        bootc_image().write_oci_layout(&place.join("image"));
        prepare(place);
    };
    Case::build(format!("output {name}"), exit, make).with(&["--format", "raw"]).with(arguments)
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        oci_archive("without an index", FAILED, |l| l.file("oci-layout", "{}")),
        oci_archive("whose index is a link out", FAILED, |l| {
            l.symlink("index.json", "/etc/passwd")
        }),
        oci_archive("whose index is a link to itself", FAILED, |l| {
            l.symlink("index.json", "index.json")
        }),
        oci_archive("whose index is a directory", FAILED, |l| l.directory("index.json")),
        oci_archive("whose index is a device", FAILED, |l| {
            l.add(Item::new(EntryType::Char, "index.json").device(1, 5))
        }),
        oci_archive("whose index has 5 MiB", UNSUPPORTED, |l| {
            l.file("index.json", vec![b' '; 5 << 20])
        }),
        docker_archive("whose manifest is not JSON", CORRUPT, "nothing"),
        docker_archive("whose manifest is empty", FAILED, "[]"),
        docker_archive(
            "whose layers lead out",
            FAILED,
            r#"[{"Config":"../x","RepoTags":null,"Layers":["../../etc/passwd"]}]"#,
        ),
        docker_archive(
            "whose tags speak to terminals",
            FAILED,
            r#"[{"Config":"c","RepoTags":["\u001b]0;owned\u0007\nerror: forged"],"Layers":[]},{"Config":"d","RepoTags":["\u001b[2J"],"Layers":[]}]"#,
        ),
        layout("whose marker is gone", FAILED, "index.json", |_| ()),
        layout("whose index is a link to nothing", FAILED, "index.json", |path| {
            symlink("nothing", path).unwrap()
        }),
        layout("whose index is endless", FAILED, "index.json", |path| {
            symlink("/dev/zero", path).unwrap()
        }),
        layout("whose index is a directory", FAILED, "index.json", |path| {
            fs::create_dir(path).unwrap()
        }),
        Case::new("archive that is cut", CORRUPT, &["build", "oci-archive:image.tar"], |place| {
            let path = place.join("image.tar");
            bootc_image().write_oci_archive(&path);
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        Case::new(
            "archive that is a directory",
            FAILED,
            &["build", "oci-archive:image"],
            |place| {
                fs::create_dir(place.join("image")).unwrap();
            },
        ),
        Case::new("archive that is not there", FAILED, &["build", "oci-archive:image"], |_| ()),
        Case::new("directory without a manifest", FAILED, &["build", "dir:image"], |place| {
            fs::create_dir(place.join("image")).unwrap();
        }),
    ];
    cases.extend([
        output("to standard output", UNSUPPORTED, &["--output", "-"], |_| ()),
        output("to a pipe", FAILED, &["--output", "disk"], |place| fifo(&place.join("disk"))),
        output("by a link that leads to itself", FAILED, &["--output", "disk"], |place| {
            symlink("disk", place.join("disk")).unwrap()
        }),
        output("by a link to a device", FAILED, &["--output", "disk"], |place| {
            symlink("/dev/null", place.join("disk")).unwrap()
        }),
        output(
            "where nothing can be made",
            FAILED,
            &["--output", "/proc/disk", "--work-directory", "."],
            |_| (),
        ),
        output(
            "in a directory that is not there",
            FAILED,
            &["--output", "no/disk", "--work-directory", "."],
            |_| (),
        ),
        output("that is a directory's name", FAILED, &["--output", "image/index.json/"], |_| ()),
        Case::image(
            "output with a version of 10000 characters",
            UNSUPPORTED,
            bootc_image().label("org.opencontainers.image.version", &"9".repeat(10_000)),
        ),
    ]);
    cases
}
