//! `bootpress run`: a disk in a machine, to look around in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use bootpress::error::unsupported;
use clap::Args;
use qemu::{Accelerator, BootError, Ssh, Visit};

use super::machine_flags::{Choice, MachineFlags};
use super::test::{INTERRUPTED, interruption, not_tried};
use super::unpacked::Unpacked;

#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    /// Name the disk or ISO
    ///
    /// The format is raw, qcow2, vmdk, vhdx or vhd, also compressed as .xz, .zst or .gz.
    #[arg(value_name = "DISK")]
    disk: PathBuf,

    /// Let root log in by ssh, through a port of this machine
    ///
    /// With the public key in FILE, or with a key that is made for this run.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    ssh: Option<Option<PathBuf>>,

    /// Show the guest's screen in a window
    #[arg(long)]
    gui: bool,

    /// Forget what the guest writes, which is the default
    #[arg(long, conflicts_with = "write", hide_short_help = true)]
    snapshot: bool,

    /// Let the guest write to the disk
    #[arg(long)]
    write: bool,

    #[command(flatten)]
    machine: MachineFlags,
}

/// Runs the machine until it ends.
pub(super) fn run(flags: &RunFlags) -> Result<ExitCode> {
    let unpacked = Unpacked::new(&flags.disk)?;
    if flags.write && unpacked.is_copy() {
        let what =
            format!("{} is compressed, so the guest cannot write to it", flags.disk.display());
        return Err(unsupported(what, Some("decompress it first, or leave --write away")));
    }
    let matrix = flags.machine.matrix()?;
    let selection = flags.machine.select(&unpacked.file, &matrix, Choice::Named)?;
    let machine = match (&selection.machines[..], &selection.left_out[..]) {
        ([profile], _) => &profile.machine,
        ([], [(name, reason), ..]) => return Err(unsupported(format!("{name}: {reason}"), None)),
        _ => return Err(unsupported("several machines at once", Some("name one --machine"))),
    };
    if !machine.serial && !flags.gui {
        let hint = "see its screen with --gui";
        return Err(unsupported("a machine without a serial port, unseen", Some(hint)));
    }
    let key = match &flags.ssh {
        Some(Some(file)) => Some(public_key(file)?),
        _ => None,
    };
    let ssh = match (&flags.ssh, &key) {
        (None, _) => None,
        (Some(_), Some(key)) => Some(Ssh::Key(key)),
        (Some(_), None) => Some(Ssh::NewKey),
    };
    let visit = Visit {
        disk: &unpacked.file,
        format: flags.machine.disk_format(),
        acceleration: flags.machine.acceleration(),
        write: flags.write,
        gui: flags.gui,
        ssh,
    };
    let interrupted = interruption()?;
    let prepared = match visit.prepare(machine) {
        Ok(prepared) => prepared,
        Err(error) => return not_tried(error),
    };
    if let Accelerator::Tcg { why } = prepared.accelerator() {
        super::say::say!("emulated, so it will take its time: {why}");
    }
    if let Some(command) = prepared.ssh_command() {
        super::say::say!("when it is up: {command}");
    }
    super::say::say!(
        "{}; Ctrl-a x ends the machine, Ctrl-a h helps",
        if flags.write { "the disk is written to" } else { "what the guest writes is forgotten" }
    );
    match prepared.run(&|| interrupted.load(Ordering::Relaxed)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(BootError::Stopped) => Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => not_tried(error),
    }
}

/// A public key's line. A private key is not sent anywhere.
fn public_key(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let line = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    match line.map(str::trim) {
        Some(line)
            if line.starts_with("ssh-")
                || line.starts_with("ecdsa-")
                || line.starts_with("sk-") =>
        {
            Ok(line.to_owned())
        }
        _ => Err(unsupported(
            format!("{} is not a public key", file.display()),
            Some("name the file that ends in .pub"),
        )),
    }
}
