//! The builds and boots of a compose, one process each.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use bootpress::report::human;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::manifest::{self, Image, Manifest, Test};
use super::state::{Item, Outcome, State};
use crate::cli::exit;
use crate::cli::say::say;

/// Bytes of the end of a log in which the error is looked for.
const TAIL: usize = 64 << 10;

/// A compose under way.
pub(super) struct Runner<'a> {
    manifest: &'a Manifest,
    /// Where relative paths of the manifest begin.
    base: PathBuf,
    /// The compose's directory, resolved.
    pub(super) root: PathBuf,
    program: PathBuf,
    pub(super) state: State,
}

/// Disks that are made by one build.
#[derive(Clone, Copy)]
struct Job<'a> {
    image: &'a Image,
    architecture: &'a str,
}

impl Job<'_> {
    fn key(&self, format: &str) -> String {
        format!("{}/{}/{format}", self.image.name, self.architecture)
    }
}

/// How a process ended.
struct Ended {
    code: Option<i32>,
    seconds: f64,
}

impl<'a> Runner<'a> {
    /// Looks at what is there already.
    pub(super) fn new(manifest: &'a Manifest, file: &Path, output: &Path) -> Result<Self> {
        let here = std::env::current_dir().context("looking at the current directory")?;
        let root = here.join(output);
        let state = State::load(&root, &manifest.compose.id)?;
        let program = std::env::current_exe().context("finding this program")?;
        Ok(Self { manifest, base: here.join(manifest::directory(file)), root, program, state })
    }

    /// Makes directories, and forgets what is not asked for any more.
    pub(super) fn prepare(&mut self) -> Result<()> {
        for directory in ["logs", "metadata", "tests"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path)
                .with_context(|| format!("creating directory {}", path.display()))?;
        }
        let (mut artifacts, mut tests) = (Vec::new(), Vec::new());
        for job in jobs(self.manifest) {
            for format in &job.image.formats {
                artifacts.push(job.key(format.name()));
                let wanted = job.image.tests.iter().filter(|test| fits(test, job, format.name()));
                tests
                    .extend(wanted.map(|test| format!("{}/{}", job.key(format.name()), test.name)));
            }
        }
        if self.manifest.compose.check.is_some() {
            tests.extend(jobs(self.manifest).map(|job| job.key("check")));
        }
        self.state.artifacts.retain(|key, _| artifacts.contains(key));
        self.state.tests.retain(|key, _| tests.contains(key));
        Ok(())
    }

    /// What would be done, a line each.
    pub(super) fn planned(&self, tests: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for job in jobs(self.manifest) {
            for format in &job.image.formats {
                let key = job.key(format.name());
                let stands = self.stands(&key, job, format.name());
                lines.push(format!("{key}  {}", if stands { "is there" } else { "build" }));
                let wanted =
                    job.image.tests.iter().filter(|test| tests && fits(test, job, format.name()));
                lines.extend(wanted.map(|test| format!("{key}/{}  boot", test.name)));
            }
        }
        lines
    }

    fn stands(&self, key: &str, job: Job<'_>, format: &str) -> bool {
        let there = self.state.artifacts.get(key);
        there.is_some_and(|item| item.stands(&self.fingerprint(job, format), &self.root))
    }

    /// Judges the images by their rules. What does not pass blocks if the image's disks do, and is built all the same.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(options) = &self.manifest.compose.check else { return Ok(()) };
        for job in jobs(self.manifest) {
            let (source, key) = (job.image.source(job.architecture), job.key("check"));
            let fingerprint = format!("{source} {}", options.join(" "));
            let before = self.state.tests.get(&key);
            if before.is_some_and(|before| before.stands(&fingerprint, &self.root)) {
                continue;
            }
            let stem = format!("tests/{}-{}-check", job.image.name, job.architecture);
            let (log, report) = (format!("{stem}.txt"), format!("{stem}.json"));
            let mut form = std::ffi::OsString::from("json=");
            form.push(self.root.join(&report));
            let mut command = Command::new(&self.program);
            command.current_dir(&self.base).args(["check", &source, "--arch", job.architecture]);
            command.args(options).arg("--report").arg(form);
            say!("checking {}/{}", job.image.name, job.architecture);
            let ended = self.run(command, &self.root.join(&log))?;
            let passed = ended.code == Some(0);
            let item = Item {
                outcome: if passed { Outcome::Done } else { Outcome::Failed },
                blocking: job.image.blocking,
                fingerprint,
                seconds: ended.seconds,
                reason: (!passed).then(|| last_words(&self.root.join(&log))),
                file: self.root.join(&report).is_file().then_some(report),
                size: None,
                sha256: None,
                log: Some(log),
            };
            self.state.tests.insert(key, item);
            self.state.save(&self.root)?;
        }
        Ok(())
    }

    /// Builds what is missing.
    pub(super) fn build(&mut self) -> Result<()> {
        for job in jobs(self.manifest) {
            let all: Vec<&str> = job.image.formats.iter().map(|format| format.name()).collect();
            let missing: Vec<&str> = all
                .into_iter()
                .filter(|format| !self.stands(&job.key(format), job, format))
                .collect();
            if missing.is_empty() {
                continue;
            }
            let went_far = self.build_formats(job, &missing)?;
            let failed =
                |format: &&&str| self.state.artifacts[&job.key(format)].outcome != Outcome::Done;
            // What is wrong with one format must not take the others along; what is wrong with the image does.
            if went_far && missing.len() > 1 && missing.iter().any(|format| failed(&format)) {
                for format in &missing {
                    self.build_formats(job, &[format])?;
                }
            }
        }
        Ok(())
    }

    /// Builds formats in one go. Returns whether it got as far as the disk.
    fn build_formats(&mut self, job: Job<'_>, formats: &[&str]) -> Result<bool> {
        let stem = match formats {
            [format] => format!("{}-{}-{format}", job.image.name, job.architecture),
            _ => format!("{}-{}", job.image.name, job.architecture),
        };
        let logs = self.root.join("logs");
        let (log, events) = (format!("{stem}.log"), logs.join(format!("{stem}.events.jsonl")));
        let record = logs.join(format!("{stem}.build-metadata.json"));
        say!("building {}/{}: {}", job.image.name, job.architecture, formats.join(", "));
        let mut command = self.build_command(job, formats);
        command.args(["--progress", "lines"]);
        command.arg("--events").arg(&events).arg("--build-metadata").arg(&record);
        let ended = self.run(command, &logs.join(&log))?;
        let events = read_lines(&events);
        let went_far = events.iter().any(|event| event["stage"] == "laying out");
        let made: BTreeMap<String, Value> = match ended.code {
            Some(0) => artifacts(&events),
            _ => BTreeMap::new(),
        };
        let reason = self.reason(&events, &ended, &logs.join(&log));
        for format in formats {
            let found = made.get(*format);
            let path = found.and_then(|event| event["path"].as_str()).map(PathBuf::from);
            let item = Item {
                outcome: if path.is_some() { Outcome::Done } else { Outcome::Failed },
                blocking: self.is_blocking(job, format),
                fingerprint: self.fingerprint(job, format),
                seconds: ended.seconds,
                reason: path.is_none().then(|| reason.clone()),
                size: path.as_ref().and_then(|path| Some(path.metadata().ok()?.len())),
                file: path.as_ref().map(|path| self.below(path)),
                sha256: found.and_then(|event| event["sha256"].as_str().map(str::to_owned)),
                log: Some(format!("logs/{log}")),
            };
            let key = job.key(format);
            match (&item.reason, item.size) {
                (Some(reason), _) => say!("  {key} failed: {reason}"),
                (None, size) => say!("  {key} done, {}", human(size.unwrap_or(0))),
            }
            self.state.artifacts.insert(key, item);
        }
        self.state.save(&self.root)?;
        Ok(went_far)
    }

    fn is_blocking(&self, job: Job<'_>, format: &str) -> bool {
        let found = job.image.formats.iter().find(|one| one.name() == format);
        found.is_some_and(|one| one.is_blocking(job.image))
    }

    /// The build of some formats, without where its progress goes.
    fn build_command(&self, job: Job<'_>, formats: &[&str]) -> Command {
        let compose = &self.manifest.compose;
        let images = self.root.join(&compose.variant).join(job.architecture).join("images");
        let mut command = Command::new(&self.program);
        command.current_dir(&self.base).arg("build").arg(job.image.source(job.architecture));
        command.args(["--arch", job.architecture, "--format", &formats.join(",")]);
        // Behind a slash, so that it is a directory though it is not there yet.
        command.arg("--output").arg(images.join(""));
        command.args(["--compose-id", &compose.id, "--variant", &compose.variant]);
        command.args(["--subvariant", &job.image.name, "--name-template", &compose.name_template]);
        command.arg("--checksum").arg("--productmd").arg(self.root.join("metadata/images.json"));
        if !compose.sbom.is_empty() {
            command.arg("--sbom").arg(compose.sbom.join(","));
        }
        for signer in &compose.sign {
            command.args(["--sign", signer]);
        }
        command.args(&compose.options).args(&job.image.options);
        command
    }

    /// What a disk depends on besides the image's bytes: a compose is made of images as they are when it begins.
    fn fingerprint(&self, job: Job<'_>, format: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        for argument in self.build_command(job, &[format]).get_args() {
            hash.update(argument.as_encoded_bytes());
            hash.update([0]);
        }
        // Options may name files: a changed blueprint is another disk.
        for option in self.manifest.compose.options.iter().chain(&job.image.options) {
            let value = option.split_once('=').map_or(option.as_str(), |(_, value)| value);
            if let Ok(content) = fs::read(self.base.join(value)) {
                hash.update(Sha256::digest(content));
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Boots what is there and has not passed yet.
    pub(super) fn test(&mut self) -> Result<()> {
        for job in jobs(self.manifest) {
            for format in &job.image.formats {
                for test in job.image.tests.iter().filter(|test| fits(test, job, format.name())) {
                    self.test_one(&job.key(format.name()), test)?;
                }
            }
        }
        Ok(())
    }

    fn test_one(&mut self, artifact: &str, test: &Test) -> Result<()> {
        let key = format!("{artifact}/{}", test.name);
        let disk = &self.state.artifacts[artifact];
        let mut item = Item {
            outcome: Outcome::Skipped,
            blocking: test.blocking,
            fingerprint: format!(
                "{} {}",
                disk.sha256.as_deref().unwrap_or_default(),
                test.options.join(" ")
            ),
            seconds: 0.0,
            reason: None,
            file: None,
            size: None,
            sha256: None,
            log: None,
        };
        let before = self.state.tests.get(&key);
        if before.is_some_and(|before| before.stands(&item.fingerprint, &self.root)) {
            return Ok(());
        }
        let file = disk.file.clone().filter(|_| disk.outcome == Outcome::Done);
        match file {
            None => item.reason = Some("there is no disk to boot".to_owned()),
            Some(file) => self.boot(&key, &file, test, &mut item)?,
        }
        say!("  {key}: {}", item.reason.as_deref().unwrap_or(item.outcome.name()));
        self.state.tests.insert(key, item);
        self.state.save(&self.root)
    }

    fn boot(&self, key: &str, file: &str, test: &Test, item: &mut Item) -> Result<()> {
        let place = format!("tests/{}", key.replace('/', "-"));
        let directory = self.root.join(&place);
        fs::create_dir_all(&directory)
            .with_context(|| format!("creating directory {}", directory.display()))?;
        say!("booting {key}");
        let mut command = Command::new(&self.program);
        command.current_dir(&self.base).arg("test").arg(self.root.join(file));
        command.args(&test.options).arg("--evidence").arg(directory.join("evidence"));
        command.args(["--compose-id", &self.manifest.compose.id]);
        for (form, name) in [
            ("html", "report.html"),
            ("json", "report.json"),
            ("junit", "junit.xml"),
            ("resultsdb", "resultsdb.json"),
        ] {
            let mut report = std::ffi::OsString::from(format!("{form}="));
            report.push(directory.join(name));
            command.arg("--report").arg(report);
        }
        let log = format!("{place}/log.txt");
        let ended = self.run(command, &self.root.join(&log))?;
        item.seconds = ended.seconds;
        item.outcome = match ended.code {
            Some(0) => Outcome::Done,
            Some(1) => Outcome::Failed,
            _ => Outcome::Error,
        };
        let report = format!("{place}/report.html");
        item.file = self.root.join(&report).is_file().then_some(report);
        if item.outcome != Outcome::Done {
            let all = self.root.join(&log);
            item.reason = Some(match ended.code {
                Some(code) if code == i32::from(exit::HOST) => {
                    format!("this machine broke the boot: {}", last_words(&all))
                }
                _ => last_words(&all),
            });
        }
        item.log = Some(log);
        Ok(())
    }

    /// Judges the whole, and writes it down.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.state.releasable = self.state.blockers().is_empty();
        self.state.save(&self.root)
    }

    /// Runs a process with all that it says in a log.
    fn run(&self, mut command: Command, log: &Path) -> Result<Ended> {
        let context = || format!("writing {}", log.display());
        let file = File::create(log).with_context(context)?;
        command.stdin(Stdio::null()).stdout(file.try_clone().with_context(context)?).stderr(file);
        let began = Instant::now();
        let status =
            command.status().with_context(|| format!("starting {}", self.program.display()))?;
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        Ok(Ended { code: status.code(), seconds })
    }

    /// Why a build failed, in one line.
    fn reason(&self, events: &[Value], ended: &Ended, log: &Path) -> String {
        let told = events.iter().rev().find_map(|event| event["error"]["message"].as_str());
        match (told, ended.code) {
            (Some(told), _) => told.lines().next().unwrap_or_default().to_owned(),
            (None, None) => "the build was killed".to_owned(),
            (None, Some(_)) => last_words(log),
        }
    }

    fn below(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }
}

/// Builds, in the order of the manifest.
fn jobs(manifest: &Manifest) -> impl Iterator<Item = Job<'_>> {
    manifest.images.iter().flat_map(|image| {
        image.architectures.iter().map(move |architecture| Job { image, architecture })
    })
}

/// Whether a test is for a disk.
fn fits(test: &Test, job: Job<'_>, format: &str) -> bool {
    let names = |all: &[String], one: &str| all.is_empty() || all.iter().any(|other| other == one);
    names(&test.formats, format) && names(&test.architectures, job.architecture)
}

/// What events say of the files that were written, by format.
fn artifacts(events: &[Value]) -> BTreeMap<String, Value> {
    let outputs = events.iter().filter(|event| event["event"] == "output");
    let files = outputs.filter_map(|event| {
        let format = event["format"].as_str()?;
        Some((format.to_owned(), event.clone()))
    });
    files.collect()
}

/// Lines of JSON; what is not whole is left out.
fn read_lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The error in a log, else its last line.
fn last_words(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).into_owned();
    let lines = || tail.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines().rfind(|line| line.starts_with("error: ") || line.starts_with("failed"));
    told.or_else(|| lines().next_back()).unwrap_or("it said nothing").to_owned()
}
