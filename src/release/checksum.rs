//! CHECKSUM in the form of Fedora's composes, which `sha256sum -c` reads.
//!
//! ```text
//! # Fedora-IoT-raw-43-20251014.0.x86_64.raw.xz: 1073741824 bytes
//! SHA256 (Fedora-IoT-raw-43-20251014.0.x86_64.raw.xz) = 9f86d081…
//! ```
//!
//! Source: pungi, `phases/image_checksum.py`: sorted by name, two lines a file, the algorithm in capitals.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::Artifact;
use crate::error::corrupt;
use crate::naming::ComposeId;

/// The first line of a clear-signed text (RFC 9580, section 7).
const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";

/// The line that ends the text and begins its signature.
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";

/// Checksums of the files in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksums(BTreeMap<String, (u64, String)>);

impl Checksums {
    /// Reads what was written before, clear-signed or not.
    ///
    /// `Corrupt` if there is a line that is not of the form, so that no other file is overwritten.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut read = Self::default();
        let mut size = None;
        for line in body(text).lines().filter(|line| !line.trim().is_empty()) {
            let wrong = || corrupt(name, format!("{line:?} is not a line of a CHECKSUM file"));
            if let Some(comment) = line.strip_prefix("# ") {
                let (file, bytes) = comment.rsplit_once(": ").ok_or_else(wrong)?;
                let bytes = bytes.strip_suffix(" bytes").and_then(|bytes| bytes.parse().ok());
                size = Some((file, bytes.ok_or_else(wrong)?));
            } else {
                let (file, sum) = line
                    .strip_prefix("SHA256 (")
                    .and_then(|rest| rest.rsplit_once(") = "))
                    .ok_or_else(wrong)?;
                let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
                let bytes = size.take().filter(|(of, _)| *of == file && is_sum);
                let (_, bytes) = bytes.ok_or_else(wrong)?;
                read.0.insert(file.to_owned(), (bytes, sum.to_owned()));
            }
        }
        Ok(read)
    }

    /// Adds a file, or replaces what was known of one with its name.
    pub fn put(&mut self, artifact: &Artifact) {
        self.0.insert(artifact.name(), (artifact.size, artifact.sha256.clone()));
    }
}

impl fmt::Display for Checksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, (size, sum))| {
            write!(f, "# {name}: {size} bytes\nSHA256 ({name}) = {sum}\n")
        })
    }
}

/// The text that was signed, if it is, without the signature and its headers.
fn body(text: &str) -> &str {
    let Some(signed) = text.strip_prefix(SIGNED) else { return text };
    let inside = signed.split_once("\n\n").map_or("", |(_, inside)| inside);
    inside.split_once(SIGNATURE).map_or(inside, |(inside, _)| inside)
}

/// Whether a text carries a signature, which ends when the text changes.
pub fn is_signed(text: &str) -> bool {
    text.starts_with(SIGNED)
}

/// What Fedora calls the file: `Fedora-IoT-43-20251014.0-x86_64-CHECKSUM`; without a compose, `CHECKSUM`.
pub fn file_name(compose: Option<&ComposeId>, architecture: &str) -> String {
    compose.map_or_else(
        || "CHECKSUM".to_owned(),
        |compose| format!("{compose}-{architecture}-CHECKSUM"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::Subject;
    use crate::output::Format;

    fn artifact(name: &str, size: u64) -> Artifact {
        Artifact {
            path: format!("out/{name}").into(),
            subject: Subject::Disk(Format::Raw.into()),
            size,
            disk_size: Some(size),
            sha256: "0f".repeat(32),
            uncompressed: None,
            modified: 0,
            volume_id: None,
            implanted_md5: None,
        }
    }

    #[test]
    fn checksums_read_back_are_the_same_signed_or_not() {
        let mut sums = Checksums::default();
        sums.put(&artifact("b.raw", 7));
        sums.put(&artifact("a (1).raw", 5));
        let text = sums.to_string();
        assert!(text.starts_with("# a (1).raw: 5 bytes\nSHA256 (a (1).raw) = 0f0f"), "{text}");
        assert_eq!(Checksums::parse("CHECKSUM", &text).unwrap(), sums);
        let signed = format!(
            "{SIGNED}\nHash: SHA256\n\n{text}{SIGNATURE}\n\niQ\n=x\n-----END PGP SIGNATURE-----\n"
        );
        assert!(is_signed(&signed) && !is_signed(&text));
        assert_eq!(Checksums::parse("CHECKSUM", &signed).unwrap(), sums);
        sums.put(&artifact("b.raw", 8));
        assert!(sums.to_string().contains("# b.raw: 8 bytes\n"));
    }

    #[test]
    fn file_of_another_form_is_not_overwritten() {
        let sum = "0f".repeat(32);
        for text in [
            "all is well\n".to_owned(),
            format!("{sum}  a.raw\n"),
            format!("SHA256 (a.raw) = {sum}\n"),
            format!("# b.raw: 5 bytes\nSHA256 (a.raw) = {sum}\n"),
            "# a.raw: 5 bytes\nSHA256 (a.raw) = 0f\n".to_owned(),
        ] {
            let error = Checksums::parse("CHECKSUM", &text).unwrap_err();
            assert!(error.to_string().contains("not a line of a CHECKSUM file"), "{error}");
        }
    }

    #[test]
    fn checksum_file_of_a_compose_is_named_after_it() {
        let id = "Fedora-IoT-43-20251014.0".parse().unwrap();
        assert_eq!(file_name(Some(&id), "x86_64"), "Fedora-IoT-43-20251014.0-x86_64-CHECKSUM");
        assert_eq!(file_name(None, "x86_64"), "CHECKSUM");
    }
}
