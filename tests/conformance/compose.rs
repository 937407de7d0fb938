//! `bootpress compose`: two images, two architectures, three formats, one of them broken; resumed, tested, and looked at in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::bootc_image::bootc_image;
use support::bootpress;
use support::tool::{run, tool};

/// Two images: one sound in both architectures, one whose files of aarch64 are damaged.
fn images(place: &Path) {
    for name in ["sound", "broken"] {
        for architecture in ["amd64", "arm64"] {
            let image = bootc_image().architecture(architecture);
            image.write_oci_layout(&place.join(format!("{name}-{architecture}")));
        }
    }
    for (from, to) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        for name in ["sound", "broken"] {
            fs::rename(place.join(format!("{name}-{from}")), place.join(format!("{name}-{to}")))
                .unwrap();
        }
    }
}

fn manifest(place: &Path, text: &str) -> PathBuf {
    let file = place.join("compose.toml");
    fs::write(&file, text).unwrap();
    file
}

const MANIFEST: &str = r#"
[compose]
id = "Fedora-IoT-43-20251014.0"
variant = "IoT"
name-template = "Fedora-IoT-{subvariant}-{kind}-{version}-{date}.{respin}.{arch}.{ext}"
options = ["--no-cache", "--bootloader", "none"]

[[image]]
name = "base"
source = "oci:sound-{arch}"
architectures = ["x86_64", "aarch64"]
formats = ["qcow2", { format = "vdi", blocking = true }, "vmdk"]

[[image.test]]
name = "boots"
formats = ["qcow2"]
architectures = ["x86_64"]
options = ["--timeout", "1", "--accel", "tcg"]

[[image]]
name = "IoT"
source = "oci:broken-{arch}"
architectures = ["x86_64", "aarch64"]
formats = ["qcow2", "vdi", "vmdk"]
blocking = true
"#;

fn compose(place: &Path, flags: &[&str]) -> Output {
    let mut command = bootpress();
    command.args(["compose", "compose.toml", "--output", "out"]).args(flags).current_dir(place);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A browser's view of the page.
fn looked_at(place: &Path) -> Option<String> {
    let page = place.join("out/index.html");
    let chromium = |argument: &str| {
        let mut chromium = tool("chromium")?;
        chromium.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1200,900",
        ]);
        chromium.arg(format!("--user-data-dir={}", place.join("profile").display()));
        Some(chromium.arg(argument).arg(format!("file://{}", page.display())).output().unwrap())
    };
    chromium(&format!("--screenshot={}", place.join("page.png").display()))?;
    assert!(
        fs::metadata(place.join("page.png")).unwrap().len() > 10_000,
        "the page shows something"
    );
    Some(String::from_utf8_lossy(&chromium("--dump-dom")?.stdout).into_owned())
}

#[test]
fn compose_with_a_broken_image_has_everything_else_and_is_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    images(place);
    // A blob of one architecture is damaged.
    let blobs = place.join("broken-aarch64/blobs/sha256");
    let largest = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let sound = fs::read(&largest).unwrap();
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&largest, damaged).unwrap();
    manifest(place, MANIFEST);

    let first = compose(place, &["--no-tests"]);
    assert_eq!(first.status.code(), Some(1), "{}", said(&first));
    let table = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(
        table.contains("Fedora-IoT-43-20251014.0 is blocked by 3 of 3 that are missing:"),
        "{table}"
    );
    assert!(table.contains("  IoT/aarch64/qcow2: ") && table.contains("is corrupt"), "{table}");
    let status = || -> Value {
        serde_json::from_slice(&fs::read(place.join("out/status.json")).unwrap()).unwrap()
    };
    let outcome = |key: &str| status()["artifacts"][key]["outcome"].clone();
    for architecture in ["x86_64", "aarch64"] {
        for format in ["qcow2", "vdi", "vmdk"] {
            assert_eq!(outcome(&format!("base/{architecture}/{format}")), "done");
            let expected = if architecture == "aarch64" { "failed" } else { "done" };
            assert_eq!(outcome(&format!("IoT/{architecture}/{format}")), expected);
        }
        let images = place.join("out/IoT").join(architecture).join("images");
        let sums = format!("Fedora-IoT-43-20251014.0-{architecture}-CHECKSUM");
        run(tool("sha256sum").unwrap().args(["-c", &sums]).current_dir(&images));
    }
    let metadata: Value =
        serde_json::from_slice(&fs::read(place.join("out/metadata/images.json")).unwrap()).unwrap();
    let count = |architecture: &str| {
        metadata["payload"]["images"]["IoT"][architecture].as_array().unwrap().len()
    };
    assert_eq!((count("x86_64"), count("aarch64")), (6, 3));
    if let Some(dom) = looked_at(place) {
        let rows = |class: &str| dom.matches(&format!("<tr class=\"{class}\">")).count();
        assert_eq!(
            (rows("artifact"), dom.matches("class=\"failed\">failed").count()),
            (12, 3),
            "{dom}"
        );
        assert!(dom.contains("The release is blocked by IoT/aarch64/qcow2"), "{dom}");
        assert!(dom.contains(
            "href=\"IoT/x86_64/images/Fedora-IoT-base-qcow2-43-20251014.0.x86_64.qcow2\""
        ));
    }

    // Repaired: only what failed is built, and nothing blocks. What was there is not touched.
    fs::write(&largest, sound).unwrap();
    let before = |name: &str| {
        fs::metadata(place.join("out/IoT/x86_64/images").join(name)).unwrap().modified().unwrap()
    };
    let name = "Fedora-IoT-base-qcow2-43-20251014.0.x86_64.qcow2";
    let written = before(name);
    let plan = compose(place, &["--dry-run", "--no-tests"]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(
        (plan.matches("  build").count(), plan.matches("  is there").count()),
        (3, 9),
        "{plan}"
    );
    let second = compose(place, &["--no-tests", "--json"]);
    assert!(second.status.success(), "{}", said(&second));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(told.matches("building ").count(), 1, "{told}");
    assert!(told.contains("building IoT/aarch64: qcow2, vdi, vmdk"), "{told}");
    assert_eq!(before(name), written);
    assert_eq!(status()["releasable"], true);

    // A disk that boots nowhere fails its test.
    if Command::new("qemu-system-x86_64").arg("--version").output().is_ok() {
        manifest(place, &MANIFEST.replace("name = \"boots\"", "name = \"boots\"\nblocking = true"));
        let third = compose(place, &[]);
        assert_eq!(third.status.code(), Some(1), "{}", said(&third));
        assert!(said(&third).contains("is blocked by 1 of 1"), "{}", said(&third));
        assert_ne!(status()["tests"]["base/x86_64/qcow2/boots"]["outcome"], "done");
    }
    // What is asked for in another way is another disk.
    manifest(place, &MANIFEST.replace("\"none\"]", "\"none\", \"--karg\", \"quiet\"]"));
    let plan = compose(place, &["--dry-run", "--no-tests"]);
    assert_eq!(String::from_utf8_lossy(&plan.stdout).matches("  build").count(), 12);
    manifest(place, &MANIFEST.replace("20251014.0", "20251014.1"));
    let other = compose(place, &["--no-tests"]);
    assert_eq!(other.status.code(), Some(3));
    assert!(said(&other).contains("use another --output for another compose"), "{}", said(&other));
}

#[test]
fn compose_judges_its_images_and_writes_their_bills() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    bootc_image().write_oci_layout(&place.join("sound-x86_64"));
    let text = r#"
[compose]
id = "Fedora-IoT-43-20251014.0"
variant = "IoT"
sbom = ["spdx"]
check = ["--policy", "default"]

[[image]]
name = "base"
source = "oci:sound-{arch}"
architectures = ["x86_64"]
formats = ["qcow2"]
"#;
    manifest(place, text);
    let output = compose(place, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let status = fs::read(place.join("out/status.json")).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    let report = status["tests"]["base/x86_64/check"]["file"].as_str().unwrap();
    let report = fs::read(place.join("out").join(report)).unwrap();
    serde_json::from_slice::<Value>(&report).unwrap();
    let images = place.join("out/IoT/x86_64/images");
    let name = "base-qcow2-43-20251014.0.x86_64.qcow2.spdx.json";
    assert!(
        images.join(name).is_file(),
        "{:?}",
        fs::read_dir(&images).unwrap().map(|one| one.unwrap().file_name()).collect::<Vec<_>>()
    );
}
