//! The real tools that tests use as witnesses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A command for a tool, or `None` when it is not installed. With `REQUIRE_TOOLS` set (as `tests/run` does) a missing tool
/// fails the test: a skipped witness is not a witness.
pub fn tool(name: &str) -> Option<Command> {
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
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    format!("{stdout}{stderr}")
}

/// A tool of a newer Debian, from `target/forky/bin` if `tests/run` has put it there, else from `PATH`.
pub fn forky(name: &str) -> Option<Command> {
    from("forky", name)
}

/// cosign, or a skopeo or sq that is not older than it, from `target/signers/bin` if `tests/run` has put it there, else from `PATH`.
pub fn signer(name: &str) -> Option<Command> {
    from("signers", name)
}

/// A tool of a file system as the newest Debian has it, from `target/filesystems/bin` if `tests/run` has put it there, else from `PATH`.
pub fn newest(name: &str) -> Option<Command> {
    from("filesystems", name)
}

fn from(place: &str, name: &str) -> Option<Command> {
    let made = fetched(place).join("bin").join(name);
    if made.is_file() { Some(Command::new(made)) } else { tool(name) }
}

/// The directory below `target/` where `tests/run` puts what it fetches for the tests: `forky`, `signers`, `filesystems`, `policy`, `tmt`, `pykickstart`, `productmd`.
pub fn fetched(name: &str) -> PathBuf {
    // Not Cargo's target directory, which may be elsewhere: the script knows only this one.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).join(name)
}

/// Whether the test runs as root, as what changes owners or mounts has to.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
