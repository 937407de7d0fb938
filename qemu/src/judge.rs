//! What a boot that is over comes to: checks, and the verdict that follows from them.

use std::time::Duration;

use crate::attempt::Test;
use crate::check::Check;
use crate::console_rules::Severity;
use crate::ended::{End, Ended};
use crate::proof::Level;
use crate::reached::Milestone;
use crate::record::{FLOOD, Record};
use crate::report::{BootReport, Verdict};
use crate::session::Ending;

/// How many of the console's last lines a report has.
const TAIL: usize = 20;

/// When the host kept this part of the time from the guest, that is told.
const NOTABLE: f64 = 10.0;

/// Judges a boot by what was heard of it and how it ended.
pub(crate) fn judge(test: &Test<'_>, record: &Record<'_>, ended: Ended) -> BootReport {
    Judge { record, test }.report(ended)
}

/// What there is to judge by.
struct Judge<'r, 'a> {
    record: &'r Record<'a>,
    test: &'r Test<'a>,
}

impl Judge<'_, '_> {
    /// What the verdict rests on.
    fn level(&self) -> Level {
        match (&self.record.message, self.record.watch.prompt(), self.record.still) {
            _ if self.record.guest.spoke() => Level::Report,
            (Some((_, true)), ..) => Level::Message,
            (_, Some(_), _) => Level::Login,
            (.., Some(_)) => Level::Screen,
            _ => Level::Nothing,
        }
    }

    fn report(&self, ended: Ended) -> BootReport {
        let Ended { end, limit, seconds, processor, lost, machine, command, screens, earlier } =
            ended;
        let checks = self.checks(&end, limit);
        let verdict = match &end {
            End::Host(why) => Verdict::Error { reason: why.clone() },
            _ => self.verdict(&checks, &end, limit),
        };
        let findings: Vec<_> = self
            .record
            .watch
            .hopeless()
            .into_iter()
            .chain(self.record.watch.findings())
            .cloned()
            .collect();
        let shown = findings.iter().filter(|finding| finding.severity != Severity::Fatal);
        let mut suspicions: Vec<String> =
            shown.map(|finding| format!("{}: {}", finding.meaning, finding.line)).collect();
        suspicions.extend(self.record.guest.notes());
        if lost.as_secs_f64() > seconds / NOTABLE {
            suspicions.push(format!(
                "this machine was busy: in {:.0} s of the {seconds:.0} s the guest could not run, which count for no limit",
                lost.as_secs_f64()
            ));
        }
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
            processor_seconds: processor.as_secs_f64(),
            lost_seconds: lost.as_secs_f64(),
            machine,
            reached: self.record.watch.reached().to_vec(),
            checks,
            findings,
            suspicions,
            console_tail: self.tail(),
            startup: self.record.guest.startup().collect(),
            screens,
            guest: self.record.guest.clone(),
            command,
            earlier,
        }
    }

    fn verdict(&self, checks: &[Check], end: &End, limit: Duration) -> Verdict {
        match checks.iter().find(|check| !check.passed && !check.tolerated) {
            None => Verdict::Passed,
            // How it ended says more than what is therefore missing, unless it ended well.
            Some(check) if ended_well(self.test, end) || *end == End::Unreported => {
                Verdict::Failed { reason: format!("{}: {}", check.name, check.detail) }
            }
            Some(_) => Verdict::Failed { reason: self.described(end, limit) },
        }
    }

    /// The last lines of the console; of the screen, where there is no console.
    fn tail(&self) -> Vec<String> {
        if self.test.machine.serial {
            self.record.console.tail(TAIL)
        } else {
            self.record.screen[self.record.screen.len().saturating_sub(TAIL)..].to_vec()
        }
    }

    fn checks(&self, end: &End, limit: Duration) -> Vec<Check> {
        let mut checks = vec![self.check_console()];
        let (ending, wanted) = wanted_end(self.test);
        match &self.record.message {
            // What was cut off had no time to say anything.
            _ if wanted == End::Cut => {}
            Some((text, true)) => checks.push(Check::new("message", true, text)),
            Some((text, false)) => {
                let detail = format!("the console never showed `{text}`");
                checks.push(Check::new("message", false, detail));
            }
            None if self.record.guest.spoke() => {
                checks.push(self.check_proof());
                checks.extend(self.record.guest.checks(&self.test.machine, &self.test.expected));
            }
            None => checks.push(self.check_proof()),
        }
        if self.test.session.errand.is_some() && wanted != End::Cut {
            checks.push(self.record.guest.check_errand());
        }
        // What this machine broke off has no end of its own.
        if *end != End::Unreported && !matches!(end, End::Host(_)) {
            checks.push(Check::new(ending, ended_well(self.test, end), self.described(end, limit)));
        }
        for check in &mut checks {
            check.tolerated = self.test.expected.tolerated.iter().any(|name| name == check.name);
        }
        checks
    }

    /// What the verdict rests on, and whether it will do.
    fn check_proof(&self) -> Check {
        let (level, accept) = (self.level(), self.test.accept);
        let shown = match (level, self.record.watch.prompt(), self.record.still) {
            (Level::Login, Some(prompt), _) => format!(": {}", prompt.line),
            (Level::Screen, _, Some(since)) => format!(" since {:.0} s", since.as_secs_f64()),
            _ => String::new(),
        };
        let detail = match level {
            _ if level >= accept => format!("{}{shown}", level.described()),
            Level::Nothing => {
                format!(
                    "the guest did not report; it got as far as: {}",
                    self.record.watch.furthest()
                )
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
            .record
            .watch
            .findings()
            .iter()
            .filter(|finding| matches!(finding.severity, Severity::Fatal | Severity::Error));
        match self.record.watch.hopeless().into_iter().chain(errors).next() {
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
            |severity| self.record.watch.findings().iter().find(|found| found.severity == severity);
        let hopeless = self.record.watch.hopeless();
        let cause =
            hopeless.or_else(|| first(Severity::Error)).or_else(|| first(Severity::Warning));
        match (end, cause) {
            (End::TimedOut | End::Flooded | End::Reset, Some(found)) => {
                format!("{how}; on the console: {}: {}", found.meaning, found.line)
            }
            _ => how,
        }
    }

    fn ended(&self, end: &End, limit: Duration) -> String {
        let limit = format!("{} s", limit.as_secs_f64());
        match (end, self.record.watch.hopeless()) {
            (End::PoweredOff, _) => "clean".to_owned(),
            (End::Reset, _) => "the guest reset the machine".to_owned(),
            (End::Cut, _) => format!("it had got as far as: {}", self.record.watch.furthest()),
            (End::Standing, _) => {
                "switched off from outside: it did not heed its power button".to_owned()
            }
            (End::Unreported, _) => "it did not report".to_owned(),
            (End::Hopeless, Some(why)) => format!("{}: {}", why.meaning, why.line),
            (End::Hopeless, None) => unreachable!("hopeless for a reason"),
            (End::Flooded, _) => format!(
                "the console is flooded: {} MiB; it got as far as: {}",
                FLOOD >> 20,
                self.record.watch.furthest()
            ),
            (End::TimedOut, _) if self.record.guest.finished() => {
                format!("reported, but still not off after {limit}")
            }
            (End::TimedOut, _) => {
                match (self.record.watch.furthest(), self.record.guest.jobs("jobs")) {
                    (Milestone::Nothing, _) => format!("not a word in {limit}"),
                    (_, Some(jobs)) => format!("not up in {limit}; waiting for {jobs}"),
                    (furthest, None) => {
                        format!("not up in {limit}; it got as far as: {furthest}")
                    }
                }
            }
            (End::Damaged(reason), _) => format!("the disk cannot be read: {reason}"),
            (End::Host(why), _) => why.clone(),
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
        Ending::PowerOff => ("power-off", End::PoweredOff),
        Ending::Reboot => ("reboot", End::Reset),
        Ending::CutAt(_) | Ending::CutAfter(..) | Ending::CutAtText(_) => ("power cut", End::Cut),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::architecture::Architecture;
    use crate::evidence::Scene;
    use crate::machine::Machine;
    use crate::record::FLOOD;
    use crate::vm::{Event, Timed};

    /// What is said of a guest whose console said this, and which ended so.
    fn told(said: &[&str], end: &End) -> (bool, Vec<String>) {
        let test = Test::new(Path::new("disk"), Machine::new(Architecture::X86_64));
        let scene = Scene {
            command: &[],
            overlay: Path::new("overlay"),
            size: 0,
            machine: Path::new("machine"),
            variables: None,
        };
        let mut record = Record::begin(&test, &scene).unwrap();
        for text in said {
            let event = Event::Console(text.as_bytes().to_vec());
            record.take(Timed { at: Duration::from_secs(1), event }, &mut |_| {}).unwrap();
        }
        let limit = Duration::from_secs(60);
        let checks = Judge { record: &record, test: &test }.checks(end, limit);
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
