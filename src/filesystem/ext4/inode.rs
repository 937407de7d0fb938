//! An inode of the tree as 256 bytes: type, owner, times, and what stands in `i_block` instead of an extent tree.

use zerocopy::FromZeros;

use super::checksum::{self, Crc};
use super::on_disk::{
    BLOCK, EXTRA_BYTES, FLAG_EXTENTS, FLAG_IMMUTABLE, FLAG_INDEX, INODE_XATTR_BYTES, Inode,
};
use crate::filesystem::linux::{DEVICE, Limits};
use crate::tree::{self, Kind};

/// A target of fewer bytes stands in the inode itself.
const FAST_SYMLINK: usize = 60;
/// Numbers of file blocks have 32 bits, and the last one means "none".
pub(super) const MAX_FILE: u64 = BLOCK * (u32::MAX as u64);
/// The kernel reads one block of a target, and wants a zero behind it.
pub(super) const LIMITS: Limits = Limits {
    name: "ext4",
    file: MAX_FILE,
    target: BLOCK as usize - 1,
    device: DEVICE,
    way_out: None,
};
/// Links of a file: EXT4_LINK_MAX.
pub(super) const MAX_LINKS: u32 = 65_000;

/// Everything that an inode says.
pub(super) struct Record {
    /// `st_mode`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Time of access, change, modification and creation alike, in seconds since 1970.
    pub(super) time: i64,
    /// `i_links_count`.
    pub(super) links: u16,
    pub(super) size: u64,
    /// What it occupies, the block of extended attributes included.
    pub(super) blocks: u64,
    pub(super) flags: u32,
    /// `i_block`.
    pub(super) block: [u8; 60],
    /// The block of extended attributes, or 0.
    pub(super) xattr_block: u64,
    pub(super) xattrs: [u8; INODE_XATTR_BYTES],
}

impl Record {
    /// The inode, with its checksum.
    pub(super) fn encode(&self, number: u32, filesystem: Crc) -> Inode {
        let (seconds, extra) = timestamp(self.time);
        let sectors = self.blocks * (BLOCK / 512);
        let mut inode = Inode::new_zeroed();
        inode.i_mode.set(self.mode as u16);
        inode.i_uid.set(self.uid as u16);
        inode.i_uid_high.set((self.uid >> 16) as u16);
        inode.i_gid.set(self.gid as u16);
        inode.i_gid_high.set((self.gid >> 16) as u16);
        inode.i_size_lo.set(self.size as u32);
        inode.i_size_high.set((self.size >> 32) as u32);
        for field in
            [&mut inode.i_atime, &mut inode.i_ctime, &mut inode.i_mtime, &mut inode.i_crtime]
        {
            field.set(seconds);
        }
        for field in [
            &mut inode.i_atime_extra,
            &mut inode.i_ctime_extra,
            &mut inode.i_mtime_extra,
            &mut inode.i_crtime_extra,
        ] {
            field.set(extra);
        }
        inode.i_links_count.set(self.links);
        inode.i_blocks_lo.set(sectors as u32);
        inode.i_blocks_high.set((sectors >> 32) as u16);
        inode.i_flags.set(self.flags);
        inode.i_block = self.block;
        inode.i_file_acl_lo.set(self.xattr_block as u32);
        inode.i_file_acl_high.set((self.xattr_block >> 32) as u16);
        inode.i_extra_isize.set(EXTRA_BYTES);
        inode.i_xattrs = self.xattrs;
        checksum::seal_inode(&mut inode, number, filesystem);
        inode
    }
}

/// A reserved inode that nobody uses: zero, but for its checksum.
pub(super) fn unused(number: u32, filesystem: Crc) -> Inode {
    let mut inode = Inode::new_zeroed();
    checksum::seal_inode(&mut inode, number, filesystem);
    inode
}

/// Blocks of a symbolic link outside of its inode.
pub(super) fn symlink_blocks(target: &[u8]) -> u64 {
    u64::from(target.len() >= FAST_SYMLINK)
}

/// `i_flags`. `indexed`: the directory has a hash tree.
pub(super) fn flags(inode: &tree::Inode, indexed: bool) -> u32 {
    let mut flags = match &inode.kind {
        Kind::Directory(_) if indexed => FLAG_EXTENTS | FLAG_INDEX,
        Kind::Directory(_) | Kind::File(_) => FLAG_EXTENTS,
        Kind::Symlink(target) if symlink_blocks(target) > 0 => FLAG_EXTENTS,
        _ => 0,
    };
    if inode.metadata.immutable {
        flags |= FLAG_IMMUTABLE;
    }
    flags
}

/// What stands in `i_block` instead of an extent tree: a short target, or a device's number.
pub(super) fn inline_block(kind: &Kind) -> [u8; 60] {
    let mut block = [0; 60];
    match kind {
        Kind::Symlink(target) => block[..target.len()].copy_from_slice(target),
        // The old encoding in the first word where it suffices, else the new one in the second.
        Kind::CharacterDevice(major @ 0..256, minor @ 0..256)
        | Kind::BlockDevice(major @ 0..256, minor @ 0..256) => {
            block[..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
        }
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            let number = (minor & 0xff) | major << 8 | (minor & !0xff) << 12;
            block[4..8].copy_from_slice(&number.to_le_bytes());
        }
        _ => {}
    }
    block
}

/// Seconds in 32 bits, and the field with two bits more. What they cannot hold becomes the nearest that they can, as in
/// the kernel: 1901-12-13 to 2446-05-10. There are no nanoseconds in our trees.
fn timestamp(seconds: i64) -> (u32, u32) {
    let clamped = seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX) + (3 << 32));
    let low = clamped as i32;
    let epoch = (clamped - i64::from(low)) >> 32;
    (low.cast_unsigned(), epoch as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_34_bits() {
        // The table of the kernel's documentation, "Inode Timestamps".
        for (seconds, expected) in [
            (-0x8000_0000, (0x8000_0000, 0)),
            (-1, (0xffff_ffff, 0)),
            (0x7fff_ffff, (0x7fff_ffff, 0)),
            (0x8000_0000, (0x8000_0000, 1)),
            (0x1_0000_0000, (0, 1)),
            (0x2_8000_0000, (0x8000_0000, 3)),
            (0x3_7fff_ffff, (0x7fff_ffff, 3)),
            (i64::MAX, (0x7fff_ffff, 3)),
            (i64::MIN, (0x8000_0000, 0)),
        ] {
            assert_eq!(timestamp(seconds), expected, "{seconds:#x}");
        }
    }

    #[test]
    fn device_numbers_have_two_encodings() {
        assert_eq!(inline_block(&Kind::CharacterDevice(1, 3))[..8], [3, 1, 0, 0, 0, 0, 0, 0]);
        let large = inline_block(&Kind::BlockDevice(259, 0x12345));
        assert_eq!(large[..8], [0, 0, 0, 0, 0x45, 0x03, 0x31, 0x12]);
    }
}
