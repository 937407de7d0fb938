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
    let reports =
        write(&map, &contents, &[(Format::Raw, path.clone())], &Progress::default()).unwrap();
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

#[test]
fn the_same_disk_gives_the_same_files_and_progress_adds_up() {
    let contents = store();
    let map = disk(&contents);
    let digests = || {
        let directory = tempfile::tempdir().unwrap();
        let targets = Format::ALL.map(|format| (format, directory.path().join(format.extension())));
        let (counter, total) = (std::sync::Arc::new(std::sync::Mutex::new((0, 0))), 0);
        let seen = std::sync::Arc::clone(&counter);
        let progress = Progress::to(move |event| match event {
            crate::progress::Event::Started { bytes, .. } => {
                seen.lock().unwrap().0 += bytes.unwrap()
            }
            crate::progress::Event::Advanced { bytes, .. } => seen.lock().unwrap().1 += bytes,
            _ => {}
        });
        let reports = write(&map, &contents, &targets, &progress).unwrap();
        let (announced, advanced) = *counter.lock().unwrap();
        assert_eq!(announced, advanced);
        let sizes: u64 = targets.iter().map(|(_, path)| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(announced, sizes + total);
        reports.into_iter().map(|report| report.sha256).collect::<Vec<_>>()
    };
    assert_eq!(digests(), digests());
}

#[test]
fn what_cannot_be_written_leaves_everything_as_it_was() {
    let (contents, directory) = (store(), tempfile::tempdir().unwrap());
    let map = disk(&contents);
    let (good, missing) = (directory.path().join("good"), directory.path().join("no/such/place"));
    fs::write(&good, b"older").unwrap();
    let try_both = |other: PathBuf| {
        let targets = [(Format::Raw, good.clone()), (Format::Qcow2, other)];
        write(&map, &contents, &targets, &Progress::default()).unwrap_err()
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
    let layout = Layout::of(Format::Raw, &map, &contents).unwrap();
    let work = Work { format: Format::Raw, path: &path, layout, file: unfinished(&path).unwrap() };
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = work.write(&map, &contents, &stage, &stop).err().unwrap();
    assert!(error.is::<sink::Stopped>(), "{error:#}");
    assert_eq!(names(directory.path()), BTreeSet::new());

    let full = || Err(anyhow::Error::from(io::Error::from_raw_os_error(28))); // ENOSPC
    let result = Sink::run(tempfile::tempfile().as_ref().unwrap(), 8, &stage, &stop, |_| full());
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
    let layout = raw::Layout::of(&map);
    let result = Sink::run(&read_only, map.size(), &stage, &stop, |sink| {
        layout.write(&map, &contents, sink)
    });
    assert!(result.is_err() && stop.into_inner());
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
    write(&disk(&contents), &contents, &[(Format::Qcow2, path.clone())], &Progress::default())
        .unwrap();
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

#[test]
fn formats_have_names() {
    for format in Format::ALL {
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    assert_eq!("vhd".parse::<Format>().unwrap_err(), "vhd is no disk format: raw or qcow2");
}
