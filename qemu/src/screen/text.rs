//! What stands on a text console, read off its pixels: where there is no serial port, a panic or a prompt is nowhere else.
//!
//! ```text
//! 8 by 16 pixels a cell on a frame buffer, 9 by 16 in VGA's own text mode          ...#....   ─► 'A'
//! ```
//!
//! The letters are those of the VGA BIOS, which come with QEMU: Linux draws with nearly the same (some, such as T and w, are narrower
//! there and stay unknown), other fonts are like them. Those of UEFI
//! firmware and its boot loaders have another height and are not read.

use std::fs;
use std::path::Path;

use super::Picture;

/// Rows of a letter.
const ROWS: usize = 16;

/// The letter `A`, by which the table is found in the BIOS.
const LETTER_A: [u8; ROWS] =
    [0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0];

/// Where distributions keep the BIOS of QEMU's VGA card.
const PLACES: [&str; 3] = [
    "usr/share/seabios/vgabios-stdvga.bin",
    "usr/share/seavgabios/vgabios-stdvga.bin",
    "usr/share/qemu/vgabios-stdvga.bin",
];

/// So many of a cell's 128 pixels may be others than the letter's: fonts differ in a serif or two.
const TOLERANCE: u32 = 10;

/// Stands for what is not a letter.
const UNKNOWN: char = '\u{fffd}';

/// Letters to compare with: those of ASCII that are seen, as bits, row by row.
#[derive(Debug)]
pub(super) struct Font(Vec<(char, u128)>);

impl Font {
    /// The first one below `root`, which is `/` but in tests; `None` if there is none, and nothing is read.
    pub(super) fn find(root: &Path) -> Option<Self> {
        PLACES.iter().find_map(|place| Self::of(&fs::read(root.join(place)).ok()?))
    }

    fn of(bios: &[u8]) -> Option<Self> {
        let letter = bios.windows(ROWS).position(|rows| rows == LETTER_A)?;
        let table = letter.checked_sub(usize::from(b'A') * ROWS)?;
        let letters = (b'!'..=b'~').map(|letter| {
            let start = table + usize::from(letter) * ROWS;
            let rows = bios.get(start..start + ROWS)?;
            let bits = rows.iter().fold(0, |bits, row| bits << 8 | u128::from(*row));
            Some((char::from(letter), bits))
        });
        letters.collect::<Option<_>>().map(Self)
    }

    /// The lines of a picture that are text; no others, and no empty ones.
    pub(super) fn read(&self, picture: &Picture) -> Vec<String> {
        let (width, height) = (picture.width as usize, picture.height as usize);
        // VGA's text mode has a column between letters.
        let cell = if (width, height) == (720, 400) { 9 } else { 8 };
        let lines = (0..height / ROWS).map(|row| {
            let line: String = (0..width / cell)
                .map(|column| self.letter(bits(picture, column * cell, row * ROWS)))
                .collect();
            line.trim_end().to_owned()
        });
        lines.filter(|line| is_text(line)).collect()
    }

    fn letter(&self, cell: u128) -> char {
        if cell == 0 {
            return ' ';
        }
        let distance = |letter: &(char, u128)| (letter.1 ^ cell).count_ones();
        match self.0.iter().map(|letter| (distance(letter), letter.0)).min() {
            Some((distance, letter)) if distance <= TOLERANCE => letter,
            _ => UNKNOWN,
        }
    }
}

/// The pixels of a cell that have not the colour of most of them.
fn bits(picture: &Picture, left: usize, top: usize) -> u128 {
    let width = picture.width as usize;
    let pixel = |x: usize, y: usize| {
        let at = ((top + y) * width + left + x) * 3;
        &picture.pixels[at..at + 3]
    };
    let ground = pixel(0, 0);
    let mut bits = 0_u128;
    for y in 0..ROWS {
        for x in 0..8 {
            bits = bits << 1 | u128::from(pixel(x, y) != ground);
        }
    }
    if bits.count_ones() > 64 { !bits } else { bits }
}

/// Three quarters of what is not empty are letters.
fn is_text(line: &str) -> bool {
    let seen = line.chars().filter(|c| *c != ' ').count();
    let unknown = line.chars().filter(|c| *c == UNKNOWN).count();
    seen > 0 && unknown * 4 <= seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BIOS whose letters are all different: `A` as it is, the others made up.
    fn bios() -> Vec<u8> {
        let mut bios = vec![0xff; 100];
        for letter in 0..256_usize {
            for (row, drawn) in LETTER_A.into_iter().enumerate() {
                bios.push(match letter {
                    65 => drawn,
                    _ if (2..14).contains(&row) => (letter * 37 + row * row * 11) as u8,
                    _ => 0,
                });
            }
        }
        bios
    }

    fn drawn(font: &Font, cell: usize, size: (u32, u32), lines: &[&str]) -> Picture {
        let (width, height) = size;
        let mut pixels = vec![0; (width * height * 3) as usize];
        for (row, line) in lines.iter().enumerate() {
            for (column, letter) in line.chars().enumerate() {
                let Some((_, bits)) = font.0.iter().find(|known| known.0 == letter) else {
                    continue;
                };
                for at in 0..128_usize {
                    if bits >> (127 - at) & 1 == 1 {
                        let (x, y) = (column * cell + at % 8, row * ROWS + at / 8);
                        pixels[(y * width as usize + x) * 3] = 170;
                    }
                }
            }
        }
        Picture { width, height, pixels }
    }

    #[test]
    fn letters_are_read_whatever_the_mode() {
        let font = Font::of(&bios()).unwrap();
        let lines = ["Kernel panic - not syncing: VFS", "", "localhost login: "];
        for (cell, size) in [(8, (1280, 800)), (8, (640, 100)), (9, (720, 400))] {
            let picture = drawn(&font, cell, size, &lines);
            assert_eq!(font.read(&picture), [lines[0], "localhost login:"]);
        }
    }

    #[test]
    fn pictures_are_no_text() {
        let font = Font::of(&bios()).unwrap();
        let mut picture = drawn(&font, 8, (640, 64), &["text", "more"]);
        for (at, byte) in picture.pixels[..640 * 16 * 3].iter_mut().enumerate() {
            *byte = (at * at / 7) as u8;
        }
        assert_eq!(font.read(&picture), ["more"]);
        assert!(Font::of(&LETTER_A).is_none() && Font::of(&bios()[..2000]).is_none());
    }

    /// The one that QEMU brings is where it is looked for, and looks as it must.
    #[test]
    fn the_bios_of_this_machine_has_letters() {
        let Some(font) = Font::find(Path::new("/")) else {
            assert!(
                std::env::var_os("REQUIRE_TOOLS").is_none(),
                "QEMU's VGA BIOS is not installed"
            );
            return;
        };
        let bits = |wanted: char| font.0.iter().find(|letter| letter.0 == wanted).unwrap().1;
        assert_eq!(bits('-').count_ones(), 7, "a stroke");
        assert!(bits('l').count_ones() < bits('M').count_ones());
    }
}
