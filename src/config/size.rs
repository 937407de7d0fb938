//! Sizes as blueprints write them: bytes, or a decimal number and one of eight units; and as systemd writes them.

/// The units, spelled exactly so.
const UNITS: [(&str, u64); 8] = [
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Bytes of `10 GiB`, `1.5GB` or `1048576`; fractions of a byte are rounded.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..end], trimmed[end..].trim_start());
    let factor = match unit {
        "" => 1,
        unit => {
            UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(
                || {
                    let names = UNITS.map(|(name, _)| name).join(", ");
                    format!("`{text}` is not a size: units are {names}")
                },
            )?
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits would not fit the arithmetic, and mean less than a byte.
    let fits = whole.len() <= 20 && fraction.len() <= 15;
    let empty_fraction = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || empty_fraction || !digits(whole) || !digits(fraction) || !fits {
        return Err(format!("`{text}` is not a size such as 10 GiB"));
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let value = |text: &str| text.parse::<u128>().unwrap_or_default();
    let scaled = (value(whole) * scale + value(fraction)) * u128::from(factor);
    u64::try_from((scaled + scale / 2) / scale).map_err(|_| format!("`{text}` is too large"))
}

/// Bytes of `512M`, `1.5G` or `1048576`, as systemd's configuration files mean them: units are powers of 1024. `None`: it is not a size.
pub(super) fn binary(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let shift = match unit {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 19 || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = (whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?) << shift;
    u64::try_from(scaled / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_blueprints_mean_them() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("1.5", 2),
            (" 10 GiB ", 10 << 30),
            ("10GiB", 10 << 30),
            ("1.5 MiB", 3 << 19),
            ("2 kB", 2000),
            ("0.5 TB", 500_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KB",
            "1 KB",
            "1 mb",
            "1 PB",
            "1 gib",
            "-1",
            "1. GiB",
            ".5 GiB",
            "1 GiB x",
            "99999999999 TiB",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_of_systemd_are_binary() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("1048576", 1 << 20),
            ("10 K", 10 << 10),
            ("2T", 2 << 40),
        ] {
            assert_eq!(binary(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "5MiB", "1.G", "-1G", "1e3", "99999999999999999999", "20000P"] {
            assert_eq!(binary(text), None, "{text}");
        }
    }
}
