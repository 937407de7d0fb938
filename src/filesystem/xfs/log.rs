//! The log of a file system that was unmounted: one record with one operation, in the first cycle; zeros behind it.
//!
//! "XFS Algorithms & Data Structures", chapter "Journaling Log".

use zerocopy::IntoBytes;

use super::on_disk::{LogRecord, NULL32};

/// Bytes in which the log counts.
const UNIT: usize = 512;
/// `XLOG_HEADER_MAGIC_NUM`.
const MAGIC: u32 = 0xfeed_babe;
/// `h_size`: bytes of the buffers that the kernel writes the log from.
const BUFFER: u32 = 32768;
/// `h_fmt`: written by a little-endian Linux (XLOG_FMT_LINUX_LE).
const LITTLE_ENDIAN: u32 = 1;
/// The first cycle. Block 0 of it is where the log's head and tail are.
const CYCLE: u32 = 1;
/// The operation's transaction; in its place on disk is the cycle.
const TRANSACTION: u32 = 0xb0c0_d0d0;
/// The log's own client (XFS_LOG).
const CLIENT: u8 = 0xaa;
/// The operation says that the file system was unmounted (XLOG_UNMOUNT_TRANS).
const UNMOUNT: u8 = 0x20;
/// What the operation holds, in the byte order of the host (XLOG_UNMOUNT_TYPE).
const UNMOUNT_TYPE: u16 = 0x556e;

/// The record at the start of the log of a disk with sectors of so many bytes.
pub(super) fn record(uuid: [u8; 16], sector: u64) -> Vec<u8> {
    // A record fills stripe units of the log, which mkfs makes as large as 4096 where sectors are.
    let blocks = (sector as usize / UNIT).max(2);
    let mut cycle_data = [0.into(); 64];
    cycle_data[0] = TRANSACTION.into();
    let lsn = u64::from(CYCLE) << 32;
    let head = LogRecord {
        h_magicno: MAGIC.into(),
        h_cycle: CYCLE.into(),
        h_version: 2.into(),
        h_len: (((blocks - 1) * UNIT) as u32).into(),
        h_lsn: lsn.into(),
        h_tail_lsn: lsn.into(),
        // Zero: not checked. mkfs does not compute it either.
        h_crc: 0.into(),
        h_prev_block: NULL32.into(),
        h_num_logops: 1.into(),
        h_cycle_data: cycle_data,
        h_fmt: LITTLE_ENDIAN.into(),
        h_fs_uuid: uuid,
        h_size: BUFFER.into(),
    };
    let mut bytes = vec![0; blocks * UNIT];
    bytes[..size_of::<LogRecord>()].copy_from_slice(head.as_bytes());
    for block in bytes.chunks_exact_mut(UNIT).skip(1) {
        block[..4].copy_from_slice(&CYCLE.to_be_bytes());
    }
    let operation = &mut bytes[UNIT..];
    operation[4..8].copy_from_slice(&8_u32.to_be_bytes());
    operation[8] = CLIENT;
    operation[9] = UNMOUNT;
    operation[12..14].copy_from_slice(&UNMOUNT_TYPE.to_le_bytes());
    bytes
}
