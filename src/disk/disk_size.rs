//! How large the whole disk shall be: a number of bytes, or one that follows from what goes onto it.
//!
//! ```text
//! 10G   4GiB   min   min+2GiB   min+20%   min*1.5   image*2   image+4G
//! ```

use std::fmt;
use std::str::FromStr;

/// A size that may follow from two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSize {
    base: Base,
    /// In thousandths.
    factor: u64,
    plus: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// Nothing but `plus`.
    Zero,
    /// The smallest disk that everything fits on.
    Minimum,
    /// The files of the image, unpacked.
    Image,
}

/// The factor that changes nothing.
const ONE: u64 = 1000;

impl DiskSize {
    /// So many bytes, whatever goes onto the disk.
    pub const fn exactly(bytes: u64) -> Self {
        Self { base: Base::Zero, factor: ONE, plus: bytes }
    }

    /// Bytes, for a disk on which everything just fits into `minimum` bytes, made of an image whose files have `image` bytes.
    pub fn bytes(self, minimum: u64, image: u64) -> u64 {
        let base = match self.base {
            Base::Zero => 0,
            Base::Minimum => minimum,
            Base::Image => image,
        };
        let scaled = u128::from(base) * u128::from(self.factor) / u128::from(ONE);
        u64::try_from(scaled).unwrap_or(u64::MAX).saturating_add(self.plus)
    }
}

impl fmt::Display for DiskSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.base {
            Base::Zero => return write!(f, "{} bytes", self.plus),
            Base::Minimum => "min",
            Base::Image => "image",
        };
        f.write_str(name)?;
        if self.factor != ONE {
            write!(f, "*{}.{:03}", self.factor / ONE, self.factor % ONE)?;
        }
        match self.plus {
            0 => Ok(()),
            plus => write!(f, "+{plus}"),
        }
    }
}

impl FromStr for DiskSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (base, rest) = match (text.strip_prefix("min"), text.strip_prefix("image")) {
            (Some(rest), _) => (Base::Minimum, rest.trim()),
            (_, Some(rest)) => (Base::Image, rest.trim()),
            _ => return Ok(Self::exactly(parse_size(text)?)),
        };
        let wrong =
            || format!("`{text}` is not a size such as 10G, min+2GiB, min+20% or image*1.5");
        let (factor, plus) = match rest.split_at_checked(1) {
            None => (ONE, 0),
            Some(("*", factor)) => (thousandths(factor.trim()).ok_or_else(wrong)?, 0),
            Some(("+", more)) => match more.trim().strip_suffix('%') {
                Some(percent) => {
                    let percent: u64 = percent.trim().parse().map_err(|_| wrong())?;
                    (
                        percent
                            .checked_mul(10)
                            .and_then(|more| more.checked_add(ONE))
                            .ok_or_else(wrong)?,
                        0,
                    )
                }
                None => (ONE, parse_size(more.trim())?),
            },
            Some(_) => return Err(wrong()),
        };
        Ok(Self { base, factor, plus })
    }
}

/// `1.5` as 1500.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 6 {
        return None;
    }
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(whole.parse::<u64>().ok()? * ONE + fraction.parse::<u64>().ok()?)
}

/// Reads `10G`, `512MiB`, `1048576`: binary units, whole numbers.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| {
        format!("invalid size \"{text}\": expected a number with a unit, such as 10G or 512M")
    })?;
    let shift = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => {
            return Err(format!(
                "invalid unit \"{unit}\": expected one of: K, M, G, T (powers of 1024)"
            ));
        }
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_or_follow_from_the_content() {
        let size =
            |text: &str| text.parse::<DiskSize>().map(|size| size.bytes(1000 << 20, 100 << 20));
        for (text, mib) in [
            ("10G", 10 << 10),
            ("512MiB", 512),
            ("1048576", 1),
            ("min", 1000),
            ("min+2GiB", 3048),
            ("min + 20%", 1200),
            ("min*1.25", 1250),
            ("image*1.5", 150),
            ("image+1G", 1124),
        ] {
            assert_eq!(size(text), Ok(mib << 20), "{text}");
        }
        for text in [
            "",
            "10 apples",
            "99999999999T",
            "min-1G",
            "min*",
            "min*x",
            "min+",
            "image*1.x",
            "min+x%",
            "minimum",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
