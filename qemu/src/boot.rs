//! One boot, from power-on to a verdict.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::accelerator::Accelerator;
use crate::attend::{Bounds, attend, last_look};
use crate::console_rules::Rules;
use crate::credentials::{Access, Credentials};
use crate::device::Tpm;
use crate::evidence::Scene;
use crate::firmware;
use crate::machine::{Machine, Wiring};
use crate::proof::{Level, Proof};
use crate::record::{End, Ending, Record};
use crate::report::{BootReport, Expected, MachineReport, Reached};
use crate::screen::Screen;
use crate::session::{Ending as Wanted, Session};
use crate::tpm::Swtpm;
use crate::vm::{Sockets, Vm};
use crate::{BootError, overlay, program};

/// A boot to try.
#[derive(Clone, Debug)]
pub struct Test<'a> {
    /// The disk: raw, qcow2, vmdk, vhdx or vhd. It is never written.
    pub disk: &'a Path,
    /// What to boot it in.
    pub machine: Machine,
    /// What executes the guest; `None` for [`Accelerator::best`].
    pub accelerator: Option<Accelerator>,
    /// When to give up; `None` for [`Accelerator::time_limit`].
    pub time_limit: Option<Duration>,
    /// What counts as success.
    pub proof: Proof,
    /// The weakest proof that will do where the guest does not report.
    pub accept: Level,
    /// How it is told to report.
    pub access: Access,
    /// Directory for the console, the guest's words, the command line and the result; made if need be.
    pub evidence: Option<&'a Path>,
    /// What the guest must be besides up.
    pub expected: Expected,
    /// What lines on the console mean; `None` for [`Rules::built_in`].
    pub console_rules: Option<&'a Rules>,
    /// Where to leave the disk as the guest left it: a qcow2 file with what it wrote, over `disk`. Replaced if it is there.
    pub disk_afterwards: Option<&'a Path>,
    /// What it is to do besides booting; [`Session::default`] for nothing.
    pub session: Session<'a>,
}

impl<'a> Test<'a> {
    /// A boot whose proof is the guest's report, with everything else as it usually is.
    pub fn new(disk: &'a Path, machine: Machine) -> Self {
        Self {
            disk,
            machine,
            accelerator: None,
            time_limit: None,
            proof: Proof::Report,
            accept: Level::Report,
            access: Access::default(),
            evidence: None,
            expected: Expected::default(),
            console_rules: None,
            disk_afterwards: None,
            session: Session::default(),
        }
    }
}

/// Boots a disk and reports. `progress` hears of each milestone once; `stop` is asked several times a second.
///
/// # Errors
/// When the boot could not be tried, see [`BootError`]. A disk that does not boot is a report, not an error.
pub fn boot(
    test: &Test<'_>,
    progress: &mut dyn FnMut(Reached),
    stop: &dyn Fn() -> bool,
) -> Result<BootReport, BootError> {
    test.machine.check()?;
    let qemu = program::find(test.machine.program())?;
    let accelerator = match &test.accelerator {
        Some(accelerator) => accelerator.clone(),
        None => Accelerator::best(test.machine.architecture)?,
    };
    let directory = tempfile::Builder::new()
        .prefix("boot-")
        .tempdir()
        .map_err(BootError::io("making a directory for the machine"))?;
    let place = |name: &str| directory.path().join(name);
    let found = firmware::find(Path::new("/"), test.machine.firmware, test.machine.architecture)?;
    let variables = test.session.variables.map_or_else(|| place("variables"), Path::to_owned);
    let flash = found.as_ref().map(|found| found.own_variables(&variables)).transpose()?;
    let disk = test.disk_afterwards.map_or_else(|| place("disk.qcow2"), Path::to_owned);
    overlay::create(test.disk, &disk)?;
    // Absolute, for the reason that overlay.rs gives.
    let disk = disk.canonicalize().map_err(BootError::io(format!("finding {}", disk.display())))?;
    let sockets = Sockets::listen(directory.path())?;
    let credentials = match test.proof {
        Proof::Report => {
            let port = test.machine.channel().device();
            let reboot = test.session.ending == Wanted::Reboot;
            Credentials::report(test.access, port, test.session.errand, reboot)?
        }
        Proof::Console(_) => Credentials::default(),
    };
    let tpm = match test.machine.tpm {
        Tpm::None => None,
        Tpm::Swtpm => Some(Swtpm::start(directory.path())?),
    };
    let arguments = test.machine.arguments(&Wiring {
        disk: &disk,
        flash: flash.as_ref(),
        console: &sockets.path("console"),
        report: &sockets.path("report"),
        qmp: &sockets.path("qmp"),
        credentials: &credentials,
        accelerator: &accelerator,
        tpm: tpm.as_ref().map(Swtpm::socket),
        durable: test.session.ending.is_cut(),
        network: test.session.network,
        disks: test.session.disks,
    });
    let command = shown(&qemu, &arguments);
    let scene = Scene {
        command: &command,
        disk: test.disk,
        overlay: &disk,
        machine: directory.path(),
        variables: found.as_ref().map(|found| found.variables.as_path()),
    };
    let mut record = Record::begin(test, &scene)?;

    let mut vm = Vm::start(&qemu, &arguments, &sockets)?;
    let limit = test.time_limit.unwrap_or_else(|| accelerator.time_limit());
    let mut screen = Screen::new(place("screen.ppm"), test.evidence);
    let bounds = Bounds {
        architecture: test.machine.architecture,
        limit,
        session: test.session,
        accept: test.accept,
    };
    let end = attend(&mut vm, bounds, &mut record, &mut screen, progress, stop)?;
    let seconds = vm.elapsed().as_secs_f64();
    if !matches!(end, End::PoweredOff | End::Reset) {
        last_look(&mut vm, &mut screen)?;
    }
    record.finish(vm.elapsed())?;

    let machine = MachineReport::of(&test.machine, &accelerator, vm.version());
    let screens = screen.finish().map_err(BootError::io("keeping pictures of the screen"))?;
    let report = record.report(test, Ending { end, limit, seconds, machine, command, screens });
    record.keep(&report, &vm.transcript(), &vm.messages())?;
    Ok(report)
}

/// Looks for the programs and the firmware that a machine takes, so that what is missing is known before anything starts.
///
/// # Errors
/// [`BootError::Missing`], with the packages that bring it.
pub fn prerequisites(machine: &Machine) -> Result<(), BootError> {
    program::find(machine.program())?;
    program::find("qemu-img")?;
    firmware::find(Path::new("/"), machine.firmware, machine.architecture)?;
    match machine.tpm {
        Tpm::None => Ok(()),
        Tpm::Swtpm => program::find("swtpm").map(|_| ()),
    }
}

fn shown(program: &Path, arguments: &[OsString]) -> Vec<String> {
    let words =
        std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}
