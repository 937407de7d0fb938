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

/// `Type=simple`: the script waits for the boot to end, which waits for every job, so it must not be one. `@PORT@` is where it
/// reports.
const UNIT: &str = "\
[Unit]
Description=Report how the boot went

[Service]
Type=simple
ImportCredential=boot-report.*
Environment=BOOT_REPORT_PORT=@PORT@
ExecStart=/bin/sh ${CREDENTIALS_DIRECTORY}/boot-report.sh
StandardOutput=journal
StandardError=journal
";

const DROP_IN: &str = "\
[Unit]
Wants=boot-report.service
";

/// The SMBIOS type 11 strings that make a guest report to a device, such as `/dev/ttyS1`, after which it does an errand if there is
/// one, and then switches itself off or reboots.
pub(crate) fn smbios_strings(port: &str, errand: Option<&str>, reboot: bool) -> Vec<String> {
    let unit = UNIT.replace("@PORT@", port);
    let mut credentials = vec![
        ("systemd.extra-unit.boot-report.service", unit.as_str()),
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

/// The SMBIOS type 11 string that lets the owner of a public key in as root: a line for systemd-tmpfiles, as bootc writes them,
/// which follows /root to where it is on an ostree system.
pub(crate) fn root_key(key: &str) -> String {
    let key = STANDARD.encode(format!("{key}\n"));
    let lines = format!(
        "d /root/.ssh 0700 root root -\nf+~ /root/.ssh/authorized_keys 0600 root root - {key}\n"
    );
    format!("io.systemd.credential.binary:tmpfiles.extra={}", STANDARD.encode(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SMBIOS 2 tables are at most 64 KiB, together with what QEMU says there itself.
    #[test]
    fn the_strings_fit_their_table_and_the_command_line() {
        let strings = smbios_strings("/dev/ttyS1", Some("true"), true);
        assert_eq!(strings.len(), smbios_strings("/dev/ttyS1", None, false).len() + 2);
        assert!(strings.iter().map(String::len).sum::<usize>() < 32 << 10);
        assert!(strings.iter().all(|string| string.is_ascii() && !string.contains([',', '\0'])));
    }
}
