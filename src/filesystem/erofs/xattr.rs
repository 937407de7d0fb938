//! Extended attributes of an image: each (name, value) pair once, and which of them inodes share.
//!
//! ```text
//! body behind an inode:  header 12 | id of a shared entry, 4 each | entry | entry …
//! entry:                 suffix length 1, prefix index 1, value size 2 | suffix | value | zeros to 4
//! ```

use std::collections::HashMap;

use anyhow::{Context, Result};
use xxhash_rust::xxh32::xxh32;
use zerocopy::IntoBytes;

use super::on_disk::{BLOCK, XattrEntry, XattrHeader};
use crate::error::unsupported;

/// Prefixes that an entry names by an index. Linux knows 5, `lustre.`, too; composefs does not use it.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Seed of the name filter (`EROFS_XATTR_FILTER_SEED`).
pub(super) const FILTER_SEED: u32 = 0x25bb_e08f;

/// Names a pair in [`Pairs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PairId(u32);

/// A name and a value.
type Pair = (Box<[u8]>, Box<[u8]>);

/// All pairs of an image, each once.
#[derive(Default)]
pub(super) struct Pairs {
    ids: HashMap<Pair, PairId>,
    uses: Vec<u32>,
}

impl Pairs {
    /// The id of a pair that one more inode has.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<PairId> {
        let (_, suffix) = split(name);
        if suffix.len() > usize::from(u8::MAX) || value.len() > usize::from(u16::MAX) {
            let what = format!(
                "an extended attribute with a name of {} and a value of {} bytes does not fit into EROFS",
                name.len(),
                value.len()
            );
            return Err(unsupported(what, None));
        }
        let next = PairId(u32::try_from(self.uses.len()).context("counting extended attributes")?);
        let id = *self.ids.entry((name.into(), value.into())).or_insert(next);
        if id == next {
            self.uses.push(0);
        }
        self.uses[id.0 as usize] += 1;
        Ok(id)
    }

    /// No more pairs will come: decides which are shared.
    pub(super) fn finish(self) -> Xattrs {
        let mut pairs: Vec<(Pair, PairId)> = self.ids.into_iter().collect();
        pairs.sort_unstable_by_key(|(_, id)| *id);
        let pairs: Vec<Pair> = pairs.into_iter().map(|(pair, _)| pair).collect();
        let mut shared: Vec<usize> = (0..pairs.len()).filter(|&i| self.uses[i] > 1).collect();
        let key = |i: usize| (&pairs[i].0, pairs[i].1.len(), &pairs[i].1);
        shared.sort_unstable_by(|&a, &b| key(b).cmp(&key(a)));

        let mut places = vec![None; pairs.len()];
        let mut table = Vec::new();
        for i in shared {
            places[i] = Some(table.len() as u64);
            write_entry(&mut table, &pairs[i]);
        }
        Xattrs { pairs, places, table }
    }
}

/// The pairs of an image, with the table of those that more than one inode has.
pub(super) struct Xattrs {
    pairs: Vec<Pair>,
    /// Offset of each pair in the table, if it is there.
    places: Vec<Option<u64>>,
    table: Vec<u8>,
}

impl Xattrs {
    /// The bytes of the shared entries.
    pub(super) fn table(&self) -> &[u8] {
        &self.table
    }

    /// Whether any inode has a POSIX ACL.
    pub(super) fn have_acl(&self) -> bool {
        self.pairs.iter().any(|(name, _)| matches!(split(name).0, 2 | 3))
    }

    /// Bytes of the body that holds these pairs.
    pub(super) fn body_size(&self, ids: &[PairId]) -> u64 {
        if ids.is_empty() {
            return 0;
        }
        let each = ids.iter().map(|&id| match self.place(id) {
            Some(_) => 4,
            None => entry_size(self.pair(id)),
        });
        size_of::<XattrHeader>() as u64 + each.sum::<u64>()
    }

    /// Writes the body; `ids` are in bytewise order of their names. `table_at`: where the table begins in the image.
    pub(super) fn write_body(&self, out: &mut Vec<u8>, ids: &[PairId], table_at: u64) {
        if ids.is_empty() {
            return;
        }
        let shared: Vec<u64> = ids.iter().filter_map(|&id| self.place(id)).collect();
        let header = XattrHeader {
            h_name_filter: (!self.filter(ids)).into(),
            h_shared_count: u8::try_from(shared.len()).expect("checked by check_body"),
            h_reserved2: [0; 7],
        };
        out.extend_from_slice(header.as_bytes());
        for place in shared {
            // Ids count from the block that the super block's xattr_blkaddr names: the one in which the table begins.
            let id = u32::try_from((table_at % BLOCK + place) / 4).expect("checked by check_table");
            out.extend_from_slice(&id.to_le_bytes());
        }
        for &id in ids.iter().filter(|id| self.place(**id).is_none()) {
            write_entry(out, self.pair(id));
        }
    }

    /// Refuses a body or a table that the format cannot hold.
    pub(super) fn check_body(&self, ids: &[PairId]) -> Result<()> {
        let shared = ids.iter().filter(|id| self.place(**id).is_some()).count();
        let units = self.body_size(ids) / 4;
        if shared > usize::from(u8::MAX) || units > u64::from(u16::MAX) {
            let what = format!(
                "{} extended attributes of one inode, {} bytes, do not fit into EROFS",
                ids.len(),
                units * 4
            );
            return Err(unsupported(what, None));
        }
        Ok(())
    }

    /// Refuses a table that ids cannot address.
    pub(super) fn check_table(&self) -> Result<()> {
        u32::try_from(self.table.len() as u64 + BLOCK)
            .map(drop)
            .map_err(|_| unsupported("more than 4 GiB of shared extended attributes", None))
    }

    /// Bits for names that may be there; the reader skips an inode whose bit for a name is not set.
    fn filter(&self, ids: &[PairId]) -> u32 {
        ids.iter().fold(0, |filter, &id| {
            let (index, suffix) = split(&self.pair(id).0);
            filter | 1 << (xxh32(suffix, FILTER_SEED + u32::from(index)) % 32)
        })
    }

    fn pair(&self, id: PairId) -> &Pair {
        &self.pairs[id.0 as usize]
    }

    fn place(&self, id: PairId) -> Option<u64> {
        self.places[id.0 as usize]
    }
}

/// The prefix's index and what is left of the name.
fn split(name: &[u8]) -> (u8, &[u8]) {
    PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)))
        .unwrap_or((0, name))
}

fn entry_size((name, value): &Pair) -> u64 {
    ((size_of::<XattrEntry>() + split(name).1.len() + value.len()) as u64).next_multiple_of(4)
}

fn write_entry(out: &mut Vec<u8>, pair: &Pair) {
    let end = out.len() + usize::try_from(entry_size(pair)).expect("fits: it is in memory");
    let (name, value) = pair;
    let (index, suffix) = split(name);
    let entry = XattrEntry {
        e_name_len: u8::try_from(suffix.len()).expect("checked by add"),
        e_name_index: index,
        e_value_size: u16::try_from(value.len()).expect("checked by add").into(),
    };
    out.extend_from_slice(entry.as_bytes());
    out.extend_from_slice(suffix);
    out.extend_from_slice(value);
    out.resize(end, 0);
}
