//! A blueprint as a kickstart: what Anaconda is told on a medium that starts it.
//!
//! ```text
//! osbuild.ks       what decides about disks: nothing, so that Anaconda asks; or the one disk that is meant; or the user's own text
//!   %include osbuild-base.ks      which image, users, the rest of the blueprint, and where updates come from
//! ```
//!
//! The names, and what is told by default, are those of bootc-image-builder; but no disk is cleared that nobody chose. What the
//! commands mean: pykickstart's documentation.

use std::fmt::Write;

use anyhow::Result;

use super::Blueprint;
use super::accounts::User;
use super::customize::{hashed, kernel_arguments};
use super::installer::Installer;
use super::system::{Firewall, Locale, Services, Timezone};
use crate::error::unsupported;
use crate::filesystem_kind::FileSystem;

/// Where Anaconda has the medium.
const MEDIUM: &str = "/run/install/repo";
/// Where it is told which disk the one disk is.
const CHOICE: &str = "/tmp/bootpress-disk.ks";
/// As on disks that are built.
const SUDOERS: &str = "/etc/sudoers.d/50-bootpress";
/// Finds the only disk that is not the medium.
const ONLY_DISK: &str = include_str!("only-disk.sh");

/// What is installed, and where.
#[derive(Clone, Copy, Debug)]
pub struct Installation<'a> {
    /// How the machine gets at the image that it follows, as bootc spells it: `registry`, `oci`.
    pub transport: &'a str,
    /// The name of that image.
    pub target: &'a str,
    /// The root's file system.
    pub filesystem: FileSystem,
    /// Further kernel arguments of the installed system.
    pub arguments: &'a [String],
    /// The disk to use without asking: `path=/dev/…` or `only-disk`.
    pub disk: Option<&'a str>,
    /// What salts of passwords derive from.
    pub seed: &'a str,
}

/// Two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kickstart {
    /// `osbuild.ks`.
    pub main: String,
    /// `osbuild-base.ks`.
    pub base: String,
}

/// The kickstart. `Unsupported`: the blueprint asks for what a kickstart has no words for.
pub fn kickstart(blueprint: &Blueprint, installation: &Installation<'_>) -> Result<Kickstart> {
    refuse(blueprint)?;
    let Installer { kickstart: own, sudo_without_password, .. } = &blueprint.installer;
    let mut base = Lines::default();
    let container = format!("{MEDIUM}/container");
    base.add(&["ostreecontainer", "--url", &container, "--transport", "oci"]);
    base.option("--no-signature-verification");
    for group in &blueprint.groups {
        base.add(&["group", "--name", &group.name]);
        base.number("--gid", group.gid);
    }
    for user in &blueprint.users {
        base.user(user, installation.seed);
    }
    base.system(blueprint, installation, own.is_none());
    base.afterwards(sudo_without_password, installation);
    let mut main = Lines(format!("%include {MEDIUM}/osbuild-base.ks\n"));
    match own {
        Some(text) => {
            main.0 += text;
            if !text.ends_with('\n') {
                main.0.push('\n');
            }
            if let Some(disk) = installation.disk {
                return Err(unsupported(
                    format!(
                        "installer.kickstart.contents says which disk is used, and so does {disk}"
                    ),
                    Some("say it there only"),
                ));
            }
        }
        None => main.disk(installation)?,
    }
    Ok(Kickstart { main: main.0, base: base.0 })
}

/// Refuses keys that a kickstart has no words for.
fn refuse(blueprint: &Blueprint) -> Result<()> {
    // Every key is here, so that the compiler asks about a new one: is it said, or refused?
    let Blueprint {
        hostname: _,
        kernel_append: _,
        users,
        groups: _,
        timezone: Timezone { name: _, ntp_servers: _ },
        locale: Locale { languages: _, keyboard: _ },
        firewall,
        services: Services { enabled: _, disabled: _, masked },
        sshd,
        directories,
        files,
        certificates,
        scripts,
        ignition,
        // It is a kernel argument.
        fips: _,
        console,
        installer,
        containers,
        layout,
    } = blueprint;
    // What is not for the kickstart is for the medium: its labels, its menu, Anaconda's modules.
    let Installer {
        unattended: _,
        sudo_without_password: _,
        device: _,
        volume_id: _,
        application_id: _,
        publisher: _,
        kickstart: _,
        enabled_modules: _,
        disabled_modules: _,
        menu_timeout: _,
    } = installer;
    let expires = |user: &User| user.expire_day.is_some() || user.force_password_reset;
    let asked = [
        ("firewall", *firewall != Firewall::default()),
        ("services.masked", !masked.is_empty()),
        ("sshd", !sshd.settings.is_empty()),
        ("directories", !directories.is_empty()),
        ("files", !files.is_empty()),
        ("cacerts", !certificates.is_empty()),
        ("firstboot", !scripts.is_empty()),
        ("ignition", ignition.is_some()),
        ("bootloader", console.is_some()),
        ("filesystem and customizations.disk", layout.is_some()),
        ("containers-storage and containers", !containers.images.is_empty()),
        ("user.expiredate and force_password_reset", users.iter().any(expires)),
    ];
    let Some((key, _)) = asked.into_iter().find(|(_, asked)| *asked) else { return Ok(()) };
    Err(unsupported(
        format!(
            "customizations.{key} cannot be honoured: Anaconda installs the image, and a kickstart has no words for it"
        ),
        Some(
            "write a %post into installer.kickstart.contents, or build with --format iso, which honours all of them",
        ),
    ))
}

/// Commands, a line each.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        self.0 += &words.join(" ");
        self.0.push('\n');
    }

    /// Adds to the last line, as it is.
    fn option(&mut self, text: &str) {
        self.0.pop();
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, " {text}");
    }

    /// Adds an option and its value to the last line.
    fn further(&mut self, option: &str, value: &str) {
        self.option(&format!("{option} {}", quoted(value)));
    }

    fn number(&mut self, option: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.further(option, &value.to_string());
        }
    }

    fn user(&mut self, user: &User, seed: &str) {
        let User {
            name,
            description,
            password,
            keys,
            home,
            shell,
            groups,
            uid,
            gid,
            // Refused: a kickstart has no words for them.
            expire_day: _,
            force_password_reset: _,
        } = user;
        let locked = password.as_deref() == Some("");
        let password = password.as_ref().filter(|_| !locked);
        let password = password.map(|password| hashed(password, seed, name));
        if name == "root" {
            if let Some(password) = &password {
                self.add(&["rootpw", "--iscrypted", password]);
            }
        } else {
            self.add(&["user", "--name", name]);
            if let Some(password) = password {
                self.further("--password", &password);
                self.option("--iscrypted");
            } else if locked {
                self.option("--lock");
            }
            let options = [("--gecos", description), ("--homedir", home), ("--shell", shell)];
            for (option, value) in options {
                if let Some(value) = value {
                    self.further(option, value);
                }
            }
            self.number("--uid", *uid);
            self.number("--gid", *gid);
            if !groups.is_empty() {
                self.further("--groups", &groups.join(","));
            }
        }
        for key in keys {
            self.add(&["sshkey", "--username", name]);
            // Its kickstarts have keys between double quotes.
            self.option(&format!("\"{}\"", key.replace(['"', '\\'], "")));
        }
    }

    /// What the blueprint says of the system. `whole`: the rest, too, which a kickstart of the user's own says itself.
    fn system(&mut self, blueprint: &Blueprint, installation: &Installation<'_>, whole: bool) {
        let has_password = |user: &User| {
            user.name == "root" && user.password.as_ref().is_some_and(|text| !text.is_empty())
        };
        let locks_root = |user: &User| user.name == "root" && user.password.as_deref() == Some("");
        if blueprint.users.iter().any(locks_root)
            || whole && !blueprint.users.iter().any(has_password)
        {
            self.add(&["rootpw", "--lock"]);
        }
        let or = |said: Option<&String>, usual: &str| match said {
            Some(said) => Some(said.clone()),
            None => whole.then(|| usual.to_owned()),
        };
        let languages = &blueprint.locale.languages;
        if let Some(language) = or(languages.first(), "en_US.UTF-8") {
            self.add(&["lang", &language]);
        }
        if languages.len() > 1 {
            self.further("--addsupport", &languages[1..].join(","));
        }
        if let Some(keyboard) = or(blueprint.locale.keyboard.as_ref(), "us") {
            self.add(&["keyboard", &keyboard]);
        }
        if let Some(zone) = or(blueprint.timezone.name.as_ref(), "UTC") {
            self.add(&["timezone", &zone, "--utc"]);
        }
        for server in &blueprint.timezone.ntp_servers {
            self.add(&["timesource", "--ntp-server", server]);
        }
        if whole {
            self.add(&["network", "--bootproto", "dhcp", "--device", "link", "--activate"]);
            self.further("--onboot", "on");
        }
        if let Some(name) = &blueprint.hostname {
            self.add(&["network", "--hostname", name]);
        }
        let services = &blueprint.services;
        for (option, units) in
            [("--enabled", &services.enabled), ("--disabled", &services.disabled)]
        {
            if !units.is_empty() {
                self.add(&["services", option, &units.join(",")]);
            }
        }
        let mut arguments = kernel_arguments(blueprint, None);
        arguments.extend(installation.arguments.iter().cloned());
        if !arguments.is_empty() {
            self.add(&["bootloader", "--append", &arguments.join(" ")]);
        }
    }

    /// What runs in the installed system: Anaconda itself knows the image by its place on the medium only.
    fn afterwards(&mut self, sudoers: &[String], installation: &Installation<'_>) {
        self.0 += "%post --erroronfail\nset -e\n";
        let _ = writeln!(
            self.0,
            "bootc switch --mutate-in-place --transport {} {}",
            in_shell(installation.transport),
            in_shell(installation.target)
        );
        for name in sudoers {
            let name = in_shell(name);
            let _ =
                writeln!(self.0, "printf '%s\\tALL=(ALL)\\tNOPASSWD: ALL\\n' {name} >>{SUDOERS}");
        }
        if !sudoers.is_empty() {
            let _ = writeln!(self.0, "chmod 0440 {SUDOERS}");
        }
        // What tests of such media wait for.
        self.0 +=
            "if [ -c /dev/ttyS0 ]; then echo 'Install finished' >/dev/ttyS0 || true; fi\n%end\n";
    }

    /// Which disk, and what becomes of it.
    fn disk(&mut self, installation: &Installation<'_>) -> Result<()> {
        let Some(disk) = installation.disk else {
            // Anaconda asks, and nothing is lost before it has been answered.
            return Ok(());
        };
        match disk.strip_prefix("path=/dev/") {
            Some(name) => self.add(&["ignoredisk", "--only-use", name]),
            None if disk == "only-disk" => {
                let _ = write!(self.0, "%pre --erroronfail\n{ONLY_DISK}%end\n%include {CHOICE}\n");
            }
            None => {
                return Err(unsupported(
                    format!("Anaconda's disk cannot be selected by {disk}"),
                    Some("take path=/dev/NAME or only-disk; or leave it out, and Anaconda asks"),
                ));
            }
        }
        self.add(&["zerombr"]);
        self.add(&["clearpart", "--all", "--initlabel"]);
        match installation.filesystem {
            FileSystem::Btrfs => self.add(&["autopart", "--nohome", "--type=btrfs"]),
            other => {
                self.add(&["autopart", "--nohome", "--type=plain", &format!("--fstype={other}")]);
            }
        }
        self.add(&["reboot", "--eject"]);
        Ok(())
    }
}

/// A word of a kickstart, which is split as by a shell (pykickstart uses Python's shlex).
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { in_shell(word) }
}

fn in_shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Purpose, Reading};

    const INSTALLATION: Installation<'_> = Installation {
        transport: "registry",
        target: "quay.io/x/y:1",
        filesystem: FileSystem::Xfs,
        arguments: &[],
        disk: None,
        seed: "s",
    };

    fn made(text: &str, installation: &Installation<'_>) -> Result<Kickstart> {
        let reading = Reading { purpose: Purpose::Anaconda, ..Reading::default() };
        let config =
            Config::read(text, "c.toml", reading, &|_| Err(std::io::ErrorKind::NotFound.into()))?;
        kickstart(&config.blueprint, installation)
    }

    #[test]
    fn nobody_loses_a_disk_that_was_not_chosen() {
        let asks = made("", &INSTALLATION).unwrap();
        assert_eq!(asks.main, "%include /run/install/repo/osbuild-base.ks\n");
        assert!(!asks.base.contains("clearpart") && asks.base.contains("rootpw --lock\n"));
        let vda = Installation { disk: Some("path=/dev/vda"), ..INSTALLATION };
        let one = made("", &vda).unwrap();
        assert_eq!(
            one.main,
            "%include /run/install/repo/osbuild-base.ks\nignoredisk --only-use vda\nzerombr\nclearpart --all --initlabel\n\
             autopart --nohome --type=plain --fstype=xfs\nreboot --eject\n"
        );
        let only = made("", &Installation { disk: Some("only-disk"), ..INSTALLATION }).unwrap();
        assert!(only.main.contains("%pre --erroronfail\n") && only.main.contains(CHOICE));
        let serial = Installation { disk: Some("serial=x"), ..INSTALLATION };
        assert!(made("", &serial).is_err());
    }

    #[test]
    fn a_kickstart_of_ones_own_takes_the_place_of_ours() {
        let text = "[customizations.installer.kickstart]\ncontents = \"text --non-interactive\"\n\
                    [[customizations.user]]\nname = \"ann\"\nkey = \"ssh-ed25519 AAAA ann\"\n\
                    [customizations]\nhostname = \"tiny\"\n[customizations.kernel]\nappend = \"quiet\"\n";
        let kickstart = made(text, &INSTALLATION).unwrap();
        assert_eq!(
            kickstart.main,
            "%include /run/install/repo/osbuild-base.ks\ntext --non-interactive\n"
        );
        assert!(!kickstart.base.contains("lang "), "{}", kickstart.base);
        for said in ["network --hostname tiny\n", "bootloader --append quiet\n"] {
            assert!(kickstart.base.contains(said), "what is asked for besides is not lost: {said}");
        }
        assert!(kickstart.base.contains("sshkey --username ann \"ssh-ed25519 AAAA ann\"\n"));
        let twice = Installation { disk: Some("only-disk"), ..INSTALLATION };
        assert!(made(text, &twice).is_err());
    }

    #[test]
    fn what_a_kickstart_cannot_say_is_refused() {
        let text = "[[customizations.files]]\npath = \"/etc/x\"\ndata = \"y\"\n";
        let error = made(text, &INSTALLATION).unwrap_err().to_string();
        assert!(error.contains("customizations.files"), "{error}");
    }

    #[test]
    fn accounts_with_an_empty_password_are_locked() {
        let user =
            |name: &str| format!("[[customizations.user]]\nname = \"{name}\"\npassword = \"\"\n");
        let base = made(&user("ann"), &INSTALLATION).unwrap().base;
        assert!(base.contains("user --name ann --lock\n"), "{base}");
        assert!(!base.contains("--iscrypted"), "{base}");
        let base = made(&user("root"), &INSTALLATION).unwrap().base;
        assert!(base.contains("rootpw --lock\n") && !base.contains("--iscrypted"), "{base}");
        let own =
            format!("{}[customizations.installer.kickstart]\ncontents = \"text\"\n", user("root"));
        let base = made(&own, &INSTALLATION).unwrap().base;
        assert!(base.contains("rootpw --lock\n"), "{base}");
    }
}
