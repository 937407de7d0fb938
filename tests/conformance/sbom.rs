//! Packages and bills of materials: against rpm and dpkg-query on real databases, and before the validators of both formats.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::content::ContentStore;
use bootpress::packages::{self, Inventory, Manager, Package};
use bootpress::tree::{Metadata, Tree};
use serde_json::{Value, json};
use support::Build;
use support::bootc_image::bootc_image;
use support::tiny_image::{Blobs, TinyImage, digest};
use support::tool::{fetched, run, tool};
use tempfile::TempDir;

/// The packages of a tree with these files.
fn inventory(files: &[(&str, &[u8])]) -> Inventory {
    let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
    let mut tree = Tree::new(Metadata::root(0o755));
    for (path, bytes) in files {
        tree.put(path, contents.insert_bytes(bytes).unwrap());
    }
    packages::read(&tree, &contents)
}

/// A package as `rpm -qa` is asked to print it.
fn line(package: &Package) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "(none)".to_owned());
    let epoch = package.epoch.map_or_else(|| "(none)".to_owned(), |epoch| epoch.to_string());
    let Package { name, version, architecture, .. } = package;
    let (licence, source) = (or_none(&package.licence), or_none(&package.source));
    format!("{name}|{epoch}|{version}|{architecture}|{licence}|{source}|{}", or_none(&package.url))
}

const QUERY: &str =
    "%{NAME}|%{EPOCH}|%{VERSION}-%{RELEASE}|%{ARCH}|%{LICENSE}|%{SOURCERPM}|%{URL}\\n";

/// Databases that rpm has made, each with the lines that rpm prints about it.
struct Rpm {
    place: TempDir,
}

impl Rpm {
    /// Packages of three sizes, so that headers take a part of a page, more than one, and many.
    fn new() -> Option<Self> {
        let place = TempDir::new().unwrap();
        for (number, lines) in [(0, 2), (1, 40), (2, 2000)] {
            tool("rpmbuild")?;
            let long =
                "a line of a description that makes the header larger than a page\n".repeat(lines);
            let epoch = if number == 1 { "Epoch: 3\n" } else { "" };
            let spec = format!(
                "Name: tiny{number}\nVersion: 1.{number}+git\nRelease: {number}.fc43\n{epoch}Summary: A package\n\
                 License: MIT AND GPL-2.0-or-later\nURL: https://example.org/tiny\nVendor: Somebody (of us)\n\
                 BuildArch: noarch\n%description\n{long}\n%files\n"
            );
            let file = place.path().join(format!("{number}.spec"));
            fs::write(&file, spec).unwrap();
            let mut build = tool("rpmbuild")?;
            build
                .args(["-bb", "--quiet", "--define"])
                .arg(format!("_topdir {}", place.path().display()));
            run(build.arg(&file));
        }
        Some(Self { place })
    }

    fn packages(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.place.path().join("RPMS/noarch")).unwrap();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Installs the packages into a new database, and asks about it. `rpm`: which one, and with which settings.
    fn database(
        &self,
        name: &str,
        backend: &str,
        rpm: &dyn Fn() -> Command,
    ) -> (PathBuf, BTreeSet<String>) {
        let at = self.place.path().join(name);
        fs::create_dir(&at).unwrap();
        let ours = |arguments: &[&str]| {
            let mut command = rpm();
            command.args(["--define", &format!("_db_backend {backend}"), "--dbpath"]).arg(&at);
            command.args(arguments);
            command
        };
        run(&mut ours(&["--initdb"]));
        let mut install =
            ours(&["-i", "--nodeps", "--justdb", "--noscripts", "--nosignature", "--nodigest"]);
        // As root of its own, so that nothing of this machine is looked at; it says on Debian that one should not.
        run(install.args(self.packages()));
        let output = ours(&["-qa", "--qf", QUERY]).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        (at, lines)
    }
}

fn debian_rpm() -> Command {
    tool("rpm").unwrap()
}

fn found(inventory: &Inventory) -> BTreeSet<String> {
    assert_eq!(inventory.warnings, Vec::<String>::new());
    inventory.packages.iter().map(line).collect()
}

#[test]
fn packages_of_sqlite_are_those_of_rpm() {
    let (Some(rpm), Some(_)) = (Rpm::new(), tool("rpm")) else { return };
    let (at, expected) = rpm.database("sqlite", "sqlite", &debian_rpm);
    assert_eq!(expected.len(), 3, "{expected:?}");
    let database = fs::read(at.join("rpmdb.sqlite")).unwrap();
    for path in [
        "usr/lib/sysimage/rpm/rpmdb.sqlite",
        "usr/share/rpm/rpmdb.sqlite",
        "var/lib/rpm/rpmdb.sqlite",
    ] {
        let inventory = inventory(&[(path, &database)]);
        assert_eq!(found(&inventory), expected);
        assert_eq!(inventory.databases, [path]);
    }
    // A change that is in the write-ahead log only: sqlite itself makes it.
    let script = "import shutil, sqlite3, sys\n\
        at = sys.argv[1]\n\
        db = sqlite3.connect(at + '/rpmdb.sqlite', isolation_level=None)\n\
        db.execute('PRAGMA journal_mode=WAL')\ndb.execute('PRAGMA wal_autocheckpoint=0')\n\
        db.execute('DELETE FROM Packages WHERE hnum = 1')\n\
        db.execute('BEGIN')\ndb.execute('DELETE FROM Packages WHERE hnum = 2')\n\
        for end in ('', '-wal'): shutil.copy(at + '/rpmdb.sqlite' + end, at + '/copy' + end)\n";
    run(Command::new("python3").args(["-c", script]).arg(&at));
    let (copy, log) = (fs::read(at.join("copy")).unwrap(), fs::read(at.join("copy-wal")).unwrap());
    assert!(!log.is_empty());
    let directory = "usr/lib/sysimage/rpm";
    let with_log = inventory(&[
        (&format!("{directory}/rpmdb.sqlite"), &copy),
        (&format!("{directory}/rpmdb.sqlite-wal"), &log),
    ]);
    assert_eq!(found(&with_log).len(), 2, "what was committed counts, and nothing else");
    assert_eq!(found(&inventory(&[(&format!("{directory}/rpmdb.sqlite"), &copy)])), expected);
    hostile(&format!("{directory}/rpmdb.sqlite"), &database);
}

#[test]
fn packages_of_ndb_are_those_of_rpm() {
    // Debian's stable rpm is built without it, the newest one with it.
    let newest = fetched("rpm").join("bin/rpm");
    if !newest.exists() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "run tests/support/forky target/rpm rpm rpm"
        );
        return;
    }
    let Some(rpm) = Rpm::new() else { return };
    let configuration = fetched("rpm").join("root/usr/lib/rpm");
    let command = || {
        let mut command = Command::new(&newest);
        command.env("RPM_CONFIGDIR", &configuration);
        command
    };
    let (at, expected) = rpm.database("ndb", "ndb", &command);
    assert_eq!(expected.len(), 3, "{expected:?}");
    let database = fs::read(at.join("Packages.db")).unwrap();
    assert_eq!(found(&inventory(&[("usr/lib/sysimage/rpm/Packages.db", &database)])), expected);
    hostile("usr/lib/sysimage/rpm/Packages.db", &database);
}

/// Bytes changed and cut off at places that a simple generator picks: an error or packages, never a panic, and always an end.
fn hostile(path: &str, database: &[u8]) {
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for round in 0..300 {
        let mut broken = database.to_vec();
        for _ in 0..=next(20) {
            // Heads of pages are where the pointers are.
            let at = if round % 2 == 0 {
                next(broken.len())
            } else {
                next(broken.len() / 4096) * 4096 + next(24)
            };
            let value = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
            broken[at] = value;
        }
        if round % 5 == 0 {
            broken.truncate(next(broken.len()));
        }
        let inventory = inventory(&[(path, &broken)]);
        assert!(inventory.packages.len() <= 100, "{}", inventory.packages.len());
    }
}

#[test]
fn packages_of_dpkg_are_those_of_dpkg_query() {
    let Some(mut query) = tool("dpkg-query") else { return };
    let Ok(status) = fs::read("/var/lib/dpkg/status") else { return };
    query.args(["-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"]);
    let told = run(&mut query);
    let expected: BTreeSet<&str> =
        told.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    assert!(expected.len() > 100);
    let copyright = b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: MIT\n Text.\n\nFiles: x\nLicense: GPL-2+\n";
    let inventory =
        inventory(&[("var/lib/dpkg/status", &status), ("usr/share/doc/dpkg/copyright", copyright)]);
    let lines: BTreeSet<String> = inventory
        .packages
        .iter()
        .map(|package| format!("{} {} {}", package.name, package.version, package.architecture))
        .collect();
    assert_eq!(lines.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    let dpkg = inventory.packages.iter().find(|package| package.name == "dpkg").unwrap();
    assert_eq!(dpkg.licence.as_deref(), Some("GPL-2+ AND MIT"));
    // Of a source package of its own name; the C library is built from another one.
    assert_eq!(dpkg.source, None);
    let libc = inventory.packages.iter().find(|package| package.name == "libc6").unwrap();
    assert!(libc.source.as_deref().is_some_and(|source| source.starts_with("glibc ")), "{libc:?}");
}

#[test]
fn packages_of_apk_and_pacman_are_read() {
    let apk = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nT:the musl c library\nU:https://musl.libc.org/\nL:MIT\no:musl\nm:Somebody <s@example.org>\nF:lib\nR:ld.so\n\nP:busybox\nV:1.37.0-r12\nA:x86_64\nL:GPL-2.0-only\n\n";
    let desc = "%NAME%\nbash\n\n%VERSION%\n5.3.3-1\n\n%BASE%\nbash\n\n%DESC%\nThe shell\n\n%ARCH%\nx86_64\n\n%LICENSE%\nGPL-3.0-or-later\nMIT\n\n";
    let found = inventory(&[
        ("usr/lib/apk/db/installed", apk.as_bytes()),
        ("usr/lib/sysimage/lib/pacman/local/bash-5.3.3-1/desc", desc.as_bytes()),
    ]);
    let lines: Vec<String> = found
        .packages
        .iter()
        .map(|one| {
            format!(
                "{:?} {} {} {}",
                one.manager,
                one.name,
                one.version,
                one.licence.as_deref().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "Apk busybox 1.37.0-r12 GPL-2.0-only",
            "Apk musl 1.2.5-r0 MIT",
            "Alpm bash 5.3.3-1 GPL-3.0-or-later AND MIT"
        ]
    );
    assert_eq!(found.packages[2].manager, Manager::Alpm);
}

#[test]
fn database_that_is_none_is_a_warning() {
    for (path, bytes, wanted) in [
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", &b"nonsense"[..], "shorter than its header"),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", &[7; 4096], "does not begin like an sqlite file"),
        (
            "usr/share/rpm/Packages.db",
            b"RpmP\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            "version 1 is not known",
        ),
        ("var/lib/rpm/Packages", b"\0", "Berkeley DB"),
    ] {
        let inventory = inventory(&[(path, bytes)]);
        assert!(inventory.packages.is_empty());
        assert!(inventory.warnings[0].contains(wanted), "{:?}", inventory.warnings);
    }
}

/// A bootc image with a package database, and names that mean harm in it.
fn image_with_packages() -> TinyImage {
    let package = |name: &str, licence: &str, url: &str| {
        format!(
            "P:{name}\nV:1.0-r0\nA:x86_64\nT:a \u{1b}[2J package\nU:{url}\nL:{licence}\nm:Somebody\no:source\n\n"
        )
    };
    let database = [
        package("plain", "MIT AND (GPL-2.0-only OR Apache-2.0)", "https://example.org/"),
        package("old-style", "GPLv2+ and MIT", "not a url \u{7}"),
        package("na\u{202e}me with blanks", "custom:<b>", "javascript:alert(1)"),
        package("g++", "LicenseRef-x", "http://example.org/a|b"),
    ]
    .concat();
    bootc_image().layer(|layer| {
        layer
            .file("usr/lib/apk/db/installed", database)
            .file("usr/lib/os-release", "ID=fedora\nVERSION_ID=43\nPRETTY_NAME=\"Tiny Linux 43\"\n")
    })
}

fn build(place: &Path, output: &str) -> Vec<PathBuf> {
    fs::create_dir_all(place.join(output)).unwrap();
    let built = Build::new("oci:image")
        .directory(place)
        .flags(["--format", "raw,qcow2", "--sbom", "spdx,cyclonedx", "--output", output])
        .run();
    let documents = built.report["documents"].as_array().unwrap();
    documents.iter().map(|one| place.join(one["path"].as_str().unwrap())).collect()
}

#[test]
fn documents_are_accepted_by_the_validators_and_depend_on_nothing_else() {
    let place = TempDir::new().unwrap();
    image_with_packages().write_oci_layout(&place.path().join("image"));
    let documents = build(place.path(), "one");
    assert_eq!(documents.len(), 2, "{documents:?}");
    let again = build(place.path(), "two");
    for (one, two) in documents.iter().zip(&again) {
        assert_eq!(one.file_name(), two.file_name());
        assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap(), "{}", one.display());
    }
    let [spdx, cyclonedx] = &documents[..] else { panic!() };
    let spdx_json: Value = serde_json::from_slice(&fs::read(spdx).unwrap()).unwrap();
    let names: BTreeSet<&str> = spdx_json["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(names.contains("plain") && names.contains("g++"), "{names:?}");
    let validators = fetched("documents");
    if !validators.join("complete").exists() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "run tests/support/documents target/documents"
        );
        return;
    }
    let script = "import sys\n\
        from spdx_tools.spdx.parser.parse_anything import parse_file\n\
        from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document\n\
        from cyclonedx.schema import SchemaVersion\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        from lib4sbom.parser import SBOMParser\n\
        spdx, cyclonedx = sys.argv[1:]\n\
        told = [m.validation_message for m in validate_full_spdx_document(parse_file(spdx))]\n\
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(cyclonedx).read())\n\
        if told or error: sys.exit(repr((told, error)))\n\
        for file in (spdx, cyclonedx):\n\
        \x20   parser = SBOMParser()\n\
        \x20   parser.parse_file(file)\n\
        \x20   names = {p['name'] for p in parser.get_packages()}\n\
        \x20   if not {'plain', 'old-style', 'g++'} <= names: sys.exit(file + ': ' + repr(names))\n";
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", validators).args(["-c", script]).args([spdx, cyclonedx]);
    run(&mut python);
}

/// An index as BuildKit makes it: an image, and a manifest with a statement about it.
fn with_attestation(image: &TinyImage, document: &Value) -> Blobs {
    let Blobs { manifest, mut blobs } = image.blobs();
    let mut put = |media_type: &str, bytes: Vec<u8>| {
        let descriptor =
            json!({ "mediaType": media_type, "digest": digest(&bytes), "size": bytes.len() });
        blobs.insert(digest(&bytes), bytes);
        descriptor
    };
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://spdx.dev/Document",
        "predicate": document,
    });
    let config = put("application/vnd.oci.image.config.v1+json", b"{}".to_vec());
    let mut layer = put("application/vnd.in-toto+json", serde_json::to_vec(&statement).unwrap());
    layer["annotations"] = json!({ "in-toto.io/predicate-type": "https://spdx.dev/Document" });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let attestation = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer] });
    let mut attestation = put(manifest_type, serde_json::to_vec(&attestation).unwrap());
    attestation["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": manifest["digest"],
    });
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": [manifest, attestation] });
    let manifest = put(index_type, serde_json::to_vec(&index).unwrap());
    Blobs { manifest, blobs }
}

#[test]
fn document_that_came_with_the_image_is_kept_and_linked() {
    let place = TempDir::new().unwrap();
    let namespace = "https://example.org/spdx/1";
    let document = json!({ "spdxVersion": "SPDX-2.3", "documentNamespace": namespace });
    with_attestation(&image_with_packages(), &document)
        .write_oci_layout(&place.path().join("image"));
    let documents = build(place.path(), "out");
    let [source, spdx, _] = &documents[..] else { panic!("{documents:?}") };
    assert!(source.to_str().unwrap().ends_with(".source.spdx.json"), "{}", source.display());
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    assert_eq!(read(source), document);
    let spdx = read(spdx);
    assert_eq!(spdx["externalDocumentRefs"][0]["spdxDocument"], namespace);
    let related = spdx["relationships"].as_array().unwrap().iter();
    assert_eq!(related.filter(|one| one["relationshipType"] == "DESCRIBED_BY").count(), 1);
}
