//! The real tools that tests use as witnesses.

#![allow(dead_code, reason = "every test program uses another part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A command for a tool, or `None` when it is not installed. With `REQUIRE_TOOLS` set (as `tests/run` does) a missing tool
/// fails the test: a skipped witness is no witness.
pub(crate) fn tool(name: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "{name} is not installed, and REQUIRE_TOOLS is set"
        );
        eprintln!("skipped: {name} is not installed");
    }
    found.map(Command::new)
}

/// Runs a command that must succeed; returns what it printed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    format!("{stdout}{stderr}")
}

/// `target/forky/bin/NAME`, if it was made, else what PATH has.
pub(crate) fn forky(name: &str) -> Option<Command> {
    let made =
        Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("forky").join("bin").join(name);
    if made.is_file() { Some(Command::new(made)) } else { tool(name) }
}

/// The same in `target/signers`: cosign, and a skopeo that is not older than it.
pub(crate) fn signer(name: &str) -> Option<Command> {
    let made =
        Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("signers").join("bin").join(name);
    if made.is_file() { Some(Command::new(made)) } else { tool(name) }
}
