//! Certificates of signers: from Fulcio, which gives them for minutes to people who logged in somewhere, or from any authority.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::key::Key;

/// id-kp-codeSigning, 1.3.6.1.5.5.7.3.3, as DER without tag and length (RFC 5280, section 4.2.1.12).
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];

/// Fulcio's extensions that say where the signer logged in: the old one holds the bare text, the new one DER.
const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
const ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");

/// Certificates in one PEM file; real ones have a handful.
const MAXIMUM_CERTIFICATES: usize = 64;

/// A signer's certificate, which an authority vouches for.
pub(super) struct Signer {
    certificate: Certificate,
    pub(super) key: Key,
}

/// Certificates in PEM, in DER.
pub(super) fn from_pem(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let parsed = match Certificate::load_pem_chain(bytes) {
        Ok(parsed) => parsed,
        Err(error) => bail!("they are no certificates in PEM: {error}"),
    };
    ensure!(!parsed.is_empty(), "there is no certificate in it");
    ensure!(parsed.len() <= MAXIMUM_CERTIFICATES, "there are too many certificates in it");
    let der = parsed.iter().map(Encode::to_der).collect::<Result<_, _>>();
    der.map_err(|error| anyhow::anyhow!("they are no certificates: {error}"))
}

impl Signer {
    /// A certificate that one of `roots` vouches for at `time` (seconds since 1970), over `between`, for signing code.
    pub(super) fn trusted(
        der: &[u8],
        between: &[Vec<u8>],
        roots: &[Vec<u8>],
        time: u64,
    ) -> Result<Self> {
        let own = CertificateDer::from(der);
        let end = EndEntityCert::try_from(&own)
            .map_err(|error| anyhow::anyhow!("its certificate is not understood: {error}"))?;
        let roots: Vec<CertificateDer<'_>> =
            roots.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
        let anchors =
            anchors.map_err(|error| anyhow::anyhow!("the authority is not understood: {error}"))?;
        let between: Vec<CertificateDer<'_>> =
            between.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        end.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &between,
            UnixTime::since_unix_epoch(Duration::from_secs(time)),
            // An authority may say nothing of usages, which means all of them (RFC 5280, section 4.2.1.12).
            KeyUsage::required_if_present(CODE_SIGNING),
            None,
            None,
        )
        .map_err(|error| {
            anyhow::anyhow!("the authority does not vouch for its certificate: {error}")
        })?;
        let certificate = Certificate::from_der(der)
            .map_err(|error| anyhow::anyhow!("its certificate is not understood: {error}"))?;
        let key = Key::from_info(certificate.tbs_certificate().subject_public_key_info())
            .context("reading the key of its certificate")?;
        Ok(Self { certificate, key })
    }

    /// Whether it was given to this mail address.
    pub(super) fn check_email(&self, wanted: &str) -> Result<()> {
        self.check_name("mail address", wanted, |name| match name {
            GeneralName::Rfc822Name(found) => Some(found.as_str()),
            _ => None,
        })
    }

    /// Whether it was given to this host.
    pub(super) fn check_host(&self, wanted: &str) -> Result<()> {
        self.check_name("host", wanted, |name| match name {
            GeneralName::DnsName(found) => Some(found.as_str()),
            _ => None,
        })
    }

    fn check_name(
        &self,
        what: &str,
        wanted: &str,
        take: impl Fn(&GeneralName) -> Option<&str>,
    ) -> Result<()> {
        let names = self.certificate.tbs_certificate().get_extension::<SubjectAltName>();
        let (_, SubjectAltName(names)) = names
            .map_err(|error| anyhow::anyhow!("the names in its certificate: {error}"))?
            .context("its certificate has no names")?;
        let found: Vec<&str> = names.iter().filter_map(take).collect();
        ensure!(
            found.contains(&wanted),
            "its certificate is for the {what} {:?}, not {wanted:?}",
            found.join(", ")
        );
        Ok(())
    }

    /// Whether the signer logged in there.
    pub(super) fn check_issuer(&self, wanted: &str) -> Result<()> {
        let mut found = Vec::new();
        for extension in self.certificate.tbs_certificate().extensions().into_iter().flatten() {
            let bytes = extension.extn_value.as_bytes();
            let text = match extension.extn_id {
                ISSUER_V1 => std::str::from_utf8(bytes).ok().map(str::to_owned),
                ISSUER_V2 => {
                    Utf8StringRef::from_der(bytes).ok().map(|text| text.as_str().to_owned())
                }
                _ => continue,
            };
            found.push(text.context("its certificate does not say where the signer logged in")?);
        }
        // Both extensions say it, or only one: all that is said has to be it.
        ensure!(
            !found.is_empty() && found.iter().all(|issuer| issuer == wanted),
            "its certificate is for who logged in at {:?}, not {wanted:?}",
            found.join(", ")
        );
        Ok(())
    }
}
