//! VHD of fixed size: the disk, and behind it a footer that says what it is (Microsoft, Virtual Hard Disk Image Format
//! Specification 1.0). What Azure takes, if the disk is a whole number of MiB, as ours are.
//!
//! ```text
//! | the disk's bytes, with holes ... | footer, 512 bytes |
//! ```
//!
//! Numbers are big-endian.

use anyhow::Result;
use uuid::Uuid;

use super::raw;
use super::sink::Sink;
use super::stretches::Disk;

const FOOTER: u64 = 512;

/// A disk and its footer.
pub(super) struct Layout {
    disk: raw::Layout,
    uuid: Uuid,
}

impl Layout {
    pub(super) fn of(disk: Disk<'_>, uuid: Uuid) -> Self {
        Self { disk: raw::Layout::of(disk), uuid }
    }

    pub(super) fn file_size(&self) -> u64 {
        self.disk.file_size() + FOOTER
    }

    pub(super) fn write(&self, disk: Disk<'_>, sink: &mut dyn Sink) -> Result<()> {
        self.disk.write(disk, sink)?;
        sink.write(&footer(self.disk.file_size(), self.uuid))
    }
}

/// Field names are those of the specification.
fn footer(size: u64, uuid: Uuid) -> [u8; FOOTER as usize] {
    let (cylinders, heads, sectors) = geometry(size / 512);
    let mut footer = Vec::new();
    footer.extend(b"conectix"); // cookie
    footer.extend(2_u32.to_be_bytes()); // features: the bit that is always set
    footer.extend(0x0001_0000_u32.to_be_bytes()); // file format version
    footer.extend(u64::MAX.to_be_bytes()); // data offset: none, as the size is fixed
    footer.extend(0_u32.to_be_bytes()); // time stamp: none, for the same bytes each time
    // Creator application: readers that go by the geometry otherwise (QEMU does) take the size below from this one.
    footer.extend(b"win ");
    footer.extend(0x000a_0000_u32.to_be_bytes()); // creator version
    footer.extend(b"Wi2k"); // creator host OS: the specification knows Windows and Macintosh
    footer.extend(size.to_be_bytes()); // original size
    footer.extend(size.to_be_bytes()); // current size
    footer.extend(cylinders.to_be_bytes());
    footer.extend([heads, sectors]);
    footer.extend(2_u32.to_be_bytes()); // disk type: fixed
    let checksum_at = footer.len();
    footer.extend(0_u32.to_be_bytes());
    footer.extend(uuid.as_bytes());
    footer.push(0); // saved state
    footer.resize(FOOTER as usize, 0);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[checksum_at..checksum_at + 4].copy_from_slice(&(!sum).to_be_bytes());
    footer.try_into().expect("it was made this long")
}

/// Cylinders, heads and sectors per track for a number of sectors: the specification's appendix.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65535 * 16 * 255);
    let (per_track, heads, tracks);
    if total >= 65535 * 16 * 63 {
        (per_track, heads, tracks) = (255, 16, total / 255);
    } else {
        let needed = (total / 17).div_ceil(1024).max(4);
        let fits = |per_track: u64, heads: u64| total / per_track < heads * 1024;
        (per_track, heads) = match () {
            () if needed <= 16 && fits(17, needed) => (17, needed),
            () if fits(31, 16) => (31, 16),
            () => (63, 16),
        };
        tracks = total / per_track;
    }
    ((tracks / heads) as u16, heads as u8, per_track as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_the_specification() {
        let of_mib = |mib: u64| geometry(mib << 11);
        assert_eq!(of_mib(8), (240, 4, 17));
        assert_eq!(of_mib(100), (1003, 12, 17));
        assert_eq!(of_mib(200), (825, 16, 31));
        assert_eq!(of_mib(1024), (2080, 16, 63));
        assert_eq!(of_mib(40 << 10), (20560, 16, 255));
        assert_eq!(of_mib(4 << 20), (65535, 16, 255));
    }

    #[test]
    fn the_checksum_is_the_complement_of_the_sum() {
        let mut footer = footer(1 << 30, Uuid::from_u128(7));
        let checksum: [u8; 4] = std::array::from_fn(|i| footer[64 + i]);
        footer[64..68].fill(0);
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(u32::from_be_bytes(checksum), !sum);
        assert_eq!(&footer[..8], b"conectix");
    }
}
