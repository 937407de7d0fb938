//! cpio "newc", the archive that a kernel unpacks as its initramfs: written from a tree, and searched for a name.
//!
//! ```text
//! per entry: 070701, 13 numbers of 8 hexadecimal digits, name, NUL, zeros to 4 bytes, content, zeros to 4 bytes
//! the last:  TRAILER!!!
//! ```
//!
//! A kernel unpacks several archives behind each other, each compressed or not, into the same tree
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Read};

use anyhow::{Context, Result};

use crate::content::{Content, ContentStore};
use crate::tree::{Kind, Tree};

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of an archive that are searched: no machine has the memory for a larger initramfs, and a bomb could have more.
const LARGEST: u64 = 4 << 30;
/// More makes little smaller, and costs seconds.
const ZSTD_LEVEL: i32 = 9;

/// An archive of all that is in a tree of directories, files and links.
pub(super) fn write(tree: &Tree, contents: &ContentStore) -> Result<Content> {
    let size = tree.walk().map(|(path, id)| entry_size(&path, body_len(tree, id))).sum::<u64>();
    let mut writer = contents.writer(size + entry_size(TRAILER, 0));
    for (number, (path, id)) in (1_u32..).zip(tree.walk()) {
        let inode = tree.inode(id);
        let path = if path.is_empty() { b".".to_vec() } else { path };
        let head = header(number, inode.st_mode(), body_len(tree, id), &path);
        io::Write::write_all(&mut writer, &head).context("writing to the spool")?;
        match &inode.kind {
            Kind::File(content) => {
                io::copy(&mut contents.reader(content), &mut writer)
                    .context("copying in the spool")?;
            }
            Kind::Symlink(target) => {
                io::Write::write_all(&mut writer, target).context("writing to the spool")?
            }
            _ => {}
        }
        let padding = padding(body_len(tree, id));
        io::Write::write_all(&mut writer, &[0; 4][..padding]).context("writing to the spool")?;
    }
    io::Write::write_all(&mut writer, &header(0, 0, 0, TRAILER)).context("writing to the spool")?;
    writer.finish()
}

/// An archive of one executable file, in a directory that another archive has made.
pub(super) fn of_one(path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(1, 0o100_755, body.len() as u64, path.as_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(header(0, 0, 0, TRAILER));
    bytes
}

/// The path and content of the first file of an archive; `None`: there is none, or it is none.
pub(super) fn first(archive: &[u8]) -> Option<(&[u8], &[u8])> {
    let number = |index: usize| {
        let at = MAGIC.len() + 8 * index;
        usize::from_str_radix(std::str::from_utf8(archive.get(at..at + 8)?).ok()?, 16).ok()
    };
    let (size, name_len) = (number(6)?, number(11)?);
    let name_end = HEADER.checked_add(name_len)?;
    let start = name_end.checked_next_multiple_of(4)?;
    let name = archive.get(HEADER..name_end)?.strip_suffix(&[0])?;
    let body = archive.get(start..start.checked_add(size)?)?;
    (archive.starts_with(MAGIC) && name != TRAILER).then_some((name, body))
}

fn body_len(tree: &Tree, id: crate::tree::InodeId) -> u64 {
    match &tree.inode(id).kind {
        Kind::File(content) => content.size,
        Kind::Symlink(target) => target.len() as u64,
        _ => 0,
    }
}

fn padding(len: u64) -> usize {
    (len.next_multiple_of(4) - len) as usize
}

fn entry_size(path: &[u8], body: u64) -> u64 {
    // The root is called `.`.
    let name = HEADER + path.len().max(1) + 1;
    name.next_multiple_of(4) as u64 + body.next_multiple_of(4)
}

/// Inode, mode, owner, group, links, time, size, device, special device, length of the name, checksum; then the name.
fn header(inode: u32, mode: u32, size: u64, path: &[u8]) -> Vec<u8> {
    let size = u32::try_from(size).expect("what an initramfs holds is below 4 GiB");
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let numbers = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, path.len() as u32 + 1, 0];
    let mut bytes = MAGIC.to_vec();
    for number in numbers {
        bytes.extend(format!("{number:08x}").into_bytes());
    }
    bytes.extend(path);
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Whether an initramfs holds a path. `None`: it is compressed in a way that we do not know, or broken.
pub(super) fn contains(initramfs: impl Read, path: &[u8]) -> Option<bool> {
    let mut rest: Box<dyn Read + '_> = Box::new(initramfs);
    loop {
        let mut magic = [0; 6];
        // Archives are padded with zeros to any length.
        loop {
            match rest.read(&mut magic[..1]) {
                Ok(0) => return Some(false),
                Ok(_) if magic[0] != 0 => break,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
        rest.read_exact(&mut magic[1..]).ok()?;
        if magic == MAGIC {
            if search(&mut rest, path)? {
                return Some(true);
            }
            continue;
        }
        // What follows compression is compressed, too; its archive is the last one.
        let all = io::Cursor::new(magic).chain(rest);
        rest = decompressed(magic, all)?;
        let mut magic = [0; 6];
        rest.read_exact(&mut magic).ok()?;
        return if magic == MAGIC { search(&mut rest, path) } else { None };
    }
}

fn decompressed<'a>(magic: [u8; 6], all: impl Read + 'a) -> Option<Box<dyn Read + 'a>> {
    let decoder: Box<dyn Read + 'a> = match magic {
        [a, b, c, d, ..] if [a, b, c, d] == ZSTD => Box::new(zstd::Decoder::new(all).ok()?),
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(all)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(lzma_rust2::XzReader::new(all, true)),
        _ => return None,
    };
    Some(Box::new(decoder.take(LARGEST)))
}

/// An archive, compressed as its kernel can unpack it, which is known from another initramfs: firmware reads slowly.
pub(super) fn compressed(
    archive: &Content,
    other: Option<&Content>,
    contents: &ContentStore,
) -> Result<Content> {
    let zstd = other.is_some_and(|other| compression(contents.reader(other)) == Some(ZSTD));
    // What cannot be made smaller grows by less than this.
    let writer = contents.writer(archive.size + archive.size / 64 + (1 << 16));
    let mut reader = contents.reader(archive);
    let writer = if zstd {
        let mut encoder = zstd::Encoder::new(writer, ZSTD_LEVEL).context("starting zstd")?;
        io::copy(&mut reader, &mut encoder).context("compressing an initramfs")?;
        encoder.finish()
    } else {
        // Every kernel that unpacks anything unpacks gzip.
        let mut encoder = flate2::write::GzEncoder::new(writer, flate2::Compression::default());
        io::copy(&mut reader, &mut encoder).context("compressing an initramfs")?;
        encoder.finish()
    };
    writer.context("compressing an initramfs")?.finish_early(&[])
}

/// The first bytes of the compressed part of an initramfs, which may have others before it.
fn compression(initramfs: impl Read) -> Option<[u8; 4]> {
    let mut rest = initramfs;
    let mut magic = [0; 6];
    loop {
        rest.read_exact(&mut magic[..1]).ok()?;
        if magic[0] == 0 {
            continue;
        }
        rest.read_exact(&mut magic[1..]).ok()?;
        if magic != MAGIC {
            return magic.first_chunk().copied();
        }
        // No name is empty, so all of it is read.
        search(&mut rest, b"")?;
    }
}

/// Reads one archive, whose first magic has been read, to its end or to the path.
fn search(archive: &mut dyn Read, path: &[u8]) -> Option<bool> {
    let mut header = [0; HEADER - 6];
    loop {
        archive.read_exact(&mut header).ok()?;
        let number = |index: usize| {
            let digits = std::str::from_utf8(&header[8 * index..8 * index + 8]).ok()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let (size, name_len) = (number(6)?, number(11)?);
        if name_len > 4096 {
            return None;
        }
        let padded = (HEADER as u64 + name_len).next_multiple_of(4) - HEADER as u64;
        let mut name = vec![0; usize::try_from(padded).ok()?];
        archive.read_exact(&mut name).ok()?;
        name.truncate(usize::try_from(name_len).ok()?.saturating_sub(1));
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        if name == path {
            return Some(true);
        }
        if name == TRAILER {
            return Some(false);
        }
        let skip = size.next_multiple_of(4);
        if io::copy(&mut Read::take(&mut *archive, skip), &mut io::sink()).ok()? != skip {
            return None;
        }
        let mut magic = [0; 6];
        archive.read_exact(&mut magic).ok()?;
        if magic != MAGIC {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    #[test]
    fn one_file_comes_back() {
        for len in 0..6 {
            let mut archive = of_one("a/b", &vec![7; len]);
            assert_eq!(contains(&archive[..], b"a/b"), Some(true));
            archive.resize(4096, 0);
            assert_eq!(first(&archive), Some((&b"a/b"[..], &vec![7; len][..])));
        }
        for broken in [&b""[..], &[0; 300], &[b'f'; 300], b"070701", &of_one("a", b"x")[..111]] {
            assert_eq!(first(broken), None);
        }
    }

    #[test]
    fn what_is_written_is_found_compressed_or_not() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut tree = Tree::new(Metadata::root(0o755));
        let at = tree.make_directories("usr/lib/systemd", &Metadata::root(0o755));
        let content = contents.insert_bytes(b"12345").unwrap();
        tree.create(at, b"systemd", Metadata::root(0o755), Kind::File(content));
        tree.create(at, b"link", Metadata::root(0o777), Kind::Symlink((*b"systemd").into()));
        let bytes = contents.bytes(&write(&tree, &contents).unwrap()).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let zstd = zstd::encode_all(&bytes[..], 1).unwrap();
        let early = [&bytes[..], &[0; 512], &zstd].concat();
        for archive in [&bytes, &zstd, &early] {
            assert_eq!(contains(&archive[..], b"usr/lib/systemd/systemd"), Some(true));
            assert_eq!(contains(&archive[..], b"usr/lib/systemd/other"), Some(false));
        }
        for broken in [&b"07070"[..], b"LZ4 or so, who knows", &bytes[..200], b"070701zzzz"] {
            assert_eq!(contains(broken, b"x"), None);
        }
        assert_eq!(contains(&[][..], b"x"), Some(false));
    }

    #[test]
    fn an_archive_is_compressed_as_the_other_one_is() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let archive = write(&Tree::new(Metadata::root(0o755)), &contents).unwrap();
        let bytes = contents.bytes(&archive).unwrap();
        let zstd = zstd::encode_all(&bytes[..], 1).unwrap();
        let early = contents.insert_bytes(&[&bytes[..], &[0; 512], &zstd].concat()).unwrap();
        for (other, magic) in
            [(Some(&early), &ZSTD[..]), (Some(&archive), &[0x1f, 0x8b]), (None, &[0x1f, 0x8b])]
        {
            let packed = contents.bytes(&compressed(&archive, other, &contents).unwrap()).unwrap();
            assert!(packed.starts_with(magic));
            let mut unpacked = Vec::new();
            let all = io::Cursor::new(&packed[6..]);
            let magic = *packed.first_chunk().unwrap();
            let whole = io::Cursor::new(magic).chain(all);
            decompressed(magic, whole).unwrap().read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, bytes);
        }
    }
}
