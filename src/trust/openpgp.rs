//! Simple signing: an OpenPGP message, signed with a key of a ring.
//!
//! ```text
//! [compressed [ one-pass signature │ literal data: the claim │ signature ]]
//! ```
//!
//! A key counts while it is neither expired nor revoked, as far as its own signatures in the ring tell, and a subkey only if
//! the key has bound it, and it the key.

use std::io::Read;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use pgp::composed::{Deserializable, Message, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, Timestamp};

use super::payload::{SIMPLE, Statement};
use super::policy::Material;
use super::sigstore::By;

/// The longest claim; real ones have some 250 bytes.
const MAXIMUM_PAYLOAD: u64 = 1 << 20;

/// Compressed packets inside compressed packets.
const MAXIMUM_DEPTH: usize = 4;

/// A key ring, and what people call it.
#[derive(Debug)]
pub(super) struct Ring {
    name: String,
    keys: Vec<SignedPublicKey>,
}

impl Ring {
    /// Reads a ring, armoured or not. Keys of kinds that nobody here knows are passed over.
    pub(super) fn parse(material: &Material) -> Result<Self> {
        let name = material.name.clone();
        let parsed = SignedPublicKey::from_reader_many_buf(&material.bytes[..]);
        let keys: Vec<SignedPublicKey> = match parsed {
            Ok((keys, _)) => keys.filter_map(Result::ok).collect(),
            Err(error) => bail!("{name} is not a ring of OpenPGP keys: {error}"),
        };
        ensure!(!keys.is_empty(), "there is no OpenPGP key in {name}");
        Ok(Self { name, keys })
    }
}

/// Verifies a message. Returns what it states, and who signed it; `now` in seconds since 1970.
pub(super) fn verify(message: &[u8], rings: &[Ring], now: u64) -> Result<(Statement, By)> {
    let mut message = open(message)?;
    let mut payload = Vec::new();
    let limit = MAXIMUM_PAYLOAD + 1;
    (&mut message).take(limit).read_to_end(&mut payload).context("reading the signed message")?;
    ensure!(payload.len() as u64 <= MAXIMUM_PAYLOAD, "it is larger than any real one");
    let mut reasons = Vec::new();
    for ring in rings {
        for key in &ring.keys {
            match signed_with(&message, key, now) {
                Some(Ok(fingerprint)) => {
                    let by = By { key: named(ring, key), fingerprint };
                    return Ok((Statement::parse(&payload, SIMPLE)?, by));
                }
                Some(Err(error)) => reasons.push(format!("{error:#}")),
                None => {}
            }
        }
    }
    if reasons.is_empty() {
        let rings: Vec<&str> = rings.iter().map(|ring| ring.name.as_str()).collect();
        bail!("it was not made with a key in {}", rings.join(" or "));
    }
    bail!("{}", reasons.join("; "))
}

fn open(bytes: &[u8]) -> Result<Message<'_>> {
    let damaged =
        |error: pgp::errors::Error| anyhow::anyhow!("it is not an OpenPGP message: {error}");
    let mut message = Message::from_bytes(bytes).map_err(damaged)?;
    for _ in 0..MAXIMUM_DEPTH {
        if !message.is_compressed() {
            break;
        }
        message = message.decompress().map_err(damaged)?;
    }
    ensure!(message.is_signed(), "it is an OpenPGP message without a signature");
    Ok(message)
}

fn named(ring: &Ring, key: &SignedPublicKey) -> String {
    let user = key.details.users.first().and_then(|user| user.id.as_str());
    match user {
        Some(user) => format!("{user} in {}", ring.name),
        None => ring.name.clone(),
    }
}

/// The fingerprint of the key or subkey that signed a message; the error says why it may not; `None`: another key did.
fn signed_with(message: &Message<'_>, key: &SignedPublicKey, now: u64) -> Option<Result<String>> {
    let primary = &key.primary_key;
    if let Ok(signature) = message.verify(primary) {
        let good = signature_is_good(signature, now)
            .and_then(|()| primary_is_good(key, true, now))
            .map(|()| fingerprint_of(primary));
        return Some(good);
    }
    key.public_subkeys.iter().find_map(|subkey| {
        let signature = message.verify(&subkey.key).ok()?;
        let good = signature_is_good(signature, now)
            .and_then(|()| primary_is_good(key, false, now))
            .and_then(|()| subkey_is_good(key, subkey, now))
            .map(|()| fingerprint_of(&subkey.key));
        Some(good)
    })
}

fn fingerprint_of(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

fn seconds(time: Timestamp) -> u64 {
    u64::from(time.as_secs())
}

fn signature_is_good(signature: &Signature, now: u64) -> Result<()> {
    ensure!(
        matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)),
        "the signature is not one of a message"
    );
    ensure!(
        matches!(
            signature.hash_alg(),
            Some(
                HashAlgorithm::Sha224
                    | HashAlgorithm::Sha256
                    | HashAlgorithm::Sha384
                    | HashAlgorithm::Sha512
                    | HashAlgorithm::Sha3_256
                    | HashAlgorithm::Sha3_512
            )
        ),
        "the signature was made with a hash that can be forged"
    );
    let created = signature.created().context("the signature has no time")?;
    let expires = signature.signature_expiration_time().filter(|life| life.as_secs() > 0);
    if let Some(life) = expires {
        let end = seconds(created) + u64::from(life.as_secs());
        ensure!(now < end, "the signature expired {}", date(end));
    }
    Ok(())
}

/// Whether a key vouches for itself, still does, and, if `signs`, may sign.
fn primary_is_good(key: &SignedPublicKey, signs: bool, now: u64) -> Result<()> {
    let primary = &key.primary_key;
    let fingerprint = fingerprint_of(primary);
    let revoked = key
        .details
        .revocation_signatures
        .iter()
        .any(|revocation| revocation.verify_key(primary).is_ok());
    ensure!(!revoked, "the key {fingerprint} is revoked");
    let of_users = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| signature.is_certification()).filter(
            |signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok(),
        )
    });
    let direct = key.details.direct_signatures.iter();
    let direct = direct.filter(|signature| signature.verify_key(primary).is_ok());
    let latest = of_users
        .chain(direct)
        .max_by_key(|signature| signature.created().map_or(0, seconds))
        .with_context(|| format!("the key {fingerprint} does not vouch for itself"))?;
    let created = seconds(primary.created_at());
    expiry(&fingerprint, created, latest, now)?;
    // Old keys do not say what they are for.
    let flags = latest.key_flags();
    let says_nothing = !flags.certify()
        && !flags.sign()
        && !flags.encrypt_comms()
        && !flags.encrypt_storage()
        && !flags.authentication();
    ensure!(!signs || says_nothing || flags.sign(), "the key {fingerprint} is not for signing");
    Ok(())
}

fn subkey_is_good(key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<()> {
    let primary = &key.primary_key;
    let fingerprint = fingerprint_of(&subkey.key);
    let good = |kind: SignatureType| {
        subkey.signatures.iter().filter(move |signature| {
            signature.typ() == Some(kind)
                && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
        })
    };
    let revoked = good(SignatureType::SubkeyRevocation).next().is_some();
    ensure!(!revoked, "the subkey {fingerprint} is revoked");
    let latest = good(SignatureType::SubkeyBinding)
        .max_by_key(|signature| signature.created().map_or(0, seconds))
        .with_context(|| format!("the subkey {fingerprint} belongs to no key of the ring"))?;
    let bound = latest.key_flags().sign()
        && latest
            .embedded_signature()
            .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    ensure!(bound, "the subkey {fingerprint} is not for signing");
    expiry(&fingerprint, seconds(subkey.key.created_at()), latest, now)
}

fn expiry(fingerprint: &str, created: u64, binding: &Signature, now: u64) -> Result<()> {
    if let Some(life) = binding.key_expiration_time().filter(|life| life.as_secs() > 0) {
        let end = created + u64::from(life.as_secs());
        ensure!(now < end, "the key {fingerprint} expired {}", date(end));
    }
    Ok(())
}

/// How long ago, roughly: a calendar would be a dependency.
fn date(end: u64) -> String {
    let ago = UNIX_EPOCH + Duration::from_secs(end);
    match ago.elapsed() {
        Ok(ago) if ago.as_secs() >= 86_400 => format!("{} days ago", ago.as_secs() / 86_400),
        _ => "less than a day ago".to_owned(),
    }
}
