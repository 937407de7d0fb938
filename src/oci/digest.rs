//! Digests of blobs, and a reader that computes one on the way.

use std::fmt;
use std::io::{self, Read};

use crate::error::{corrupt, unsupported};
use crate::sha256::{self, Sha256};
use anyhow::Result;

/// A SHA-256 digest. Parsing is the door: what has passed is safe as a file name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes in memory.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::of(bytes))
    }

    /// Reads `sha256:` and 64 lower-case hexadecimal digits, as the OCI image specification asks for.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(match text.split_once(':') {
                Some((algorithm @ ("sha512" | "sha384"), _)) => {
                    unsupported(format!("digests by {algorithm} are not supported: {text}"), None)
                }
                _ => corrupt(format!("digest {text:?}"), "it does not begin with sha256:"),
            });
        };
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        let mut pairs = hex.as_bytes().chunks_exact(2);
        for byte in &mut digest {
            let value = pairs.next().and_then(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
            *byte = value.ok_or_else(|| wrong_digits(text))?;
        }
        match (pairs.next(), pairs.remainder()) {
            (None, []) => Ok(Self(digest)),
            _ => Err(wrong_digits(text)),
        }
    }

    /// The 64 digits.
    pub(super) fn hex(&self) -> String {
        sha256::hex(&self.0)
    }
}

impl From<Sha256> for Digest {
    fn from(hash: Sha256) -> Self {
        Self(hash.finish())
    }
}

fn wrong_digits(text: &str) -> anyhow::Error {
    corrupt(format!("digest {text:?}"), "it is not 64 lower-case hexadecimal digits")
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes what is read through it, and keeps the error that stopped the reading: whoever reads from a decoder above sees
/// only that the decoder failed, not whose fault it was.
pub(super) struct Verified<R> {
    inner: R,
    hash: Sha256,
    size: u64,
    failure: Option<io::Error>,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), size: 0, failure: None }
    }

    /// The error with which the reader below failed, if it did.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Bytes that were read so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Reads what is left and compares: the digest, and the size where it is known.
    pub(super) fn finish(mut self, digest: &Digest, size: Option<u64>) -> Result<()> {
        let drained = io::copy(&mut self, &mut io::sink());
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        drained?;
        if let Some(size) = size.filter(|&size| size != self.size) {
            let reason = if self.size < size {
                format!("unexpected end of stream: {} of {size} bytes", self.size)
            } else {
                format!("it is larger than the {size} bytes of its descriptor")
            };
            return Err(corrupt(digest.to_string(), reason));
        }
        let found = Digest::from(self.hash);
        if found != *digest {
            return Err(corrupt(digest.to_string(), format!("its bytes have the digest {found}")));
        }
        Ok(())
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.hash.update(&buffer[..count]);
                self.size += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let seen = io::Error::other(error.to_string());
                self.failure.get_or_insert(error);
                Err(seen)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Corrupt, Unsupported};

    const OF_ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn only_a_well_formed_digest_is_one() {
        assert_eq!(Digest::parse(OF_ABC).unwrap().to_string(), OF_ABC);
        for bad in [
            "",
            "sha256:",
            "sha256:../../../../etc/passwd",
            &OF_ABC[..70],
            &format!("{OF_ABC}0"),
            &format!("{OF_ABC}00"),
            &OF_ABC.to_uppercase(),
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(Digest::parse(bad).unwrap_err().is::<Corrupt>(), "{bad}");
        }
        assert!(Digest::parse("sha512:00").unwrap_err().is::<Unsupported>());
    }

    #[test]
    fn another_digest_another_size_and_a_failure_below_are_three_things() {
        let digest = Digest::parse(OF_ABC).unwrap();
        let finish = |bytes: &[u8], size| {
            Verified::new(bytes).finish(&digest, size).map_err(|error| error.to_string())
        };
        assert_eq!(finish(b"abc", Some(3)), Ok(()));
        assert_eq!(finish(b"abc", None), Ok(()));
        assert!(finish(b"abd", Some(3)).unwrap_err().contains("its bytes have the digest"));
        assert!(finish(b"ab", Some(3)).unwrap_err().contains("2 of 3 bytes"));
        assert!(finish(b"abcd", Some(3)).unwrap_err().contains("larger"));

        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let error = Verified::new(Broken).finish(&digest, Some(3)).unwrap_err();
        assert!(!error.is::<Corrupt>());
        assert_eq!(error.downcast::<io::Error>().unwrap().raw_os_error(), Some(5));
    }
}
