//! What is heard of a boot while it goes on.

use std::collections::HashSet;
use std::time::Duration;

use crate::attempt::Test;
use crate::console::{Console, Line};
use crate::console_rules::Rules;
use crate::error::BootError;
use crate::evidence::{Evidence, Scene};
use crate::guest::Guest;
use crate::pace::Pace;
use crate::proof::{Level, Proof};
use crate::reached::{Milestone, News};
use crate::report::BootReport;
use crate::screen::Screen;
use crate::session::Ending;
use crate::vm::{Event, Timed};
use crate::watch::Watch;

/// Prompts are short; a long unfinished line is not looked at before it ends.
const LONGEST_PROMPT: usize = 500;

/// A console that says more is flooded. A boot with systemd's debug messages says half of it.
pub(crate) const FLOOD: u64 = 8 << 20;

/// Most lines of the screen that are remembered.
const SHOWN: usize = 5000;

/// What was heard, and the evidence directory it goes to.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) console: Console,
    /// Bytes the console said.
    said: u64,
    /// When it or the guest's report last said something.
    last_word: Duration,
    /// Since when the screen stands still, if that is a proof.
    pub(crate) still: Option<Duration>,
    /// Lines that the screen has shown.
    shown: HashSet<String>,
    /// Lines that the screen shows now.
    pub(crate) screen: Vec<String>,
    pub(crate) watch: Watch<'a>,
    pub(crate) guest: Guest,
    /// What the console must show, and whether it has.
    pub(crate) message: Option<(String, bool)>,
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
                Ending::CutAtText(text) => Some((text, false)),
                _ => None,
            },
            evidence,
        })
    }

    pub(crate) fn take(
        &mut self,
        timed: Timed,
        progress: &mut dyn FnMut(News),
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
        self.tell(before, progress);
        Ok(())
    }

    /// Notes a milestone that was learned otherwise than from the guest's words.
    pub(crate) fn reach(
        &mut self,
        at: Duration,
        milestone: Milestone,
        progress: &mut dyn FnMut(News),
    ) {
        let before = self.watch.reached().len();
        self.watch.reach(at, milestone);
        self.tell(before, progress);
    }

    /// Takes the lines that the screen shows: what was not there before means what it would mean on the console. Somebody whose
    /// machine has no serial port wants to read them, too.
    pub(crate) fn read(
        &mut self,
        at: Duration,
        lines: &[String],
        progress: &mut dyn FnMut(News),
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
        self.tell(before, progress);
        self.evidence.as_ref().map_or(Ok(()), |evidence| evidence.screen(lines))
    }

    /// Tells the milestones behind the first `known` ones.
    fn tell(&self, known: usize, progress: &mut dyn FnMut(News)) {
        self.watch.reached()[known..].iter().copied().map(News::Reached).for_each(progress);
    }

    /// Whether anything at all was heard or learned of the machine.
    pub(crate) fn is_silent(&self) -> bool {
        self.said == 0 && !self.guest.spoke() && self.watch.furthest() == Milestone::Nothing
    }

    /// When the console or the guest's report last said something.
    pub(crate) const fn last_word(&self) -> Duration {
        self.last_word
    }

    /// The proof there is, once nothing has come for so long that there will be no better one; nothing before that, and nothing
    /// where the guest speaks for itself.
    ///
    /// A screen counts that was drawn by an operating system: it has changed since a kernel began to run. What firmware and boot
    /// loaders leave there, however long, is not a proof, nor is an empty one.
    pub(crate) fn rest(
        &mut self,
        now: Duration,
        patience: Duration,
        screen: &Screen,
        pace: &Pace,
    ) -> Level {
        self.still = None;
        if self.guest.spoke() || self.message.is_some() || self.watch.hopeless().is_some() {
            return Level::Nothing;
        }
        if let Some(prompt) = self.watch.prompt() {
            return if pace.between(prompt.at, now) > patience {
                Level::Login
            } else {
                Level::Nothing
            };
        }
        let drawn =
            self.watch.since(Milestone::Kernel).is_some_and(|kernel| screen.changed_since(kernel));
        let silent = pace.between(self.last_word, now) > patience;
        let still = screen
            .still()
            .filter(|(from, to)| pace.between(*from, *to) >= patience && !screen.blank());
        if let (true, true, Some(_)) = (drawn, silent, still) {
            self.still = Some(screen.changed());
            return Level::Screen;
        }
        Level::Nothing
    }

    /// How soon the plug is to be pulled, if it is time for that.
    pub(crate) fn due(&self, wanted: Ending<'_>) -> Option<Duration> {
        match wanted {
            Ending::CutAt(milestone) => {
                (self.watch.furthest() >= milestone).then_some(Duration::ZERO)
            }
            Ending::CutAfter(key, delay) => self.guest.fact(key).map(|_| delay),
            Ending::CutAtText(_) => {
                self.cut.is_some_and(|(_, seen)| seen).then_some(Duration::ZERO)
            }
            Ending::PowerOff | Ending::Reboot => None,
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
