//! The overlay through which a machine sees a disk: the disk file is only read, the guest's writes go to a file of ours.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

use crate::error::BootError;
use crate::program;

/// Makes a qcow2 file at `overlay` whose unwritten clusters are those of `disk`.
pub(crate) fn create(disk: &Path, overlay: &Path) -> Result<(), BootError> {
    // An absolute path has no prefix that QEMU could take for a protocol, and holds wherever the overlay is.
    let disk =
        &fs::canonicalize(disk).map_err(BootError::io(format!("reading {}", disk.display())))?;
    let format = format(disk)?;
    let output = Command::new(program::find("qemu-img")?)
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .args([disk, overlay])
        .output()
        .map_err(BootError::io("starting qemu-img"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BootError::Start { program: "qemu-img".to_owned(), reason })
}

/// QEMU's name of the format of a disk file.
pub(crate) fn format(disk: &Path) -> Result<&'static str, BootError> {
    let opened = File::open(disk).and_then(|mut file| format_of(&mut file));
    opened.map_err(BootError::io(format!("reading {}", disk.display())))
}

/// QEMU's name of a disk file's format. Told to QEMU rather than left to it: a raw disk whose guest wrote a qcow2 header
/// into its first sector would otherwise become one, with a backing file of the guest's choice.
fn format_of(file: &mut (impl Read + Seek)) -> std::io::Result<&'static str> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut magic = [0; 8];
    for (magic_at, formats) in [
        (
            0,
            &[
                (&b"QFI\xfb"[..], "qcow2"),
                (b"KDMV", "vmdk"),
                (b"vhdxfile", "vhdx"),
                (b"conectix", "vpc"),
            ][..],
        ),
        (64, &[(b"\x7f\x10\xda\xbe", "vdi")]),
        // A fixed VHD is a raw disk with a footer.
        (size.saturating_sub(512), &[(b"conectix", "vpc")]),
    ] {
        if size < magic_at + 512 {
            continue;
        }
        file.seek(SeekFrom::Start(magic_at))?;
        file.read_exact(&mut magic)?;
        if let Some((_, format)) = formats.iter().find(|(start, _)| magic.starts_with(start)) {
            return Ok(format);
        }
    }
    Ok("raw")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn formats_are_known_by_their_magic() {
        let disk = |at: usize, magic: &[u8]| {
            let mut bytes = vec![0; 4096];
            bytes[at..at + magic.len()].copy_from_slice(magic);
            format_of(&mut Cursor::new(bytes)).unwrap()
        };
        assert_eq!(disk(0, b""), "raw");
        assert_eq!(disk(0, b"QFI\xfb"), "qcow2");
        assert_eq!(disk(0, b"KDMV"), "vmdk");
        assert_eq!(disk(0, b"vhdxfile"), "vhdx");
        assert_eq!(disk(64, b"\x7f\x10\xda\xbe"), "vdi");
        assert_eq!(disk(3584, b"conectix"), "vpc");
        assert_eq!(disk(3583, b"conectix"), "raw");
        assert_eq!(format_of(&mut Cursor::new(b"QFI")).unwrap(), "raw");
    }
}
