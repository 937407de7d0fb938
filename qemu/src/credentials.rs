//! How a guest gets something to do without a change to its disk: systemd credentials.
//!
//! ```text
//! SMBIOS type 11   io.systemd.credential.binary:NAME=BASE64             what all machines have
//! fw_cfg           opt/io.systemd.credentials/NAME   contents           what is too long for that, or all of it on request
//! ```
//!
//! Three are enough: a unit (`systemd.extra-unit.*`, systemd 256 and later), something that makes systemd want it, and the script
//! it runs. They go as values on the command line, not as files: then a recorded command line says all there was.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::BootError;

/// The name of the virtio port on which the guest reports.
pub(crate) const PORT: &str = "boot-report";

/// What runs in the guest.
pub(crate) const SCRIPT: &str = include_str!("guest.sh");

/// SMBIOS 2 tables are at most 64 KiB, together with what QEMU says there itself.
const TABLE: usize = 48 << 10;

/// Linux takes no longer argument on a command line than 128 KiB; the name and doubled commas belong to it.
const ARGUMENT: usize = 120 << 10;

/// QEMU's names of files in fw_cfg have at most 55 characters.
const LONGEST_NAME: usize = 55 - "opt/io.systemd.credentials/".len();

/// `Type=simple`: the script waits for the boot to end, which waits for every job, so it must not be one. `@PORT@` is where it
/// reports.
const UNIT: &str = "\
[Unit]
Description=Report how the boot went
@EARLY@
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

/// A drop-in's name is too long for fw_cfg. A file system that needs the unit does as well, and is wanted by every boot. It is
/// mounted early, so the unit must not wait for what comes later, and has to wait longer for its port.
const FILE_SYSTEM: &str =
    "tmpfs /run/boot-report tmpfs size=4k,nofail,x-systemd.requires=r.service 0 0\n";
const EARLY: &str = "DefaultDependencies=no\n";
const PATIENT: &str = "Environment=BOOT_REPORT_TRIES=120\nExecStart=";

/// How a guest is given what it has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// In SMBIOS strings, and through fw_cfg what is too long for them.
    #[default]
    Smbios,
    /// Through fw_cfg alone: for kernels that do not show SMBIOS strings to systemd (`dmi-sysfs`), but have `qemu_fw_cfg`.
    FwCfg,
    /// Not at all: then it cannot report.
    None,
}

impl Access {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Smbios, Self::FwCfg, Self::None];

    /// The name on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Smbios => "smbios",
            Self::FwCfg => "fw-cfg",
            Self::None => "none",
        }
    }

    /// Reads [`name`](Self::name).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.name() == name)
    }
}

/// What goes onto the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// SMBIOS type 11 strings.
    pub smbios: Vec<String>,
    /// Files of fw_cfg: name and contents.
    pub fw_cfg: Vec<(String, String)>,
}

impl Credentials {
    /// What makes a guest report to a device, such as `/dev/ttyS1`, after which it does an errand if there is one, and then switches
    /// itself off or reboots.
    ///
    /// # Errors
    /// [`BootError::Unsupported`] for an errand that is too long for any way there is.
    pub(crate) fn report(
        access: Access,
        port: &str,
        errand: Option<&str>,
        reboot: bool,
    ) -> Result<Self, BootError> {
        let unit = UNIT.replace("@PORT@", port);
        let early = unit.replace("@EARLY@", EARLY).replace("ExecStart=", PATIENT);
        let usual = unit.replace("@EARLY@", "");
        let (unit, start) = match access {
            Access::None => return Ok(Self::default()),
            Access::Smbios => (
                ("systemd.extra-unit.boot-report.service", usual.as_str()),
                ("systemd.unit-dropin.multi-user.target~boot-report", DROP_IN),
            ),
            Access::FwCfg => {
                (("systemd.extra-unit.r.service", early.as_str()), ("fstab.extra", FILE_SYSTEM))
            }
        };
        let mut wanted = vec![unit, start, ("boot-report.sh", SCRIPT)];
        wanted.extend(reboot.then_some(("boot-report.ending", "reboot")));
        wanted.extend(errand.map(|script| ("boot-report.errand", script)));
        let mut credentials = Self::default();
        let mut room = if access == Access::Smbios { TABLE } else { 0 };
        for (name, contents) in wanted {
            let string = string(name, contents);
            if string.len() <= room {
                room -= string.len();
                credentials.smbios.push(string);
            } else if name.len() <= LONGEST_NAME && written(contents).len() <= ARGUMENT {
                credentials.fw_cfg.push((name.to_owned(), contents.to_owned()));
            } else {
                let size = contents.len() >> 10;
                return Err(BootError::Unsupported(format!(
                    "{name} of {size} KiB is too long for what a guest can be given"
                )));
            }
        }
        Ok(credentials)
    }

    /// What lets the owner of a public key in as root: lines for systemd-tmpfiles, as bootc writes them, which follow /root to where
    /// it is on an ostree system.
    pub(crate) fn root_key(key: &str) -> Self {
        let key = STANDARD.encode(format!("{key}\n"));
        let lines = format!(
            "d /root/.ssh 0700 root root -\nf+~ /root/.ssh/authorized_keys 0600 root root - {key}\n"
        );
        Self { smbios: vec![string("tmpfiles.extra", &lines)], fw_cfg: Vec::new() }
    }

    /// QEMU's options and their values.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&'static str, String)> {
        let smbios = self
            .smbios
            .iter()
            .map(|string| ("-smbios", format!("type=11,value={}", written(string))));
        let fw_cfg = self.fw_cfg.iter().map(|(name, contents)| {
            let value =
                format!("name=opt/io.systemd.credentials/{name},string={}", written(contents));
            ("-fw_cfg", value)
        });
        smbios.chain(fw_cfg)
    }
}

fn string(name: &str, contents: &str) -> String {
    format!("io.systemd.credential.binary:{name}={}", STANDARD.encode(contents))
}

/// In a value a comma is two.
fn written(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(access: Access, errand: Option<&str>) -> Credentials {
        Credentials::report(access, "/dev/ttyS1", errand, errand.is_some()).unwrap()
    }

    fn line(credentials: &Credentials) -> String {
        credentials.options().map(|(option, value)| format!("{option} {value}\n")).collect()
    }

    #[test]
    fn strings_fit_their_table_and_the_command_line() {
        let plain = report(Access::Smbios, None);
        assert_eq!((plain.smbios.len(), plain.fw_cfg.len()), (3, 0));
        assert_eq!(report(Access::Smbios, Some("true")).smbios.len(), 5);
        assert!(plain.smbios.iter().map(String::len).sum::<usize>() < TABLE);
        assert!(
            plain.smbios.iter().all(|string| string.is_ascii() && !string.contains([',', '\0']))
        );
        assert!(
            line(&plain).starts_with("-smbios type=11,value=io.systemd.credential.binary:systemd.")
        );
        assert_eq!(report(Access::None, Some("true")), Credentials::default());
    }

    #[test]
    fn what_is_too_long_for_strings_goes_through_fw_cfg() {
        let long = "echo a,b\n".repeat(8 << 10);
        let credentials = report(Access::Smbios, Some(&long));
        assert_eq!((credentials.smbios.len(), credentials.fw_cfg.len()), (4, 1));
        let line = line(&credentials);
        let expected =
            "-fw_cfg name=opt/io.systemd.credentials/boot-report.errand,string=echo a,,b\necho";
        assert!(line.contains(expected));
        let endless = "#".repeat(200 << 10);
        let error = Credentials::report(Access::Smbios, "x", Some(&endless), false).unwrap_err();
        assert!(error.to_string().contains("boot-report.errand of 200 KiB is too long"), "{error}");
    }

    #[test]
    fn all_of_it_can_go_through_fw_cfg() {
        let credentials = report(Access::FwCfg, Some("true"));
        assert_eq!((credentials.smbios.len(), credentials.fw_cfg.len()), (0, 5));
        let line = line(&credentials);
        for expected in [
            "-fw_cfg name=opt/io.systemd.credentials/systemd.extra-unit.r.service,string=[Unit]\n",
            "DefaultDependencies=no\n",
            "Environment=BOOT_REPORT_TRIES=120\n",
            ",string=tmpfs /run/boot-report tmpfs size=4k,,nofail,,x-systemd.requires=r.service 0 0\n",
        ] {
            assert!(line.contains(expected), "{expected}: {line}");
        }
        for (name, _) in &credentials.fw_cfg {
            assert!("opt/io.systemd.credentials/".len() + name.len() <= 55, "{name}");
        }
        for access in Access::ALL {
            assert_eq!(Access::parse(access.name()), Some(access));
        }
    }
}
