//! CRC-32C as ext4 uses it: a running value that begins with ones and is not inverted at the end.

use super::on_disk::{BLOCK_BYTES, GroupDescriptor, Inode, JournalSuperBlock, SuperBlock};
use uuid::Uuid;
use zerocopy::IntoBytes;

/// A running checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc(u32);

impl Crc {
    /// Over nothing.
    pub(super) const START: Self = Self(!0);

    /// What all metadata of a file system with this UUID begins with, but its super block.
    pub(super) fn of_filesystem(uuid: &Uuid) -> Self {
        Self::START.with(uuid.as_bytes())
    }

    /// What the directory and extent blocks of an inode begin with. Its generation is zero, as all of ours.
    pub(super) fn of_inode(self, number: u32) -> Self {
        self.with(&number.to_le_bytes()).with(&[0; 4])
    }

    /// Over more bytes. The crate inverts before and after, which we undo.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The checksum of what came so far.
    pub(super) const fn value(self) -> u32 {
        self.0
    }
}

/// Seals a super block.
pub(super) fn seal_super_block(block: &mut SuperBlock) {
    block.s_checksum.set(0);
    let bytes = block.as_bytes();
    let sum = Crc::START.with(&bytes[..bytes.len() - 4]);
    block.s_checksum.set(sum.value());
}

/// Seals a group descriptor, which has room for the lower half only.
pub(super) fn seal_descriptor(descriptor: &mut GroupDescriptor, group: u32, filesystem: Crc) {
    descriptor.bg_checksum.set(0);
    let sum = filesystem.with(&group.to_le_bytes()).with(descriptor.as_bytes());
    descriptor.bg_checksum.set(sum.value() as u16);
}

/// Seals an inode. One that was never used has no `i_extra_isize`, and so no room for the upper half.
pub(super) fn seal_inode(inode: &mut Inode, number: u32, filesystem: Crc) {
    let sum = filesystem.of_inode(number).with(inode.as_bytes()).value();
    inode.i_checksum_lo.set(sum as u16);
    if inode.i_extra_isize.get() != 0 {
        inode.i_checksum_hi.set((sum >> 16) as u16);
    }
}

/// Seals the journal's super block.
pub(super) fn seal_journal(block: &mut JournalSuperBlock) {
    block.s_checksum.set(0);
    let sum = Crc::START.with(block.as_bytes());
    block.s_checksum.set(sum.value());
}

/// Seals a node of an extent tree: the last four bytes.
pub(super) fn seal_extents(block: &mut [u8], inode: Crc) {
    let (body, tail) = block.split_at_mut(BLOCK_BYTES - 4);
    tail.copy_from_slice(&inode.with(body).value().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_crc_catalogue() {
        assert_eq!(!Crc::START.with(b"123456789").value(), 0xe306_9283);
        assert_eq!(Crc::START.with(b"1234").with(b"56789"), Crc::START.with(b"123456789"));
    }
}
