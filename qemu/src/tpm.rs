//! The TPM that a machine has: swtpm, a process of ours, with its state in the machine's own directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::BootError;
use crate::program;

/// How long swtpm may take to listen. It takes 0.1 s; a machine with many busy neighbours, more.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running swtpm. Dropping it ends it; it also ends by itself when QEMU hangs up.
#[derive(Debug)]
pub(crate) struct Swtpm {
    child: Child,
    socket: PathBuf,
}

impl Swtpm {
    /// Starts a new TPM that never was in another machine. `directory` is short enough for a socket's name.
    pub(crate) fn start(directory: &Path) -> Result<Self, BootError> {
        let program = program::find("swtpm")?;
        let (state, socket) = (directory.join("tpm-state"), directory.join("tpm"));
        let messages = directory.join("tpm-stderr");
        fs::create_dir_all(&state).map_err(BootError::io("making a directory for the TPM"))?;
        let errors = File::create(&messages)
            .map_err(BootError::io("making a file for the TPM's messages"))?;
        let option = |start: &str, path: &Path| {
            let mut option = std::ffi::OsString::from(start);
            option.push(path);
            option
        };
        let mut command = program::mortal(&program);
        command.args(["socket", "--tpm2", "--terminate", "--tpmstate"]);
        command.arg(option("dir=", &state)).arg("--ctrl").arg(option("type=unixio,path=", &socket));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().map_err(BootError::io("starting swtpm"))?;
        let mut tpm = Self { child, socket };
        let deadline = Instant::now() + START_LIMIT;
        while !listening(&tpm.socket) {
            let ended = tpm.child.try_wait().map_err(BootError::io("waiting for swtpm"))?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(&messages).unwrap_or_default();
                let reason = match (said.trim(), ended) {
                    ("", Some(status)) => status.to_string(),
                    ("", None) => format!("no socket within {} s", START_LIMIT.as_secs()),
                    (said, _) => said.to_owned(),
                };
                return Err(BootError::Start { program: "swtpm".to_owned(), reason });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(tpm)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Whether somebody listens on a socket, without connecting to it: swtpm would take that for its only visitor. A socket's name is
/// there before it listens, so the kernel's list of sockets is asked, whose fourth column has the flag of those that do.
fn listening(socket: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let name = socket.to_string_lossy();
    sockets
        .lines()
        .any(|line| line.ends_with(&*name) && line.split_whitespace().nth(3) == Some("00010000"))
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // Neither failure can be answered: it has ended, or it cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends with its owner: nobody else will look for it.
    #[test]
    fn a_tpm_listens_and_ends_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let tpm = match Swtpm::start(directory.path()) {
            Ok(tpm) => tpm,
            Err(BootError::Missing { .. }) if std::env::var_os("REQUIRE_TOOLS").is_none() => return,
            Err(error) => panic!("{error}"),
        };
        let process = PathBuf::from(format!("/proc/{}", tpm.child.id()));
        assert!(tpm.socket().exists() && process.exists());
        drop(tpm);
        assert!(!process.exists());
    }
}
