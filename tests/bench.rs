//! What a build costs: time as a ratio to "decompress, sha256 and write the same layers", and peak memory.
//!
//! The image is made here: 1.5 GB in six layers, gzip and zstd, 60,000 files of all sizes. `BENCH_MB` changes its size.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use sha2::{Digest, Sha256};
use support::tiny_image::Compression;
use support::{Build, Built, bootc_image};

/// What a build may use, in MiB (issue 2).
const MEMORY_LIMIT: i64 = 400;

/// Tells the benchmark's own program to make the image, and nothing else.
const MAKE: &str = "--make-image";

fn main() {
    let megabytes: usize =
        std::env::var("BENCH_MB").ok().and_then(|mb| mb.parse().ok()).unwrap_or(1500);
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{megabytes}"));
    let layout = place.join("image");
    if std::env::args().any(|argument| argument == MAKE) {
        return make_image(megabytes, &layout);
    }
    if !layout.join("index.json").is_file() {
        println!("making an image of {megabytes} MB in {}", place.display());
        fs::create_dir_all(&place).unwrap();
        // In a process of its own: what a child's peak is measured from includes its parent's size when it was forked.
        let made = Command::new(std::env::current_exe().unwrap()).arg(MAKE).status().unwrap();
        assert!(made.success());
    }
    let layers = layers(&layout);
    // Once without counting, so that all runs find their input in memory.
    floor(&layers, &place);
    let mut ratios = Vec::new();
    println!("{:>4} {:>12} {:>12} {:>8} {:>12}", "run", "floor", "build", "ratio", "peak memory");
    for run in 1..=3 {
        let (least, bytes) = floor(&layers, &place);
        let begin = Instant::now();
        build(&layout, &["--format", "qcow2"], &place.join("disk.qcow2"));
        let took = begin.elapsed();
        let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
        let ratio = took.as_secs_f64() / least.as_secs_f64();
        println!(
            "{run:>4} {:>10.2} s {:>10.2} s {ratio:>8.2} {memory:>8} MiB   {} MB uncompressed",
            least.as_secs_f64(),
            took.as_secs_f64(),
            bytes / 1_000_000
        );
        ratios.push(ratio);
        assert!(memory < MEMORY_LIMIT, "a build used {memory} MiB, more than {MEMORY_LIMIT}");
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "median ratio {:.2} (1 = decompress, sha256 of blob and archive, write)",
        ratios[ratios.len() / 2]
    );
    compressed(&layout, &place);
}

/// A compressed qcow2, against what `qemu-img convert` makes of the same disk with two coroutines.
fn compressed(layout: &Path, place: &Path) {
    let (ours, theirs, raw) =
        (place.join("ours.qcow2"), place.join("theirs.qcow2"), place.join("disk.raw"));
    build(layout, &["--format", "raw"], &raw);
    let mut ratios = Vec::new();
    for run in 1..=3 {
        let report = build(layout, &["--qcow2-compress", "zstd"], &ours).report;
        let stages = report["stages"].as_array().unwrap();
        let writing = stages.iter().find(|stage| stage["stage"] == "writing").unwrap();
        let ours_took = writing["seconds"].as_f64().unwrap();
        let begin = Instant::now();
        let status = Command::new("qemu-img")
            .args(["convert", "-c", "-m", "2", "-f", "raw", "-O", "qcow2"])
            .args(["-o", "compression_type=zstd"])
            .args([&raw, &theirs])
            .status();
        let Ok(true) = status.map(|status| status.success()) else {
            println!("no qemu-img that compresses with zstd: nothing to compare with");
            return;
        };
        let theirs_took = begin.elapsed().as_secs_f64();
        let size = |path: &Path| fs::metadata(path).unwrap().len() as f64;
        let (time, bytes) = (ours_took / theirs_took, size(&ours) / size(&theirs));
        println!(
            "{run:>4} compressed qcow2: {ours_took:.2} s, qemu-img {theirs_took:.2} s: ratio of time {time:.2}, of size {bytes:.3}"
        );
        ratios.push(time);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of time {:.2} (1 = qemu-img convert -c, zstd, -m 2)", ratios[1]);
}

/// The least that anybody has to do: every layer decompressed, both digests, the result written.
fn floor(layers: &[PathBuf], place: &Path) -> (Duration, u64) {
    let begin = Instant::now();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let total = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut total = 0;
                    while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                        total += unpack(layer, place);
                    }
                    total
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    (begin.elapsed(), total)
}

fn unpack(layer: &Path, place: &Path) -> u64 {
    let mut blob = Hashed { inner: File::open(layer).unwrap(), hash: Sha256::new() };
    let mut magic = [0; 4];
    File::open(layer).unwrap().read_exact(&mut magic).unwrap();
    let mut archive: Box<dyn Read + '_> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(&mut blob)),
        _ => Box::new(zstd::Decoder::new(&mut blob).unwrap()),
    };
    let mut out = tempfile::tempfile_in(place).unwrap();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = archive.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count]).unwrap();
        total += count as u64;
    }
    std::hint::black_box(hash.finalize());
    total
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// Builds a disk.
fn build(layout: &Path, flags: &[&str], disk: &Path) -> Built {
    Build::new(format!("oci:{}", layout.display()))
        .flags(["--bootloader", "none", "--target-imgref", "example.com/bench:1"])
        .flags(flags)
        .output(disk)
        .run()
}

fn layers(layout: &Path) -> Vec<PathBuf> {
    let blobs =
        fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let mut layers: Vec<PathBuf> =
        blobs.filter(|path| fs::metadata(path).unwrap().len() > 10_000_000).collect();
    layers.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    layers
}

/// Text-like contents that compress to about 40 percent, from a fixed seed.
fn make_image(megabytes: usize, layout: &Path) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let words: Vec<[u8; 8]> = (0..4096).map(|_| next().to_le_bytes()).collect();
    let mut image = bootc_image::without_bootloader();
    for layer in 0..6 {
        image =
            image.compression(if layer % 2 == 0 { Compression::Gzip } else { Compression::Zstd });
        image = image.layer(|mut files| {
            let mut left = megabytes * 1_000_000 / 6;
            let mut number = 0;
            while left > 0 {
                // Most files are small, most bytes are in large ones.
                let size = (256 << (next() % 14)) + (next() % 1000) as usize;
                let size = size.min(left);
                let mut content = Vec::with_capacity(size + 8);
                while content.len() < size {
                    content.extend_from_slice(&words[(next() % 4096) as usize]);
                }
                content.truncate(size);
                files = files.file(format!("usr/share/{layer}/{}/{number}", number % 97), content);
                number += 1;
                left -= size;
            }
            files
        });
    }
    image.write_oci_layout(layout);
}
