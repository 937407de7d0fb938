//! Disk files, read by qemu-img and imago, unpacked by tar, gzip, xz and zstd, and hashed by sha256sum.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use bootpress::architecture::Architecture;
use bootpress::content::{Content, ContentStore};
use bootpress::output::{
    self, ClusterCompression, FileFormat, FileReport, Format, Options, Target,
};
use bootpress::progress::Progress;
use bootpress::sparse::SparseMap;
use imago::SyncFormatAccess;
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use support::tool::{run, tool};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const CLUSTER: u64 = 64 << 10;

/// From here on unpacking every file takes seconds.
const LARGE: u64 = 128 * MIB;

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
    // Compresses only for who looks back further than the 4 KiB that a qcow2 allows.
    let far = random(20_000);
    map.put(4 * MIB, [&far[..], &far, &far].concat());
    // Compresses to half: pieces of it share clusters, and cross their borders.
    map.put(4 * MIB + CLUSTER, random(512 << 10).iter().map(|byte| byte & 15).collect());
    agree(&map, &contents);
}

/// Bytes that cannot be compressed.
fn random(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
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

fn options() -> Options {
    Options::new(Uuid::from_u128(0x1234_5678), Architecture::X86_64)
}

/// Files that are compressed as a whole, who unpacks them, and what they are then.
const PACKED: [(&str, &str, &str); 5] = [
    ("raw.gz", "gzip", "raw"),
    ("raw.xz", "xz", "raw"),
    ("raw.zst", "zstd", "raw"),
    ("qcow2.zst", "zstd", "qcow2"),
    ("ova.gz", "gzip", "ova"),
];

/// Every format, and some that are compressed as a whole, unless the disk is so large that unpacking takes long.
fn targets(directory: &Path, size: u64) -> Vec<Target> {
    let packed = PACKED.iter().filter(|_| size < LARGE);
    let packed = packed.map(|(name, ..)| name.parse::<FileFormat>().unwrap());
    let all = Format::ALL.into_iter().map(FileFormat::from).chain(packed);
    all.map(|format| Target::new(format, directory.join(format!("disk.{}", format.extension()))))
        .collect()
}

/// Writes a disk in every format and asks every witness.
#[track_caller]
fn agree(map: &SparseMap, contents: &ContentStore) {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let targets = targets(directory, map.size());
    let reports = output::write(map, contents, &targets, &options(), &Progress::default()).unwrap();
    let [raw, qcow2] = &reports[..2] else { panic!("{reports:?}") };

    let file = File::open(&raw.path).unwrap();
    assert_eq!((raw.size, file.metadata().unwrap().len()), (map.size(), map.size()));
    let used = compare(map, contents, |offset, buffer| file.read_exact_at(buffer, offset).unwrap());
    // Each segment may begin and end inside a block.
    let rounding = 8192 * map.segments().count() as u64;
    assert!(raw.allocated <= map.allocated() + rounding + (64 << 10), "{raw:?}");

    let image = Qcow2::<Storage>::open_path_sync(&qcow2.path, false).unwrap();
    let image = SyncFormatAccess::new(image).unwrap();
    assert_eq!(image.size(), map.size());
    compare(map, contents, |offset, buffer| image.read(buffer, offset).unwrap());

    qemu_agrees(&raw.path, &reports, used);
    compressed_clusters(map, contents, &raw.path, used);
    archives_agree(directory, &raw.path);
    if map.size() < LARGE {
        packed_files_agree(directory, &raw.path);
    }
    for FileReport { path, sha256, compression, uncompressed, .. } in &reports {
        // Not the larger ones: where the processor does not help it, sha256sum takes seconds for zeros.
        if path.metadata().unwrap().len() < 64 * MIB
            && let Some(mut sha256sum) = tool("sha256sum")
        {
            assert_eq!(run(sha256sum.arg(path)).split(' ').next(), Some(sha256.as_str()));
        }
        assert_eq!(compression.is_some(), uncompressed.is_some());
        if path.ends_with("disk.raw.xz") {
            let inside = uncompressed.as_ref().unwrap();
            assert_eq!((inside.size, &inside.sha256), (map.size(), &raw.sha256));
        }
    }
}

/// A size that differs is a warning to `qemu-img compare`, and an error to us.
#[track_caller]
fn identical(compare: &mut Command) {
    let said = run(compare);
    assert_eq!(said, "Images are identical.\n");
}

/// What `qemu-img` calls a format, and whether it can check it.
const QEMU_NAMES: [(Format, &str, bool); 5] = [
    (Format::Qcow2, "qcow2", true),
    (Format::Vmdk, "vmdk", true),
    (Format::Vhd, "vpc", false),
    (Format::Vhdx, "vhdx", true),
    (Format::Vdi, "vdi", true),
];

#[track_caller]
fn qemu_agrees(raw: &Path, reports: &[FileReport], used: u64) {
    for (format, name, checks) in QEMU_NAMES {
        let found = reports.iter().find(|file| file.format == format && file.compression.is_none());
        let path = &found.unwrap().path;
        let Some(mut qemu_img) = tool("qemu-img") else {
            return;
        };
        identical(qemu_img.args(["compare", "-f", "raw", "-F", name]).args([raw, path]));
        if checks {
            let clusters = check(path, name);
            assert!(format != Format::Qcow2 || clusters == used, "{clusters} of {used} clusters");
        }
    }
}

/// Both kinds of compressed clusters, read by QEMU and by `inspect`, which must see the same bytes; a damaged cluster is seen.
#[track_caller]
fn compressed_clusters(map: &SparseMap, contents: &ContentStore, raw: &Path, used: u64) {
    for compression in [ClusterCompression::Zlib, ClusterCompression::Zstd] {
        let path = raw.with_file_name("compressed.qcow2");
        let target = [Target::new(Format::Qcow2, &path)];
        let options = Options { qcow2_compression: Some(compression), ..options() };
        let reports =
            output::write(map, contents, &target, &options, &Progress::default()).unwrap();
        let Some(mut qemu_img) = tool("qemu-img") else {
            return;
        };
        identical(qemu_img.args(["compare", "-f", "raw", "-F", "qcow2"]).args([raw, &path]));
        assert_eq!(check(&path, "qcow2"), used, "clusters of data");
        assert!(used == 0 || reports[0].allocated < map.allocated() + 2 * MIB, "{reports:?}");
    }
}

/// The archives' own tools get the raw disk out of them.
#[track_caller]
fn archives_agree(directory: &Path, raw: &Path) {
    let out = directory.join("out");
    std::fs::create_dir(&out).unwrap();
    let same = |path: &Path| {
        let Some(mut cmp) = tool("cmp") else { return };
        run(cmp.args([raw, path]));
    };
    let Some(mut tar) = tool("tar") else { return };
    let list = run(tar.arg("-tvzf").arg(directory.join("disk.gce.tar.gz")));
    let size = raw.metadata().unwrap().len().to_string();
    assert!(list.split_whitespace().any(|word| word == size), "{size} bytes: {list}");
    let Some(mut tar) = tool("tar") else { return };
    run(tar.arg("-xzf").arg(directory.join("disk.gce.tar.gz")).arg("-C").arg(&out));
    same(&out.join("disk.raw"));
    let Some(mut tar) = tool("tar") else { return };
    run(tar.arg("-xf").arg(directory.join("disk.ova")).arg("-C").arg(&out));
    let manifest = std::fs::read_to_string(out.join("disk.mf")).unwrap();
    assert_eq!(manifest.lines().count(), 2, "{manifest}");
    for line in manifest.lines() {
        let (name, sum) = line.strip_prefix("SHA256(").unwrap().split_once(")= ").unwrap();
        let Some(mut sha256sum) = tool("sha256sum") else {
            return;
        };
        assert_eq!(run(sha256sum.arg(out.join(name))).split(' ').next(), Some(sum), "{name}");
    }
    let size = out.join("disk.vmdk").metadata().unwrap().len();
    let description = std::fs::read_to_string(out.join("disk.ovf")).unwrap();
    assert!(description.contains(&format!("ovf:size=\"{size}\"")), "{description}");
    let Some(mut qemu_img) = tool("qemu-img") else {
        return;
    };
    let vmdk = out.join("disk.vmdk");
    identical(qemu_img.args(["compare", "-f", "raw", "-F", "vmdk"]).args([raw, &vmdk]));
}

/// So do the tools that unpack whole files.
#[track_caller]
fn packed_files_agree(directory: &Path, raw: &Path) {
    for (name, unpack, original) in PACKED {
        let (name, original) = (format!("disk.{name}"), format!("disk.{original}"));
        let Some(_) = tool(unpack) else { return };
        let Some(mut shell) = tool("sh") else { return };
        let (packed, original) = (directory.join(name), directory.join(original));
        let line = "\"$1\" -dc \"$2\" | cmp - \"$3\"";
        run(shell.args(["-c", line, "sh", unpack]).args([packed, original]));
    }
    seekable(&directory.join("disk.raw.zst"), raw);
    // One stream of blocks, not a chain of streams: some readers stop at the first.
    let Some(mut xz) = tool("xz") else { return };
    let list = run(xz.args(["--robot", "--list"]).arg(directory.join("disk.raw.xz")));
    assert!(list.lines().any(|line| line.starts_with("file\t1\t")), "{list}");
}

/// Every frame, unpacked on its own from where the table at the end says that it is.
#[track_caller]
fn seekable(path: &Path, raw: &Path) {
    let (packed, raw) = (std::fs::read(path).unwrap(), File::open(raw).unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().unwrap());
    let footer = packed.len() - 9;
    assert_eq!((packed[footer + 4], u32_at(footer + 5)), (0, 0x8f92_eab1));
    let entries = footer - 8 * u32_at(footer) as usize;
    assert_eq!(u32_at(entries - 8), 0x184d_2a5e, "a skippable frame");
    assert_eq!(u32_at(entries - 4) as usize, packed.len() - entries);
    let (mut from, mut at) = (0, 0);
    for entry in (entries..footer).step_by(8) {
        let (len, size) = (u32_at(entry) as usize, u32_at(entry + 4) as usize);
        let found = zstd::bulk::decompress(&packed[from..from + len], size).unwrap();
        let mut expected = vec![0; size];
        raw.read_exact_at(&mut expected, at).unwrap();
        assert!(found == expected, "the frame at {from}");
        (from, at) = (from + len, at + size as u64);
    }
    assert_eq!((from, at), (entries - 8, raw.metadata().unwrap().len()));
}

/// The description is what its schema says as far as a parser sees it, and is the same for every machine that reads it.
#[test]
fn an_appliance_describes_itself() {
    let directory = tempfile::tempdir().unwrap();
    let mut map = SparseMap::new(8 * MIB);
    map.put(0, b"boot".to_vec());
    let target = [Target::new(Format::Ova, directory.path().join("fedora-43.x86_64.ova"))];
    output::write(&map, &store(), &target, &options(), &Progress::default()).unwrap();
    let Some(mut tar) = tool("tar") else { return };
    let list = run(tar.arg("-tvf").arg(&target[0].path));
    let names: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(
        names,
        ["fedora-43.x86_64.ovf", "fedora-43.x86_64.mf", "fedora-43.x86_64.vmdk"],
        "the description is first"
    );
    let Some(mut python) = tool("python3") else {
        return;
    };
    let said =
        run(python.args(["-c", READ_DESCRIPTION]).arg(&target[0].path).arg("fedora-43.x86_64.ovf"));
    assert_eq!(
        said,
        "capacity 8388608\ndisk ovf:/disk/disk1 parent 3\nfirmware efi\nname fedora-43.x86_64\n"
    );
}

const READ_DESCRIPTION: &str = "
import sys, tarfile, xml.etree.ElementTree as tree
text = tarfile.open(sys.argv[1]).extractfile(sys.argv[2]).read()
ovf, rasd = '{http://schemas.dmtf.org/ovf/envelope/1}', '{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}'
vmw = '{http://www.vmware.com/schema/ovf}'
root = tree.fromstring(text)
print('capacity', root.find('.//' + ovf + 'Disk').get(ovf + 'capacity'))
for item in root.iter(ovf + 'Item'):
    names = [field.tag for field in item]
    assert names == sorted(names), names
    if item.find(rasd + 'ResourceType').text == '17':
        print('disk', item.find(rasd + 'HostResource').text, 'parent', item.find(rasd + 'Parent').text)
config = root.find('.//' + vmw + 'Config')
print(config.get(vmw + 'key'), config.get(vmw + 'value'))
print('name', root.find('.//' + ovf + 'Name').text)
";

/// A disk of many blocks of every kind of compression, most of them zero; and of more stretches than a tar header holds.
#[test]
fn many_blocks() {
    let contents = store();
    let noise = noise(&contents);
    let mut map = SparseMap::new(100 * MIB);
    for place in 0..60 {
        map.put_content(place * 1536 * 1024, noise.id, place * 100, 130_000 + place * 1000);
    }
    // What cannot be compressed, between what can.
    map.put(95 * MIB, random((3 << 20) + 70_000));
    agree(&map, &contents);
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
fn check(path: &Path, format: &str) -> u64 {
    let mut qemu_img = tool("qemu-img").expect("was here before");
    let found = run(qemu_img.args(["check", "--output=json", "-f", format]).arg(path));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    for field in ["check-errors", "corruptions", "leaks"] {
        assert_eq!(found[field].as_u64().unwrap_or(0), 0, "{found}");
    }
    found["allocated-clusters"].as_u64().unwrap_or(0)
}
