//! What executes the guest's instructions. Whether KVM works is found out by running a guest under it.
//!
//! An openable `/dev/kvm` proves little: inside containers and nested machines it may open while guests hang or QEMU aborts.
//! So a guest of a few instructions says one letter and powers off; who hears it in time has KVM.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::architecture::Architecture;
use crate::error::BootError;
use crate::program;

/// How long the trivial guest may take. SeaBIOS and it need 0.3 s even under TCG.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the trivial guest says.
const WORD: u8 = b'K';

/// What executes the guest's instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "name")]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// QEMU's translator, ten times slower.
    Tcg {
        /// Why not KVM.
        why: String,
    },
}

impl Accelerator {
    /// The best that works for guests of this architecture; found out once per process.
    ///
    /// # Errors
    /// [`BootError::Missing`] without QEMU, [`BootError::Io`] when the trial cannot be set up.
    pub fn best(architecture: Architecture) -> Result<Self, BootError> {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        if Architecture::host() != Some(architecture) {
            let why = format!("this machine is not {}", architecture.name());
            return Ok(Self::Tcg { why });
        }
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let found = Self::look(architecture)?;
        Ok(FOUND.get_or_init(|| found).clone())
    }

    /// `kvm` or `tcg`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }

    /// The value of `-accel`. x86 has one processor under TCG (see `Machine::cpus_under`), but a thread of its own for it: the
    /// thread that takes turns among processors (`thread=single`) wakes up for each other's sake even where there is one, which
    /// was a fifth of a boot's processor time.
    pub(crate) fn qemu(&self, architecture: Architecture) -> &'static str {
        match (self, architecture) {
            (Self::Kvm, _) => "kvm",
            (Self::Tcg { .. }, Architecture::X86_64) => "tcg,thread=multi",
            (Self::Tcg { .. }, Architecture::Aarch64) => "tcg",
        }
    }

    /// The value of `-cpu`. Under KVM only `host`: a named model silently loses what KVM cannot offer, down to less than
    /// distributions are compiled for. Emulated Arm is cortex-a57, since `max` takes three times as long.
    pub(crate) fn cpu(&self, architecture: Architecture) -> &'static str {
        match (self, architecture) {
            (Self::Kvm, _) => "host",
            (Self::Tcg { .. }, Architecture::X86_64) => "max",
            (Self::Tcg { .. }, Architecture::Aarch64) => "cortex-a57",
        }
    }

    /// How long a boot may take, unless the caller knows better.
    pub fn time_limit(&self) -> Duration {
        match self {
            Self::Kvm => Duration::from_secs(300),
            Self::Tcg { .. } => Duration::from_secs(600),
        }
    }

    fn look(architecture: Architecture) -> Result<Self, BootError> {
        let tcg = |why: String| Ok(Self::Tcg { why });
        if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
            return tcg(format!("opening /dev/kvm: {error}"));
        }
        match try_guest(architecture, &Self::Kvm)? {
            Ok(()) => Ok(Self::Kvm),
            Err(why) => tcg(format!("/dev/kvm opens, but {why}")),
        }
    }
}

/// Runs the trivial guest. The inner result says whether it ran, and if not, how that showed.
fn try_guest(
    architecture: Architecture,
    accelerator: &Accelerator,
) -> Result<Result<(), String>, BootError> {
    let directory =
        tempfile::tempdir().map_err(BootError::io("making a directory for the trivial guest"))?;
    let path = |name: &str| directory.path().join(name);
    let (guest, said, stderr) = (path("guest"), path("said"), path("stderr"));
    let doing = "writing the trivial guest";
    fs::write(&guest, trivial_guest(architecture)).map_err(BootError::io(doing))?;
    let errors = File::create(&stderr).map_err(BootError::io(doing))?;

    let qemu = match architecture {
        Architecture::X86_64 => "qemu-system-x86_64",
        Architecture::Aarch64 => "qemu-system-aarch64",
    };
    let mut command = program::mortal(&program::find(qemu)?);
    command.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-m", "64M"]);
    command.args(["-accel", accelerator.qemu(architecture), "-cpu", accelerator.cpu(architecture)]);
    command.arg("-chardev").arg(option("file,id=said,path=", &said));
    match architecture {
        Architecture::X86_64 => {
            command.args([
                "-machine",
                "q35",
                "-device",
                "isa-debugcon,chardev=said",
                "-device",
                "ide-hd,drive=disk",
            ]);
            command.arg("-drive").arg(option("if=none,id=disk,format=raw,file=", &guest));
        }
        Architecture::Aarch64 => {
            command.args([
                "-machine",
                if *accelerator == Accelerator::Kvm { "virt,gic-version=host" } else { "virt" },
            ]);
            command.args(["-serial", "chardev:said", "-kernel"]).arg(&guest);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let mut child = command.spawn().map_err(BootError::io(format!("starting {qemu}")))?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait().map_err(BootError::io(format!("waiting for {qemu}")))? {
            Some(status) => break Some(status),
            None if started.elapsed() > PATIENCE => break None,
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let Some(status) = status else {
        // Nothing can be done about a process that cannot be killed.
        let _ = child.kill().and_then(|()| child.wait());
        return Ok(Err(format!("a trivial guest did not end within {} s", PATIENCE.as_secs())));
    };
    let errors = fs::read_to_string(&stderr).unwrap_or_default();
    let errors = errors.lines().next().unwrap_or("it said nothing");
    Ok(match fs::read(&said) {
        Ok(said) if said == [WORD] && status.success() => Ok(()),
        _ => Err(format!("QEMU ended with {status}: {errors}")),
    })
}

fn option(value: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(value);
    option.push(program::escaped(path));
    option
}

/// A guest that says [`WORD`] and powers off.
fn trivial_guest(architecture: Architecture) -> Vec<u8> {
    match architecture {
        // A boot sector. Port 0xe9 is isa-debugcon; 0x604 is Q35's ACPI control register as SeaBIOS places it, where 0x2000
        // means sleep state 5.
        Architecture::X86_64 => {
            let mut sector = vec![
                0xb0, WORD, // mov al, WORD
                0xe6, 0xe9, // out 0xe9, al
                0xb8, 0x00, 0x20, // mov ax, 0x2000
                0xba, 0x04, 0x06, // mov dx, 0x604
                0xef, // out dx, ax
                0xf4, 0xeb, 0xfd, // hlt; jmp to it
            ];
            sector.resize(510, 0);
            sector.extend([0x55, 0xaa]);
            sector.resize(1 << 20, 0);
            sector
        }
        // A raw kernel. The UART of `virt` is at 0x0900_0000; PSCI's SYSTEM_OFF is function 0x8400_0008.
        Architecture::Aarch64 => [
            0xd2a1_2001,                        // movz x1, #0x0900, lsl #16
            0x5280_0002 | u32::from(WORD) << 5, // movz w2, #WORD
            0xb900_0022,                        // str w2, [x1]
            0xd280_0100,                        // movz x0, #0x0008
            0xf2b0_8000,                        // movk x0, #0x8400, lsl #16
            0xd400_0002,                        // hvc #0
            0x1400_0000_u32,                    // b .
        ]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe that cannot succeed would always choose TCG and nobody would notice: the guests must run where all can run.
    #[test]
    fn the_trivial_guests_run_under_tcg() {
        for architecture in Architecture::ALL {
            match try_guest(architecture, &Accelerator::Tcg { why: String::new() }) {
                Ok(outcome) => outcome.unwrap(),
                Err(BootError::Missing { .. }) if std::env::var_os("REQUIRE_TOOLS").is_none() => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn foreign_architectures_are_emulated() {
        for architecture in
            Architecture::ALL.into_iter().filter(|a| Architecture::host() != Some(*a))
        {
            assert_eq!(Accelerator::best(architecture).unwrap().name(), "tcg");
        }
    }
}
