//! Small files of `/etc`: name, clock, language, ssh, firewall.

use std::fmt::Write;

use anyhow::Result;

use super::system::{Access, System};
use crate::config::Containers;
use crate::config::system::{Firewall, Locale, Sshd, Timezone};
use crate::error::unsupported;

pub(super) fn hostname(system: &mut System<'_>, name: &str) -> Result<()> {
    system.rewrite("/etc/hostname", &format!("{name}\n"))
}

pub(super) fn timezone(system: &mut System<'_>, timezone: &Timezone) -> Result<()> {
    const ZONES: &str = "/usr/share/zoneinfo";
    if let Some(name) = &timezone.name {
        if !system.exists(&format!("{ZONES}/{name}")) {
            return Err(unsupported(
                format!("the image has no time zone {name}: {ZONES}/{name} is missing"),
                Some(
                    "names are those of `timedatectl list-timezones`; the package tzdata has them",
                ),
            ));
        }
        system.make_link("/etc/localtime", &format!("..{ZONES}/{name}"))?;
        // Debian's copy of the name.
        if system.exists("/etc/timezone") {
            system.rewrite("/etc/timezone", &format!("{name}\n"))?;
        }
    }
    if timezone.ntp_servers.is_empty() { Ok(()) } else { ntp(system, &timezone.ntp_servers) }
}

fn ntp(system: &mut System<'_>, servers: &[String]) -> Result<()> {
    for path in ["/etc/chrony.conf", "/etc/chrony/chrony.conf"] {
        let Some(text) = system.read(path)? else { continue };
        // What the image asks for time goes; the rest of the configuration stays.
        let source = |line: &&str| {
            ["server ", "pool ", "peer "].iter().any(|word| line.trim_start().starts_with(word))
        };
        let mut new: String =
            text.lines().filter(|line| !source(line)).map(|line| format!("{line}\n")).collect();
        for server in servers {
            new += &format!("server {server} iburst\n");
        }
        return system.rewrite(path, &new);
    }
    if system.exists("/usr/lib/systemd/systemd-timesyncd") {
        let text = format!("[Time]\nNTP={}\n", servers.join(" "));
        return system.rewrite("/etc/systemd/timesyncd.conf.d/50-bootpress.conf", &text);
    }
    Err(unsupported(
        "timezone.ntpservers: the image has neither chrony nor systemd-timesyncd",
        Some("add one of them in the image's Containerfile"),
    ))
}

pub(super) fn locale(system: &mut System<'_>, locale: &Locale) -> Result<()> {
    if let Some(first) = locale.languages.first() {
        let mut values = vec![("LANG", first.clone())];
        if locale.languages.len() > 1 {
            // What has no translation into the first is shown in the next; without code sets, as gettext wants it.
            let plain = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
            let list: Vec<String> = locale.languages.iter().map(plain).collect();
            values.push(("LANGUAGE", list.join(":")));
        }
        assign(system, "/etc/locale.conf", &values)?;
        // Debian's PAM reads this one, where the other is not a link to it.
        let debian = "/etc/default/locale";
        if system.exists(debian)
            && system.canonical(debian)? != system.canonical("/etc/locale.conf")?
        {
            assign(system, debian, &values)?;
        }
    }
    let Some(keyboard) = &locale.keyboard else { return Ok(()) };
    if !has_keymap(system, keyboard) {
        return Err(unsupported(
            format!("the image has no keyboard map {keyboard}"),
            Some("names are those of `localectl list-keymaps`"),
        ));
    }
    assign(system, "/etc/vconsole.conf", &[("KEYMAP", keyboard.clone())])
}

/// Whether the console has such a map. Images without any map cannot be asked.
fn has_keymap(system: &mut System<'_>, keymap: &str) -> bool {
    const PLACES: [&str; 3] =
        ["/usr/lib/kbd/keymaps", "/usr/share/keymaps", "/usr/share/kbd/keymaps"];
    let mut any = false;
    for place in PLACES {
        let Some(directory) = system.find(place) else { continue };
        any = true;
        let found = system.tree.walk_from(directory).any(|(path, _)| {
            let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            name.strip_prefix(keymap.as_bytes())
                .is_some_and(|rest| rest == b".map" || rest == b".map.gz")
        });
        if found {
            return true;
        }
    }
    if !any {
        system.warn(format!("locale.keyboard: the image has no keyboard maps, so {keymap} takes effect only once it has"));
    }
    !any
}

/// Sets variables in a file of assignments; other lines stay.
fn assign(system: &mut System<'_>, path: &str, values: &[(&str, String)]) -> Result<()> {
    let text = system.read(path)?.unwrap_or_default();
    let ours = |line: &str| {
        values.iter().any(|(key, _)| {
            line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
        })
    };
    let mut new = String::new();
    for line in text.lines().filter(|line| !ours(line)) {
        new += &format!("{line}\n");
    }
    for (key, value) in values {
        new += &format!("{key}={value}\n");
    }
    system.rewrite(path, &new)
}

pub(super) fn sshd(system: &mut System<'_>, sshd: &Sshd) -> Result<()> {
    const DIRECTORY: &str = "/etc/ssh/sshd_config.d";
    if sshd.settings.is_empty() {
        return Ok(());
    }
    let places =
        ["/etc/ssh/sshd_config", "/usr/share/openssh/sshd_config", "/usr/etc/ssh/sshd_config"];
    let mut included = false;
    for place in places {
        included |= system.read(place)?.is_some_and(|text| {
            text.lines().any(|line| {
                line.trim().to_ascii_lowercase().starts_with("include")
                    && line.contains("sshd_config.d")
            })
        });
    }
    if !included {
        return Err(unsupported(
            format!("customizations.sshd: the image's sshd_config does not include {DIRECTORY}"),
            Some("add `Include /etc/ssh/sshd_config.d/*.conf` at its beginning"),
        ));
    }
    let mut text =
        "# What the configuration of this disk asked for. The first value of a keyword counts.\n"
            .to_owned();
    for (key, value) in &sshd.settings {
        text += &format!("{key} {value}\n");
    }
    system.write(&format!("{DIRECTORY}/00-bootpress.conf"), text.as_bytes(), Access::root(0o600))
}

pub(super) fn firewall(system: &mut System<'_>, firewall: &Firewall) -> Result<()> {
    if *firewall == Firewall::default() {
        return Ok(());
    }
    if !system.is_directory("/usr/lib/firewalld/zones") {
        return Err(unsupported(
            "customizations.firewall: the image has no firewalld",
            Some("add the package firewalld in the image's Containerfile, or leave the key away"),
        ));
    }
    let configuration = system.read("/etc/firewalld/firewalld.conf")?.unwrap_or_default();
    let default = configuration.lines().find_map(|line| line.trim().strip_prefix("DefaultZone="));
    let default = default.map_or("public", str::trim).to_owned();
    let mut elements = String::new();
    for (port, protocol) in &firewall.ports {
        let port = numbered(system, port, protocol)?;
        let _ = writeln!(elements, "  <port port=\"{port}\" protocol=\"{protocol}\"/>");
    }
    for service in firewall.enabled.iter().chain(&firewall.disabled) {
        let file = |place: &str| format!("{place}/firewalld/services/{service}.xml");
        if !system.exists(&file("/usr/lib")) && !system.exists(&file("/etc")) {
            return Err(unsupported(
                format!("customizations.firewall: the image's firewalld has no service {service}"),
                Some("names are those of `firewall-cmd --get-services`"),
            ));
        }
    }
    for service in &firewall.enabled {
        let _ = writeln!(elements, "  <service name=\"{service}\"/>");
    }
    if !elements.is_empty() || !firewall.disabled.is_empty() {
        zone(system, &default, &elements, &firewall.disabled)?;
    }
    for (name, sources) in &firewall.zones {
        let kind = |source: &str| match source.split(':').count() {
            6 if source.len() == 17 => "mac",
            _ if source.starts_with("ipset:") => "ipset",
            _ => "address",
        };
        let elements: String = sources
            .iter()
            .map(|source| {
                format!(
                    "  <source {}=\"{}\"/>\n",
                    kind(source),
                    source.trim_start_matches("ipset:")
                )
            })
            .collect();
        zone(system, name, &elements, &[])?;
    }
    Ok(())
}

/// Port numbers of a port, a range or a name of `/etc/services`.
fn numbered(system: &System<'_>, port: &str, protocol: &str) -> Result<String> {
    let number = |text: &str| text.parse::<u16>().is_ok_and(|number| number > 0);
    let range = port.split_once('-').is_some_and(|(low, high)| number(low) && number(high));
    if number(port) || range {
        return Ok(port.to_owned());
    }
    let services = system.read("/etc/services")?.unwrap_or_default();
    let found = services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (name, place) = (words.next()?, words.next()?);
        let (number, kind) = place.split_once('/')?;
        (kind == protocol && (name == port || words.any(|alias| alias == port)))
            .then(|| number.to_owned())
    });
    found.ok_or_else(|| {
        unsupported(
            format!(
                "customizations.firewall: {port}:{protocol} is not a port that the image knows"
            ),
            None,
        )
    })
}

/// Writes a zone as it is in the image, with elements added and services taken away.
fn zone(system: &mut System<'_>, name: &str, elements: &str, without: &[String]) -> Result<()> {
    let own = format!("/etc/firewalld/zones/{name}.xml");
    let shipped = format!("/usr/lib/firewalld/zones/{name}.xml");
    let text = match (system.read(&own)?, system.read(&shipped)?) {
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => {
            format!(
                "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<zone>\n  <short>{name}</short>\n</zone>\n"
            )
        }
    };
    let mut text = text;
    for service in without {
        let spelled =
            [format!("<service name=\"{service}\"/>"), format!("<service name=\"{service}\" />")];
        text = text
            .lines()
            .filter(|line| !spelled.contains(&line.trim().to_owned()))
            .map(|line| format!("{line}\n"))
            .collect();
    }
    let Some(end) = text.rfind("</zone>") else {
        return Err(unsupported(
            format!("the zone {name} of the image's firewalld is not XML that ends with </zone>"),
            None,
        ));
    };
    // An element that is there already must not stand twice.
    let new: String = elements
        .lines()
        .filter(|line| !text.contains(line.trim()))
        .map(|line| format!("{line}\n"))
        .collect();
    text.insert_str(end, &new);
    system.write(&own, text.as_bytes(), Access::root(0o644))
}
/// Lets users, and groups (`%wheel`), use sudo without a password.
pub(super) fn sudo(system: &mut System<'_>, names: &[String]) -> Result<()> {
    if !["/usr/bin/sudo", "/usr/sbin/sudo"].iter().any(|path| system.exists(path)) {
        return Err(unsupported(
            "installer.sudo-nopasswd: the image has no sudo",
            Some("add it in the image's Containerfile"),
        ));
    }
    let lines: Vec<String> =
        names.iter().map(|name| format!("{name}\tALL=(ALL)\tNOPASSWD: ALL\n")).collect();
    // sudo reads no file that others may write to.
    system.write("/etc/sudoers.d/50-bootpress", lines.concat().as_bytes(), Access::root(0o440))
}

/// Makes the directory of application images, and tells podman of it if that would not look there.
pub(super) fn containers(system: &mut System<'_>, containers: &Containers) -> Result<()> {
    if containers.images.is_empty() {
        return Ok(());
    }
    let path = containers.path();
    system.make_directory_once(path, Access::root(0o700))?;
    if containers.destination.is_none() {
        return Ok(());
    }
    let mut text = None;
    for place in ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"] {
        text = text.or(system.read(place)?);
    }
    // A file in /etc hides the one in /usr, so it has to say all of it.
    let text = text.unwrap_or_else(|| "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n".to_owned());
    system.rewrite("/etc/containers/storage.conf", &with_store(&text, path))
}

/// The text of a `storage.conf` with one more store to look into.
fn with_store(text: &str, path: &str) -> String {
    const KEY: &str = "additionalimagestores";
    const SECTION: &str = "[storage.options]";
    let is_key = |line: &str| {
        let rest = line.trim_start().strip_prefix(KEY);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let (mut new, mut done) = (String::new(), false);
    let has_key = text.lines().any(is_key);
    for line in text.lines() {
        match line.split_once('[') {
            Some((before, after)) if !done && is_key(line) => {
                new += &format!("{before}[\"{path}\", {after}\n");
                done = true;
            }
            _ => new += &format!("{line}\n"),
        }
        if !done && !has_key && line.trim() == SECTION {
            new += &format!("{KEY} = [\"{path}\"]\n");
            done = true;
        }
    }
    if !done {
        new += &format!("\n{SECTION}\n{KEY} = [\"{path}\"]\n");
    }
    new
}
