//! Programs on this machine: where they are, which packages bring them, and how paths are written on QEMU's command line.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::BootError;

/// Debian's and Fedora's packages for the programs this crate runs.
const PACKAGES: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86 (Debian) or qemu-system-x86-core (Fedora)"),
    ("qemu-system-aarch64", "qemu-system-arm (Debian) or qemu-system-aarch64-core (Fedora)"),
    ("qemu-img", "qemu-utils (Debian) or qemu-img (Fedora)"),
    ("swtpm", "swtpm (Debian and Fedora)"),
    ("ssh-keygen", "openssh-client (Debian) or openssh (Fedora)"),
];

/// Finds a program in PATH, or says which package has it.
pub(crate) fn find(name: &str) -> Result<PathBuf, BootError> {
    in_path(name).ok_or_else(|| BootError::Missing {
        what: name.to_owned(),
        packages: PACKAGES.iter().find(|(program, _)| *program == name).map_or_else(
            || format!("the package with {name}"),
            |(_, packages)| (*packages).to_owned(),
        ),
    })
}

/// A command that dies with the thread that spawns it, where util-linux can arrange that; otherwise just a command.
/// Without it a killed test would leave a virtual machine behind. Doing it here would take `unsafe` (`pre_exec`).
pub(crate) fn mortal(program: &Path) -> Command {
    match in_path("setpriv").filter(|setpriv| is_util_linux(setpriv)) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Runs a program that ends by itself; returns what it printed.
///
/// # Errors
/// [`BootError::Start`] with what it said, when it fails.
pub(crate) fn run(command: &mut Command, name: &str) -> Result<String, BootError> {
    let output =
        command.stdin(Stdio::null()).output().map_err(BootError::io(format!("starting {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let reason = if said.is_empty() { output.status.to_string() } else { said };
    Err(BootError::Start { program: name.to_owned(), reason })
}

/// Writes a path so that QEMU's option parser takes it whole: a comma ends a value, two are one.
pub(crate) fn escaped(path: &Path) -> OsString {
    let mut bytes = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// busybox has a `setpriv` that knows no `--pdeathsig`.
fn is_util_linux(setpriv: &Path) -> bool {
    Command::new(setpriv)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"))
}
