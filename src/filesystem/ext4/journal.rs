//! The journal, empty: a super block of version 2, and then nothing that anybody reads.

use zerocopy::{FromZeros, IntoBytes};

use super::checksum;
use super::on_disk::{BLOCK, BLOCK_BYTES, JournalSuperBlock};
use uuid::Uuid;

const MAGIC: u32 = 0xc03b_3998;
const SUPER_BLOCK_V2: u32 = 4;
/// What the kernel would set at the first mount of a file system with 64bit and metadata_csum: 64bit, checksum v3.
const INCOMPAT: u32 = 0x2 | 0x10;
const CRC32C: u8 = 4;
/// jbd2 takes no smaller one.
pub(super) const MIN_BLOCKS: u32 = 1024;

/// The size that mke2fs gives the journal of a file system of `size` bytes, in blocks.
pub(super) fn default_blocks(size: u64) -> u32 {
    const STEPS: [(u64, u32); 7] = [
        (32_768, 1024),
        (262_144, 4096),
        (524_288, 8192),
        (4_194_304, 16_384),
        (8_388_608, 32_768),
        (16_777_216, 65_536),
        (33_554_432, 131_072),
    ];
    let blocks = size / BLOCK;
    STEPS.iter().find(|(below, _)| blocks < *below).map_or(262_144, |(_, journal)| *journal)
}

/// The first block of a journal.
pub(super) fn super_block(blocks: u32, uuid: &Uuid) -> Vec<u8> {
    let mut block = JournalSuperBlock::new_zeroed();
    block.h_magic.set(MAGIC);
    block.h_blocktype.set(SUPER_BLOCK_V2);
    block.s_blocksize.set(BLOCK as u32);
    block.s_maxlen.set(blocks);
    block.s_first.set(1);
    block.s_sequence.set(1);
    // s_start: zero. There is nothing to recover.
    block.s_feature_incompat.set(INCOMPAT);
    block.s_uuid = *uuid.as_bytes();
    block.s_nr_users.set(1);
    block.s_checksum_type = CRC32C;
    checksum::seal_journal(&mut block);
    let mut bytes = block.as_bytes().to_vec();
    bytes.resize(BLOCK_BYTES, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_large_as_mke2fs_makes_it() {
        // Seen with mke2fs 1.47.0 -b 4096: MiB of the file system, blocks of the journal.
        for (mib, journal) in [
            (16, 1024),
            (600, 4096),
            (1024, 8192),
            (4096, 16_384),
            (10_240, 16_384),
            (102_400, 131_072),
        ] {
            assert_eq!(default_blocks(mib << 20), journal, "{mib} MiB");
        }
        assert_eq!(default_blocks(1 << 40), 262_144);
    }
}
