//! Runs a case and holds it to its bounds.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::tiny_image::TinyImage;

/// Makes the input in a directory.
type Make = Box<dyn Fn(&Path) + Send + Sync>;

/// An input, how the program is called, and what it may cost.
pub(crate) struct Case {
    name: String,
    make: Make,
    arguments: Vec<String>,
    /// The exit codes of a user's fault, of what is not supported, and of corrupt input, if not a success.
    exit: i32,
    seconds: u64,
    mebibytes: u64,
}

impl Case {
    /// A case that has 20 seconds of processor time and 160 MiB; a build of a small image needs 30 MiB.
    pub(crate) fn new(
        name: impl Into<String>,
        exit: i32,
        arguments: &[&str],
        make: impl Fn(&Path) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            exit,
            seconds: 20,
            mebibytes: 160,
        }
    }

    /// A build of an image in a layout.
    pub(crate) fn image(name: impl Into<String>, exit: i32, image: TinyImage) -> Self {
        Self::build(name, exit, move |place| {
            image.write_oci_layout(&place.join("image"));
        })
    }

    /// A build of `oci:image`.
    pub(crate) fn build(
        name: impl Into<String>,
        exit: i32,
        make: impl Fn(&Path) + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, exit, &["build", "oci:image"], make)
    }

    /// More arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Other bounds.
    pub(crate) fn within(mut self, seconds: u64, mebibytes: u64) -> Self {
        (self.seconds, self.mebibytes) = (seconds, mebibytes);
        self
    }

    /// Runs it: the line of the golden file, and what is wrong whatever that file says.
    pub(crate) fn run(&self) -> (String, Vec<String>) {
        let place = tempfile::tempdir().unwrap();
        (self.make)(place.path());
        let before = names(place.path());
        let ended = self.start(place.path());
        let mut wrong = Vec::new();
        let mut check = |good: bool, what: String| {
            if !good {
                wrong.push(format!("{}: {what}\n{}", self.name, ended.errors));
            }
        };
        check(ended.code == Some(self.exit), format!("exit {:?}, not {}", ended.code, self.exit));
        check(ended.code.is_some(), format!("did not end in {:?}", ended.took));
        check(
            ended.busy < Duration::from_secs(self.seconds),
            format!("was busy for {:?}", ended.busy),
        );
        check(ended.peak >> 20 < self.mebibytes, format!("took {} MiB", ended.peak >> 20));
        check(!ended.errors.contains("panicked"), "panicked".to_owned());
        for (stream, text) in [("error", &ended.errors), ("output", &ended.output)] {
            let active = text.chars().find(|&c| c.is_control() && c != '\n' || c == '\u{202e}');
            check(active.is_none(), format!("{active:?} on standard {stream}"));
        }
        let kinds = ["error: ", "hint: ", "warning: ", "  "];
        let strange = ended.errors.lines().find(|line| !kinds.iter().any(|k| line.starts_with(k)));
        check(strange.is_none(), format!("{strange:?} on standard error"));
        let errors = ended.errors.lines().filter(|line| line.starts_with("error: ")).count();
        check(errors == usize::from(self.exit != 0), format!("{errors} errors are told"));
        if self.exit != 0 {
            check(names(place.path()) == before, "something was left behind".to_owned());
            check(ended.output.is_empty(), "a failure printed something".to_owned());
        }
        let told = ended.errors.lines().find(|line| line.starts_with("error: "));
        let told = told.map_or(String::new(), |line| format!(": {}", stable(&line[7..])));
        (format!("{}: exit {}{told}", self.name, self.exit), wrong)
    }

    fn start(&self, place: &Path) -> Ended {
        let place_of_streams = tempfile::tempdir().unwrap();
        let stream = |name: &str| place_of_streams.path().join(name);
        let mut command = support::bootpress();
        command.args(&self.arguments);
        if self.arguments[0] == "build" {
            // Bounds are those of reading, not of keeping layers for later builds.
            command.args(["--arch", "x86_64", "--progress", "none", "--no-cache"]);
        }
        let child = command
            .current_dir(place)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", place_of_streams.path())
            .stdin(Stdio::null())
            .stdout(File::create(stream("out")).unwrap())
            .stderr(File::create(stream("err")).unwrap())
            .spawn()
            .unwrap();
        // Other processes may keep the machine busy: then it takes longer, but not more of a processor's time.
        let (code, took, Cost { busy, peak }) =
            watch(child, Duration::from_secs(10 * self.seconds));
        let read = |name: &str| String::from_utf8(fs::read(stream(name)).unwrap()).unwrap();
        Ended { code, took, busy, peak, output: read("out"), errors: read("err") }
    }
}

/// How a run ended.
struct Ended {
    code: Option<i32>,
    took: Duration,
    /// Time of processors that it used.
    busy: Duration,
    /// The most bytes that it had in memory.
    peak: u64,
    output: String,
    errors: String,
}

/// What a run cost.
#[derive(Default)]
struct Cost {
    busy: Duration,
    peak: u64,
}

/// Waits for a process, and ends it when its time is over.
fn watch(mut child: Child, limit: Duration) -> (Option<i32>, Duration, Cost) {
    let began = Instant::now();
    let mut cost = Cost::default();
    loop {
        cost.peak = cost.peak.max(high_water(child.id()));
        cost.busy = cost.busy.max(processor_time(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), began.elapsed(), cost);
        }
        if began.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return (None, began.elapsed(), cost);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// `VmHWM` of a process, in bytes (proc(5)); 0 once it has ended, and as long as it is a copy of this one: the kernel wakes who
/// called vfork(2) a moment before the new program's memory replaces the caller's, and its name is set after both.
fn high_water(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    if !status.starts_with("Name:\tbootpress\n") {
        return 0;
    }
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    number.unwrap_or(0) << 10
}

/// Time that a process was busy, in the hundredths of a second of proc(5)'s `stat`, fields 14 and 15; 0 once it has ended.
fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field, the program's name, may have anything in it but ends with the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// Everything below a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack = vec![directory.to_owned()];
    while let Some(at) = stack.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            found.push(entry.path().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The line without what differs from run to run: digests depend on versions of compressors, ports are chosen by the kernel, and
/// which of several bad layers is met first is up to threads.
fn stable(line: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    const LAYER: &str = "unpacking layer ";
    let words = line.split(' ').map(|word| if word.len() > 300 { "(long)" } else { word });
    let mut line = words.collect::<Vec<_>>().join(" ");
    if let Some(at) = line.find(LAYER).map(|at| at + LAYER.len()) {
        let digits = line[at..].chars().take_while(char::is_ascii_digit).count();
        line.replace_range(at..at + digits, "N");
    }
    let mut from = 0;
    while let Some(at) = line[from..].find(HOST).map(|at| from + at + HOST.len()) {
        let digits = line[at..].chars().take_while(char::is_ascii_digit).count();
        line.replace_range(at..at + digits, "PORT");
        from = at;
    }
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find("sha256:") {
        let end = at + "sha256:".len();
        let hex = rest[end..].chars().take_while(char::is_ascii_hexdigit).count();
        out.push_str(&rest[..end]);
        out.push_str(if hex == 64 { "…" } else { &rest[end..end + hex] });
        rest = &rest[end + hex..];
    }
    out + rest
}
