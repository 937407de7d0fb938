//! A machine to use, not to test: its serial console is the terminal, and nobody waits for a verdict.
//!
//! QEMU itself reads the terminal, in raw mode: Ctrl-C goes to the guest, Ctrl-a x ends the machine, Ctrl-a h says what else there is.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::accelerator::{Acceleration, Accelerator};
use crate::credentials::Credentials;
use crate::device::{DiskBus, Network, Tpm};
use crate::disk::{Disk, DiskFormat, Drive, Use};
use crate::error::BootError;
use crate::firmware::{self, Flash};
use crate::machine::{Line, Machine};
use crate::tpm::Swtpm;
use crate::{program, sandbox, trial};

/// What a machine is to be used for.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// The disk or ISO.
    pub disk: &'a Path,
    /// What its file is; `None` for what the file's name says, or else its first bytes.
    pub format: Option<DiskFormat>,
    /// What is to execute the guest.
    pub acceleration: Acceleration,
    /// Whether the guest may write to it; otherwise what it writes is forgotten.
    pub write: bool,
    /// Whether there is a window with the guest's screen.
    pub gui: bool,
    /// Who may log in as root over ssh.
    pub ssh: Option<Ssh<'a>>,
}

/// Whom the guest's ssh server lets in as root.
#[derive(Clone, Copy, Debug)]
pub enum Ssh<'a> {
    /// The owner of a key made for this machine alone.
    NewKey,
    /// The owner of this key, a line as in `id_ed25519.pub`.
    Key(&'a str),
}

/// A machine that is ready to be switched on.
#[derive(Debug)]
pub struct Prepared {
    qemu: PathBuf,
    arguments: Vec<OsString>,
    ssh: Option<Door>,
    accelerator: Accelerator,
    // Dropped after the machine has ended: the TPM first, then the files.
    _tpm: Option<Swtpm>,
    _directory: tempfile::TempDir,
}

/// The way in by ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Door {
    port: u16,
    key: Option<PathBuf>,
}

impl Visit<'_> {
    /// Makes what the machine takes: overlay, firmware variables, TPM, key.
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn prepare(&self, machine: &Machine) -> Result<Prepared, BootError> {
        machine.check()?;
        let qemu = program::find(machine.program())?;
        if self.gui {
            has_window(&qemu, machine)?;
        }
        let accelerator = trial::choose(self.acceleration, machine)?;
        let directory = tempfile::Builder::new()
            .prefix("run-")
            .tempdir()
            .map_err(BootError::io("making a directory for the machine"))?;
        let place = |name: &str| directory.path().join(name);
        let found = firmware::find(Path::new("/"), machine.firmware, machine.architecture)?;
        let flash =
            found.as_ref().map(|found| found.own_variables(&place("variables"))).transpose()?;
        let disk = Disk::open(self.disk, self.format, directory.path())?;
        let optical = machine.bus == DiskBus::Cdrom;
        let drive = if self.write {
            Drive::itself(&disk, optical)?
        } else {
            Drive::over(&disk, &[], &place("disk.qcow2"), Use { durable: false, optical })?
        };
        let tpm = match machine.tpm {
            Tpm::None => None,
            Tpm::Swtpm => Some(Swtpm::start(directory.path())?),
        };
        let (ssh, key) = match self.ssh {
            None => (None, None),
            Some(Ssh::Key(key)) => {
                (Some(Door { port: free_port()?, key: None }), Some(key.to_owned()))
            }
            Some(Ssh::NewKey) => {
                let (file, public) = new_key(directory.path())?;
                (Some(Door { port: free_port()?, key: Some(file) }), Some(public))
            }
        };
        let credentials = key.as_deref().map(Credentials::root_key).unwrap_or_default();
        let parts = Parts {
            drive: &drive,
            // A window's libraries start programs.
            sandbox: !self.gui && sandbox::works(&qemu),
            gui: self.gui,
            flash: flash.as_ref(),
            tpm: tpm.as_ref().map(Swtpm::socket),
            port: ssh.as_ref().map(|door| door.port),
            credentials: &credentials,
            accelerator: &accelerator,
        };
        let arguments = parts.arguments(machine);
        Ok(Prepared { qemu, arguments, ssh, accelerator, _tpm: tpm, _directory: directory })
    }
}

impl Prepared {
    /// The command that logs in, if somebody may.
    pub fn ssh_command(&self) -> Option<String> {
        let Door { port, key } = self.ssh.as_ref()?;
        let key = key.as_ref().map(|key| format!(" -i {}", key.display())).unwrap_or_default();
        // The machine's own key is new at each first boot: there is nothing to compare it with.
        Some(format!(
            "ssh -p {port}{key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1"
        ))
    }

    /// What executes the guest's instructions.
    pub fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// Switches the machine on and waits for its end, or ends it when `stop` says so, or when the terminal goes away. The terminal is
    /// afterwards as it was before.
    ///
    /// # Errors
    /// [`BootError::Stopped`] on request and without a terminal, [`BootError::Start`] when QEMU ends badly.
    pub fn run(self, stop: &dyn Fn() -> bool) -> Result<(), BootError> {
        let terminal = Terminal::save();
        let mut command: Command = program::mortal(&self.qemu);
        command.args(&self.arguments);
        let mut child = command.spawn().map_err(BootError::io("starting QEMU"))?;
        let status: ExitStatus = loop {
            match child.try_wait().map_err(BootError::io("waiting for QEMU"))? {
                Some(status) => break status,
                None if stop() || terminal.is_gone() => {
                    // Nothing can be done about a process that cannot be killed.
                    let _ = child.kill().and_then(|()| child.wait());
                    return Err(BootError::Stopped);
                }
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(BootError::Start { program: "QEMU".to_owned(), reason: status.to_string() })
    }
}

/// What goes into the command line.
struct Parts<'a> {
    drive: &'a Drive,
    sandbox: bool,
    gui: bool,
    flash: Option<&'a Flash>,
    tpm: Option<&'a Path>,
    port: Option<u16>,
    credentials: &'a Credentials,
    accelerator: &'a Accelerator,
}

impl Parts<'_> {
    fn arguments(&self, machine: &Machine) -> Vec<OsString> {
        let mut line = Line::default();
        line.add("-no-user-config -nodefaults -display");
        line.add(if self.gui { "gtk" } else { "none" });
        machine.add_board(&mut line, self.accelerator, self.flash);
        if self.sandbox {
            line.add("-sandbox").add(sandbox::FILTER);
        }
        line.nodes(self.drive);
        let usb = machine.bus.needs_usb(machine.architecture) || self.gui;
        if usb {
            line.add("-device qemu-xhci,id=usb");
        }
        if self.gui {
            line.add("-device usb-kbd,bus=usb.0 -device usb-tablet,bus=usb.0");
        }
        machine.add_disk_devices(&mut line, false);
        machine.add_devices(&mut line, self.tpm);
        // Someone who asks for ssh gets a network card, and of the machine's kind.
        let card = match (machine.network, machine.bus.is_virtio()) {
            (Network::None, true) if self.port.is_some() => Network::Virtio,
            (Network::None, false) if self.port.is_some() => Network::E1000e,
            (network, _) => network,
        };
        if let Some(device) = card.device() {
            let forward = self
                .port
                .map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:22"))
                .unwrap_or_default();
            line.add(&format!("-netdev user,id=net{forward} -device {device}"));
        }
        if machine.serial {
            // Ctrl-C is the guest's.
            line.add("-chardev stdio,id=console,mux=on,signal=off -serial chardev:console");
            line.add("-mon chardev=console,mode=readline");
        }
        line.credentials(self.credentials);
        line.done()
    }
}

/// A window needs a part of QEMU that distributions package on its own.
fn has_window(qemu: &Path, machine: &Machine) -> Result<(), BootError> {
    let output = Command::new(qemu)
        .args(["-display", "help"])
        .output()
        .map_err(BootError::io("asking QEMU for its displays"))?;
    if String::from_utf8_lossy(&output.stdout).lines().any(|line| line.trim() == "gtk") {
        return Ok(());
    }
    Err(BootError::Missing {
        what: format!("a window for {}", machine.program()),
        packages: "qemu-system-gui (Debian) or qemu-ui-gtk (Fedora)".to_owned(),
    })
}

/// A port that nobody listens on. Somebody may take it until QEMU does, which QEMU would say.
fn free_port() -> Result<u16, BootError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(BootError::io("looking for a free port"))
}

/// A key pair in a directory: the private key's file and the public key's line.
fn new_key(directory: &Path) -> Result<(PathBuf, String), BootError> {
    let file = directory.join("key");
    let output = Command::new(program::find("ssh-keygen")?)
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "bootpress-run", "-f"])
        .arg(&file)
        .output()
        .map_err(BootError::io("starting ssh-keygen"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BootError::Start { program: "ssh-keygen".to_owned(), reason });
    }
    let public = fs::read_to_string(directory.join("key.pub"))
        .map_err(BootError::io("reading the new key"))?;
    Ok((file, public.trim().to_owned()))
}

/// How the terminal was, put back when this is dropped: a QEMU that is killed leaves it raw.
struct Terminal(Option<Termios>);

impl Terminal {
    fn save() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }

    /// Whether there was one, and nobody is at its other end any more. QEMU goes on then, and a signal comes only to those whose
    /// session the terminal controls.
    fn is_gone(&self) -> bool {
        let stdin = std::io::stdin();
        let mut hung_up = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
        self.0.is_some()
            && poll(&mut hung_up, PollTimeout::ZERO).is_ok()
            && hung_up[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that has gone away needs nothing put back.
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;

    fn shown(machine: &Machine, port: Option<u16>, gui: bool) -> String {
        let credentials = Credentials { smbios: vec!["x,y".to_owned()], fw_cfg: Vec::new() };
        let drive = Drive { nodes: vec!["DISK".to_owned()], size: 0 };
        let parts = Parts {
            drive: &drive,
            sandbox: !gui,
            gui,
            flash: None,
            tpm: None,
            port,
            credentials: &credentials,
            accelerator: &Accelerator::Kvm,
        };
        let line: Vec<String> =
            parts.arguments(machine).iter().map(|a| a.to_string_lossy().into_owned()).collect();
        line.join(" ")
    }

    #[test]
    fn the_console_is_the_terminal() {
        let machine = Machine::new(Architecture::X86_64);
        let plain = shown(&machine, None, false);
        assert!(plain.contains("-chardev stdio,id=console,mux=on,signal=off"), "{plain}");
        assert!(plain.contains("type=11,value=x,,y"), "{plain}");
        assert!(!plain.contains("-netdev") && !plain.contains("-no-reboot"), "{plain}");
        assert!(plain.contains("-sandbox on") && plain.contains("-blockdev DISK"), "{plain}");
        // Whoever sits before a machine sees a disk's errors as its user would.
        assert!(!plain.contains("rerror") && !plain.contains("-display gtk"), "{plain}");
        let window = shown(&machine, None, true);
        assert!(window.contains("-display gtk") && !window.contains("-sandbox"), "{window}");
    }

    #[test]
    fn ssh_gets_a_card_of_the_machines_kind() {
        let virtual_one = Machine::new(Architecture::X86_64);
        let line = shown(&virtual_one, Some(2222), false);
        assert!(line.contains("hostfwd=tcp:127.0.0.1:2222-:22 -device virtio-net-pci"), "{line}");
        let real = Machine { bus: DiskBus::Nvme, ..virtual_one };
        assert!(shown(&real, Some(2222), false).contains("-device e1000e,netdev=net"));
    }
}
