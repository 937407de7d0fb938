//! The least that anybody has to do who keeps what we promise: every layer decompressed and checked by both digests, the contents
//! written once and on the platter, the disk's SHA-256. And how fast the parts of that are.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bootpress::sha256::Sha256;

const PIECE: usize = 256 << 10;

/// Does it, for a disk of `size` bytes. To be measured in a process of its own.
pub(crate) fn reach(layers: &[PathBuf], size: u64, place: &Path) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let written: Vec<(File, u64)> = std::thread::scope(|scope| {
        let work = || {
            let mut out = tempfile::tempfile_in(place).unwrap();
            let mut total = 0;
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                total += unpack(layer, &mut out);
            }
            (out, total)
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    std::thread::scope(|scope| {
        scope.spawn(|| written.iter().for_each(|(file, _)| file.sync_all().unwrap()));
        let mut hash = Sha256::new();
        let mut piece = vec![0; PIECE];
        let mut left = size;
        for (file, total) in &written {
            let mut offset = 0;
            while offset < *total {
                let count = piece.len().min((total - offset) as usize);
                file.read_exact_at(&mut piece[..count], offset).unwrap();
                hash.update(&piece[..count]);
                offset += count as u64;
            }
            left = left.saturating_sub(*total);
        }
        hash.update_zeros(left);
        std::hint::black_box(hash.finish());
    });
}

fn unpack(layer: &Path, out: &mut File) -> u64 {
    let mut blob = Hashed { inner: File::open(layer).unwrap(), hash: Sha256::new() };
    let mut magic = [0; 4];
    File::open(layer).unwrap().read_exact(&mut magic).unwrap();
    let mut archive: Box<dyn Read + '_> = match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(&mut blob)),
        _ => Box::new(zstd::Decoder::new(&mut blob).unwrap()),
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE];
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
    drop(archive);
    std::hint::black_box((hash.finish(), blob.hash.finish()));
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

/// Gigabytes a second of what is done to every byte, on one core: the reason for each implementation that was chosen.
pub(crate) fn speeds() -> Vec<(&'static str, f64)> {
    use sha2::Digest;

    let words = (0..8_u64 << 20).map(|i| (i.wrapping_mul(i) >> 9) % 4096);
    let bytes: Vec<u8> =
        words.flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&bytes[..], 1).unwrap();
    let speed = |work: &dyn Fn()| {
        let best = (0..3).map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64()
        });
        bytes.len() as f64 / best.fold(f64::MAX, f64::min) / 1e9
    };
    let drain = |mut reader: Box<dyn Read + '_>| {
        let mut buffer = vec![0; PIECE];
        while reader.read(&mut buffer).unwrap() > 0 {}
    };
    let pieces = || bytes.chunks(PIECE);
    vec![
        (
            "SHA-256, ours (AWS-LC)",
            speed(&|| {
                let mut hash = Sha256::new();
                pieces().for_each(|piece| hash.update(piece));
                std::hint::black_box(hash.finish());
            }),
        ),
        (
            "SHA-256, the sha2 crate",
            speed(&|| {
                let mut hash = sha2::Sha256::new();
                pieces().for_each(|piece| hash.update(piece));
                std::hint::black_box(hash.finalize());
            }),
        ),
        (
            "SHA-256 of zeros",
            speed(&|| {
                let mut hash = Sha256::new();
                hash.update_zeros(bytes.len() as u64);
                std::hint::black_box(hash.finish());
            }),
        ),
        (
            "XXH3",
            speed(&|| {
                std::hint::black_box(xxhash_rust::xxh3::xxh3_64(&bytes));
            }),
        ),
        ("inflate, zlib-rs", speed(&|| drain(Box::new(flate2::read::GzDecoder::new(&gzip[..]))))),
        ("zstd", speed(&|| drain(Box::new(zstd::Decoder::new(&zstd[..]).unwrap())))),
    ]
}
