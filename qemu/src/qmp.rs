//! QEMU's machine protocol: a JSON object to a line, a greeting first, events at any time.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

/// A line from QEMU, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// QEMU's version, `7.2.22`.
    Greeting { version: String },
    /// A command was done, and gave this.
    Return { id: String, value: Value },
    /// A command was refused.
    Error { id: String, description: String },
    /// The machine was switched off or reset.
    Shutdown { guest: bool, reason: String },
    /// The guest reset the machine, which runs on: only those do that were not told to end then.
    Reset,
    /// The machine stands still. Nobody here ever asks for that.
    Stopped,
    /// The guest's kernel told its panic device that it panicked, or that it goes on with its crash kernel.
    Panicked,
    /// The guest put the machine to sleep.
    Suspended,
    /// The guest's watchdog was not fed.
    Watchdog,
    /// A disk's file could not be read or written; the guest waits.
    DiskFailed { write: bool, reason: String },
    /// The file of a node does not make sense.
    DiskCorrupt { node: String, reason: String },
    /// Anything else.
    Other,
}

impl Message {
    /// Reads a line, which may be anything.
    pub(crate) fn parse(line: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return Self::Other };
        let text = |pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        if let Some(version) = value.pointer("/QMP/version/qemu") {
            let part = |name: &str| version.get(name).and_then(Value::as_u64).unwrap_or_default();
            return Self::Greeting {
                version: format!("{}.{}.{}", part("major"), part("minor"), part("micro")),
            };
        }
        if value.get("error").is_some() {
            return Self::Error { id: text("/id"), description: text("/error/desc") };
        }
        if value.get("return").is_some() {
            let given = value.get("return").cloned().unwrap_or_default();
            return Self::Return { id: text("/id"), value: given };
        }
        match value.get("event").and_then(Value::as_str) {
            Some("SHUTDOWN") => Self::Shutdown {
                guest: value.pointer("/data/guest").and_then(Value::as_bool).unwrap_or_default(),
                reason: text("/data/reason"),
            },
            Some("RESET")
                if value.pointer("/data/guest").and_then(Value::as_bool) == Some(true) =>
            {
                Self::Reset
            }
            Some("STOP") => Self::Stopped,
            Some("GUEST_PANICKED" | "GUEST_CRASHLOADED") => Self::Panicked,
            Some("SUSPEND" | "SUSPEND_DISK") => Self::Suspended,
            Some("WATCHDOG") => Self::Watchdog,
            Some("BLOCK_IO_ERROR") if text("/data/action") == "stop" => Self::DiskFailed {
                write: text("/data/operation") != "read",
                reason: text("/data/reason"),
            },
            Some("BLOCK_IMAGE_CORRUPTED") => {
                Self::DiskCorrupt { node: text("/data/node-name"), reason: text("/data/msg") }
            }
            _ => Self::Other,
        }
    }
}

/// How many lines are remembered. A boot has some hundred; a guest can make QEMU announce more.
const REMEMBERED: usize = 20_000;

/// What was said on both sides, with times.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    lines: Arc<Mutex<Vec<String>>>,
    since: Instant,
}

impl Transcript {
    fn new() -> Self {
        Self { lines: Arc::default(), since: Instant::now() }
    }

    /// `->` for what we said, `<-` for QEMU.
    fn note(&self, arrow: &str, line: &str) {
        // A thread that panicked over it leaves the lines as good as they were.
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.len() < REMEMBERED {
            let seconds = self.since.elapsed().as_secs_f64();
            lines.push(format!("[{seconds:9.3}] {arrow} {}\n", line.trim_end()));
        }
    }

    /// All of it, a line to a message.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).concat()
    }
}

/// The half that asks.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    /// QEMU's version, as it says itself.
    pub(crate) version: String,
    pub(crate) transcript: Transcript,
}

/// The half that listens.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(crate) lines: BufReader<UnixStream>,
    transcript: Transcript,
}

impl Qmp {
    /// Shakes hands; also gives the half that listens. Blocks as long as the stream's time limit allows.
    pub(crate) fn connect(stream: UnixStream) -> io::Result<(Self, Messages)> {
        let transcript = Transcript::new();
        let lines = BufReader::new(stream.try_clone()?);
        let mut messages = Messages { lines, transcript: transcript.clone() };
        let Message::Greeting { version } = messages.read()? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "QEMU did not greet"));
        };
        let mut qmp = Self { stream, version, transcript };
        qmp.send(&json!({ "execute": "qmp_capabilities" }))?;
        match messages.read()? {
            Message::Return { .. } => Ok((qmp, messages)),
            other => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("QEMU answered {other:?}")))
            }
        }
    }

    /// Asks for a command, `{"execute": …, "arguments": …, "id": …}`; the answer comes on the other half and bears the id.
    pub(crate) fn send(&mut self, command: &Value) -> io::Result<()> {
        let mut line = command.to_string();
        self.transcript.note("->", &line);
        line.push('\n');
        self.stream.write_all(line.as_bytes())
    }
}

impl Messages {
    /// Reads a message; the end of the stream is an error.
    pub(crate) fn read(&mut self) -> io::Result<Message> {
        let mut line = Vec::new();
        if self.lines.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&line);
        self.transcript.note("<-", &line);
        Ok(Message::parse(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn events_and_answers_are_told_apart() {
        let shutdown = r#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(
            Message::parse(shutdown),
            Message::Shutdown { guest: true, reason: "guest-reset".to_owned() }
        );
        let done = |value: Value| Message::Return { id: "screen".to_owned(), value };
        assert_eq!(Message::parse(r#"{"return": {}, "id": "screen"}"#), done(json!({})));
        assert_eq!(Message::parse(r#"{"return": "CPU#0", "id": "screen"}"#), done(json!("CPU#0")));
        let reset = r#"{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(Message::parse(reset), Message::Reset);
        assert_eq!(Message::parse(&reset.replace("true", "false")), Message::Other);
        let error = r#"{"error": {"class": "GenericError", "desc": "no"}}"#;
        let refused = Message::Error { id: String::new(), description: "no".to_owned() };
        assert_eq!(Message::parse(error), refused);
        let disk = r#"{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "operation": "write", "reason": "No space left on device"}}"#;
        let reason = "No space left on device".to_owned();
        assert_eq!(Message::parse(disk), Message::DiskFailed { write: true, reason });
        let corrupt = r#"{"event": "BLOCK_IMAGE_CORRUPTED", "data": {"node-name": "base", "msg": "no", "fatal": true}}"#;
        let told = Message::DiskCorrupt { node: "base".to_owned(), reason: "no".to_owned() };
        assert_eq!(Message::parse(corrupt), told);
        for (event, message) in [
            ("STOP", Message::Stopped),
            ("GUEST_PANICKED", Message::Panicked),
            ("SUSPEND", Message::Suspended),
            ("WATCHDOG", Message::Watchdog),
        ] {
            assert_eq!(Message::parse(&format!(r#"{{"event": "{event}"}}"#)), message);
        }
        for line in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"event": 3}"#,
            r#"{"QMP": 1}"#,
            r#"{"event": "RESET"}"#,
        ] {
            assert_eq!(Message::parse(line), Message::Other, "{line}");
        }
    }

    #[test]
    fn hands_are_shaken() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut lines = BufReader::new(theirs.try_clone().unwrap());
            let mut writer = theirs;
            writer.write_all(b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}}}}\n").unwrap();
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            writer.write_all(b"{\"return\": {}}\n").unwrap();
            line
        });
        let (qmp, _) = Qmp::connect(ours).unwrap();
        assert_eq!(qmp.version, "10.0.2");
        assert_eq!(server.join().unwrap(), "{\"execute\":\"qmp_capabilities\"}\n");
        let transcript = qmp.transcript.text();
        let arrows: Vec<_> = transcript.lines().map(|line| &line[12..14]).collect();
        assert_eq!(arrows, ["<-", "->", "<-"], "{transcript}");
    }
}
