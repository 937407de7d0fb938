//! The harness itself under test: an operating system of one sector that speaks, is silent or stops early must be three
//! different things to it.
//!
//! ```text
//! sector 0   code: print the text; write sector 1 to the disk; then power off, reset or halt
//!            text, 0
//!            55 aa at 510
//! sector 1   empty
//! ```

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use qemu::{
    Accelerator, Architecture, BootError, BootReport, Firmware, Machine, Milestone, Proof, Test,
    Verdict, boot,
};

const MESSAGE: &str = "all is well";

/// What the one-sector operating system does after it has spoken.
#[derive(Clone, Copy)]
enum Then {
    PowerOff,
    Reset,
    Halt,
    /// Says the same again, for ever.
    Flood,
}

/// A disk of 1 MiB with the operating system. The code runs at 0x7c00, in real mode, with DL the disk's number.
fn disk(text: &str, then: Then) -> Vec<u8> {
    // The UART itself, with interrupts off: SeaBIOS' own console holds back a character until the next tick of its clock.
    let mut code = vec![
        0xfa, // cli
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, 0x8e, 0xc0, // mov ds, ax; mov es, ax
        0x52, // push dx
        0xbe, 0, 0,    // mov si, text (patched below)
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x12, // jz done
        0x88, 0xc4, // mov ah, al
        0xba, 0xfd, 0x03, // mov dx, 0x3fd: line status
        0xec, // wait: in al, dx
        0xa8, 0x20, // test al, 0x20: ready
        0x74, 0xfb, // jz wait
        0xba, 0xf8, 0x03, // mov dx, 0x3f8: data
        0x88, 0xe0, // mov al, ah
        0xee, // out dx, al
        0xeb, 0xe9, // jmp next
        0x5a, 0xfb, // done: pop dx; sti
        // Write a sector, to show that the file under test does not change.
        0xb8, 0x01, 0x03, // mov ax, 0x0301: write one sector
        0xbb, 0x00, 0x7c, // mov bx, 0x7c00: this one
        0xb9, 0x02, 0x00, // mov cx, 0x0002: as the second
        0xb6, 0x00, // mov dh, 0
        0xcd, 0x13, // int 0x13
    ];
    match then {
        // ACPI's control register on Q35 as SeaBIOS places it: sleep state 5.
        Then::PowerOff => code.extend([0xb8, 0x00, 0x20, 0xba, 0x04, 0x06, 0xef]), // mov ax, 0x2000; mov dx, 0x604; out dx, ax
        Then::Reset => code.extend([0xb0, 0x06, 0xba, 0xf9, 0x0c, 0xee]), // mov al, 6; mov dx, 0xcf9; out dx, al
        Then::Halt | Then::Flood => {}
    }
    if let Then::Flood = then {
        let done = code.iter().position(|&byte| byte == 0x5a).unwrap();
        let message = 8_u16; // behind push dx
        let back = message.wrapping_sub(u16::try_from(done + 3).unwrap()).to_le_bytes();
        code[done..done + 3].copy_from_slice(&[0xe9, back[0], back[1]]); // jmp to the message
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
    let text_at = 0x7c00 + u16::try_from(code.len()).unwrap();
    code[9..11].copy_from_slice(&text_at.to_le_bytes());
    code.extend(text.bytes().chain([0]));
    assert!(code.len() <= 510);
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(1 << 20, 0);
    code
}

/// Boots a disk under SeaBIOS. `None` where QEMU is not installed, unless tools are required.
fn tried(disk: &[u8], limit: f64, evidence: Option<&Path>) -> Option<BootReport> {
    let directory = tempfile::tempdir().unwrap();
    let file = evidence.unwrap_or(directory.path()).join("disk,1.raw");
    fs::write(&file, disk).unwrap();
    let after = evidence.map(|evidence| evidence.join("after.qcow2"));
    let machine =
        Machine { firmware: Firmware::Bios, memory_mib: 64, ..Machine::new(Architecture::X86_64) };
    let test = Test {
        accelerator: Some(Accelerator::Tcg { why: "a test that must do without".to_owned() }),
        time_limit: Some(Duration::from_secs_f64(limit)),
        proof: Proof::Console(MESSAGE.to_owned()),
        evidence,
        disk_afterwards: after.as_deref(),
        ..Test::new(&file, machine)
    };
    let mut heard = Vec::new();
    match boot(&test, &mut |reached| heard.push(reached), &|| false) {
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
    assert!(report.seconds < 15.0, "{}", report.seconds);
    let log = fs::metadata(evidence.path().join("console.log")).unwrap().len();
    assert!(log > 10_000 && report.console_tail.len() == 20, "{log}");
}

#[test]
fn who_asks_to_stop_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("disk.raw");
    fs::write(&file, disk("", Then::Halt)).unwrap();
    let machine = Machine { firmware: Firmware::Bios, ..Machine::new(Architecture::X86_64) };
    let test = Test {
        accelerator: Some(Accelerator::Tcg { why: String::new() }),
        ..Test::new(&file, machine)
    };
    match boot(&test, &mut |_| {}, &|| true) {
        Err(BootError::Stopped) => {}
        Err(BootError::Missing { .. }) if std::env::var_os("REQUIRE_TOOLS").is_none() => {}
        other => panic!("{other:?}"),
    }
}
