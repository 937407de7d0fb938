//! Signatures of files, made by the programs that hold the keys: gpg, sq, cosign.
//!
//! ```text
//! gpg:KEY, sq:FILE   DISK ─► DISK.asc              CHECKSUM ─► CHECKSUM, clear-signed
//! cosign:KEY         DISK ─► DISK.sigstore.json    CHECKSUM ─► CHECKSUM.sigstore.json
//! ```

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use bootpress::error::unsupported;

/// A signing configuration of sigstore that names no service: nothing is told to a transparency log.
const NO_SERVICES: &str = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}"#;

/// A program, and the key that it signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    /// GnuPG, with a key of its keyring.
    Gpg(String),
    /// Sequoia, with a key in a file.
    Sq(String),
    /// cosign, with a key in a file or in a key service.
    Cosign(String),
}

impl FromStr for Signer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => Err("expected gpg:KEY, sq:FILE or cosign:KEY".to_owned()),
            // Programs must not take it for a flag.
            Some((_, key)) if key.starts_with('-') => Err(format!("{key:?} is not a key")),
            Some(("gpg", key)) => Ok(Self::Gpg(key.to_owned())),
            Some(("sq", key)) => Ok(Self::Sq(key.to_owned())),
            Some(("cosign", key)) => Ok(Self::Cosign(key.to_owned())),
            Some((tool, _)) => {
                Err(format!("unknown tool {tool:?}: expected one of: gpg, sq, cosign"))
            }
        }
    }
}

impl Signer {
    /// Whether it makes OpenPGP signatures.
    pub(crate) fn is_openpgp(&self) -> bool {
        !matches!(self, Self::Cosign(_))
    }

    fn program(&self) -> &'static str {
        match self {
            Self::Gpg(_) => "gpg",
            Self::Sq(_) => "sq",
            Self::Cosign(_) => "cosign",
        }
    }

    /// Signs a short text, so that a wrong key or password is noticed before a long build.
    pub(crate) fn check(&self) -> Result<()> {
        let place = tempfile::tempdir().context("creating a directory to try a key in")?;
        let file = place.path().join("text");
        fs::write(&file, "bootpress tries a key\n").context("writing a text to sign")?;
        self.sign(&file)
            .with_context(|| format!("trying the key of --sign {}:…", self.program()))?;
        Ok(())
    }

    /// Signs a file; the signature is beside it, and replaces an older one.
    pub(crate) fn sign(&self, file: &Path) -> Result<PathBuf> {
        let end = if self.is_openpgp() { "asc" } else { "sigstore.json" };
        let signature = with_end(file, end);
        let unfinished = with_end(file, &format!("{end}.unfinished"));
        let context = || format!("signing {}", file.display());
        let mut command = Command::new(self.program());
        match self {
            Self::Gpg(key) => {
                gpg(&mut command, key);
                command.args(["--armor", "--detach-sign", "--output"]).arg(&unfinished).arg(file);
            }
            Self::Sq(key) if sq_is_old()? => {
                command.args(["sign", "--detached", "--signer-key", key, "--output"]);
                command.arg(&unfinished).arg(file);
            }
            Self::Sq(key) => {
                command.args(["sign", "--signer-file", key, "--signature-file"]);
                command.arg(&unfinished).arg(file);
            }
            Self::Cosign(key) => {
                return cosign(key, file, &unfinished, &signature).with_context(context);
            }
        }
        self.finish(command, &unfinished, &signature).with_context(context)?;
        Ok(signature)
    }

    /// Puts a clear-signed text in the place of a text.
    pub(crate) fn clear_sign(&self, file: &Path) -> Result<()> {
        let unfinished = with_end(file, "unfinished");
        let mut command = Command::new(self.program());
        match self {
            Self::Gpg(key) => {
                gpg(&mut command, key);
                command.args(["--clear-sign", "--output"]).arg(&unfinished).arg(file);
            }
            Self::Sq(key) if sq_is_old()? => {
                command.args(["sign", "--cleartext-signature", "--signer-key", key]);
                command.arg("--output").arg(&unfinished).arg(file);
            }
            Self::Sq(key) => {
                command.args(["sign", "--cleartext", "--signer-file", key, "--output"]);
                command.arg(&unfinished).arg(file);
            }
            Self::Cosign(_) => bail!("cosign does not clear-sign"),
        }
        self.finish(command, &unfinished, file)
            .with_context(|| format!("clear-signing {}", file.display()))
    }

    fn finish(&self, mut command: Command, unfinished: &Path, path: &Path) -> Result<()> {
        // Left by a process that was killed; not all programs write over it.
        let _ = fs::remove_file(unfinished);
        let result = run(&mut command).and_then(|()| {
            fs::rename(unfinished, path).with_context(|| format!("naming {}", path.display()))
        });
        if result.is_err() {
            // It may not be there at all.
            let _ = fs::remove_file(unfinished);
        }
        result
    }
}

fn gpg(command: &mut Command, key: &str) {
    command.args(["--batch", "--yes", "--no-tty", "--local-user", key]);
}

/// Whether sq is of a version before 1.0, whose flags are others.
fn sq_is_old() -> Result<bool> {
    let help = output(Command::new("sq").args(["sign", "--help"]))?;
    Ok(!help.contains("--signature-file"))
}

/// Whether cosign is of version 3 or later, which takes a configuration that names no service; before, there is a flag.
pub(crate) fn cosign_is_new() -> Result<bool> {
    let help = output(Command::new("cosign").args(["sign-blob", "--help"]))?;
    Ok(help.contains("--signing-config"))
}

/// Runs cosign, which must succeed.
pub(crate) fn run_cosign(command: &mut Command) -> Result<()> {
    // Without a password in the environment cosign would ask at the terminal.
    if std::env::var_os("COSIGN_PASSWORD").is_none() {
        command.env("COSIGN_PASSWORD", "");
    }
    run(command)
}

fn cosign(key: &str, file: &Path, unfinished: &Path, signature: &Path) -> Result<PathBuf> {
    let signer = Signer::Cosign(key.to_owned());
    let configuration =
        tempfile::NamedTempFile::new().context("creating a signing configuration")?;
    let mut command = Command::new("cosign");
    command.args(["sign-blob", "--yes", "--key", key, "--bundle"]).arg(unfinished);
    if cosign_is_new()? {
        fs::write(configuration.path(), NO_SERVICES).context("writing a signing configuration")?;
        command.arg("--signing-config").arg(configuration.path());
    } else {
        command.args(["--tlog-upload=false", "--new-bundle-format"]);
    }
    command.arg(file);
    // Without a password in the environment cosign would ask at the terminal.
    if std::env::var_os("COSIGN_PASSWORD").is_none() {
        command.env("COSIGN_PASSWORD", "");
    }
    signer.finish(command, unfinished, signature)?;
    Ok(signature.to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a program that must succeed; what it printed, both streams.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(unsupported(
                format!("{name} was not found"),
                Some(&format!("install {name}")),
            ));
        }
        Err(error) => return Err(error).with_context(|| format!("starting {name}")),
    };
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, err.trim());
    }
    Ok(out + &err)
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(OsStr::new("."));
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_are_a_tool_and_a_key() {
        assert_eq!("gpg:me@example.org".parse(), Ok(Signer::Gpg("me@example.org".to_owned())));
        assert_eq!("cosign:awskms://x/y".parse(), Ok(Signer::Cosign("awskms://x/y".to_owned())));
        for wrong in ["gpg", "gpg:", "pgp:x", "gpg:--yes", ""] {
            assert!(wrong.parse::<Signer>().is_err(), "{wrong}");
        }
        assert_eq!(with_end(Path::new("a/b.raw"), "asc"), Path::new("a/b.raw.asc"));
    }
}
