//! Which accelerator a machine gets. Whether KVM works is found out by trying what will be used.
//!
//! An openable `/dev/kvm` proves little: in containers and nested machines QEMU may abort, guests may hang, and a KVM that runs
//! SeaBIOS may break at an instruction of OVMF's. So the case's own firmware is started under KVM, on its board, with its
//! processors; who hears its first sign of life in time has KVM. The answer holds until the next start of this machine, for this
//! QEMU and this firmware; it holds for an hour where nothing was heard because the machine was too busy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::accelerator::{Acceleration, Accelerator};
use crate::architecture::Architecture;
use crate::error::BootError;
use crate::firmware::{self, Flash};
use crate::machine::{Line, Machine};
use crate::pace::Pace;
use crate::{host, memo, program};

/// What a trial shows: nothing, or why it cannot be KVM.
type Finding = Option<String>;

/// Chooses what executes the guest's instructions in a machine.
///
/// # Errors
/// [`BootError::Missing`] without QEMU or firmware, [`BootError::Unsupported`] where KVM is asked for and there can be none,
/// [`BootError::Io`] when the trial cannot be set up.
pub fn choose(wish: Acceleration, machine: &Machine) -> Result<Accelerator, BootError> {
    let native = Architecture::host() == Some(machine.architecture);
    let guest = machine.architecture.name();
    match wish {
        Acceleration::Tcg => Ok(Accelerator::Tcg { why: "TCG was asked for".to_owned() }),
        Acceleration::Kvm if native => Ok(Accelerator::Kvm),
        Acceleration::Kvm => Err(BootError::Unsupported(format!(
            "KVM cannot run {guest} guests on this machine, which is {}",
            std::env::consts::ARCH
        ))),
        Acceleration::Auto if native => Ok(match found(machine)? {
            None => Accelerator::Kvm,
            Some(why) => Accelerator::Tcg { why },
        }),
        Acceleration::Auto => Ok(Accelerator::Tcg { why: format!("this machine is not {guest}") }),
    }
}

/// What a trial shows, now or earlier.
fn found(machine: &Machine) -> Result<Finding, BootError> {
    /// By question. Locked while a trial runs: machines side by side ask the same.
    static KNOWN: Mutex<BTreeMap<String, Finding>> = Mutex::new(BTreeMap::new());
    let qemu = program::find(machine.program())?;
    let flash = firmware::find(Path::new("/"), machine.firmware, machine.architecture)?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let question = question(machine, &qemu, flash.as_ref());
    if let Some(finding) = known.get(&question) {
        return Ok(finding.clone());
    }
    let cache = memo::cache();
    let recalled = cache.as_ref().and_then(|cache| {
        memo::recall(cache, &question).or_else(|| memo::recall(cache, &in_this_hour(&question)))
    });
    let finding = match recalled.as_deref().map(|answer| answer.split_once(": ")) {
        Some(None) => None,
        Some(Some((_, why))) => Some(why.to_owned()),
        None => {
            let outcome = tried(machine, &Accelerator::Kvm, &qemu, flash.as_ref())?;
            let finding = outcome.finding();
            if let Some(cache) = &cache {
                let answer = finding.as_ref().map_or("yes".to_owned(), |why| format!("no: {why}"));
                let certain = outcome.is_certain();
                let hourly = in_this_hour(&question);
                memo::keep(cache, if certain { &question } else { &hourly }, &answer);
            }
            finding
        }
    };
    known.insert(question, finding.clone());
    Ok(finding)
}

/// Everything that the answer depends on, a line to each.
fn question(machine: &Machine, qemu: &Path, flash: Option<&Flash>) -> String {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let opened = match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => "opens".to_owned(),
        Err(error) => error.to_string(),
    };
    let firmware = flash.map_or_else(|| "QEMU's own".to_owned(), |flash| dated(&flash.code));
    let version = Command::new(qemu).arg("--version").output();
    let version = version.map(|output| output.stdout).unwrap_or_default();
    format!(
        "does KVM run this firmware? (bootpress {})\nboot {}\n/dev/kvm: {opened}\n{}\n{}\nfirmware {firmware}\n{} processors on {}\n",
        env!("CARGO_PKG_VERSION"),
        boot_id.trim(),
        dated(qemu),
        String::from_utf8_lossy(&version).lines().next().unwrap_or_default(),
        machine.cpus,
        machine.board(&Accelerator::Kvm),
    )
}

/// The question, as it is asked in each hour since this machine was started.
fn in_this_hour(question: &str) -> String {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    format!("{question}in hour {}\n", seconds.unwrap_or_default() / 3600)
}

/// A file, its size and when it was changed.
fn dated(file: &Path) -> String {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let (size, changed) = fs::metadata(&file).map_or((0, Duration::ZERO), |metadata| {
        let changed =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        (metadata.len(), changed.unwrap_or_default())
    });
    format!("{} of {size} bytes, {} s", file.display(), changed.as_secs_f64())
}

/// How a trial ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The firmware said something.
    Alive,
    /// QEMU said, or showed by its end, that it cannot.
    Broken(String),
    /// Nothing was heard in this time, which the firmware had for itself.
    Silent(Duration),
    /// Nothing was heard in twice this time, but the machine was busy with something else.
    Starved(Duration),
}

impl Outcome {
    fn finding(&self) -> Finding {
        match self {
            Self::Alive => None,
            Self::Broken(why) => Some(format!("KVM does not work here: {why}")),
            Self::Silent(limit) => Some(format!(
                "KVM does not work here: the firmware gave no sign of life in {} s",
                limit.as_secs()
            )),
            Self::Starved(limit) => Some(format!(
                "KVM is not known to work here: the firmware gave no sign of life in {} s, nor in as many more while this machine was busy",
                limit.as_secs()
            )),
        }
    }

    fn is_certain(&self) -> bool {
        !matches!(self, Self::Starved(_))
    }
}

/// Starts the machine's firmware, without a disk, and listens for its first word.
fn tried(
    machine: &Machine,
    accelerator: &Accelerator,
    qemu: &Path,
    flash: Option<&Flash>,
) -> Result<Outcome, BootError> {
    let doing = "making a directory for a trial";
    let directory =
        tempfile::Builder::new().prefix("trial-").tempdir().map_err(BootError::io(doing))?;
    let path = |name: &str| directory.path().join(name);
    let (said, stderr) = (path("said"), path("stderr"));
    let flash = flash.map(|flash| flash.own_variables(&path("variables"))).transpose()?;
    let errors = File::create(&stderr).map_err(BootError::io(doing))?;
    let mut line = Line::default();
    line.add("-no-user-config -nodefaults -display none -nic none -no-reboot");
    // A serial port, so that there is something to hear.
    let audible = Machine { serial: true, ..machine.clone() };
    audible.add_board(&mut line, accelerator, flash.as_ref());
    line.file("-chardev", "file,id=said,path=", &said).add("-serial chardev:said");
    let mut command = program::mortal(qemu);
    command.args(line.done()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let mut child = Ended(command.spawn().map_err(BootError::io("starting QEMU for a trial"))?);
    let messages = || fs::read(&stderr).map(|text| String::from_utf8_lossy(&text).into_owned());
    let (started, limit) = (Instant::now(), accelerator.firmware_limit());
    let mut pace = Pace::new(child.0.id());
    loop {
        if fs::metadata(&said).is_ok_and(|said| said.len() > 0) {
            return Ok(Outcome::Alive);
        }
        let ended = child.0.try_wait().map_err(BootError::io("waiting for QEMU in a trial"))?;
        let messages = messages().unwrap_or_default();
        if let Some(status) = ended {
            let why = host::cause(&messages).unwrap_or_else(|| "it said nothing".to_owned());
            return Ok(Outcome::Broken(format!("{why} ({status})")));
        }
        if let Some(why) = host::fatal(&messages) {
            return Ok(Outcome::Broken(why));
        }
        let now = started.elapsed();
        pace.tick(now);
        // Twice the time by the clock, then: whoever waits here waits for a verdict on a disk.
        if pace.between(Duration::ZERO, now) > limit {
            return Ok(Outcome::Silent(limit));
        }
        if now > limit * 2 {
            return Ok(Outcome::Starved(limit));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A QEMU that ends with whoever started it.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Neither failure can be answered: it has ended, or it cannot be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::firmware::Firmware;

    fn parts(machine: &Machine) -> Result<(PathBuf, Option<Flash>), BootError> {
        let flash = firmware::find(Path::new("/"), machine.firmware, machine.architecture)?;
        Ok((program::find(machine.program())?, flash))
    }

    /// A trial that cannot succeed would always choose TCG and nobody would notice: all firmware must be heard where all can run.
    #[test]
    fn every_firmware_is_heard_under_tcg() {
        let tcg = Accelerator::Tcg { why: String::new() };
        for architecture in Architecture::ALL {
            for firmware in Firmware::ALL {
                let machine = Machine { firmware, ..Machine::new(architecture) };
                if machine.impossible().is_some() {
                    continue;
                }
                match parts(&machine) {
                    Ok((qemu, flash)) => {
                        let outcome = tried(&machine, &tcg, &qemu, flash.as_ref()).unwrap();
                        assert_eq!(outcome, Outcome::Alive, "{architecture:?} {firmware:?}");
                    }
                    Err(BootError::Missing { .. })
                        if std::env::var_os("REQUIRE_TOOLS").is_none() => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn foreign_architectures_are_emulated_and_never_under_kvm() {
        for architecture in
            Architecture::ALL.into_iter().filter(|a| Architecture::host() != Some(*a))
        {
            let machine = Machine::new(architecture);
            assert_eq!(choose(Acceleration::Auto, &machine).unwrap().name(), "tcg");
            let refused = choose(Acceleration::Kvm, &machine);
            assert!(matches!(refused, Err(BootError::Unsupported(_))), "{refused:?}");
        }
    }

    #[test]
    fn what_a_busy_machine_shows_is_asked_again_in_an_hour() {
        let (silent, starved) =
            (Outcome::Silent(Duration::from_secs(7)), Outcome::Starved(Duration::from_secs(7)));
        assert!(silent.is_certain() && !starved.is_certain());
        assert!(starved.finding().unwrap().contains("in 7 s, nor in as many more"));
        assert!(in_this_hour("why?\n").starts_with("why?\nin hour "));
    }

    #[test]
    fn questions_differ_by_what_the_answer_depends_on() {
        let flash = Flash { code: PathBuf::from("/a"), variables: PathBuf::from("/v") };
        let machine = Machine::new(Architecture::X86_64);
        let one = question(&machine, Path::new("/bin/true"), Some(&flash));
        let bios = Machine { firmware: Firmware::Bios, ..machine.clone() };
        for other in [
            question(&machine, Path::new("/bin/false"), Some(&flash)),
            question(&bios, Path::new("/bin/true"), None),
            question(&Machine { cpus: 7, ..machine }, Path::new("/bin/true"), Some(&flash)),
        ] {
            assert_ne!(one, other);
        }
    }
}
