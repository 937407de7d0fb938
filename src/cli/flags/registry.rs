//! Flags about registries and the cache, shared by all commands that read images.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bootpress::disk::parse_size;
use bootpress::limits::{Budget, Limits};
use bootpress::oci::{Access, Password, Places};
use clap::Args;
use clap::builder::TypedValueParser;

/// Bytes of a login that are read, at most; tokens have some thousand.
const LONGEST_LOGIN: u64 = 64 << 10;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct RegistryFlags {
    /// Log in to the image's registry as this user
    ///
    /// Without this flag, logins that `podman login` or `docker login` left are used. Everybody on this machine can read the password in the
    /// list of processes; --creds-file keeps it out of there.
    #[arg(long, value_name = "USER:PASSWORD", value_parser = Credentials)]
    creds: Option<Password>,

    /// Log in with USER:PASSWORD from the first line of a file
    ///
    /// `-` reads the line from standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "creds")]
    creds_file: Option<PathBuf>,

    /// Look for logins in this file only
    ///
    /// Without this flag it is $REGISTRY_AUTH_FILE, else the files of podman and docker.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Use the certificates in a directory
    ///
    /// *.crt are authorities, *.cert with *.key are client certificates. Without this flag it is certs.d/HOST[:PORT] of containers and docker.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    cert_dir: Option<PathBuf>,

    /// Require registries to prove who they are
    ///
    /// `false` allows plain HTTP too. Without this flag, registries.conf decides, else verification is on.
    #[arg(long, value_name = "BOOL", hide_short_help = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,

    /// Neither use nor fill the cache
    ///
    /// It holds fetched images and unpacked layers.
    #[arg(long, hide_short_help = true)]
    no_cache: bool,

    /// Use only what is in the cache, and ask no registry
    #[arg(long, conflicts_with = "no_cache")]
    offline: bool,

    #[command(flatten)]
    limits: LimitFlags,
}

/// Limits on what strangers make this machine do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// Limit the bytes of the image's files, such as 500G
    ///
    /// Holes count, and what layers decompress to is limited too. The limit is for all images of a build together.
    #[arg(long, hide_short_help = true, value_name = "SIZE", value_parser = parse_size, default_value = "128G")]
    max_image_size: u64,

    /// Limit the memory for names and attributes of files
    #[arg(long, hide_short_help = true, value_name = "SIZE", value_parser = parse_size, default_value = "512M")]
    max_metadata: u64,

    /// Limit the entries in all layers together
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = Limits::USUAL.files)]
    max_files: u64,

    /// Limit the layers of an image
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = Limits::USUAL.layers)]
    max_layers: u64,

    /// Limit the time for a registry to send 120 KiB
    #[arg(long, hide_short_help = true, value_name = "SECONDS", default_value_t = Limits::USUAL.patience.as_secs(),
        value_parser = clap::value_parser!(u64).range(1..))]
    max_wait: u64,
}

impl Default for LimitFlags {
    fn default() -> Self {
        let usual = Limits::USUAL;
        Self {
            max_image_size: usual.image_size,
            max_metadata: usual.metadata,
            max_files: usual.files,
            max_layers: usual.layers,
            max_wait: usual.patience.as_secs(),
        }
    }
}

impl LimitFlags {
    fn limits(&self) -> Limits {
        Limits {
            image_size: self.max_image_size,
            metadata: self.max_metadata,
            files: self.max_files,
            layers: self.max_layers,
            patience: Duration::from_secs(self.max_wait),
        }
    }
}

impl RegistryFlags {
    /// The flags together with what this machine has.
    pub(crate) fn access(&self) -> Result<Access> {
        let places = Places::of_this_process();
        let credentials = match &self.creds_file {
            Some(file) => Some(password_in(file)?),
            None => self.creds.clone(),
        };
        Ok(Access {
            // Known when it is known where the disk goes.
            spool: None,
            credentials,
            budget: Budget::new(self.limits.limits()),
            auth_file: self.authfile.clone(),
            certificate_directory: self.cert_dir.clone(),
            verify_tls: self.tls_verify,
            unpacked: places.image_cache().filter(|_| !self.no_cache),
            cache: places.image_cache().filter(|_| !self.no_cache),
            offline: self.offline,
            helper: Some(Arc::new(ask)),
            places: Some(places),
        })
    }
}

/// Reads `USER:PASSWORD`. Not asked for at a prompt: builds run where nobody sits.
fn password(text: &str) -> Option<Password> {
    let (user, password) = text.split_once(':').filter(|(user, _)| !user.is_empty())?;
    Some(Password { user: user.to_owned(), password: password.to_owned() })
}

/// Reads the first line of a file, or of standard input for `-`.
fn password_in(file: &Path) -> Result<Password> {
    let context = || format!("reading --creds-file {}", file.display());
    let mut line = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(LONGEST_LOGIN).read_to_end(&mut line);
    let done = if file.as_os_str() == "-" {
        read(&mut std::io::stdin().lock())
    } else {
        File::open(file).and_then(|mut opened| read(&mut opened))
    };
    done.with_context(context)?;
    let text = std::str::from_utf8(&line).ok();
    let login = text.and_then(|text| password(text.lines().next().unwrap_or_default()));
    // The text itself is not told: it is a secret.
    login.context("the first line is not USER:PASSWORD").with_context(context)
}

/// Reads the value of `--creds`. Unlike clap's own parsers it does not repeat a wrong value: it is a secret.
#[derive(Clone, Copy, Debug)]
struct Credentials;

impl TypedValueParser for Credentials {
    type Value = Password;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Password, clap::Error> {
        value.to_str().and_then(password).ok_or_else(|| {
            let what = "invalid value for --creds: expected USER:PASSWORD\n";
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, what).with_cmd(command)
        })
    }
}

/// Runs `docker-credential-NAME get`, which reads a server's name and prints JSON.
fn ask(helper: &str, server: &str) -> Result<Option<String>> {
    let name = format!("docker-credential-{helper}");
    if helper.contains('/') {
        bail!("{helper:?} is not a name of a helper");
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
    if output.status.success() {
        return Ok(Some(printed));
    }
    // The protocol's words, on standard output, for a server without credentials.
    if printed.contains("credentials not found") {
        return Ok(None);
    }
    bail!("{name}: {}, {}", output.status, printed.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_may_have_colons() {
        let read = password("me:a:b").unwrap();
        assert_eq!((read.user.as_str(), read.password.as_str()), ("me", "a:b"));
        assert!(password("me").is_none() && password(":x").is_none());
    }

    #[test]
    fn creds_file_first_line_is_the_login() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("login");
        std::fs::write(&file, "me:se cret\r\nmore\n").unwrap();
        let read = password_in(&file).unwrap();
        assert_eq!((read.user.as_str(), read.password.as_str()), ("me", "se cret"));
        std::fs::write(&file, "hunter2\n").unwrap();
        let error = format!("{:#}", password_in(&file).unwrap_err());
        assert!(error.contains("USER:PASSWORD") && !error.contains("hunter2"), "{error}");
    }
}
