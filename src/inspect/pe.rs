//! EFI programs: what machine they are for, and what signed them (Microsoft PE/COFF; Authenticode).
//!
//! ```text
//! | MZ … | PE header: machine, sections, data directories | sections | certificate table: PKCS #7, … |
//! ```

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::signature::{self, Signature};
use crate::architecture::Architecture;

/// Index of the certificate table among the data directories.
const CERTIFICATE_TABLE: usize = 4;

/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`.
const PKCS_SIGNED_DATA: u16 = 2;

/// Where shim keeps the certificate of whoever may sign what it starts.
const VENDOR_SECTION: &[u8] = b".vendor_cert";

/// What an EFI program says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    /// The machine that runs it, if it is one of ours.
    pub(super) architecture: Option<Architecture>,
    /// Who signed it, in the order of the table.
    pub(super) signatures: Vec<Signature>,
    /// The subject of the certificate that shim trusts besides the firmware's.
    pub(super) vendor_certificate: Option<String>,
}

/// Whether bytes begin like an EFI program.
pub(super) fn is_it(start: &[u8]) -> bool {
    start.starts_with(b"MZ")
}

/// Reads a program; the error says what is wrong with it.
pub(super) fn parse(bytes: &[u8]) -> Result<Program, &'static str> {
    let header = Header::parse(bytes)?;
    let mut program = Program {
        architecture: match header.machine {
            0x8664 => Some(Architecture::X86_64),
            0xaa64 => Some(Architecture::Aarch64),
            _ => None,
        },
        vendor_certificate: header.section(bytes, VENDOR_SECTION).and_then(vendor_certificate),
        ..Program::default()
    };
    if header.certificates.is_empty() {
        return Ok(program);
    }
    let table =
        bytes.get(header.certificates.clone()).ok_or("its certificate table lies outside of it")?;
    let digest = header.digest(bytes)?;
    let mut rest = table;
    // A table is padded; what cannot hold the head of a certificate is padding.
    while rest.len() >= 8 {
        let length = u32_at(rest, 0).ok_or(CUT)? as usize;
        let kind = u16_at(rest, 6).ok_or(CUT)?;
        let certificate = rest.get(8..length).ok_or("a certificate is longer than its table")?;
        if kind == PKCS_SIGNED_DATA {
            program.signatures.extend(signature::parse(certificate, &digest)?);
        }
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(program)
}

const CUT: &str = "its headers are cut short";

struct Header {
    machine: u16,
    /// Where the checksum is, which no signature covers.
    checksum: usize,
    /// Where the place and size of the certificate table are, which no signature covers.
    certificate_entry: usize,
    certificates: Range<usize>,
    sections: Range<usize>,
    /// Where the names of sections are that are longer than eight bytes: behind the symbols, which have 18 bytes each.
    names: Option<usize>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let start = u32_at(bytes, 0x3c).ok_or(CUT)? as usize;
        if bytes.get(start..).is_none_or(|header| !header.starts_with(b"PE\0\0")) {
            return Err("it has no PE header");
        }
        let machine = u16_at(bytes, start + 4).ok_or(CUT)?;
        let section_count = usize::from(u16_at(bytes, start + 6).ok_or(CUT)?);
        let optional_size = usize::from(u16_at(bytes, start + 20).ok_or(CUT)?);
        let optional = start + 24;
        let directories = match u16_at(bytes, optional).ok_or(CUT)? {
            0x10b => optional + 96,
            0x20b => optional + 112,
            _ => return Err("its optional header is of an unknown kind"),
        };
        let count = u32_at(bytes, directories - 4).ok_or(CUT)? as usize;
        let certificate_entry = directories + 8 * CERTIFICATE_TABLE;
        let sections = optional + optional_size;
        let has_table = count > CERTIFICATE_TABLE && certificate_entry + 8 <= sections;
        let certificates = if has_table {
            let offset = u32_at(bytes, certificate_entry).ok_or(CUT)? as usize;
            let size = u32_at(bytes, certificate_entry + 4).ok_or(CUT)? as usize;
            offset..offset.checked_add(size).ok_or(CUT)?
        } else {
            0..0
        };
        Ok(Self {
            machine,
            checksum: optional + 64,
            certificate_entry,
            certificates,
            sections: sections..sections + 40 * section_count,
            names: names(bytes, start),
        })
    }

    /// The bytes of the first section with this name.
    fn section<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let headers = bytes.get(self.sections.clone())?.as_chunks::<40>().0;
        let header = headers.iter().find(|header| self.has_name(bytes, header, name))?;
        let (size, offset) = (u32_at(header, 16)? as usize, u32_at(header, 20)? as usize);
        bytes.get(offset..offset.checked_add(size)?)
    }

    /// Whether a section is called so. A name longer than eight bytes is elsewhere, and `/26` says where.
    fn has_name(&self, bytes: &[u8], header: &[u8; 40], name: &[u8]) -> bool {
        let short = header[..8].split(|&byte| byte == 0).next().unwrap_or_default();
        let long = || {
            let digits = std::str::from_utf8(short.strip_prefix(b"/")?).ok()?;
            let at = self.names?.checked_add(digits.parse().ok()?)?;
            bytes.get(at..)?.split(|&byte| byte == 0).next()
        };
        short == name || long() == Some(name)
    }

    /// What a signature is about: all bytes but the checksum, the table, and the entry that says where the table is. Programs
    /// for EFI have their sections in the order of the file, so hashing from front to back is hashing section by section.
    fn digest(&self, bytes: &[u8]) -> Result<[u8; 32], &'static str> {
        let parts = [
            0..self.checksum,
            self.checksum + 4..self.certificate_entry,
            self.certificate_entry + 8..self.certificates.start,
            self.certificates.end..bytes.len(),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(bytes.get(part).ok_or("its certificate table lies inside of its headers")?);
        }
        Ok(hash.finalize().into())
    }
}

fn names(bytes: &[u8], header: usize) -> Option<usize> {
    let (symbols, count) =
        (u32_at(bytes, header + 12)? as usize, u32_at(bytes, header + 16)? as usize);
    symbols.checked_add(count.checked_mul(18)?).filter(|_| symbols > 0)
}

/// `.vendor_cert` of shim: sizes and offsets of what it trusts and what it does not, then the former: a certificate, or several
/// in a list, of which the first is told.
fn vendor_certificate(section: &[u8]) -> Option<String> {
    let (size, offset) = (u32_at(section, 0)? as usize, u32_at(section, 8)? as usize);
    let trusted = section.get(offset..offset.checked_add(size)?)?;
    match trusted {
        // ASN.1's SEQUENCE.
        [0x30, ..] => signature::certificate_subject(trusted),
        // EFI_SIGNATURE_LIST: type, sizes of list, head and entry; then the owner's GUID and the certificate.
        _ => {
            let (head, entry) = (u32_at(trusted, 20)? as usize, u32_at(trusted, 24)? as usize);
            let start = 28_usize.checked_add(head)?.checked_add(16)?;
            let end = start.checked_add(entry.checked_sub(16)?)?;
            signature::certificate_subject(trusted.get(start..end)?)
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program without sections or code: headers, and 16 data directories.
    fn program(machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; 0x200];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, b"MZ");
        put(0x3c, &0x80_u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x84, &machine.to_le_bytes());
        put(0x94, &0xf0_u16.to_le_bytes());
        put(0x98, &0x20b_u16.to_le_bytes());
        put(0x98 + 108, &16_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn an_unsigned_program_has_a_machine_and_no_signature() {
        for (machine, architecture) in
            [(0x8664, Some(Architecture::X86_64)), (0xaa64, Some(Architecture::Aarch64)), (1, None)]
        {
            let expected = Program { architecture, ..Program::default() };
            assert_eq!(parse(&program(machine)), Ok(expected));
        }
    }

    #[test]
    fn no_byte_and_no_cut_panics() {
        let whole = program(0x8664);
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
            for value in [0, 1, 8, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[length] = value;
                let _ = parse(&broken);
                // With a table where it may be, and where it may not.
                for (at, size) in [(0x200_u32, 16_u32), (0x100, 0x40), (u32::MAX, u32::MAX)] {
                    broken[0x98 + 144..0x98 + 148].copy_from_slice(&at.to_le_bytes());
                    broken[0x98 + 148..0x98 + 152].copy_from_slice(&size.to_le_bytes());
                    let _ = parse(&broken);
                }
            }
        }
    }
}
