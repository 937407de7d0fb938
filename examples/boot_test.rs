//! Boots a disk in QEMU, unmodified, and says how far it got, as `bootpress test DISK` does.
//!
//! ```text
//! cargo run --example boot_test -- disk.x86_64.qcow2
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use qemu::{Architecture, Firmware, Machine, News, Test, Verdict};

fn main() -> Result<ExitCode> {
    let disk = PathBuf::from(std::env::args().nth(1).context("usage: boot_test DISK")?);
    let evidence = PathBuf::from("evidence");

    // The machine is a value; `impossible` says why QEMU cannot make it, before anything is started.
    let architecture = Architecture::host().context("QEMU has no guests for this machine")?;
    let mut machine = Machine::new(architecture);
    machine.firmware = Firmware::Uefi;
    machine.memory_mib = 2048;

    let mut test = Test::new(&disk, machine);
    test.time_limit = Some(Duration::from_secs(600));
    test.evidence = Some(&evidence);
    test.expected.kernel_arguments = vec!["rw".to_owned()];

    // The closures hear of milestones, and may stop the boot.
    let mut hear = |news: News| eprintln!("{news:?}");
    let report = qemu::boot(&test, &mut hear, &|| false)?;

    for check in &report.checks {
        println!("{check:?}");
    }
    Ok(match &report.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        verdict => {
            println!("{verdict:?}");
            report.console_tail.iter().for_each(|line| println!("  {line}"));
            ExitCode::FAILURE
        }
    })
}
