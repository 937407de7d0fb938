//! Where ext4 keeps the hashes of a file with fs-verity: in blocks of the file, behind its end.
//!
//! ```text
//! 0        i_size        next 64 KiB                           last block
//! |data … … … |   hole   |level n|level n-1| … |level 0        |descriptor 256|  zeros  |256, 4|
//! ```
//!
//! `i_size` does not count them, so that only the kernel's fs-verity looks there. It finds the descriptor from the end: the last
//! extent ends with the descriptor's size. (Kernel: "fs-verity", "Filesystem support", ext4.)

use std::ops::Range;

use anyhow::Result;

use super::extent::{self, FileMap};
use super::inode::MAX_FILE;
use super::on_disk::BLOCK;
use crate::content::Content;
use crate::error::unsupported;
use crate::filesystem::verity::{DESCRIPTOR_BYTES, descriptor};
use crate::sparse::SparseMap;
use crate::tree::Verity;

/// The hashes begin at a multiple of this, so that no page, however large, holds both data and hashes.
const ALIGNMENT: u64 = 65_536;
/// `struct fsverity_descriptor` up to the hash; behind the hash are salt and room, all zero.
const DESCRIPTOR_HEAD: usize = 16;

/// Fails if block numbers cannot reach the hashes.
pub(super) fn check(content: &Content, verity: &Verity) -> Result<()> {
    if blocks(content, verity).end * BLOCK > MAX_FILE {
        return Err(unsupported("the file with its fs-verity is larger than ext4's 16 TiB", None));
    }
    Ok(())
}

/// The blocks of a file that hold data or hashes, ascending, not touching.
pub(super) fn block_ranges(content: &Content, verity: Option<&Verity>) -> Vec<Range<u64>> {
    let mut ranges = extent::block_ranges(content);
    let Some(verity) = verity else { return ranges };
    let hashes = blocks(content, verity);
    match ranges.last_mut() {
        Some(last) if last.end == hashes.start => last.end = hashes.end,
        _ => ranges.push(hashes),
    }
    ranges
}

/// Writes the hashes where [`block_ranges`] has made room for them.
pub(super) fn emit(map: &FileMap, content: &Content, verity: &Verity, volume: &mut SparseMap) {
    let mut position = start(content);
    for level in &verity.levels {
        map.emit_content_at(position, level, volume);
        position += level.size;
    }
    let descriptor = descriptor(content.size, &verity.root_hash);
    let start = DESCRIPTOR_HEAD + verity.root_hash.len();
    assert!(descriptor[start..].iter().all(|&byte| byte == 0));
    let block = map.last_block();
    volume.put(block, descriptor[..start].to_vec());
    volume.put(block + BLOCK - 4, (DESCRIPTOR_BYTES as u32).to_le_bytes().to_vec());
}

/// The blocks of levels and descriptor.
fn blocks(content: &Content, verity: &Verity) -> Range<u64> {
    let first = start(content) / BLOCK;
    first..first + verity.size() / BLOCK
}

fn start(content: &Content) -> u64 {
    content.size.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verity(levels: &[u64]) -> Verity {
        let level = |blocks: &u64| Content { size: blocks * BLOCK, ..Content::EMPTY };
        Verity {
            digest: [1; 32].into(),
            root_hash: [2; 32].into(),
            levels: levels.iter().map(level).collect(),
        }
    }

    fn ranges(size: u64, levels: &[u64]) -> Vec<Range<u64>> {
        let content = Content { size, ..Content::EMPTY };
        block_ranges(&content, Some(&verity(levels)))
    }

    #[test]
    fn hashes_begin_behind_the_next_64_kib() {
        assert_eq!(ranges(0, &[]), std::iter::once(0..1).collect::<Vec<_>>());
        assert_eq!(ranges(1, &[]), [0..1, 16..17]);
        assert_eq!(ranges(15 * BLOCK, &[1]), [0..15, 16..18]);
        assert_eq!(ranges(15 * BLOCK + 1, &[1]), std::iter::once(0..18).collect::<Vec<_>>());
        assert_eq!(ranges(129 * BLOCK, &[1, 2]), [0..129, 144..148]);
    }

    #[test]
    fn what_block_numbers_cannot_reach_is_refused() {
        let file = |size| Content { size, ..Content::EMPTY };
        let end = MAX_FILE - MAX_FILE % ALIGNMENT;
        assert!(check(&file(end - ALIGNMENT), &verity(&[1])).is_ok());
        assert!(check(&file(end), &verity(&[15])).is_err());
    }
}
