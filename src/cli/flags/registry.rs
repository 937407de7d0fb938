//! Flags about registries and the cache, shared by all commands that read images.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bootpress::oci::{Access, Password, Places};
use clap::Args;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryFlags {
    /// Log in to the image's registry as this user [default: what `podman login` or `docker login` left, or nobody]
    #[arg(long, value_name = "USER:PASSWORD", value_parser = password)]
    creds: Option<Password>,

    /// The file to look for logins in, and no other [default: $REGISTRY_AUTH_FILE, else where podman and docker keep them]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Directory with *.crt of authorities to trust, and *.cert with *.key of ours [default: certs.d/HOST[:PORT] of containers]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,

    /// Whether registries must prove who they are; false allows plain HTTP, too [default: as registries.conf says, else true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,

    /// Neither use nor fill the cache of fetched blobs
    #[arg(long)]
    no_cache: bool,

    /// Use what is in the cache, and ask no registry
    #[arg(long, conflicts_with = "no_cache")]
    offline: bool,
}

impl RegistryFlags {
    /// The flags together with what this machine has.
    pub(crate) fn access(&self) -> Access {
        let places = Places::of_this_process();
        Access {
            // Known when it is known where the disk goes.
            spool: None,
            credentials: self.creds.clone(),
            auth_file: self.authfile.clone(),
            certificate_directory: self.cert_dir.clone(),
            verify_tls: self.tls_verify,
            cache: places.image_cache().filter(|_| !self.no_cache),
            offline: self.offline,
            helper: Some(Arc::new(ask)),
            places: Some(places),
        }
    }
}

fn password(text: &str) -> Result<Password, String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => {
            Ok(Password { user: user.to_owned(), password: password.to_owned() })
        }
        // Not asked for at a prompt: builds run where nobody sits.
        _ => Err("USER:PASSWORD is wanted; `podman login` keeps it out of the list of processes"
            .to_owned()),
    }
}

/// Runs `docker-credential-NAME get`, which reads a server's name and prints JSON.
fn ask(helper: &str, server: &str) -> Result<Option<String>> {
    let name = format!("docker-credential-{helper}");
    if helper.contains('/') {
        bail!("{helper:?} is no name of a helper");
    }
    let mut process = Command::new(&name)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    if let Some(mut input) = process.stdin.take() {
        // One that does not read fails for another reason, which it says.
        let _ = input.write_all(server.as_bytes());
    }
    let output = process.wait_with_output().with_context(|| format!("waiting for {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(Some(printed)),
        // The protocol's words, on standard output, for a server without credentials.
        false if printed.contains("credentials not found") => Ok(None),
        false => bail!("{name}: {}, {}", output.status, printed.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_may_have_colons() {
        let read = password("me:a:b").unwrap();
        assert_eq!((read.user.as_str(), read.password.as_str()), ("me", "a:b"));
        assert!(password("me").is_err() && password(":x").is_err());
    }
}
