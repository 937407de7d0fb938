//! Names of references: which characters of an image's name may stand in one, and how images are called in `.origin`.

use std::fmt::Write;

use anyhow::Result;

use crate::error::unsupported;

/// References to layers begin with this.
pub(super) const BLOB: &str = "ostree/container/blob/";

/// References to merge commits begin with this.
pub(super) const IMAGE: &str = "ostree/container/image/";

/// A reference: `prefix`, and `name` with everything escaped that ostree would refuse.
///
/// Letters, digits and `-` stay; `_` doubles; `/` stays after a letter or digit, unless it is the last; anything else becomes
/// its code point in hexadecimal between underscores.
pub(super) fn escaped(prefix: &str, name: &str) -> Result<String> {
    if name.is_empty() || name.contains('\0') {
        return Err(unsupported(format!("{name:?} as the name of an image"), None));
    }
    let mut reference = prefix.to_owned();
    let mut before = None;
    for (index, character) in name.char_indices() {
        let last = index + character.len_utf8() == name.len();
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' => reference.push(character),
            '/' if !last && before.is_some_and(|b: char| b.is_ascii_alphanumeric()) => {
                reference.push('/');
            }
            '_' => reference.push_str("__"),
            other => write!(reference, "_{:02X}_", u32::from(other)).expect("strings take all"),
        }
        before = Some(character);
    }
    // A reference is a path of a file; 255 bytes is what every file system takes.
    if reference.split('/').any(|component| component.len() > 255) {
        return Err(unsupported(
            format!("an image name as long as {name}"),
            Some("give it a shorter target name"),
        ));
    }
    Ok(reference)
}

/// What `.origin` calls an image whose signature is not checked on updates.
///
/// `target` is an image reference as container tools print it: `docker://quay.io/x:1`, `oci:/path:tag`.
pub fn unverified_reference(target: &str) -> String {
    match target.strip_prefix("docker://") {
        Some(name) => format!("ostree-unverified-registry:{name}"),
        None => format!("ostree-unverified-image:{target}"),
    }
}

/// What `.origin` calls an image whose signature is checked by the container policy on updates.
pub fn signed_reference(target: &str) -> String {
    format!("ostree-image-signed:{target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, expected) in [
            ("docker://quay.io/fedora/x:42", "docker_3A__2F__2F_quay_2E_io/fedora/x_3A_42"),
            ("sha256:ab12", "sha256_3A_ab12"),
            ("a_b-c", "a__b-c"),
            ("a/", "a_2F_"),
            ("/a", "_2F_a"),
            ("a-/b", "a-_2F_b"),
            ("a//b", "a/_2F_b"),
            ("ü\n🙂", "_FC__0A__1F642_"),
        ] {
            assert_eq!(escaped("", name).unwrap(), expected);
        }
        for name in ["", "a\0b", &"x".repeat(256)] {
            let error = escaped("p/", name).unwrap_err();
            assert!(error.is::<crate::error::Unsupported>(), "{error}");
        }
    }

    #[test]
    fn origins_spell_registries_their_own_way() {
        assert_eq!(unverified_reference("docker://q/x:1"), "ostree-unverified-registry:q/x:1");
        assert_eq!(unverified_reference("oci:/d:t"), "ostree-unverified-image:oci:/d:t");
        assert_eq!(signed_reference("docker://q/x:1"), "ostree-image-signed:docker://q/x:1");
    }
}
