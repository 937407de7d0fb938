//! Numbers as tar archives write them: octal or base-256 in headers, decimal in PAX records.

/// A header field: octal digits among spaces and NULs, or big-endian two's complement when the first bit is set (GNU; the
/// next bit is then the sign). An empty field is zero.
pub(super) fn header_number(field: &[u8]) -> Option<i128> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            if field.len() > 12 {
                return None;
            }
            // Bit 6 is the sign: shifted to the top and back it fills what is above.
            let start = i128::from((*first << 1) as i8 >> 1);
            Some(rest.iter().fold(start, |value, byte| value << 8 | i128::from(*byte)))
        }
        _ => {
            let text = field.trim_ascii_start();
            let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(text.len());
            let (digits, rest) = text.split_at(end);
            if digits.len() > 12 || !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
                return None;
            }
            digits.iter().try_fold(0, |value, byte| match byte {
                b'0'..=b'7' => Some(value << 3 | i128::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

/// A decimal number without sign, of at least one digit.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// Seconds with an optional sign and fraction, rounded down: `-1.5` is -2, as a time stamp with positive nanoseconds has it.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let down = i64::from(fraction.iter().any(|&byte| byte != b'0'));
    if negative { (-whole).checked_sub(down) } else { Some(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_in_both_notations() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000000\0", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"", Some(0)),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"644\x00644\0", None),
        ] {
            assert_eq!(header_number(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn decimals_and_times() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), None);
        assert_eq!(decimal(b""), None);
        assert_eq!(decimal(b"+1"), None);
        assert_eq!(seconds(b"1700000000.999"), Some(1_700_000_000));
        assert_eq!(seconds(b"-1.5"), Some(-2));
        assert_eq!(seconds(b"-1.0"), Some(-1));
        assert_eq!(seconds(b"1."), Some(1));
        assert_eq!(seconds(b".5"), None);
        assert_eq!(seconds(b"1.x"), None);
        assert_eq!(seconds(b"9223372036854775808"), None);
    }
}
