//! Builds that take unpacked layers from the cache: the same bytes as from scratch, whatever is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use support::Build;
use support::bootc_image::bootc_image;
use support::tiny_image::TinyImage;

/// Images that share their lower layers; the last one labels everything.
fn images() -> [(&'static str, TinyImage); 3] {
    let top = |text: &str| {
        bootc_image().layer(|l| l.file("usr/share/top", text).whiteout("usr/bin/ping"))
    };
    let labelled = bootc_image().layer(|l| {
        l.file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n").file(
            "etc/selinux/targeted/contexts/files/file_contexts",
            "/.* system_u:object_r:any_t:s0\n/usr/share(/.*)? system_u:object_r:usr_t:s0\n",
        )
    });
    [("one", top("one")), ("two", top("two")), ("labelled", labelled)]
}

struct Workshop(tempfile::TempDir);

impl Workshop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, image) in images() {
            image.write_oci_layout(&directory.path().join(name));
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The disk of an image as qcow2, with a cache or without one.
    fn build(&self, image: &str, cache: Option<&str>) -> Vec<u8> {
        let disk = tempfile::NamedTempFile::new_in(self.0.path()).unwrap();
        let build = Build::new(format!("oci:{}", self.path(image).display()))
            .format("qcow2")
            .flags(["--target-imgref", "example.com/tiny:43"])
            .output(disk.path());
        match cache {
            Some(cache) => build.env("XDG_CACHE_HOME", self.path(cache)).run(),
            None => build.run(),
        };
        fs::read(disk.path()).unwrap()
    }

    /// The unpacked layers of a cache, and their checksums.
    fn kept(&self, cache: &str) -> Vec<PathBuf> {
        let directory = self.path(cache).join("bootpress/unpacked");
        let mut files: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn change_first_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn disk_from_kept_layers_is_the_disk_from_scratch() {
    let workshop = Workshop::new();
    let scratch = images().map(|(name, _)| workshop.build(name, None));
    assert!(scratch[0] != scratch[1] && scratch[0] != scratch[2]);
    let check = |why: &str| {
        for ((name, _), scratch) in images().iter().zip(&scratch) {
            assert!(workshop.build(name, Some("cache")) == *scratch, "{name}: {why}");
        }
    };
    check("with an empty cache");
    // Three shared layers, three tops.
    let files = workshop.kept("cache");
    let is_sums = |path: &&PathBuf| path.extension().is_some();
    assert_eq!(files.iter().filter(|path| !is_sums(path)).count(), 6, "{files:?}");
    assert!(files.iter().filter(is_sums).count() >= 3, "{files:?}");
    check("with a full cache");
    for file in workshop.kept("cache").iter().filter(is_sums) {
        change_first_byte(file);
    }
    check("with damaged checksums");
    for file in workshop.kept("cache").iter().filter(|path| !is_sums(path)) {
        change_first_byte(file);
    }
    check("with damaged layers");
    check("with mended layers");
    assert_eq!(workshop.kept("cache").iter().filter(|path| !is_sums(path)).count(), 6);
}

#[test]
fn builds_at_the_same_time_share_a_cache() {
    let workshop = Workshop::new();
    let scratch = workshop.build("one", None);
    thread::scope(|scope| {
        let builds = [0; 3].map(|_| scope.spawn(|| workshop.build("one", Some("cache"))));
        for build in builds {
            assert!(build.join().unwrap() == scratch);
        }
    });
    let left = workshop.kept("cache");
    assert!(left.iter().all(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')));
}
