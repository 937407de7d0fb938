//! A disk, a partition or a file system as a value: which bytes go where. Everything else reads as zero.
//!
//! ```text
//! 0        1024              4096                           size
//! |  zero  |  Bytes(block)   |  Content { id, start, len }  |
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io;

use crate::content::{ContentId, ContentStore};

/// Where the bytes of a segment come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Metadata that a writer made.
    Bytes(Vec<u8>),
    /// `len` bytes of a content, from `start` on.
    Content { id: ContentId, start: u64, len: u64 },
}

impl Source {
    /// Bytes that the segment covers.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Content { len, .. } => *len,
        }
    }

    /// Whether it covers nothing; a map holds no such segment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A size, and the segments in it that are not zero. Segments never overlap: that is an assertion, being our mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseMap {
    size: u64,
    segments: BTreeMap<u64, Source>,
}

impl SparseMap {
    /// `size` bytes of zero.
    pub fn new(size: u64) -> Self {
        Self { size, segments: BTreeMap::new() }
    }

    /// Bytes from the first to the last, zero or not.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The segments in ascending order, by offset.
    pub fn segments(&self) -> btree_map::Iter<'_, u64, Source> {
        self.segments.iter()
    }

    /// Bytes that segments cover.
    pub fn allocated(&self) -> u64 {
        self.segments.values().map(Source::len).sum()
    }

    /// Places bytes.
    pub fn put(&mut self, offset: u64, bytes: Vec<u8>) {
        self.insert(offset, Source::Bytes(bytes));
    }

    /// Places part of a content.
    pub fn put_content(&mut self, offset: u64, id: ContentId, start: u64, len: u64) {
        self.insert(offset, Source::Content { id, start, len });
    }

    /// Places a whole map inside this one.
    pub fn place(&mut self, offset: u64, inner: Self) {
        assert!(
            offset + inner.size <= self.size,
            "a map of {} bytes at {offset} ends after {}",
            inner.size,
            self.size
        );
        for (start, source) in inner.segments {
            self.insert(offset + start, source);
        }
    }

    /// Reads from `offset` on, filling `buffer`; what lies behind the end reads as zero.
    pub fn read_at(
        &self,
        contents: &ContentStore,
        offset: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let first = self.segments.range(..=offset).next_back().map_or(offset, |(start, _)| *start);
        for (&start, source) in self.segments.range(first..end) {
            let (from, to) = (start.max(offset), (start + source.len()).min(end));
            if from >= to {
                continue;
            }
            let target = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            match source {
                Source::Bytes(bytes) => {
                    target.copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize])
                }
                Source::Content { id, start: skip, .. } => {
                    contents.read_exact_at(*id, skip + (from - start), target)?
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, offset: u64, source: Source) {
        if source.is_empty() {
            return;
        }
        let end = offset + source.len();
        assert!(end <= self.size, "{offset}..{end} ends after {}", self.size);
        if let Some((start, before)) = self.segments.range(..end).next_back() {
            assert!(start + before.len() <= offset, "{offset}..{end} overlaps what is at {start}");
        }
        self.segments.insert(offset, source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_and_the_rest_is_zero() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let content = contents.insert_bytes(b"0123456789").unwrap();
        let mut inner = SparseMap::new(16);
        inner.put(1, b"ab".to_vec());
        inner.put_content(4, content.id, 2, 5);
        let mut map = SparseMap::new(64);
        map.place(10, inner);
        let mut read = [9; 20];
        map.read_at(&contents, 8, &mut read).unwrap();
        assert_eq!(&read, b"\0\0\0ab\x0023456\0\0\0\0\0\0\0\0\0");
        assert_eq!(map.allocated(), 7);
    }

    #[test]
    #[should_panic(expected = "overlaps what is at 4")]
    fn overlap_is_our_mistake() {
        let mut map = SparseMap::new(64);
        map.put(4, vec![1; 4]);
        map.put(7, vec![1]);
    }

    #[test]
    #[should_panic(expected = "ends after 8")]
    fn so_is_leaving_the_map() {
        SparseMap::new(8).put(4, vec![1; 5]);
    }
}
