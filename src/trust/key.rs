//! Public keys of sigstore signatures: PEM, and what they verify.

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::signature::{
    self as algorithms, EcdsaVerificationAlgorithm, UnparsedPublicKey, VerificationAlgorithm,
};
use sha2::{Digest, Sha256};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, pem};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

// RFC 5480, sections 2.1.1 and 2.1.1.1; RFC 8017, appendix C; RFC 8410, section 3.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key.
#[derive(Debug)]
pub(super) struct Key {
    kind: Kind,
    /// The key alone: a point, an RSA key, 32 bytes.
    bits: Vec<u8>,
    /// The whole `SubjectPublicKeyInfo`.
    der: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    P521,
    Rsa,
    Ed25519,
}

impl Key {
    /// A key as `cosign generate-key-pair` and `openssl pkey -pubout` write it.
    pub(super) fn from_pem(bytes: &[u8]) -> Result<Self> {
        let trimmed = bytes.trim_ascii();
        let (label, der) = match pem::decode_vec(trimmed) {
            Ok(decoded) => decoded,
            Err(error) => bail!("it is not a public key in PEM: {error}"),
        };
        ensure!(label == "PUBLIC KEY", "it is PEM of a {label}, not of a PUBLIC KEY");
        Self::from_der(&der)
    }

    /// A `SubjectPublicKeyInfo`.
    pub(super) fn from_der(der: &[u8]) -> Result<Self> {
        let info = match SubjectPublicKeyInfoOwned::from_der(der) {
            Ok(info) => info,
            Err(error) => bail!("it is not a public key: {error}"),
        };
        Self::from_info(&info)
    }

    pub(super) fn from_info(info: &SubjectPublicKeyInfoOwned) -> Result<Self> {
        let curve = || {
            let parameters = info.algorithm.parameters.as_ref();
            parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok())
        };
        let kind = match info.algorithm.oid {
            EC => match curve() {
                Some(P256) => Kind::P256,
                Some(P384) => Kind::P384,
                Some(P521) => Kind::P521,
                _ => bail!("its curve is none of P-256, P-384 and P-521"),
            },
            RSA => Kind::Rsa,
            ED25519 => Kind::Ed25519,
            other => bail!("keys of the algorithm {other} are not supported"),
        };
        let bits =
            info.subject_public_key.as_bytes().context("it is not a whole number of bytes")?;
        let der =
            info.to_der().map_err(|error| anyhow::anyhow!("it is not a public key: {error}"))?;
        Ok(Self { kind, bits: bits.to_vec(), der })
    }

    /// The key as a `SubjectPublicKeyInfo`.
    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of it, for people to compare: `sha256:…`.
    pub(super) fn fingerprint(&self) -> String {
        let digest = Sha256::digest(&self.der);
        format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Whether `signature` is one of `message` by this key. ECDSA may hash with SHA-256 or with what fits the curve, since both
    /// are made; RSA is PKCS #1 1.5 with SHA-256.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        const P256_WAYS: [&EcdsaVerificationAlgorithm; 1] = [&algorithms::ECDSA_P256_SHA256_ASN1];
        const P384_WAYS: [&EcdsaVerificationAlgorithm; 2] =
            [&algorithms::ECDSA_P384_SHA256_ASN1, &algorithms::ECDSA_P384_SHA384_ASN1];
        const P521_WAYS: [&EcdsaVerificationAlgorithm; 2] =
            [&algorithms::ECDSA_P521_SHA256_ASN1, &algorithms::ECDSA_P521_SHA512_ASN1];
        let by = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signature).is_ok()
        };
        match self.kind {
            Kind::P256 => P256_WAYS.into_iter().any(|way| by(way)),
            Kind::P384 => P384_WAYS.into_iter().any(|way| by(way)),
            Kind::P521 => P521_WAYS.into_iter().any(|way| by(way)),
            Kind::Rsa => by(&algorithms::RSA_PKCS1_2048_8192_SHA256),
            Kind::Ed25519 => by(&algorithms::ED25519),
        }
    }
}
