//! What only the machine can do, at its first boot; and trust: certificates, FIPS.

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::services;
use super::system::{Access, System};
use crate::config::system::Script;
use crate::error::unsupported;

/// Where scripts are, which are the machine's, not the image's.
const SCRIPTS: &str = "/etc/bootpress/firstboot";

/// What is still to be done. `ConditionFirstBoot=` would ask for a machine without an id, which images may have.
const PENDING: &str = "/var/lib/bootpress/pending";

/// Targets on the way to a network that is up.
const NETWORK: [&str; 3] = ["network-pre.target", "network.target", "network-online.target"];

/// One unit for each script, one after the other; what is done is done, also if the machine is switched off in between.
pub(super) fn scripts(system: &mut System<'_>, scripts: &[Script]) -> Result<()> {
    let mut before: Option<(String, bool)> = None;
    for script in scripts {
        let unit = script_unit(script, before.as_ref())?;
        system.make_directory_once(PENDING, Access::root(0o700))?;
        system.write(&unit.stamp, b"", Access::root(0o600))?;
        system.write(&unit.path, script.contents.as_bytes(), Access::root(0o700))?;
        let file = format!("/etc/systemd/system/{}", unit.name);
        system.write(&file, unit.text.as_bytes(), Access::root(0o644))?;
        services::enable_own(system, &unit.name)?;
        before = Some((unit.name, script.ignore_failure));
    }
    Ok(())
}

/// What makes a script run once.
pub(in crate::config) struct ScriptUnit {
    /// Name of the unit, which is wanted by multi-user.target.
    pub(in crate::config) name: String,
    pub(in crate::config) text: String,
    /// Where the script is to be.
    pub(in crate::config) path: String,
    /// The empty file that says that it has not run.
    pub(in crate::config) stamp: String,
}

/// The unit of a script; `before`: the one of the script before it, and whether that may fail.
pub(in crate::config) fn script_unit(
    script: &Script,
    before: Option<&(String, bool)>,
) -> Result<ScriptUnit> {
    let path = format!("{SCRIPTS}/{}", script.name);
    let stamp = format!("{PENDING}/{}", script.name);
    let mut order = match before {
        None => String::new(),
        // A script that fails stops those behind it, unless it may fail.
        Some((before, true)) => format!("After={before}\n"),
        Some((before, false)) => format!("After={before}\nRequires={before}\n"),
    };
    // Who wants to run before the network is up cannot wait for it.
    if !script.before.iter().any(|unit| NETWORK.contains(&unit.as_str())) {
        order += "Wants=network-online.target\nAfter=network-online.target\n";
    }
    for (key, units) in [("After", &script.after), ("Before", &script.before)] {
        if !units.is_empty() {
            order += &format!("{key}={}\n", units.join(" "));
        }
    }
    let dash = if script.ignore_failure { "-" } else { "" };
    let text = format!(
        "[Unit]\nDescription=First boot: {name}\nConditionPathExists={stamp}\nAfter=local-fs.target\n\
         {order}\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
         ExecStart={dash}{interpreter} {path}\nExecStartPost=rm -f {stamp}\nStandardOutput=journal+console\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        name = script.name,
        interpreter = interpreter(&script.contents)?,
    );
    Ok(ScriptUnit {
        name: format!("bootpress-firstboot-{}.service", script.name),
        text,
        path,
        stamp,
    })
}

/// Who runs a script: its own interpreter, named because files below `/etc` need not be executable for SELinux.
fn interpreter(script: &str) -> Result<String> {
    let Some(line) = script.lines().next().and_then(|line| line.strip_prefix("#!")) else {
        return Ok("/bin/sh".to_owned());
    };
    let line = line.trim();
    let fits = line.starts_with('/') && !line.contains(['%', '$', '"', '\'', '\\', ';']);
    if fits {
        Ok(line.to_owned())
    } else {
        Err(unsupported(format!("the interpreter `{line}` of a first-boot script"), None))
    }
}

/// A family of distributions' way to trust a certificate.
struct Store {
    /// Where certificates go, and how their names end.
    anchors: &'static str,
    extension: &'static str,
    /// What most programs read.
    bundle: &'static str,
    /// What makes the bundle and its relatives.
    tool: &'static str,
    arguments: &'static str,
}

const STORES: [Store; 2] = [
    Store {
        anchors: "/etc/pki/ca-trust/source/anchors",
        extension: "pem",
        bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        tool: "/usr/bin/update-ca-trust",
        arguments: "",
    },
    Store {
        anchors: "/etc/bootpress/ca-certificates",
        extension: "crt",
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        tool: "/usr/sbin/update-ca-certificates",
        arguments: " --localcertsdir /etc/bootpress/ca-certificates",
    },
];

/// Certificates where the image's tools look, in the bundle that is there, and a unit that makes everything else.
pub(super) fn certificates(system: &mut System<'_>, certificates: &[Vec<u8>]) -> Result<()> {
    const UNIT: &str = "bootpress-ca-certificates.service";
    if certificates.is_empty() {
        return Ok(());
    }
    let Some(store) = STORES.iter().find(|store| system.exists(store.tool)) else {
        return Err(unsupported(
            "customizations.cacerts: the image has neither update-ca-trust nor update-ca-certificates",
            Some("add the package ca-certificates in the image's Containerfile"),
        ));
    };
    let mut bundle = system.read(store.bundle)?;
    for der in certificates {
        let digest: String =
            Sha256::digest(der).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let pem = pem(der);
        let file = format!("{}/bootpress-{digest}.{}", store.anchors, store.extension);
        system.write(&file, pem.as_bytes(), Access::root(0o644))?;
        if let Some(bundle) = bundle.as_mut().filter(|bundle| !bundle.contains(&pem)) {
            bundle.push_str(&pem);
        }
    }
    if let Some(bundle) = bundle {
        system.rewrite(store.bundle, &bundle)?;
    }
    let stamp = format!("{PENDING}/ca-certificates");
    system.make_directory_once(PENDING, Access::root(0o700))?;
    system.write(&stamp, b"", Access::root(0o600))?;
    let text = format!(
        "[Unit]\nDescription=Trust the certificates that came with this disk\nConditionPathExists={stamp}\n\
         DefaultDependencies=no\nAfter=local-fs.target\nBefore=sysinit.target shutdown.target\nConflicts=shutdown.target\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={}{}\nExecStartPost=rm -f {stamp}\n\n\
         [Install]\nWantedBy=sysinit.target\n",
        store.tool, store.arguments
    );
    system.write(&format!("/etc/systemd/system/{UNIT}"), text.as_bytes(), Access::root(0o644))?;
    services::enable_own(system, UNIT)
}

/// A certificate as text (RFC 7468).
fn pem(der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..base64.len()).step_by(64).map(|at| &base64[at..base64.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Cryptography as FIPS 140 allows it: the policy's links, as `update-crypto-policies --set FIPS` leaves them.
pub(super) fn fips(system: &mut System<'_>) -> Result<()> {
    const POLICIES: &str = "/usr/share/crypto-policies/FIPS";
    let files = system.names(POLICIES);
    if files.is_empty() {
        return Err(unsupported(
            format!("customizations.fips: the image has no policy {POLICIES}"),
            Some("the package crypto-policies has it"),
        ));
    }
    for file in files {
        let Some(stem) = file.strip_suffix(".txt") else { continue };
        let link = format!("/etc/crypto-policies/back-ends/{stem}.config");
        system.make_link(&link, &format!("{POLICIES}/{file}"))?;
    }
    system.rewrite("/etc/crypto-policies/config", "FIPS\n")?;
    system.rewrite("/etc/crypto-policies/state/current", "FIPS\n")?;
    system.rewrite("/etc/system-fips", "# FIPS module installation complete\n")
}
