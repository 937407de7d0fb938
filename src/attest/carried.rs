//! Bills of materials that came with the source image: found, unwrapped, kept.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::oci::{Attached, Source};
use crate::progress::{Code, Progress};
use crate::sbom::Carried;
use crate::signature::from_base64;

/// Documents that are kept.
const MOST: usize = 8;

/// A document.
#[derive(Debug)]
pub(super) struct Came {
    /// `spdx` or `cyclonedx`.
    pub(super) form: &'static str,
    /// The document, without the envelope that it came in.
    pub(super) bytes: Vec<u8>,
}

/// Looks for documents. What cannot be read is a warning: the disk is as good without.
pub(super) fn find(source: &Source, offline: bool, progress: &Progress) -> Vec<Came> {
    let attached = source.sboms(offline).unwrap_or_else(|error| {
        let text = format!("bills of materials of the image cannot be looked for: {error:#}");
        progress.warn(Code::Documents, text);
        None
    });
    let mut came: Vec<Came> = Vec::new();
    for one in attached.unwrap_or_default() {
        let Attached { form, digest, .. } = &one;
        match source.read_attached(&one) {
            Ok(bytes) => {
                let bytes = unwrapped(bytes);
                if came.len() < MOST && came.iter().all(|other| other.bytes != bytes) {
                    came.push(Came { form, bytes });
                }
            }
            Err(error) => progress.warn(
                Code::Documents,
                format!("the image's own bill of materials {digest} cannot be read: {error:#}"),
            ),
        }
    }
    came
}

/// What is inside of a DSSE envelope and an in-toto statement; anything else as it is.
fn unwrapped(bytes: Vec<u8>) -> Vec<u8> {
    let inside = || -> Option<Vec<u8>> {
        let mut value: Value = serde_json::from_slice(&bytes).ok()?;
        if let Some(payload) = value.get("payload").and_then(Value::as_str) {
            value = serde_json::from_slice(&from_base64(payload).ok()?).ok()?;
        }
        let mut predicate = value.get("predicate")?.clone();
        // cosign 1 and 2 put other tools' documents one level deeper.
        if let Some(data) = predicate.get("Data").cloned() {
            predicate = data;
        }
        match predicate {
            Value::String(text) => Some(text.into_bytes()),
            predicate => serde_json::to_vec_pretty(&predicate).ok(),
        }
    };
    inside().unwrap_or(bytes)
}

impl Came {
    /// What the name of its file ends with.
    pub(super) fn extension(&self, number: usize) -> String {
        let extension = if self.form == "spdx" { "spdx.json" } else { "cdx.json" };
        match number {
            1 => format!("source.{extension}"),
            number => format!("source-{number}.{extension}"),
        }
    }

    /// What a bill says about it when it is kept in a file.
    pub(super) fn kept_as(&self, path: &Path) -> Carried {
        let document: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        let text = |key: &str| document.get(key).and_then(Value::as_str);
        let serial = text("serialNumber").and_then(|serial| serial.strip_prefix("urn:uuid:"));
        let version = document.get("version").and_then(Value::as_u64).unwrap_or(1);
        // BOM-Link: urn:cdx:SERIAL/VERSION (CycloneDX, "BOM-Link").
        let link = serial.map(|serial| format!("urn:cdx:{serial}/{version}"));
        Carried {
            form: self.form,
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            sha1: sha1_smol::Sha1::from(&self.bytes).digest().to_string(),
            sha256: Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            identity: if self.form == "spdx" {
                text("documentNamespace").map(str::to_owned)
            } else {
                link
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_out_of_their_envelopes() {
        let document = r#"{"spdxVersion":"SPDX-2.3"}"#;
        let pretty = "{\n  \"spdxVersion\": \"SPDX-2.3\"\n}";
        let statement = format!(r#"{{"predicate":{document}}}"#);
        let deeper = format!(r#"{{"predicate":{{"Data":{document}}}}}"#);
        let envelope = r#"{"payload":"eyJwcmVkaWNhdGUiOnsic3BkeFZlcnNpb24iOiJTUERYLTIuMyJ9fQ=="}"#;
        assert_eq!(unwrapped(document.into()), document.as_bytes());
        for wrapped in [statement.as_str(), &deeper, envelope] {
            assert_eq!(unwrapped(wrapped.into()), pretty.as_bytes(), "{wrapped}");
        }
        for odd in ["", "{", "SPDXVersion: SPDX-2.3", r#"{"payload":"*"}"#, r#"{"payload":"e30="}"#]
        {
            assert_eq!(unwrapped(odd.into()), odd.as_bytes());
        }
    }
}
