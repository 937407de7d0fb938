//! Decisions about signatures that the tests make themselves; those of real tools are in `tests/conformance/trust.rs`.

use std::cell::Cell;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::signature::Sigstore;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NAME: &str = "quay.io/a/b:1";

/// A key that signs.
struct Pair(EcdsaKeyPair);

impl Pair {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn pem(&self) -> String {
        // SubjectPublicKeyInfo of a P-256 key up to the point.
        let head = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let der = [&head[..], self.0.public_key().as_ref()].concat();
        let lines: Vec<String> = STANDARD
            .encode(der)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn sign(&self, bytes: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&SystemRandom::new(), bytes).unwrap())
    }

    fn claim(&self, digest: &str, name: &str) -> Claim {
        let payload = json!({
            "critical": {
                "type": "cosign container image signature",
                "image": { "docker-manifest-digest": digest },
                "identity": { "docker-reference": name },
            },
            "optional": null,
        });
        let payload = payload.to_string().into_bytes();
        let signature = self.sign(&payload);
        found(Signature::Sigstore(Sigstore { payload, signature, ..Sigstore::default() }))
    }

    fn bundle(&self, digest: &str, predicate: &str) -> Claim {
        let kind = "application/vnd.in-toto+json";
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": predicate,
            "subject": [{ "digest": { "sha256": digest.trim_start_matches("sha256:") } }],
        });
        let payload = statement.to_string();
        let signed = format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len());
        let envelope = json!({
            "payloadType": kind,
            "payload": STANDARD.encode(&payload),
            "signatures": [{ "sig": self.sign(signed.as_bytes()) }],
        });
        let bundle = json!({ "mediaType": "x", "dsseEnvelope": envelope });
        found(Signature::Bundle(bundle.to_string().into_bytes()))
    }
}

fn found(signature: Signature) -> Claim {
    Claim { about: DIGEST.to_owned(), place: "here".to_owned(), signature }
}

fn subject() -> Subject {
    Subject {
        transport: "docker",
        scopes: vec![NAME.to_owned(), "quay.io/a/b".to_owned(), "quay.io/a".to_owned()],
        reference: Some(NAME.to_owned()),
        called: None,
        digests: vec![DIGEST.to_owned(), DIGEST.replace("0123", "ffff")],
    }
}

/// A policy in a file, and keys beside it.
struct Files(tempfile::TempDir);

impl Files {
    fn new(keys: &[(&str, &Pair)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, key) in keys {
            std::fs::write(directory.path().join(name), key.pem()).unwrap();
        }
        Self(directory)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn policy(&self, requirements: &serde_json::Value) -> Demand {
        let file = self.at("policy.json");
        let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { "quay.io/a": requirements } } });
        std::fs::write(&file, policy.to_string()).unwrap();
        Demand::Policy(file)
    }
}

fn outcome(demand: &Demand, claims: &[Claim]) -> Result<Verdict, String> {
    check(demand, &subject(), &|_| Ok(claims.to_vec())).map_err(|error| format!("{error:#}"))
}

#[test]
fn all_requirements_have_to_be_met() {
    let (one, two) = (Pair::new(), Pair::new());
    let files = Files::new(&[("one", &one), ("two", &two)]);
    let by = |name: &str| json!({ "type": "sigstoreSigned", "keyPath": files.at(name) });
    let both = files.policy(&json!([by("one"), by("two"), { "type": "insecureAcceptAnything" }]));
    let (first, second) = (one.claim(DIGEST, NAME), two.claim(DIGEST, NAME));
    let verdict = outcome(&both, &[second.clone(), first.clone()]).unwrap();
    assert!(verdict.verified && verdict.signatures.len() == 2, "{verdict}");
    assert_eq!(verdict.scope.as_deref(), Some("docker:quay.io/a"));
    let said = outcome(&both, std::slice::from_ref(&first)).unwrap_err();
    assert!(
        said.contains("none is good: here: it was not made with") && said.contains("two"),
        "{said}"
    );
    let never = files.policy(&json!([by("one"), { "type": "reject" }]));
    assert!(outcome(&never, std::slice::from_ref(&first)).unwrap_err().contains("rejects all"));
    let anything = files.policy(&json!([{ "type": "insecureAcceptAnything" }]));
    let asked = Cell::new(false);
    let verdict = check(&anything, &subject(), &|_| {
        asked.set(true);
        Ok(Vec::new())
    });
    assert!(!verdict.unwrap().verified && !asked.get());
    // Without its key a policy says nothing.
    let both = files.policy(&json!([by("one"), by("two")]));
    std::fs::remove_file(files.at("two")).unwrap();
    assert!(outcome(&both, &[first, second]).unwrap_err().contains("reading"));
    assert!(!outcome(&Demand::Nothing, &[]).unwrap().verified);
}

#[test]
fn a_signature_has_to_be_of_this_image_by_this_name() {
    let (one, two) = (Pair::new(), Pair::new());
    let files = Files::new(&[("one", &one)]);
    let policy = files.policy(&json!([{ "type": "sigstoreSigned", "keyPath": files.at("one") }]));
    let good = one.claim(DIGEST, NAME);
    outcome(&policy, std::slice::from_ref(&good)).unwrap();
    // Of the index that led to the manifest.
    outcome(&policy, &[one.claim(&subject().digests[1], NAME)]).unwrap();
    let zeros = DIGEST.replace("0123", "0000");
    for (claim, reason) in [
        (two.claim(DIGEST, NAME), "it was not made with"),
        (one.claim(&zeros, NAME), "not for this image"),
        (one.claim(DIGEST, "quay.io/a/b:2"), "it is for quay.io/a/b:2"),
        (one.claim(DIGEST, "quay.io/a/c:1"), "it is for"),
        (one.claim(DIGEST, "not a name"), "is not a name"),
        (found(Signature::Simple(b"x".to_vec())), "it is a simple signature"),
        (found(Signature::Unknown("odd".to_owned())), "unknown form, odd"),
        (one.bundle(DIGEST, "https://sigstore.dev/cosign/sign/v1"), "it is for no name"),
    ] {
        let said = outcome(&policy, &[claim]).unwrap_err();
        assert!(said.contains(reason) && said.contains("policy.json, docker:quay.io/a"), "{said}");
    }
    assert!(outcome(&policy, &[]).unwrap_err().contains("the image has none"));
    // One bad signature does not spoil a good one.
    outcome(&policy, &[two.claim(DIGEST, NAME), good]).unwrap();
}

#[test]
fn bundles_count_for_who_brings_a_key() {
    let (one, two) = (Pair::new(), Pair::new());
    let files = Files::new(&[("one", &one), ("two", &two)]);
    let key = |name: &str, identity: Option<&str>| Demand::Keys {
        files: vec![files.at(name)],
        name: identity.map(str::to_owned),
    };
    let predicate = "https://sigstore.dev/cosign/sign/v1";
    let good = [one.bundle(DIGEST, predicate)];
    assert!(outcome(&key("one", None), &good).unwrap().verified);
    assert!(outcome(&key("two", None), &good).is_err());
    assert!(outcome(&key("one", Some("quay.io/a/b")), &good).unwrap_err().contains("no name"));
    let provenance = [one.bundle(DIGEST, "https://slsa.dev/provenance/v1")];
    assert!(outcome(&key("one", None), &provenance).unwrap_err().contains("not an approval"));
    let other = [one.bundle(&DIGEST.replace("0123", "0000"), predicate)];
    assert!(outcome(&key("one", None), &other).unwrap_err().contains("not for this image"));
    // Any tag of the repository will do for a key, no other repository.
    assert!(outcome(&key("one", None), &[one.claim(DIGEST, "quay.io/a/b")]).unwrap().verified);
    assert!(outcome(&key("one", None), &[one.claim(DIGEST, "quay.io/a/c")]).is_err());
    assert!(
        outcome(&key("one", Some("quay.io/a/c:9")), &[one.claim(DIGEST, "quay.io/a/c")]).is_ok()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_damage_panics_or_passes(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(), which in 0..3,
    ) {
        let one = Pair::new();
        let files = Files::new(&[("one", &one)]);
        let demand = Demand::Keys { files: vec![files.at("one")], name: None };
        let damage = |bytes: &mut Vec<u8>| {
            let place = at.index(bytes.len());
            if cut { bytes.truncate(place) } else { bytes[place] ^= byte | 1 }
        };
        let mut claim = one.claim(DIGEST, NAME);
        if which == 2 {
            claim = one.bundle(DIGEST, "https://sigstore.dev/cosign/sign/v1");
        }
        match &mut claim.signature {
            Signature::Sigstore(parts) if which == 0 => damage(&mut parts.payload),
            Signature::Sigstore(parts) => {
                let mut bytes = STANDARD.decode(&parts.signature).unwrap();
                damage(&mut bytes);
                parts.signature = STANDARD.encode(bytes);
            }
            Signature::Bundle(bundle) => damage(bundle),
            _ => unreachable!(),
        }
        let passed = outcome(&demand, std::slice::from_ref(&claim)).is_ok();
        // Outside of the envelope of a bundle a byte may change without changing what is signed.
        prop_assert!(!passed || which == 2);
        let simple = match claim.signature {
            Signature::Sigstore(parts) => parts.payload,
            Signature::Bundle(bundle) => bundle,
            _ => unreachable!(),
        };
        let ring = Ring::parse(&Material { name: "ring".to_owned(), bytes: simple.clone() });
        prop_assert!(ring.is_err());
        prop_assert!(openpgp::verify(&simple, &[], 0).is_err());
    }
}
