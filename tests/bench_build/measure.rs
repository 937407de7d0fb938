//! What a command costs as a whole process: time, processor time, peak memory, bytes that went to the device.
//!
//! ```text
//! benchmark ─► helper (this program, anew, small) ─► command
//! ```
//!
//! A child's peak memory begins with its parent's at the time of the fork, and `RUSAGE_CHILDREN` is the largest of all children:
//! so each command has a parent of its own, which is small and has no other child.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, exit};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Tells the benchmark's program to be the helper; the file for the figures and the command follow.
pub(crate) const HELPER: &str = "--measure";

/// What a command cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of processors, the kernel's included.
    pub(crate) cpu: f64,
    /// Bytes of memory at the most.
    pub(crate) memory: u64,
    /// Bytes for the device: what became dirty, without what was thrown away before it was written.
    pub(crate) written: u64,
}

impl Cost {
    /// The best of two in each respect: what disturbs a run only adds.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.min(other.memory),
            written: self.written.min(other.written),
        }
    }
}

/// Runs a command that must succeed; what it printed on standard output, and what it cost.
pub(crate) fn measured(command: &Command, place: &Path) -> (String, Cost) {
    let figures = place.join("figures.json");
    let mut helper = Command::new(env::current_exe().unwrap());
    helper.arg(HELPER).arg(&figures).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => helper.env(name, value),
            None => helper.env_remove(name),
        };
    }
    let Output { status, stdout, stderr } = helper.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    let figures: Value = serde_json::from_slice(&fs::read(&figures).unwrap()).unwrap();
    let cost = Cost {
        wall: figures["wall"].as_f64().unwrap(),
        cpu: figures["cpu"].as_f64().unwrap(),
        memory: figures["memory"].as_u64().unwrap(),
        written: figures["written"].as_u64().unwrap(),
    };
    (String::from_utf8(stdout).unwrap(), cost)
}

/// The helper's life: runs one command and writes its figures into a file.
pub(crate) fn help(mut arguments: impl Iterator<Item = OsString>) -> ! {
    let figures = arguments.next().unwrap();
    let mut command = Command::new(arguments.next().unwrap());
    command.args(arguments);
    let begin = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let id = Pid::from_raw(child.id().try_into().unwrap());
    // It has ended, but its accounts can still be read.
    waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    let wall = begin.elapsed().as_secs_f64();
    let io = fs::read_to_string(format!("/proc/{id}/io")).unwrap_or_default();
    let status = child.wait().unwrap();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    let field = |name: &str| -> u64 {
        let lines = io.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    let told = json!({
        "wall": wall,
        "cpu": seconds(usage.user_time()) + seconds(usage.system_time()),
        "memory": usage.max_rss() * 1024,
        "written": field("write_bytes").saturating_sub(field("cancelled_write_bytes")),
    });
    fs::write(figures, told.to_string()).unwrap();
    exit(status.code().unwrap_or(1))
}
