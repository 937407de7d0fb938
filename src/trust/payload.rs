//! What a signature says: the JSON that both simple signing and cosign sign.
//!
//! ```text
//! { "critical": { "type": …, "image": { "docker-manifest-digest": … }, "identity": { "docker-reference": … } },
//!   "optional": anything }
//! ```

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

/// The type of what gpg signs.
pub(super) const SIMPLE: &str = "atomic container signature";
/// The type of what cosign signs.
pub(super) const COSIGN: &str = "cosign container image signature";

/// A claim: this digest is that image. Believe it after its signature was verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) digest: String,
    /// The name that the image has to the signer; sigstore bundles have none.
    pub(super) identity: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

impl Statement {
    /// Reads what was signed. Fields of the critical part that nobody knows might restrict it, so they are refused.
    pub(super) fn parse(payload: &[u8], kind: &str) -> Result<Self> {
        let parsed: Payload = match serde_json::from_slice(payload) {
            Ok(parsed) => parsed,
            Err(error) => bail!("what it signs is not understood: {error}"),
        };
        let Critical { kind: found, image, identity } = parsed.critical;
        ensure!(found == kind, "what it signs is {found:?}, not {kind:?}");
        Ok(Self { digest: image.digest, identity: Some(identity.reference) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_strictly() {
        let text = |critical: &str, rest: &str| {
            format!(
                r#"{{"critical":{{"type":"cosign container image signature","image":{{"docker-manifest-digest":"sha256:0"}},"identity":{{"docker-reference":"x"}}{critical}}}{rest}}}"#
            )
        };
        for rest in ["", r#","optional":null"#, r#","optional":{"a":[1]}"#] {
            let found = Statement::parse(text("", rest).as_bytes(), COSIGN).unwrap();
            let identity = Some("x".to_owned());
            assert_eq!(found, Statement { digest: "sha256:0".to_owned(), identity });
        }
        for (critical, rest) in [(r#","x":1"#, ""), ("", r#","x":1"#), (r#","type":"x""#, "")] {
            assert!(Statement::parse(text(critical, rest).as_bytes(), COSIGN).is_err());
        }
        assert!(Statement::parse(text("", "").as_bytes(), SIMPLE).is_err());
        assert!(Statement::parse(b"", SIMPLE).is_err());
    }
}
