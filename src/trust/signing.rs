//! Private keys that sign what this program states: PKCS #8 in PEM, as openssl writes it.

use std::fmt;

use anyhow::{Context, Result, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer;
use p256::pkcs8::{DecodePrivateKey, EncodePublicKey};
use sha2::{Digest, Sha256};
use x509_cert::der::pem;

use super::key::Key;

/// A private key. ECDSA signs by RFC 6979 and Ed25519 by its own rule, so one document has one signature.
pub struct SigningKey {
    kind: Kind,
    public: Key,
}

enum Kind {
    P256(Box<p256::ecdsa::SigningKey>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("public", &self.public.fingerprint())
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a key: P-256 or Ed25519, not encrypted.
    pub fn from_pem(bytes: &[u8]) -> Result<Self> {
        let (label, der) = match pem::decode_vec(bytes.trim_ascii()) {
            Ok(decoded) => decoded,
            Err(error) => bail!("it is not a private key in PEM: {error}"),
        };
        match label {
            "PRIVATE KEY" => {}
            "EC PRIVATE KEY" => {
                bail!("it is of an older form; convert it: openssl pkcs8 -topk8 -nodes -in KEY")
            }
            encrypted if encrypted.contains("ENCRYPTED") => {
                bail!(
                    "it is encrypted; bootpress takes keys without a password: openssl pkcs8 -topk8 -nodes -in KEY"
                )
            }
            other => bail!("it is PEM of a {other}, not of a PRIVATE KEY"),
        }
        if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_der(&der) {
            let public =
                key.verifying_key().to_public_key_der().context("encoding the public key")?;
            let public = Key::from_der(public.as_bytes())?;
            return Ok(Self { kind: Kind::P256(Box::new(key)), public });
        }
        let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) else {
            bail!(
                "it is neither a P-256 nor an Ed25519 key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
            );
        };
        // SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4): algorithm, then a bit string of 32 bytes.
        let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let public = Key::from_der(&[&head[..], pair.public_key().as_ref()].concat())?;
        Ok(Self { kind: Kind::Ed25519(Box::new(pair)), public })
    }

    /// Signs: DER of an ECDSA signature over SHA-256, or 64 bytes of Ed25519.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.kind {
            Kind::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Kind::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// SHA-256 of the public key in base64, as cosign hints at keys.
    pub fn hint(&self) -> String {
        STANDARD.encode(Sha256::digest(self.public.der()))
    }
}

/// Who made one of these signatures: the fingerprint of the first of some public keys in PEM that verifies one; `None`: nobody.
pub fn signer(message: &[u8], signatures: &[Vec<u8>], keys: &[Vec<u8>]) -> Result<Option<String>> {
    for bytes in keys {
        let key = Key::from_pem(bytes)?;
        if signatures.iter().any(|signature| key.verifies(message, signature)) {
            return Ok(Some(key.fingerprint()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_are_refused_with_a_way_out() {
        let error =
            |text: &str| format!("{:#}", SigningKey::from_pem(text.as_bytes()).unwrap_err());
        assert!(error("x").contains("not a private key in PEM"));
        let pem = |label: &str| format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
        assert!(error(&pem("ENCRYPTED SIGSTORE PRIVATE KEY")).contains("encrypted"));
        assert!(error(&pem("EC PRIVATE KEY")).contains("openssl pkcs8"));
        assert!(error(&pem("PUBLIC KEY")).contains("PEM of a PUBLIC KEY"));
        assert!(error(&pem("PRIVATE KEY")).contains("neither a P-256 nor an Ed25519 key"));
    }
}
