//! The MD5 that Fedora's media carry, for `checkisomd5` and its like to find bad sticks; our own hashes are SHA-256.
//!
//! It covers the volume but for its last 15 sectors, the place where it is written itself read as blanks. Twenty fragments
//! each leave three characters of the sum so far, so that a reader can give up early. All of it is text in the primary volume
//! descriptor's room for applications.

use std::fmt::Write;
use std::io;

use md5::{Digest, Md5};

use crate::filesystem::iso9660::{APPLICATION_USE, PRIMARY, SECTOR};

const SKIPPED_SECTORS: u64 = 15;
const FRAGMENTS: u64 = 20;
const CHARACTERS: usize = 3;
/// The unit in which readers advance; where a fragment ends depends on it.
const STEP: u64 = 16 * SECTOR;

/// The text to implant, for a volume of `size` bytes that `read` reads; fills the room for it.
pub(super) fn implanted(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let total = size.saturating_sub(SKIPPED_SECTORS * SECTOR);
    let fragment = (total / (FRAGMENTS + 1)).max(1);
    let (mut sum, mut fragments, mut before) = (Md5::new(), String::new(), 0);
    let mut buffer = vec![0; STEP as usize];
    let mut offset = 0;
    while offset < total {
        let len = STEP.min(total - offset);
        let bytes = &mut buffer[..len as usize];
        read(offset, bytes)?;
        blank(offset, bytes);
        sum.update(&*bytes);
        let now = offset / fragment;
        if now != before {
            // The first hexadecimal digit that is not a leading zero.
            for byte in sum.clone().finalize().iter().take(CHARACTERS) {
                fragments.extend(format!("{byte:x}").chars().take(1));
            }
            before = now;
        }
        offset += len;
    }
    let mut hex = String::new();
    for byte in sum.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    let text = format!(
        "ISO MD5SUM = {hex};SKIPSECTORS = {SKIPPED_SECTORS};RHLISOSTATUS=1;FRAGMENT SUMS = {fragments};\
         FRAGMENT COUNT = {FRAGMENTS};THIS IS NOT THE SAME AS RUNNING MD5SUM ON THIS ISO!!"
    );
    let mut text = text.into_bytes();
    text.resize(APPLICATION_USE.1, b' ');
    Ok(text)
}

/// Makes blanks of what of the implanted text lies in a buffer.
fn blank(offset: u64, bytes: &mut [u8]) {
    let start = PRIMARY + APPLICATION_USE.0 as u64;
    let range =
        start.max(offset)..(start + APPLICATION_USE.1 as u64).min(offset + bytes.len() as u64);
    if range.start < range.end {
        bytes[(range.start - offset) as usize..(range.end - offset) as usize].fill(b' ');
    }
}
