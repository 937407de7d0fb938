//! `.bootc-aleph.json`: what a disk was made from, for whoever looks into the machine years later.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::image::Image;

/// Where the file is, in the physical root.
pub(super) const NAME: &[u8] = b".bootc-aleph.json";

/// Its keys, in their order: canonical JSON sorts them.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Aleph<'a> {
    digest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    kernel: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    selinux: &'static str,
    target_image: &'a str,
    timestamp: Option<String>,
    version: Option<&'a str>,
}

/// The content of `.bootc-aleph.json` for an image that is followed as `target`, which is spelled with its transport.
pub fn record(image: &Image, target: &str, installer: &str, with_policy: bool) -> Result<Vec<u8>> {
    bytes(image, super::deployment::without_transport(target), installer, with_policy)
}

/// The file's content. `target` is the target image's name without transport; `kernel` names who installed, where bootc writes
/// the version of the kernel it runs on.
pub(super) fn bytes(
    image: &Image,
    target: &str,
    kernel: &str,
    with_policy: bool,
) -> Result<Vec<u8>> {
    let labels: BTreeMap<&str, &str> = image
        .labels()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    let aleph = Aleph {
        digest: &image.manifest_digest,
        image: image.name.as_deref(),
        kernel,
        labels,
        // We are bootc's host that has no SELinux but knows the policy.
        selinux: if with_policy { "host-disabled" } else { "disabled" },
        target_image: target,
        timestamp: image.label("org.opencontainers.image.created").and_then(utc_seconds),
        version: image.version(),
    };
    Ok(serde_json::to_vec(&aleph)?)
}

/// An RFC 3339 time in UTC and without fractions: `2026-11-20T10:11:12Z`. `None`: it is no such time.
fn utc_seconds(text: &str) -> Option<String> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separated = |at: usize, allowed: &str| {
        allowed.contains(char::from(*text.as_bytes().get(at)?)).then_some(())
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    for (at, allowed) in [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")] {
        separated(at, allowed)?;
    }
    let real = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !real || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix('.') {
        zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if zone.len() == fraction.len() {
            return None;
        }
    }
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second.min(59);
    Some(format_utc(seconds - offset(zone)?))
}

/// Seconds that a zone (`Z`, `+02:00`) is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two = |text: &str| -> Option<i64> {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970, counting years from March so that the leap day is the last: 153 days in five months, 146,097 in 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let year = year.rem_euclid(400);
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

fn format_utc(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let second = seconds.rem_euclid(86_400);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::architecture::Architecture;

    #[test]
    fn times_become_utc_seconds() {
        for (text, expected) in [
            ("2026-11-20T10:11:12.987654321Z", "2026-11-20T10:11:12Z"),
            ("2024-02-29T00:30:00+02:00", "2024-02-28T22:30:00Z"),
            ("1999-12-31T23:59:59-00:01", "2000-01-01T00:00:59Z"),
            ("1970-01-01 00:00:00z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc_seconds(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-11-20",
            "2026-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2026-11-20T10:11:12",
            "2026-11-20T10:11:12.Z",
            "éééééééééééééééééééé",
        ] {
            assert_eq!(utc_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_sorted_and_absent_ones_left_out() {
        let mut image = Image {
            reference: "oci:/x".to_owned(),
            name: None,
            architecture: Architecture::X86_64,
            manifest_digest: "sha256:0".to_owned(),
            manifest: json!({}),
            config: json!({ "config": { "Labels": { "version": "7", "b": "\"/\u{fc}", "a": "1" } } }),
            layers: Vec::new(),
        };
        assert_eq!(
            String::from_utf8(bytes(&image, "x/y:1", "bootpress", false).unwrap()).unwrap(),
            r#"{"digest":"sha256:0","kernel":"bootpress","labels":{"a":"1","b":"\"/ü","version":"7"},"selinux":"disabled","target-image":"x/y:1","timestamp":null,"version":"7"}"#
        );
        image.name = Some("x/y:1".to_owned());
        image.config = json!({ "config": { "Labels": { "org.opencontainers.image.created": "2026-01-02T03:04:05Z" } } });
        assert_eq!(
            String::from_utf8(bytes(&image, "x/y:1", "bootpress", true).unwrap()).unwrap(),
            r#"{"digest":"sha256:0","image":"x/y:1","kernel":"bootpress","labels":{"org.opencontainers.image.created":"2026-01-02T03:04:05Z"},"selinux":"host-disabled","target-image":"x/y:1","timestamp":"2026-01-02T03:04:05Z","version":null}"#
        );
    }
}
