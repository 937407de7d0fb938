//! What is done with a machine that runs: listening, looking at its screen, and knowing when it is over.

use std::time::Duration;

use serde_json::json;

use crate::architecture::Architecture;
use crate::ended::End;
use crate::error::BootError;
use crate::proof::{Level, kernel_runs};
use crate::qmp::Message;
use crate::reached::Milestone;
use crate::reached::Reached;
use crate::record::Record;
use crate::screen::Screen;
use crate::session::{Dialogue, Session};
use crate::vm::{Event, Next, Timed, Vm};

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

/// This part of the time limit without a change, and there will be no better proof: a guest that reports does so within seconds
/// of its login prompt.
const PATIENCE: u32 = 5;

/// This part of the time limit without a word, and the guest has not noticed the power button.
const DEAF: u32 = 10;

/// What a boot may take, and how it is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'a> {
    pub(crate) architecture: Architecture,
    pub(crate) limit: Duration,
    pub(crate) session: Session<'a>,
    /// The weakest proof that will do.
    pub(crate) accept: Level,
}

/// A machine that runs, and what is known of its end.
struct Attendance<'m, 'a> {
    vm: &'m mut Vm,
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
    bounds: Bounds<'_>,
    record: &mut Record<'_>,
    screen: &mut Screen,
    progress: &mut dyn FnMut(Reached),
    stop: &dyn Fn() -> bool,
) -> Result<End, BootError> {
    let mut attendance = Attendance {
        vm,
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
        if self.record.watch.hopeless().is_some()
            && now > *self.hopeless_since.get_or_insert(now) + SETTLE
        {
            return Ok(Some(End::Hopeless));
        }
        if now > limit {
            return Ok(Some(End::TimedOut));
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

    /// Whether it has come to rest without a report. Where that will do, its power button is pressed, once.
    fn settled(&mut self, now: Duration) -> Result<Option<End>, BootError> {
        let Bounds { limit, accept, .. } = self.bounds;
        if let Some(pressed) = self.pressed {
            let deaf = self.record.last_word() <= pressed && now > pressed + limit / DEAF;
            return Ok(deaf.then_some(End::Standing));
        }
        let level = self.record.rest(now, limit / PATIENCE, self.screen);
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
        progress: &mut dyn FnMut(Reached),
    ) -> Result<Option<End>, BootError> {
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
            Message::DiskFailed { reason } => return Ok(Some(End::DiskFailed(reason.clone()))),
            Message::Error { id, .. } | Message::Return { id, .. } if id == SCREEN => {
                seen(self.screen, at, message)?;
                self.record.read(at, self.screen.lines(), progress)?;
            }
            Message::Return { id, said }
                if id == REGISTERS && kernel_runs(said, self.bounds.architecture) =>
            {
                self.record.reach(at, Milestone::Kernel, progress);
            }
            Message::Error { id, .. } if id == REGISTERS => {}
            Message::Error { description, .. } => {
                return Ok(Some(End::Crashed(description.clone())));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Asks for a picture of the screen, if it is time. Until a kernel is known to run, the processors are asked, too: a machine
    /// need not have a console that would tell.
    fn look(&mut self) {
        if look(self.vm, self.screen) && self.record.watch.furthest() < Milestone::Kernel {
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
