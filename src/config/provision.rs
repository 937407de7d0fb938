//! A blueprint as a shell script that a system runs itself when it boots for the first time: for systems that are finished, into
//! which nothing can be written any more but this script.
//!
//! What can only be checked with the image at hand, or has to be there before the script runs, is refused.

use std::fmt::Write;

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Blueprint;
use super::accounts::{Owner, User};
use super::customize::{hashed, script_unit};
use super::files::Ownership;
use super::system::{Firewall, Locale, Services, Timezone};
use crate::error::unsupported;

/// What comes before the calls: a function for each.
const FUNCTIONS: &str = include_str!("provision.sh");

/// The script. `seed` is what salts derive from.
///
/// Its second line is a comment that says what it does. `Unsupported`: it asks for something that only a build can do.
pub fn provision(blueprint: &Blueprint, seed: &str) -> Result<String> {
    // Every key is here, so that the compiler asks about a new one: is it done, or refused?
    let Blueprint {
        hostname,
        groups,
        users,
        timezone: Timezone { name: zone, ntp_servers },
        locale,
        directories,
        files,
        scripts,
        services,
        kernel_append,
        firewall,
        sshd,
        certificates,
        ignition,
        fips,
        console,
        layout,
        containers,
        // A blueprint that is read for a finished system has none.
        installer: _,
    } = blueprint;
    refuse(&[
        ("kernel", kernel_append.is_some()),
        ("timezone.ntpservers", !ntp_servers.is_empty()),
        ("firewall", *firewall != Firewall::default()),
        ("sshd", !sshd.settings.is_empty()),
        ("cacerts", !certificates.is_empty()),
        ("ignition", ignition.is_some()),
        ("fips", *fips),
        ("bootloader", console.is_some()),
        ("filesystem and customizations.disk", layout.is_some()),
        ("containers-storage and containers", !containers.images.is_empty()),
    ])?;
    let mut calls = Calls::default();
    if let Some(name) = hostname {
        calls.call("host_name", &[name]);
        calls.done.push(format!("hostname {name}"));
    }
    for group in groups {
        calls.call("add_group", &[&group.name, &number(group.gid)]);
        calls.done.push(format!("group {}", group.name));
    }
    for user in users {
        calls.user(user, seed);
    }
    if let Some(name) = zone {
        calls.call("time_zone", &[name]);
        calls.done.push(format!("time zone {name}"));
    }
    calls.locale(locale);
    for directory in directories {
        let Ownership { mode, .. } = directory.owner;
        let mode = mode.map_or("-".to_owned(), |mode| format!("{mode:04o}"));
        let parents = if directory.ensure_parents { "yes" } else { "no" };
        calls.call("directory", &[&directory.path, &mode, &owner(&directory.owner, "-"), parents]);
        calls.done.push(format!("directory {}", directory.path));
    }
    for file in files {
        let mode = format!("{:04o}", file.owner.mode.unwrap_or(0o644));
        calls.put(&file.path, &mode, &owner(&file.owner, "root:root"), &file.data);
        calls.done.push(format!("file {}", file.path));
    }
    let mut before = None;
    for script in scripts {
        let unit = script_unit(script, before.as_ref())?;
        let [path, stamp] = [&unit.path, &unit.stamp];
        calls.put(stamp, "0600", "root:root", b"");
        calls.put(path, "0700", "root:root", script.contents.as_bytes());
        let file = format!("/etc/systemd/system/{}", unit.name);
        calls.put(&file, "0644", "root:root", unit.text.as_bytes());
        calls.call("enable", &[&unit.name]);
        calls.done.push(format!("script {}", script.name));
        before = Some((unit.name, script.ignore_failure));
    }
    calls.services(services);
    let done = if calls.done.is_empty() { "nothing".to_owned() } else { calls.done.join(", ") };
    Ok(format!("#!/bin/sh\n# {done}\n{FUNCTIONS}\n{}[ -z \"$failed\" ]\n", calls.text))
}

/// Refuses the first of these keys that asks for something.
fn refuse(asked: &[(&str, bool)]) -> Result<()> {
    let Some((key, _)) = asked.iter().find(|(_, asked)| *asked) else { return Ok(()) };
    Err(unsupported(
        format!(
            "customizations.{key} cannot be set once a medium is made: it takes a look into the image, or is part of the disk"
        ),
        Some("build a medium with it: `bootpress build --format iso --config FILE`"),
    ))
}

fn number(number: Option<u32>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}

/// `USER:GROUP` for chown, of which either may be missing.
fn owner(owner: &Ownership, otherwise: &str) -> String {
    let name = |owner: &Option<Owner>| match owner {
        None => String::new(),
        Some(Owner::Name(name)) => name.clone(),
        Some(Owner::Number(number)) => number.to_string(),
    };
    match (&owner.user, &owner.group) {
        (None, None) => otherwise.to_owned(),
        (user, group) => format!("{}:{}", name(user), name(group)).trim_end_matches(':').to_owned(),
    }
}

/// The part of the script that differs, and what it comes to.
#[derive(Default)]
struct Calls {
    text: String,
    done: Vec<String>,
}

impl Calls {
    fn call(&mut self, function: &str, arguments: &[&str]) {
        self.text.push_str(function);
        for argument in arguments {
            // Between single quotes everything but these is itself.
            let _ = write!(self.text, " '{}'", argument.replace('\'', "'\\''"));
        }
        self.text.push('\n');
    }

    /// Calls a function of the script with bytes on its standard input.
    fn fed(&mut self, function: &str, arguments: &[&str], bytes: &[u8]) {
        self.call(function, arguments);
        self.text.pop();
        self.text.push_str(" <<'END'\n");
        // Lines of base64 have lengths that are multiples of 4: none of them ends it.
        let base64 = BASE64_STANDARD.encode(bytes);
        for at in (0..base64.len()).step_by(76) {
            let _ = writeln!(self.text, "{}", &base64[at..base64.len().min(at + 76)]);
        }
        self.text.push_str("END\n");
    }

    fn put(&mut self, path: &str, mode: &str, owner: &str, bytes: &[u8]) {
        self.fed("put", &[path, mode, owner], bytes);
    }

    fn user(&mut self, user: &User, seed: &str) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (uid, gid) = (number(user.uid), number(user.gid));
        let (comment, home, shell) = (text(&user.description), text(&user.home), text(&user.shell));
        self.call("add_user", &[&user.name, &uid, &gid, &comment, &home, &shell]);
        if let Some(password) = &user.password {
            self.call("password", &[&user.name, &hashed(password, seed, &user.name)]);
        }
        for group in &user.groups {
            self.call("join", &[&user.name, group]);
        }
        if !user.keys.is_empty() {
            let keys: String = user.keys.iter().map(|key| format!("{key}\n")).collect();
            self.fed("keys", &[&user.name], keys.as_bytes());
        }
        if user.force_password_reset {
            self.call("age", &["-d", "0", &user.name]);
        }
        if let Some(day) = user.expire_day {
            self.call("age", &["-E", &day.to_string(), &user.name]);
        }
        self.done.push(format!("user {}", user.name));
    }

    fn locale(&mut self, locale: &Locale) {
        let Locale { languages, keyboard } = locale;
        if let Some(first) = languages.first() {
            self.call("assign", &["/etc/locale.conf", "LANG", first]);
            self.done.push(format!("language {first}"));
        }
        if languages.len() > 1 {
            let plain = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
            let list: Vec<String> = languages.iter().map(plain).collect();
            self.call("assign", &["/etc/locale.conf", "LANGUAGE", &list.join(":")]);
        }
        if let Some(keyboard) = keyboard {
            self.call("assign", &["/etc/vconsole.conf", "KEYMAP", keyboard]);
            self.done.push(format!("keyboard {keyboard}"));
        }
    }

    fn services(&mut self, services: &Services) {
        let Services { enabled, disabled, masked } = services;
        let kinds = [("mask", masked), ("disable", disabled), ("enable", enabled)];
        for (function, units) in kinds {
            for unit in units {
                self.call(function, &[unit]);
                self.done.push(format!("{function} {unit}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Reading};
    use crate::error::Unsupported;

    fn script(toml: &str) -> Result<String> {
        let config = Config::read(toml, "x.toml", Reading::default(), &|_| {
            unreachable!("it names no files")
        })?;
        provision(&config.blueprint, "seed")
    }

    #[test]
    fn the_second_line_says_what_is_done_and_words_stay_words() {
        let text = script(
            "[customizations]\nhostname = \"kiosk\"\n\
             [[customizations.user]]\nname = \"ann\"\ndescription = \"Ann O'Hara $x\"\ngroups = [\"wheel\"]\n\
             password = \"secret\"\nkey = \"ssh-ed25519 AAAA a\"\n\
             [[customizations.files]]\npath = \"/etc/motd\"\ndata = \"hello\"\n",
        )
        .unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#!/bin/sh"));
        assert_eq!(lines.next(), Some("# hostname kiosk, user ann, file /etc/motd"));
        for call in [
            "host_name 'kiosk'\n",
            "add_user 'ann' '' '' 'Ann O'\\''Hara $x' '' ''\n",
            "join 'ann' 'wheel'\n",
            "keys 'ann' <<'END'\nc3NoLWVkMjU1MTkgQUFBQSBhCg==\nEND\n",
            "put '/etc/motd' '0644' 'root:root' <<'END'\naGVsbG8=\nEND\n",
        ] {
            assert!(text.contains(call), "{call}: {text}");
        }
        assert!(!text.contains("secret") && text.contains("password 'ann' '$6$"));
        assert!(text.ends_with("[ -z \"$failed\" ]\n"));
    }

    #[test]
    fn what_only_a_build_can_do_is_refused() {
        for toml in [
            "[customizations.kernel]\nappend = \"quiet\"",
            "[customizations]\nfips = true",
            "[customizations.sshd]\npermit_root_login = false",
            "[customizations.timezone]\nntpservers = [\"a\"]",
            "[[customizations.filesystem]]\nmountpoint = \"/\"\nminsize = \"10 GiB\"",
        ] {
            assert!(script(toml).unwrap_err().is::<Unsupported>(), "{toml}");
        }
        assert!(script("").unwrap().contains("# nothing\n"));
    }

    #[test]
    fn empty_password_locks_the_account() {
        let text = script("[[customizations.user]]\nname = \"ann\"\npassword = \"\"\n").unwrap();
        assert!(text.contains("password 'ann' '!'\n"), "{text}");
    }
}
