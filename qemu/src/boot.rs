//! One boot, from power-on to a verdict.

use std::ffi::OsString;
use std::path::Path;

use crate::accelerator::Accelerator;
use crate::attempt::Test;
use crate::attend::{Bounds, attend, last_look};
use crate::credentials::Credentials;
use crate::device::Tpm;
use crate::ended::{End, Ended};
use crate::error::BootError;
use crate::evidence::Scene;
use crate::firmware;
use crate::judge::judge;
use crate::machine::{Machine, Wiring};
use crate::proof::Proof;
use crate::reached::Reached;
use crate::record::Record;
use crate::report::{BootReport, MachineReport};
use crate::screen::Screen;
use crate::session::Ending;
use crate::tpm::Swtpm;
use crate::vm::{Sockets, Vm};
use crate::{overlay, program};

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
            let reboot = test.session.ending == Ending::Reboot;
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
    let report = judge(test, &record, Ended { end, limit, seconds, machine, command, screens });
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
