//! A person at the serial console: a name, a wrong password, the right one, a command.

use support::bootpress;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// What is waited for, and what is typed then. The last ends the machine.
const CONVERSATION: [(&str, &str); 6] = [
    (" login: ", "alice\n"),
    ("Password: ", "open barley\n"),
    (" login: ", "alice\n"),
    ("Password: ", "open sesame\n"),
    // The answer cannot be the echo of the question.
    ("$ ", "echo $(id -un)-$((6 * 7))\n"),
    ("alice-42", "\u{1}x"),
];

/// An emulated machine with others beside it has been seen to take this long to its prompt.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Logs in on the serial console of a machine that `bootpress run` runs.
pub(crate) fn by_password(disk: &Path) {
    let mut machine = bootpress()
        .arg("run")
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keyboard, mut console) =
        (machine.stdin.take().unwrap(), machine.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = console.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let (mut said, mut seen, end) = (String::new(), 0, Instant::now() + PATIENCE);
    for (expected, typed) in CONVERSATION {
        loop {
            if let Some(at) = said[seen..].find(expected) {
                seen += at + expected.len();
                break;
            }
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => said += &String::from_utf8_lossy(&bytes),
                Err(problem) => {
                    // It may have ended by itself.
                    let _ = machine.kill();
                    let _ = machine.wait();
                    let why = match problem {
                        RecvTimeoutError::Timeout => "in time",
                        RecvTimeoutError::Disconnected => "before the machine ended",
                    };
                    panic!("no {expected:?} {why}:\n{said}");
                }
            }
        }
        // Whoever reads a password throws away what was typed before it asked.
        thread::sleep(Duration::from_secs(1));
        keyboard.write_all(typed.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }
    let ended = machine.wait().unwrap();
    assert!(ended.success(), "{ended}");
}
