//! Manifest and config as a merge commit records them: canonical JSON of the fields that the OCI image specification names,
//! and the time they tell.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::image::Image;

/// Which parts of a document are recorded. Others are dropped, as are members that are `null`: the real importer records what
/// it has read into its types, and the same bytes give the same commit.
enum Shape {
    /// Everything.
    Whole,
    /// A set of names, written as an object with empty objects.
    Names,
    /// A list of such.
    List(&'static Shape),
    /// An object with these members.
    Object(&'static [(&'static str, Shape)]),
}

use Shape::{List, Names, Object, Whole};

const PLATFORM: Shape = Object(&[
    ("architecture", Whole),
    ("os", Whole),
    ("os.features", Whole),
    ("os.version", Whole),
    ("variant", Whole),
]);

const DESCRIPTOR: Shape = Object(&[
    ("annotations", Whole),
    ("artifactType", Whole),
    ("data", Whole),
    ("digest", Whole),
    ("mediaType", Whole),
    ("platform", PLATFORM),
    ("size", Whole),
    ("urls", Whole),
]);

const MANIFEST: Shape = Object(&[
    ("annotations", Whole),
    ("artifactType", Whole),
    ("config", DESCRIPTOR),
    ("layers", List(&DESCRIPTOR)),
    ("mediaType", Whole),
    ("schemaVersion", Whole),
    ("subject", DESCRIPTOR),
]);

const EXECUTION: Shape = Object(&[
    ("Cmd", Whole),
    ("Entrypoint", Whole),
    ("Env", Whole),
    ("ExposedPorts", Names),
    ("Labels", Whole),
    ("StopSignal", Whole),
    ("User", Whole),
    ("Volumes", Names),
    ("WorkingDir", Whole),
]);

const HISTORY: Shape = Object(&[
    ("author", Whole),
    ("comment", Whole),
    ("created", Whole),
    ("created_by", Whole),
    ("empty_layer", Whole),
]);

const CONFIG: Shape = Object(&[
    ("architecture", Whole),
    ("author", Whole),
    ("config", EXECUTION),
    ("created", Whole),
    ("history", List(&HISTORY)),
    ("os", Whole),
    ("os.features", Whole),
    ("os.version", Whole),
    ("rootfs", Object(&[("diff_ids", Whole), ("type", Whole)])),
    ("variant", Whole),
]);

/// The manifest as canonical JSON.
pub(super) fn manifest(image: &Image) -> String {
    canonical(&image.manifest, &MANIFEST)
}

/// The config as canonical JSON.
pub(super) fn config(image: &Image) -> String {
    canonical(&image.config, &CONFIG)
}

/// When the image was made, in seconds since 1970: what the manifest's annotation says, else the config, else 0 — a clock
/// would make two builds differ. Times before 1970 are two's complement, as ostree reads them.
pub(super) fn created(image: &Image) -> u64 {
    let annotation = image
        .manifest
        .get("annotations")
        .and_then(|annotations| annotations.get("org.opencontainers.image.created"));
    [annotation, image.config.get("created")]
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find_map(rfc3339)
        .unwrap_or(0)
        .cast_unsigned()
}

fn canonical(value: &Value, shape: &Shape) -> String {
    let mut json = String::new();
    write(&mut json, value, shape);
    json
}

/// Members in bytewise order of their names, no white space (RFC 8785, for documents without fractions).
fn write(json: &mut String, value: &Value, shape: &Shape) {
    match (value, shape) {
        (Value::Object(members), _) => {
            let members: BTreeMap<&str, (&Value, &Shape)> = members
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), (value, member(shape, name)?))))
                .filter(|(_, (value, _))| matches!(shape, Whole | Names) || !value.is_null())
                .collect();
            json.push('{');
            for (index, (name, (value, inner))) in members.into_iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                json.push_str(&Value::from(name).to_string());
                json.push(':');
                match shape {
                    Names => json.push_str("{}"),
                    _ => write(json, value, inner),
                }
            }
            json.push('}');
        }
        (Value::Array(values), _) => {
            json.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write(json, value, if let List(inner) = shape { inner } else { &Whole });
            }
            json.push(']');
        }
        (scalar, _) => json.push_str(&scalar.to_string()),
    }
}

fn member<'a>(shape: &'a Shape, name: &str) -> Option<&'a Shape> {
    match shape {
        Object(known) => known.iter().find(|(known, _)| *known == name).map(|(_, inner)| inner),
        _ => Some(&Whole),
    }
}

/// Seconds since 1970 of a time like `2026-11-20T10:11:12.98+01:00` (RFC 3339); fractions are cut off.
fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let at = |index: usize, allowed: &[u8]| bytes.get(index).is_some_and(|b| allowed.contains(b));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = 19;
    if at(zone, b".") {
        let digits = bytes[zone + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        zone += 1 + digits;
    }
    let offset = match bytes.get(zone)? {
        b'Z' | b'z' if bytes.len() == zone + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == zone + 6 && at(zone + 3, b":") => {
            let (hours, minutes) = (number(zone + 1..zone + 3)?, number(zone + 4..zone + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -60 } else { 60 }
        }
        _ => return None,
    };
    // Days since 1970-01-01 of the proleptic Gregorian calendar; the year begins in March, so that leap days end it.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * m + 2) / 5 + day - 1;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_seconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-20T10:11:12.987654321Z", Some(1_795_169_472)),
            ("2026-11-20T11:11:12+01:00", Some(1_795_169_472)),
            ("2024-02-29T23:59:60-00:30", Some(1_709_253_000)),
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800)),
            ("2023-02-29T00:00:00Z", None),
            ("2023-02-28T00:00:00", None),
            ("2023-02-28T00:00:00.Z", None),
            ("2023-02-28T00:00:00+1:00", None),
            ("2023-02-28", None),
            ("ü", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn documents_keep_what_the_specification_names() {
        let config = json!({
            "os": "linux", "architecture": "amd64", "moby.x": "dropped", "author": null,
            "config": {
                "Healthcheck": {"Test": []}, "Labels": {"z": "ü \"\t\u{1}/", "a": ""},
                "ExposedPorts": {"22/tcp": null}, "Env": ["B=1", "A=2"], "Cmd": null,
            },
            "history": [{"created_by": "x", "empty_layer": true, "unknown": 1}],
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        assert_eq!(
            canonical(&config, &CONFIG),
            concat!(
                r#"{"architecture":"amd64","config":{"Env":["B=1","A=2"],"ExposedPorts":{"22/tcp":{}},"#,
                r#""Labels":{"a":"","z":"ü \"\t\u0001/"}},"history":[{"created_by":"x","empty_layer":true}],"#,
                r#""os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}"#
            )
        );
        let manifest = json!({
            "schemaVersion": 2,
            "layers": [{"size": 7, "digest": "d", "x": 1, "annotations": {"b": "1", "a": "2"}}],
        });
        assert_eq!(
            canonical(&manifest, &MANIFEST),
            r#"{"layers":[{"annotations":{"a":"2","b":"1"},"digest":"d","size":7}],"schemaVersion":2}"#
        );
    }
}
