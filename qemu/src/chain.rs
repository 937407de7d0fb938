//! A chain of boots on one disk: upgrade, roll back, reboot, pull the plug. Each power-on gets a verdict of its own.
//!
//! ```text
//! boot,upgrade=B,reboot,rollback,reboot
//! └─── leg ────┘ └──── leg ────┘ └leg─┘      disk ◄ 1.qcow2 ◄ 2.qcow2 ◄ 3.qcow2, and one set of firmware variables
//!
//! install=nvme:20G,boot                       medium, and blank.raw beside it; then blank.raw ◄ 2.qcow2 in its place
//! ```
//!
//! An upgrade is a commit that the harness serves and the guest's own `ostree` pulls and deploys, so a guest needs no more than
//! that; which commit is the caller's affair. What must be running in the next leg follows from the steps.

mod server;
mod steps;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use self::server::Server;
pub use self::server::{Page, Site};
use self::steps::{Deed, Leg, legs};
pub use self::steps::{Install, Step};
use crate::attempt::Test;
use crate::boot::boot;
use crate::check::Check;
use crate::device::DiskBus;
use crate::disk::DiskFormat;
use crate::error::BootError;
use crate::guest::Guest;
use crate::proof::{Level, Proof};
use crate::reached::News;
use crate::report::{BootReport, Verdict};
use crate::session::{Attached, Ending, Session};

const UPGRADE: &str = include_str!("chain/upgrade.sh");
const ROLLBACK: &str = include_str!("chain/rollback.sh");
const KEPT: &str = include_str!("chain/kept.sh");

/// What a machine is upgraded to.
#[derive(Clone)]
pub struct Update {
    /// What people call it.
    pub name: String,
    /// The commit to deploy, 64 hexadecimal digits.
    pub commit: String,
    /// References to pull besides it.
    pub references: Vec<String>,
    /// An ostree repository of mode `archive` that has all of that.
    pub site: Arc<dyn Site>,
}

/// What a chain came to.
#[derive(Clone, Debug, Serialize)]
pub struct ChainReport {
    /// Whether all legs passed.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// From the first power-on to the last power-off.
    pub seconds: f64,
    /// The legs that were tried: all, or as far as the first that did not pass.
    pub legs: Vec<LegReport>,
}

/// What a leg of a chain came to.
#[derive(Clone, Debug, Serialize)]
pub struct LegReport {
    /// What was done: `boot, upgrade`.
    pub name: String,
    /// The commit that was running, as far as the guest told.
    pub commit: Option<String>,
    /// The boot.
    #[serde(flatten)]
    pub boot: BootReport,
}

/// What a chain tells while it runs.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A leg begins: its number from 1, how many there are, its name.
    Leg(usize, usize, &'a str),
    /// The boot that is going on tells this.
    Boot(News),
}

/// Runs a chain on a disk, which is not written. `test` says in which machine; its `session` and `disk_afterwards` are the
/// chain's own. Evidence goes into a directory for each leg: `1`, `2`, ….
///
/// # Errors
/// When a boot could not be tried, or the steps make no sense, see [`BootError`].
pub fn run(
    test: &Test<'_>,
    steps: &[Step<Update>],
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &dyn Fn() -> bool,
) -> Result<ChainReport, BootError> {
    let legs = legs(steps).map_err(BootError::Unsupported)?;
    if !matches!((&test.proof, test.accept), (Proof::Report, Level::Report)) {
        let why = "a chain needs guests that report".to_owned();
        return Err(BootError::Unsupported(why));
    }
    let directory = tempfile::Builder::new()
        .prefix("chain-")
        .tempdir()
        .map_err(BootError::io("making a directory for the machine's disks"))?;
    let mut state = State::default();
    let (mut disk, mut format, mut machine) =
        (test.disk.to_owned(), test.format, test.machine.clone());
    // What the legs have left over the disk.
    let mut below: Vec<PathBuf> = Vec::new();
    let mut reports = Vec::new();
    for (index, leg) in legs.iter().enumerate() {
        progress(Progress::Leg(index + 1, legs.len(), &leg.name));
        let next = directory.path().join(format!("{}.qcow2", index + 1));
        let evidence = test.evidence.map(|evidence| evidence.join((index + 1).to_string()));
        let (errand, servers) = errand(leg, state.edited)?;
        let blank = leg.install().map(|install| blank(install, directory.path())).transpose()?;
        let disks = blank.as_ref().map(|(file, bus)| Attached { file, bus: *bus, serial: "blank" });
        let layers: Vec<&Path> = below.iter().map(PathBuf::as_path).collect();
        let boot_report = boot(
            &Test {
                disk: &disk,
                format,
                below: &layers,
                machine: machine.clone(),
                disk_afterwards: blank.is_none().then_some(&next),
                evidence: evidence.as_deref(),
                session: Session {
                    errand: (!errand.is_empty()).then_some(errand.as_str()),
                    ending: leg.ending,
                    variables: Some(&directory.path().join("variables")),
                    network: !servers.is_empty(),
                    disks: disks.as_slice(),
                    ..Session::default()
                },
                ..test.clone()
            },
            &mut |news| progress(Progress::Boot(news)),
            stop,
        )?;
        match blank {
            Some(installed) => {
                (disk, machine.bus) = installed;
                format = Some(DiskFormat::Raw);
                below.clear();
            }
            None => below.push(next),
        }
        let report = state.judge(leg, boot_report);
        let failed = !report.boot.passed();
        reports.push(report);
        if failed {
            break;
        }
    }
    let report = ChainReport {
        verdict: verdict(&reports),
        seconds: reports.iter().map(|leg| leg.boot.seconds).sum(),
        legs: reports,
    };
    if let Some(evidence) = test.evidence {
        keep(&report, evidence)?;
    }
    Ok(report)
}

fn verdict(legs: &[LegReport]) -> Verdict {
    match legs.last().map(|leg| (&leg.name, &leg.boot.verdict)) {
        Some((name, Verdict::Failed { reason })) => {
            Verdict::Failed { reason: format!("leg {} ({name}): {reason}", legs.len()) }
        }
        Some((name, Verdict::Error { reason })) => {
            Verdict::Error { reason: format!("leg {} ({name}): {reason}", legs.len()) }
        }
        _ => Verdict::Passed,
    }
}

fn keep(report: &ChainReport, evidence: &Path) -> Result<(), BootError> {
    let file = evidence.join("chain.json");
    let doing = || BootError::io(format!("writing {}", file.display()));
    let text = serde_json::to_string_pretty(report).map_err(|error| doing()(error.into()))?;
    std::fs::write(&file, text + "\n").map_err(doing())
}

/// An empty disk to install to, and how it is attached.
fn blank(install: &Install, directory: &Path) -> Result<(PathBuf, DiskBus), BootError> {
    let file = directory.join("blank.raw");
    File::create_new(&file)
        .and_then(|disk| disk.set_len(install.size))
        .map_err(BootError::io("making an empty disk"))?;
    Ok((file, install.bus))
}

/// The script of a leg, empty if there is nothing to do, and the servers it needs, which must outlive it.
fn errand(leg: &Leg<'_, Update>, edited: bool) -> Result<(String, Vec<Server>), BootError> {
    let (mut script, mut servers) = (String::new(), Vec::new());
    if edited && !leg.ending_is_early() {
        script.push_str(KEPT);
    }
    for deed in &leg.deeds {
        let part = match deed {
            Deed::Do(script) => (*script).to_owned(),
            Deed::Install(install) => install.command.clone(),
            Deed::Rollback => ROLLBACK.to_owned(),
            // What idles out does so while nothing looks at it.
            Deed::Idle(seconds) => format!("sleep {seconds}"),
            Deed::Upgrade(Update { commit, references, site, .. }) => {
                let server = Server::start(Arc::clone(site))?;
                let names = references.join(" ");
                let head = format!("url={}\ncommit={commit}\nnames='{names}'\n", server.url());
                servers.push(server);
                head + UPGRADE
            }
        };
        // A shell of its own for each: none sees the others' variables, and each ends for itself.
        script.push_str(&format!("(\n{part}\n) || exit\n"));
    }
    Ok((script, servers))
}

/// What the steps so far have made of the disk.
#[derive(Debug, Default)]
struct State {
    /// Any of these may run next; empty: whatever is on the disk.
    next: Vec<String>,
    /// What ran last, and before that what was not the same.
    ran: Option<String>,
    before: Option<String>,
    /// Whether something was changed in `/etc`, for good.
    edited: bool,
}

impl State {
    /// Adds to a leg's report whether what ran is what the steps before have led to; and what they lead to now.
    fn judge(&mut self, leg: &Leg<'_, Update>, mut boot: BootReport) -> LegReport {
        let commit = booted(&boot.guest);
        if let (Some(commit), false) = (&commit, self.next.is_empty()) {
            let right = self.next.contains(commit);
            let short = |commit: &String| commit.chars().take(12).collect::<String>();
            let detail = if right {
                short(commit)
            } else {
                let wanted: Vec<String> = self.next.iter().map(short).collect();
                format!("{} runs, not {}", short(commit), wanted.join(" or "))
            };
            boot.expect(Check::new("commit", right, detail));
        }
        if let Some(commit) = &commit
            && self.ran.as_ref() != Some(commit)
        {
            self.before = self.ran.replace(commit.clone());
        }
        self.lead_on(leg);
        LegReport { name: leg.name.clone(), commit, boot }
    }

    fn lead_on(&mut self, leg: &Leg<'_, Update>) {
        let Some(running) = self.ran.clone() else { return };
        let mut next = running.clone();
        for deed in &leg.deeds {
            match deed {
                Deed::Upgrade(update) => {
                    next.clone_from(&update.commit);
                    // A leg that was cut off may have lost it.
                    self.edited |= !leg.ending_is_early();
                }
                Deed::Rollback => next = self.before.clone().unwrap_or_default(),
                Deed::Do(_) | Deed::Idle(_) | Deed::Install(_) => {}
            }
        }
        self.next = match leg.ending {
            // Whatever had become of it then, it is one or the other.
            Ending::CutAt(_) | Ending::CutAfter(..) | Ending::CutAtText(_) => vec![running, next],
            Ending::PowerOff | Ending::Reboot => vec![next],
        };
        self.next.retain(|commit| !commit.is_empty());
    }
}

impl<U> Leg<'_, U> {
    /// Whether the plug is pulled at a time that depends on what the guest does.
    fn ending_is_early(&self) -> bool {
        self.ending.is_cut()
    }
}

/// The commit of the deployment that `ostree admin status` marks with a star.
fn booted(guest: &Guest) -> Option<String> {
    let line =
        guest.fact("ostree")?.lines().find_map(|line| line.trim_start().strip_prefix("* "))?;
    let (commit, _) = line.split_whitespace().nth(1)?.split_once('.')?;
    let sound = commit.len() == 64 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| commit.to_owned())
}

#[cfg(test)]
#[path = "chain/tests.rs"]
mod tests;
