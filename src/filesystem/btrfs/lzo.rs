//! LZO1X, written: the greedy encoder for one page at a time that btrfs' lzo wants.
//!
//! ```text
//! stream  literals  match  [0..3 literals]  match  literals  match … end
//! ```
//!
//! The format is that of the kernel's `Documentation/staging/lzo.rst`; only matches of it are made that reach back at most 16 KiB.
//! btrfs' frame around it: a length of all in 4 bytes, then for each page its length in 4 bytes and its stream; a length never
//! crosses the end of a sector (`fs/btrfs/lzo.c`).

/// Bytes of a page; each is compressed on its own.
const PAGE: usize = 4096;
/// Bytes of a length.
const LENGTH: usize = 4;
/// Bits of the hash of four bytes.
const HASH_BITS: u32 = 12;
/// The shortest match: a shorter one says little less than itself.
const SHORTEST: usize = 4;
/// Matches up to this length and [`NEAR`] take two bytes.
const SHORT: usize = 8;
/// How far back a short match reaches.
const NEAR: usize = 0x800;
/// The longest run of literals that stands behind a match without an instruction of its own.
const TRAILING: usize = 3;
/// What ends a stream.
const END: [u8; 3] = [17, 0, 0];

/// Compresses what one extent holds, in btrfs' frame.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; LENGTH];
    let mut encoder = Encoder { table: [0; 1 << HASH_BITS] };
    for page in bytes.chunks(PAGE) {
        let left = PAGE - out.len() % PAGE;
        if left < LENGTH {
            out.resize(out.len() + left, 0);
        }
        let start = out.len();
        out.extend([0; LENGTH]);
        encoder.page(page, &mut out);
        let length = (out.len() - start - LENGTH) as u32;
        out[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
    }
    let total = out.len() as u32;
    out[..LENGTH].copy_from_slice(&total.to_le_bytes());
    out
}

struct Encoder {
    /// By the hash of four bytes, where in the page they stood last, plus one.
    table: [u16; 1 << HASH_BITS],
}

impl Encoder {
    fn page(&mut self, page: &[u8], out: &mut Vec<u8>) {
        self.table.fill(0);
        let first = out.len();
        let (mut position, mut literals) = (0, 0);
        while position + SHORTEST <= page.len() {
            let slot = &mut self.table[hash(&page[position..])];
            let candidate = usize::from(*slot).checked_sub(1);
            *slot = position as u16 + 1;
            let length = candidate.map_or(0, |candidate| common(page, candidate, position));
            let Some(candidate) = candidate.filter(|_| length >= SHORTEST) else {
                position += 1;
                continue;
            };
            put_literals(&page[literals..position], first, out);
            put_match(length, position - candidate, out);
            position += length;
            literals = position;
        }
        put_literals(&page[literals..], first, out);
        out.extend(END);
    }
}

fn hash(bytes: &[u8]) -> usize {
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

/// How many bytes are the same from two places on.
fn common(page: &[u8], earlier: usize, later: usize) -> usize {
    page[later..].iter().zip(&page[earlier..]).take_while(|(one, other)| one == other).count()
}

/// `first`: where in `out` the stream begins.
fn put_literals(literals: &[u8], first: usize, out: &mut Vec<u8>) {
    let count = literals.len();
    let at_start = out.len() == first;
    match count {
        0 => {}
        // Only the first instruction has this form.
        4..=238 if at_start => out.push(17 + count as u8),
        1..=TRAILING if at_start => out.push(17 + count as u8),
        // In the low bits of the match before: its last byte but one.
        1..=TRAILING => {
            let at = out.len() - 2;
            out[at] |= count as u8;
        }
        _ => put_length(0, 15, count - TRAILING, out),
    }
    out.extend(literals);
}

fn put_match(length: usize, distance: usize, out: &mut Vec<u8>) {
    let back = distance - 1;
    if length <= SHORT && distance <= NEAR {
        out.push(((length - 1) << 5 | (back & 7) << 2) as u8);
        out.push((back >> 3) as u8);
    } else {
        put_length(32, 31, length - 2, out);
        out.push((back << 2) as u8);
        out.push((back >> 6) as u8);
    }
}

/// An instruction with a length: in its low bits up to `most`, else zero there and in bytes of their own, 255 for each zero.
fn put_length(instruction: u8, most: usize, length: usize, out: &mut Vec<u8>) {
    if length <= most {
        out.push(instruction | length as u8);
        return;
    }
    out.push(instruction);
    let mut left = length - most;
    while left > 255 {
        out.push(0);
        left -= 255;
    }
    out.push(left as u8);
}
