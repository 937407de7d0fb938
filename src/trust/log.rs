//! What the transparency log Rekor promises about a signature, verified without asking it.
//!
//! ```text
//! { "SignedEntryTimestamp": BASE64,                          ECDSA by the log's key over the canonical JSON of Payload
//!   "Payload": { "body": BASE64, "integratedTime": seconds, "logID": hex, "logIndex": number } }
//!
//! body: { "kind": "hashedrekord", "apiVersion": "0.0.1",
//!         "spec": { "data": { "hash": { "algorithm": "sha256", "value": hex of the signed bytes } },
//!                   "signature": { "content": BASE64, "publicKey": { "content": BASE64 of PEM } } } }
//! ```

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use x509_cert::der::pem;

use super::key::Key;
use crate::signature::from_base64;

#[derive(Deserialize)]
struct Promise {
    #[serde(rename = "SignedEntryTimestamp")]
    signed_entry_timestamp: String,
    #[serde(rename = "Payload")]
    payload: Entry,
}

#[derive(Deserialize)]
struct Entry {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: i64,
    #[serde(rename = "logID")]
    log_id: String,
    #[serde(rename = "logIndex")]
    log_index: i64,
}

#[derive(Deserialize)]
struct Body {
    kind: String,
    #[serde(rename = "apiVersion")]
    version: String,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: Data,
    signature: Logged,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
struct Logged {
    content: String,
    #[serde(rename = "publicKey")]
    public_key: LoggedKey,
}

#[derive(Deserialize)]
struct LoggedKey {
    content: String,
}

/// Verifies that a log with one of `keys` has seen `signature` of `payload` by the key or certificate `signer` (DER, PEM taken
/// off). Returns when: seconds since 1970.
pub(super) fn logged(
    promise: &str,
    keys: &[Key],
    payload: &[u8],
    signature: &[u8],
    signer: &[u8],
) -> Result<u64> {
    let Promise { signed_entry_timestamp, payload: entry } =
        serde_json::from_str(promise).context("its promise of the log is not understood")?;
    let set =
        from_base64(&signed_entry_timestamp).context("the timestamp of the log is not base64")?;
    // RFC 8785: names sorted, no spaces; the strings in it are base64 and hexadecimal, which need no escapes.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    ensure!(plain(&entry.body) && plain(&entry.log_id), "its promise of the log is not plain");
    let signed = format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
        entry.body, entry.integrated_time, entry.log_id, entry.log_index
    );
    ensure!(
        keys.iter().any(|key| key.verifies(signed.as_bytes(), &set)),
        "none of the keys of Rekor made its promise of the log"
    );
    let body = from_base64(&entry.body).context("the entry of the log is not base64")?;
    let body: Body =
        serde_json::from_slice(&body).context("the entry of the log is not understood")?;
    ensure!(
        body.kind == "hashedrekord" && body.version == "0.0.1",
        "the entry of the log is a {} {}, not a hashedrekord 0.0.1",
        body.kind,
        body.version
    );
    let Spec { data, signature: logged } = body.spec;
    let hash: String = Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(
        data.hash.algorithm == "sha256" && data.hash.value == hash,
        "the entry of the log is about something else"
    );
    let content = from_base64(&logged.content).context("the logged signature is not base64")?;
    ensure!(content == signature, "the entry of the log is about another signature");
    let key = from_base64(&logged.public_key.content).context("the logged key is not base64")?;
    let key = match pem::decode_vec(key.trim_ascii()) {
        Ok((_, der)) => der,
        Err(error) => bail!("the logged key is not PEM: {error}"),
    };
    ensure!(key == signer, "the entry of the log is about another key");
    u64::try_from(entry.integrated_time).context("the log's time is before 1970")
}
