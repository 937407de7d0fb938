//! Which GRUB an image has: its file system has to be one that GRUB reads.

use anyhow::Result;

use super::Files;
use crate::tree::Kind;

/// Where images keep boot loaders.
const PLACES: [&str; 3] = ["usr/lib/bootupd/updates", "usr/lib/efi", "usr/lib/grub"];
/// GRUB's line in the section that tells Secure Boot of versions: the fifth field is what GRUB calls itself (shim, SBAT.md).
const SBAT: &[u8] = b"\ngrub,";
/// What modules for a BIOS say of themselves.
const MODULE_INFORMATION: &[u8] = b"modinfo.sh";
const MODULE_VERSION: &str = "grub_version=";
/// No GRUB is larger.
const LARGEST: u64 = 64 << 20;

/// Major and minor version of the oldest GRUB in the image. Fails if a file cannot be read.
pub(super) fn oldest(files: &Files<'_>) -> Result<Option<(u32, u32)>> {
    let mut oldest = None;
    for place in PLACES {
        let Some(directory) = files.root.resolve(place) else { continue };
        for (path, id) in files.root.walk_from(directory) {
            let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            let lower = name.to_ascii_lowercase();
            let program =
                lower.starts_with(b"grub") && lower.windows(4).any(|part| part == b".efi");
            let Kind::File(content) = &files.root.inode(id).kind else { continue };
            if !(program || name == MODULE_INFORMATION) || content.size > LARGEST {
                continue;
            }
            let bytes = files.contents.bytes(content)?;
            let found = if program { of_program(&bytes) } else { of_modules(&bytes) };
            oldest = match (oldest, found) {
                (Some(oldest), Some(found)) => Some(found.min(oldest)),
                (one, other) => one.or(other),
            };
        }
    }
    Ok(oldest)
}

fn of_program(bytes: &[u8]) -> Option<(u32, u32)> {
    let at = bytes.windows(SBAT.len()).position(|part| part == SBAT)?;
    let line = bytes[at + 1..].split(|&byte| byte == b'\n').next()?;
    parse(std::str::from_utf8(line).ok()?.split(',').nth(4)?)
}

fn of_modules(bytes: &[u8]) -> Option<(u32, u32)> {
    let text = String::from_utf8_lossy(bytes);
    let value = text.lines().find_map(|line| line.strip_prefix(MODULE_VERSION))?;
    parse(value.trim_matches('"'))
}

/// `2.06-13+deb12u1`, `6.12.0-211.el10.x86_64`: the first two numbers.
pub(super) fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentStore;
    use crate::tree::{Metadata, Tree};

    #[test]
    fn versions_begin_with_two_numbers() {
        assert_eq!(parse("2.06-13+deb12u1"), Some((2, 6)));
        assert_eq!(parse("6.12.0-211.el10.x86_64"), Some((6, 12)));
        assert_eq!(parse("2.12~rc1"), Some((2, 12)));
        assert_eq!(parse("git"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn oldest_grub_counts() {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let mut root = Tree::new(Metadata::root(0o755));
        let oldest = |root: &Tree| oldest(&Files { root, contents: &contents }).unwrap();
        assert_eq!(oldest(&root), None);
        let sbat = b"MZ\0\0sbat,1,SBAT Version,sbat,1,https\ngrub,3,Free Software Foundation,grub,2.12,https://gnu.org\ngrub.x,1,X,grub2,2.12-9,mail\n";
        let program = contents.insert_bytes(sbat).unwrap();
        root.put("usr/lib/efi/grub2/2.12/EFI/fedora/grubx64.efi", program);
        assert_eq!(oldest(&root), Some((2, 12)));
        let text = b"#!/bin/sh\ngrub_modinfo_target_cpu=i386\ngrub_version=\"2.06\"\n";
        root.put("usr/lib/grub/i386-pc/modinfo.sh", contents.insert_bytes(text).unwrap());
        assert_eq!(oldest(&root), Some((2, 6)));
    }
}
