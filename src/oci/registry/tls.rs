//! TLS with certificates of one's own: authorities beside the system's, and servers that show one of them as theirs.
//!
//! The certificate that `openssl req -x509` makes is its own authority, and private registries often have just that. TLS' rules
//! do not let an authority's certificate be a server's, but whoever puts it into `certs.d` has said whom it stands for: every other
//! tool that reads `certs.d` takes it.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::certs::Certificates;

/// The name of the error that a certificate is an authority's; it has no type of its own in rustls.
const IS_AUTHORITY: &str = "CaUsedAsEndEntity";

/// The configuration of a client that trusts and shows these certificates.
pub(super) fn configuration(certificates: &Certificates) -> Result<ClientConfig> {
    let mut known = Vec::new();
    for (path, text) in &certificates.authorities {
        for certificate in CertificateDer::pem_slice_iter(text) {
            let context = || format!("reading certificates in {}", path.display());
            known.push(certificate.with_context(context)?);
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    // A machine without any authorities can still speak to registries that need none.
    let usual =
        Verifier::new_with_extra_roots(known.clone(), Arc::clone(&provider)).map_err(|error| {
            format!("there are no certificates of authorities to compare with: {error}")
        });
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Known { usual, known, schemes }));
    let Some((path, text)) = &certificates.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let context = || format!("reading {} and its key", path.display());
    let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(text).with_context(context)?;
    builder.with_client_auth_cert(chain.with_context(context)?, key).with_context(context)
}

/// The usual rules, and one exception to one of them.
#[derive(Debug)]
struct Known {
    usual: Result<Verifier, String>,
    known: Vec<CertificateDer<'static>>,
    schemes: Vec<SignatureScheme>,
}

impl Known {
    fn usual(&self) -> Result<&Verifier, Error> {
        self.usual.as_ref().map_err(|reason| Error::General(reason.clone()))
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual()?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            // Its dates are looked at before this is.
            Err(Error::InvalidCertificate(reason))
                if format!("{reason:?}").contains(IS_AUTHORITY)
                    && self.known.iter().any(|known| known.as_ref() == end_entity.as_ref()) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
