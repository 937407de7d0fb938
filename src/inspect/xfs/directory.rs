//! The names in directories: inline, or in blocks of entries. What finds them by hash is not needed.

use super::number;

/// Bytes of the head of a block of entries.
const HEAD: usize = 64;
/// The tag of a gap in the place of the upper bits of an inode's number.
const GAP: &[u8] = &[0xff, 0xff];

/// An entry: its name, and the inode.
type Entry = (Vec<u8>, u64);

/// The block of a directory, counted in the file system's blocks of `block` bytes, at which there are no names any more: byte 32 GiB.
pub(super) fn leaf(block: u64) -> u64 {
    (32 << 30) / block
}

/// The entries of an inline directory; `None`: it contradicts itself. `types`: whether they tell of types.
pub(super) fn short(bytes: &[u8], types: bool) -> Option<Vec<Entry>> {
    let [count, wide, ..] = *bytes else { return None };
    let width = if wide > 0 { 8 } else { 4 };
    let mut rest = bytes.get(2 + width..)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let length = usize::from(*rest.first()?);
        let name = rest.get(3..3 + length)?;
        let at = 3 + length + usize::from(types);
        entries.push((name.to_vec(), number(rest.get(at..at + width)?)));
        rest = &rest[at + width..];
    }
    Some(entries)
}

/// The entries of a block but those for the directory itself and its parent; `None`: it contradicts itself.
pub(super) fn block(bytes: &[u8], types: bool) -> Option<Vec<Entry>> {
    let end = match bytes.first_chunk::<4>()? {
        b"XDD3" => bytes.len(),
        b"XDB3" => {
            // Hashes are between the entries and the tail.
            let count = number(bytes.last_chunk::<8>()?.first_chunk::<4>()?);
            let hashes = usize::try_from(count).ok()?.checked_mul(8)?;
            (bytes.len() - 8).checked_sub(hashes)?
        }
        _ => return None,
    };
    let mut position = HEAD;
    let mut entries = Vec::new();
    while position < end {
        let here = bytes.get(position..end)?;
        if here.starts_with(GAP) {
            let length = number(here.get(2..4)?) as usize;
            if length < 8 {
                return None;
            }
            position += length;
            continue;
        }
        let length = usize::from(*here.get(8)?);
        let name = here.get(9..9 + length)?;
        if name != b"." && name != b".." {
            entries.push((name.to_vec(), number(&here[..8])));
        }
        position += (9 + length + usize::from(types) + 2).next_multiple_of(8);
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form_is_read_with_both_widths() {
        let narrow = [
            2, 0, 0, 0, 0, 128, 1, 0, 96, b'a', 1, 0, 0, 0, 131, 2, 0, 112, b'b', b'c', 2, 0, 0, 0,
            132,
        ];
        let expected = vec![(b"a".to_vec(), 131), (b"bc".to_vec(), 132)];
        assert_eq!(short(&narrow, true), Some(expected));
        let wide = [1, 1, 0, 0, 0, 0, 0, 0, 0, 128, 1, 0, 96, b'a', 1, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(short(&wide, true), Some(vec![(b"a".to_vec(), 1 << 32)]));
        for length in 0..narrow.len() {
            assert_eq!(short(&narrow[..length], true), None, "{length}");
        }
    }

    #[test]
    fn block_of_anything_never_panics() {
        for magic in [b"XDD3", b"XDB3"] {
            for seed in 0..2000_u32 {
                let mut bytes: Vec<u8> = (0..512_u32)
                    .map(|at| (at.wrapping_mul(seed).wrapping_mul(2_654_435_761) >> 24) as u8)
                    .collect();
                bytes[..4].copy_from_slice(magic);
                let _ = block(&bytes, seed % 2 == 0);
            }
        }
    }
}
