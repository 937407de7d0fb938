//! The fixture as large distributions publish their images: a commit that the image carries, and three layers above it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bootpress::architecture::Architecture;
use bootpress::content::ContentStore;
use bootpress::image::{Image, LayerRecord};
use bootpress::oci;
use bootpress::ostree::{Labels, unite};
use bootpress::progress::Progress;
use bootpress::selinux::Policy;
use bootpress::tree::{Metadata, Tree};

use crate::disk::Disk;
use crate::encapsulated::{derive, encapsulate};
use support::tiny_image::{Compression, TinyLayer};

/// Layers of the fixture that become the commit: the system, and its kernel. Three stay above them.
const LOWEST: usize = 2;

/// The tag of the next version, beside `latest`.
pub(crate) const NEXT: &str = "next";

/// Beside the layout: the objects that the image carries, a path below `objects` to a line.
const CARRIED: &str = "carried";

/// Makes such an image of a layout, into a directory. If it has an SELinux policy, the commit has its labels, as a compose's has.
pub(crate) fn remake(layout: &Path, directory: &Path) {
    let progress = Progress::default();
    let reference = format!("oci:{}:latest", layout.display()).parse().unwrap();
    let source = oci::open(&reference, Architecture::X86_64, &progress).unwrap();
    let source = source.unjudged("tests vouch for what they make");
    let contents = ContentStore::create_in(directory).unwrap();
    let mut layers = source.unpack(&contents, &progress).unwrap();
    let above = source.image.layers[LOWEST..].to_vec();
    layers.truncate(LOWEST);
    let image = Image { layers: source.image.layers[..LOWEST].to_vec(), ..source.image.clone() };

    let union = unite(&image, layers, &contents).unwrap();
    let policy = Policy::load(&union.root, &contents).unwrap();
    let labels = policy.as_ref().map(|policy| |path: &str, mode| policy.label(path, mode));
    let labels = labels.as_ref().map(|labels| labels as &Labels<'_>);
    let (repository, committed) = union
        .commit(&image, "docker://registry.example/base:1", labels, &contents, &progress)
        .unwrap();
    let mut sysroot = Tree::new(Metadata::root(0o755));
    repository.place(&mut sysroot, &[], &contents).unwrap();

    let mut carrying = encapsulate(&sysroot, &contents, &committed.checksum.to_string())
        .tag("latest")
        .label("org.opencontainers.image.version", "forky.1")
        .compression(Compression::Zstd);
    for record in &above {
        carrying = carrying.archive_layer(archive(layout, record));
    }
    carrying.write_oci_layout(directory);
    derive(directory, "latest", &[next()], NEXT);

    // The commits of the layers it was made of are no part of it.
    let own = committed.checksum.to_string();
    let objects = sysroot.walk_from(sysroot.find("ostree/repo/objects").unwrap());
    let names = objects.map(|(name, _)| String::from_utf8(name).unwrap());
    let carried = names.filter(|name| match name.rsplit_once('.') {
        None => false,
        Some((checksum, "commit")) => checksum.replace('/', "") == own,
        Some(_) => true,
    });
    let list: Vec<String> = carried.collect();
    fs::write(directory.join(CARRIED), list.join("\n")).unwrap();
}

/// The layer by which the next version differs: something of everything that an upgrade may do to `/usr` and `/etc`.
fn next() -> Vec<u8> {
    TinyLayer::default()
        .file("usr/share/fixture/version", "2\n")
        .file("etc/fixture-next", "new in 2\n")
        .file("etc/environment", "CHANGED_IN=2\n")
        .whiteout("etc/locale.conf")
        .archive()
}

/// Makes an image whose static configuration of GRUB is as bootupd before 0.2.28 had it: `blscfg` comes last, in a file of its own.
pub(crate) fn with_old_bootupd(layout: &Path, directory: &Path) {
    const STATIC: &str = "usr/lib/bootupd/grub2-static";
    let mut copy = support::tool::tool("cp").expect("cp is everywhere");
    support::tool::run(copy.args(["-a", "--"]).arg(layout.join(".")).arg(directory));
    let last = include_str!("../fixture/overlay/configs.d/10_blscfg.cfg");
    let layer = TinyLayer::default()
        .whiteout(&format!("{STATIC}/configs.d/10_blscfg.cfg"))
        // It would stand first in the menu, before what comes last, and the default would be the firmware.
        .whiteout(&format!("{STATIC}/configs.d/30_uefi-firmware.cfg"))
        .file(format!("{STATIC}/grub-static-post.cfg"), last);
    derive(directory, "latest", &[layer.archive()], "old");
    // What is pressed is the tag `latest`.
    let index = directory.join("index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let manifests = value["manifests"].as_array_mut().unwrap();
    manifests.retain(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == "old");
    manifests[0]["annotations"]["org.opencontainers.image.ref.name"] = "latest".into();
    fs::write(index, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// What a guest looks for that runs the version with [`next`] on top.
pub(crate) const IS_NEXT: &str = "\
[ \"$(cat /usr/share/fixture/version)\" = 2 ] || { echo 'the old /usr'; exit 1; }
[ -e /etc/fixture-next ] || { echo 'a new file of /etc is missing'; exit 1; }
grep -q CHANGED_IN /etc/environment || { echo 'a changed file of /etc is the old one'; exit 1; }
[ ! -e /etc/locale.conf ] || { echo 'a file of /etc that is gone is there'; exit 1; }";

/// And without.
pub(crate) const IS_FIRST: &str = "\
[ ! -e /usr/share/fixture/version ] || { echo 'the new /usr'; exit 1; }
[ ! -e /etc/fixture-next ] && [ -e /etc/locale.conf ] || { echo 'the new /etc'; exit 1; }";

/// A layer's archive, uncompressed.
fn archive(layout: &Path, record: &LayerRecord) -> Vec<u8> {
    let name = record.digest.trim_start_matches("sha256:");
    let blob = fs::read(layout.join("blobs/sha256").join(name)).unwrap();
    match record.media_type.rsplit('+').next() {
        Some("gzip") => {
            let mut archive = Vec::new();
            flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut archive).unwrap();
            archive
        }
        Some("zstd") => zstd::decode_all(&blob[..]).unwrap(),
        _ => blob,
    }
}

/// Where the layout of a pressed disk is.
pub(crate) fn layout(disk: &Disk) -> PathBuf {
    disk.pressed().file.with_file_name(disk.name())
}

/// The objects of the original commit are all on a raw disk, under their own checksums, and are what is deployed.
pub(crate) fn is_deployed(disk: &Disk) {
    let pressed = disk.pressed();
    let carried =
        fs::read_to_string(pressed.file.parent().unwrap().join(disk.name()).join(CARRIED));
    let carried: BTreeSet<String> = carried.unwrap().lines().map(str::to_owned).collect();
    let root = pressed.partition("root").expect("a root");
    let file = File::open(&pressed.file).unwrap();
    let ext4 = ext4_view::Ext4::load(Box::new(Slice { file, start: root.start })).unwrap();
    let mut found = BTreeSet::new();
    let objects = "/ostree/repo/objects";
    let names = |path: &str| -> Vec<String> {
        let name = |entry: ext4_view::DirEntry| entry.file_name().as_str().unwrap().to_owned();
        let names = ext4.read_dir(path).unwrap().map(|entry| name(entry.unwrap()));
        names.filter(|name| !name.starts_with('.')).collect()
    };
    for fan in names(objects) {
        found.extend(names(&format!("{objects}/{fan}")).iter().map(|name| format!("{fan}/{name}")));
    }
    let missing: Vec<_> = carried.difference(&found).collect();
    assert!(missing.is_empty(), "{} objects of {}: {missing:?}", missing.len(), carried.len());
    assert!(carried.len() > 1000, "only {} objects", carried.len());
}

/// A file system inside a disk.
#[derive(Debug)]
struct Slice {
    file: File,
    start: u64,
}

impl ext4_view::Ext4Read for Slice {
    fn read(
        &mut self,
        start_byte: u64,
        buffer: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.file.seek(SeekFrom::Start(self.start + start_byte))?;
        Ok(self.file.read_exact(buffer)?)
    }
}
