//! A running QEMU: what it says on three sockets, as one stream of events, and its end.
//!
//! QEMU connects to us, not we to it: the sockets listen before it starts, so there is nothing to wait for and nothing to
//! miss. It starts paused and is released when all listeners are in place.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::error::BootError;
use crate::program;
use crate::qmp::{Message, Qmp};

/// How long QEMU may take to open its sockets and answer. It takes 0.1 s; a machine with many busy neighbours, more.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How often, every 20 ms, it is asked whether a QEMU that does not listen has ended.
const LAST_MOMENTS: u32 = 50;

/// Events that may wait: enough to never slow the guest, few enough to bound memory.
const PENDING: usize = 1024;

/// Something that QEMU or its guest said.
#[derive(Debug)]
pub(crate) enum Event {
    /// On the serial console.
    Console(Vec<u8>),
    /// On the report port.
    Report(Vec<u8>),
    /// QEMU itself.
    Qmp(Message),
    /// One of the three ended.
    Closed,
}

/// An event and its time since power-on.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) at: Duration,
    pub(crate) event: Event,
}

/// What came of waiting for an event.
#[derive(Debug)]
pub(crate) enum Next {
    /// This did.
    Event(Timed),
    /// Nothing yet.
    Silence,
    /// Nothing more: QEMU has ended.
    Ended,
}

/// The listening ends of the three sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    directory: PathBuf,
    console: UnixListener,
    report: UnixListener,
    qmp: UnixListener,
}

impl Sockets {
    /// Listens in a directory, whose path must leave room in the 108 bytes of a socket's name.
    pub(crate) fn listen(directory: &Path) -> Result<Self, BootError> {
        let listen = |name: &str| {
            let path = directory.join(name);
            let listener = UnixListener::bind(&path).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            listener.map_err(BootError::io(format!("listening on {}", path.display())))
        };
        Ok(Self {
            directory: directory.to_owned(),
            console: listen("console")?,
            report: listen("report")?,
            qmp: listen("qmp")?,
        })
    }

    /// Where a socket is: `console`, `report` or `qmp`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// A running QEMU. Dropping it ends it. The thread that starts it must outlive it: QEMU dies with that thread.
#[derive(Debug)]
pub(crate) struct Vm {
    child: Child,
    stderr: PathBuf,
    qmp: Qmp,
    /// The console's other direction.
    keyboard: UnixStream,
    events: Receiver<Timed>,
    open: usize,
    started: Instant,
}

impl Vm {
    /// Starts QEMU and lets the guest run; power-on is when this returns.
    pub(crate) fn start(
        program: &Path,
        arguments: &[std::ffi::OsString],
        sockets: &Sockets,
    ) -> Result<Self, BootError> {
        let stderr = sockets.path("stderr");
        let errors =
            File::create(&stderr).map_err(BootError::io("making a file for QEMU's messages"))?;
        let mut command: Command = program::mortal(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        // A group of its own: the terminal's Ctrl-C is for us, who then end QEMU and clean up.
        command.process_group(0);
        let child =
            command.spawn().map_err(BootError::io(format!("starting {}", program.display())))?;
        let mut starting = Starting {
            child: Some(child),
            stderr: &stderr,
            deadline: Instant::now() + START_LIMIT,
        };

        let console = starting.accept(&sockets.console)?;
        let report = starting.accept(&sockets.report)?;
        let control = starting.accept(&sockets.qmp)?;
        let (qmp, mut messages) = control
            .set_read_timeout(Some(START_LIMIT))
            .and_then(|()| Qmp::connect(control))
            .map_err(|error| starting.failed(&error.to_string()))?;
        let listening = BootError::io("listening to QEMU");
        messages.lines.get_mut().set_read_timeout(None).map_err(listening)?;

        let (sender, events) = sync_channel(PENDING);
        let started = Instant::now();
        let keyboard = console.try_clone().map_err(BootError::io("opening the console"))?;
        let child = starting.done();
        let mut vm = Self { child, stderr, qmp, keyboard, events, open: 3, started };
        let closed = move |sender: &SyncSender<Timed>| {
            // Nobody listens any more when this fails, and that is fine.
            let _ = sender.send(Timed { at: started.elapsed(), event: Event::Closed });
        };
        for (stream, event) in
            [(console, Event::Console as fn(Vec<u8>) -> Event), (report, Event::Report)]
        {
            let sender = sender.clone();
            thread::spawn(move || {
                forward(stream, |bytes| {
                    sender.send(Timed { at: started.elapsed(), event: event(bytes) }).is_ok()
                });
                closed(&sender);
            });
        }
        thread::spawn(move || {
            while let Ok(message) = messages.read() {
                if sender.send(Timed { at: started.elapsed(), event: Event::Qmp(message) }).is_err()
                {
                    break;
                }
            }
            closed(&sender);
        });
        vm.ask(&json!({ "execute": "cont" })).map_err(BootError::io("switching the machine on"))?;
        Ok(vm)
    }

    /// Sends QEMU a command; the answer is an event.
    pub(crate) fn ask(&mut self, command: &Value) -> io::Result<()> {
        self.qmp.send(command)
    }

    /// Types at the console.
    pub(crate) fn enter(&mut self, text: &str) -> io::Result<()> {
        self.keyboard.write_all(text.as_bytes())
    }

    /// What was said over QMP.
    pub(crate) fn transcript(&self) -> String {
        self.qmp.transcript.text()
    }

    /// Since power-on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// QEMU's version.
    pub(crate) fn version(&self) -> String {
        self.qmp.version.clone()
    }

    /// Waits for an event.
    pub(crate) fn next(&mut self, patience: Duration) -> Next {
        match self.events.recv_timeout(patience) {
            Ok(Timed { event: Event::Closed, .. }) => {
                self.open -= 1;
                if self.open == 0 { Next::Ended } else { Next::Silence }
            }
            Ok(timed) => Next::Event(timed),
            Err(RecvTimeoutError::Timeout) => Next::Silence,
            Err(RecvTimeoutError::Disconnected) => Next::Ended,
        }
    }

    /// Waits for QEMU's end; `None` if it does not come in time.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                _ => return None,
            }
        }
    }

    /// QEMU's process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// How many bytes QEMU has printed about itself.
    pub(crate) fn message_length(&self) -> u64 {
        fs::metadata(&self.stderr).map_or(0, |metadata| metadata.len())
    }

    /// What QEMU printed about itself.
    pub(crate) fn messages(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).trim().to_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A QEMU that does not yet listen; ended if anything goes wrong before it does.
struct Starting<'a> {
    child: Option<Child>,
    stderr: &'a Path,
    deadline: Instant,
}

impl Starting<'_> {
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream, BootError> {
        loop {
            match listener.accept() {
                Ok((stream, _)) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(BootError::io("waiting for QEMU to connect")(error)),
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(self.failed(&status.to_string()));
            }
            if Instant::now() > self.deadline {
                return Err(self.failed(&format!("no answer within {} s", START_LIMIT.as_secs())));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Why QEMU does not listen: what it said, and how it ended, or else `how`.
    fn failed(&mut self, how: &str) -> BootError {
        // One that hangs up is about to end.
        let mut ended = None;
        for _ in 0..LAST_MOMENTS {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let how = ended.map_or_else(|| how.to_owned(), |status: ExitStatus| status.to_string());
        let said =
            String::from_utf8_lossy(&fs::read(self.stderr).unwrap_or_default()).trim().to_owned();
        let reason = if said.is_empty() { how } else { format!("{said} ({how})") };
        BootError::Start { program: "QEMU".to_owned(), reason }
    }

    fn done(mut self) -> Child {
        self.child.take().expect("taken once, at the end")
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

/// Ends QEMU and whatever it started. A process that was already waited for is left alone: its number may be another's.
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let group = i32::try_from(child.id()).map(Pid::from_raw);
        let killed = group.is_ok_and(|group| killpg(group, Signal::SIGKILL).is_ok());
        // Neither failure can be answered with more than what is done here.
        let _ = if killed { Ok(()) } else { child.kill() };
        let _ = child.wait();
    }
}

fn forward(mut stream: UnixStream, mut to: impl FnMut(Vec<u8>) -> bool) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if !to(buffer[..count].to_vec()) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
