//! One boot, from power-on to a verdict.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::accelerator::Accelerator;
use crate::console::{Console, Line};
use crate::credentials;
use crate::device::Tpm;
use crate::firmware::{self, Flash};
use crate::guest::Guest;
use crate::machine::{Machine, Wiring};
use crate::milestone::{Milestone, Watch};
use crate::qmp::Message;
use crate::report::{BootReport, Check, MachineReport, Reached, Verdict};
use crate::tpm::Swtpm;
use crate::vm::{Event, Next, Sockets, Timed, Vm};
use crate::{BootError, overlay, program};

/// How long to listen on after the boot has become hopeless: what explains it comes right behind.
const SETTLE: Duration = Duration::from_secs(3);

/// How long QEMU may take to end after the guest's power-off.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// How often the caller's wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);

/// Prompts are short; a long unfinished line is not looked at before it ends.
const LONGEST_PROMPT: usize = 500;

/// How many of the console's last lines a report has.
const TAIL: usize = 20;

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
    /// Where to leave the disk as the guest left it: a qcow2 file with what it wrote, over `disk`. Replaced if it is there.
    pub disk_afterwards: Option<&'a Path>,
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
    let flash = firmware::find(Path::new("/"), test.machine.firmware, test.machine.architecture)?
        .map(|found| own_variables(&found, &place("variables")))
        .transpose()?;
    let disk = test.disk_afterwards.map_or_else(|| place("disk.qcow2"), Path::to_owned);
    overlay::create(test.disk, &disk)?;
    // Absolute, for the reason that overlay.rs gives.
    let disk = disk.canonicalize().map_err(BootError::io(format!("finding {}", disk.display())))?;
    let sockets = Sockets::listen(directory.path())?;
    let smbios = match test.proof {
        Proof::Report => credentials::smbios_strings(test.machine.channel().device()),
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
    });
    let command = shown(&qemu, &arguments);
    let mut record = Record::begin(test, &command)?;

    let mut vm = Vm::start(&qemu, &arguments, &sockets)?;
    let limit = test.time_limit.unwrap_or_else(|| accelerator.time_limit());
    let end = attend(&mut vm, limit, &mut record, progress, stop)?;
    let seconds = vm.elapsed().as_secs_f64();
    record.finish(vm.elapsed())?;

    let machine = MachineReport::of(&test.machine, &accelerator, vm.version());
    let report = record.report(test, &end, limit, seconds, machine, command);
    record.keep(&report, &vm.messages())?;
    Ok(report)
}

/// A copy of the variables' template, writable and of this machine alone.
fn own_variables(found: &Flash, copy: &Path) -> Result<Flash, BootError> {
    let doing = format!("copying {}", found.variables.display());
    // Not fs::copy, which would copy a read-only template's permissions too.
    let template = fs::read(&found.variables).map_err(BootError::io(doing.clone()))?;
    fs::write(copy, template).map_err(BootError::io(doing))?;
    Ok(Flash { code: found.code.clone(), variables: copy.to_owned() })
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The guest switched itself off and QEMU ended well.
    PoweredOff,
    /// The guest reset the machine.
    Reset,
    /// It would get no further.
    Hopeless,
    /// Time was up.
    TimedOut,
    /// The overlay could not be written: our fault, not the disk's.
    DiskFailed(String),
    /// QEMU ended in a way that no guest asks for.
    Crashed(String),
}

/// Listens until there is nothing more to hear.
fn attend(
    vm: &mut Vm,
    limit: Duration,
    record: &mut Record,
    progress: &mut dyn FnMut(Reached),
    stop: &dyn Fn() -> bool,
) -> Result<End, BootError> {
    let mut switched_off = None;
    let mut hopeless_since = None;
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
        match vm.next(TICK) {
            Next::Silence => {}
            Next::Event(Timed { event: Event::Qmp(message), .. }) => match message {
                Message::Shutdown { guest: true, reason } => switched_off = Some(reason),
                Message::DiskFailed { reason } => return Ok(End::DiskFailed(reason)),
                Message::Error { description } => return Ok(End::Crashed(description)),
                _ => {}
            },
            Next::Event(timed) => record.take(timed, progress)?,
            Next::Ended => return Ok(ending(vm, switched_off.as_deref())),
        }
    }
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

/// What was heard, and the evidence directory it goes to.
#[derive(Debug)]
struct Record {
    console: Console,
    watch: Watch,
    guest: Guest,
    /// What the console must show, and whether it has.
    message: Option<(String, bool)>,
    evidence: Option<(PathBuf, File)>,
}

impl Record {
    fn begin(test: &Test<'_>, command: &[String]) -> Result<Self, BootError> {
        let message = match &test.proof {
            Proof::Report => None,
            Proof::Console(text) => Some((text.clone(), false)),
        };
        let evidence = match test.evidence {
            None => None,
            Some(directory) => {
                let doing =
                    || BootError::io(format!("writing evidence into {}", directory.display()));
                fs::create_dir_all(directory).map_err(doing())?;
                fs::write(directory.join("command.txt"), quoted(command)).map_err(doing())?;
                Some((
                    directory.to_owned(),
                    File::create(directory.join("console.log")).map_err(doing())?,
                ))
            }
        };
        Ok(Self {
            console: Console::default(),
            watch: Watch::new(),
            guest: Guest::default(),
            message,
            evidence,
        })
    }

    fn take(&mut self, timed: Timed, progress: &mut dyn FnMut(Reached)) -> Result<(), BootError> {
        let Timed { at, event } = timed;
        let before = self.watch.reached().len();
        match event {
            Event::Console(bytes) => {
                for line in self.console.feed(at, &bytes) {
                    self.line(&line)?;
                }
                let partial = self.console.partial();
                if partial.len() < LONGEST_PROMPT {
                    self.watch.line(at, &partial);
                }
            }
            Event::Report(bytes) => self.guest.feed(&bytes),
            Event::Qmp(_) | Event::Closed => {}
        }
        if self.guest.spoke() {
            self.watch.reach(at, Milestone::Userspace);
        }
        if self.guest.fact("state") == Some("running") {
            self.watch.reach(at, Milestone::Running);
        }
        self.watch.reached()[before..].iter().copied().for_each(progress);
        Ok(())
    }

    fn line(&mut self, line: &Line) -> Result<(), BootError> {
        self.watch.line(line.at, &line.text);
        self.guest.line(&line.text);
        if let Some((text, seen)) = &mut self.message {
            *seen |= line.text.contains(text.as_str());
        }
        if let Some((directory, log)) = &mut self.evidence {
            writeln!(log, "[{:9.3}] {}", line.at.as_secs_f64(), line.text)
                .map_err(BootError::io(format!("writing evidence into {}", directory.display())))?;
        }
        Ok(())
    }

    /// The machine is off: the unfinished line is as finished as it gets.
    fn finish(&mut self, at: Duration) -> Result<(), BootError> {
        match self.console.finish(at) {
            Some(line) => self.line(&line),
            None => Ok(()),
        }
    }

    fn report(
        &self,
        test: &Test<'_>,
        end: &End,
        limit: Duration,
        seconds: f64,
        machine: MachineReport,
        command: Vec<String>,
    ) -> BootReport {
        let mut checks = match &self.message {
            Some((text, true)) => vec![Check::new("message", true, text)],
            Some((text, false)) => {
                vec![Check::new("message", false, format!("the console never showed `{text}`"))]
            }
            None if self.guest.spoke() => self.guest.checks(test.machine.firmware),
            None => vec![Check::new("report", false, "the guest did not report")],
        };
        checks.push(Check::new("power-off", *end == End::PoweredOff, self.described(end, limit)));
        let verdict = match checks.iter().find(|check| !check.passed) {
            None => Verdict::Passed,
            // How it ended says more than what is therefore missing, unless it ended well.
            Some(check) if *end == End::PoweredOff => {
                Verdict::Failed { reason: format!("{}: {}", check.name, check.detail) }
            }
            Some(_) => Verdict::Failed { reason: self.described(end, limit) },
        };
        let mut suspicions = self.watch.suspicions().to_vec();
        if let (Some((reason, line)), false) = (self.watch.hopeless(), *end == End::Hopeless) {
            suspicions.push(format!("{reason}: {line}"));
        }
        BootReport {
            verdict,
            seconds,
            machine,
            reached: self.watch.reached().to_vec(),
            checks,
            suspicions,
            console_tail: self.console.tail(TAIL),
            guest: self.guest.clone(),
            command,
        }
    }

    /// An ending in words.
    fn described(&self, end: &End, limit: Duration) -> String {
        let limit = limit.as_secs_f64();
        match (end, self.watch.hopeless()) {
            (End::PoweredOff, _) => "clean".to_owned(),
            (End::Reset, _) => "the guest reset the machine".to_owned(),
            (End::Hopeless, Some((reason, line))) => format!("{reason}: {line}"),
            (End::Hopeless, None) => unreachable!("hopeless for a reason"),
            (End::TimedOut, _) if self.guest.finished() => {
                format!("reported, but still not off after {limit} s")
            }
            (End::TimedOut, _) => match (self.watch.furthest(), self.guest.fact("jobs")) {
                (Milestone::Nothing, _) => format!("not a word in {limit} s"),
                (_, Some(jobs)) => {
                    format!("not up in {limit} s; waiting for {}", jobs.replace('\n', "; "))
                }
                (furthest, None) => format!("not up in {limit} s; it got as far as: {furthest}"),
            },
            (End::DiskFailed(reason), _) => format!("QEMU could not write the overlay: {reason}"),
            (End::Crashed(how), _) => format!("QEMU ended: {how}"),
        }
    }

    /// Leaves the rest of the evidence.
    fn keep(&self, report: &BootReport, messages: &str) -> Result<(), BootError> {
        let Some((directory, _)) = &self.evidence else { return Ok(()) };
        let json = |value: serde_json::Result<String>| {
            value.map(|text| text + "\n").map_err(std::io::Error::other)
        };
        let write = || {
            fs::write(directory.join("result.json"), json(serde_json::to_string_pretty(report))?)?;
            fs::write(
                directory.join("guest.json"),
                json(serde_json::to_string_pretty(&report.guest))?,
            )?;
            fs::write(directory.join("qemu.log"), messages)
        };
        write().map_err(BootError::io(format!("writing evidence into {}", directory.display())))
    }
}

fn shown(program: &Path, arguments: &[OsString]) -> Vec<String> {
    let words =
        std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
    words.map(|word| word.to_string_lossy().into_owned()).collect()
}

/// A command as a shell takes it, an option to a line.
fn quoted(command: &[String]) -> String {
    let mut text = String::new();
    for word in command {
        let plain =
            word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=,:+~".contains(&byte));
        let separator = match (text.is_empty(), word.starts_with('-')) {
            (true, _) => "",
            (false, true) => " \\\n    ",
            (false, false) => " ",
        };
        text.push_str(separator);
        text.push_str(&if plain {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        });
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_a_shell() {
        let words = ["echo", "-n", "it's", "a b", "$HOME", "c=d"].map(str::to_owned);
        let output =
            std::process::Command::new("/bin/sh").args(["-c", &quoted(&words)]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "it's a b $HOME c=d");
    }
}
