//! qcow2 whose clusters are compressed. Where a cluster lies depends on how small those before it became, so the tables come
//! last, and the header, which says where they are, is written at the end.
//!
//! ```text
//! cluster 0   1…                                                         …           …          …
//! | header | compressed clusters, one behind the other; others as they are | L2 tables | L1 table | refcount table, blocks |
//! ```

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::{
    CLUSTER, COPIED, ENTRIES_PER_CLUSTER, Header, REFCOUNTS_PER_CLUSTER, entries, l1_entries,
    l2_tables, refcount_clusters,
};
use crate::output::deflate::{Deflate, Wrapping};
use crate::output::format::ClusterCompression;
use crate::output::sink::{FileSink, Sink};
use crate::output::stretches::{Disk, count};

/// Bit 62 of an L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;

/// Where an L2 entry of a compressed cluster says how many sectors there are after the first: bit 70 - `cluster_bits`.
const SECTORS_SHIFT: u32 = 54;

/// The level that QEMU takes.
const ZSTD_LEVEL: i32 = 3;

/// Which clusters there are.
pub(in crate::output) struct Layout {
    size: u64,
    compression: ClusterCompression,
    runs: Vec<Range<u64>>,
}

/// A cluster after a try.
enum Cluster {
    Smaller(Vec<u8>),
    AsItIs(Vec<u8>),
}

impl Layout {
    pub(in crate::output) fn of(disk: Disk<'_>, compression: ClusterCompression) -> Result<Self> {
        assert!(disk.size().is_multiple_of(512), "qcow2 disks are whole sectors");
        Ok(Self { size: disk.size(), compression, runs: disk.filled(CLUSTER)? })
    }

    /// Bytes of the disk that have to be compressed.
    pub(in crate::output) fn work(&self) -> u64 {
        count(&self.runs) * CLUSTER
    }

    pub(in crate::output) fn write(
        &self,
        disk: Disk<'_>,
        threads: usize,
        sink: &mut FileSink<'_>,
    ) -> Result<()> {
        let mut space = Space::new();
        let mut l2 = Vec::with_capacity(count(&self.runs) as usize);
        let mut take = |_, cluster: Cluster| {
            let (entry, offset, bytes) = match cluster {
                Cluster::AsItIs(bytes) => {
                    let offset = space.cluster() * CLUSTER;
                    (offset | COPIED, offset, bytes)
                }
                Cluster::Smaller(bytes) => {
                    let offset = space.bytes(bytes.len() as u64);
                    let sectors = (offset + bytes.len() as u64 - 1) / 512 - offset / 512;
                    (offset | (sectors << SECTORS_SHIFT) | COMPRESSED, offset, bytes)
                }
            };
            l2.push(entry);
            sink.place(offset, &bytes)?;
            sink.advance(CLUSTER)
        };
        match self.compression {
            ClusterCompression::Zlib => {
                disk.each_piece(CLUSTER, &self.runs, threads, zlib, &mut take)?;
            }
            ClusterCompression::Zstd => {
                disk.each_piece(CLUSTER, &self.runs, threads, zstd, &mut take)?;
            }
        }
        self.write_tables(&mut space, &l2, sink)
    }

    fn write_tables(&self, space: &mut Space, l2: &[u64], sink: &mut FileSink<'_>) -> Result<()> {
        let mut l1 = vec![0; l1_entries(self.size) as usize];
        let mut clusters = self.runs.iter().flat_map(Range::clone).zip(l2).peekable();
        for table in l2_tables(&self.runs) {
            let first = table * ENTRIES_PER_CLUSTER;
            let mut entries_of = vec![0; ENTRIES_PER_CLUSTER as usize];
            while let Some((cluster, entry)) =
                clusters.next_if(|(cluster, _)| *cluster < first + ENTRIES_PER_CLUSTER)
            {
                entries_of[(cluster - first) as usize] = *entry;
            }
            let place = space.cluster() * CLUSTER;
            l1[table as usize] = place | COPIED;
            sink.place(place, &entries(entries_of.into_iter()))?;
        }
        let l1_table = space.clusters(l1_entries(self.size).div_ceil(ENTRIES_PER_CLUSTER));
        sink.place(l1_table.start * CLUSTER, &entries(l1.into_iter()))?;
        let (table, blocks) = refcount_clusters(space.next);
        let refcount_table = space.clusters(table);
        let blocks = space.clusters(blocks);
        sink.place(
            refcount_table.start * CLUSTER,
            &entries(blocks.clone().map(|block| block * CLUSTER)),
        )?;
        for (block, counts) in blocks.zip(space.counts.chunks(REFCOUNTS_PER_CLUSTER as usize)) {
            let mut bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
            bytes.resize(CLUSTER as usize, 0);
            sink.place(block * CLUSTER, &bytes)?;
        }
        ensure!(sink.position() == space.next * CLUSTER, "the refcount blocks come last");
        let l1_table = l1_table.start * CLUSTER;
        let zstd = self.compression == ClusterCompression::Zstd;
        sink.place(0, &Header { size: self.size, l1_table, refcount_table, zstd }.bytes())
    }
}

fn zlib() -> impl FnMut(&[u8]) -> Result<Cluster> {
    let mut deflate = Deflate::new(Wrapping::Window4K);
    move |cluster| Ok(smaller(cluster, deflate.compress(cluster)?))
}

fn zstd() -> impl FnMut(&[u8]) -> Result<Cluster> {
    let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL);
    move |cluster| {
        let zstd = zstd.as_mut().map_err(|error| anyhow::anyhow!("starting zstd: {error}"))?;
        Ok(smaller(cluster, zstd.compress(cluster).context("compressing")?))
    }
}

fn smaller(cluster: &[u8], compressed: Vec<u8>) -> Cluster {
    if compressed.len() < cluster.len() {
        Cluster::Smaller(compressed)
    } else {
        Cluster::AsItIs(cluster.to_vec())
    }
}

/// Hands out the file's clusters, and counts who uses each: for a compressed cluster that is everyone who has bytes in it.
struct Space {
    /// The first cluster that nobody has.
    next: u64,
    counts: Vec<u16>,
    /// Bytes that are left for compressed clusters.
    open: Range<u64>,
}

impl Space {
    /// The header's cluster is taken.
    fn new() -> Self {
        Self { next: 1, counts: vec![1], open: 0..0 }
    }

    /// A whole cluster, for one user.
    fn cluster(&mut self) -> u64 {
        self.next += 1;
        self.counts.push(1);
        self.next - 1
    }

    fn clusters(&mut self, count: u64) -> Range<u64> {
        let first = self.next;
        self.next += count;
        self.counts.resize(self.next as usize, 1);
        first..self.next
    }

    /// Room for a compressed cluster, at any byte: behind the last one, unless something else came between.
    fn bytes(&mut self, count: u64) -> u64 {
        if self.open.end - self.open.start < count {
            if self.open.end != self.next * CLUSTER {
                self.open = self.next * CLUSTER..self.next * CLUSTER;
            }
            self.next += 1;
            self.counts.push(0);
            self.open.end += CLUSTER;
        }
        let start = self.open.start;
        self.open.start += count;
        for cluster in start / CLUSTER..=(self.open.start - 1) / CLUSTER {
            self.counts[cluster as usize] += 1;
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_clusters_share_what_is_left_and_are_counted_where_they_are() {
        let mut space = Space::new();
        assert_eq!(space.bytes(60_000), CLUSTER);
        assert_eq!(space.bytes(5_536), CLUSTER + 60_000);
        assert_eq!(space.bytes(40_000), 2 * CLUSTER);
        // Goes on in the next cluster, which nobody has yet.
        assert_eq!(space.bytes(40_000), 2 * CLUSTER + 40_000);
        assert_eq!(space.cluster(), 4);
        // There is room for this one, but not for the next: it cannot go on, as 4 is taken.
        assert_eq!(space.bytes(10_000), 2 * CLUSTER + 80_000);
        assert_eq!(space.bytes(60_000), 5 * CLUSTER);
        assert_eq!(space.counts, [1, 2, 2, 2, 1, 1]);
        assert_eq!(space.next, 6);
    }
}
