//! Hosts that break, each in its own way, played by a stand-in for QEMU: none of it may be blamed on the disk, and in `auto` what
//! breaks under KVM passes under TCG.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use serde_json::Value;
use support::boot_sector::{Then, disk};
use support::tool;

use crate::{bootpress, start};

/// The stand-in's faults, and what the verdict says of them under KVM.
const FAULTS: [(&str, &str); 7] = [
    ("internal-error", "KVM internal error. Suberror: 1, emulation failure"),
    ("no-kvm", "Could not access KVM kernel module: No such file or directory"),
    ("abort", "failed to set MSR 0x10a to 0x69"),
    ("hang", "the firmware gave no sign of life in 7 s"),
    ("segv", "signal: 11 (SIGSEGV)"),
    ("io-error", "QEMU could not write the overlay: Input/output error"),
    ("none", ""),
];

/// No verdict may take longer that this machine's fault decides.
const LONGEST: f64 = 10.0;

/// A place with a disk and a PATH that begins with the stand-in. `None` without the programs that it takes.
struct Stage {
    directory: tempfile::TempDir,
    real: PathBuf,
}

/// What came of a boot.
struct Outcome {
    code: Option<i32>,
    result: Value,
    junit: String,
    said: String,
}

impl Stage {
    fn new(then: Then) -> Option<Self> {
        let real = PathBuf::from(tool::tool("qemu-system-x86_64")?.get_program());
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        fs::create_dir(place.join("bin")).unwrap();
        let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/qemu-stand-in");
        symlink(stand_in, place.join("bin/qemu-system-x86_64")).unwrap();
        fs::write(place.join("a.raw"), disk("\r\nLinux version 7\r\nx login: ", then)).unwrap();
        Some(Self { directory, real })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn boots(&self, fault: &str, scope: &str, flags: &[&str]) -> Outcome {
        let path = std::env::var("PATH").unwrap();
        let mut command = bootpress(self.directory.path());
        command
            .args(["test", "a.raw", "--firmware", "bios", "--memory", "64", "--arch", "x86_64"])
            .args(["--accept", "login", "--timeout", "10", "--evidence", "evidence"])
            .args(["--report", "junit=junit.xml"])
            .args(flags)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("STANDIN_REAL", &self.real)
            .env("STANDIN_LOG", self.path("starts"))
            .env("STANDIN_SCOPE", scope)
            .env("STANDIN", if fault == "none" { "works" } else { fault });
        let child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let output = child.wait_with_output().unwrap();
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        Outcome {
            code: output.status.code(),
            result: serde_json::from_str(&read("evidence/result.json")).unwrap_or_default(),
            junit: read("junit.xml"),
            said: said.concat(),
        }
    }

    /// What QEMU was started for, in order, without the questions about itself.
    fn starts(&self) -> Vec<String> {
        let starts = fs::read_to_string(self.path("starts")).unwrap_or_default();
        starts.lines().filter(|line| !line.starts_with("other")).map(str::to_owned).collect()
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Runs on each fault, some at a time: each machine is idle most of its time.
fn on_each_fault(check: impl Fn(&str, &str) + Sync) {
    for faults in FAULTS.chunks(4) {
        thread::scope(|scope| {
            for (fault, cause) in faults {
                let check = &check;
                scope.spawn(move || check(fault, cause));
            }
        });
    }
}

#[test]
fn broken_hosts_are_errors_with_their_cause() {
    on_each_fault(|fault, cause| {
        let Some(stage) = Stage::new(Then::Halt) else { return };
        let Outcome { code, result, junit, said } = stage.boots(fault, "kvm", &["--accel", "kvm"]);
        let (verdict, reason) = (text(&result, "/verdict"), text(&result, "/reason"));
        assert!(junit.contains("<testsuite name=\"a.raw on SeaBIOS, virtio\""), "{junit}");
        assert_eq!(stage.starts(), ["case kvm"], "{fault}: no trial where KVM was asked for");
        if fault == "none" {
            assert_eq!((code, verdict), (Some(0), "passed"), "{said}");
            return;
        }
        assert_eq!((code, verdict), (Some(5), "error"), "{fault}: {said}");
        assert!(reason.contains(cause), "{fault}: {reason}");
        assert!(junit.contains("<error type=\"host\""), "{junit}");
        let seconds =
            result["seconds"].as_f64().unwrap() - result["lost_seconds"].as_f64().unwrap();
        assert!(seconds < LONGEST, "{fault}: {seconds} s");
        eprintln!("{fault}: error after {seconds:.1} s: {reason}");
    });
}

#[test]
fn what_breaks_in_a_trial_of_kvm_is_booted_under_tcg() {
    on_each_fault(|fault, cause| {
        // It takes a disk to break this.
        if fault == "io-error" {
            return;
        }
        let Some(stage) = Stage::new(Then::Halt) else { return };
        let Outcome { code, result, said, .. } = stage.boots(fault, "kvm", &[]);
        assert_eq!((code, text(&result, "/verdict")), (Some(0), "passed"), "{fault}: {said}");
        let (name, why) =
            (text(&result, "/machine/accelerator/name"), text(&result, "/machine/accelerator/why"));
        if fault == "none" {
            assert_eq!(
                (name, stage.starts()),
                ("kvm", vec!["trial kvm".to_owned(), "case kvm".to_owned()])
            );
            return;
        }
        assert_eq!(name, "tcg", "{fault}");
        assert!(why.contains(cause), "{fault}: {why}");
        assert_eq!(result["earlier"], Value::Array(Vec::new()));
        assert_eq!(stage.starts(), ["trial kvm", "case tcg"], "{fault}");
        // It is known the next time.
        let again = stage.boots(fault, "kvm", &[]);
        let trials = stage.starts().iter().filter(|start| *start == "trial kvm").count();
        assert_eq!((again.code, trials), (Some(0), 1), "{fault}");
    });
}

#[test]
fn what_breaks_after_the_trial_is_booted_once_more_under_tcg() {
    on_each_fault(|fault, cause| {
        if fault == "none" {
            return;
        }
        let Some(stage) = Stage::new(Then::Halt) else { return };
        let Outcome { code, result, said, junit } = stage.boots(fault, "case", &[]);
        assert_eq!((code, text(&result, "/verdict")), (Some(0), "passed"), "{fault}: {said}");
        assert_eq!(stage.starts(), ["trial kvm", "case kvm", "case tcg"], "{fault}");
        let earlier = &result["earlier"][0];
        assert!(text(earlier, "/reason").contains(cause), "{fault}: {earlier}");
        assert_eq!(text(earlier, "/accelerator/name"), "kvm");
        assert!(said.contains("once more under TCG"), "{said}");
        assert!(junit.contains("<testsuite name=\"a.raw on SeaBIOS, virtio\""), "{junit}");
        let first = fs::read_to_string(stage.path("evidence/kvm/result.json")).unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(text(&first, "/verdict"), "error");
        assert!(text(&first, "/reason").contains(cause), "{first}");
    });
}

/// Where everything breaks, twice is enough.
#[test]
fn a_host_that_breaks_tcg_too_is_an_error() {
    let Some(stage) = Stage::new(Then::Halt) else { return };
    let Outcome { code, result, said, .. } = stage.boots("segv", "all", &[]);
    assert_eq!((code, text(&result, "/verdict")), (Some(5), "error"), "{said}");
    assert_eq!(stage.starts(), ["trial kvm", "case tcg"]);
}

#[test]
fn a_panic_is_named_without_a_serial_port() {
    let Some(stage) = Stage::new(Then::Panic) else { return };
    let flags = ["--no-serial", "--accel", "tcg"];
    let Outcome { code, result, said, .. } = stage.boots("panic", "all", &flags);
    assert_eq!((code, text(&result, "/verdict")), (Some(1), "failed"), "{said}");
    let reason = text(&result, "/reason");
    assert!(reason.starts_with("the kernel panicked: "), "{reason}");
    assert!(result["seconds"].as_f64().unwrap() < LONGEST, "{}", result["seconds"]);
}

/// The stand-in itself: a fault that it does not play would show nothing.
#[test]
fn the_stand_in_is_a_script() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/qemu-stand-in");
    let text = fs::read_to_string(&script).unwrap();
    for (fault, _) in FAULTS.iter().filter(|(fault, _)| *fault != "none") {
        assert!(
            text.contains(&format!("{fault})")) || text.contains(&format!("{fault}-")),
            "{fault}"
        );
    }
}
