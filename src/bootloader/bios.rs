//! GRUB for a BIOS: what `grub-install` makes and writes, made from the image's modules on any machine.
//!
//! ```text
//! LBA 0           boot.img        loads one sector, whose LBA is at 0x5c
//! BIOS boot + 0   diskboot.img    loads the sectors of the block list at its end
//!           + 1   lzma_decompress.img | LZMA( kernel.img | module info | modules | prefix )
//! ```
//!
//! No file system is involved before the modules that core.img carries, so that partition must stay where it is.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::Write;

use anyhow::{Context, Result};
use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};

use super::{BootOptions, read};
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::filesystem_kind::FileSystem;
use crate::tree::{InodeId, Kind, Metadata, Tree};

mod medium;

pub use medium::MediumCode;

/// GRUB's modules for a BIOS in the image.
pub(super) const DIRECTORY: &str = "usr/lib/grub/i386-pc";

/// What core.img needs to find `/boot` and the other modules: those that bootupd asks for, the file system of `/boot`, the BIOS' disks.
const fn modules_of(filesystem: FileSystem, dos: bool) -> [&'static str; 4] {
    let table = if dos { "part_msdos" } else { "part_gpt" };
    let filesystem = match filesystem {
        FileSystem::Xfs => "xfs",
        _ => "ext2",
    };
    ["mdraid1x", table, filesystem, "biosdisk"]
}

const SECTOR: usize = 512;
/// Where the kernel is linked to run (`GRUB_KERNEL_I386_PC_LINK_ADDR`).
const LINK_ADDRESS: u64 = 0x9000;
/// The last two bytes of a sector that a BIOS starts.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Bytes of GRUB's kernel and modules, at most: compressed, they have to fit below [`CORE_END`], which is a thirtieth.
const LARGEST_PAYLOAD: usize = 16 << 20;
/// Bytes of `moddep.lst`, at most; GRUB's has 10 kB.
const LARGEST_LIST: usize = 1 << 20;
/// The end of what may hold core.img while it is read (GRUB's check in grub-mkimage).
const CORE_END: u64 = 0x78000;
/// The end of what may hold the kernel once it runs.
const KERNEL_END: u64 = 0x68000;
/// Where diskboot.img puts the sectors that it reads, as a real-mode segment.
const CORE_SEGMENT: u16 = 0x0820;

/// Code that a BIOS starts, without a place on a disk yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiosCode {
    boot: [u8; SECTOR],
    /// diskboot.img and what follows it.
    core: Vec<u8>,
}

impl BiosCode {
    /// Sectors of 512 bytes that the BIOS boot partition needs.
    pub fn sectors(&self) -> u64 {
        self.core.len().div_ceil(SECTOR) as u64
    }

    /// The master boot record and the beginning of the BIOS boot partition, whole sectors.
    ///
    /// `first_lba`: of that partition, in sectors of 512 bytes. `protective`: the disk's first sector as the partition
    /// table's writer made it; its partitions and signature stay.
    pub fn embed(&self, first_lba: u64, protective: &[u8; 512]) -> ([u8; 512], Vec<u8>) {
        let mut mbr = self.boot;
        // The BIOS parameter block of a file system, and the disk signature with the partition entries.
        for keep in [0x003..0x05a, 0x1b8..0x1fe] {
            mbr[keep.clone()].copy_from_slice(&protective[keep]);
        }
        mbr[0x5c..0x64].copy_from_slice(&first_lba.to_le_bytes());
        // The boot drive is the one that the BIOS names.
        mbr[0x64] = 0xff;
        // Two no-ops instead of the jump that probes for floppies.
        mbr[0x66..0x68].fill(0x90);

        let mut core = self.core.clone();
        core.resize(core.len().next_multiple_of(SECTOR), 0);
        let rest = u16::try_from(core.len() / SECTOR - 1).expect("core.img ends below 0x78000");
        // A list of one run, which is read backwards, ended by one of zeros.
        core[SECTOR - 24..SECTOR - 12].fill(0);
        core[SECTOR - 12..SECTOR].copy_from_slice(&block_list(first_lba + 1, rest));
        (mbr, core)
    }
}

impl fmt::Display for BiosCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core.img of {} KiB from {DIRECTORY}", self.core.len().div_ceil(1024))
    }
}

/// A run of sectors: start, count, and the segment to load them at.
fn block_list(start: u64, count: u16) -> [u8; 12] {
    let mut list = [0; 12];
    list[..8].copy_from_slice(&start.to_le_bytes());
    list[8..10].copy_from_slice(&count.to_le_bytes());
    list[10..].copy_from_slice(&CORE_SEGMENT.to_le_bytes());
    list
}

/// The image's directory of modules, if it has one.
pub(super) fn modules(root: &Tree) -> Option<InodeId> {
    root.resolve(DIRECTORY).filter(|&id| root.inode(id).is_directory())
}

/// Makes the code, and puts GRUB's modules into `boot`.
pub(super) fn install(
    root: &Tree,
    directory: InodeId,
    contents: &ContentStore,
    options: &BootOptions,
    boot: &mut Tree,
) -> Result<BiosCode> {
    let directory_of_boot = if options.separate_boot { "/grub2" } else { "/boot/grub2" };
    let map = if options.dos { "msdos" } else { "gpt" };
    let modules = modules_of(options.boot_filesystem, options.dos);
    let prefix = format!("(,{map}{}){directory_of_boot}", options.boot_partition);
    let image = |name: &str| -> Result<Vec<u8>> {
        let path = format!("{DIRECTORY}/{name}");
        read(root, contents, &path)?.ok_or_else(|| {
            unsupported(format!("the image lacks {path}, which GRUB needs on a BIOS"), None)
        })
    };
    let payload = payload(&image, &modules, &prefix).context("making GRUB's core.img")?;
    let core = core(&image, &payload).context("making GRUB's core.img")?;
    let boot_sector = sector(&image, "boot.img")?;
    if !boot_sector.ends_with(&SIGNATURE) {
        let reason = "its last two bytes are not the boot signature 55 AA";
        return Err(corrupt(format!("{DIRECTORY}/boot.img"), reason));
    }
    let code = BiosCode { boot: boot_sector, core };

    let target = boot.make_directories("grub2/i386-pc", &Metadata::root(0o755));
    // Made with what is above it: only root may look into /boot/grub2.
    let grub2 = boot.make_directories("grub2", &Metadata::root(0o700));
    boot.inode_mut(grub2).metadata.mode = 0o700;
    for (name, id) in root.inode(directory).children() {
        let wanted = [&b".mod"[..], b".lst", b".o"].iter().any(|end| name.ends_with(end));
        if let Kind::File(content) = &root.inode(id).kind
            && (wanted || &**name == b"modinfo.sh")
        {
            boot.create(target, name, Metadata::root(0o644), Kind::File(content.clone()));
        }
    }
    for (name, bytes) in [(&b"core.img"[..], &code.core[..]), (b"boot.img", &code.boot)] {
        let content = contents.insert_bytes(bytes)?;
        boot.create(target, name, Metadata::root(0o644), Kind::File(content));
    }
    if let Some(font) = root.file("usr/share/grub/unicode.pf2") {
        let fonts = boot.make_directories("grub2/fonts", &Metadata::root(0o755));
        boot.create(fonts, b"unicode.pf2", Metadata::root(0o644), Kind::File(font.clone()));
    }
    Ok(code)
}

/// Reads a file of [`DIRECTORY`].
type Image<'a> = dyn Fn(&str) -> Result<Vec<u8>> + 'a;

fn sector(image: &Image<'_>, name: &str) -> Result<[u8; SECTOR]> {
    let bytes = image(name)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| {
        corrupt(
            format!("{DIRECTORY}/{name}"),
            format!("it has {} bytes, not {SECTOR}", bytes.len()),
        )
    })
}

/// diskboot.img, the decompressor, and the payload compressed.
fn core(image: &Image<'_>, payload: &[u8]) -> Result<Vec<u8>> {
    let mut head = sector(image, "diskboot.img")?;
    let mut decompressor = image("lzma_decompress.img")?;
    let broken = |reason: &str| corrupt(format!("{DIRECTORY}/lzma_decompress.img"), reason);
    // At 0x14 is how much of it is not protected by Reed-Solomon codes; we add none, which the zero at 0x10 says.
    let unprotected = decompressor.get(0x14..0x16).ok_or_else(|| broken("it is too short"))?;
    if unprotected == [0xff; 2] {
        return Err(broken("it has no length of its unprotected part"));
    }
    let compressed = compress(payload).context("compressing the kernel")?;
    for (at, size) in [(0x08, compressed.len()), (0x0c, payload.len())] {
        let size = u32::try_from(size).context("measuring the kernel")?;
        decompressor[at..at + 4].copy_from_slice(&size.to_le_bytes());
    }
    let size = decompressor.len() + compressed.len();
    if LINK_ADDRESS + size as u64 > CORE_END {
        return Err(unsupported(
            format!("core.img has {size} bytes, more than a BIOS can load"),
            None,
        ));
    }
    let sectors = u16::try_from(size.div_ceil(SECTOR)).context("measuring core.img")?;
    // The start that grub-mkimage leaves, too: embedding sets it.
    let start = u64::from_le_bytes(head[SECTOR - 12..SECTOR - 4].try_into().expect("8 bytes"));
    head[SECTOR - 12..].copy_from_slice(&block_list(start, sectors));
    Ok([&head[..], &decompressor, &compressed].concat())
}

/// Raw LZMA with the only parameters that GRUB's decompressor is built for.
fn compress(payload: &[u8]) -> Result<Vec<u8>> {
    let options = LzmaOptions {
        dict_size: 1 << 16,
        lc: 3,
        lp: 0,
        pb: 2,
        mode: EncodeMode::Normal,
        nice_len: 273,
        mf: MfType::Bt4,
        depth_limit: 0,
        preset_dict: None,
    };
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, true)?;
    writer.write_all(payload)?;
    Ok(writer.finish()?)
}

/// The kernel, and behind it the modules and the prefix that it finds there.
fn payload(image: &Image<'_>, modules: &[&str], prefix: &str) -> Result<Vec<u8>> {
    const ELF_MODULE: u32 = 0;
    const PREFIX: u32 = 3;
    let mut objects = Vec::new();
    let moddep = image("moddep.lst")?;
    if moddep.len() > LARGEST_LIST {
        let reason = format!("{} bytes are too many for it", moddep.len());
        return Err(corrupt(format!("{DIRECTORY}/moddep.lst"), reason));
    }
    for name in closure(&moddep, modules) {
        append_object(&mut objects, ELF_MODULE, &image(&format!("{name}.mod"))?)?;
        if objects.len() > LARGEST_PAYLOAD {
            let reason = format!(
                "the modules that GRUB needs have more than {} MiB together",
                LARGEST_PAYLOAD >> 20
            );
            return Err(corrupt(DIRECTORY, reason));
        }
    }
    append_object(&mut objects, PREFIX, &[prefix.as_bytes(), b"\0"].concat())?;

    // struct grub_module_info32: magic "mimg", offset of the objects, size with this header.
    let size = u32::try_from(12 + objects.len()).context("measuring GRUB's modules")?;
    let mut payload = kernel(&image("kernel.img")?)?;
    for word in [0x676d_696d, 12, size] {
        payload.extend_from_slice(&u32::to_le_bytes(word));
    }
    payload.extend_from_slice(&objects);
    Ok(payload)
}

/// `struct grub_module_header`: type, size with header and padding.
fn append_object(objects: &mut Vec<u8>, kind: u32, bytes: &[u8]) -> Result<()> {
    let padded = bytes.len().next_multiple_of(4);
    let size = u32::try_from(8 + padded).context("measuring a module")?;
    objects.extend_from_slice(&kind.to_le_bytes());
    objects.extend_from_slice(&size.to_le_bytes());
    objects.extend_from_slice(bytes);
    objects.resize(objects.len() + padded - bytes.len(), 0);
    Ok(())
}

/// Modules and what they need, each once, what is needed first. `moddep.lst` has lines `name: needed needed …`.
fn closure(moddep: &[u8], modules: &[&str]) -> Vec<String> {
    let text = String::from_utf8_lossy(moddep);
    let mut lines = HashMap::new();
    for (name, needed) in text.lines().filter_map(|line| line.split_once(':')) {
        lines.entry(name.trim()).or_insert(needed);
    }
    let needs = |module: &str| -> Vec<&str> {
        let needed = lines.get(module).copied().unwrap_or_default();
        needed.split_whitespace().rev().collect()
    };
    let mut order = Vec::new();
    let mut begun = BTreeSet::new();
    let mut done = BTreeSet::new();
    let mut stack: Vec<&str> = modules.iter().rev().copied().collect();
    while let Some(&module) = stack.last() {
        if begun.insert(module) {
            stack.extend(needs(module).into_iter().filter(|needed| !begun.contains(needed)));
        } else {
            stack.pop();
            if done.insert(module) {
                order.push(module.to_owned());
            }
        }
    }
    order
}

/// The kernel as it lies in memory: the sections of an ELF32 file that have bytes, from [`LINK_ADDRESS`] on.
fn kernel(elf: &[u8]) -> Result<Vec<u8>> {
    let broken = |reason: &str| corrupt(format!("{DIRECTORY}/kernel.img"), reason);
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(*elf.get(at..)?.first_chunk()?)) };
    let half =
        |at: usize| -> Option<u16> { Some(u16::from_le_bytes(*elf.get(at..)?.first_chunk()?)) };
    let section = |index: u16| -> Option<(u32, u32, u64, usize, usize)> {
        let at = word(32)? as usize + usize::from(index) * usize::from(half(46)?);
        let field = |n: usize| word(at.checked_add(4 * n)?);
        Some((field(1)?, field(2)?, field(3)?.into(), field(4)? as usize, field(5)? as usize))
    };
    if !elf.starts_with(b"\x7fELF\x01\x01") {
        return Err(broken("it is not a 32-bit little-endian ELF file"));
    }
    let mut kernel = Vec::new();
    for index in 0..half(48).unwrap_or(0) {
        const PROGBITS: u32 = 1;
        const ALLOC: u32 = 2;
        let (kind, flags, address, offset, size) =
            section(index).ok_or_else(|| broken("it ends inside its section headers"))?;
        if kind != PROGBITS || flags & ALLOC == 0 {
            continue;
        }
        let bytes = offset.checked_add(size).and_then(|end| elf.get(offset..end));
        let bytes = bytes.ok_or_else(|| broken("it ends inside a section"))?;
        let end = address + size as u64;
        if address < LINK_ADDRESS || end > KERNEL_END {
            return Err(broken(&format!("a section lies at {address:#x} to {end:#x}")));
        }
        let range = (address - LINK_ADDRESS) as usize..(end - LINK_ADDRESS) as usize;
        kernel.resize(kernel.len().max(range.end), 0);
        kernel[range].copy_from_slice(bytes);
    }
    if kernel.is_empty() {
        return Err(broken("it has no code"));
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_modules_come_first_and_once() {
        let moddep = b"ext2: fshelp\nfshelp:\nmdraid1x: diskfilter\npart_gpt:\ndiskfilter: gcry fshelp\ngcry: diskfilter\n";
        let order = closure(moddep, &modules_of(FileSystem::Ext4, false));
        assert_eq!(
            order,
            ["gcry", "fshelp", "diskfilter", "mdraid1x", "part_gpt", "ext2", "biosdisk"]
        );
    }

    #[test]
    fn closure_of_a_long_chain_is_found_in_one_pass() {
        let chain: String = (0..40_000).map(|i| format!("m{i}: m{}\n", i + 1)).collect();
        let began = std::time::Instant::now();
        assert_eq!(closure(chain.as_bytes(), &["m0"]).len(), 40_001);
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn objects_are_padded_and_count_their_headers() {
        let mut objects = Vec::new();
        append_object(&mut objects, 3, b"abcde").unwrap();
        assert_eq!(objects, b"\x03\0\0\0\x10\0\0\0abcde\0\0\0");
    }

    #[test]
    fn a_broken_kernel_is_refused() {
        for bytes in [&b""[..], b"\x7fELF\x01\x01", b"\x7fELF\x02\x01", &[0xff; 100]] {
            kernel(bytes).unwrap_err();
        }
        let mut elf = vec![0xff; 300];
        elf[..6].copy_from_slice(b"\x7fELF\x01\x01");
        kernel(&elf).unwrap_err();
        elf[32..36].copy_from_slice(&100_u32.to_le_bytes());
        elf[46..50].copy_from_slice(&[40, 0, 1, 0]);
        for (field, value) in [(1, 1_u32), (2, 2), (3, 0x9000), (4, 200), (5, 100)] {
            elf[100 + 4 * field..104 + 4 * field].copy_from_slice(&value.to_le_bytes());
        }
        assert_eq!(kernel(&elf).unwrap(), [0xff; 100]);
        for (field, value) in [(5, 101_u32), (4, u32::MAX), (3, 0x8fff), (3, u32::MAX)] {
            let mut elf = elf.clone();
            elf[100 + 4 * field..104 + 4 * field].copy_from_slice(&value.to_le_bytes());
            kernel(&elf).unwrap_err();
        }
    }

    #[test]
    fn embedding_keeps_the_partitions_and_says_where_core_is() {
        let code = BiosCode { boot: [0xb0; 512], core: vec![0xc0; 512 + 700] };
        let protective = std::array::from_fn(|i| i as u8);
        let (mbr, core) = code.embed(2048, &protective);
        assert_eq!(mbr[..3], [0xb0; 3]);
        assert_eq!(mbr[0x5c..0x68], [0, 8, 0, 0, 0, 0, 0, 0, 0xff, 0xb0, 0x90, 0x90]);
        assert_eq!(mbr[0x1b8..0x1fe], protective[0x1b8..0x1fe]);
        assert_eq!(mbr[0x1fe..], [0xb0; 2]);
        assert_eq!(core.len(), 3 * 512);
        assert_eq!(core[488..500], [0; 12]);
        assert_eq!(core[500..512], [1, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 8]);
        assert_eq!(code.sectors(), 3);
    }
}
