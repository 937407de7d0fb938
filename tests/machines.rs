//! `bootpress test` and `bootpress run` as processes: what signals do to them, and what a person at a terminal sees.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::termios::tcgetattr;
use nix::unistd::Pid;
use support::boot_sector::{Then, disk};
use support::tool;

#[path = "machines/disks.rs"]
mod disks;
#[path = "machines/host.rs"]
mod host;

const PATIENCE: Duration = Duration::from_secs(60);

/// bootpress with its temporary files in a directory of the test's own.
fn bootpress(directory: &Path) -> Command {
    let mut command = support::bootpress();
    command.env("TMPDIR", directory.join("tmp")).current_dir(directory);
    fs::create_dir_all(directory.join("tmp")).unwrap();
    command
}

/// Processes whose command line names the directory: machines, their TPMs, and what is to end them.
fn processes(directory: &Path) -> Vec<String> {
    let name = directory.to_str().unwrap().as_bytes();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.windows(name.len()).any(|part| part == name))
        .map(|line| String::from_utf8_lossy(&line).chars().take(60).collect())
        .collect()
}

/// Held while a process is started, and while there is a terminal that it would inherit: one that others hold never goes away.
static STARTING: Mutex<()> = Mutex::new(());

fn start(command: &mut Command) -> Child {
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// The two ends of a terminal, which no process inherits but as what it is given.
fn terminal(size: &Winsize) -> OpenptyResult {
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = openpty(size, None).unwrap();
    for end in [&ends.master, &ends.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    ends
}

/// Waits for something to become true.
#[track_caller]
fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "{what}: not in {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the end of bootpress", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Two machines with a TPM each, interrupted in two ways: by a signal to bootpress alone, and as a terminal does it, to all of
/// its process group.
#[test]
fn ctrl_c_leaves_no_process_and_no_file() {
    for program in ["qemu-system-x86_64", "swtpm"] {
        if tool::tool(program).is_none() {
            return;
        }
    }
    for (signal, group) in [(Signal::SIGTERM, false), (Signal::SIGINT, true)] {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        for name in ["a.raw", "b.raw"] {
            fs::write(place.join(name), disk("waiting\r\n", Then::Halt)).unwrap();
        }
        let mut command = bootpress(place);
        command
            .args(["test", "a.raw", "b.raw", "--jobs", "2", "--report", "junit=report.xml"])
            .args(["--firmware", "bios", "--memory", "64", "--tpm", "swtpm", "--arch", "x86_64"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = start(&mut command);
        let of = |name: &str| processes(place).iter().filter(|line| line.contains(name)).count();
        until("two machines", || of("qemu-system") == 2 && of("swtpm") == 2);
        thread::sleep(Duration::from_millis(300));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        if group {
            killpg(pid, signal).unwrap()
        } else {
            kill(pid, signal).unwrap()
        }
        let asked = Instant::now();
        assert_eq!(ended(&mut child).code(), Some(130), "{signal}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        until("no process", || processes(place).is_empty());
        let left: Vec<_> = fs::read_dir(place.join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!place.join("report.xml").exists(), "half a report");
    }
}

/// A program at a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    slave: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = terminal(&size);
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = start(command.stdin(end()).stdout(end()).stderr(end()));
        drop(command);
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&seen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                shown.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard, slave, seen }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown().contains(text) {
            assert!(Instant::now() < deadline, "`{text}` is not in: {}", self.shown());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn types(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }
}

#[test]
fn a_machine_at_the_terminal_is_used_left_and_forgotten() {
    if tool::tool("qemu-system-x86_64").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let before = disk("type something\r\n", Then::Echo);
    for write in [false, true] {
        fs::write(place.join("a.raw"), &before).unwrap();
        let mut command = bootpress(place);
        command.args(["run", "a.raw", "--firmware", "bios", "--memory", "64", "--arch", "x86_64"]);
        command.args(write.then_some("--write"));
        let mut terminal = Terminal::start(command);
        let usual = tcgetattr(&terminal.slave).unwrap();
        terminal.shows("Ctrl-a x ends the machine");
        terminal.shows("type something");
        terminal.shows("\n>");
        // Letters are the guest's, and so is Ctrl-C; nobody else shows them.
        terminal.types(b"<one\x03two>");
        terminal.shows("<one\u{3}two>");
        assert_eq!(terminal.child.try_wait().unwrap(), None, "Ctrl-C is the guest's");
        assert_eq!(terminal.shown().matches("<one").count(), 1, "{}", terminal.shown());
        terminal.types(b"\x01x");
        assert!(ended(&mut terminal.child).success(), "{}", terminal.shown());
        assert_eq!(tcgetattr(&terminal.slave).unwrap(), usual, "the terminal is as it was");
        let after = fs::read(place.join("a.raw")).unwrap();
        assert_eq!(after != before, write, "the guest has written a sector");
        assert_eq!(fs::read_dir(place.join("tmp")).unwrap().count(), 0);
    }
}

/// Who closes the window has left; where no session tells bootpress so by a signal, the terminal's end does.
#[test]
fn a_terminal_that_goes_away_takes_its_machine_along() {
    if tool::tool("qemu-system-x86_64").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    fs::write(place.join("a.raw"), disk("waiting\r\n", Then::Halt)).unwrap();
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = terminal(&size);
    let end = || Stdio::from(slave.try_clone().unwrap());
    let mut command = bootpress(place);
    command
        .args(["run", "a.raw", "--firmware", "bios", "--memory", "64", "--arch", "x86_64"])
        .stdin(end())
        .stdout(end())
        .stderr(end());
    let mut child = start(&mut command);
    // It has the other end, too.
    drop(command);
    drop(slave);
    let (mut screen, mut shown) = (File::from(master), Vec::new());
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&shown).contains("waiting") {
        let count = screen.read(&mut buffer).unwrap();
        shown.extend_from_slice(&buffer[..count]);
    }
    drop(screen);
    assert_eq!(ended(&mut child).code(), Some(130));
    until("no process", || processes(place).is_empty());
    assert_eq!(fs::read_dir(place.join("tmp")).unwrap().count(), 0);
}

/// The table while machines run, as a person sees it.
#[test]
fn a_terminal_shows_how_far_each_machine_is() {
    if tool::tool("qemu-system-x86_64").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let text = "\r\nLinux version 7\r\nx login: ";
    for name in ["a.raw", "b.raw"] {
        fs::write(place.join(name), disk(text, Then::Halt)).unwrap();
    }
    let mut command = bootpress(place);
    command.env("TERM", "xterm").args(["test", "a.raw", "b.raw", "--jobs", "2", "--timeout", "10"]);
    command.args(["--accept", "login", "--firmware", "bios", "--memory", "64", "--arch", "x86_64"]);
    let mut terminal = Terminal::start(command);
    terminal.shows("0 of 2 done");
    terminal.shows("running after");
    assert!(ended(&mut terminal.child).success(), "{}", terminal.shown());
    terminal.shows(", login prompt");
    let shown = terminal.shown();
    let last =
        shown.lines().filter(|line| line.contains("passed") && line.contains("b.raw")).count();
    assert!(last > 0, "{shown}");
}
