//! qcow2, version 3, in one pass (QEMU, docs/interop/qcow2.txt). Everything is decided before the first byte is written, so there
//! is not an allocator and nothing is written twice.
//!
//! ```text
//! cluster 0   1…               …                 …          …            …
//! | header |  refcount table | refcount blocks | L1 table | L2 tables | data clusters in the disk's order |
//!                   └───────────────┘                └─────────┘ └────────────┘
//! ```
//!
//! Numbers are big-endian. Clusters of 64 KiB, the size that `qemu-img` takes when nobody says otherwise. No backing file,
//! no snapshots. What is compressed cluster by cluster is laid out otherwise: see `compressed`.

use std::ops::Range;

use anyhow::Result;

use super::sink::Sink;
use super::stretches::{Disk, count};

pub(super) mod compressed;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;

/// L1, L2 and refcount table entries are 8 bytes.
const ENTRIES_PER_CLUSTER: u64 = CLUSTER / 8;

/// Refcounts are 16 bits (`refcount_order` 4).
const REFCOUNTS_PER_CLUSTER: u64 = CLUSTER / 2;

/// Bit 63 of an L1 or L2 entry: the refcount is exactly 1.
const COPIED: u64 = 1 << 63;

/// Bytes of a version 3 header without optional fields, and with the one that says how clusters are compressed.
const HEADER_LENGTH: u32 = 104;
const HEADER_LENGTH_WITH_COMPRESSION: u32 = 112;

/// Incompatible feature: clusters are compressed by something else than zlib.
const COMPRESSION_TYPE: u32 = 1 << 3;

/// Where everything lies; all in clusters of the file unless said otherwise.
pub(super) struct Layout {
    /// Bytes of the disk.
    size: u64,
    /// Stretches of clusters of the disk that hold data, ascending.
    runs: Vec<Range<u64>>,
    /// For each L2 table, ascending, which entry of the L1 table names it.
    l2_of: Vec<u64>,
    refcount_table: Range<u64>,
    refcount_blocks: Range<u64>,
    l1_table: Range<u64>,
    l2_tables: Range<u64>,
    data: Range<u64>,
}

impl Layout {
    pub(super) fn of(disk: Disk<'_>) -> Result<Self> {
        Ok(Self::new(disk.size(), disk.filled(CLUSTER)?))
    }

    fn new(size: u64, runs: Vec<Range<u64>>) -> Self {
        assert!(size.is_multiple_of(512), "qcow2 disks are whole sectors, {size} bytes are not");
        let l2_of = l2_tables(&runs);
        let l1 = l1_entries(size).div_ceil(ENTRIES_PER_CLUSTER);
        let data = count(&runs);
        let (table, blocks) = refcount_clusters(1 + l1 + l2_of.len() as u64 + data);
        let mut next = 1;
        let mut take = |count: u64| {
            next += count;
            next - count..next
        };
        Self {
            size,
            refcount_table: take(table),
            refcount_blocks: take(blocks),
            l1_table: take(l1),
            l2_tables: take(l2_of.len() as u64),
            data: take(data),
            runs,
            l2_of,
        }
    }

    pub(super) fn file_size(&self) -> u64 {
        self.data.end * CLUSTER
    }

    pub(super) fn write(&self, disk: Disk<'_>, sink: &mut dyn Sink) -> Result<()> {
        self.write_metadata(sink)?;
        for run in &self.runs {
            // The disk's last cluster may be longer than the disk: what lies behind reads as zero.
            disk.copy(run.start * CLUSTER..run.end * CLUSTER, sink)?;
        }
        Ok(())
    }

    /// Everything before the data.
    fn write_metadata(&self, sink: &mut dyn Sink) -> Result<()> {
        pad(sink, &self.header())?;
        pad(sink, &entries(self.refcount_blocks.clone().map(|cluster| cluster * CLUSTER)))?;
        assert_eq!(sink.position(), self.refcount_blocks.start * CLUSTER);
        for block in 0..self.refcount_blocks.end - self.refcount_blocks.start {
            let first = block * REFCOUNTS_PER_CLUSTER;
            let counted = (self.data.end - first).min(REFCOUNTS_PER_CLUSTER);
            pad(sink, &1_u16.to_be_bytes().repeat(counted as usize))?;
        }
        assert_eq!(sink.position(), self.l1_table.start * CLUSTER);
        pad(sink, &self.l1())?;
        sink.zeros(self.l2_tables.start * CLUSTER - sink.position())?;
        self.write_l2(sink)?;
        assert_eq!(sink.position(), self.data.start * CLUSTER);
        Ok(())
    }

    fn header(&self) -> Vec<u8> {
        Header {
            size: self.size,
            l1_table: self.l1_table.start * CLUSTER,
            refcount_table: self.refcount_table.clone(),
            zstd: false,
        }
        .bytes()
    }

    fn l1(&self) -> Vec<u8> {
        let mut l1 = vec![0; l1_entries(self.size) as usize];
        for (entry, cluster) in self.l2_of.iter().zip(self.l2_tables.clone()) {
            l1[*entry as usize] = (cluster * CLUSTER) | COPIED;
        }
        entries(l1.into_iter())
    }

    fn write_l2(&self, sink: &mut dyn Sink) -> Result<()> {
        let of_disk = self.runs.iter().flat_map(Range::clone);
        let mut clusters = of_disk.zip(self.data.clone()).peekable();
        for table in &self.l2_of {
            let first = table * ENTRIES_PER_CLUSTER;
            let end = first + ENTRIES_PER_CLUSTER;
            let mut l2 = vec![0; ENTRIES_PER_CLUSTER as usize];
            while let Some((cluster, data)) = clusters.next_if(|(cluster, _)| *cluster < end) {
                l2[(cluster - first) as usize] = (data * CLUSTER) | COPIED;
            }
            sink.write(&entries(l2.into_iter()))?;
        }
        Ok(())
    }
}

/// What the first cluster says; offsets are in bytes of the file.
struct Header {
    /// Bytes of the disk.
    size: u64,
    l1_table: u64,
    /// In clusters of the file.
    refcount_table: Range<u64>,
    /// Whether compressed clusters are compressed by Zstandard.
    zstd: bool,
}

impl Header {
    /// Field names are those of the specification.
    fn bytes(&self) -> Vec<u8> {
        let mut header = Vec::new();
        let mut u32 = |value: u32| header.extend(value.to_be_bytes());
        let high = |value: u64| (value >> 32) as u32;
        let low = |value: u64| value as u32;
        let refcount_table = self.refcount_table.start * CLUSTER;
        u32(u32::from_be_bytes(*b"QFI\xfb")); // magic
        u32(3); // version
        u32(0); // backing_file_offset
        u32(0);
        u32(0); // backing_file_size
        u32(CLUSTER_BITS);
        u32(high(self.size));
        u32(low(self.size));
        u32(0); // crypt_method
        u32(l1_entries(self.size) as u32); // l1_size
        u32(high(self.l1_table)); // l1_table_offset
        u32(low(self.l1_table));
        u32(high(refcount_table)); // refcount_table_offset
        u32(low(refcount_table));
        u32((self.refcount_table.end - self.refcount_table.start) as u32); // refcount_table_clusters
        u32(0); // nb_snapshots
        u32(0); // snapshots_offset
        u32(0);
        u32(0); // incompatible_features
        u32(if self.zstd { COMPRESSION_TYPE } else { 0 });
        for _ in 0..2 {
            u32(0); // compatible_features, autoclear_features
            u32(0);
        }
        u32(4); // refcount_order: 16 bits
        if self.zstd {
            u32(HEADER_LENGTH_WITH_COMPRESSION);
            u32(1 << 24); // compression_type: zstd, in the first byte
            u32(0);
        } else {
            u32(HEADER_LENGTH);
        }
        // The zeros that follow are the header extension that ends the list of header extensions.
        header
    }
}

/// For each L2 table that some runs of clusters need, ascending, which entry of the L1 table names it.
fn l2_tables(runs: &[Range<u64>]) -> Vec<u64> {
    let mut tables: Vec<u64> = Vec::new();
    for run in runs {
        let first = tables.last().map_or(0, |last| last + 1);
        let needed = run.start / ENTRIES_PER_CLUSTER..(run.end - 1) / ENTRIES_PER_CLUSTER + 1;
        tables.extend(needed.start.max(first)..needed.end);
    }
    tables
}

/// Entries of the L1 table of a disk: each stands for one L2 table, 512 MiB.
fn l1_entries(size: u64) -> u64 {
    size.div_ceil(CLUSTER * ENTRIES_PER_CLUSTER)
}

/// Clusters of the refcount table and of refcount blocks in a file that has `others` besides.
fn refcount_clusters(others: u64) -> (u64, u64) {
    let (mut table, mut blocks) = (1, 1);
    // They count themselves, too: grows until it is enough, in a few steps.
    loop {
        let needed = (others + table + blocks).div_ceil(REFCOUNTS_PER_CLUSTER);
        let needed = (needed.div_ceil(ENTRIES_PER_CLUSTER), needed);
        if needed == (table, blocks) {
            return needed;
        }
        (table, blocks) = needed;
    }
}

fn entries(values: impl Iterator<Item = u64>) -> Vec<u8> {
    values.flat_map(u64::to_be_bytes).collect()
}

/// Appends bytes, and zeros up to the end of the cluster.
fn pad(sink: &mut dyn Sink, bytes: &[u8]) -> Result<()> {
    sink.write(bytes)?;
    sink.zeros(sink.position().next_multiple_of(CLUSTER) - sink.position())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicBool;

    use super::super::sink::{FileSink, Hash, Meter};
    use super::*;
    use crate::progress::{Progress, Stage};

    fn one(run: Range<u64>) -> Vec<Range<u64>> {
        std::iter::once(run).collect()
    }

    /// All regions, in order, touch each other; refcounts cover all of them, with not one block too many.
    fn check(size: u64, runs: Vec<Range<u64>>) -> Layout {
        let layout = Layout::new(size, runs);
        let regions = [
            &(0..1),
            &layout.refcount_table,
            &layout.refcount_blocks,
            &layout.l1_table,
            &layout.l2_tables,
            &layout.data,
        ];
        assert!(regions.is_sorted_by(|one, two| one.end == two.start), "{regions:?}");
        let len = |range: &Range<u64>| range.end - range.start;
        let (blocks, table) = (len(&layout.refcount_blocks), len(&layout.refcount_table));
        assert_eq!(blocks, layout.data.end.div_ceil(REFCOUNTS_PER_CLUSTER));
        assert_eq!(table, blocks.div_ceil(ENTRIES_PER_CLUSTER));
        layout
    }

    #[test]
    fn tables_of_any_size_fit_exactly() {
        for gib in [0, 1, 2, 3, 511, 512, 4096, 65536] {
            let size = gib << 30;
            let clusters = size / CLUSTER;
            let layout = check(size, if gib == 0 { vec![] } else { one(0..clusters) });
            assert_eq!(layout.l2_of.len() as u64, clusters.div_ceil(ENTRIES_PER_CLUSTER));
        }
        // Around the point where one more data cluster needs one more refcount block.
        for clusters in 32_750..32_780 {
            check(4 << 30, one(7..7 + clusters));
        }
    }

    /// A refcount block counts 32,768 clusters, 2 GiB: with more there are two, and every cluster is counted once.
    #[test]
    fn two_refcount_blocks_count_every_cluster_once() {
        let layout = check(4 << 30, one(0..33_000));
        // The data is left out: the file ends where it would begin.
        let (clusters, metadata) = (layout.data.end, layout.data.start * CLUSTER);
        let stage = &Progress::default().stage(Stage::Write, None);
        let (file, stop) = (tempfile::tempfile().unwrap(), &AtomicBool::new(false));
        let meter = Meter { stage, stop, by_bytes: true };
        let write = |sink: &mut FileSink<'_>| layout.write_metadata(sink);
        FileSink::run(&file, Some(metadata), Hash::Never, meter, write).unwrap();
        let mut bytes = vec![0; metadata as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let at =
            |range: &Range<u64>| (range.start * CLUSTER) as usize..(range.end * CLUSTER) as usize;
        let counts = bytes[at(&layout.refcount_blocks)].as_chunks::<2>().0;
        assert!(counts[..clusters as usize].iter().all(|count| *count == [0, 1]));
        assert!(counts[clusters as usize..].iter().all(|count| *count == [0, 0]));
        let l2 = bytes[at(&layout.l2_tables)].as_chunks::<8>().0;
        let found =
            l2.iter().map(|entry| u64::from_be_bytes(*entry)).take_while(|entry| *entry > 0);
        assert!(found.eq(layout.data.clone().map(|cluster| (cluster << 16) | (1 << 63))));
    }

    #[test]
    fn l2_tables_exist_only_where_there_is_data() {
        let table = ENTRIES_PER_CLUSTER;
        let runs = vec![0..1, 5..6, table - 1..table + 1, 4 * table..4 * table + 1];
        assert_eq!(check(5 << 30, runs).l2_of, [0, 1, 4]);
        assert_eq!(check(5 << 30, one(2 * table - 1..4 * table)).l2_of, [1, 2, 3]);
    }
}
