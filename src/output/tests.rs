//! The output stage as a whole: what is there afterwards, and what is not.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use expect_test::expect;

use super::*;
use crate::error::Unsupported;

const MIB: u64 = 1 << 20;

/// Metadata, a content with a hole, a content full of zeros, and neighbours that meet inside a block.
fn disk(contents: &ContentStore) -> SparseMap {
    let mut writer = contents.writer(300_000);
    writer.write_all(&[1; 5000]).unwrap();
    writer.skip(200_000);
    writer.write_all(&[2; 95_000]).unwrap();
    let content = writer.finish().unwrap();
    let zeros = contents.insert_bytes(&[0; 400_000]).unwrap();
    let mut map = SparseMap::new(4 * MIB);
    map.put(0, b"boot".to_vec());
    map.put(510, vec![0x55, 0xaa]);
    for range in content.data_ranges() {
        map.put_content(MIB + range.start, content.id, range.start, range.end - range.start);
    }
    map.put_content(2 * MIB, zeros.id, 0, zeros.size);
    map.put(4 * MIB - 512, vec![3; 512]);
    map
}

fn store() -> ContentStore {
    ContentStore::create_in(&std::env::temp_dir()).unwrap()
}

fn options() -> Options {
    Options::new(Uuid::from_u128(7), Architecture::X86_64)
}

fn names(directory: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(directory).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn raw_is_the_map_with_holes() {
    let (contents, directory) = (store(), tempfile::tempdir().unwrap());
    let map = disk(&contents);
    let path = directory.path().join("disk.raw");
    fs::write(&path, b"an older disk").unwrap();
    let reports = write(
        &map,
        &contents,
        &[Target::new(Format::Raw, &path)],
        &options(),
        &Progress::default(),
    )
    .unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut expected = vec![0; map.size() as usize];
    map.read_at(&contents, 0, &mut expected).unwrap();
    assert!(bytes == expected);
    // 5000 and 95,000 bytes in whole blocks, and both ends.
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.allocated <= 128 << 10, "{report:?}");
    assert_eq!((report.size, &report.path), (4 * MIB, &path));
    let digest = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        &bytes,
    ));
    assert_eq!(report.sha256, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(names(directory.path()), BTreeSet::from(["disk.raw".to_owned()]));
}

fn every_kind() -> Vec<FileFormat> {
    let packed = |packing| {
        [Format::Raw, Format::Ova, Format::Qcow2]
            .map(|format| FileFormat { format, packing: Some(packing) })
    };
    let plain = Format::ALL.map(FileFormat::from).into_iter();
    plain.chain(Packing::ALL.into_iter().flat_map(packed)).collect()
}

#[test]
fn the_same_disk_gives_the_same_files_for_any_number_of_threads_and_progress_adds_up() {
    let contents = store();
    // More than one block of every kind of compression.
    let mut map = SparseMap::new(20 * MIB);
    map.place(3 * MIB, disk(&contents));
    let text: Vec<u8> = (0..700_000_u32).map(|i| ((i / 7) ^ (i >> 9)) as u8).collect();
    map.put(8 * MIB, text.clone());
    map.put(15 * MIB + 500_000, text);
    let digests = |threads, kinds: &[FileFormat], compression| {
        let directory = tempfile::tempdir().unwrap();
        let targets: Vec<Target> = kinds
            .iter()
            .map(|format| Target::new(*format, directory.path().join(format.extension())))
            .collect();
        let options =
            Options { threads: Some(threads), qcow2_compression: compression, ..options() };
        let counter = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
        let seen = std::sync::Arc::clone(&counter);
        let progress = Progress::to(move |event| match event {
            crate::progress::Event::Started { bytes, .. } => {
                seen.lock().unwrap().0 += bytes.unwrap()
            }
            crate::progress::Event::Advanced { bytes, .. } => seen.lock().unwrap().1 += bytes,
            _ => {}
        });
        let reports = write(&map, &contents, &targets, &options, &progress).unwrap();
        let (announced, advanced): (u64, u64) = *counter.lock().unwrap();
        assert_eq!(announced, advanced);
        reports.into_iter().map(|report| report.sha256).collect::<Vec<_>>()
    };
    let all = every_kind();
    assert_eq!(digests(1, &all, None), digests(3, &all, None));
    let qcow2 = [FileFormat::from(Format::Qcow2)];
    for compression in [ClusterCompression::Zlib, ClusterCompression::Zstd].map(Some) {
        assert_eq!(digests(1, &qcow2, compression), digests(3, &qcow2, compression));
    }
}

#[test]
fn what_cannot_be_written_leaves_everything_as_it_was() {
    let (contents, directory) = (store(), tempfile::tempdir().unwrap());
    let map = disk(&contents);
    let (good, missing) = (directory.path().join("good"), directory.path().join("no/such/place"));
    fs::write(&good, b"older").unwrap();
    let try_both = |other: PathBuf| {
        let targets = [Target::new(Format::Raw, &good), Target::new(Format::Qcow2, other)];
        write(&map, &contents, &targets, &options(), &Progress::default()).unwrap_err()
    };
    let error = try_both(missing);
    assert!(format!("{error:#}").contains("no/such, which does not exist"), "{error:#}");
    for other in [directory.path().to_owned(), PathBuf::from("/dev/null"), good.clone()] {
        assert!(try_both(other).is::<Unsupported>());
    }
    assert_eq!(fs::read(&good).unwrap(), b"older");
    assert_eq!(names(directory.path()), BTreeSet::from(["good".to_owned()]));
}

#[test]
fn a_failure_on_the_way_leaves_nothing_and_stops_the_others() {
    let (contents, directory) = (store(), tempfile::tempdir().unwrap());
    let map = disk(&contents);
    let stage = Progress::default().stage(Stage::Write, None);
    let (path, stop) = (directory.path().join("disk.raw"), AtomicBool::new(false));
    let disk = Disk { map: &map, contents: &contents };
    let target = Target::new(Format::Raw, &path);
    let layout = Layout::of(&target, disk, &options()).unwrap();
    let work = Work { target: &target, layout, file: unfinished(&path).unwrap(), threads: 1 };
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = work.write(disk, &stage, &stop).err().unwrap();
    assert!(error.is::<sink::Stopped>(), "{error:#}");
    assert_eq!(names(directory.path()), BTreeSet::new());

    let full = || Err(anyhow::Error::from(io::Error::from_raw_os_error(28))); // ENOSPC
    let meter = Meter { stage: &stage, stop: &stop, by_bytes: true };
    let file = tempfile::tempfile().unwrap();
    let result = FileSink::run(&file, Some(8), Hash::Along, meter, |_| full());
    let error = explain(result.unwrap_err(), &path, 10 * MIB);
    let first = first_cause(vec![Err(sink::Stopped.into()), Err(error)]).err().unwrap();
    assert!(first.to_string().ends_with("for up to 10 MiB"), "{first:#}");
    assert!(
        first.to_string().starts_with(&format!("writing {}: there is no room", path.display()))
    );
}

#[test]
fn a_failing_writer_leaves_the_sink_without_a_deadlock() {
    let (contents, stop) = (store(), AtomicBool::new(false));
    let stage = Progress::default().stage(Stage::Write, None);
    // Opened for reading only, so that the first write fails.
    let read_only = File::open("/dev/null").unwrap();
    let map = disk(&contents);
    let disk = Disk { map: &map, contents: &contents };
    let layout = raw::Layout::of(disk);
    for hash in [Hash::Along, Hash::Afterwards] {
        let meter = Meter { stage: &stage, stop: &stop, by_bytes: true };
        let write = |sink: &mut FileSink<'_>| layout.write(disk, sink);
        assert!(FileSink::run(&read_only, Some(map.size()), hash, meter, write).is_err());
        assert!(stop.swap(false, std::sync::atomic::Ordering::Relaxed));
        let pack = |sink: &mut FileSink<'_>| {
            packed::pack(Packing::Gz, sink, 2, meter, |sink| layout.write(disk, sink)).map(drop)
        };
        assert!(FileSink::run(&read_only, None, hash, meter, pack).is_err());
    }
}

/// The header as it is on disk, field by field.
fn annotated(header: &[u8]) -> String {
    let fields: [(&str, usize, usize); 19] = [
        ("magic", 0, 4),
        ("version", 4, 4),
        ("backing_file_offset", 8, 8),
        ("backing_file_size", 16, 4),
        ("cluster_bits", 20, 4),
        ("size", 24, 8),
        ("crypt_method", 32, 4),
        ("l1_size", 36, 4),
        ("l1_table_offset", 40, 8),
        ("refcount_table_offset", 48, 8),
        ("refcount_table_clusters", 56, 4),
        ("nb_snapshots", 60, 4),
        ("snapshots_offset", 64, 8),
        ("incompatible_features", 72, 8),
        ("compatible_features", 80, 8),
        ("autoclear_features", 88, 8),
        ("refcount_order", 96, 4),
        ("header_length", 100, 4),
        ("end of extensions", 104, 8),
    ];
    let line = |(name, at, len): (&str, usize, usize)| {
        let value =
            header[at..at + len].iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        format!("{at:02x} {name}: {value:#x}\n")
    };
    fields.map(line).concat()
}

#[test]
fn the_qcow2_header_field_by_field() {
    let (contents, directory) = (store(), tempfile::tempdir().unwrap());
    let path = directory.path().join("disk.qcow2");
    let target = Target::new(Format::Qcow2, &path);
    write(&disk(&contents), &contents, &[target], &options(), &Progress::default()).unwrap();
    let mut file = vec![0; 112];
    File::open(&path).unwrap().read_exact(&mut file).unwrap();
    expect![[r#"
        00 magic: 0x514649fb
        04 version: 0x3
        08 backing_file_offset: 0x0
        10 backing_file_size: 0x0
        14 cluster_bits: 0x10
        18 size: 0x400000
        20 crypt_method: 0x0
        24 l1_size: 0x1
        28 l1_table_offset: 0x30000
        30 refcount_table_offset: 0x10000
        38 refcount_table_clusters: 0x1
        3c nb_snapshots: 0x0
        40 snapshots_offset: 0x0
        48 incompatible_features: 0x0
        50 compatible_features: 0x0
        58 autoclear_features: 0x0
        60 refcount_order: 0x4
        64 header_length: 0x68
        68 end of extensions: 0x0
    "#]]
    .assert_eq(&annotated(&file));
    // Header, refcount table and block, L1, L2; data: both ends, 5000 bytes, 95,000 bytes in two; no zeros.
    assert_eq!(fs::metadata(&path).unwrap().len(), (5 + 5) * 65536);
}
