//! Archives, directories and stores that skopeo, podman and buildah made: the disk from each is the disk from the layout.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::Build;
use support::bootc_image::bootc_image;
use support::program::bootpress_for_everybody;
use support::tool::{is_root, run, tool};
use tempfile::TempDir;

/// The name that the image has everywhere.
const NAME: &str = "quay.io/example/tiny:43";

/// An image as a layout, and room for everything else.
struct Workshop {
    directory: TempDir,
}

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let long = format!("usr/share/{}/{}", "l".repeat(90), "m".repeat(120));
        let image = bootc_image().layer(|layer| {
            layer
                .file(&long, b"a name that needs a record")
                .file("usr/lib64/x", "below a link of another layer")
                .file("usr/share/zero", vec![0; 70_000])
                .whiteout("usr/bin/su-again")
                .opaque("usr/lib/tmpfiles.d")
                .file("usr/lib/tmpfiles.d/other.conf", "d /var/lib/other\n")
        });
        image.tag(NAME).write_oci_layout(&directory.path().join("layout"));
        fs::write(
            directory.path().join("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )
        .unwrap();
        Self { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn layout(&self) -> String {
        format!("oci:{}:{NAME}", self.at("layout").display())
    }

    fn skopeo(&self, arguments: &[&str]) -> Option<Command> {
        let mut skopeo = tool("skopeo")?;
        skopeo.arg("--policy").arg(self.at("policy.json")).args(["copy", "-q"]).args(arguments);
        Some(skopeo)
    }

    fn program(&self) -> PathBuf {
        bootpress_for_everybody(self.directory.path())
    }

    /// A build that prints its report.
    fn build(&self, reference: &str) -> Command {
        let room = tempfile::Builder::new().tempdir_in(self.directory.path()).unwrap().keep();
        // The builder's permissions are what the umask leaves of them.
        fs::set_permissions(&room, fs::Permissions::from_mode(0o777)).unwrap();
        let build = Build::new(reference).by(self.program()).format("raw").output(room);
        build.flags(["--target-imgref", NAME, "--json"]).command()
    }

    /// The digest of the manifest, and that of the disk.
    #[track_caller]
    fn press(&self, reference: &str) -> (String, String) {
        told(&run(self.build(reference).stderr(Stdio::null())))
    }
}

#[track_caller]
fn told(report: &str) -> (String, String) {
    let report: Value = serde_json::from_str(report).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&report["image"]["digest"]), text(&report["files"][0]["sha256"]))
}

#[test]
fn directories_and_archives_give_the_same_disk() {
    let workshop = Workshop::new();
    let expected = workshop.press(&workshop.layout());
    let archive = format!("oci-archive:{}:{NAME}", workshop.at("oci.tar").display());
    let directory = format!("dir:{}", workshop.at("dir").display());
    for to in [&directory, &archive] {
        let Some(mut skopeo) = workshop.skopeo(&[&workshop.layout(), to]) else { return };
        run(&mut skopeo);
    }
    assert_eq!(workshop.press(&archive), expected);
    // A directory knows no name, which `.bootc-aleph.json` has otherwise: the image is the same, the disk nearly.
    assert_eq!(workshop.press(&directory).0, expected.0);
    // From a pipe, and compressed: neither can be read in place.
    let file = fs::File::open(workshop.at("oci.tar")).unwrap();
    let plain = workshop.build("oci-archive:-").stdin(file).output().unwrap();
    assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
    assert_eq!(told(&String::from_utf8_lossy(&plain.stdout)), expected);
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .arg(workshop.at("oci.tar"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let piped =
        workshop.build("oci-archive:-").stdin(gzip.stdout.take().unwrap()).output().unwrap();
    assert!(gzip.wait().unwrap().success());
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    assert_eq!(told(&String::from_utf8_lossy(&piped.stdout)), expected);
}

#[test]
fn docker_archives_have_the_manifest_that_skopeo_makes_for_them() {
    let workshop = Workshop::new();
    let file = workshop.at("docker.tar");
    let to = format!("docker-archive:{}:{NAME}", file.display());
    let Some(mut skopeo) = workshop.skopeo(&[&workshop.layout(), &to]) else { return };
    run(&mut skopeo);
    let (digest, disk) = workshop.press(&format!("docker-archive:{}", file.display()));
    let mut inspect = tool("skopeo").unwrap();
    inspect.args(["inspect", "--raw", &format!("docker-archive:{}", file.display())]);
    let raw = inspect.output().unwrap().stdout;
    assert_eq!(digest, support::tiny_image::digest(&raw));
    for reference in [to, format!("docker-archive:{}:@0", file.display())] {
        assert_eq!(workshop.press(&reference), (digest.clone(), disk.clone()), "{reference}");
    }
    let other = workshop
        .build(&format!("docker-archive:{}:quay.io/x/y:1", file.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && said.contains(&format!("there is {NAME}")), "{said}");
    // Repacked by a program that compresses layers, and with a link in the place of a layer, as old docker wrote them.
    let (out, odd) = (workshop.at("out"), workshop.at("odd.tar"));
    fs::create_dir(&out).unwrap();
    run(tool("tar").unwrap().arg("-xf").arg(&file).arg("-C").arg(&out));
    let layers: Vec<PathBuf> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    run(Command::new("gzip").arg("-n").arg(&layers[0]));
    fs::rename(layers[0].with_extension("tar.gz"), out.join("packed")).unwrap();
    std::os::unix::fs::symlink("packed", &layers[0]).unwrap();
    run(tool("tar").unwrap().arg("-cf").arg(&odd).arg("-C").arg(&out).arg("."));
    assert_eq!(workshop.press(&format!("docker-archive:{}", odd.display())), (digest, disk));
}

#[test]
fn stores_give_the_same_disk() {
    if !is_root() {
        eprintln!("skipped: stores are made by root");
        return;
    }
    let workshop = Workshop::new();
    let expected = workshop.press(&workshop.layout());
    for driver in ["overlay", "vfs"] {
        for maker in ["skopeo", "podman", "buildah"] {
            let (root, run_root) =
                (workshop.at(&format!("{maker}-{driver}")), workshop.at(&format!("{maker}-run")));
            let store = format!("[{driver}@{}+{}]", root.display(), run_root.display());
            let name = if maker == "skopeo" {
                let to = format!("containers-storage:{store}{NAME}");
                let Some(mut skopeo) = workshop.skopeo(&[&workshop.layout(), &to]) else { return };
                run(&mut skopeo);
                NAME.to_owned()
            } else {
                let archive = format!("oci-archive:{}:{NAME}", workshop.at("oci.tar").display());
                if !workshop.at("oci.tar").exists() {
                    run(&mut workshop.skopeo(&[&workshop.layout(), &archive]).unwrap());
                }
                let Some(mut pull) = tool(maker) else { return };
                pull.arg("--root").arg(&root).arg("--runroot").arg(&run_root);
                pull.args(["--storage-driver", driver, "pull", "-q"]);
                pull.args(["--signature-policy"]).arg(workshop.at("policy.json"));
                let output = pull.arg(archive).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                NAME.to_owned()
            };
            let reference = format!("containers-storage:{store}{name}");
            assert_eq!(workshop.press(&reference), expected, "{reference}");
        }
    }
    without_a_specification(&workshop, &expected);
    a_built_image(&workshop);
    names_lead_to_the_store(&workshop);
}

/// `localhost/…` is what podman calls images that were built here. Other names are of registries first, and an error leads on.
fn names_lead_to_the_store(workshop: &Workshop) {
    let config = workshop.at("names.conf");
    let (root, run_root) = (workshop.at("names"), workshop.at("names-run"));
    let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\n", root.display());
    fs::write(&config, text).unwrap();
    let store = format!("containers-storage:[vfs@{}+{}]", root.display(), run_root.display());
    for name in ["localhost/my-os:latest", "127.0.0.1:1/my-os:1"] {
        let Some(mut skopeo) = workshop.skopeo(&[&workshop.layout(), &format!("{store}{name}")])
        else {
            return;
        };
        run(&mut skopeo);
    }
    let said = |name: &str| {
        let mut build = workshop.build(name);
        let output = build.env("CONTAINERS_STORAGE_CONF", &config).output().unwrap();
        // Warnings are in the report.
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&told).into_owned())
    };
    let (built, told) = said("localhost/my-os");
    assert!(built && told.contains("containers-storage:localhost/my-os:latest"), "{told}");
    let began = std::time::Instant::now();
    let (built, told) = said("127.0.0.1:1/my-os:1");
    assert!(!built && told.contains("use containers-storage:127.0.0.1:1/my-os:1"), "{told}");
    let (built, told) = said("localhost/other");
    assert!(!built && told.contains("no image localhost/other:latest in this machine's"), "{told}");
    // Whoever writes docker:// means a registry.
    let (built, told) = said("docker://127.0.0.1:1/my-os:1");
    assert!(!built && !told.contains("containers-storage"), "{told}");
    assert!(began.elapsed() < std::time::Duration::from_secs(120), "{:?}", began.elapsed());
}

/// Found through storage.conf, by parts of the name.
fn without_a_specification(workshop: &Workshop, expected: &(String, String)) {
    let config = workshop.at("storage.conf");
    let text = format!("[storage]\ngraphroot = \"{}\"\n", workshop.at("skopeo-vfs").display());
    fs::write(&config, text).unwrap();
    for name in [NAME, "tiny:43", "example/tiny:43"] {
        let mut build = workshop.build(&format!("containers-storage:{name}"));
        let report = build.env("CONTAINERS_STORAGE_CONF", &config).stderr(Stdio::null());
        assert_eq!(&told(&run(report)), expected, "{name}");
    }
    let mut build = workshop.build("containers-storage:tiny:44");
    let output = build.env("CONTAINERS_STORAGE_CONF", &config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&format!("there is {NAME}")), "{said}");
}

/// An image that was built in the store: its manifest lists uncompressed layers, and is what is recorded.
fn a_built_image(workshop: &Workshop) {
    let (root, run_root) = (workshop.at("buildah-overlay"), workshop.at("buildah-run"));
    let buildah = |arguments: &[&str]| {
        let mut buildah = tool("buildah").unwrap();
        buildah.arg("--root").arg(&root).arg("--runroot").arg(&run_root);
        buildah.args(["--storage-driver", "overlay"]).args(arguments);
        let output = buildah.env("BUILDAH_ISOLATION", "chroot").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let policy = format!("--signature-policy={}", workshop.at("policy.json").display());
    let container = buildah(&["from", "-q", "--pull-never", &policy, NAME]).trim().to_owned();
    fs::write(workshop.at("added"), "added").unwrap();
    buildah(&[
        "add",
        "-q",
        &container,
        &workshop.at("added").display().to_string(),
        "/usr/share/added",
    ]);
    buildah(&["commit", "-q", &policy, &container, "localhost/built:1"]);
    let store = format!("[overlay@{}+{}]", root.display(), run_root.display());
    let from = format!("containers-storage:{store}localhost/built:1");
    let to = format!("oci:{}:localhost/built:1", workshop.at("built").display());
    // Uncompressed layers, as the store's manifest has them.
    run(&mut workshop.skopeo(&["--dest-decompress", "--preserve-digests", &from, &to]).unwrap());
    assert_eq!(workshop.press(&from), workshop.press(&to));
}

#[test]
fn stores_of_ordinary_users_are_read_by_root_and_explained_to_the_user() {
    let (Some(_), Some(_), true) = (tool("setpriv"), tool("skopeo"), is_root()) else { return };
    let workshop = Workshop::new();
    let expected = workshop.press(&workshop.layout());
    let home = workshop.at("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    let as_user = |command: &Command| {
        let mut user = tool("setpriv").unwrap();
        user.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        user.arg(command.get_program()).args(command.get_args());
        user.env("HOME", &home).env("XDG_RUNTIME_DIR", home.join("run")).current_dir(&home);
        user
    };
    let (root, run_root) = (home.join("store"), home.join("run"));
    let store =
        format!("[vfs@{}+{}:vfs.ignore_chown_errors=true]", root.display(), run_root.display());
    let to = format!("containers-storage:{store}{NAME}");
    run(&mut as_user(&workshop.skopeo(&[&workshop.layout(), &to]).unwrap()));
    assert_eq!(workshop.press(&to), expected);
    // etc/shadow has no permission at all, which stops its owner.
    let output = as_user(&workshop.build(&to)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("podman unshare"), "{said}");
    assert!(said.contains("etc/shadow"), "{said}");
}

#[test]
fn a_store_that_was_tampered_with_is_no_image() {
    let workshop = Workshop::new();
    let (root, run_root) = (workshop.at("store"), workshop.at("run"));
    let to = format!("containers-storage:[vfs@{}+{}]{NAME}", root.display(), run_root.display());
    let (Some(mut skopeo), true) = (workshop.skopeo(&[&workshop.layout(), &to]), is_root()) else {
        return;
    };
    run(&mut skopeo);
    let refused = |what: &str| {
        let output = workshop.build(&to).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains(what), "{said}");
    };
    let file = find(&root.join("vfs/dir"), "hosts");
    let whole = fs::read(&file).unwrap();
    let changed: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
    fs::write(&file, changed).unwrap();
    refused("its bytes have the digest");
    fs::write(&file, &whole[1..]).unwrap();
    refused("is shorter than it was");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    let output = workshop.build(&to).output().unwrap();
    assert!(!output.status.success());
}

/// The file of that name in the layer that has the fewest files: in the one that brought it.
fn find(root: &Path, name: &str) -> PathBuf {
    let found = run(Command::new("find").arg(root).args(["-name", name, "-type", "f"]));
    let mut found: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
    let count = |path: &PathBuf| {
        let layer = path.ancestors().find(|path| path.parent() == Some(root)).unwrap().to_owned();
        run(Command::new("find").arg(layer)).lines().count()
    };
    found.sort_by_key(count);
    found.swap_remove(0)
}
