//! LZO1X, read, in btrfs' frame: a length of all, then pages with a length each, none of which crosses the end of a sector.
//!
//! After the kernel's `Documentation/staging/lzo.rst` and `fs/btrfs/lzo.c`.

const PAGE: usize = 4096;

/// At most `most` bytes; `None`: they are not what was compressed.
pub(super) fn decompress(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let total = length(bytes, 0)?;
    let bytes = bytes.get(..total)?;
    let mut out = Vec::new();
    let mut position = 4;
    while position < total && out.len() < most {
        let left = PAGE - position % PAGE;
        if left < 4 {
            position += left;
        }
        let size = length(bytes, position)?;
        let stream = bytes.get(position + 4..position.checked_add(4)?.checked_add(size)?)?;
        Page { stream, at: 0, out: Vec::new() }.decompress(&mut out)?;
        position += 4 + size;
    }
    out.truncate(most);
    Some(out)
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
}

/// One stream of instructions.
struct Page<'a> {
    stream: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl Page<'_> {
    fn decompress(mut self, all: &mut Vec<u8>) -> Option<()> {
        // How many literals came last: 0, 1 to 3, or 4 for more.
        let mut state = 0;
        let first = *self.stream.first()?;
        if first > 17 {
            self.at = 1;
            let count = usize::from(first - 17);
            self.literals(count)?;
            state = count.min(4);
        }
        loop {
            let instruction = usize::from(self.byte()?);
            let (count, distance, trailing) = match instruction {
                // A run of literals.
                0..16 if state == 0 => {
                    let count = self.run(instruction, 15)? + 3;
                    self.literals(count)?;
                    state = 4;
                    continue;
                }
                0..16 => {
                    let far = usize::from(self.byte()?) << 2 | instruction >> 2;
                    let (count, base) = if state == 4 { (3, 2049) } else { (2, 1) };
                    (count, far + base, instruction & 3)
                }
                16..32 => {
                    let count = self.run(instruction & 7, 7)? + 2;
                    let word = self.word()?;
                    let distance = (instruction & 8) << 11 | word >> 2;
                    if distance == 0 {
                        all.append(&mut self.out);
                        return Some(());
                    }
                    (count, distance + 16384, word & 3)
                }
                32..64 => {
                    let count = self.run(instruction & 31, 31)? + 2;
                    let word = self.word()?;
                    (count, (word >> 2) + 1, word & 3)
                }
                _ => {
                    let far = usize::from(self.byte()?) << 3 | instruction >> 2 & 7;
                    ((instruction >> 5) + 1, far + 1, instruction & 3)
                }
            };
            self.copy(count, distance)?;
            self.literals(trailing)?;
            state = trailing;
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.stream.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn word(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// A length: as it stands, or, where that is zero, `most` and 255 for every zero byte and the byte behind those.
    fn run(&mut self, short: usize, most: usize) -> Option<usize> {
        if short > 0 {
            return Some(short);
        }
        let mut length = most;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Some(length + usize::from(last)),
            }
        }
    }

    fn literals(&mut self, count: usize) -> Option<()> {
        self.fits(count)?;
        let bytes = self.stream.get(self.at..self.at + count)?;
        self.out.extend(bytes);
        self.at += count;
        Some(())
    }

    fn copy(&mut self, count: usize, distance: usize) -> Option<()> {
        self.fits(count)?;
        let start = self.out.len().checked_sub(distance)?;
        for from in start..start + count {
            self.out.push(self.out[from]);
        }
        Some(())
    }

    /// No stream makes more than a page.
    fn fits(&self, count: usize) -> Option<()> {
        (count <= PAGE - self.out.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_does_what_it_says() {
        // Six literals; a match of 4 at distance 6 with two literals behind; a long match of "ab".
        let stream =
            [23, b'a', b'b', b'c', b'd', b'e', b'f', 3 << 5 | (5 & 7) << 2 | 2, 0, b'x', b'y'];
        let end = [17, 0, 0];
        let page = [&stream[..], &[32, 3, 1 << 2, 0], &end].concat();
        let mut bytes = ((8 + page.len()) as u32).to_le_bytes().to_vec();
        bytes.extend((page.len() as u32).to_le_bytes());
        bytes.extend(&page);
        let made = decompress(&bytes, 1000).unwrap();
        assert_eq!(made, [&b"abcdefabcdxy"[..], &b"xy".repeat(18)].concat());
    }

    #[test]
    fn nonsense_is_refused_without_panic() {
        for first in 0..=255_u8 {
            for fill in [0, 1, 17, 32, 64, 255] {
                let mut bytes = vec![fill; 300];
                bytes[..4].copy_from_slice(&300_u32.to_le_bytes());
                bytes[4..8].copy_from_slice(&250_u32.to_le_bytes());
                bytes[8] = first;
                let _ = decompress(&bytes, PAGE);
            }
        }
        assert_eq!(decompress(b"", 1), None);
    }
}
