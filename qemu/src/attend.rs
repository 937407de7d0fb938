//! What is done with a machine that runs: listening, looking at its screen, and knowing when it is over.

use std::time::Duration;

use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::device::DiskBus;
use crate::ended::End;
use crate::error::BootError;
use crate::health::{Health, Ill};
use crate::host;
use crate::pace::Pace;
use crate::proof::{Level, kernel_runs};
use crate::qmp::Message;
use crate::reached::{Milestone, News};
use crate::record::Record;
use crate::screen::Screen;
use crate::session::{Dialogue, Session};
use crate::vm::{Event, Next, Timed, Vm};
use crate::watch::PANIC_DEVICE;

/// How long to listen on after the boot has become hopeless: what explains it comes right behind.
const SETTLE: Duration = Duration::from_secs(3);

/// How long QEMU may take to end after the guest's power-off.
const EXIT_LIMIT: Duration = Duration::from_secs(20);

/// How often the caller's wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);

/// How long the last picture of the screen may take.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// The QMP commands that ask for the screen and for the processors' registers bear these ids.
const SCREEN: &str = "screen";
const REGISTERS: &str = "registers";

/// So does the one that asks for the processors' threads.
const PROCESSORS: &str = "processors";

/// This part of the time limit without a change, and there will be no better proof: a guest that reports does so within seconds
/// of its login prompt.
const PATIENCE: u32 = 5;

/// This part of the time limit without a word, and the guest has not noticed the power button.
const DEAF: u32 = 10;

/// So many times the time limit by the clock, and it is over, however little of it the host let the guest have.
const MOST: u32 = 10;

/// A machine without a serial port has a screen to give a sign of life on, of which there is a picture every two seconds only.
const UNHEARD: u32 = 2;

/// What a boot may take, and how it is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    pub(crate) architecture: Architecture,
    /// The guest's time that it may have.
    pub(crate) limit: Duration,
    /// The guest's time in which the firmware must give a sign of life.
    pub(crate) firmware_limit: Duration,
    /// Whether the disk's file is raw.
    pub(crate) raw: bool,
    pub(crate) bus: DiskBus,
    /// Whether the machine has a serial port.
    pub(crate) serial: bool,
    pub(crate) session: Session<'a>,
    /// The weakest proof that will do.
    pub(crate) accept: Level,
}

/// A machine that runs, and what is known of its end.
struct Attendance<'m, 'a> {
    vm: &'m mut Vm,
    pace: &'m mut Pace,
    health: Health,
    record: &'m mut Record<'a>,
    screen: &'m mut Screen,
    bounds: Bounds<'m>,
    dialogue: Dialogue<'m>,
    switched_off: Option<String>,
    started_again: bool,
    hopeless_since: Option<Duration>,
    cut_at: Option<Duration>,
    /// When its power button was pressed.
    pressed: Option<Duration>,
}

/// Listens until there is nothing more to hear. `stop` is asked several times a second.
pub(crate) fn attend(
    vm: &mut Vm,
    pace: &mut Pace,
    bounds: Bounds<'_>,
    record: &mut Record<'_>,
    screen: &mut Screen,
    progress: &mut dyn FnMut(News),
    stop: &dyn Fn() -> bool,
) -> Result<End, BootError> {
    let mut attendance = Attendance {
        vm,
        pace,
        health: Health::new(bounds.raw),
        record,
        screen,
        bounds,
        dialogue: Dialogue::new(bounds.session.dialogue),
        switched_off: None,
        started_again: false,
        hopeless_since: None,
        cut_at: None,
        pressed: None,
    };
    let threads = json!({ "execute": "query-cpus-fast", "id": PROCESSORS });
    attendance.vm.ask(&threads).map_err(BootError::io("asking QEMU for its processors"))?;
    loop {
        if stop() {
            return Err(BootError::Stopped);
        }
        if let Some(end) = attendance.over()? {
            return Ok(end);
        }
        attendance.look();
        let end = match attendance.vm.next(TICK) {
            Next::Silence => None,
            Next::Event(Timed { event: Event::Qmp(message), at }) => {
                attendance.hear(at, &message, progress)?
            }
            Next::Event(timed) => {
                attendance.health.alive(timed.at);
                attendance.answer(&timed.event)?;
                attendance.record.take(timed, progress)?;
                None
            }
            Next::Ended => Some(attendance.ended()),
        };
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

impl Attendance<'_, '_> {
    /// Whether to wait no longer.
    fn over(&mut self) -> Result<Option<End>, BootError> {
        let now = self.vm.elapsed();
        let Bounds { limit, session, .. } = self.bounds;
        self.pace.tick(now);
        if let Some(ill) = self.health.look(now, self.pace, self.vm)
            && let Some(end) = self.diagnosed(now, &ill)
        {
            return Ok(Some(end));
        }
        if self.record.watch.hopeless().is_some()
            && now > *self.hopeless_since.get_or_insert(now) + SETTLE
        {
            return Ok(Some(End::Hopeless));
        }
        let passed = self.pace.between(Duration::ZERO, now);
        if let Some(silence) = self.silent_firmware(passed) {
            return Ok(Some(End::Host(silence)));
        }
        if passed > limit {
            return Ok(Some(End::TimedOut));
        }
        if now > limit * MOST {
            return Ok(Some(End::Host(format!(
                "this machine is too busy: in {:.0} s by the clock the guest could run for {:.0} s",
                now.as_secs_f64(),
                passed.as_secs_f64()
            ))));
        }
        if self.record.flooded() {
            return Ok(Some(End::Flooded));
        }
        if let Some(delay) = self.record.due(session.ending)
            && now >= *self.cut_at.get_or_insert(now + delay)
        {
            return Ok(Some(End::Cut));
        }
        self.settled(now)
    }

    /// That not even firmware runs, if so: it would before it looks at any disk.
    fn silent_firmware(&self, passed: Duration) -> Option<String> {
        let limit = if self.bounds.serial {
            self.bounds.firmware_limit
        } else {
            self.bounds.firmware_limit * UNHEARD
        };
        let limit = limit.min(self.bounds.limit);
        let unseen = self.bounds.serial || self.screen.blank();
        let silent = passed > limit && self.record.is_silent() && unseen;
        silent.then(|| format!("the firmware gave no sign of life in {:.0} s", limit.as_secs_f64()))
    }

    /// What follows from an illness: an end, or that the guest is given up.
    fn diagnosed(&mut self, now: Duration, ill: &Ill) -> Option<End> {
        match ill {
            Ill::Host(why) => Some(End::Host(why.clone())),
            Ill::Disk(why) => Some(End::Damaged(why.clone())),
            Ill::Guest(rule, meaning, line) => {
                self.record.watch.give_up(now, rule, meaning, line);
                None
            }
        }
    }

    /// Whether it has come to rest without a report. Where that will do, its power button is pressed, once.
    fn settled(&mut self, now: Duration) -> Result<Option<End>, BootError> {
        let Bounds { limit, accept, .. } = self.bounds;
        if let Some(pressed) = self.pressed {
            let deaf = self.record.last_word() <= pressed
                && self.pace.between(pressed, now) > limit / DEAF;
            return Ok(deaf.then_some(End::Standing));
        }
        let level = self.record.rest(now, limit / PATIENCE, self.screen, self.pace);
        if level > Level::Nothing && level >= accept {
            let button = json!({ "execute": "system_powerdown" });
            self.vm.ask(&button).map_err(BootError::io("pressing the machine's power button"))?;
            self.pressed = Some(now);
        } else if level == Level::Login {
            return Ok(Some(End::Unreported));
        }
        Ok(None)
    }

    /// Types what is to be typed at what the console says.
    fn answer(&mut self, event: &Event) -> Result<(), BootError> {
        let Event::Console(said) = event else { return Ok(()) };
        let reply = self.dialogue.hear(said);
        self.vm.enter(&reply).map_err(BootError::io("typing at the console"))
    }

    /// Takes what QEMU says itself.
    fn hear(
        &mut self,
        at: Duration,
        message: &Message,
        progress: &mut dyn FnMut(News),
    ) -> Result<Option<End>, BootError> {
        if self.switched_off.is_none()
            && let Some(ill) = self.health.hear(at, message, self.vm)
        {
            if let Ill::Guest(PANIC_DEVICE, ..) = ill {
                self.record.reach(at, Milestone::Kernel, progress);
            }
            return Ok(self.diagnosed(at, &ill));
        }
        match message {
            Message::Shutdown { guest: true, reason } => self.switched_off = Some(reason.clone()),
            // A boot loader that finds a TPM writes the boot entries that are missing and starts again, so that what is
            // measured is what it will always be. Once: the second time it is on its way to doing so for ever.
            Message::Reset
                if !self.started_again && self.record.watch.furthest() <= Milestone::Bootloader =>
            {
                self.started_again = true;
            }
            Message::Reset => {
                self.switched_off = Some("guest-reset".to_owned());
                self.vm.ask(&json!({ "execute": "quit" })).map_err(BootError::io("ending QEMU"))?;
            }
            Message::Return { id, value } if id == PROCESSORS => {
                self.pace.processors(threads(value));
            }
            Message::Error { id, .. } | Message::Return { id, .. } if id == SCREEN => {
                seen(self.screen, at, message)?;
                self.record.read(at, self.screen.lines(), progress)?;
            }
            Message::Return { id, value }
                if id == REGISTERS
                    && kernel_runs(
                        value.as_str().unwrap_or_default(),
                        self.bounds.architecture,
                    ) =>
            {
                self.record.reach(at, Milestone::Kernel, progress);
            }
            Message::Error { id, .. } if id == REGISTERS => {}
            Message::Error { description, .. } => {
                return Ok(Some(End::Host(format!("QEMU refused a command: {description}"))));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Asks for a picture of the screen, if it is time. Until a kernel is known to run, the processors are asked, too: a machine
    /// need not have a console that would tell.
    fn look(&mut self) {
        if !look(self.vm, self.screen) {
            return;
        }
        if self.bounds.bus == DiskBus::Nvme {
            Health::ask_statistics(self.vm);
        }
        if self.record.watch.furthest() < Milestone::Kernel {
            let command = json!({
                "execute": "human-monitor-command",
                "arguments": { "command-line": "info registers -a" },
                "id": REGISTERS,
            });
            let _ = self.vm.ask(&command);
        }
    }

    /// QEMU has ended. What was off before the plug was pulled was off at the time wanted.
    fn ended(&mut self) -> End {
        match ending(self.vm, self.switched_off.as_deref()) {
            End::PoweredOff | End::Reset if self.cut_at.is_some() => End::Cut,
            end => end,
        }
    }
}

/// Asks for a picture of the screen, if it is time; whether it was. One that cannot be asked for any more is not missed.
fn look(vm: &mut Vm, screen: &mut Screen) -> bool {
    let Some(file) = screen.due(vm.elapsed()) else { return false };
    let file = file.to_string_lossy();
    let command =
        json!({ "execute": "screendump", "arguments": { "filename": file }, "id": SCREEN });
    let _ = vm.ask(&command);
    true
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
pub(crate) fn last_look(vm: &mut Vm, screen: &mut Screen) -> Result<(), BootError> {
    let deadline = vm.elapsed() + LAST_LOOK;
    screen.hurry();
    look(vm, screen);
    while screen.waiting() && vm.elapsed() < deadline {
        match vm.next(TICK) {
            Next::Event(Timed { event: Event::Qmp(message), at }) => match &message {
                Message::Error { id, .. } | Message::Return { id, .. } if id == SCREEN => {
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
        (_, None) => End::Host(format!("QEMU did not end within {} s", EXIT_LIMIT.as_secs())),
        (Some("guest-shutdown"), Some(status)) if status.success() => End::PoweredOff,
        (Some("guest-reset"), Some(status)) if status.success() => End::Reset,
        (_, Some(status)) => {
            let said = host::cause(&vm.messages());
            let said = said.unwrap_or_else(|| "it said nothing".to_owned());
            End::Host(format!("QEMU ended with {status}: {said}"))
        }
    }
}

/// The threads of the processors, from the answer to `query-cpus-fast`.
fn threads(answer: &Value) -> Vec<u32> {
    let cpus = answer.as_array().into_iter().flatten();
    let thread = |cpu: &Value| u32::try_from(cpu.get("thread-id")?.as_u64()?).ok();
    cpus.filter_map(thread).collect()
}
