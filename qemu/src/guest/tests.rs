//! The protocol from both ends: what the parser makes of anything, and what the script says in a make-believe guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::architecture::Architecture;
use crate::check::{Expected, Selinux};
use crate::device::Tpm;
use crate::firmware::Firmware;
use crate::machine::Machine;

const MOUNTS: &str = "\
28 1 0:26 / / ro,relatime shared:1 - overlay composefs ro,lowerdir+=/run/x
30 28 254:3 / /sysroot ro,relatime shared:2 - ext4 /dev/vda3 rw
31 28 254:3 /a\\040b /with\\040space rw,relatime - ext4 /dev/vda3 rw
32 28 0:40 / /tmp rw - tmpfs tmpfs rw
33 32 0:41 / /tmp rw,nosuid - tmpfs second rw
34 28 254:3 /x/etc /etc rw,relatime - ext4 /dev/vda3 rw
35 28 254:3 /x/var /var rw,relatime - ext4 /dev/vda3 rw";

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
    failing_as(facts, firmware, &Expected::default())
}

fn failing_as(
    facts: &[(&str, &str)],
    firmware: Firmware,
    expected: &Expected,
) -> Vec<(&'static str, String)> {
    let checks =
        said(facts).checks(&Machine { firmware, ..Machine::new(Architecture::X86_64) }, expected);
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
    let secure = Machine {
        firmware: Firmware::UefiSecureBoot,
        tpm: Tpm::Swtpm,
        ..Machine::new(Architecture::X86_64)
    };
    assert!(guest.checks(&secure, &Expected::default()).iter().all(|check| !check.passed));
}

#[test]
fn a_tpm_of_the_machine_is_one_of_the_guest() {
    let told = |tpm: Tpm, version: Option<&str>| {
        let facts =
            [&good()[..], &version.map(|v| ("tpm", v)).into_iter().collect::<Vec<_>>()].concat();
        let machine = Machine { tpm, ..Machine::new(Architecture::X86_64) };
        let checks = said(&facts).checks(&machine, &Expected::default());
        let check = checks.into_iter().find(|check| check.name == "TPM");
        check.map(|check| (check.passed, check.detail))
    };
    let unseen = "the machine has one, the guest does not see it".to_owned();
    assert_eq!(told(Tpm::Swtpm, Some("2\n")), Some((true, "2.0".to_owned())));
    assert_eq!(told(Tpm::Swtpm, Some("")), Some((false, unseen.clone())));
    assert_eq!(told(Tpm::Swtpm, None), Some((false, unseen)));
    assert_eq!(told(Tpm::Swtpm, Some("1")), Some((false, "version 1 instead of 2".to_owned())));
    assert_eq!(told(Tpm::None, Some("")), None);
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
    let mounted = |root: &'static str| format!("{root}\n{}", MOUNTS.split_once('\n').unwrap().1);
    let with_root = |root: &'static str| {
        let mounts = mounted(root);
        let mut facts = good();
        facts.push(("mounts", &mounts));
        failing(&facts, Firmware::Uefi)
    };
    assert_eq!(
        with_root("1 0 8:3 / / ro - ext4 /dev/vda3 rw"),
        [("root", "ext4 from /dev/vda3".to_owned())]
    );
    assert_eq!(
        with_root("1 0 8:3 / / ro - overlay upper rw"),
        [("root", "overlay from upper".to_owned())]
    );
    assert_eq!(
        with_root("1 0 8:3 / / rw - overlay composefs rw"),
        [("mounts", "/ is writable".to_owned())]
    );
    assert_eq!(with_root("1 0 8:3 / / rw - overlay composefs rw,upperdir=/run/x"), []);
    let bare =
        with("mounts", "1 0 8:3 / / ro - overlay composefs rw\n2 1 8:3 / /etc ro - ext4 a rw");
    let told = "/etc is read-only, /var is not mounted, /sysroot is not mounted";
    assert_eq!(bare, [("mounts", told.to_owned())]);
    assert_eq!(
        with("jobs-left", "7 slow.service start waiting"),
        [("systemd", "running; stuck jobs: 7 slow.service start waiting".to_owned())]
    );
    assert_eq!(with("ostree.exit", "1").len(), 1);
    assert_eq!(with("ostree", "  default 1.0")[0].0, "deployment");
    assert_eq!(failing(&good(), Firmware::UefiSecureBoot), [("Secure Boot", "not on".to_owned())]);
    assert_eq!(failing(&[], Firmware::Uefi).len(), 4);
}

#[test]
fn file_systems_that_are_full_are_named() {
    let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
              composefs 9000 9000 0 100% /\n\
              /dev/vda3 500000 499999 1 100% /sysroot\n\
              /dev/vda3 500000 499999 1 100% /var\n\
              tmpfs 900000 0 900000 0% /tmp";
    let mut facts = good();
    facts.push(("space", df));
    let told = "/sysroot is full, /var is full".to_owned();
    assert_eq!(failing(&facts, Firmware::Uefi), [("space", told)]);
    let enough = df.replace("499999 1 ", "400000 100000 ");
    let mut facts = good();
    facts.push(("space", &enough));
    assert_eq!(failing(&facts, Firmware::Uefi), [], "the root itself is always full");
}

#[test]
fn the_image_is_known_by_bootc_or_by_its_commit() {
    let digest = "sha256:12ab";
    let expected = Expected { image_digest: Some(digest.to_owned()), ..Expected::default() };
    let with = |facts: &[(&'static str, &'static str)]| {
        failing_as(&[&good()[..], facts].concat(), Firmware::Uefi, &expected)
    };
    let image = |detail: &str| vec![("image", detail.to_owned())];
    assert_eq!(with(&[]), image("not told, expected sha256:12ab"));
    assert_eq!(with(&[("digest", "'sha256:12ab'"), ("digest.exit", "0")]), []);
    assert_eq!(with(&[("digest", "error: none"), ("digest.exit", "1")]).len(), 1);
    let other = image("sha256:99 instead of sha256:12ab");
    assert_eq!(with(&[("digest", "'sha256:99'"), ("digest.exit", "0")]), other);
    let booted = r#"{"status":{"booted":{"image":{"image":{"image":"q/f:1"},"imageDigest":"sha256:12ab"}}}}"#;
    assert_eq!(with(&[("bootc", booted), ("digest", "'sha256:99'"), ("digest.exit", "0")]), []);
}

#[test]
fn bootc_must_know_what_is_booted() {
    let with = |facts: &[(&'static str, &'static str)]| {
        failing(&[&good()[..], facts].concat(), Firmware::Uefi)
    };
    assert_eq!(with(&[("bootc", r#"{"status":{"booted":{"image":null}}}"#)]), []);
    let unknown = with(&[("bootc", r#"{"status":{"booted":null}}"#)]);
    assert_eq!(unknown, [("bootc", "bootc does not know what is booted".to_owned())]);
    assert_eq!(with(&[("bootc", "error: x")])[0].1, "bootc status said error: x");
    // Without ostree, bootc's word is enough for the deployment; without either, nothing is.
    let without: Vec<_> =
        good().into_iter().filter(|(key, _)| !key.starts_with("ostree")).collect();
    assert_eq!(failing(&without, Firmware::Uefi)[0].0, "deployment");
    let composefs = [&without[..], &[("bootc", r#"{"status":{"booted":{}}}"#)]].concat();
    assert_eq!(failing(&composefs, Firmware::Uefi), []);
}

#[test]
fn composefs_image_that_the_command_line_names_is_a_deployment() {
    let id = "5c".repeat(64);
    let mounts = |source: &str| {
        format!(
            "28 1 0:26 / / ro,relatime shared:1 - overlay {source} ro\n\
             29 28 8:3 /state/etc /etc rw - ext4 /dev/sda3 rw\n\
             30 28 8:3 /state/var /var rw - ext4 /dev/sda3 rw\n31 28 8:3 / /sysroot ro - ext4 /dev/sda3 rw\n"
        )
    };
    let told = |source: &str, cmdline: &str| {
        let mut facts: Vec<(&'static str, String)> = good()
            .into_iter()
            .filter(|(key, _)| !key.starts_with("ostree") && !key.starts_with("digest"))
            .map(|(key, value)| (key, value.to_owned()))
            .collect();
        facts.push(("mounts", mounts(source)));
        facts.push(("cmdline", cmdline.to_owned()));
        facts.push(("origin", "[image]\nmanifest_digest = sha256:99\n".to_owned()));
        let facts: Vec<(&str, &str)> = facts.iter().map(|(k, v)| (*k, v.as_str())).collect();
        failing(&facts, Firmware::Uefi)
    };
    let source = format!("composefs:{id}");
    assert_eq!(told(&source, &format!("rw composefs={id} quiet")), []);
    assert_eq!(told(&source, &format!("rw composefs.digest=?v1-sha512-12:{id}")), []);
    assert_eq!(told(&source, "rw composefs=5c")[0].0, "deployment");
    assert_eq!(told("composefs", &format!("composefs={id}"))[0].0, "deployment");
}

#[test]
fn arguments_are_words() {
    let expected = |arguments: &[&str]| Expected {
        kernel_arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
        ..Expected::default()
    };
    let mut facts = good();
    facts.push(("cmdline", "root=UUID=1 quiet console=ttyS0,115200 dyndbg=\"file a +p\" rw"));
    let with = |arguments: &[&str]| failing_as(&facts, Firmware::Uefi, &expected(arguments));
    assert_eq!(with(&["quiet", "console=ttyS0,115200", "dyndbg=file a +p"]), []);
    assert_eq!(with(&["dyndbg=\"file a +p\"", "\"dyndbg=file a +p\""]), []);
    assert!(with(&["console=ttyS0"])[0].1.starts_with("console=ttyS0 missing in: root="));
    assert_eq!(with(&["qui", "oops"]).len(), 1);
}

#[test]
fn selinux_is_in_the_mode_it_was_set_to() {
    let failing = |facts: &[(&'static str, &'static str)], wanted: Option<Selinux>| {
        let expected = Expected { selinux: wanted, ..Expected::default() };
        let all = [&good()[..], facts].concat();
        let failed = failing_as(&all, Firmware::Uefi, &expected);
        failed.into_iter().map(|(_, detail)| detail).collect::<Vec<_>>()
    };
    let none: Vec<String> = vec![];
    let configured = ("selinux.config", "enforcing");
    let denied = ("denials", "avc:  denied  { read }\navc:  denied  { write }");
    assert_eq!(failing(&[], None), none);
    assert_eq!(failing(&[("selinux", "1"), configured], None), none);
    assert_eq!(failing(&[("selinux", "0"), configured], None), ["permissive instead of enforcing"]);
    assert_eq!(failing(&[configured], None), ["disabled instead of enforcing"]);
    assert_eq!(failing(&[configured, ("cmdline", "a selinux=0")], None), none);
    let permissive = [configured, ("selinux", "0"), denied, ("cmdline", "enforcing=0 b")];
    assert_eq!(failing(&permissive, None), none, "what is only told is a note");
    assert!(said(&permissive).notes()[0].starts_with("SELinux would deny 2 times"));
    let told = failing(&[configured, ("selinux", "1"), denied], None);
    assert_eq!(told, ["enforcing, 2 denials, first: avc:  denied  { read }"]);
    assert_eq!(failing(&[], Some(Selinux::Disabled)), none);
    assert_eq!(failing(&[], Some(Selinux::Enforcing)), ["disabled instead of enforcing"]);
}

#[test]
fn the_start_is_told_in_seconds() {
    let times = "Startup finished in 880ms (firmware) + 11.034s (kernel) + 1min 2.5s (userspace) = 1min 14s \ngraphical.target reached";
    let startup: Vec<_> = said(&[("times", times)]).startup().collect();
    let expected = [("firmware", 0.88), ("kernel", 11.034), ("userspace", 62.5)];
    assert_eq!(startup, expected.map(|(name, seconds)| (name.to_owned(), seconds)));
    assert_eq!(said(&[("times", "Startup finished in x (y) + (z = 3s")]).startup().count(), 0);
}

#[test]
fn the_journal_is_put_together() {
    let mut guest = Guest::default();
    let text = "one\nzwei: ü\n";
    let cut = text.len() - 2;
    for (part, bytes) in [(1, &text.as_bytes()[cut..]), (0, &text.as_bytes()[..cut])] {
        let value = STANDARD.encode(bytes);
        guest.line(&format!("boot-report journal.{part}={value} {}", value.len()));
    }
    guest.line("boot-report journal.9999=YQ== 4");
    guest.line("boot-report journal.x=YQ== 4");
    assert_eq!(guest.journal(), text);
    assert!(!guest.spoke(), "the journal alone says nothing about the boot");
}

#[test]
fn a_boot_that_has_not_ended_tells_what_it_waits_for() {
    let waiting = failing(
        &[("jobs", " 7 slow.service  start running\n19 x             start waiting")],
        Firmware::Uefi,
    );
    assert_eq!(
        waiting[0],
        ("systemd", "waiting for 7 slow.service start running; 19 x start waiting".to_owned())
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
    program("journalctl", "echo because; echo 'avc:  denied  { x }'; seq 30000");
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
        assert!(guest.fact("space").is_some_and(|space| space.lines().count() > 1));
        assert_eq!(guest.fact("digest"), Some("* default abc.0"), "the booted commit is asked");
        let journal = guest.journal();
        assert!(journal.starts_with("because\n") && journal.ends_with("\n30000\n"), "{shell:?}");
        assert_eq!(calls.lines().last(), Some("--no-block poweroff"));
    }
}

#[test]
fn the_script_names_failed_units_and_makes_do_without_a_port() {
    let systemctl = "case $1 in is-system-running) echo degraded; exit 1;; \
                     list-units) echo 'a.service loaded failed failed A';; esac";
    let (guest, _) = run_script(&["/bin/sh"], systemctl, false, None);
    assert_eq!(guest.failed_units(), ["a.service"]);
    assert!(guest.fact("why.a.service").is_some_and(|why| why.starts_with("because")));
    assert_eq!(guest.journal(), "", "it would be long between the kernel's words");
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
    assert_eq!(guest.check_errand(), crate::check::Check::new("errand", true, "done"));
}
