//! One boot, from power-on to a verdict.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::accelerator::Accelerator;
use crate::console_rules::Rules;
use crate::credentials;
use crate::device::Tpm;
use crate::evidence::Scene;
use crate::firmware;
use crate::machine::{Machine, Wiring};
use crate::milestone::Milestone;
use crate::qmp::Message;
use crate::record::{End, Ending, Record};
use crate::report::{BootReport, Expected, MachineReport, Reached};
use crate::screen::Screen;
use crate::session::{Dialogue, Ending as Wanted, Session};
use crate::tpm::Swtpm;
use crate::vm::{Event, Next, Sockets, Timed, Vm};
use crate::{BootError, overlay, program};

/// How long to listen on after the boot has become hopeless: what explains it comes right behind.
const SETTLE: Duration = Duration::from_secs(3);

/// How long QEMU may take to end after the guest's power-off.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// How often the caller's wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long the last picture of the screen may take.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// The QMP commands that ask for the screen bear this id.
const SCREEN: &str = "screen";

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
            evidence: None,
            expected: Expected::default(),
            console_rules: None,
            disk_afterwards: None,
            session: Session::default(),
        }
    }
}

/// What counts as success, beside a clean power-off.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The guest's own report, which a unit from outside makes it give.
    Report,
    /// A line on the console that contains this: for guests that take no credentials.
    Console(String),
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
    let smbios = match test.proof {
        Proof::Report => {
            let port = test.machine.channel().device();
            let reboot = test.session.ending == Wanted::Reboot;
            credentials::smbios_strings(port, test.session.errand, reboot)
        }
        Proof::Console(_) => Vec::new(),
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
        smbios: &smbios,
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
    let end = attend(&mut vm, limit, test.session, &mut record, &mut screen, progress, stop)?;
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

/// Listens until there is nothing more to hear.
fn attend(
    vm: &mut Vm,
    limit: Duration,
    session: Session<'_>,
    record: &mut Record<'_>,
    screen: &mut Screen,
    progress: &mut dyn FnMut(Reached),
    stop: &dyn Fn() -> bool,
) -> Result<End, BootError> {
    let mut switched_off = None;
    let mut started_again = false;
    let mut hopeless_since = None;
    let mut cut_at = None;
    let mut dialogue = Dialogue::new(session.dialogue);
    loop {
        if stop() {
            return Err(BootError::Stopped);
        }
        let now = vm.elapsed();
        if record.watch.hopeless().is_some() && now > *hopeless_since.get_or_insert(now) + SETTLE {
            return Ok(End::Hopeless);
        }
        if now > limit {
            return Ok(End::TimedOut);
        }
        if record.flooded() {
            return Ok(End::Flooded);
        }
        if let Some(delay) = record.due(session.ending)
            && now >= *cut_at.get_or_insert(now + delay)
        {
            return Ok(End::Cut);
        }
        look(vm, screen);
        match vm.next(TICK) {
            Next::Silence => {}
            Next::Event(Timed { event: Event::Qmp(message), at }) => match message {
                Message::Shutdown { guest: true, reason } => switched_off = Some(reason),
                // A boot loader that finds a TPM writes the boot entries that are missing and starts again, so that what is
                // measured is what it will always be. Once: the second time it is on its way to doing so for ever.
                Message::Reset
                    if !started_again && record.watch.furthest() <= Milestone::Bootloader =>
                {
                    started_again = true;
                }
                Message::Reset => {
                    switched_off = Some("guest-reset".to_owned());
                    vm.ask(&json!({ "execute": "quit" })).map_err(BootError::io("ending QEMU"))?;
                }
                Message::DiskFailed { reason } => return Ok(End::DiskFailed(reason)),
                Message::Error { ref id, .. } | Message::Return { ref id } if id == SCREEN => {
                    seen(screen, at, &message)?;
                }
                Message::Error { description, .. } => return Ok(End::Crashed(description)),
                _ => {}
            },
            Next::Event(timed) => {
                if let Event::Console(said) = &timed.event {
                    vm.enter(&dialogue.hear(said))
                        .map_err(BootError::io("typing at the console"))?;
                }
                record.take(timed, progress)?;
            }
            // What was off before the plug was pulled was off at the time wanted.
            Next::Ended => match ending(vm, switched_off.as_deref()) {
                End::PoweredOff | End::Reset if cut_at.is_some() => return Ok(End::Cut),
                end => return Ok(end),
            },
        }
    }
}

/// Asks for a picture of the screen, if it is time. One that cannot be asked for any more is not missed.
fn look(vm: &mut Vm, screen: &mut Screen) {
    if let Some(file) = screen.due(vm.elapsed()) {
        let file = file.to_string_lossy();
        let command =
            json!({ "execute": "screendump", "arguments": { "filename": file }, "id": SCREEN });
        let _ = vm.ask(&command);
    }
}

/// Takes the answer to [`look`].
fn seen(screen: &mut Screen, at: Duration, answer: &Message) -> Result<(), BootError> {
    match answer {
        Message::Return { .. } => {
            screen.answered(at).map_err(BootError::io("keeping a picture of the screen"))
        }
        _ => {
            screen.refused();
            Ok(())
        }
    }
}

/// Before a machine is ended that did not end itself: what its screen shows now.
fn last_look(vm: &mut Vm, screen: &mut Screen) -> Result<(), BootError> {
    let deadline = vm.elapsed() + LAST_LOOK;
    screen.hurry();
    look(vm, screen);
    while screen.waiting() && vm.elapsed() < deadline {
        match vm.next(TICK) {
            Next::Event(Timed { event: Event::Qmp(message), at }) => match &message {
                Message::Error { id, .. } | Message::Return { id } if id == SCREEN => {
                    seen(screen, at, &message)?;
                }
                _ => {}
            },
            Next::Ended => break,
            Next::Silence | Next::Event(_) => {}
        }
    }
    Ok(())
}

/// What QEMU's end means. The guest's word and QEMU's exit code must agree.
fn ending(vm: &mut Vm, switched_off: Option<&str>) -> End {
    match (switched_off, vm.wait(EXIT_LIMIT)) {
        (_, None) => End::Crashed(format!("it did not end within {} s", EXIT_LIMIT.as_secs())),
        (Some("guest-shutdown"), Some(status)) if status.success() => End::PoweredOff,
        (Some("guest-reset"), Some(status)) if status.success() => End::Reset,
        (_, Some(status)) => {
            let messages = vm.messages();
            let last = messages.lines().last().unwrap_or("it said nothing");
            End::Crashed(format!("{status}, {last}"))
        }
    }
}

fn shown(program: &Path, arguments: &[OsString]) -> Vec<String> {
    let words =
        std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}
