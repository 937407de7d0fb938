//! Good disks on bad hosts: none of what the host does may fail them. A stand-in for QEMU plays the hosts whose KVM breaks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use qemu::{DiskBus, Firmware};
use serde_json::Value;
use support::tool;

use crate::disk::directory;
use crate::machine::Case;
use crate::{HYBRID, machine};

/// So many busy loops keep the load above what a machine of two processors bears.
const LOOPS: usize = 16;

/// Processes that end with the test.
struct Busy(Vec<Child>);

impl Busy {
    fn with(loops: usize) -> Self {
        let start = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..loops).map(start).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended needs no end.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// With the limits that users have, not those of the tests.
#[test]
#[ignore = "keeps all processors busy for many minutes: tests/run full"]
fn good_disk_on_a_busy_host_passes() {
    let case = Case::new("host-busy", &HYBRID, machine(Firmware::Uefi, DiskBus::Virtio));
    let pressed = &HYBRID.pressed().file;
    let _busy = Busy::with(LOOPS);
    let report = case.tried_within_default(pressed);
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    eprintln!(
        "busy host: {:?} after {:.0} s, of which {:.0} s were lost; load {load}",
        report.verdict, report.seconds, report.lost_seconds
    );
    assert!(report.passed(), "{:?}: {:?}", report.verdict, report.suspicions);
    assert!(report.lost_seconds > report.seconds / 2.0, "the host was not busy");
}

/// The disk of `tests/demo` and its command line, with KVM as it breaks elsewhere.
#[test]
#[ignore = "takes minutes for each way to break: tests/run full"]
fn good_disk_passes_however_kvm_breaks() {
    let Some(real) = tool::tool("qemu-system-x86_64") else { return };
    let pressed = &HYBRID.pressed().file;
    for (fault, scope) in [
        ("no-kvm", "kvm"),
        ("internal-error", "kvm"),
        ("internal-error", "case"),
        ("abort", "kvm"),
        ("hang", "kvm"),
        ("segv", "case"),
        ("io-error", "case"),
    ] {
        let place = directory(&format!("host-{fault}-{scope}"));
        let bin = place.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/qemu-stand-in");
        let link = bin.join("qemu-system-x86_64");
        // What an earlier run has left is the same.
        let _ = symlink(stand_in, &link);
        let cache = place.join("cache");
        if cache.exists() {
            fs::remove_dir_all(&cache).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let output = support::bootpress()
            .arg("test")
            .arg(pressed)
            .args(["--arch", "x86_64", "--evidence"])
            .arg(place.join("evidence"))
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("XDG_CACHE_HOME", &cache)
            .env("STANDIN_REAL", real.get_program())
            .env("STANDIN", fault)
            .env("STANDIN_SCOPE", scope)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        eprintln!("{fault} ({scope}): {}", said.lines().next().unwrap_or_default());
        assert!(output.status.success(), "{fault}: {said}");
        assert_eq!(earlier(&place), usize::from(scope == "case"), "{fault}");
    }
}

/// How many attempts came before the one that passed.
fn earlier(place: &Path) -> usize {
    let text = fs::read_to_string(place.join("evidence/result.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    result["earlier"].as_array().unwrap().len()
}
