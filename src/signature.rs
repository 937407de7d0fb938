//! What claims to be a signature of an image, as it was found. Nothing in it is verified: `trust` does that.

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine, alphabet};
use serde::{Deserialize, Serialize};

/// As Go's base64 is: line breaks may stand anywhere, and bits that belong to no byte need not be zero. Whoever makes signatures
/// with a shell has a line break at the end.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Bytes of a base64 text, read as container tools read it.
pub fn from_base64(text: &str) -> Result<Vec<u8>, DecodeError> {
    if text.contains(['\r', '\n']) {
        LENIENT.decode(text.replace(['\r', '\n'], ""))
    } else {
        LENIENT.decode(text)
    }
}

/// Something that was found beside an image.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Digest of the manifest or index that it was found beside; what it really signs, it says itself.
    pub about: String,
    /// Where it was found, for people.
    pub place: String,
    /// The signature itself.
    pub signature: Signature,
}

/// The forms of signatures.
#[derive(Clone, Debug)]
pub enum Signature {
    /// An OpenPGP message with a claim in it: "simple signing".
    Simple(Vec<u8>),
    /// A claim and a detached signature, as cosign attaches them.
    Sigstore(Sigstore),
    /// A sigstore bundle: JSON with everything in it.
    Bundle(Vec<u8>),
    /// A form that nobody here knows; its name.
    Unknown(String),
}

/// The parts of a sigstore signature.
#[derive(Clone, Debug, Default)]
pub struct Sigstore {
    /// What is signed: JSON.
    pub payload: Vec<u8>,
    /// The signature, in base64.
    pub signature: String,
    /// The certificate of the key, PEM.
    pub certificate: Option<String>,
    /// Certificates between it and a root, PEM.
    pub chain: Option<String>,
    /// The promise of a transparency log, JSON.
    pub log_entry: Option<String>,
}

/// Where to look for signatures; in a registry all of them cost requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Directory or URL of a lookaside store, the image's path not yet appended.
    pub lookaside: Option<String>,
    /// Whether to ask the registry for attachments: tags ending in `.sig`, and referrers.
    pub attachments: bool,
}

/// What an image is to a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `docker`, `oci`, …
    pub transport: &'static str,
    /// The image in the words of its transport, then wider and wider scopes.
    pub scopes: Vec<String>,
    /// Its name, if its transport gives names to images.
    pub reference: Option<String>,
    /// What it says that it is called, for transports that give no names.
    pub called: Option<String>,
    /// Digests of its manifest and of the indexes that led to it.
    pub digests: Vec<String>,
}

/// Annotations of an attached signature.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";
const LOG_ANNOTATION: &str = "dev.sigstore.cosign/bundle";

/// How container tools keep a sigstore signature in one file.
#[derive(Deserialize, Serialize)]
struct Stored {
    #[serde(rename = "mimeType")]
    mime_type: String,
    /// Base64.
    payload: String,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Signature {
    /// From a file as container tools keep signatures: an OpenPGP message, or NUL, the name of a format, a newline, and JSON.
    pub fn from_file(bytes: Vec<u8>) -> Self {
        let Some(rest) = bytes.strip_prefix(b"\0") else { return Self::Simple(bytes) };
        let mut parts = rest.splitn(2, |&byte| byte == b'\n');
        let format = parts.next().unwrap_or_default();
        let body = parts.next().unwrap_or_default();
        match format {
            b"simple-signing" => Self::Simple(body.to_vec()),
            b"sigstore-json" => Self::stored(body),
            other => Self::Unknown(String::from_utf8_lossy(other).chars().take(40).collect()),
        }
    }

    fn stored(body: &[u8]) -> Self {
        let stored: Option<Stored> = serde_json::from_slice(body).ok();
        let parts = stored.and_then(|stored| {
            let payload = from_base64(&stored.payload).ok()?;
            Some((stored.mime_type, payload, stored.annotations.unwrap_or_default()))
        });
        match parts {
            Some((mime_type, payload, annotations)) => {
                Self::attached(&mime_type, payload, |key| annotations.get(key).cloned())
            }
            None => Self::Unknown("damaged sigstore JSON".to_owned()),
        }
    }

    /// From a blob that is attached to an image, its media type, and its annotations.
    pub fn attached(
        media_type: &str,
        payload: Vec<u8>,
        annotation: impl Fn(&str) -> Option<String>,
    ) -> Self {
        if media_type.starts_with("application/vnd.dev.sigstore.bundle") {
            return Self::Bundle(payload);
        }
        match annotation(SIGNATURE_ANNOTATION) {
            Some(signature) => Self::Sigstore(Sigstore {
                payload,
                signature,
                certificate: annotation(CERTIFICATE_ANNOTATION),
                chain: annotation(CHAIN_ANNOTATION),
                log_entry: annotation(LOG_ANNOTATION),
            }),
            None => Self::Unknown(media_type.chars().take(80).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_line_breaks_is_read_as_go_reads_it() {
        for text in ["YWJj", "YWJj\n", "YW\r\nJj\r\n", "\nYWJj"] {
            assert_eq!(from_base64(text).unwrap(), b"abc", "{text:?}");
        }
        assert_eq!(from_base64("YW==\n").unwrap(), b"a");
        assert_eq!(from_base64("YX==").unwrap(), b"a");
        for bad in ["YWJj ", "YW J j", "YWI", "YW=", "YWJj=", "=YWJ", "YW-_"] {
            assert!(from_base64(bad).is_err(), "{bad:?}");
        }
        let stored = "\0sigstore-json\n{\"mimeType\":\"x/y\",\"payload\":\"e30=\\n\",\"annotations\":{\"dev.cosignproject.cosign/signature\":\"AA==\\n\"}}";
        let found = Signature::from_file(stored.as_bytes().to_vec());
        assert!(matches!(found, Signature::Sigstore(parts) if parts.payload == b"{}"));
    }

    #[test]
    fn the_forms_of_files() {
        assert!(matches!(Signature::from_file(b"\x90\x0d".to_vec()), Signature::Simple(_)));
        let simple = Signature::from_file(b"\0simple-signing\nab\nc".to_vec());
        assert!(matches!(simple, Signature::Simple(bytes) if bytes == b"ab\nc"));
        let json = format!(
            "\0sigstore-json\n{{\"mimeType\":\"x/y\",\"payload\":\"e30=\",\"annotations\":{{\"{SIGNATURE_ANNOTATION}\":\"AA==\"}}}}"
        );
        let Signature::Sigstore(found) = Signature::from_file(json.into_bytes()) else {
            panic!("sigstore")
        };
        assert_eq!((found.payload, found.signature), (b"{}".to_vec(), "AA==".to_owned()));
        for damaged in ["\0", "\0x", "\0sigstore-json\n{", "\0sigstore-json\n{\"payload\":\"*\"}"] {
            let found = Signature::from_file(damaged.as_bytes().to_vec());
            assert!(matches!(found, Signature::Unknown(_)), "{damaged:?}");
        }
    }
}
