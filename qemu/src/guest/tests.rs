//! The protocol from both ends: what the parser makes of anything, and what the script says in a make-believe guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::*;

const MOUNTS: &str = "\
28 1 0:26 / / ro,relatime shared:1 - overlay composefs ro,lowerdir+=/run/x
30 28 254:3 / /sysroot ro,relatime shared:2 - ext4 /dev/vda3 rw
31 28 254:3 /a\\040b /with\\040space rw,relatime - ext4 /dev/vda3 rw
32 28 0:40 / /tmp rw - tmpfs tmpfs rw
33 32 0:41 / /tmp rw,nosuid - tmpfs second rw";

fn said(facts: &[(&str, &str)]) -> Guest {
    let mut guest = Guest::default();
    for (key, value) in facts {
        let value = STANDARD.encode(value);
        guest.feed(format!("boot-report {key}={value} {}\n", value.len()).as_bytes());
    }
    guest
}

fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("state", "running"),
        ("failed", ""),
        ("mounts", MOUNTS),
        ("ostree", "* default 1234.0\n    origin: x"),
        ("ostree.exit", "0"),
    ]
}

fn failing(facts: &[(&str, &str)], firmware: Firmware) -> Vec<(&'static str, String)> {
    let checks = said(facts).checks(firmware);
    checks
        .into_iter()
        .filter(|check| !check.passed)
        .map(|check| (check.name, check.detail))
        .collect()
}

#[test]
fn lines_arrive_in_pieces_and_among_others() {
    let mut guest = Guest::default();
    for piece in [
        &b"noise\nboot-rep"[..],
        b"ort state=cnVubmlu",
        b"Zw== 12\r\n[ 3.1] boot-report end= 0",
        b"\n",
    ] {
        guest.feed(piece);
    }
    assert_eq!(guest.fact("state"), Some("running"));
    assert!(guest.finished());
}

#[test]
fn lines_that_are_not_whole_are_dropped() {
    for line in [
        "boot-report state=cnVubmluZw== 11",
        "boot-report state=cnVub[  2.0] usb 1-1: newmluZw== 12",
        "boot-report =cnVubmluZw== 12",
        "boot-report state cnVubmluZw== 12",
        "boot-report state=!!!! 4",
        "boot-report state=cnVubmluZw==",
        "boot-report ",
    ] {
        let mut guest = Guest::default();
        guest.line(line);
        assert!(!guest.spoke(), "{line}");
    }
}

#[test]
fn garbage_does_no_harm() {
    let mut guest = Guest::default();
    let mut random = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    })
    .take(300_000)
    .collect();
    guest.feed(&bytes);
    guest.feed(&vec![b'x'; 1 << 20]);
    assert!(guest.unfinished.len() <= LONGEST_LINE);
    let text = String::from_utf8_lossy(&bytes);
    let guest = said(&[("mounts", &text), ("failed", &text), ("ostree", &text), ("jobs", &text)]);
    assert!(guest.checks(Firmware::UefiSecureBoot).iter().all(|check| !check.passed));
}

#[test]
fn mounts_are_found_by_their_place() {
    let guest = said(&good());
    let root = guest.mount("/").unwrap();
    assert_eq!(
        (root.filesystem.as_str(), root.source.as_str(), root.options.as_str()),
        ("overlay", "composefs", "ro,relatime")
    );
    assert_eq!(guest.mount("/tmp").unwrap().source, "second");
    assert!(guest.mount("/with space").is_some());
    assert_eq!(guest.mount("/boot"), None);
}

#[test]
fn every_check_can_fail() {
    assert_eq!(failing(&good(), Firmware::Uefi), []);
    let with = |key: &'static str, value: &'static str| {
        let mut facts = good();
        facts.push((key, value));
        failing(&facts, Firmware::Uefi)
    };
    assert_eq!(with("state", "degraded"), [("systemd", "degraded".to_owned())]);
    assert_eq!(
        with("failed", "a.service loaded failed failed A\nb.mount loaded failed failed B"),
        [("systemd", "running; failed: a.service, b.mount".to_owned())]
    );
    assert_eq!(
        with("mounts", "1 0 8:3 / / rw - ext4 /dev/vda3 rw"),
        [("root", "ext4 from /dev/vda3".to_owned())]
    );
    assert_eq!(
        with("mounts", "1 0 8:3 / / rw - overlay upper rw"),
        [("root", "overlay from upper".to_owned())]
    );
    assert_eq!(with("ostree.exit", "1").len(), 1);
    assert_eq!(with("ostree", "  default 1.0")[0].0, "deployment");
    assert_eq!(failing(&good(), Firmware::UefiSecureBoot), [("Secure Boot", "not on".to_owned())]);
    assert_eq!(failing(&[], Firmware::Uefi).len(), 3);
}

#[test]
fn a_boot_that_has_not_ended_tells_what_it_waits_for() {
    let waiting =
        failing(&[("jobs", "7 slow.service start running\n9 x start waiting")], Firmware::Uefi);
    assert_eq!(
        waiting[0],
        ("systemd", "waiting for 7 slow.service start running; 9 x start waiting".to_owned())
    );
}

/// Runs the script with a `systemctl` and an `ostree` of ours; `shell` is a command with its arguments.
fn run_script(
    shell: &[&str],
    systemctl: &str,
    port_exists: bool,
    errand: Option<&str>,
) -> (Guest, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let program = |name: &str, body: &str| {
        fs::write(path(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("systemctl", &format!("echo \"$*\" >>{}\n{systemctl}", path("calls").display()));
    program("ostree", "echo '* default abc.0'");
    program("journalctl", "echo because");
    fs::write(path("script"), crate::credentials::SCRIPT).unwrap();
    if let Some(errand) = errand {
        fs::write(path("boot-report.errand"), errand).unwrap();
        fs::write(path("boot-report.ending"), "reboot").unwrap();
    }
    let port = if port_exists { "port" } else { "elsewhere" };
    fs::write(path(port), "").unwrap();
    let status = Command::new(shell[0])
        .args(&shell[1..])
        .arg(path("script"))
        .env("CREDENTIALS_DIRECTORY", directory.path())
        .env("PATH", format!("{}:/usr/bin:/bin", directory.path().display()))
        .env("BOOT_REPORT_PORT", path("port"))
        .env("BOOT_REPORT_TRIES", "1")
        .env("BOOT_REPORT_FALLBACK", path("elsewhere"))
        .status()
        .unwrap();
    assert!(status.success());
    let mut guest = Guest::default();
    guest.feed(&fs::read(path(port)).unwrap());
    (guest, fs::read_to_string(path("calls")).unwrap())
}

#[test]
fn the_script_reports_and_powers_off() {
    let shells: &[&[&str]] = &[&["/bin/sh"], &["/bin/bash", "--posix"], &["/bin/busybox", "sh"]];
    for shell in shells.iter().filter(|shell| Path::new(shell[0]).exists()) {
        let (guest, calls) =
            run_script(shell, "[ \"$1\" = is-system-running ] && echo running; exit 0", true, None);
        assert_eq!(guest.fact("state"), Some("running"), "{shell:?}");
        assert_eq!(guest.fact("ostree"), Some("* default abc.0"));
        assert_eq!(guest.fact("ostree.exit"), Some("0"));
        assert!(guest.mount("/").is_some() && guest.finished());
        assert_eq!(guest.fact("bootc"), None, "a tool that is not there says nothing");
        assert_eq!(calls.lines().last(), Some("--no-block poweroff"));
    }
}

#[test]
fn the_script_names_failed_units_and_makes_do_without_a_port() {
    let systemctl = "case $1 in is-system-running) echo degraded; exit 1;; \
                     list-units) echo 'a.service loaded failed failed A';; esac";
    let (guest, _) = run_script(&["/bin/sh"], systemctl, false, None);
    assert_eq!(guest.failed_units(), ["a.service"]);
    assert_eq!(guest.fact("why.a.service"), Some("because"));
    assert_eq!(guest.fact("state"), Some("degraded"));
}

#[test]
fn the_script_does_its_errand_and_then_reboots() {
    let running = "[ \"$1\" = is-system-running ] && echo running; exit 0";
    let errand = "say step \"one of $(id -u | wc -l)\"\necho done\nexit 3\necho never";
    let (guest, calls) = run_script(&["/bin/sh"], running, true, Some(errand));
    assert_eq!(guest.fact("step"), Some("one of 1"));
    assert_eq!((guest.fact("errand"), guest.fact("errand.exit")), (Some("done"), Some("3")));
    assert!(guest.finished(), "whatever comes of the errand");
    assert_eq!(calls.lines().last(), Some("--no-block reboot"));
    assert!(!guest.check_errand().passed);
    let (guest, _) = run_script(&["/bin/sh"], running, true, Some("true"));
    assert_eq!(guest.check_errand(), Check::new("errand", true, "done"));
}
