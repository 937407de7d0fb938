//! Disk files, read by qemu-img and imago, and hashed by sha256sum.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bootpress::content::{Content, ContentStore};
use bootpress::output::{self, FileReport, Format};
use bootpress::progress::Progress;
use bootpress::sparse::SparseMap;
use imago::SyncFormatAccess;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;

use crate::tool::{run, tool};

const MIB: u64 = 1 << 20;
const CLUSTER: u64 = 64 << 10;

fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

fn noise(contents: &ContentStore) -> Content {
    let bytes = (0..3 * MIB as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8 | 1);
    contents.insert_bytes(&bytes.collect::<Vec<_>>()).unwrap()
}

#[test]
fn an_empty_disk() {
    agree(&SparseMap::new(8 * MIB), &store());
}

#[test]
fn a_last_cluster_that_is_not_whole() {
    let contents = store();
    let (noise, zeros) = (noise(&contents), contents.insert_bytes(&[0; 300_000]).unwrap());
    let mut map = SparseMap::new(5 * MIB + 512);
    map.put(0, b"begin".to_vec());
    map.put_content(MIB - 3, noise.id, 17, CLUSTER + 5);
    map.put(2 * MIB, vec![0; 300_000]);
    map.put_content(3 * MIB, zeros.id, 0, zeros.size);
    map.put(5 * MIB, vec![9; 512]);
    agree(&map, &contents);
}

/// An L2 table stands for 512 MiB: data on both sides of the border.
#[test]
fn data_across_two_l2_tables() {
    let contents = store();
    let noise = noise(&contents);
    let mut map = SparseMap::new(520 * MIB);
    map.put_content(511 * MIB, noise.id, 0, noise.size);
    agree(&map, &contents);
}

#[test]
fn no_first_l2_table() {
    let contents = store();
    let mut map = SparseMap::new(600 * MIB);
    map.put(560 * MIB + 70_000, b"lonely".to_vec());
    agree(&map, &contents);
}

/// Writes a disk in every format and asks every witness.
#[track_caller]
fn agree(map: &SparseMap, contents: &ContentStore) {
    let directory = tempfile::tempdir().unwrap();
    let targets = Format::ALL.map(|format| (format, directory.path().join(format.extension())));
    let reports = output::write(map, contents, &targets, &Progress::default()).unwrap();
    let [raw, qcow2] = &reports[..] else { panic!("{reports:?}") };

    let file = File::open(&raw.path).unwrap();
    assert_eq!((raw.size, file.metadata().unwrap().len()), (map.size(), map.size()));
    let used = compare(map, contents, |offset, buffer| file.read_exact_at(buffer, offset).unwrap());
    assert!(raw.allocated <= map.allocated() + (64 << 10), "{raw:?}");

    let image = Qcow2::<Storage>::open_path_sync(&qcow2.path, false).unwrap();
    let image = SyncFormatAccess::new(image).unwrap();
    assert_eq!(image.size(), map.size());
    compare(map, contents, |offset, buffer| image.read(buffer, offset).unwrap());

    if let Some(mut qemu_img) = tool("qemu-img") {
        assert_eq!(check(&qcow2.path), used, "clusters of data");
        run(qemu_img.args(["compare", "-f", "raw", "-F", "qcow2"]).args([&raw.path, &qcow2.path]));
    }
    // Not the larger ones: where the processor does not help it, sha256sum takes seconds for zeros.
    for FileReport { path, sha256, .. } in reports.iter().filter(|_| map.size() < 64 * MIB) {
        if let Some(mut sha256sum) = tool("sha256sum") {
            assert_eq!(run(sha256sum.arg(path)).split(' ').next(), Some(sha256.as_str()));
        }
    }
}

/// Reads a whole disk beside its map; how many of its clusters are not zero.
#[track_caller]
fn compare(map: &SparseMap, contents: &ContentStore, mut read: impl FnMut(u64, &mut [u8])) -> u64 {
    let (mut offset, mut used) = (0, 0);
    let (mut expected, mut found) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    let zeros = [0; CLUSTER as usize];
    while offset < map.size() {
        let len = (map.size() - offset).min(4 * MIB) as usize;
        let (expected, found) = (&mut expected[..len], &mut found[..len]);
        found.fill(9);
        map.read_at(contents, offset, expected).unwrap();
        read(offset, found);
        assert!(expected == found, "they differ in {len} bytes from {offset} on");
        let cluster_used = |cluster: &&[u8]| *cluster != &zeros[..cluster.len()];
        used += expected.chunks(CLUSTER as usize).filter(cluster_used).count() as u64;
        offset += len as u64;
    }
    used
}

/// `qemu-img check` mends nothing and says how many clusters are wrong, leaked, or hold data.
#[track_caller]
fn check(path: &Path) -> u64 {
    let mut qemu_img = tool("qemu-img").expect("was here before");
    let found = run(qemu_img.args(["check", "--output=json", "-f", "qcow2"]).arg(path));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    for field in ["check-errors", "corruptions", "leaks"] {
        assert_eq!(found[field].as_u64().unwrap_or(0), 0, "{found}");
    }
    found["allocated-clusters"].as_u64().unwrap_or(0)
}
