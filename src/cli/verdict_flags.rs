//! Flags that say what a boot must have come to.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use qemu::{Access, Expected, Level, Rules, Selinux};

#[derive(Debug, Args)]
pub(super) struct VerdictFlags {
    /// Accept a weaker proof: report, login or screen
    ///
    /// report, the default, is the guest's own. login is a login prompt, where no report comes. screen means that an operating system has
    /// drawn something that then stands still, and that no error shows.
    #[arg(long, value_name = "PROOF", value_parser = accept, help_heading = "Verdict")]
    accept: Option<Level>,

    /// Choose how the guest is told to report
    ///
    /// smbios is the default. fw-cfg is for kernels that do not show SMBIOS strings to systemd. none leaves the guest alone, for --accept
    /// login or screen.
    #[arg(long, value_name = "WAY", value_parser = access, help_heading = "Verdict", hide_short_help = true)]
    access: Option<Access>,

    /// Require the image with this digest to be running
    #[arg(long, value_name = "sha256:HEX", value_parser = digest, help_heading = "Verdict")]
    expect_digest: Option<String>,

    /// Require a kernel argument; repeat for several
    #[arg(
        long = "expect-karg",
        value_name = "ARG",
        allow_hyphen_values = true,
        help_heading = "Verdict"
    )]
    expect_kargs: Vec<String>,

    /// Require an SELinux mode: enforcing, permissive or disabled
    ///
    /// Without this flag it is the mode that the guest is configured for.
    #[arg(long, value_name = "MODE", value_parser = selinux, help_heading = "Verdict")]
    expect_selinux: Option<Selinux>,

    /// Let a check fail, such as systemd; repeat for several
    ///
    /// A failure of that check is then a note in the report.
    #[arg(long = "tolerate", value_name = "CHECK", help_heading = "Verdict")]
    tolerated: Vec<String>,

    /// Read rules for console lines from a TOML file
    ///
    /// They change the built-in rules of the same name, and add to them.
    #[arg(long, value_name = "FILE", help_heading = "Verdict", hide_short_help = true)]
    console_rules: Option<PathBuf>,
}

impl VerdictFlags {
    pub(super) fn accept(&self) -> Level {
        self.accept.unwrap_or(Level::Report)
    }

    pub(super) fn access(&self) -> Access {
        self.access.unwrap_or_default()
    }

    pub(super) fn expected(&self) -> Expected {
        Expected {
            image_digest: self.expect_digest.clone(),
            kernel_arguments: self.expect_kargs.clone(),
            selinux: self.expect_selinux,
            tolerated: self.tolerated.clone(),
        }
    }

    /// The rules of the file that was named; `None` for the built-in ones.
    pub(super) fn console_rules(&self) -> Result<Option<Rules>> {
        let Some(file) = &self.console_rules else { return Ok(None) };
        let text = fs::read_to_string(file)
            .with_context(|| format!("reading console rules from {}", file.display()))?;
        let rules = Rules::with(&text)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("reading console rules from {}", file.display()))?;
        Ok(Some(rules))
    }
}

/// What somebody may ask for; the others are what a boot can come to besides.
const ACCEPTED: [Level; 3] = [Level::Report, Level::Login, Level::Screen];

fn accept(name: &str) -> Result<Level, String> {
    Level::parse(name)
        .filter(|level| ACCEPTED.contains(level))
        .ok_or_else(|| format!("expected one of: {}", ACCEPTED.map(Level::name).join(", ")))
}

fn access(name: &str) -> Result<Access, String> {
    Access::parse(name)
        .ok_or_else(|| format!("expected one of: {}", Access::ALL.map(Access::name).join(", ")))
}

fn digest(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let sound = hex.len() == 64 && hex.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    if sound {
        Ok(text.to_owned())
    } else {
        Err("expected sha256: and 64 lower-case hex digits".to_owned())
    }
}

fn selinux(name: &str) -> Result<Selinux, String> {
    Selinux::parse(name)
        .ok_or_else(|| format!("expected one of: {}", Selinux::ALL.map(Selinux::name).join(", ")))
}
