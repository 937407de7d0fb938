//! The archive inside a blob: plain, gzip or zstd, as the media type says and the first bytes confirm.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use anyhow::Result;
use flate2::bufread::GzDecoder;

use crate::error::corrupt;

/// Bytes taken from the blob at once.
const BUFFER: usize = 128 * 1024;

/// How a layer's archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "not compressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What the first bytes say, four or more of them (RFC 1952, section 2.3.1; RFC 8878, sections 3.1.1 and 3.1.2).
    pub(super) fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A reader of the archive in `blob`. Gzip may have several members, and zeros behind the last, zstd several frames, some of them skippable
/// (zstd:chunked has those). Corrupt, with `subject` as its name, if the bytes begin like another compression than
/// `expected`. No bytes at all are an empty archive in every compression.
pub(super) fn decompressed<'a>(
    mut blob: impl Read + Send + 'a,
    expected: Compression,
    subject: &str,
) -> Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::new();
    blob.by_ref().take(4).read_to_end(&mut head)?;
    let found = Compression::sniff(&head);
    if found != expected && !head.is_empty() {
        let (found, expected) = (found.name(), expected.name());
        let reason = format!("its bytes are {found}, its media type says {expected}");
        return Err(corrupt(subject, reason));
    }
    let blob = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(blob));
    Ok(match found {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(Gzip(Some(GzDecoder::new(blob)))),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(blob)?),
    })
}

/// The members of a gzip file, one after the other, and perhaps zeros behind them: tapes, and some programs, fill a block.
struct Gzip<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Gzip<R> {
    /// Goes on with the member behind the one that has ended. Fails if anything but zeros follows zeros.
    fn next_member(&mut self) -> io::Result<()> {
        let Some(mut input) = self.0.take().map(GzDecoder::into_inner) else { return Ok(()) };
        let mut is_padded = false;
        loop {
            let buffer = match input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            match buffer.iter().position(|&byte| byte != 0) {
                None if buffer.is_empty() => return Ok(()),
                Some(0) if !is_padded => {
                    self.0 = Some(GzDecoder::new(input));
                    return Ok(());
                }
                Some(_) => {
                    let reason = "bytes follow the zeros behind the gzip data";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
                None => {
                    is_padded = true;
                    let count = buffer.len();
                    input.consume(count);
                }
            }
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.next_member()?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::error::Corrupt;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(blob: &[u8], expected: Compression) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decompressed(blob, expected, "it")?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn members_and_frames_are_joined() {
        let twice = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(&twice, Compression::Gzip).unwrap(), b"one two");
        for zeros in [1, 512, 300_000] {
            let padded = [&twice[..], &vec![0; zeros]].concat();
            assert_eq!(decode(&padded, Compression::Gzip).unwrap(), b"one two", "{zeros}");
            let more = [&padded[..], &gzip(b"three")].concat();
            assert!(decode(&more, Compression::Gzip).is_err(), "{zeros}");
        }
        assert!(decode(&[&twice[..], b"x"].concat(), Compression::Gzip).is_err());
        let skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0toc";
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let chunked =
            [&skippable[..], &frame(b"one "), skippable, &frame(b"two"), skippable].concat();
        assert_eq!(decode(&chunked, Compression::Zstd).unwrap(), b"one two");
        assert_eq!(decode(b"plain", Compression::None).unwrap(), b"plain");
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(decode(b"", compression).unwrap(), b"");
        }
    }

    #[test]
    fn another_compression_than_the_media_type_says_is_refused() {
        let blobs = [
            (b"plain".to_vec(), Compression::None),
            (gzip(b"x"), Compression::Gzip),
            (zstd::encode_all(&b"x"[..], 1).unwrap(), Compression::Zstd),
        ];
        for (blob, found) in &blobs {
            for (_, expected) in &blobs {
                let decoded = decode(blob, *expected);
                assert_eq!(decoded.is_ok(), found == expected, "{found:?} as {expected:?}");
                assert!(decoded.map_or_else(|error| error.is::<Corrupt>(), |_| true));
            }
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_an_error() {
        let (mut gz, zst) =
            (gzip(&[7; 5000]), zstd::encode_all(&b"some bytes to keep"[..], 1).unwrap());
        assert!(decode(&gz[..gz.len() - 1], Compression::Gzip).is_err());
        assert!(decode(&zst[..zst.len() - 1], Compression::Zstd).is_err());
        let checksum = gz.len() - 8;
        gz[checksum] ^= 1;
        assert!(decode(&gz, Compression::Gzip).is_err());
    }
}
