//! What a guest's facts amount to: checks that decide, and notes that do not.

use serde_json::Value;

use super::{Guest, Mount};
use crate::check::{Check, Expected, Selinux};
use crate::device::Tpm;
use crate::firmware::Firmware;
use crate::machine::Machine;

/// A file system that a running system writes to must have so many KiB left, or something will soon fail.
const LEAST_SPACE: u64 = 1024;

impl Guest {
    /// What a boot must have come to, as far as the guest can tell.
    pub(crate) fn checks(&self, machine: &Machine, expected: &Expected) -> Vec<Check> {
        // The first that fails is the verdict: what a full disk makes fail is not why.
        let mut checks: Vec<Check> = self.check_space().into_iter().collect();
        checks.extend([
            self.check_state(),
            self.check_root(),
            self.check_mounts(),
            self.check_ostree(),
        ]);
        checks.extend(self.check_bootc());
        checks.extend(expected.image_digest.as_deref().map(|digest| self.check_digest(digest)));
        if !expected.kernel_arguments.is_empty() {
            checks.push(self.check_arguments(&expected.kernel_arguments));
        }
        checks.extend(self.check_selinux(expected.selinux));
        if machine.tpm != Tpm::None {
            checks.push(self.check_tpm());
        }
        if machine.firmware == Firmware::UefiSecureBoot {
            let on = self.fact("secure-boot") == Some("1");
            checks.push(Check::new("Secure Boot", on, if on { "on" } else { "not on" }));
        }
        checks
    }

    /// What somebody should look at, though it decides nothing.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let errors: Vec<&str> = self
            .fact("errors")
            .unwrap_or_default()
            .lines()
            .filter(|line| !line.is_empty())
            .collect();
        match errors[..] {
            [] => {}
            [only] => notes.push(format!("an error in the journal: {only}")),
            [first, ..] => {
                notes.push(format!("{} errors in the journal, first: {first}", errors.len()));
            }
        }
        if let (Some(first), Some("0")) = (self.denials().first(), self.fact("selinux")) {
            let count = self.denials().len();
            notes.push(format!("SELinux would deny {count} times, first: {first}"));
        }
        notes
    }

    /// Seconds that `systemd-analyze time` gives: `… 11.034s (kernel) + 1min 2.4s (userspace) = …`.
    pub(crate) fn startup(&self) -> impl Iterator<Item = (String, f64)> {
        let line = self.fact("times").and_then(|text| text.lines().next()).unwrap_or_default();
        let parts = line.strip_prefix("Startup finished in ").unwrap_or_default();
        let parts = parts.split(" = ").next().unwrap_or_default().split(" + ");
        parts.filter_map(|part| {
            let (span, name) = part.trim().strip_suffix(')')?.split_once(" (")?;
            Some((name.to_owned(), seconds(span)?))
        })
    }

    /// The errand's last line, and whether it succeeded.
    pub(crate) fn check_errand(&self) -> Check {
        let said = self.fact("errand").unwrap_or("not told");
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("done");
        Check::new("errand", self.fact("errand.exit") == Some("0"), last)
    }

    /// A table of `systemctl list-jobs` in a line.
    pub(crate) fn jobs(&self, fact: &str) -> Option<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(self.fact(fact)?.lines().map(words).collect::<Vec<_>>().join("; "))
    }

    fn check_state(&self) -> Check {
        let state = self.fact("state").unwrap_or("not told");
        let failed = self.failed_units();
        let left = self.jobs("jobs-left").unwrap_or_default();
        let detail = match (failed.as_slice(), self.jobs("jobs")) {
            ([], Some(jobs)) if self.fact("state").is_none() => {
                format!("waiting for {jobs}")
            }
            ([], _) if !left.is_empty() => format!("{state}; stuck jobs: {left}"),
            ([], _) => state.to_owned(),
            (failed, _) => format!("{state}; failed: {}", failed.join(", ")),
        };
        let passed = state == "running" && failed.is_empty() && left.is_empty();
        Check::new("systemd", passed, detail)
    }

    /// A deployment's root is not the disk's file system, but composefs: an overlay whose source calls itself so.
    fn check_root(&self) -> Check {
        match self.mount("/") {
            None => Check::new("root", false, "not told"),
            Some(Mount { source, filesystem, .. }) => {
                let passed = filesystem == "composefs"
                    || filesystem == "overlay" && source.contains("composefs");
                Check::new("root", passed, format!("{filesystem} from {source}"))
            }
        }
    }

    /// The root is only read, unless it is transient and its changes go elsewhere; configuration and state are written.
    fn check_mounts(&self) -> Check {
        let mode = |path: &str| self.mount(path).map(|mount| (mount.has("ro"), mount));
        let mut wrong = Vec::new();
        match mode("/") {
            Some((false, root)) if !root.filesystem_options.contains("upperdir=") => {
                wrong.push("/ is writable".to_owned());
            }
            _ => {}
        }
        for path in ["/etc", "/var"] {
            match mode(path) {
                None => wrong.push(format!("{path} is not mounted")),
                Some((true, _)) => wrong.push(format!("{path} is read-only")),
                Some((false, _)) => {}
            }
        }
        if mode("/sysroot").is_none() {
            wrong.push("/sysroot is not mounted".to_owned());
        }
        let detail = if wrong.is_empty() { "as they must be".to_owned() } else { wrong.join(", ") };
        Check::new("mounts", wrong.is_empty(), detail)
    }

    /// `ostree admin status` marks the deployment that is running with a star, and fails if it cannot find it.
    fn check_ostree(&self) -> Check {
        let text = self.fact("ostree").unwrap_or("not told");
        let booted = text.lines().find_map(|line| line.trim_start().strip_prefix("* "));
        match (booted, self.fact("ostree.exit"), self.bootc()) {
            (Some(deployment), Some("0"), _) => Check::new("deployment", true, deployment.trim()),
            // bootc keeps deployments without ostree, too.
            (_, None, Some(status))
                if status.pointer("/status/booted").is_some_and(Value::is_object) =>
            {
                Check::new("deployment", true, "bootc's own")
            }
            _ => match self.composefs_image() {
                Some(id) => Check::new("deployment", true, format!("composefs image {id}")),
                None => {
                    let said = text.lines().next().unwrap_or("nothing is deployed");
                    Check::new("deployment", false, said)
                }
            },
        }
    }

    /// The image that bootc's composefs backend has mounted as the root: the one that the kernel command line names.
    fn composefs_image(&self) -> Option<String> {
        /// Digits of a SHA-512.
        const DIGITS: usize = 128;
        let id = self.mount("/")?.source.strip_prefix("composefs:")?.to_owned();
        let is_named = |word: &str| {
            let value = word.strip_prefix("composefs").and_then(|rest| rest.split_once('='));
            value.is_some_and(|(_, value)| value.ends_with(&id))
        };
        let line = self.fact("cmdline").unwrap_or_default();
        let named = id.len() == DIGITS && words(line).any(|word| is_named(&word));
        named.then_some(id)
    }

    fn bootc(&self) -> Option<Value> {
        serde_json::from_str(self.fact("bootc")?).ok()
    }

    /// Where bootc is, it must know what is running.
    fn check_bootc(&self) -> Option<Check> {
        let said = self.fact("bootc")?;
        let check = |passed, detail: &str| Some(Check::new("bootc", passed, detail));
        let Some(status) = self.bootc() else {
            let first = said.lines().next().unwrap_or("nothing");
            return check(false, &format!("bootc status said {first}"));
        };
        match status.pointer("/status/booted").filter(|booted| booted.is_object()) {
            Some(booted) => {
                let image = booted.pointer("/image/image/image").and_then(Value::as_str);
                check(true, image.unwrap_or("booted, without an image to upgrade from"))
            }
            None => check(false, "bootc does not know what is booted"),
        }
    }

    /// bootc knows the digest of the image that runs, and so does the commit that was made of it.
    fn check_digest(&self, expected: &str) -> Check {
        let bootc = self.bootc();
        let told = bootc
            .as_ref()
            .and_then(|status| status.pointer("/status/booted/image/imageDigest"))
            .and_then(Value::as_str);
        let commit = match self.fact("digest.exit") {
            Some("0") => self.fact("digest").map(|text| text.trim().trim_matches('\'')),
            _ => None,
        };
        // bootc's composefs backend keeps it beside the deployment.
        let origin = self.fact("origin").and_then(|origin| {
            let lines = origin.lines().filter_map(|line| line.split_once('='));
            let mut found = lines.filter(|(key, _)| key.trim() == "manifest_digest");
            found.next().map(|(_, digest)| digest.trim())
        });
        match told.or(commit).or(origin) {
            Some(digest) if digest == expected => Check::new("image", true, digest),
            Some(digest) => Check::new("image", false, format!("{digest} instead of {expected}")),
            None => Check::new("image", false, format!("not told, expected {expected}")),
        }
    }

    fn check_arguments(&self, expected: &[String]) -> Check {
        let line = self.fact("cmdline").unwrap_or_default();
        let missing: Vec<&str> = expected
            .iter()
            .map(String::as_str)
            // Boot loaders move quotes: foo="a b" comes as "foo=a b".
            .filter(|wanted| {
                let bare = wanted.replace('"', "");
                !words(line).any(|word| word == bare)
            })
            .collect();
        match missing[..] {
            [] => Check::new("arguments", true, expected.join(" ")),
            _ => {
                Check::new("arguments", false, format!("{} missing in: {line}", missing.join(" ")))
            }
        }
    }

    /// The mode that is asked for, else the configured one unless the command line changes it. What an enforcing guest denies
    /// is a failure: the policy and the labels of an image belong together.
    fn check_selinux(&self, expected: Option<Selinux>) -> Option<Check> {
        let line = self.fact("cmdline").unwrap_or_default();
        let argument = |wanted: &str| words(line).any(|word| word == wanted);
        let configured = self.fact("selinux.config").map(str::trim).and_then(Selinux::parse);
        let wanted = expected.or_else(|| match configured? {
            _ if argument("selinux=0") => Some(Selinux::Disabled),
            Selinux::Enforcing if argument("enforcing=0") => Some(Selinux::Permissive),
            mode => Some(mode),
        });
        let mode = match self.fact("selinux").map(str::trim) {
            None => Selinux::Disabled,
            Some("1") => Selinux::Enforcing,
            Some(_) => Selinux::Permissive,
        };
        if mode == Selinux::Disabled && wanted.is_none_or(|wanted| wanted == mode) {
            return expected.map(|_| Check::new("SELinux", true, mode.name()));
        }
        if let Some(wanted) = wanted.filter(|wanted| *wanted != mode) {
            let detail = format!("{} instead of {}", mode.name(), wanted.name());
            return Some(Check::new("SELinux", false, detail));
        }
        Some(match (self.denials()[..].first(), mode) {
            (Some(first), Selinux::Enforcing) => {
                let count = self.denials().len();
                Check::new("SELinux", false, format!("enforcing, {count} denials, first: {first}"))
            }
            (Some(_), _) => Check::new("SELinux", true, mode.name()),
            (None, _) => Check::new("SELinux", true, format!("{}, no denials", mode.name())),
        })
    }

    /// The machine's TPM is there for the guest, too, and is the one that it has.
    fn check_tpm(&self) -> Check {
        match self.fact("tpm").map(str::trim) {
            Some("2") => Check::new("TPM", true, "2.0"),
            None | Some("") => {
                Check::new("TPM", false, "the machine has one, the guest does not see it")
            }
            Some(version) => Check::new("TPM", false, format!("version {version} instead of 2")),
        }
    }

    fn denials(&self) -> Vec<&str> {
        self.fact("denials").unwrap_or_default().lines().filter(|line| !line.is_empty()).collect()
    }

    /// No file system that is written to is full. `df -P -k`: device, size, used, left, percentage, place.
    fn check_space(&self) -> Option<Check> {
        let lines = self.fact("space")?.lines().skip(1);
        let written = ["/sysroot", "/var", "/tmp"];
        let mut full = Vec::new();
        for line in lines {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, left, _, place] = fields[..] else { continue };
            let short = left.parse::<u64>().is_ok_and(|left| left < LEAST_SPACE);
            if short && written.contains(&place) {
                full.push(format!("{place} is full"));
            }
        }
        let detail = if full.is_empty() { "enough is left".to_owned() } else { full.join(", ") };
        Some(Check::new("space", full.is_empty(), detail))
    }
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|known| known == option)
    }
}

/// The words of a kernel command line; quotation marks keep spaces together and are no part of a word.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut words = Vec::new();
    let (mut word, mut quoted) = (String::new(), false);
    for c in line.chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words.into_iter()
}

/// A span as systemd writes it: `1min 2.414s`, `880ms`, `1h 3min`.
fn seconds(span: &str) -> Option<f64> {
    let mut total = 0.0;
    for part in span.split_whitespace() {
        let unit = part.find(|c: char| c.is_alphabetic())?;
        let factor = match &part[unit..] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += part[..unit].parse::<f64>().ok()? * factor;
    }
    Some(total)
}
