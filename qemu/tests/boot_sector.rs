//! The harness itself under test: an operating system of one sector that speaks, is silent or stops early must be three
//! different things to it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use qemu::{
    Acceleration, Architecture, BootError, BootReport, Firmware, Level, Machine, Milestone, News,
    Proof, Test, Verdict, boot,
};
use support::boot_sector::{Then, disk};

const MESSAGE: &str = "all is well";

/// Boots a disk under SeaBIOS. `None` where QEMU is not installed, unless tools are required.
fn tried(disk: &[u8], limit: f64, evidence: Option<&Path>) -> Option<BootReport> {
    let directory = tempfile::tempdir().unwrap();
    let file = evidence.unwrap_or(directory.path()).join("disk,1.raw");
    fs::write(&file, disk).unwrap();
    let after = evidence.map(|evidence| evidence.join("after.qcow2"));
    let machine =
        Machine { firmware: Firmware::Bios, memory_mib: 64, ..Machine::new(Architecture::X86_64) };
    let test = Test {
        acceleration: Acceleration::Tcg,
        time_limit: Some(Duration::from_secs_f64(limit)),
        proof: Proof::Console(MESSAGE.to_owned()),
        evidence,
        disk_afterwards: after.as_deref(),
        ..Test::new(&file, machine)
    };
    let mut heard = Vec::new();
    let mut hear = |news| match news {
        News::Reached(reached) => heard.push(reached),
        News::Again(why) => panic!("tried again: {why}"),
    };
    match boot(&test, &mut hear, &|| false) {
        Ok(report) => {
            assert_eq!(report.reached, heard, "what is announced is what is reported");
            assert!(fs::read(&file).unwrap() == disk, "the disk must not change");
            Some(report)
        }
        Err(BootError::Missing { .. }) if std::env::var_os("REQUIRE_TOOLS").is_none() => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_message_and_a_power_off_pass() {
    let evidence = tempfile::tempdir().unwrap();
    let text = format!("{MESSAGE}\r\n");
    let Some(report) = tried(&disk(&text, Then::PowerOff), 60.0, Some(evidence.path())) else {
        return;
    };
    assert_eq!(report.verdict, Verdict::Passed, "{report:#?}");
    assert_eq!(report.furthest(), Milestone::Firmware);
    assert_eq!(report.machine.essentials(), "tcg, SeaBIOS, virtio");
    assert_eq!(report.machine.cpus, 1);

    // The code has copied itself into sector 1 of what is left, over a disk that is gone: its other clusters are not asked for.
    let left = fs::read(evidence.path().join("after.qcow2")).unwrap();
    let code = &disk(&text, Then::PowerOff)[..512];
    assert!(left.chunks(512).any(|sector| sector == code), "the guest's writes are kept");

    let kept = |name: &str| fs::read_to_string(evidence.path().join(name)).unwrap();
    let console = kept("console.log");
    assert!(
        console.lines().any(|line| line.starts_with("[ ") && line.ends_with(MESSAGE)),
        "{console}"
    );
    assert!(kept("command.txt").contains("-machine q35,graphics=off"));
    assert!(kept("qmp.log").contains("-> {\"execute\":\"cont\"}"));
    let again = Command::new(evidence.path().join("reproduce.sh")).stdin(Stdio::null()).output();
    // Some distributions start QEMU with a message of their own before the guest's.
    let again = again.unwrap();
    assert!(again.status.success(), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stdout).contains(MESSAGE), "by hand it is the same");
    let result: serde_json::Value = serde_json::from_str(&kept("result.json")).unwrap();
    assert_eq!(result["verdict"], "passed");
    assert_eq!(result["machine"]["accelerator"]["name"], "tcg");
}

#[test]
fn a_silence_is_not_a_stop_and_neither_is_a_pass() {
    let text = format!("{MESSAGE}\r\n");
    let evidence = tempfile::tempdir().unwrap();
    if let Some(report) = tried(&disk(&text, Then::Halt), 3.5, Some(evidence.path())) {
        let last = report.screens.last().expect("a PC has a screen");
        let png = fs::read(evidence.path().join(&last.file)).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && last.width >= 320, "{last:?}");
        assert!(last.seconds > 3.4, "the last look is when time is up: {last:?}");
    }
    let cases = [
        (disk("", Then::Halt), 4.0, "not up in 4 s; it got as far as: firmware"),
        (
            disk("half of it", Then::PowerOff),
            60.0,
            "message: the console never showed `all is well`",
        ),
        (disk(&text, Then::Reset), 60.0, "the guest reset the machine"),
        (disk(&text, Then::Halt), 4.0, "not up in 4 s; it got as far as: firmware"),
        (vec![0; 4096], 60.0, "firmware found nothing to boot: No bootable device."),
    ];
    thread::scope(|scope| {
        for (disk, limit, expected) in &cases {
            scope.spawn(move || match tried(disk, *limit, None).map(|report| report.verdict) {
                None => {}
                Some(Verdict::Passed) => panic!("passed instead of: {expected}"),
                Some(Verdict::Failed { reason }) => assert_eq!(reason, *expected),
                Some(error) => panic!("{error:?} instead of: {expected}"),
            });
        }
    });
}

/// Guests that take no credentials: what they show is proof of its own level, and enough only where that was said.
#[test]
fn what_does_not_report_is_judged_by_what_it_shows() {
    let login = disk("\r\nx login: ", Then::Halt);
    let drawn = disk("\r\nLinux version 7\r\n", Then::Draw);
    let stale = disk("\r\nLinux version 7\r\n", Then::Halt);
    let oops = disk("\r\nLinux version 7\r\nOops: int3\r\nx login: ", Then::Halt);
    let weak =
        "proof: the guest did not report; there is only a weaker proof, login prompt: x login:";
    let nothing = vec![0; 4096];
    let cases = [
        (&login, Level::Report, true, 10.0, Level::Login, Some(weak)),
        (&login, Level::Login, true, 10.0, Level::Login, None),
        (&login, Level::Screen, true, 10.0, Level::Login, None),
        (&drawn, Level::Screen, true, 20.0, Level::Screen, None),
        (
            &drawn,
            Level::Login,
            true,
            20.0,
            Level::Screen,
            Some("not up in 20 s; it got as far as: kernel"),
        ),
        (
            &stale,
            Level::Screen,
            true,
            10.0,
            Level::Nothing,
            Some("not up in 10 s; it got as far as: kernel"),
        ),
        (&oops, Level::Login, true, 10.0, Level::Login, Some("console: kernel oops: Oops: int3")),
        // What firmware shows on its screen is not an operating system; and it can be read.
        (
            &nothing,
            Level::Screen,
            false,
            10.0,
            Level::Nothing,
            Some("firmware found nothing to boot: No bootable device."),
        ),
    ];
    thread::scope(|scope| {
        for (disk, accept, serial, limit, level, failure) in cases {
            scope.spawn(move || {
                let directory = tempfile::tempdir().unwrap();
                let file = directory.path().join("disk.raw");
                fs::write(&file, disk).unwrap();
                let machine = Machine {
                    firmware: Firmware::Bios,
                    memory_mib: 64,
                    serial,
                    ..Machine::new(Architecture::X86_64)
                };
                let test = Test {
                    acceleration: Acceleration::Tcg,
                    time_limit: Some(Duration::from_secs_f64(limit)),
                    accept,
                    ..Test::new(&file, machine)
                };
                let report = match boot(&test, &mut |_| {}, &|| false) {
                    Ok(report) => report,
                    Err(BootError::Missing { .. })
                        if std::env::var_os("REQUIRE_TOOLS").is_none() =>
                    {
                        return;
                    }
                    Err(error) => panic!("{error}"),
                };
                let told = report.reason();
                let shown = (&report.reached, &report.console_tail);
                assert_eq!((told, report.proof), (failure, level), "{shown:?}");
            });
        }
    });
}

/// A console that never rests is neither a hang of ours nor a full disk.
#[test]
fn a_flood_is_no_hang() {
    let evidence = tempfile::tempdir().unwrap();
    let flood = disk("flood flood flood flood\r\n", Then::Flood);
    let Some(report) = tried(&flood, 6.0, Some(evidence.path())) else { return };
    let Verdict::Failed { reason } = &report.verdict else { panic!("{report:?}") };
    assert!(reason.ends_with("it got as far as: firmware"), "{reason}");
    let seconds = report.seconds - report.lost_seconds;
    assert!(seconds < 15.0, "{seconds}");
    let log = fs::metadata(evidence.path().join("console.log")).unwrap().len();
    assert!(log > 10_000 && report.console_tail.len() == 20, "{log}");
}

#[test]
fn who_asks_to_stop_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk.raw");
    fs::write(&file, disk("", Then::Halt)).unwrap();
    let machine = Machine { firmware: Firmware::Bios, ..Machine::new(Architecture::X86_64) };
    let test = Test { acceleration: Acceleration::Tcg, ..Test::new(&file, machine) };
    match boot(&test, &mut |_| {}, &|| true) {
        Err(BootError::Stopped) => {}
        Err(BootError::Missing { .. }) if std::env::var_os("REQUIRE_TOOLS").is_none() => {}
        other => panic!("{other:?}"),
    }
}
