//! What skopeo and cosign sign.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::{NAME, Workshop, accepted, exact, refused};
use bootpress::trust::Demand;
use support::server::Server;
use support::tool::{run, signer, tool};

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

/// cosign attaches to a registry: tags as its versions 1 and 2 do, bundles among the referrers as version 3 does.
#[test]
fn cosign_signs_in_a_registry() {
    let workshop = Workshop::new();
    let (Some(registry), Some(mut generate), Some(mut skopeo)) =
        (Server::registry(None, false, None), cosign(&workshop), tool("skopeo"))
    else {
        return;
    };
    let anything = workshop.at("anything.json");
    fs::write(&anything, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    skopeo.arg("--policy").arg(&anything).args(["copy", "-q", "--dest-tls-verify=false", "--all"]);
    let mut again = Command::new(skopeo.get_program());
    again.args(skopeo.get_args());
    let (one, other) =
        (format!("{}/a/tiny", registry.address), format!("{}/b/tiny", registry.address));
    run(skopeo.arg(workshop.layout()).arg(format!("docker://{one}:43")));
    run(again.arg(workshop.layout()).arg(format!("docker://{other}:43")));
    run(generate.args(["generate-key-pair"]));
    run(cosign(&workshop).unwrap().args(["generate-key-pair", "--output-key-prefix", "other"]));
    let sign = |image: &str, key: &str, format: &str| {
        let mut sign = cosign(&workshop).unwrap();
        sign.args([
            "sign",
            "-y",
            "--key",
            key,
            "--use-signing-config=false",
            "--tlog-upload=false",
        ]);
        sign.args([&format!("--new-bundle-format={format}"), "--allow-http-registry"]);
        run(sign.arg(format!("{image}@{}", workshop.digest)));
    };
    let key = |name: &str| Demand::Keys { files: vec![workshop.at(name)], name: None };
    let policy = |kind: &str| {
        let identity = json!({ "type": kind });
        workshop.policy(&json!({ "type": "sigstoreSigned", "keyPath": workshop.at("cosign.pub"), "signedIdentity": identity }))
    };
    let image = format!("docker://{one}:43");
    refused(&key("cosign.pub"), &image, "the image has none");
    sign(&one, "cosign.key", "false");
    let verdict = accepted(&key("cosign.pub"), &image);
    assert_eq!(verdict.signatures[0].identity.as_deref(), Some(one.as_str()));
    refused(&key("other.pub"), &image, "it was not made with");
    // cosign signs repositories, not tags.
    accepted(&policy("matchRepository"), &image);
    refused(&policy("matchExact"), &image, "it is for");
    accepted(&policy("matchRepoDigestOrExact"), &format!("docker://{one}@{}", workshop.digest));
    // The same signature beside a copy by another name.
    let tag = format!("{}.sig", workshop.digest.replace(':', "-"));
    let mut copy = tool("skopeo").unwrap();
    copy.arg("--policy").arg(&anything).args([
        "copy",
        "-q",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ]);
    run(copy.arg(format!("docker://{one}:{tag}")).arg(format!("docker://{other}:{tag}")));
    let copied = format!("docker://{other}:43");
    refused(&key("cosign.pub"), &copied, "it is for");
    refused(&policy("matchRepository"), &copied, "it is for");
    accepted(
        &Demand::Keys { files: vec![workshop.at("cosign.pub")], name: Some(one.clone()) },
        &copied,
    );
    // A bundle names no image: enough for who brings the key, not for a policy.
    sign(&other, "other.key", "true");
    accepted(&key("other.pub"), &copied);
    refused(&key("other.pub"), &image, "it was not made with");
    let bundle = json!({ "type": "sigstoreSigned", "keyPath": workshop.at("other.pub"), "signedIdentity": { "type": "matchRepository" } });
    refused(&workshop.policy(&bundle), &copied, "it is for no name");
}
