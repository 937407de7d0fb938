//! The hash that orders the names of large directories: half MD4, in which three rounds of MD4 take eight steps each.

use uuid::Uuid;

/// `s_def_hash_version` and the hash tree's `hash_version`.
pub(super) const HALF_MD4: u8 = 1;
/// `s_flags`: bytes of names are taken as signed. Kernels of all architectures heed it.
pub(super) const FLAG_SIGNED: u32 = 1;
/// The hash that means "the end" to `readdir`, as it is before its lowest bit is cut off.
const END: u32 = 0xffff_fffe;

/// What `s_hash_seed` makes of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed([u32; 4]);

impl Seed {
    /// A seed of zeros stands for MD4's own initial state.
    pub(super) fn new(seed: &Uuid) -> Self {
        if seed.is_nil() {
            return Self([0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476]);
        }
        let (words, _) = seed.as_bytes().as_chunks::<4>();
        Self(std::array::from_fn(|i| u32::from_le_bytes(words[i])))
    }

    /// The hash that the tree sorts by, and the minor one that sorts names of equal hash.
    pub(super) fn hash(self, name: &[u8]) -> (u32, u32) {
        let mut state = self.0;
        let mut rest = name;
        while !rest.is_empty() {
            mix(&mut state, &words(rest));
            rest = &rest[rest.len().min(32)..];
        }
        let hash = state[1] & !1;
        (if hash == END { END - 2 } else { hash }, state[2])
    }
}

/// Up to 32 bytes of a name as eight words, filled up with how many bytes are left of it.
fn words(name: &[u8]) -> [u32; 8] {
    let pad = u32::from_le_bytes([name.len() as u8; 4]);
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
        for &byte in bytes {
            let byte = i32::from(byte.cast_signed()).cast_unsigned();
            *word = byte.wrapping_add(*word << 8);
        }
    }
    words
}

/// One round: which words, how far to rotate, the constant, and how three words of the state are mixed.
type Round = ([usize; 8], [u32; 4], u32, fn(u32, u32, u32) -> u32);

const ROUNDS: [Round; 3] = [
    ([0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19], 0, |x, y, z| z ^ (x & (y ^ z))),
    ([1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13], 0x5a82_7999, |x, y, z| (x & y) | (z & (x | y))),
    ([3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15], 0x6ed9_eba1, |x, y, z| x ^ y ^ z),
];

fn mix(state: &mut [u32; 4], words: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for (order, rotations, constant, function) in ROUNDS {
        for (step, &word) in order.iter().enumerate() {
            let sum =
                a.wrapping_add(function(b, c, d)).wrapping_add(words[word]).wrapping_add(constant);
            // The word just made is the next step's second.
            (a, b, c, d) = (d, sum.rotate_left(rotations[step % 4]), b, c);
        }
    }
    for (old, new) in state.iter_mut().zip([a, b, c, d]) {
        *old = old.wrapping_add(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected hashes are those of `debugfs -R 'dx_hash -h half_md4 -s UUID NAME'`, e2fsprogs 1.47.0.
    #[test]
    fn the_same_as_debugfs() {
        let seed: Uuid = "66666666-2222-3333-4444-555555555555".parse().unwrap();
        let nil = Seed::new(&Uuid::nil());
        assert_eq!(nil.hash(b"hello"), (0x1746_da32, 0x4200_13b5));
        assert_eq!(Seed::new(&seed).hash(b"hello"), (0x4da0_4c44, 0xba4e_2e60));
        let long = b"a name of more than thirty-two bytes, and then some more";
        assert_eq!(Seed::new(&seed).hash(long), (0x020d_69aa, 0x3d2a_6c63));
    }
}
