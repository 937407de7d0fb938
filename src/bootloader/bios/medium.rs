//! GRUB for a BIOS on a medium: the boot image that El Torito names, and the MBR that finds the same image on a stick.
//!
//! ```text
//! cdboot.img (2048)    the BIOS of a CD drive loads it, it loads the rest; its table at 8 says where that is
//! diskboot.img (512)   the MBR of a stick loads it, it loads the rest by the block list at its end
//! lzma_decompress.img | LZMA( kernel.img | modules | prefix )
//! ```

use anyhow::{Context, Result};

use super::{DIRECTORY, Image, core, modules, payload, sector};
use crate::bootloader::read;
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::tree::Tree;

/// Where the menu is on the medium.
const PREFIX: &str = "/bootpress";

/// Everything that the menu uses: a medium carries no modules besides.
const MODULES: [&str; 11] = [
    "biosdisk",
    "iso9660",
    "normal",
    "configfile",
    // The command; it loads search_fs_file, which does what `search --file` asks.
    "search",
    "linux",
    "test",
    "echo",
    "minicmd",
    "serial",
    "terminal",
];

/// Bytes of cdboot.img: a sector of a CD.
const CD_SECTOR: usize = 2048;
/// Where boot_hybrid.img has the sector that it loads, of 512 bytes.
const HYBRID_SECTOR: std::ops::Range<usize> = 0x1b0..0x1b8;
/// The block list at the end of diskboot.img, behind cdboot.img.
const BLOCK_LIST: usize = CD_SECTOR + 512 - 12;

/// Boot code of a medium without a place on it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediumCode {
    image: Vec<u8>,
    mbr: [u8; 512],
}

impl MediumCode {
    /// Made from the image's modules; `None`: it has none. `Unsupported`: it lacks what media need of them.
    pub fn prepare(root: &Tree, contents: &ContentStore) -> Result<Option<Self>> {
        if modules(root).is_none() {
            return Ok(None);
        }
        let image = |name: &str| -> Result<Vec<u8>> {
            let path = format!("{DIRECTORY}/{name}");
            read(root, contents, &path)?.ok_or_else(|| {
                unsupported(format!("the image lacks {path}, which GRUB needs on a medium"), None)
            })
        };
        let image: &Image<'_> = &image;
        let mbr = sector(image, "boot_hybrid.img")?;
        let payload =
            payload(image, &MODULES, PREFIX).context("making GRUB's boot image for CDs")?;
        let mut bytes = image("cdboot.img")?;
        if bytes.len() != CD_SECTOR {
            return Err(corrupt(
                format!("{DIRECTORY}/cdboot.img"),
                format!("it has {} bytes, not {CD_SECTOR}", bytes.len()),
            ));
        }
        bytes.extend(core(image, &payload).context("making GRUB's boot image for CDs")?);
        bytes.resize(bytes.len().next_multiple_of(CD_SECTOR), 0);
        Ok(Some(Self { image: bytes, mbr }))
    }

    /// Bytes of the boot image.
    pub fn size(&self) -> u64 {
        self.image.len() as u64
    }

    /// The boot image for the sector, of 2048 bytes, at which it lies on the medium.
    pub fn image(&self, sector: u32) -> Vec<u8> {
        let mut image = self.image.clone();
        let list = u64::from(sector) * 4 + 5;
        image[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&list.to_le_bytes());
        // The boot information table: sector of the volume descriptor, of this image, its bytes, and their sum from 64 on.
        let sum = image[64..].chunks(4).fold(0_u32, |sum, word| {
            sum.wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        });
        for (at, number) in [(8, 16), (12, sector), (16, image.len() as u32), (20, sum)] {
            image[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        image[24..64].fill(0);
        image
    }

    /// The first sector of a stick, whose partition records are kept.
    pub fn mbr(&self, sector: u32, protective: &[u8; 512]) -> [u8; 512] {
        let mut mbr = self.mbr;
        mbr[HYBRID_SECTOR].copy_from_slice(&(u64::from(sector) * 4 + 4).to_le_bytes());
        mbr[0x1b8..].copy_from_slice(&protective[0x1b8..]);
        mbr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands of GRUB 2.14 by the module that has them (its command.lst); `None`: the kernel or the language itself.
    const COMMANDS: [(&str, Option<&str>); 14] = [
        ("search", Some("search")),
        ("set", None),
        ("if", None),
        ("then", None),
        ("else", None),
        ("fi", None),
        ("}", None),
        ("source", Some("configfile")),
        ("serial", Some("serial")),
        ("terminal_input", Some("terminal")),
        ("terminal_output", Some("terminal")),
        ("menuentry", Some("normal")),
        ("linux", Some("linux")),
        ("initrd", Some("linux")),
    ];

    /// A medium has no other modules, so a command that none of these has is an error on every BIOS.
    #[test]
    fn commands_of_the_menus_are_built_in() {
        let menus = [
            include_str!("../../iso/guest/grub.cfg"),
            include_str!("../../iso/guest/anaconda.cfg"),
        ];
        for line in menus.iter().flat_map(|menu| menu.lines()) {
            let line = line.trim();
            let mut words = line.split_whitespace();
            let Some(mut command) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            if command == "if" {
                command = words.next().filter(|word| *word != "[").unwrap_or("if");
                assert!(MODULES.contains(&"test"));
            }
            let command = command.trim_end_matches(';');
            let known = COMMANDS.iter().find(|(name, _)| *name == command);
            let (_, module) = known.unwrap_or_else(|| panic!("which module has {command}? {line}"));
            assert!(module.is_none_or(|module| MODULES.contains(&module)), "{line}");
        }
    }

    #[test]
    fn the_code_knows_where_it_is() {
        let code = MediumCode { image: vec![1; 6 * CD_SECTOR], mbr: [0xcc; 512] };
        let image = code.image(100);
        assert_eq!(
            image[8..24],
            [16, 0, 0, 0, 100, 0, 0, 0, 0, 48, 0, 0, image[20], image[21], image[22], image[23]]
        );
        assert_eq!(image[2548..2556], 405_u64.to_le_bytes());
        let mbr = code.mbr(100, &[7; 512]);
        assert_eq!(mbr[0x1b0..0x1b8], 404_u64.to_le_bytes());
        assert_eq!((mbr[0x1af], mbr[0x1b8], mbr[511]), (0xcc, 7, 7));
    }
}
