//! What the annotated dumps of all file systems share: structures are read back from a volume, and become lines of text.

use std::fmt::Write;
use std::io;

use zerocopy::FromBytes;

use crate::content::ContentStore;
use crate::sparse::SparseMap;

/// A volume that is read, and the text that comes of it.
pub(super) struct Dump<'a> {
    volume: &'a SparseMap,
    contents: &'a ContentStore,
    /// Its kind, as an error names it.
    kind: &'static str,
    text: String,
}

/// Prints each named field that is not zero, with its offset in the structure.
macro_rules! fields {
    ($dump:expr, $type:ty, $value:expr, [$($field:ident),* $(,)?]) => {
        $(
            let value = u64::from($value.$field);
            if value != 0 {
                let offset = std::mem::offset_of!($type, $field);
                $dump.line(&format!("   +{offset:03x}  {}: {value:#x} ({value})", stringify!($field)));
            }
        )*
    };
}
pub(super) use fields;

impl<'a> Dump<'a> {
    /// An empty dump of a volume of this kind, such as `ext4`.
    pub(super) fn of(
        volume: &'a SparseMap,
        contents: &'a ContentStore,
        kind: &'static str,
    ) -> Self {
        Self { volume, contents, kind, text: String::new() }
    }

    /// Everything that was said.
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// A structure at an offset of the volume.
    pub(super) fn read<T: FromBytes>(&self, offset: u64) -> io::Result<T> {
        T::read_from_bytes(&self.bytes(offset, size_of::<T>())?).map_err(|_| self.broken())
    }

    /// A structure at the beginning of bytes, and what follows it.
    pub(super) fn prefix<'b, T: FromBytes>(&self, bytes: &'b [u8]) -> io::Result<(T, &'b [u8])> {
        T::read_from_prefix(bytes).map_err(|_| self.broken())
    }

    /// Bytes at an offset of the volume.
    pub(super) fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.volume.read_at(self.contents, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Adds a line.
    pub(super) fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("writing to a string cannot fail");
    }

    /// The error about a volume that is not what it should be.
    pub(super) fn broken(&self) -> io::Error {
        io::Error::other(format!("the volume is not a whole {} file system", self.kind))
    }
}

/// Bytes as text, zeros counted.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for run in bytes.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        match (run[0], run.len()) {
            (0, 0..4) => out.push_str(&"\\0".repeat(run.len())),
            (0, count) => out.push_str(&format!("[{count} zeros]")),
            _ => out.push_str(&run.escape_ascii().to_string()),
        }
    }
    out
}
