//! GVariant serialisation, as much of it as ostree's objects need.
//!
//! ```text
//! array   item, padding, item, …, | end of each item
//! tuple   member, padding, member, …, | ends of its variable-size members but the last, in reverse
//! variant child | 00 | type string
//! ```
//!
//! All offsets of one container are little-endian and equally wide: the least of 1, 2, 4, 8 bytes with which the whole
//! container's size can still be told. Rules: the GVariant specification, section 2; there is one way to write a value
//! ("normal form"), so a reader may check what it understood by writing it again.

/// A member of a tuple, for [`members`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Member {
    /// Always as long as this, and aligned to it.
    Fixed(usize),
    /// A value of any length, aligned to this.
    Variable(usize),
}

/// A tuple under construction.
#[derive(Debug, Default)]
pub(super) struct Tuple {
    body: Vec<u8>,
    ends: Vec<usize>,
}

impl Tuple {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A member of fixed size, aligned to its size.
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Self {
        pad(&mut self.body, bytes.len());
        self.body.extend_from_slice(bytes);
        self
    }

    /// A member of variable size that is not the last.
    pub(super) fn variable(mut self, bytes: &[u8], alignment: usize) -> Self {
        pad(&mut self.body, alignment);
        self.body.extend_from_slice(bytes);
        self.ends.push(self.body.len());
        self
    }

    /// A string that is not the last member.
    pub(super) fn string(mut self, text: &[u8]) -> Self {
        self.body.extend_from_slice(text);
        self.body.push(0);
        self.ends.push(self.body.len());
        self
    }

    /// The last member, of variable size, and with it the tuple.
    pub(super) fn last(mut self, bytes: &[u8], alignment: usize) -> Vec<u8> {
        pad(&mut self.body, alignment);
        self.body.extend_from_slice(bytes);
        self.ends.reverse();
        framed(self.body, &self.ends)
    }
}

/// An array of items of variable size.
pub(super) fn array(items: impl IntoIterator<Item = Vec<u8>>, alignment: usize) -> Vec<u8> {
    let (mut body, mut ends) = (Vec::new(), Vec::new());
    for item in items {
        pad(&mut body, alignment);
        body.extend_from_slice(&item);
        ends.push(body.len());
    }
    framed(body, &ends)
}

/// A dictionary of type `a{sv}` all of whose values are strings.
pub(super) fn strings(entries: &[(&str, &str)]) -> Vec<u8> {
    array(
        entries.iter().map(|(key, value)| {
            let mut variant = value.as_bytes().to_vec();
            variant.extend_from_slice(b"\0\0s");
            Tuple::new().string(key.as_bytes()).last(&variant, 8)
        }),
        8,
    )
}

/// The items of an array of items of variable size; `None` if the offsets make no sense.
pub(super) fn items(bytes: &[u8], alignment: usize) -> Option<Vec<&[u8]>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let width = width_of(bytes.len());
    let table = offset(bytes, bytes.len().checked_sub(width)?, width)?;
    let length = bytes.len().checked_sub(table)?;
    if length % width != 0 {
        return None;
    }
    let mut start = 0_usize;
    (0..length / width)
        .map(|index| {
            let end = offset(bytes, table + index * width, width)?;
            let item = bytes.get(start.next_multiple_of(alignment)..end.min(table))?;
            start = end;
            Some(item)
        })
        .collect()
}

/// The members of a tuple whose last member is of variable size; `None` if the offsets make no sense.
pub(super) fn members<'a>(bytes: &'a [u8], layout: &[Member]) -> Option<Vec<&'a [u8]>> {
    let width = width_of(bytes.len());
    let offsets = layout.iter().filter(|member| matches!(member, Member::Variable(_))).count() - 1;
    let table = bytes.len().checked_sub(offsets * width)?;
    let (mut start, mut seen) = (0_usize, 0);
    layout
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let (begin, end) = match *member {
                Member::Fixed(size) => {
                    let begin = start.next_multiple_of(size);
                    (begin, begin + size)
                }
                Member::Variable(alignment) if index + 1 == layout.len() => {
                    (start.next_multiple_of(alignment), table)
                }
                Member::Variable(alignment) => {
                    seen += 1;
                    let end = offset(bytes, bytes.len() - seen * width, width)?;
                    (start.next_multiple_of(alignment), end)
                }
            };
            start = end;
            bytes.get(..table)?.get(begin..end)
        })
        .collect()
}

/// A string without its NUL, if it has one, has no other and is UTF-8.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    let (last, text) = bytes.split_last()?;
    if *last != 0 || text.contains(&0) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

fn pad(body: &mut Vec<u8>, alignment: usize) {
    body.resize(body.len().next_multiple_of(alignment), 0);
}

/// The body with its offsets, all as narrow as the result allows.
fn framed(mut body: Vec<u8>, ends: &[usize]) -> Vec<u8> {
    if ends.is_empty() {
        return body;
    }
    let width = [1, 2, 4, 8]
        .into_iter()
        .find(|width| width_of(body.len() + ends.len() * width) <= *width)
        .expect("eight bytes are always enough");
    for end in ends {
        body.extend_from_slice(&(*end as u64).to_le_bytes()[..width]);
    }
    body
}

/// How wide the offsets of a container of this size are.
const fn width_of(size: usize) -> usize {
    match size {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn offset(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let mut value = [0; 8];
    value[..width].copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
    let value = usize::try_from(u64::from_le_bytes(value)).ok()?;
    // Larger ones would make arithmetic on them overflow, and cannot be right.
    (value <= bytes.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_grow_with_the_container_not_with_the_body() {
        // 254 bytes and one offset are 255: still one byte wide. One more, and the offset takes two.
        assert_eq!(array([vec![7; 254]], 1).len(), 255);
        assert_eq!(array([vec![7; 255]], 1).len(), 257);
        let long = array((0..20_000).map(|_| vec![1; 3]), 1);
        assert_eq!(long.len(), 60_000 + 20_000 * 4);
        assert_eq!(items(&long, 1).unwrap().len(), 20_000);
    }

    #[test]
    fn tuples_keep_their_offsets_backwards() {
        let tuple = Tuple::new().string(b"ab").variable(b"x", 1).last(b"yz", 1);
        assert_eq!(tuple, b"ab\0xyz\x04\x03");
        let layout = [Member::Variable(1), Member::Variable(1), Member::Variable(1)];
        assert_eq!(members(&tuple, &layout).unwrap(), [&b"ab\0"[..], b"x", b"yz"]);
    }

    #[test]
    fn dictionaries_are_aligned_to_eight() {
        let one = strings(&[("a", "b"), ("key", "v")]);
        assert_eq!(one, b"a\0\0\0\0\0\0\0b\0\0s\x02\0\0\0key\0\0\0\0\0v\0\0s\x04\x0d\x1d");
    }

    #[test]
    fn nonsense_is_refused_not_read() {
        for bytes in [&b"\xff"[..], b"\x05\x09", b"abc\x03\x02\x01", &[0xff; 300]] {
            let layout = [Member::Fixed(8), Member::Variable(1), Member::Variable(8)];
            assert!(members(bytes, &layout).is_none(), "{bytes:?}");
        }
        assert_eq!(items(b"ab\x09", 1), None);
        assert_eq!(text(b"a\0b\0"), None);
        assert_eq!(text(b"\xff\0"), None);
        assert_eq!(text(b""), None);
    }
}
