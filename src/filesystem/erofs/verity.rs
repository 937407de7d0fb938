//! The fs-verity digest of a file: SHA-256 over 4 KiB blocks, no salt.
//!
//! ```text
//! data blocks ─hash─► level 0: 128 hashes a block ─hash─► level 1 … ─► one root hash
//! digest = SHA-256(descriptor: version, algorithm, block size, file size, root hash; 256 bytes)
//! ```

use std::io::{self, Read};

use sha2::{Digest, Sha256};

const BLOCK: usize = 4096;

/// The digest that the kernel measures for a file with these bytes (`FS_IOC_MEASURE_VERITY`).
pub fn fs_verity_digest(reader: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut levels = Levels(Vec::new());
    let mut block = Vec::with_capacity(BLOCK);
    let mut size = 0_u64;
    loop {
        block.clear();
        (&mut *reader).take(BLOCK as u64).read_to_end(&mut block)?;
        size += block.len() as u64;
        if !block.is_empty() {
            levels.push(0, hash_block(&mut block));
        }
        if block.is_empty() || !size.is_multiple_of(BLOCK as u64) {
            break;
        }
    }
    Ok(descriptor_digest(size, &levels.root()))
}

/// Pads to a whole block and hashes it.
fn hash_block(block: &mut Vec<u8>) -> [u8; 32] {
    block.resize(BLOCK, 0);
    Sha256::digest(block).into()
}

/// The hashes of each level that do not fill a block yet.
struct Levels(Vec<Vec<u8>>);

impl Levels {
    fn push(&mut self, level: usize, hash: [u8; 32]) {
        if self.0.len() == level {
            self.0.push(Vec::with_capacity(BLOCK));
        }
        self.0[level].extend_from_slice(&hash);
        if self.0[level].len() == BLOCK {
            let above = hash_block(&mut self.0[level]);
            self.0[level].clear();
            self.push(level + 1, above);
        }
    }

    /// The hash at the top; zero for an empty file.
    fn root(mut self) -> [u8; 32] {
        let mut level = 0;
        while level < self.0.len() {
            let top = level + 1 == self.0.len();
            match (self.0[level].first_chunk(), self.0[level].len()) {
                (Some(hash), 32) if top => return *hash,
                (None, _) => {}
                _ => {
                    let above = hash_block(&mut self.0[level]);
                    self.push(level + 1, above);
                }
            }
            level += 1;
        }
        [0; 32]
    }
}

/// Hashes `struct fsverity_descriptor`.
fn descriptor_digest(size: u64, root: &[u8; 32]) -> [u8; 32] {
    let mut descriptor = [0; 256];
    descriptor[0] = 1; // version
    descriptor[1] = 1; // hash_algorithm: SHA-256
    descriptor[2] = 12; // log_blocksize
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    descriptor[16..48].copy_from_slice(root);
    Sha256::digest(descriptor).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, read literally: all levels in memory, one after the other.
    fn literal(data: &[u8]) -> [u8; 32] {
        let hash = |data: &[u8]| -> Vec<u8> {
            data.chunks(BLOCK).flat_map(|block| hash_block(&mut block.to_vec())).collect()
        };
        if data.is_empty() {
            return descriptor_digest(0, &[0; 32]);
        }
        let mut level = hash(data);
        while level.len() > 32 {
            level = hash(&level);
        }
        descriptor_digest(data.len() as u64, level.first_chunk().unwrap())
    }

    #[test]
    fn every_shape_of_the_hash_tree() {
        for blocks in [0, 1, 2, 127, 128, 129, 255, 256, 257, 128 * 128, 128 * 128 + 1] {
            for extra in [0, 1, 4095] {
                let data: Vec<u8> =
                    (0..blocks * BLOCK + extra).map(|i| (i ^ (i >> 9)) as u8).collect();
                let digest = fs_verity_digest(&mut &data[..]).unwrap();
                assert_eq!(digest, literal(&data), "{blocks} blocks and {extra} bytes");
            }
        }
    }
}
