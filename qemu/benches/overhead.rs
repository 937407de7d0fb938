//! What a boot in the harness costs beside the same machine in bare QEMU: overlay, sockets, screen, evidence, verdict.
//!
//! The guest is a boot sector that says a word and switches itself off, so that next to nothing hides the difference. Bare QEMU gets
//! the harness' own command line, with files in place of its sockets and without the pause at the start.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use qemu::{Acceleration, Architecture, Firmware, Machine, Proof, Test, Verdict, boot};
use support::boot_sector::{Then, disk};

const WORD: &str = "up";
const ROUNDS: usize = 15;

/// More than this, and somebody should look.
const BOUND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("disk.raw");
    fs::write(&file, disk(&format!("{WORD}\r\n"), Then::PowerOff)).expect("a disk");
    let machine =
        Machine { firmware: Firmware::Bios, memory_mib: 64, ..Machine::new(Architecture::X86_64) };
    let evidence = directory.path().join("evidence");
    let test = Test {
        acceleration: Acceleration::Tcg,
        proof: Proof::Console(WORD.to_owned()),
        evidence: Some(&evidence),
        ..Test::new(&file, machine)
    };
    let (mut harness, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let report = match boot(&test, &mut |_| {}, &|| false) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        harness.push(started.elapsed());
        assert_eq!(report.verdict, Verdict::Passed);

        let mut command = bare_qemu(&report.command, &file, directory.path());
        let started = Instant::now();
        let status = command.status().expect("QEMU starts: it just did");
        bare.push(started.elapsed());
        assert!(status.success(), "{command:?}");
    }
    let (harness, bare) = (median(harness), median(bare));
    let overhead = harness.saturating_sub(bare);
    println!(
        "a boot: bare QEMU {:.3} s, harness {:.3} s, overhead {:.3} s",
        bare.as_secs_f64(),
        harness.as_secs_f64(),
        overhead.as_secs_f64()
    );
    if overhead < BOUND { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The same machine without anybody who listens.
fn bare_qemu(words: &[String], disk: &Path, directory: &Path) -> Command {
    // What the guest writes goes into an overlay here, too.
    let overlay = directory.join("overlay.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(disk).arg(&overlay);
    assert!(create.status().expect("qemu-img starts").success());
    let mut command = Command::new(&words[0]);
    for word in words[1..].iter().filter(|word| *word != "-S") {
        if let Some((socket, _)) = word.split_once(",path=") {
            let name = socket.trim_start_matches("socket,id=");
            let file = directory.join(name);
            command.arg(format!("file,id={name},path={}", file.display()));
        } else if word.contains("\"node-name\":\"disk\"") {
            command.arg(format!(
                "driver=qcow2,node-name=disk,file.driver=file,file.filename={},backing=base,cache.no-flush=on",
                overlay.display()
            ));
        } else {
            command.arg(word);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
