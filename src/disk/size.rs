//! How large each partition is, and with them the disk.

use anyhow::{Context, Result};
use partitioning::{MIB, PlanError, Role, Table};

use super::arrange::{Arrangement, Holds, Slot};
use super::{DiskOptions, fill};
use crate::content::ContentStore;
use crate::error::unsupported;
use crate::filesystem::{Room, measure};
use crate::filesystem_kind::FileSystem;
use crate::installed::Installed;
use crate::progress::{Code, Progress};

/// Bytes that a file system has free of which nobody says how large it shall be.
const SPARE: u64 = 64 * MIB;

/// Inodes that a file system has free, beyond those that an upgrade of the root takes.
const SPARE_INODES: u32 = 64;

/// ostree refuses to write when less than this much of the file system would stay free (`min-free-space-percent`).
const OSTREE_FREE_PERCENT: u64 = 3;

/// Bytes that a running system writes besides an upgrade: journal, caches, logs of the first days.
const BREATHING_ROOM: u64 = 256 << 20;

/// Two sizes of a root, in bytes.
#[derive(Clone, Copy, Debug)]
struct Needs {
    /// What is there fits, and nothing more.
    least: u64,
    /// There is room for one upgrade to an image of the same size, and for running.
    comfortable: u64,
}

/// Decides where every partition lies.
///
/// `Unsupported` if the content does not fit into the size that was asked for.
pub(super) fn table(
    installed: &Installed,
    options: &DiskOptions<'_>,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Table> {
    let arrangement = options.arrangement;
    let layout = &arrangement.layout;
    let needs = needs(installed, options, contents)?;
    let root_size = if options.size.is_some() { needs.least } else { needs.comfortable };
    let sizes = arrangement
        .slots
        .iter()
        .map(|slot| bytes_of(slot, root_size, installed, options, contents))
        .collect::<Result<Vec<_>>>()?;
    let mut wanted = arrangement.with_sizes(&sizes, options.identity.disk, options.sector_size);
    if options.size.is_some() || layout.root_fills_disk {
        wanted.grows = arrangement.slots.iter().position(|slot| slot.role == Role::Root);
    }
    let arrange = |wanted: &_| Table::arrange(wanted).map_err(|error| refusal(arrangement, &error));
    // A least size is no reason to fail.
    let least = arrange(&wanted)?.size();
    let asked = options.size.map(|size| size.bytes(least, measure(&installed.root).bytes));
    // Who lays out the whole disk says how large it is, too.
    let usual = Some(options.least_size).filter(|size| *size > 0 && !layout.complete);
    let minsize = layout.minsize.or(usual);
    wanted.disk = asked.or_else(|| minsize.map(|size| size.max(least)));
    if let Some(spare) = wanted.disk.and_then(|size| size.checked_sub(least)) {
        share(arrangement, &mut wanted, spare);
    }
    let table = arrange(&wanted)?;
    if table.size().is_multiple_of(options.size_unit) {
        return Ok(table);
    }
    // The table's backup is at the very end: padding the file would leave it in the middle of the disk.
    let whole = table.size().next_multiple_of(options.size_unit);
    if asked.is_some() {
        progress.warn(
            Code::DiskSize,
            format!(
                "the disk has {} MiB: one of its formats wants a whole number of GiB",
                whole >> 20
            ),
        );
    }
    wanted.disk = Some(whole);
    arrange(&wanted)
}

/// Shares the room that least sizes leave among the partitions that have a weight, as systemd-repart does. What rounding leaves goes
/// to the root, unless it has a largest size.
fn share(arrangement: &Arrangement, wanted: &mut partitioning::Arrangement, spare: u64) {
    let partitions = || arrangement.slots.iter().map(|slot| &slot.partition);
    if partitions().all(|partition| partition.weight.is_none()) {
        return;
    }
    let wishes: Vec<Wish> = partitions()
        .zip(&wanted.slots)
        .map(|(partition, slot)| Wish {
            least: slot.size,
            most: partition.weight.map_or(slot.size, |_| {
                partition.maxsize.map_or(u64::MAX, |most| most.max(slot.size))
            }),
            weight: partition.weight.unwrap_or(0),
        })
        .collect();
    let room = wishes.iter().map(|wish| wish.least).sum::<u64>() + spare;
    for (slot, size) in wanted.slots.iter_mut().zip(shares(room, &wishes)) {
        slot.size = slot.size.max(size / MIB * MIB);
    }
    if arrangement
        .slots
        .iter()
        .any(|slot| slot.role == Role::Root && slot.partition.maxsize.is_some())
    {
        wanted.grows = None;
    }
}

/// How large somebody wants a partition.
struct Wish {
    least: u64,
    most: u64,
    weight: u32,
}

/// Bytes of each partition of a room that is large enough for all least sizes: by weight, but never below the least size nor above the
/// largest. Whoever would get too little is served first, then whoever would get too much; the others share what is left (repart.d(5),
/// Weight=).
fn shares(room: u64, wishes: &[Wish]) -> Vec<u64> {
    let mut sizes: Vec<Option<u64>> = vec![None; wishes.len()];
    loop {
        let open = || wishes.iter().zip(&sizes).filter(|(_, size)| size.is_none());
        let weights: u128 = open().map(|(wish, _)| u128::from(wish.weight)).sum();
        let left = room.saturating_sub(sizes.iter().flatten().sum());
        let part = |wish: &Wish| match weights {
            0 => 0,
            weights => (u128::from(left) * u128::from(wish.weight) / weights) as u64,
        };
        let find = |wrong: &dyn Fn(&Wish) -> bool| {
            wishes.iter().zip(&sizes).position(|(wish, size)| size.is_none() && wrong(wish))
        };
        if let Some(index) = find(&|wish| part(wish) < wish.least) {
            sizes[index] = Some(wishes[index].least);
        } else if let Some(index) = find(&|wish| part(wish) > wish.most) {
            sizes[index] = Some(wishes[index].most);
        } else {
            let whole = wishes.iter().zip(&sizes);
            return whole.map(|(wish, size)| size.unwrap_or_else(|| part(wish))).collect();
        }
    }
}

fn refusal(arrangement: &Arrangement, error: &PlanError) -> anyhow::Error {
    let origin = &arrangement.layout.origin;
    let what = if origin.is_empty() { error.to_string() } else { format!("{origin}: {error}") };
    let hint = match error {
        PlanError::DoesNotFit { .. } | PlanError::NoDos { .. } => {
            Some("use a larger --size, or omit it to get the smallest disk that fits")
        }
        PlanError::Empty { .. } | PlanError::TooLarge => None,
    };
    unsupported(what, hint)
}

/// Bytes of a partition: what was asked for, and at least what is in it.
fn bytes_of(
    slot: &Slot,
    root_size: u64,
    installed: &Installed,
    options: &DiskOptions<'_>,
    contents: &ContentStore,
) -> Result<u64> {
    let asked = slot.partition.minsize;
    let usual = options.arrangement.preset.default_size(slot.role);
    match (slot.role, &slot.holds) {
        (Role::Root, _) => Ok(asked.max(root_size)),
        (Role::BiosBoot, _) => Ok(asked.max(usual)),
        (Role::Esp | Role::Boot, _) => {
            let least = if slot.role == Role::Esp { usual.max(installed.esp_least) } else { usual };
            let most = slot.partition.maxsize.unwrap_or(u64::MAX);
            Ok(if asked == 0 { least.min(most) } else { asked })
        }
        (_, Holds::Nothing) => Ok(asked.max(MIB)),
        (_, Holds::Raw(content)) => Ok(asked.max(content.size).max(1)),
        (_, Holds::Volume(kind, _)) => {
            let spare = if asked == 0 && *kind != FileSystem::Swap { SPARE } else { 0 };
            let room = Room { bytes: spare, inodes: SPARE_INODES };
            let filling = fill::filling(slot, installed, options)?;
            let label = slot.label();
            let volume = fill::volume_options(slot, &label, options);
            Ok(asked.max(kind.fit(&filling, room, &volume, contents)?))
        }
    }
}

/// What the root needs.
fn needs(
    installed: &Installed,
    options: &DiskOptions<'_>,
    contents: &ContentStore,
) -> Result<Needs> {
    let slot = options.arrangement.slots.iter().find(|slot| slot.role == Role::Root);
    let slot = slot.context("every arrangement has a root")?;
    let filling = fill::filling(slot, installed, options)?;
    let label = slot.label();
    let volume = fill::volume_options(slot, &label, options);
    let fit = |room| {
        let kind = options.arrangement.root.kind;
        kind.fit(&filling, room, &volume, contents).context("sizing the root file system")
    };
    let least = fit(Room { bytes: 0, inodes: 0 })?;
    let upgrade = measure(&installed.root);
    let free = upgrade.bytes + BREATHING_ROOM;
    let free = free + (least + free) * OSTREE_FREE_PERCENT / 100;
    let inodes = upgrade.inodes.saturating_add(SPARE_INODES);
    let comfortable = fit(Room { bytes: free, inodes })?;
    Ok(Needs { least, comfortable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(least: u64, most: u64, weight: u32) -> Wish {
        Wish { least, most, weight }
    }

    #[test]
    fn room_is_shared_by_weight_between_least_and_largest_sizes() {
        const ANY: u64 = u64::MAX;
        let equal = [wish(10, ANY, 1000), wish(10, ANY, 1000)];
        assert_eq!(shares(100, &equal), [50, 50]);
        // The first has its least size, and the others what that leaves.
        let large = [wish(60, ANY, 1000), wish(10, ANY, 1000), wish(10, ANY, 3000)];
        assert_eq!(shares(100, &large), [60, 10, 30]);
        let capped = [wish(10, 20, 1000), wish(10, ANY, 1000)];
        assert_eq!(shares(100, &capped), [20, 80]);
        let fixed = [wish(1, 1, 0), wish(20, 20, 1000), wish(5, ANY, 1000)];
        assert_eq!(shares(100, &fixed), [1, 20, 79]);
        // Nobody may have more: some of the room stays free.
        assert_eq!(shares(100, &[wish(10, 20, 1), wish(10, 30, 1)]), [20, 30]);
        assert_eq!(shares(20, &[wish(10, ANY, 0), wish(10, ANY, 0)]), [10, 10]);
    }
}
