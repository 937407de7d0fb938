//! How a guest gets something to do without a change to its disk: systemd credentials in SMBIOS strings.
//!
//! systemd imports type 11 strings of the form `io.systemd.credential.binary:NAME=BASE64`. Three are enough: a unit
//! (`systemd.extra-unit.*`, systemd 256 and later), a drop-in that makes multi-user.target want it, and the script it runs.
//! They go as values on the command line, not as files: then a recorded command line says all there was.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The name of the virtio port on which the guest reports.
pub(crate) const PORT: &str = "boot-report";

/// What runs in the guest.
pub(crate) const SCRIPT: &str = include_str!("guest.sh");

/// `Type=simple`: the script waits for the boot to end, which waits for every job, so it must not be one.
const UNIT: &str = "\
[Unit]
Description=Report how the boot went

[Service]
Type=simple
ImportCredential=boot-report.*
ExecStart=/bin/sh ${CREDENTIALS_DIRECTORY}/boot-report.sh
StandardOutput=journal
StandardError=journal
";

const DROP_IN: &str = "\
[Unit]
Wants=boot-report.service
";

/// The SMBIOS type 11 strings that make a guest report, after an errand if there is one, and then switch itself off or reboot.
pub(crate) fn smbios_strings(errand: Option<&str>, reboot: bool) -> Vec<String> {
    let mut credentials = vec![
        ("systemd.extra-unit.boot-report.service", UNIT),
        ("systemd.unit-dropin.multi-user.target~boot-report", DROP_IN),
        ("boot-report.sh", SCRIPT),
    ];
    credentials.extend(errand.map(|script| ("boot-report.errand", script)));
    credentials.extend(reboot.then_some(("boot-report.ending", "reboot")));
    let string = |(name, contents)| {
        format!("io.systemd.credential.binary:{name}={}", STANDARD.encode(contents))
    };
    credentials.into_iter().map(string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SMBIOS 2 tables are at most 64 KiB, together with what QEMU says there itself.
    #[test]
    fn the_strings_fit_their_table_and_the_command_line() {
        let strings = smbios_strings(Some("true"), true);
        assert_eq!(strings.len(), smbios_strings(None, false).len() + 2);
        assert!(strings.iter().map(String::len).sum::<usize>() < 32 << 10);
        assert!(strings.iter().all(|string| string.is_ascii() && !string.contains([',', '\0'])));
    }
}
