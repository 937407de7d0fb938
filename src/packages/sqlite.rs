//! Rows of one table of an sqlite file, read-only ("Database File Format", sections 1.6 and 2).
//!
//! ```text
//! page 1: the schema ──► root page of the table ──► interior pages ──► leaf pages: cells ──► record (──► overflow pages)
//! ```
//!
//! Written here: the libraries that read sqlite compile the C of all of sqlite, and read files by name, where the database is a
//! range of a spool. Of the format, walking a table and reading blobs is all that rpm's database needs.

use anyhow::{Result, bail, ensure};

use super::pages::Pages;

/// Interior pages on the way to a leaf; a table with the most pages that there can be has 12.
const DEEPEST: usize = 40;

/// The largest value of a row; headers of the largest packages have 10 MB.
const LARGEST_ROW: usize = 64 << 20;

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// Calls `row` for each row of a table, in the order of its keys, with the values of its columns. False: there is no such table.
pub(super) fn rows(
    pages: &Pages<'_>,
    table: &str,
    mut row: impl FnMut(&[Value<'_>]) -> Result<()>,
) -> Result<bool> {
    let mut root = None;
    let mut walk = Walk::new(pages);
    // type, name, tbl_name, rootpage, sql
    walk.tree(1, &mut |columns| {
        if let [Value::Bytes(b"table"), Value::Bytes(name), _, Value::Integer(page), ..] = columns
            && *name == table.as_bytes()
        {
            root = u32::try_from(*page).ok();
        }
        Ok(())
    })?;
    let Some(root) = root else { return Ok(false) };
    walk.tree(root, &mut row)?;
    Ok(true)
}

/// A value of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// NULL, or a number that is none of ours.
    Other,
    Integer(i64),
    /// Text or blob.
    Bytes(&'a [u8]),
}

/// Pages that were read: each belongs to one place, so reading one twice is a circle.
struct Walk<'a> {
    pages: &'a Pages<'a>,
    seen: Vec<u64>,
}

impl<'a> Walk<'a> {
    fn new(pages: &'a Pages<'a>) -> Self {
        Self { pages, seen: vec![0; pages.count as usize / 64 + 1] }
    }

    fn page(&mut self, number: u32) -> Result<Vec<u8>> {
        ensure!(number >= 1 && number <= self.pages.count, "it has no page {number}");
        let (word, bit) = (number as usize / 64, 1_u64 << (number % 64));
        ensure!(self.seen[word] & bit == 0, "page {number} is in two places");
        self.seen[word] |= bit;
        self.pages.page(number)
    }

    /// Walks a table from its root page.
    fn tree(&mut self, root: u32, row: &mut dyn FnMut(&[Value<'_>]) -> Result<()>) -> Result<()> {
        // Pages that are still to be read, the next one last, with their depth.
        let mut left = vec![(root, 0)];
        while let Some((number, depth)) = left.pop() {
            ensure!(depth < DEEPEST, "its pages are nested too deeply");
            let page = self.page(number)?;
            // The first page begins with the header of the file.
            let head = if number == 1 { 100 } else { 0 };
            let kind = page[head];
            let cells = usize::from(u16::from_be_bytes([page[head + 3], page[head + 4]]));
            let pointers = head + if kind == INTERIOR { 12 } else { 8 };
            let pointer = |cell: usize| -> Result<usize> {
                let at = pointers + 2 * cell;
                let bytes = page.get(at..at + 2);
                let Some(bytes) = bytes else { bail!("page {number} has too many cells") };
                Ok(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
            };
            match kind {
                INTERIOR => {
                    left.push((be32(&page, head + 8)?, depth + 1));
                    for cell in (0..cells).rev() {
                        left.push((be32(&page, pointer(cell)?)?, depth + 1));
                    }
                    ensure!(
                        left.len() <= self.pages.count as usize + 1,
                        "it has more pages than pages"
                    );
                }
                LEAF => {
                    for cell in 0..cells {
                        let payload = self.payload(&page, pointer(cell)?)?;
                        row(&record(&payload)?)?;
                    }
                }
                other => bail!("page {number} is of kind {other}, not of a table"),
            }
        }
        Ok(())
    }

    /// The record of a leaf's cell: its size, the key, its bytes, and where the rest is if they are too many.
    fn payload(&mut self, page: &[u8], at: usize) -> Result<Vec<u8>> {
        let cut = || anyhow::anyhow!("a cell is cut short");
        let (size, at) = varint(page, at).ok_or_else(cut)?;
        let (_, at) = varint(page, at).ok_or_else(cut)?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        ensure!(size <= LARGEST_ROW, "a row of {size} bytes is larger than any real one");
        let usable = self.pages.usable;
        // Section 1.6, "B-tree Cell Payload".
        let (most, least) = (usable - 35, (usable - 12) * 32 / 255 - 23);
        if size <= most {
            return Ok(page.get(at..at + size).ok_or_else(cut)?.to_vec());
        }
        let fits = least + (size - least) % (usable - 4);
        let here = if fits <= most { fits } else { least };
        let mut payload = page.get(at..at + here).ok_or_else(cut)?.to_vec();
        let mut next = be32(page, at + here)?;
        while payload.len() < size {
            let overflow = self.page(next)?;
            next = be32(&overflow, 0)?;
            let count = (size - payload.len()).min(usable - 4);
            payload.extend_from_slice(&overflow[4..4 + count]);
        }
        Ok(payload)
    }
}

fn be32(bytes: &[u8], at: usize) -> Result<u32> {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => bail!("a page is cut short"),
    }
}

/// A number of one to nine bytes, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for count in 0..9 {
        let byte = *bytes.get(at + count)?;
        if count == 8 {
            return Some((value << 8 | u64::from(byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + count + 1));
        }
    }
    None
}

/// The columns of a record (section 2.1): types, then values.
fn record(payload: &[u8]) -> Result<Vec<Value<'_>>> {
    let wrong = || anyhow::anyhow!("a record contradicts itself");
    let (header, mut at) = varint(payload, 0).ok_or_else(wrong)?;
    let header =
        usize::try_from(header).ok().filter(|end| *end <= payload.len()).ok_or_else(wrong)?;
    let (mut values, mut body) = (Vec::new(), header);
    while at < header {
        let (kind, next) = varint(&payload[..header], at).ok_or_else(wrong)?;
        at = next;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err(wrong()),
            _ => usize::try_from((kind - 12) / 2).map_err(|_| wrong())?,
        };
        let end = body.checked_add(size).ok_or_else(wrong)?;
        let bytes = payload.get(body..end).ok_or_else(wrong)?;
        body = end;
        values.push(match kind {
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => {
                let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
                let start = if negative { -1_i64 } else { 0 };
                Value::Integer(bytes.iter().fold(start, |sum, &byte| sum << 8 | i64::from(byte)))
            }
            0 | 7 => Value::Other,
            _ => Value::Bytes(bytes),
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_read() {
        assert_eq!(varint(&[0x7f], 0), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0], 0), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9], 0), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0x80; 3], 0), None);
    }

    #[test]
    fn record_values_have_the_types_of_its_header() {
        // Header of 6 bytes: NULL, 8 bits, 16 bits, text of 2, blob of 1.
        let bytes = [6, 0, 1, 2, 17, 14, 0xff, 1, 0, b'o', b'k', 7];
        let expected = [
            Value::Other,
            Value::Integer(-1),
            Value::Integer(256),
            Value::Bytes(b"ok"),
            Value::Bytes(&[7]),
        ];
        assert_eq!(record(&bytes).unwrap(), expected);
        for length in 1..bytes.len() {
            assert!(record(&bytes[..length]).is_err(), "{length}");
        }
    }
}
