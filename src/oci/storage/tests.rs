//! Where stores are looked for, what names mean in them, and files of layers that are not what they were.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use super::config::Surroundings;
use super::*;
use crate::error::{Corrupt, Unsupported};

fn stores(
    spec: Option<&str>,
    uid: u32,
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Stores> {
    let spec = spec.map(|spec| Spec::parse(spec).unwrap().0.unwrap());
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let surroundings = Surroundings {
        uid,
        variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
        read: &|path| Ok(files.get(path.to_str().unwrap()).map(|text| (*text).to_owned())),
    };
    Stores::in_surroundings(spec.as_ref(), &surroundings)
}

#[test]
fn stores_are_found_as_container_tools_find_them() {
    const ETC: &str = "/etc/containers/storage.conf";
    const USER: &str = "/home/u/.config/containers/storage.conf";
    let home = [("HOME", "/home/u"), ("USER", "u")];
    let check = |spec,
                 uid,
                 more: &[(&str, &str)],
                 files: &[(&str, &str)],
                 roots: &[&str],
                 driver: Option<&str>| {
        let found = stores(spec, uid, &[&home[..], more].concat(), files).unwrap();
        let expected = Stores {
            driver: driver.map(str::to_owned),
            roots: roots.iter().map(PathBuf::from).collect(),
        };
        assert_eq!(found, expected);
    };
    let system = "/var/lib/containers/storage";
    let own = "/home/u/.local/share/containers/storage";
    check(None, 0, &[], &[], &[system], None);
    check(None, 1000, &[], &[], &[own], None);
    check(None, 1000, &[("XDG_DATA_HOME", "/d")], &[], &["/d/containers/storage"], None);
    check(Some("[vfs@/r+/run:x=y]"), 0, &[], &[], &["/r"], Some("vfs"));
    check(Some("[/r]"), 0, &[("STORAGE_DRIVER", "vfs")], &[], &["/r"], None);
    check(None, 0, &[("STORAGE_DRIVER", "vfs")], &[], &[system], Some("vfs"));
    let conf = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/g\"\nrootless_storage_path = \"/s/$USER/$UID\"\n[storage.options]\nadditionalimagestores = [\"/a\", \"/b:ref\"]\n[storage.options.overlay]\nmountopt = \"nodev\"\n";
    check(None, 0, &[], &[(ETC, conf)], &["/g", "/a", "/b"], Some("overlay"));
    check(None, 1000, &[], &[(ETC, conf)], &["/s/u/1000", "/a", "/b"], Some("overlay"));
    let user = "[storage]\ndriver = \"vfs\"\ngraphroot = \"$HOME/g\"\n";
    let files = [(ETC, conf), (USER, user)];
    check(None, 1000, &[], &files, &["/home/u/g", "/a", "/b"], Some("vfs"));
    check(None, 0, &[], &files, &["/g", "/a", "/b"], Some("overlay"));
    let named = [("CONTAINERS_STORAGE_CONF", "/c")];
    check(None, 0, &named, &[(ETC, conf), ("/c", user)], &["/home/u/g"], Some("vfs"));
    assert!(stores(None, 0, &named, &[]).is_err());
    assert!(stores(None, 0, &[], &[(ETC, "[")]).unwrap_err().is::<Corrupt>());
    assert!(stores(Some("[btrfs@/r]"), 0, &[], &[]).unwrap_err().is::<Unsupported>());
}

#[test]
fn keys_of_big_data_become_names_of_files() {
    assert_eq!(big_data_name("manifest"), "manifest");
    assert_eq!(big_data_name("manifest-sha256:00"), "=bWFuaWZlc3Qtc2hhMjU2OjAw");
    assert_eq!(big_data_name("../x"), "=Li4veA==");
    for bad in ["", "..", "a/b", "a b"] {
        assert!(plain(bad).is_err());
    }
}

fn record(id: &str, names: &[&str]) -> ImageRecord {
    ImageRecord {
        id: id.repeat(32),
        digest: Some(format!("sha256:{}", "d".repeat(64))),
        names: Some(names.iter().map(|&name| name.to_owned()).collect()),
        layer: String::new(),
        metadata: String::new(),
        big_data_names: None,
    }
}

#[test]
fn names_mean_what_podman_means_by_them() {
    let images = vec![
        record("aa", &["quay.io/a/tiny:1"]),
        record("ab", &["localhost/tiny:latest", "quay.io/b/tiny:2"]),
        record("cc", &["quay.io/c/other:1", "docker.io/library/busybox:latest"]),
        record("dd", &["quay.io/d/other:1"]),
        record("ee", &[]),
    ];
    let stores = [Store { root: "/r".into(), driver: "vfs", images }];
    let found = |name: &str| {
        find(&stores, name, "/r").map(|(_, image, name)| (image.id[..2].to_owned(), name))
    };
    let digest = format!("quay.io/a/tiny@sha256:{}", "d".repeat(64));
    for (name, id, called) in [
        ("quay.io/a/tiny:1", "aa", Some("quay.io/a/tiny:1")),
        (&*digest, "aa", Some(&*digest)),
        ("tiny", "ab", Some("localhost/tiny:latest")),
        ("tiny:1", "aa", Some("quay.io/a/tiny:1")),
        ("a/tiny:1", "aa", Some("quay.io/a/tiny:1")),
        ("tiny:2", "ab", Some("quay.io/b/tiny:2")),
        ("busybox", "cc", Some("docker.io/library/busybox:latest")),
        ("@ee", "ee", None),
        ("eeee", "ee", None),
        ("@aa", "aa", Some("quay.io/a/tiny:1")),
        ("quay.io/b/tiny:2@ab", "ab", Some("quay.io/b/tiny:2")),
    ] {
        let expected = (id.to_owned(), called.map(str::to_owned));
        assert_eq!(found(name).unwrap(), expected, "{name}");
    }
    for (name, reason) in [
        ("other:1", "say which"),
        ("iny:1", "there is no image"),
        ("quay.io/a/tiny:2", "there is no image"),
        ("@a", "several images"),
        ("@ff", "no image"),
        ("quay.io/b/tiny:2@aa", "is not called"),
        (&digest.replace("d", "e"), "there is no image"),
    ] {
        let error = found(name).unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

/// A layer of one file, `dir/f`, taken apart; `change` may meddle.
fn put_together(lines: &str, change: impl FnOnce(&Path)) -> std::io::Result<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("diff");
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::write(root.join("dir/f"), "content").unwrap();
    change(&root);
    let file = directory.path().join("layer.tar-split.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    fs::write(&file, gzip.finish().unwrap()).unwrap();
    let mut bytes = Vec::new();
    TarSplit::open(&file, &root).unwrap().read_to_end(&mut bytes).map(|_| bytes)
}

const LINES: &str = "{\"type\":2,\"payload\":\"SEVBRA==\",\"position\":0}\n{\"type\":1,\"name\":\"dir/\",\"payload\":null}\n{\"type\":1,\"name\":\"./dir/f\",\"size\":7,\"payload\":\"AAAAAAAAAAA=\"}\n{\"type\":2,\"payload\":\"VEFJTA==\"}\n";

#[test]
fn layers_are_put_together_again() {
    assert_eq!(put_together(LINES, |_| ()).unwrap(), b"HEADcontentTAIL");
    let raw = LINES.replace("\"name\":\"./dir/f\"", "\"name\":\"\",\"name_raw\":\"ZGlyL2Y=\"");
    assert_eq!(put_together(&raw, |_| ()).unwrap(), b"HEADcontentTAIL");
    // An absolute link begins at the layer's root, as when the layer was unpacked.
    let linked = LINES.replace("./dir/f", "link/f");
    let link = |root: &Path| std::os::unix::fs::symlink("/dir", root.join("link")).unwrap();
    assert_eq!(put_together(&linked, link).unwrap(), b"HEADcontentTAIL");
    assert_eq!(put_together("", |_| ()).unwrap(), b"");
}

#[test]
fn layers_lead_nowhere_else() {
    let replaced = |target: &'static str| {
        move |root: &Path| {
            fs::remove_file(root.join("dir/f")).unwrap();
            std::os::unix::fs::symlink(target, root.join("dir/f")).unwrap();
        }
    };
    assert!(put_together(LINES, replaced("/etc/passwd")).is_err());
    assert!(put_together(LINES, replaced("../../../../../../../../etc/passwd")).is_err());
    assert!(
        put_together(&LINES.replace("./dir/f", "../../../../../etc/hostname"), |_| ()).is_err()
    );
    let pipe = |root: &Path| {
        fs::remove_file(root.join("dir/f")).unwrap();
        nix::unistd::mkfifo(&root.join("dir/f"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    };
    assert!(put_together(LINES, pipe).unwrap_err().to_string().contains("not a file any more"));
    let short = |root: &Path| fs::write(root.join("dir/f"), "conten").unwrap();
    assert!(put_together(LINES, short).unwrap_err().to_string().contains("shorter than it was"));
    let long = |root: &Path| fs::write(root.join("dir/f"), "content and more").unwrap();
    assert_eq!(put_together(LINES, long).unwrap(), b"HEADcontentTAIL");
    for bad in ["{", "{}\n", "{\"type\":3}\n", "{\"type\":2,\"payload\":\"*\"}\n", "[]\n"] {
        assert!(put_together(bad, |_| ()).is_err(), "{bad}");
    }
}
