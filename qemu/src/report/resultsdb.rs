//! Results as ResultsDB takes them (`POST /api/v2.0/results`, one at a time), with the fields that Fedora's composes use: then
//! what gates a compose by openQA's results can gate it by these.
//!
//! Groups have UUIDs that everybody can compute: version 5, of a name in a name space of its own, itself version 5 in the
//! DNS name space.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::suite::{Case, State, Suite};

/// Who reports.
const SOURCE: &str = "bootpress";

pub(super) fn render(suite: &Suite) -> String {
    let results: Vec<Value> = suite.cases.iter().map(|case| result(suite, case)).collect();
    format!("{:#}\n", Value::Array(results))
}

fn result(suite: &Suite, case: &Case) -> Value {
    let outcome = match case.state() {
        State::Passed => "PASSED",
        State::Failed => "FAILED",
        State::LeftOut => "INFO",
        State::Error => "NEEDS_INSPECTION",
    };
    let name = case.disk_name();
    let compose = suite.compose.as_deref().and_then(Compose::parse);
    let image = Image::of(suite, case, &name);
    let mut conventions = vec!["result"];
    let mut data = Map::new();
    let mut put = |key: &str, value: &str| data.insert(key.to_owned(), json!(value));
    put("item", &name);
    put("type", if compose.is_some() { "compose" } else { "disk" });
    put("source", SOURCE);
    put("scenario", &case.machine);
    let mut groups = vec![group("source", SOURCE)];
    if let Some(compose) = &compose {
        conventions.extend(["productmd.compose", "fedora.compose"]);
        put("productmd.compose.id", compose.id);
        put("productmd.compose.name", compose.short);
        put("productmd.compose.short", compose.short);
        put("productmd.compose.version", compose.version);
        put("productmd.compose.date", compose.date);
        put("productmd.compose.type", compose.kind);
        put("productmd.compose.respin", compose.respin);
        groups.extend([group("compose", compose.id), group(SOURCE, compose.id)]);
    }
    if let Some(image) = &image {
        conventions.extend(["productmd.image", "fedora.image"]);
        put("productmd.image.arch", image.arch);
        put("productmd.image.disc_number", "1");
        put("productmd.image.format", image.format);
        put("productmd.image.subvariant", image.subvariant);
        put("productmd.image.type", image.kind);
        groups.extend([group("image", &image.id()), group(SOURCE, &image.id())]);
    }
    put("meta.conventions", &conventions.join(" "));
    if let Some(report) = case.report() {
        put("arch", report.machine.architecture.name());
        put("firmware", report.machine.firmware.name());
        put("accelerator", report.machine.accelerator.name());
        put("proof", report.proof.name());
        put("furthest", report.furthest().name());
        put("seconds", &format!("{:.1}", report.seconds));
    }
    json!({
        "testcase": { "name": "bootpress.boot", "ref_url": "" },
        "outcome": outcome,
        "note": case.reason().unwrap_or_default(),
        "ref_url": "",
        "groups": groups,
        "data": data,
    })
}

fn group(space: &str, name: &str) -> Value {
    let space_id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, ascii(space).as_bytes());
    let id = Uuid::new_v5(&space_id, ascii(name).as_bytes());
    json!({ "uuid": id.to_string(), "description": format!("{space}.{name}") })
}

/// Only ASCII counts for a UUID.
fn ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii).collect()
}

/// What an ID such as `Fedora-IoT-43-20251014.0` or `Fedora-Rawhide-20251014.n.1` says.
struct Compose<'a> {
    id: &'a str,
    short: &'a str,
    version: &'a str,
    date: &'a str,
    kind: &'static str,
    respin: &'a str,
}

impl<'a> Compose<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let (rest, when) = id.rsplit_once('-')?;
        let (short, version) = rest.rsplit_once('-')?;
        let (date, rest) = when.split_once('.')?;
        let (kind, respin) = match rest.split_once('.') {
            None => ("production", rest),
            Some(("n", respin)) => ("nightly", respin),
            Some(("t", respin)) => ("test", respin),
            Some(("d", respin)) => ("development", respin),
            Some(("ci", respin)) => ("ci", respin),
            Some(_) => return None,
        };
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let sound = date.len() == 8 && digits(date) && digits(respin) && !short.is_empty();
        sound.then_some(Self { id, short, version, date, kind, respin })
    }
}

/// What identifies an image in a compose.
struct Image<'a> {
    subvariant: &'a str,
    kind: &'static str,
    format: &'static str,
    arch: &'a str,
}

impl<'a> Image<'a> {
    /// `None` without a subvariant, or for a file that is none of a compose's kinds.
    fn of(suite: &'a Suite, case: &'a Case, name: &str) -> Option<Self> {
        const KINDS: [(&str, &str, &str); 7] = [
            (".qcow2", "qcow2", "qcow2"),
            (".raw.xz", "raw-xz", "raw.xz"),
            (".raw", "raw", "raw"),
            (".vhd", "vpc", "vhd"),
            (".vmdk", "vmdk", "vmdk"),
            (".ociarchive", "bootable-container", "ociarchive"),
            (".iso", "boot", "iso"),
        ];
        let (_, kind, format) = KINDS.into_iter().find(|(end, ..)| name.ends_with(end))?;
        let arch = match case.report() {
            Some(report) => report.machine.architecture.name(),
            None => return None,
        };
        Some(Self { subvariant: suite.subvariant.as_deref()?, kind, format, arch })
    }

    fn id(&self) -> String {
        format!("{}.{}.{}.{}.1", self.subvariant, self.kind, self.format, self.arch).to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_ids_are_taken_apart() {
        let told = |id| {
            Compose::parse(id).map(|c| [c.short, c.version, c.date, c.kind, c.respin].join(" "))
        };
        let iot = "Fedora-IoT 43 20251014 production 0".to_owned();
        assert_eq!(told("Fedora-IoT-43-20251014.0"), Some(iot));
        let rawhide = "Fedora Rawhide 20251014 nightly 1".to_owned();
        assert_eq!(told("Fedora-Rawhide-20251014.n.1"), Some(rawhide));
        for wrong in ["", "Fedora", "Fedora-43", "Fedora-43-2025.0", "Fedora-43-20251014.x.0"] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
    }

    /// As Python's `uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "compose"), "Fedora-IoT-43-20251014.0")` has it.
    #[test]
    fn groups_are_the_ones_that_others_compute() {
        let uuid = &group("compose", "Fedora-IoT-43-20251014.0")["uuid"];
        assert_eq!(uuid, "3ad6961d-0ee2-589c-8555-8f972af204b9");
    }
}
