//! The evidence directory of a boot: what somebody needs who was not there.
//!
//! ```text
//! console.log    every line, with the seconds since power-on       journal.txt   the guest's own, if it could send it
//! result.json    the report                                        guest.json    the guest's facts
//! command.txt    the command line as it was                        reproduce.sh  the same machine, by hand
//! screens/       pictures of the screen                            qmp.log       what was said over QMP
//! screen.txt     the text that the screen last showed              qemu.log      QEMU's own messages
//! kvm/           the same of an attempt under KVM that this machine broke, before this one under TCG
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::console::Line;
use crate::disk;
use crate::error::BootError;
use crate::report::BootReport;

/// What an evidence directory has, besides the directory of pictures.
const FILES: [&str; 9] = [
    "command.txt",
    "console.log",
    "guest.json",
    "journal.txt",
    "qemu.log",
    "qmp.log",
    "reproduce.sh",
    "result.json",
    "screen.txt",
];
const SCREENS: &str = "screens";

/// Where the evidence of an attempt is that this machine broke, below that of the boot.
pub(crate) const EARLIER: &str = "kvm";

/// A machine about to be switched on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// The command line, program first.
    pub(crate) command: &'a [String],
    /// The overlay, and how many bytes the disk has.
    pub(crate) overlay: &'a Path,
    pub(crate) size: u64,
    /// The directory of the machine's own files, which will be gone.
    pub(crate) machine: &'a Path,
    /// What its copy of firmware's variables was copied from.
    pub(crate) variables: Option<&'a Path>,
}

/// An evidence directory that is being filled.
#[derive(Debug)]
pub(crate) struct Evidence {
    directory: PathBuf,
    console: File,
}

impl Evidence {
    /// Makes the directory and what is known before the boot. What an earlier boot left there goes.
    pub(crate) fn begin(directory: &Path, scene: &Scene<'_>) -> Result<Self, BootError> {
        let begin = || {
            fs::create_dir_all(directory)?;
            for stale in FILES {
                remove(fs::remove_file(directory.join(stale)))?;
            }
            remove(fs::remove_dir_all(directory.join(SCREENS)))?;
            fs::write(directory.join("command.txt"), quoted(scene.command))?;
            let script = directory.join("reproduce.sh");
            fs::write(&script, reproduction(scene))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
            File::create(directory.join("console.log"))
        };
        let doing = format!("writing evidence into {}", directory.display());
        let console = begin().map_err(BootError::io(doing))?;
        Ok(Self { directory: directory.to_owned(), console })
    }

    pub(crate) fn line(&mut self, line: &Line) -> Result<(), BootError> {
        let text = format!("[{:9.3}] {}\n", line.at.as_secs_f64(), line.text);
        self.console.write_all(text.as_bytes()).map_err(self.failed())
    }

    pub(crate) fn screen(&self, lines: &[String]) -> Result<(), BootError> {
        let text = lines.join("\n") + "\n";
        fs::write(self.directory.join("screen.txt"), text).map_err(self.failed())
    }

    /// Leaves what is known after the boot.
    pub(crate) fn keep(
        &self,
        report: &BootReport,
        transcript: &str,
        messages: &str,
    ) -> Result<(), BootError> {
        let json = |value: serde_json::Result<String>| {
            value.map(|text| text + "\n").map_err(io::Error::other)
        };
        let keep = || {
            let place = |name: &str| self.directory.join(name);
            fs::write(place("result.json"), json(serde_json::to_string_pretty(report))?)?;
            fs::write(place("guest.json"), json(serde_json::to_string_pretty(&report.guest))?)?;
            let journal = report.guest.journal();
            if !journal.is_empty() {
                fs::write(place("journal.txt"), journal)?;
            }
            fs::write(place("qmp.log"), transcript)?;
            fs::write(place("qemu.log"), messages)
        };
        keep().map_err(self.failed())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> BootError + use<> {
        BootError::io(format!("writing evidence into {}", self.directory.display()))
    }
}

/// Removes the evidence of an attempt of an earlier boot.
pub(crate) fn forget_earlier(directory: &Path) -> Result<(), BootError> {
    let doing = BootError::io(format!("removing old evidence from {}", directory.display()));
    remove(fs::remove_dir_all(directory.join(EARLIER))).map_err(doing)
}

/// Puts the evidence of an attempt out of the way of the next one's.
pub(crate) fn set_aside(directory: &Path) -> Result<(), BootError> {
    let earlier = directory.join(EARLIER);
    let move_all = || {
        fs::create_dir_all(&earlier)?;
        for name in FILES.into_iter().chain([SCREENS]) {
            remove(fs::rename(directory.join(name), earlier.join(name)))?;
        }
        Ok(())
    };
    move_all().map_err(BootError::io(format!("moving evidence to {}", earlier.display())))
}

/// What is not there need not be removed.
fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain =
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=,:+~".contains(&byte));
    if plain && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A command as a shell takes it, an option to a line.
fn quoted(command: &[String]) -> String {
    let mut text = String::new();
    for word in command {
        text.push_str(separator(&text, word));
        text.push_str(&quote(word));
    }
    text + "\n"
}

fn separator(text: &str, word: &str) -> &'static str {
    match (text.is_empty(), word.starts_with('-')) {
        (true, _) => "",
        (false, true) => " \\\n    ",
        (false, false) => " ",
    }
}

/// What the script begins with. The overlay does not say what it lies over; QEMU's command line does, with the format of each file.
const PREAMBLE: &str = r#"#!/bin/sh
# Boots the disk once more in the machine of this evidence, its console in this terminal (Ctrl-A X ends it).
# The disk is only read: what the guest writes goes into a directory that is removed in the end.
set -eu
machine=$(mktemp -d)
trap 'rm -rf "$machine"' EXIT
qemu-img create -q -f qcow2 "$machine/disk.qcow2" SIZE
"#;

/// A script that boots the disk in the same machine: a new overlay and new variables, the console in the terminal, the report
/// in a file, QMP on a socket that waits for nobody.
fn reproduction(scene: &Scene<'_>) -> String {
    let mut text = PREAMBLE.replace("SIZE", &scene.size.to_string());
    if let Some(variables) = scene.variables {
        let variables = quote(&variables.to_string_lossy());
        text +=
            &format!("cp {variables} \"$machine/variables\"\nchmod u+w \"$machine/variables\"\n");
    }
    // On the command line a comma in a path is two; a node is JSON. Here all are plain.
    let machine = scene.machine.to_string_lossy().into_owned();
    let written = machine.replace(',', ",,");
    let overlay = disk::quoted(&scene.overlay.to_string_lossy());
    let mut line = String::new();
    for word in scene.command.iter().filter(|word| *word != "-S") {
        let word = word.replace(&overlay, &format!("\"{machine}/disk.qcow2\""));
        let word = word.replace(&written, &machine);
        let word = match word.split_once(",path=") {
            Some(("socket,id=console", _)) => "stdio,id=console,mux=on,signal=off".to_owned(),
            Some(("socket,id=report", path)) => format!("file,id=report,path={path}"),
            Some(("socket,id=qmp", path)) => {
                format!("socket,id=qmp,server=on,wait=off,path={path}")
            }
            _ => word,
        };
        let parts: Vec<String> = word.split(&machine).map(quote_part).collect();
        line.push_str(separator(&line, &word));
        line.push_str(&parts.join("\"$machine\""));
    }
    text + &line + "\n"
}

/// As [`quote`], but nothing stays nothing: it is a part of a word.
fn quote_part(part: &str) -> String {
    if part.is_empty() { String::new() } else { quote(part) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn commands_survive_a_shell() {
        let words = ["echo", "-n", "it's", "a b", "$HOME", "c=d"].map(str::to_owned);
        let output = Command::new("/bin/sh").args(["-c", &quoted(&words)]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "it's a b $HOME c=d");
    }
}
