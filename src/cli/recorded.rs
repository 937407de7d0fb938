//! Which flags of `build` a provenance records: those that count for the bytes of a disk.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory};
use sha2::{Digest, Sha256};

use super::flags::{BuildFlags, Flags};

/// Flags that name files: their digests are recorded.
const FILES: [&str; 2] = ["config", "root-ssh-authorized-keys"];

/// Flags about where things are, what is shown, and who may be trusted: no byte of a disk depends on them.
const IDLE: [&str; 27] = [
    "authfile",
    "cert-dir",
    "creds",
    "creds-file",
    "dry-run",
    "events",
    "help",
    "insecure-policy",
    "json",
    "max-files",
    "max-image-size",
    "max-layers",
    "max-metadata",
    "max-wait",
    "no-cache",
    "offline",
    "output",
    "progress",
    "provenance",
    "provenance-key",
    "sbom",
    "signature-policy",
    "tls-verify",
    "verify-identity",
    "verify-key",
    "version",
    "work-directory",
];

/// Whether a provenance may record a flag, by its long name.
pub(super) fn counts(long: &str) -> bool {
    !IDLE.contains(&long) && !FILES.contains(&long)
}

/// The flags of this process' `build` that count, as they are typed, in the order of `--help`.
pub(super) fn arguments(typed: impl IntoIterator<Item = OsString>) -> Result<Vec<String>> {
    let command = Flags::command();
    let matches =
        command.clone().try_get_matches_from(typed).context("reading the command line again")?;
    let Some(("build", matches)) = matches.subcommand() else { return Ok(Vec::new()) };
    let build = command.find_subcommand("build").context("there is a command build")?;
    let mut recorded = Vec::new();
    for argument in build.get_arguments() {
        let id = argument.get_id().as_str();
        let Some(long) = argument.get_long().filter(|long| counts(long)) else { continue };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            recorded.push(format!("--{long}"));
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let Some(value) = value.to_str() else {
                bail!("--{long} is not UTF-8, so that no provenance can record it")
            };
            recorded.push(format!("--{long}={value}"));
        }
    }
    Ok(recorded)
}

/// The files that flags name, and their SHA-256.
pub(super) fn inputs(flags: &BuildFlags) -> Result<Vec<(String, String)>> {
    let named: [(&str, Option<&PathBuf>); 2] = [
        ("--config", flags.config.config.as_ref()),
        ("--root-ssh-authorized-keys", flags.root_ssh_authorized_keys.as_ref()),
    ];
    let mut inputs = Vec::new();
    for (flag, file) in named {
        let Some(file) = file else { continue };
        if file.as_os_str() == "-" {
            bail!("a provenance cannot record {flag} from standard input: name a file");
        }
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        inputs.push((flag.to_owned(), sha256));
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_count_are_recorded_in_one_order() {
        let recorded = |typed: &[&str]| {
            let common = ["bootpress", "build", "oci:x"];
            arguments(common.iter().chain(typed).map(OsString::from)).unwrap()
        };
        let one = recorded(&[
            "--karg", "a=b c", "--json", "--seed", "s", "--grow", "--output", "/x", "--karg=d",
        ]);
        let two = recorded(&[
            "--grow",
            "--karg",
            "a=b c",
            "--karg",
            "d",
            "--progress",
            "none",
            "--seed=s",
        ]);
        assert_eq!(one, two);
        assert_eq!(one.iter().map(String::as_str).collect::<Vec<_>>().len(), 4);
        for wanted in ["--seed=s", "--karg=a=b c", "--karg=d", "--grow"] {
            assert!(one.contains(&wanted.to_owned()), "{one:?}");
        }
        assert_eq!(recorded(&[]), Vec::<String>::new());
    }

    /// A new flag has to be judged: it counts unless it is in one of the lists.
    #[test]
    fn lists_name_flags_that_there_are() {
        let command = Flags::command();
        let build = command.find_subcommand("build").unwrap();
        let known: Vec<&str> = build.get_arguments().filter_map(|one| one.get_long()).collect();
        let extra = ["events", "help", "version"];
        for long in IDLE.iter().chain(&FILES).filter(|long| !extra.contains(long)) {
            assert!(known.contains(long), "{long}");
        }
    }
}
