//! What skopeo and cosign sign.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::{NAME, Workshop, accepted, exact, refused};
use crate::tool::{run, signer};
use bootpress::trust::Demand;

/// cosign with an empty password.
fn cosign(workshop: &Workshop) -> Option<Command> {
    let mut cosign = signer("cosign")?;
    cosign.env("COSIGN_PASSWORD", "").env("HOME", workshop.directory.path());
    cosign.current_dir(workshop.directory.path());
    Some(cosign)
}

#[test]
fn skopeo_signs_with_keys_of_cosign() {
    let workshop = Workshop::new();
    let (Some(mut generate), Some(mut skopeo)) = (cosign(&workshop), signer("skopeo")) else {
        return;
    };
    run(generate.args(["generate-key-pair"]));
    fs::write(workshop.at("pass"), "").unwrap();
    fs::write(workshop.at("anything.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
        .unwrap();
    let to = format!("dir:{}", workshop.at("copy").display());
    skopeo.arg("--policy").arg(workshop.at("anything.json")).args(["copy", "-q"]);
    skopeo.arg("--sign-by-sigstore-private-key").arg(workshop.at("cosign.key"));
    skopeo.arg("--sign-passphrase-file").arg(workshop.at("pass")).args(["--sign-identity", NAME]);
    run(skopeo.args([&workshop.layout(), &to]));
    let key = workshop.at("cosign.pub");
    accepted(&Demand::Keys { files: vec![key.clone()], name: None }, &to);
    let requirement =
        json!({ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": exact(NAME) });
    accepted(&workshop.policy(&requirement), &to);
    run(cosign(&workshop).unwrap().args(["generate-key-pair", "--output-key-prefix", "other"]));
    refused(
        &Demand::Keys { files: vec![workshop.at("other.pub")], name: None },
        &to,
        "it was not made with",
    );
}
