//! SHA-512 crypt, the hash `$6$` of crypt(3), by Ulrich Drepper's specification of 2007.
//!
//! Its salt is derived, not drawn: the same image, seed and user give the same disk.

use sha2::{Digest, Sha256, Sha512};

/// Characters of a hash, by their values from 0 to 63.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How often the digest is made again unless a salt says otherwise.
const ROUNDS: usize = 5000;

/// The longest salt that counts.
const SALT: usize = 16;

/// A salt for a user: 16 characters.
pub(super) fn salt(seed: &str, user: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["bootpress password salt v1", seed, user] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(SALT)
        .map(|byte| char::from(DIGITS[usize::from(byte & 63)]))
        .collect()
}

/// `$6$salt$hash` of a password.
pub(super) fn sha512(password: &[u8], salt: &str) -> String {
    let salt = &salt.as_bytes()[..salt.len().min(SALT)];
    // Step names are those of the specification.
    let b: [u8; 64] = Sha512::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .into();
    let mut a = Sha512::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(repeated(&b, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        match bits & 1 {
            1 => a.update(b),
            _ => a.update(password),
        }
        bits >>= 1;
    }
    let mut a: [u8; 64] = a.finalize().into();

    let mut dp = Sha512::new();
    password.iter().for_each(|_| dp.update(password));
    let p = repeated(&dp.finalize(), password.len());
    let mut ds = Sha512::new();
    (0..16 + usize::from(a[0])).for_each(|_| ds.update(salt));
    let s = repeated(&ds.finalize(), salt.len());

    for round in 0..ROUNDS {
        let mut c = Sha512::new();
        let odd = round % 2 == 1;
        c.update(if odd { &p[..] } else { &a });
        if round % 3 != 0 {
            c.update(&s);
        }
        if round % 7 != 0 {
            c.update(&p);
        }
        c.update(if odd { &a[..] } else { &p });
        a = c.finalize().into();
    }
    format!("$6${}${}", String::from_utf8_lossy(salt), encoded(&a))
}

/// The beginning of a digest written again and again.
fn repeated(digest: &[u8], len: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(len).collect()
}

/// Three bytes make four characters, the lowest six bits first; the order of bytes is the specification's: each group of three
/// is the one before, turned and moved by one.
fn encoded(digest: &[u8; 64]) -> String {
    let mut text = String::new();
    let mut put = |value: u32, count: usize| {
        for digit in 0..count {
            text.push(char::from(DIGITS[(value >> (6 * digit) & 63) as usize]));
        }
    };
    let mut group = [0_usize, 21, 42];
    for _ in 0..21 {
        let [x, y, z] = group.map(|index| u32::from(digest[index]));
        put(x << 16 | y << 8 | z, 4);
        group = [group[1] + 1, group[2] + 1, group[0] + 1];
    }
    put(u32::from(digest[63]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example.
    #[test]
    fn the_specification_says_so() {
        assert_eq!(
            sha512(b"Hello world!", "saltstring"),
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
        );
    }

    #[test]
    fn salts_differ_by_seed_and_user() {
        assert_eq!(salt("s", "u"), salt("s", "u"));
        assert_ne!(salt("s", "u"), salt("s", "v"));
        assert_ne!(salt("s", "u"), salt("t", "u"));
        assert_eq!(salt("s", "u").len(), 16);
    }
}
