//! POSIX access control lists as extended attributes: only as far as they and a mode have to agree.
//!
//! ```text
//! u32 version = 2 | { u16 tag, u16 permissions, u32 id } …       all little-endian
//! ```
//!
//! The kernel lets an access list and the permission bits say the same: who sets the one changes the other. A file whose mode
//! and list differ cannot be made by setting both, so what a layer says is brought into agreement before it is hashed.

/// What the permission bits become when this access list is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    /// Owner's, group's and others' bits; `None` for an empty list, which changes nothing.
    pub(super) permissions: Option<u16>,
    /// Whether it says nothing that the mode does not say: the kernel then keeps no list.
    pub(super) redundant: bool,
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Reads a list; `None` if the kernel would refuse it.
pub(super) fn effect(value: &[u8]) -> Option<Effect> {
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    if entries.is_empty() {
        return Some(Effect { permissions: None, redundant: true });
    }
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
    let (mut named, mut before) = (false, 0);
    for &[tag_low, tag_high, low, high, ..] in entries {
        let tag = u16::from_le_bytes([tag_low, tag_high]);
        let permissions = u16::from_le_bytes([low, high]);
        // Classes come in the order of their tags; only named users and groups may come several times.
        let again = tag == before && matches!(tag, USER | GROUP);
        if permissions > 7 || !(tag > before || again) {
            return None;
        }
        before = tag;
        match tag {
            USER_OBJ => owner = Some(permissions),
            USER | GROUP => named = true,
            GROUP_OBJ => group = Some(permissions),
            MASK => mask = Some(permissions),
            OTHER => other = Some(permissions),
            _ => return None,
        }
    }
    if named && mask.is_none() {
        return None;
    }
    let (owner, group, other) = (owner?, group?, other?);
    Some(Effect {
        permissions: Some(owner << 6 | mask.unwrap_or(group) << 3 | other),
        redundant: !named && mask.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(7_u32.to_le_bytes());
        }
        value
    }

    #[test]
    fn the_mask_is_what_the_mode_calls_group() {
        let all = list(&[(1, 6), (2, 7), (2, 1), (4, 4), (8, 5), (0x10, 5), (0x20, 0)]);
        assert_eq!(effect(&all), Some(Effect { permissions: Some(0o650), redundant: false }));
        let least = list(&[(1, 7), (4, 5), (0x20, 1)]);
        assert_eq!(effect(&least), Some(Effect { permissions: Some(0o751), redundant: true }));
        assert_eq!(effect(&list(&[])), Some(Effect { permissions: None, redundant: true }));
    }

    #[test]
    fn lists_that_the_kernel_refuses_are_refused() {
        for entries in [
            &[(1, 7), (4, 5)][..],
            &[(1, 7), (2, 7), (4, 5), (0x20, 1)],
            &[(1, 8), (4, 5), (0x20, 1)],
            &[(4, 5), (1, 7), (0x20, 1)],
            &[(1, 7), (4, 5), (4, 5), (0x20, 1)],
            &[(1, 7), (4, 5), (0x20, 1), (0x40, 1)],
        ] {
            assert_eq!(effect(&list(entries)), None, "{entries:?}");
        }
        assert_eq!(effect(b"\x01\0\0\0"), None);
        assert_eq!(effect(b"\x02\0\0\0abc"), None);
        assert_eq!(effect(b""), None);
    }
}
