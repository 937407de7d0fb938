//! Authenticode signatures: who signed, by whose certificate (PKCS #7, RFC 2315; X.509, RFC 5280). Nothing is verified but the
//! digest: whether a firmware trusts the signer, only that firmware knows.
//!
//! ```text
//! ContentInfo
//!   SignedData: version, digest algorithms, content, [0] certificates, signer infos
//!                   content: what was signed, with its digest
//!                   signer info: version, issuer and serial number of the signer's certificate, …
//! ```

use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Reader, SliceReader, Tag};
use serde::Serialize;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// A signature of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// Who signed: common name of the certificate; `None`: the certificate is not among those that came with it.
    pub signer: Option<String>,
    /// Who vouches for the signer: what a firmware knows, or does not.
    pub issuer: String,
    /// Whether the program is still the one that was signed; `None`: the digest is of a kind that nobody should use.
    pub intact: Option<bool>,
}

const DAMAGED: &str = "its signature is damaged";

/// The signatures in a PKCS #7 document, which may have padding behind it. `digest` is the program's.
pub(super) fn parse(bytes: &[u8], digest: &[u8; 32]) -> Result<Vec<Signature>, &'static str> {
    signatures(bytes, digest).map_err(|_| DAMAGED)
}

/// How a certificate calls its owner.
pub(super) fn certificate_subject(bytes: &[u8]) -> Option<String> {
    let certificate: AnyRef<'_> = SliceReader::new(bytes).ok()?.decode().ok()?;
    Certificate::parse(certificate).ok().map(|certificate| name(certificate.subject))
}

fn signatures(bytes: &[u8], digest: &[u8; 32]) -> der::Result<Vec<Signature>> {
    let mut reader = SliceReader::new(bytes)?;
    let mut info = inside(reader.decode()?, Tag::Sequence)?;
    if info.decode::<ObjectIdentifier>()? != SIGNED_DATA {
        return Err(Tag::ObjectIdentifier.value_error().into());
    }
    let mut wrapped = SliceReader::new(info.decode::<AnyRef<'_>>()?.value())?;
    let mut signed = inside(wrapped.decode()?, Tag::Sequence)?;
    let _version: AnyRef<'_> = signed.decode()?;
    let _algorithms: AnyRef<'_> = signed.decode()?;
    let intact = signed_digest(signed.decode()?)?.map(|signed| signed == digest);
    let mut certificates = Vec::new();
    let signers = loop {
        let field: AnyRef<'_> = signed.decode()?;
        if field.header().tag() == Tag::Set {
            break field;
        }
        if field.header().tag().number() == der::TagNumber(0) {
            let mut set = SliceReader::new(field.value())?;
            while !set.is_finished() {
                certificates.push(Certificate::parse(set.decode()?)?);
            }
        }
    };
    let mut found = Vec::new();
    let mut set = SliceReader::new(signers.value())?;
    while !set.is_finished() {
        let mut signer = inside(set.decode()?, Tag::Sequence)?;
        let _version: AnyRef<'_> = signer.decode()?;
        let mut id = inside(signer.decode()?, Tag::Sequence)?;
        let (issuer, serial): (AnyRef<'_>, AnyRef<'_>) = (id.decode()?, id.decode()?);
        let of_signer = |one: &&Certificate<'_>| one.issuer == issuer && one.serial == serial;
        let certificate = certificates.iter().find(of_signer);
        found.push(Signature {
            signer: certificate.map(|certificate| name(certificate.subject)),
            issuer: name(issuer),
            intact,
        });
    }
    Ok(found)
}

/// The SHA-256 that the content names: `SpcIndirectDataContent` ends with a digest and its algorithm.
fn signed_digest(content: AnyRef<'_>) -> der::Result<Option<&[u8]>> {
    let mut content = inside(content, Tag::Sequence)?;
    let _type: ObjectIdentifier = content.decode()?;
    let mut wrapped = SliceReader::new(content.decode::<AnyRef<'_>>()?.value())?;
    let mut indirect = inside(wrapped.decode()?, Tag::Sequence)?;
    let _what: AnyRef<'_> = indirect.decode()?;
    let mut info = inside(indirect.decode()?, Tag::Sequence)?;
    let mut algorithm = inside(info.decode()?, Tag::Sequence)?;
    let is_sha256 = algorithm.decode::<ObjectIdentifier>()? == SHA256;
    let digest: AnyRef<'_> = info.decode()?;
    Ok(is_sha256.then_some(digest.value()))
}

/// What identifies a certificate, and its owner.
struct Certificate<'a> {
    serial: AnyRef<'a>,
    issuer: AnyRef<'a>,
    subject: AnyRef<'a>,
}

impl<'a> Certificate<'a> {
    fn parse(certificate: AnyRef<'a>) -> der::Result<Self> {
        let mut certificate = inside(certificate, Tag::Sequence)?;
        let mut signed = inside(certificate.decode()?, Tag::Sequence)?;
        let mut serial: AnyRef<'a> = signed.decode()?;
        // The version, which version 1 leaves out.
        if serial.header().tag() != Tag::Integer {
            serial = signed.decode()?;
        }
        let _algorithm: AnyRef<'a> = signed.decode()?;
        let issuer = signed.decode()?;
        let _validity: AnyRef<'a> = signed.decode()?;
        Ok(Self { serial, issuer, subject: signed.decode()? })
    }
}

/// A reader of what is inside of a SEQUENCE.
fn inside(value: AnyRef<'_>, tag: Tag) -> der::Result<SliceReader<'_>> {
    value.header().tag().assert_eq(tag)?;
    SliceReader::new(value.value())
}

/// The common name, else the organization, of a distinguished name; a name without either has no text to show.
fn name(name: AnyRef<'_>) -> String {
    let find = |wanted| attribute(name, wanted).ok().flatten();
    find(COMMON_NAME)
        .or_else(|| find(ORGANIZATION))
        .unwrap_or_else(|| "(without a name)".to_owned())
}

fn attribute(name: AnyRef<'_>, wanted: ObjectIdentifier) -> der::Result<Option<String>> {
    let mut parts = inside(name, Tag::Sequence)?;
    let mut found = None;
    while !parts.is_finished() {
        let mut part = inside(parts.decode()?, Tag::Set)?;
        while !part.is_finished() {
            let mut pair = inside(part.decode()?, Tag::Sequence)?;
            let kind: ObjectIdentifier = pair.decode()?;
            let value: AnyRef<'_> = pair.decode()?;
            if kind == wanted {
                found = Some(text(value));
            }
        }
    }
    Ok(found)
}

/// A string as it may be shown: without what would move a terminal's cursor.
fn text(value: AnyRef<'_>) -> String {
    let bytes = value.value();
    let text = match value.header().tag() {
        Tag::BmpString => {
            let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_be_bytes(*unit));
            char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect()
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
