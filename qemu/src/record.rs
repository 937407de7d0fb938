//! What is heard of a boot while it goes on, and the report that it comes to.

use std::collections::HashSet;
use std::time::Duration;

use crate::BootError;
use crate::boot::Test;
use crate::console::{Console, Line};
use crate::console_rules::{Rules, Severity};
use crate::evidence::{Evidence, Scene};
use crate::guest::Guest;
use crate::milestone::{Milestone, Watch};
use crate::proof::{Level, Proof};
use crate::report::{BootReport, Check, MachineReport, Reached, Verdict};
use crate::screen::{Screen, Shot};
use crate::session::Ending as Wanted;
use crate::vm::{Event, Timed};

/// Prompts are short; a long unfinished line is not looked at before it ends.
const LONGEST_PROMPT: usize = 500;

/// How many of the console's last lines a report has.
const TAIL: usize = 20;

/// A console that says more is flooded. A boot with systemd's debug messages says half of it.
const FLOOD: u64 = 8 << 20;

/// Most lines of the screen that are remembered.
const SHOWN: usize = 5000;

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest switched itself off and QEMU ended well.
    PoweredOff,
    /// The guest reset the machine.
    Reset,
    /// We pulled the plug, as was wanted.
    Cut,
    /// It came to rest without a report, which will do, and did not heed its power button.
    Standing,
    /// It came to rest without a report, which will not do.
    Unreported,
    /// It would get no further.
    Hopeless,
    /// The console said more than anybody would read.
    Flooded,
    /// Time was up.
    TimedOut,
    /// The overlay could not be written: our fault, not the disk's.
    DiskFailed(String),
    /// QEMU ended in a way that no guest asks for.
    Crashed(String),
}

/// What is known when a machine is off, besides what it said.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) end: End,
    pub(crate) limit: Duration,
    pub(crate) seconds: f64,
    pub(crate) machine: MachineReport,
    pub(crate) command: Vec<String>,
    pub(crate) screens: Vec<Shot>,
}

/// What was heard, and the evidence directory it goes to.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    console: Console,
    /// Bytes the console said.
    said: u64,
    /// When it or the guest's report last said something.
    last_word: Duration,
    /// Since when the screen stands still, if that is a proof.
    still: Option<Duration>,
    /// Lines that the screen has shown.
    shown: HashSet<String>,
    /// Those that it shows.
    screen: Vec<String>,
    pub(crate) watch: Watch<'a>,
    guest: Guest,
    /// What the console must show, and whether it has.
    message: Option<(String, bool)>,
    /// The line at which the plug is to be pulled, and whether it has come.
    cut: Option<(&'a str, bool)>,
    evidence: Option<Evidence>,
}

impl<'a> Record<'a> {
    pub(crate) fn begin(test: &Test<'a>, scene: &Scene<'_>) -> Result<Self, BootError> {
        let message = match &test.proof {
            Proof::Report => None,
            Proof::Console(text) => Some((text.clone(), false)),
        };
        let evidence =
            test.evidence.map(|evidence| Evidence::begin(evidence, scene)).transpose()?;
        let rules = match test.console_rules {
            Some(rules) => rules,
            None => Rules::built_in(),
        };
        Ok(Self {
            console: Console::default(),
            said: 0,
            last_word: Duration::ZERO,
            still: None,
            shown: HashSet::new(),
            screen: Vec::new(),
            watch: Watch::new(rules),
            guest: Guest::default(),
            message,
            cut: match test.session.ending {
                Wanted::CutAtText(text) => Some((text, false)),
                _ => None,
            },
            evidence,
        })
    }

    pub(crate) fn take(
        &mut self,
        timed: Timed,
        progress: &mut dyn FnMut(Reached),
    ) -> Result<(), BootError> {
        let Timed { at, event } = timed;
        let before = self.watch.reached().len();
        if let Event::Console(_) | Event::Report(_) = event {
            self.last_word = at;
        }
        match event {
            Event::Console(bytes) => {
                self.said += bytes.len() as u64;
                for line in self.console.feed(at, &bytes) {
                    self.line(&line)?;
                }
                let partial = self.console.partial();
                if partial.len() < LONGEST_PROMPT {
                    self.watch.partial(at, &partial);
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

    /// Notes a milestone that was learned otherwise than from the guest's words.
    pub(crate) fn reach(
        &mut self,
        at: Duration,
        milestone: Milestone,
        progress: &mut dyn FnMut(Reached),
    ) {
        let before = self.watch.reached().len();
        self.watch.reach(at, milestone);
        self.watch.reached()[before..].iter().copied().for_each(progress);
    }

    /// Takes the lines that the screen shows: what was not there before means what it would mean on the console. Somebody whose
    /// machine has no serial port wants to read them, too.
    pub(crate) fn read(
        &mut self,
        at: Duration,
        lines: &[String],
        progress: &mut dyn FnMut(Reached),
    ) -> Result<(), BootError> {
        if self.screen == lines {
            return Ok(());
        }
        let before = self.watch.reached().len();
        for line in lines {
            if self.shown.len() < SHOWN && self.shown.insert(line.clone()) {
                self.watch.line(at, line);
            }
        }
        self.screen = lines.to_vec();
        self.watch.reached()[before..].iter().copied().for_each(progress);
        self.evidence.as_ref().map_or(Ok(()), |evidence| evidence.screen(lines))
    }

    /// When the console or the guest's report last said something.
    pub(crate) const fn last_word(&self) -> Duration {
        self.last_word
    }

    /// The proof there is, once nothing has come for so long that there will be no better one; nothing before that, and nothing
    /// where the guest speaks for itself.
    ///
    /// A screen counts that was drawn by an operating system: it has changed since a kernel began to run. What firmware and boot
    /// loaders leave there, however long, is no proof, nor is an empty one.
    pub(crate) fn rest(&mut self, now: Duration, patience: Duration, screen: &Screen) -> Level {
        self.still = None;
        if self.guest.spoke() || self.message.is_some() || self.watch.hopeless().is_some() {
            return Level::Nothing;
        }
        if let Some(prompt) = self.watch.prompt() {
            return if now > prompt.at + patience { Level::Login } else { Level::Nothing };
        }
        let drawn =
            self.watch.since(Milestone::Kernel).is_some_and(|kernel| screen.changed_since(kernel));
        let silent = now > self.last_word + patience;
        let still = screen.still_for().filter(|still| *still >= patience && !screen.blank());
        if let (true, true, Some(_)) = (drawn, silent, still) {
            self.still = Some(screen.changed());
            return Level::Screen;
        }
        Level::Nothing
    }

    /// What the verdict rests on.
    fn level(&self) -> Level {
        match (&self.message, self.watch.prompt(), self.still) {
            _ if self.guest.spoke() => Level::Report,
            (Some((_, true)), ..) => Level::Message,
            (_, Some(_), _) => Level::Login,
            (.., Some(_)) => Level::Screen,
            _ => Level::Nothing,
        }
    }

    /// How soon the plug is to be pulled, if it is time for that.
    pub(crate) fn due(&self, wanted: Wanted<'_>) -> Option<Duration> {
        match wanted {
            Wanted::CutAt(milestone) => {
                (self.watch.furthest() >= milestone).then_some(Duration::ZERO)
            }
            Wanted::CutAfter(key, delay) => self.guest.fact(key).map(|_| delay),
            Wanted::CutAtText(_) => {
                self.cut.is_some_and(|(_, seen)| seen).then_some(Duration::ZERO)
            }
            Wanted::PowerOff | Wanted::Reboot => None,
        }
    }

    /// Whether the console has said more than anybody would read.
    pub(crate) const fn flooded(&self) -> bool {
        self.said > FLOOD
    }

    fn line(&mut self, line: &Line) -> Result<(), BootError> {
        self.watch.line(line.at, &line.text);
        self.guest.line(&line.text);
        if let Some((text, seen)) = &mut self.message {
            *seen |= line.text.contains(text.as_str());
        }
        if let Some((text, seen)) = &mut self.cut {
            *seen |= line.text.contains(*text);
        }
        self.evidence.as_mut().map_or(Ok(()), |evidence| evidence.line(line))
    }

    /// The machine is off: the unfinished line is as finished as it gets.
    pub(crate) fn finish(&mut self, at: Duration) -> Result<(), BootError> {
        match self.console.finish(at) {
            Some(line) => self.line(&line),
            None => Ok(()),
        }
    }

    pub(crate) fn report(&self, test: &Test<'_>, ending: Ending) -> BootReport {
        let Ending { end, limit, seconds, machine, command, screens } = ending;
        let checks = self.checks(test, &end, limit);
        let verdict = match checks.iter().find(|check| !check.passed && !check.tolerated) {
            None => Verdict::Passed,
            // How it ended says more than what is therefore missing, unless it ended well.
            Some(check) if ended_well(test, &end) || end == End::Unreported => {
                Verdict::Failed { reason: format!("{}: {}", check.name, check.detail) }
            }
            Some(_) => Verdict::Failed { reason: self.described(&end, limit) },
        };
        let findings: Vec<_> =
            self.watch.hopeless().into_iter().chain(self.watch.findings()).cloned().collect();
        let shown = findings.iter().filter(|finding| finding.severity != Severity::Fatal);
        let mut suspicions: Vec<String> =
            shown.map(|finding| format!("{}: {}", finding.meaning, finding.line)).collect();
        suspicions.extend(self.guest.notes());
        suspicions.extend(
            checks
                .iter()
                .filter(|check| !check.passed && check.tolerated)
                .map(|check| format!("tolerated: {}: {}", check.name, check.detail)),
        );
        BootReport {
            verdict,
            proof: self.level(),
            seconds,
            machine,
            reached: self.watch.reached().to_vec(),
            checks,
            findings,
            suspicions,
            console_tail: self.tail(test),
            startup: self.guest.startup().collect(),
            screens,
            guest: self.guest.clone(),
            command,
        }
    }

    /// The last lines of the console; of the screen, where there is no console.
    fn tail(&self, test: &Test<'_>) -> Vec<String> {
        match test.machine.serial {
            true => self.console.tail(TAIL),
            false => self.screen[self.screen.len().saturating_sub(TAIL)..].to_vec(),
        }
    }

    fn checks(&self, test: &Test<'_>, end: &End, limit: Duration) -> Vec<Check> {
        let mut checks = vec![self.check_console()];
        let (ending, wanted) = wanted_end(test);
        match &self.message {
            // What was cut off had no time to say anything.
            _ if wanted == End::Cut => {}
            Some((text, true)) => checks.push(Check::new("message", true, text)),
            Some((text, false)) => {
                let detail = format!("the console never showed `{text}`");
                checks.push(Check::new("message", false, detail));
            }
            None if self.guest.spoke() => {
                checks.push(self.check_proof(test.accept));
                checks.extend(self.guest.checks(&test.machine, &test.expected));
            }
            None => checks.push(self.check_proof(test.accept)),
        }
        if test.session.errand.is_some() && wanted != End::Cut {
            checks.push(self.guest.check_errand());
        }
        if *end != End::Unreported {
            checks.push(Check::new(ending, ended_well(test, end), self.described(end, limit)));
        }
        for check in &mut checks {
            check.tolerated = test.expected.tolerated.iter().any(|name| name == check.name);
        }
        checks
    }

    /// What the verdict rests on, and whether it will do.
    fn check_proof(&self, accept: Level) -> Check {
        let level = self.level();
        let shown = match (level, self.watch.prompt(), self.still) {
            (Level::Login, Some(prompt), _) => format!(": {}", prompt.line),
            (Level::Screen, _, Some(since)) => format!(" since {:.0} s", since.as_secs_f64()),
            _ => String::new(),
        };
        let detail = match level {
            _ if level >= accept => format!("{}{shown}", level.described()),
            Level::Nothing => {
                format!("the guest did not report; it got as far as: {}", self.watch.furthest())
            }
            _ => format!(
                "the guest did not report; there is only a weaker proof, {}{shown}",
                level.described()
            ),
        };
        Check::new("proof", level >= accept, detail)
    }

    /// A line that means that the boot has failed, though the guest may not have noticed.
    fn check_console(&self) -> Check {
        let errors = self
            .watch
            .findings()
            .iter()
            .filter(|finding| matches!(finding.severity, Severity::Fatal | Severity::Error));
        match self.watch.hopeless().into_iter().chain(errors).next() {
            None => Check::new("console", true, "no errors"),
            Some(found) => {
                Check::new("console", false, format!("{}: {}", found.meaning, found.line))
            }
        }
    }

    /// How it ended. Where that tells no cause, the first error on the console may, or the first warning.
    fn described(&self, end: &End, limit: Duration) -> String {
        let how = self.ended(end, limit);
        let first =
            |severity| self.watch.findings().iter().find(|found| found.severity == severity);
        let cause = first(Severity::Error).or_else(|| first(Severity::Warning));
        match (end, cause) {
            (End::TimedOut | End::Flooded | End::Reset, Some(found)) => {
                format!("{how}; on the console: {}: {}", found.meaning, found.line)
            }
            _ => how,
        }
    }

    fn ended(&self, end: &End, limit: Duration) -> String {
        let limit = limit.as_secs_f64();
        match (end, self.watch.hopeless()) {
            (End::PoweredOff, _) => "clean".to_owned(),
            (End::Reset, _) => "the guest reset the machine".to_owned(),
            (End::Cut, _) => format!("it had got as far as: {}", self.watch.furthest()),
            (End::Standing, _) => {
                "switched off from outside: it did not heed its power button".to_owned()
            }
            (End::Unreported, _) => "it did not report".to_owned(),
            (End::Hopeless, Some(why)) => format!("{}: {}", why.meaning, why.line),
            (End::Hopeless, None) => unreachable!("hopeless for a reason"),
            (End::Flooded, _) => format!(
                "the console is flooded: {} MiB; it got as far as: {}",
                FLOOD >> 20,
                self.watch.furthest()
            ),
            (End::TimedOut, _) if self.guest.finished() => {
                format!("reported, but still not off after {limit} s")
            }
            (End::TimedOut, _) => match (self.watch.furthest(), self.guest.jobs("jobs")) {
                (Milestone::Nothing, _) => format!("not a word in {limit} s"),
                (_, Some(jobs)) => format!("not up in {limit} s; waiting for {jobs}"),
                (furthest, None) => format!("not up in {limit} s; it got as far as: {furthest}"),
            },
            (End::DiskFailed(reason), _) => format!("QEMU could not write the overlay: {reason}"),
            (End::Crashed(how), _) => format!("QEMU ended: {how}"),
        }
    }

    /// Leaves the rest of the evidence.
    pub(crate) fn keep(
        &self,
        report: &BootReport,
        transcript: &str,
        messages: &str,
    ) -> Result<(), BootError> {
        match &self.evidence {
            Some(evidence) => evidence.keep(report, transcript, messages),
            None => Ok(()),
        }
    }
}

/// Whether a boot ended as was wanted. A guest whose report is not needed is not asked for a power-off of its own either.
fn ended_well(test: &Test<'_>, end: &End) -> bool {
    *end == wanted_end(test).1 || *end == End::Standing
}

/// The end that is wanted, and what it is called.
const fn wanted_end(test: &Test<'_>) -> (&'static str, End) {
    match test.session.ending {
        Wanted::PowerOff => ("power-off", End::PoweredOff),
        Wanted::Reboot => ("reboot", End::Reset),
        Wanted::CutAt(_) | Wanted::CutAfter(..) | Wanted::CutAtText(_) => ("power cut", End::Cut),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::machine::{Architecture, Machine};

    /// What is said of a guest whose console said this, and which ended so.
    fn told(said: &[&str], end: &End) -> (bool, Vec<String>) {
        let test = Test::new(Path::new("disk"), Machine::new(Architecture::X86_64));
        let scene = Scene {
            command: &[],
            disk: test.disk,
            overlay: Path::new("overlay"),
            machine: Path::new("machine"),
            variables: None,
        };
        let mut record = Record::begin(&test, &scene).unwrap();
        for text in said {
            let event = Event::Console(text.as_bytes().to_vec());
            record.take(Timed { at: Duration::from_secs(1), event }, &mut |_| {}).unwrap();
        }
        let checks = record.checks(&test, end, Duration::from_secs(60));
        let failed = checks.into_iter().filter(|check| !check.passed);
        (record.flooded(), failed.map(|check| check.detail).collect())
    }

    #[test]
    fn a_flood_is_told() {
        let line = "flood of water\n".repeat(1 << 16);
        let count = usize::try_from(FLOOD).unwrap() / line.len();
        let (flooded, _) = told(&vec![line.as_str(); count], &End::TimedOut);
        assert!(!flooded);
        let (flooded, failed) = told(&vec![line.as_str(); count + 1], &End::Flooded);
        assert!(flooded);
        assert_eq!(failed[1], "the console is flooded: 8 MiB; it got as far as: nothing");
    }

    #[test]
    fn an_error_on_the_console_fails_a_boot_that_ends_well() {
        let lines = ["SeaBIOS (version 1)\n", "Linux version 7\n", "[ 3.0] Oops: int3\n"];
        let (_, failed) = told(&lines, &End::PoweredOff);
        assert_eq!(failed[0], "kernel oops: [ 3.0] Oops: int3");
        assert_eq!(failed[1], "the guest did not report; it got as far as: kernel");
        let (_, failed) = told(&lines, &End::TimedOut);
        let late = "not up in 60 s; it got as far as: kernel; on the console: kernel oops: [ 3.0] Oops: int3";
        assert_eq!(failed[2], late);
        let warned = ["Linux version 7\n", "x: No space left on device\n"];
        let (_, failed) = told(&warned, &End::TimedOut);
        assert!(
            failed[1]
                .ends_with("; on the console: a file system is full: x: No space left on device")
        );
        let (_, failed) = told(&warned, &End::PoweredOff);
        assert_eq!(failed.len(), 1, "warnings and less are no failures");
    }
}
