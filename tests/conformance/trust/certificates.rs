//! Keyless signatures, offline: openssl is Fulcio and Rekor.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{COSIGN, NAME, Workshop, accepted, exact, refused, stored};

const ISSUER: &str = "https://accounts.example.com";
const EMAIL: &str = "one@example.com";

/// A root, an intermediate authority, a signer and a log.
struct Authority {
    workshop: Workshop,
    claim: Vec<u8>,
}

/// What goes into a signature.
#[derive(Clone)]
struct Parts {
    certificate: String,
    chain: String,
    time: u64,
    log_key: &'static str,
    logged_claim: Vec<u8>,
    logged_certificate: String,
}

impl Authority {
    fn new() -> Option<Self> {
        let workshop = Workshop::new();
        let claim = workshop.claim(COSIGN, NAME);
        for (name, curve) in [
            ("root", "P-384"),
            ("other", "P-384"),
            ("between", "P-384"),
            ("signer", "P-256"),
            ("rekor", "P-256"),
            ("rekor2", "P-256"),
        ] {
            let curve = format!("ec_paramgen_curve:{curve}");
            let key = format!("{name}.key");
            workshop.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &curve, "-out", &key])?;
            workshop.openssl(&["pkey", "-in", &key, "-pubout", "-out", &format!("{name}.pub")])?;
        }
        let authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
        fs::write(workshop.at("authority.ext"), authority).unwrap();
        for name in ["root", "other"] {
            let (key, subject, pem) =
                (format!("{name}.key"), format!("/CN={name}"), format!("{name}.pem"));
            workshop
                .openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", "request"])?;
            workshop.openssl(&[
                "x509",
                "-req",
                "-in",
                "request",
                "-signkey",
                &key,
                "-days",
                "3650",
                "-extfile",
                "authority.ext",
                "-out",
                &pem,
            ])?;
        }
        let made = Self { workshop, claim };
        made.certify("between", "root", "authority.ext", "between.pem");
        Some(made)
    }

    /// Signs the certificate of one key with another.
    fn certify(&self, name: &str, by: &str, extensions: &str, to: &str) {
        let (key, by_key, by_pem) =
            (format!("{name}.key"), format!("{by}.key"), format!("{by}.pem"));
        let subject = format!("/CN={name}");
        let openssl = |arguments: &[&str]| self.workshop.openssl(arguments).unwrap();
        openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", "request"]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            "request",
            "-CA",
            &by_pem,
            "-CAkey",
            &by_key,
            "-CAcreateserial",
            "-days",
            "1",
            "-extfile",
            extensions,
            "-out",
            to,
        ]);
    }

    /// A signer's certificate with these extensions more than the usual ones.
    fn signer(&self, extensions: &str) -> String {
        let text = format!("keyUsage=critical,digitalSignature\n{extensions}");
        fs::write(self.workshop.at("signer.ext"), text).unwrap();
        self.certify("signer", "between", "signer.ext", "signer.pem");
        self.read("signer.pem")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.workshop.at(name)).unwrap()
    }

    fn usual(&self) -> Parts {
        let certificate = self.signer(&format!(
            "extendedKeyUsage=codeSigning\nsubjectAltName=critical,email:{EMAIL}\n1.3.6.1.4.1.57264.1.1=DER:{}\n1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:{ISSUER}\n",
            hex(ISSUER.as_bytes())
        ));
        Parts {
            chain: self.read("between.pem"),
            time: now() + 60,
            log_key: "rekor.key",
            logged_claim: self.claim.clone(),
            logged_certificate: certificate.clone(),
            certificate,
        }
    }

    fn sign(&self, parts: &Parts) {
        let signature = self.workshop.signed("signer.key", &self.claim);
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": hex(&Sha256::digest(&parts.logged_claim)) } },
                "signature": {
                    "content": STANDARD.encode(&signature),
                    "publicKey": { "content": STANDARD.encode(&parts.logged_certificate) },
                },
            },
        });
        let body = STANDARD.encode(body.to_string());
        let payload =
            json!({ "body": body, "integratedTime": parts.time, "logID": "00ff", "logIndex": 7 });
        // Its names are in the order of RFC 8785 already.
        let promise = self.workshop.signed(parts.log_key, payload.to_string().as_bytes());
        let promise =
            json!({ "SignedEntryTimestamp": STANDARD.encode(promise), "Payload": payload });
        let annotations = json!({
            "dev.cosignproject.cosign/signature": STANDARD.encode(&signature),
            "dev.sigstore.cosign/certificate": parts.certificate,
            "dev.sigstore.cosign/chain": parts.chain,
            "dev.sigstore.cosign/bundle": promise.to_string(),
        });
        self.workshop.sign(&stored(&self.claim, &annotations));
    }

    fn at(&self, name: &str) -> PathBuf {
        self.workshop.at(name)
    }

    fn requirement(&self, change: impl Fn(&mut Value)) -> Value {
        let mut requirement = json!({
            "type": "sigstoreSigned",
            "fulcio": { "caPath": self.at("root.pem"), "oidcIssuer": ISSUER, "subjectEmail": EMAIL },
            "rekorPublicKeyPath": self.at("rekor.pub"),
            "signedIdentity": exact(NAME),
        });
        change(&mut requirement);
        requirement
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn fulcio_and_rekor_offline() {
    let Some(authority) = Authority::new() else { return };
    let image = authority.workshop.image();
    let policy =
        |change: &dyn Fn(&mut Value)| authority.workshop.policy(&authority.requirement(change));
    let usual = authority.usual();
    authority.sign(&usual);
    let verdict = accepted(&policy(&|_| {}), &image);
    assert!(verdict.to_string().contains(&format!("{EMAIL}, logged in at {ISSUER}")), "{verdict}");
    let refused_by =
        |change: &dyn Fn(&mut Value), reason: &str| refused(&policy(change), &image, reason);
    refused_by(&|r| r["fulcio"]["subjectEmail"] = json!("two@example.com"), "mail address");
    refused_by(&|r| r["fulcio"]["oidcIssuer"] = json!("https://example.com"), "logged in at");
    refused_by(&|r| r["fulcio"]["caPath"] = json!(authority.at("other.pem")), "does not vouch");
    refused_by(
        &|r| r["rekorPublicKeyPath"] = json!(authority.at("rekor2.pub")),
        "none of the keys of Rekor",
    );
    refused_by(&|r| r["signedIdentity"] = exact("quay.io/example/other:1"), "it is for");
    let refused_with = |parts: Parts, reason: &str| {
        authority.sign(&parts);
        refused(&policy(&|_| {}), &image, reason);
    };
    refused_with(Parts { chain: String::new(), ..usual.clone() }, "does not vouch");
    refused_with(Parts { time: now() + 3 * 86_400, ..usual.clone() }, "does not vouch");
    refused_with(Parts { time: now() - 86_400, ..usual.clone() }, "does not vouch");
    refused_with(Parts { log_key: "rekor2.key", ..usual.clone() }, "none of the keys of Rekor");
    refused_with(Parts { logged_claim: b"another".to_vec(), ..usual.clone() }, "something else");
    refused_with(
        Parts { logged_certificate: authority.read("between.pem"), ..usual.clone() },
        "about another key",
    );
    // Certificates for something else, or of somebody else.
    let issuer = format!("1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:{ISSUER}\n");
    for (extensions, reason) in [
        (
            format!("extendedKeyUsage=serverAuth\nsubjectAltName=email:{EMAIL}\n{issuer}"),
            "does not vouch",
        ),
        (
            format!("extendedKeyUsage=codeSigning\nsubjectAltName=DNS:{EMAIL}\n{issuer}"),
            "mail address",
        ),
        (format!("extendedKeyUsage=codeSigning\nsubjectAltName=email:{EMAIL}\n"), "logged in at"),
    ] {
        let certificate = authority.signer(&extensions);
        let logged_certificate = certificate.clone();
        refused_with(
            Parts { certificate, logged_certificate, time: now() + 60, ..usual.clone() },
            reason,
        );
    }
    // The new extension alone will do.
    let certificate = authority
        .signer(&format!("extendedKeyUsage=codeSigning\nsubjectAltName=email:{EMAIL}\n{issuer}"));
    authority.sign(&Parts {
        logged_certificate: certificate.clone(),
        certificate,
        time: now() + 60,
        ..usual.clone()
    });
    accepted(&policy(&|_| {}), &image);
}

#[test]
fn a_key_whose_signatures_a_log_knows() {
    let Some(authority) = Authority::new() else { return };
    let image = authority.workshop.image();
    let usual = authority.usual();
    let policy = |log: Option<&str>| {
        let mut requirement = json!({ "type": "sigstoreSigned", "keyPath": authority.at("signer.pub"), "signedIdentity": exact(NAME) });
        if let Some(log) = log {
            requirement["rekorPublicKeyPath"] = json!(authority.at(log));
        }
        authority.workshop.policy(&requirement)
    };
    authority.sign(&Parts { logged_certificate: authority.read("signer.pub"), ..usual.clone() });
    accepted(&policy(None), &image);
    accepted(&policy(Some("rekor.pub")), &image);
    refused(&policy(Some("rekor2.pub")), &image, "none of the keys of Rekor");
    authority.sign(&Parts { logged_certificate: authority.read("rekor.pub"), ..usual });
    accepted(&policy(None), &image);
    refused(&policy(Some("rekor.pub")), &image, "about another key");
    let signature = authority.workshop.signed("signer.key", &authority.claim);
    let annotations = json!({ "dev.cosignproject.cosign/signature": STANDARD.encode(signature) });
    authority.workshop.sign(&stored(&authority.claim, &annotations));
    refused(&policy(Some("rekor.pub")), &image, "no log promises to know it");
}

#[test]
fn an_ordinary_authority() {
    let Some(authority) = Authority::new() else { return };
    let image = authority.workshop.image();
    let usual = authority.usual();
    authority.sign(&usual);
    let policy = |roots: &str, email: &str, between: Option<&str>| {
        let mut pki = json!({ "caRootsPath": authority.at(roots), "subjectEmail": email });
        if let Some(between) = between {
            pki["caIntermediatesPath"] = json!(authority.at(between));
        }
        authority
            .workshop
            .policy(&json!({ "type": "sigstoreSigned", "pki": pki, "signedIdentity": exact(NAME) }))
    };
    accepted(&policy("root.pem", EMAIL, None), &image);
    refused(&policy("other.pem", EMAIL, None), &image, "does not vouch");
    refused(&policy("root.pem", "two@example.com", None), &image, "mail address");
    authority.sign(&Parts { chain: String::new(), ..usual });
    refused(&policy("root.pem", EMAIL, None), &image, "does not vouch");
    accepted(&policy("root.pem", EMAIL, Some("between.pem")), &image);
}
