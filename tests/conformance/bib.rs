//! The image that stands in for bootc-image-builder's: its recipe is built by buildah, and the program in it finds and leaves
//! things where that tool's container has them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::bootc_image::bootc_image;
use support::program::{bootpress_named, program};
use support::tool::{is_root, run, tool};

const RECIPE: &str = include_str!("../../src/cli/bib/Containerfile");

/// The recipe, on what this machine has: no registry is asked, and the program is the one under test.
pub(crate) fn recipe(recipe: &str) -> String {
    let (build, rest) = recipe.split_once("\nFROM ").unwrap().1.split_once("\nFROM ").unwrap();
    // What cannot be run here is at least what has to be said.
    assert!(build.contains(" AS build\n"), "{build}");
    assert!(build.contains("cargo build --profile dist --locked"), "{build}");
    let (_, rest) = rest.split_once('\n').unwrap();
    assert!(rest.contains("COPY --from=build /source/target/dist/bootpress "), "{rest}");
    format!(
        "FROM scratch AS build\nCOPY bootpress /source/target/dist/bootpress\n\nFROM scratch\nCOPY base/ /\n{rest}"
    )
}

/// A shell, `ln`, `mkdir`, and the libraries that they and the program want.
pub(crate) fn base(into: &Path, program: &Path) {
    for directory in ["bin", "usr/bin", "tmp"] {
        fs::create_dir_all(into.join(directory)).unwrap();
    }
    fs::copy("/bin/sh", into.join("bin/sh")).unwrap();
    for name in ["ln", "mkdir"] {
        fs::copy(Path::new("/usr/bin").join(name), into.join("usr/bin").join(name)).unwrap();
    }
    let programs = ["/bin/sh", "/usr/bin/ln", "/usr/bin/mkdir"].map(Path::new);
    for program in programs.into_iter().chain([program]) {
        let said = run(Command::new("ldd").arg(program));
        for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = into.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(library, to).unwrap();
        }
    }
}

/// buildah with a store of its own.
pub(crate) struct Buildah {
    pub(crate) place: PathBuf,
}

impl Buildah {
    pub(crate) fn say(&self, arguments: &[&str]) -> Option<String> {
        let mut buildah = tool("buildah")?;
        buildah.arg("--root").arg(self.place.join("store"));
        buildah.arg("--runroot").arg(self.place.join("run"));
        Some(run(buildah
            .args(["--storage-driver", "vfs"])
            .args(arguments)
            .current_dir(&self.place)))
    }
}

#[test]
fn the_image_of_the_drop_in_works_without_privileges_of_its_own() {
    if !is_root() {
        eprintln!("skipped: buildah needs subordinate users for anybody but root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (Some(mut strip), Some(_)) = (tool("strip"), tool("buildah")) else { return };
    run(strip.arg("-o").arg(place.join("bootpress")).arg(program()));
    base(&place.join("base"), &place.join("bootpress"));
    fs::write(place.join("Containerfile"), recipe(RECIPE)).unwrap();
    bootc_image().write_oci_layout(&place.join("image"));
    fs::create_dir(place.join("output")).unwrap();
    let config = "[customizations]\nhostname = \"contained\"\n[customizations.disk]\n";
    fs::write(place.join("config.toml"), config).unwrap();

    let buildah = Buildah { place: place.to_owned() };
    let build = ["bud", "--isolation", "chroot", "-t", "drop-in", "-f", "Containerfile", "."];
    buildah.say(&build).unwrap();
    let told = buildah.say(&["inspect", "--type", "image", "drop-in"]).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let told = &told["OCIv1"]["config"];
    assert_eq!(told["Entrypoint"], serde_json::json!(["/usr/bin/bootc-image-builder"]));
    assert_eq!(told["WorkingDir"], "/output");
    for volume in ["/output", "/store", "/rpmmd", "/var/lib/containers/storage"] {
        assert!(told["Volumes"][volume].is_object(), "{volume}: {told}");
    }

    let container = buildah.say(&["from", "drop-in"]).unwrap();
    let container = container.trim();
    // Of two volumes at one place buildah mounts either on top: the one of the recipe must not hide ours.
    buildah.say(&["config", "--volume", "/output-", container]).unwrap();
    let volume = |from: &str, to: &str| format!("{}:{to}", place.join(from).display());
    let volumes = [
        volume("output", "/output"),
        volume("image", "/image:ro"),
        volume("config.toml", "/config.toml:ro"),
    ];
    let mut line = vec!["run", "--isolation", "chroot"];
    for volume in &volumes {
        line.extend(["-v", volume]);
    }
    let entry = told["Entrypoint"][0].as_str().unwrap();
    line.extend([container, "--", entry, "--type", "qcow2", "--type", "vmdk"]);
    line.extend(["--target-arch", "x86_64", "--chown", "1000:1000", "oci:/image"]);
    let said = buildah.say(&line).unwrap();
    assert!(said.contains("Build complete!\nResults saved in\n/output\n"), "{said}");
    assert!(said.contains("/etc/hostname"), "the configuration was found: {said}");
    let mut left = Vec::new();
    for entry in ["manifest-qcow2-vmdk.json", "qcow2/disk.qcow2", "vmdk/disk.vmdk"] {
        let path = place.join("output").join(entry);
        let metadata =
            path.metadata().unwrap_or_else(|error| panic!("{entry}: {error}; it said: {said}"));
        left.push((path.is_file(), std::os::unix::fs::MetadataExt::uid(&metadata)));
    }
    assert_eq!(left, [(true, 1000); 3]);
    // The same disk as without a container.
    run(bootpress_named("bootc-image-builder", place)
        .args(["--type", "qcow2", "--target-arch", "x86_64", "--config", "config.toml"])
        .args(["--output", "outside", "oci:image"])
        .current_dir(place));
    let read = |output: &str| fs::read(place.join(output).join("qcow2/disk.qcow2")).unwrap();
    assert!(read("output") == read("outside"), "the container changes the disk");
    buildah.say(&["rm", container]).unwrap();
}
