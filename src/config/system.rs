//! What a blueprint says about the system itself: clock, language, firewall, services, ssh, certificates, first boot.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::document::Value;
use super::table::{Gravity, Problems, Table};

/// `timezone`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timezone {
    /// `Europe/Berlin`.
    pub name: Option<String>,
    /// Hosts that tell the time.
    pub ntp_servers: Vec<String>,
}

/// `locale`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locale {
    /// `en_GB.UTF-8`, the preferred one first.
    pub languages: Vec<String>,
    /// Keyboard of the text console: `de-nodeadkeys`.
    pub keyboard: Option<String>,
}

/// `firewall`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Port or range, and protocol.
    pub ports: Vec<(String, String)>,
    /// Services to let in.
    pub enabled: Vec<String>,
    /// Services no longer to let in.
    pub disabled: Vec<String>,
    /// Zones and the sources that belong to them.
    pub zones: Vec<(String, Vec<String>)>,
}

/// `services`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Units to start at boot.
    pub enabled: Vec<String>,
    /// Units not to start at boot.
    pub disabled: Vec<String>,
    /// Units never to start.
    pub masked: Vec<String>,
}

/// `sshd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sshd {
    /// Keyword and value of sshd_config(5).
    pub settings: Vec<(&'static str, String)>,
}

/// A script that runs once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Unique; letters, digits, `-` and `_`.
    pub name: String,
    /// Whether the boot goes on to the next script if it fails.
    pub ignore_failure: bool,
    /// Its text.
    pub contents: String,
    /// Units that it starts after, if they start, too.
    pub after: Vec<String>,
    /// Units that wait for it, if they start, too.
    pub before: Vec<String>,
}

/// `ignition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ignition {
    /// A configuration that comes with the disk.
    Embedded(Vec<u8>),
    /// One that is fetched at the first boot.
    Url(String),
    /// Whatever the platform provides.
    Empty,
}

pub(super) fn timezone(table: &mut Table<'_>, problems: &mut Problems) -> Timezone {
    let Some(mut entry) = table.table("timezone", problems) else { return Timezone::default() };
    let name = entry.text("timezone", problems).filter(|name| !name.value.is_empty());
    let parts_are_names =
        |name: &str| name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if let Some(name) = &name
        && !(parts_are_names(&name.value) && is_word(&name.value, "/_+-"))
    {
        problems.wrong(name.at, format!("`{name}` is not a time zone such as Europe/Berlin"));
    }
    let servers = entry.texts("ntpservers", problems);
    for server in &servers {
        if !is_word(&server.value, ".-_:") {
            problems.wrong(server.at, format!("`{server}` is not a host"));
        }
    }
    entry.finish(problems);
    Timezone {
        name: name.map(|name| name.value),
        ntp_servers: servers.into_iter().map(|server| server.value).collect(),
    }
}

pub(super) fn locale(table: &mut Table<'_>, problems: &mut Problems) -> Locale {
    let Some(mut entry) = table.table("locale", problems) else { return Locale::default() };
    let languages = entry.texts("languages", problems);
    for language in &languages {
        if !is_word(&language.value, "_.@-") {
            problems
                .wrong(language.at, format!("`{language}` is not a locale such as en_GB.UTF-8"));
        }
    }
    let keyboard = entry.text("keyboard", problems).filter(|map| !map.value.is_empty());
    if let Some(map) = &keyboard
        && !is_word(&map.value, "_.-+")
    {
        problems.wrong(map.at, format!("`{map}` is not a keyboard map"));
    }
    entry.finish(problems);
    Locale {
        languages: languages.into_iter().map(|language| language.value).collect(),
        keyboard: keyboard.map(|map| map.value),
    }
}

/// Letters, digits and some marks: what needs no quotes in any file that we write it to.
fn is_word(text: &str, marks: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with('-')
}

pub(super) fn firewall(table: &mut Table<'_>, problems: &mut Problems) -> Firewall {
    let Some(mut entry) = table.table("firewall", problems) else { return Firewall::default() };
    let mut firewall = Firewall::default();
    for port in entry.texts("ports", problems) {
        // `8080:tcp`, and `8080/tcp` as firewall-cmd spells it.
        let pair = port.value.rsplit_once([':', '/']).filter(|(number, protocol)| {
            is_word(number, "-") && ["tcp", "udp", "sctp", "dccp"].contains(protocol)
        });
        match pair {
            Some((number, protocol)) => {
                firewall.ports.push((number.to_owned(), protocol.to_owned()));
            }
            None => problems.wrong(port.at, format!("`{port}` is not a port such as 8080:tcp")),
        }
    }
    if let Some(mut services) = entry.table("services", problems) {
        firewall.enabled = words(&mut services, "enabled", "_.-", problems);
        firewall.disabled = words(&mut services, "disabled", "_.-", problems);
        services.finish(problems);
    }
    for mut zone in entry.tables("zones", problems) {
        let name = zone.required("name", problems);
        let sources = words(&mut zone, "sources", ".:/_-", problems);
        zone.finish(problems);
        if let Some(name) = name {
            if !is_word(&name.value, "_-") {
                problems.wrong(name.at, format!("`{name}` is not a zone"));
            }
            firewall.zones.push((name.value, sources));
        }
    }
    entry.finish(problems);
    firewall
}

fn words(
    table: &mut Table<'_>,
    key: &'static str,
    marks: &str,
    problems: &mut Problems,
) -> Vec<String> {
    let mut words = Vec::new();
    for word in table.texts(key, problems) {
        if is_word(&word.value, marks) {
            words.push(word.value)
        } else {
            problems.wrong(word.at, format!("`{word}` in {} is not a name", table.name(key)))
        }
    }
    words
}

pub(super) fn services(table: &mut Table<'_>, problems: &mut Problems) -> Services {
    let Some(mut entry) = table.table("services", problems) else { return Services::default() };
    let at = entry.at();
    let mut units = |key| -> Vec<String> {
        let named = words(&mut entry, key, ":-_.\\@", problems);
        named.into_iter().map(|name| unit_name(&name)).collect()
    };
    let services = Services {
        enabled: units("enabled"),
        disabled: units("disabled"),
        masked: units("masked"),
    };
    entry.finish(problems);
    for unit in &services.enabled {
        if services.disabled.contains(unit) || services.masked.contains(unit) {
            problems.wrong(at, format!("the service {unit} is both enabled and not"));
        }
    }
    services
}

/// `sshd` means `sshd.service`, as systemctl has it.
fn unit_name(name: &str) -> String {
    const KINDS: [&str; 8] =
        [".service", ".socket", ".timer", ".path", ".target", ".mount", ".swap", ".slice"];
    let whole = KINDS.iter().chain(&[".automount", ".device", ".scope"]);
    if whole.into_iter().any(|kind| name.ends_with(kind)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

pub(super) fn sshd(table: &mut Table<'_>, problems: &mut Problems) -> Sshd {
    const ROOT_LOGIN: [&str; 5] =
        ["yes", "no", "prohibit-password", "without-password", "forced-commands-only"];
    let Some(mut entry) = table.table("sshd", problems) else { return Sshd::default() };
    let mut settings = Vec::new();
    let word = |value| if value { "yes" } else { "no" }.to_owned();
    if let Some(value) = entry.bool("password_authentication", problems) {
        settings.push(("PasswordAuthentication", word(value)));
    }
    // The older name is OpenSSH's older name, too.
    for key in ["kbd_interactive_authentication", "challenge_response_authentication"] {
        if let Some(value) = entry.bool(key, problems) {
            settings.push(("KbdInteractiveAuthentication", word(value)));
        }
    }
    if let Some(value) = entry.integer("client_alive_interval", 0..=i64::from(i32::MAX), problems) {
        settings.push(("ClientAliveInterval", value.to_string()));
    }
    if let Some(node) = entry.take("permit_root_login") {
        match &node.value {
            Value::Bool(value) => settings.push(("PermitRootLogin", word(*value))),
            Value::Text(value) if ROOT_LOGIN.contains(&value.as_str()) => {
                settings.push(("PermitRootLogin", value.clone()));
            }
            _ => problems.wrong(
                node.at,
                format!(
                    "permit_root_login must be true, false or one of {}",
                    ROOT_LOGIN.join(", ")
                ),
            ),
        }
    }
    entry.finish(problems);
    Sshd { settings }
}

/// The certificates of `pem_certs`, each as DER.
pub(super) fn cacerts(table: &mut Table<'_>, problems: &mut Problems) -> Vec<Vec<u8>> {
    let Some(mut entry) = table.table("cacerts", problems) else { return Vec::new() };
    let certificates = certificates(&mut entry, "pem_certs", problems);
    entry.finish(problems);
    certificates
}

fn certificates(entry: &mut Table<'_>, key: &'static str, problems: &mut Problems) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for text in entry.texts(key, problems) {
        match pem(&text.value) {
            Ok(found) => all.extend(found),
            Err(reason) => problems.wrong(text.at, format!("{}: {reason}", entry.name(key))),
        }
    }
    all
}

/// The certificates of a PEM text (RFC 7468), as DER.
fn pem(text: &str) -> Result<Vec<Vec<u8>>, String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END).ok_or("a certificate does not end")?;
        let body: String = body.split_whitespace().collect();
        let der = BASE64_STANDARD.decode(body).map_err(|_| "a certificate is not base64")?;
        // SEQUENCE, with a length of two or three bytes: no certificate is shorter than 128 bytes or longer than 16 MiB.
        let sequence = matches!(der[..], [0x30, 0x81..=0x83, ..]);
        if !sequence {
            return Err("this is not an X.509 certificate".to_owned());
        }
        found.push(der);
        rest = after;
    }
    if found.is_empty() { Err(format!("there is no {BEGIN}")) } else { Ok(found) }
}

/// The scripts, and the certificates that they want.
pub(super) fn firstboot(
    table: &mut Table<'_>,
    problems: &mut Problems,
) -> (Vec<Script>, Vec<Vec<u8>>) {
    let Some(mut entry) = table.table("firstboot", problems) else { return Default::default() };
    let (mut scripts, mut certificates) = (Vec::<Script>::new(), Vec::new());
    for (mut inner, index) in entry.tables("scripts", problems).into_iter().zip(1..) {
        let at = inner.at();
        if let Some(script) = script(&mut inner, index, &mut certificates, problems) {
            if scripts.iter().any(|other| other.name == script.name) {
                problems.wrong(at, format!("script {} is defined twice", script.name));
            }
            scripts.push(script);
        }
        inner.finish(problems);
    }
    entry.finish(problems);
    (scripts, certificates)
}

fn script(
    entry: &mut Table<'_>,
    index: usize,
    certificates_wanted: &mut Vec<Vec<u8>>,
    problems: &mut Problems,
) -> Option<Script> {
    let kind = entry.required("type", problems);
    let name = entry.text("name", problems);
    let ignore_failure = entry.bool("ignore_failure", problems) == Some(true);
    let after = ordering(entry, "after", problems);
    let before = ordering(entry, "before", problems);
    if let Some(name) = &name
        && !is_word(&name.value, "-_")
    {
        problems.wrong(name.at, format!("`{name}` is not a name for a script"));
    }
    let kind = kind?;
    let contents = match kind.value.to_ascii_lowercase().as_str() {
        "custom" => entry.required("contents", problems)?.value,
        "satellite" => {
            let command = entry.required("command", problems);
            certificates_wanted.extend(certificates(entry, "cacerts", problems));
            format!("#!/bin/sh\nset -e\n{}\n", command?.value)
        }
        "aap" => {
            let url = entry.required("job_template_url", problems);
            let key = entry.required("host_config_key", problems);
            certificates_wanted.extend(certificates(entry, "cacerts", problems));
            let (url, key) =
                (quoted(&url?.value), quoted(&format!("host_config_key={}", key?.value)));
            format!("#!/bin/sh\nexec curl --fail --silent --show-error --data {key} {url}\n")
        }
        _ => {
            problems.wrong(
                kind.at,
                format!(
                    "invalid type `{kind}` of a script: expected one of: custom, satellite, aap"
                ),
            );
            return None;
        }
    };
    let name = name
        .map_or_else(|| format!("{}-{index}", kind.value.to_ascii_lowercase()), |name| name.value);
    Some(Script { name, ignore_failure, contents, after, before })
}

/// Targets that are reached before any ordinary service starts.
const EARLY: [&str; 7] = [
    "basic.target",
    "local-fs-pre.target",
    "local-fs.target",
    "paths.target",
    "sockets.target",
    "sysinit.target",
    "timers.target",
];

/// The units of `after` or `before`, by their full names.
fn ordering(entry: &mut Table<'_>, key: &'static str, problems: &mut Problems) -> Vec<String> {
    let mut units = Vec::new();
    for unit in entry.texts(key, problems) {
        if !is_word(&unit.value, ":-_.\\@") || unit_name(&unit.value) != unit.value {
            problems.wrong(
                unit.at,
                format!(
                    "invalid unit `{unit}` in {}: expected a full name such as postgresql.service",
                    entry.name(key)
                ),
            );
        } else if key == "before" && EARLY.contains(&unit.value.as_str()) {
            problems.wrong(
                unit.at,
                format!("a first-boot script cannot run before {unit}: services start after it"),
            );
        } else {
            units.push(unit.value);
        }
    }
    units
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

pub(super) fn ignition(table: &mut Table<'_>, problems: &mut Problems) -> Option<Ignition> {
    let mut entry = table.table("ignition", problems)?;
    let at = entry.at();
    let mut asked = Vec::new();
    if let Some(mut embedded) = entry.table("embedded", problems) {
        if let Some(config) = embedded.required("config", problems) {
            match BASE64_STANDARD.decode(config.value.trim()) {
                Ok(bytes) if serde_json::from_slice::<serde_json::Value>(&bytes).is_ok() => {
                    asked.push(Ignition::Embedded(bytes));
                }
                Ok(_) => problems.wrong(config.at, "the ignition configuration is not JSON"),
                Err(_) => problems.wrong(config.at, "the ignition configuration is not base64"),
            }
        }
        embedded.finish(problems);
    }
    if let Some(mut firstboot) = entry.table("firstboot", problems) {
        let url = firstboot.text("url", problems).filter(|url| !url.value.is_empty());
        let empty = firstboot.bool("empty", problems) == Some(true);
        match url {
            Some(url) if empty => problems.wrong(url.at, "`url` and `empty` exclude each other"),
            Some(url) if url.value.contains(char::is_whitespace) || url.value.contains('"') => {
                problems.wrong(url.at, format!("`{url}` is not a URL"));
            }
            Some(url) => asked.push(Ignition::Url(url.value)),
            None if empty => asked.push(Ignition::Empty),
            None => {
                problems.wrong(firstboot.at(), "ignition.firstboot wants `url` or `empty = true`")
            }
        }
        firstboot.finish(problems);
    }
    entry.finish(problems);
    if asked.len() > 1 {
        problems.wrong(at, "ignition.embedded and ignition.firstboot exclude each other");
    }
    asked.pop()
}

/// `bootloader.grub2`: the commands of `/boot/grub2/console.cfg`.
pub(super) fn console(table: &mut Table<'_>, problems: &mut Problems) -> Option<String> {
    let mut entry = table.table("bootloader", problems)?;
    let mut lines = String::new();
    if let Some(mut grub) = entry.table("grub2", problems) {
        // A serial line has to be set up before it is used.
        if let Some(serial) = grub.text("serial", problems) {
            if serial.value.contains(['\n', ';', '|', '&', '$'])
                || !serial.value.starts_with("serial")
            {
                problems.wrong(
                    serial.at,
                    format!("`{serial}` is not a command such as `serial --unit=0 --speed=115200`"),
                );
            }
            lines += &format!("{serial}\n");
        }
        for (key, command) in
            [("terminal_input", "terminal_input"), ("terminal_output", "terminal_output")]
        {
            let devices = words(&mut grub, key, "_", problems);
            if !devices.is_empty() {
                lines += &format!("{command} {}\n", devices.join(" "));
            }
        }
        grub.finish(problems);
    }
    entry.finish(problems);
    (!lines.is_empty()).then_some(lines)
}

/// Keys whose tables mean something elsewhere, but nothing on a bootc disk.
pub(super) fn idle(
    table: &mut Table<'_>,
    keys: &[&'static str],
    reason: &str,
    problems: &mut Problems,
) {
    for key in keys {
        if let Some(node) = table.take(key) {
            let text = format!("{} has no effect: {reason}", table.name(key));
            problems.add(node.at, Gravity::Idle, text);
        }
    }
}
