//! One boot, from power-on to a verdict.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::accelerator::{Acceleration, Accelerator};
use crate::attempt::Test;
use crate::attend::{Bounds, attend, last_look};
use crate::credentials::Credentials;
use crate::device::{DiskBus, Tpm};
use crate::disk::{Disk, Drive, Use};
use crate::ended::{End, Ended};
use crate::error::BootError;
use crate::evidence::{self, Scene};
use crate::judge::judge;
use crate::machine::{Machine, Wiring};
use crate::pace::Pace;
use crate::proof::Proof;
use crate::reached::News;
use crate::record::Record;
use crate::report::{BootReport, Earlier, MachineReport, Verdict};
use crate::screen::Screen;
use crate::session::Ending;
use crate::tpm::Swtpm;
use crate::vm::{Sockets, Vm};
use crate::{firmware, program, sandbox, trial};

/// Boots a disk and reports. `progress` hears of each milestone once; `stop` is asked several times a second.
///
/// What this machine breaks is a report whose verdict is [`Verdict::Error`]. With [`Acceleration::Auto`] a boot that it breaks under
/// KVM is tried once more under TCG, and the report has both attempts.
///
/// # Errors
/// When the boot could not be tried, see [`BootError`]. A disk that does not boot is a report, not an error.
pub fn boot(
    test: &Test<'_>,
    progress: &mut dyn FnMut(News),
    stop: &dyn Fn() -> bool,
) -> Result<BootReport, BootError> {
    test.machine.check()?;
    let accelerator = trial::choose(test.acceleration, &test.machine)?;
    if let Some(evidence) = test.evidence {
        evidence::forget_earlier(evidence)?;
    }
    let before = match (test.acceleration, &accelerator) {
        (Acceleration::Auto, Accelerator::Kvm) => Before::of(test)?,
        _ => None,
    };
    let report = attempt(test, &accelerator, &[], progress, stop)?;
    let (Verdict::Error { reason }, Some(before)) = (&report.verdict, before) else {
        return Ok(report);
    };
    progress(News::Again(reason.clone()));
    before.restore()?;
    if let Some(evidence) = test.evidence {
        evidence::set_aside(evidence)?;
    }
    let tcg = Accelerator::Tcg { why: format!("KVM broke: {reason}") };
    let earlier = Earlier {
        accelerator,
        reason: reason.clone(),
        seconds: report.seconds,
        reached: report.reached,
        evidence: evidence::EARLIER.to_owned(),
        command: report.command,
    };
    attempt(test, &tcg, &[earlier], progress, stop)
}

/// What a second attempt must find as the first one found it: files of the caller's that a guest writes to.
struct Before {
    /// The firmware's variables, and what was in them, if they were there.
    variables: Option<(PathBuf, Option<Vec<u8>>)>,
    /// Disks beside the one that boots, all of them empty, and their sizes.
    blanks: Vec<(PathBuf, u64)>,
}

impl Before {
    /// `None` if there is something that cannot be restored: a disk with contents, which may be large.
    fn of(test: &Test<'_>) -> Result<Option<Self>, BootError> {
        let mut blanks = Vec::new();
        for disk in test.session.disks {
            let metadata = fs::metadata(disk.file)
                .map_err(BootError::io(format!("reading {}", disk.file.display())))?;
            if metadata.blocks() > 0 {
                return Ok(None);
            }
            blanks.push((disk.file.to_owned(), metadata.len()));
        }
        let variables = test.session.variables;
        let variables = variables.map(|file| (file.to_owned(), fs::read(file).ok()));
        Ok(Some(Self { variables, blanks }))
    }

    fn restore(&self) -> Result<(), BootError> {
        let restore = || {
            match &self.variables {
                Some((file, Some(contents))) => fs::write(file, contents)?,
                Some((file, None)) if file.exists() => fs::remove_file(file)?,
                _ => {}
            }
            for (file, size) in &self.blanks {
                let file = File::options().write(true).open(file)?;
                file.set_len(0)?;
                file.set_len(*size)?;
            }
            Ok(())
        };
        restore().map_err(BootError::io("preparing another attempt"))
    }
}

/// Boots a disk once.
fn attempt(
    test: &Test<'_>,
    accelerator: &Accelerator,
    earlier: &[Earlier],
    progress: &mut dyn FnMut(News),
    stop: &dyn Fn() -> bool,
) -> Result<BootReport, BootError> {
    let qemu = program::find(test.machine.program())?;
    let directory = tempfile::Builder::new()
        .prefix("boot-")
        .tempdir()
        .map_err(BootError::io("making a directory for the machine"))?;
    let place = |name: &str| directory.path().join(name);
    let found = firmware::find(Path::new("/"), test.machine.firmware, test.machine.architecture)?;
    let variables = test.session.variables.map_or_else(|| place("variables"), Path::to_owned);
    let flash = found.as_ref().map(|found| found.own_variables(&variables)).transpose()?;
    let disk = Disk::open(test.disk, test.format, directory.path())?;
    let overlay = test.disk_afterwards.map_or_else(|| place("disk.qcow2"), Path::to_owned);
    let drive = Drive::over(
        &disk,
        test.below,
        &overlay,
        Use { durable: test.session.ending.is_cut(), optical: test.machine.bus == DiskBus::Cdrom },
    )?;
    // Absolute, as it is in the nodes.
    let overlay =
        overlay.canonicalize().map_err(BootError::io(format!("finding {}", overlay.display())))?;
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
        drive: &drive,
        sandbox: sandbox::works(&qemu),
        flash: flash.as_ref(),
        console: &sockets.path("console"),
        report: &sockets.path("report"),
        qmp: &sockets.path("qmp"),
        credentials: &credentials,
        accelerator,
        tpm: tpm.as_ref().map(Swtpm::socket),
        durable: test.session.ending.is_cut(),
        network: test.session.network,
        disks: test.session.disks,
    });
    let command = shown(&qemu, &arguments);
    let scene = Scene {
        command: &command,
        overlay: &overlay,
        size: drive.size,
        machine: directory.path(),
        variables: found.as_ref().map(|found| found.variables.as_path()),
    };
    let mut record = Record::begin(test, &scene)?;
    let limit = test.time_limit.unwrap_or_else(|| accelerator.time_limit());
    let ended = |end, version| Ended {
        end,
        limit,
        seconds: 0.0,
        processor: Duration::ZERO,
        lost: Duration::ZERO,
        machine: MachineReport::of(&test.machine, accelerator, version),
        command: command.clone(),
        screens: Vec::new(),
        earlier: earlier.to_vec(),
    };
    let mut vm = match Vm::start(&qemu, &arguments, &sockets) {
        Ok(vm) => vm,
        Err(BootError::Start { program, reason }) => {
            let told = reason.replace('\n', "; ");
            let end = End::Host(format!("{program} did not start: {told}"));
            let report = judge(test, &record, ended(end, String::new()));
            record.keep(&report, "", &reason)?;
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let mut screen = Screen::new(place("screen.ppm"), test.evidence);
    let mut pace = Pace::new(vm.process());
    let bounds = Bounds {
        architecture: test.machine.architecture,
        limit,
        firmware_limit: accelerator.firmware_limit(),
        raw: disk.is_raw(),
        bus: test.machine.bus,
        serial: test.machine.serial,
        session: test.session,
        accept: test.accept,
    };
    let end = attend(&mut vm, &mut pace, bounds, &mut record, &mut screen, progress, stop)?;
    let seconds = vm.elapsed().as_secs_f64();
    if !matches!(end, End::PoweredOff | End::Reset) {
        last_look(&mut vm, &mut screen)?;
    }
    record.finish(vm.elapsed())?;

    let screens = screen.finish().map_err(BootError::io("keeping pictures of the screen"))?;
    let ended = Ended {
        seconds,
        processor: pace.processor_time(),
        lost: pace.total_lost(),
        screens,
        ..ended(end, vm.version())
    };
    let report = judge(test, &record, ended);
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
