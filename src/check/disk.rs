//! Rules about disks.

use super::facts::Facts;
use super::policy::Policy;
use super::{Judge, Outcome, Violation};
use crate::inspect::{DiskHealth, Labels};

pub(super) const JUDGES: &[(&str, Judge)] = &[
    ("disk.table-consistent", table),
    ("disk.esp-readable", esp),
    ("disk.esp-room", room),
    ("disk.boot-entries", boot_entries),
    ("disk.filesystems-clean", filesystems),
    ("disk.selinux-labels", labels),
    ("disk.secure-boot", secure_boot),
    ("disk.secure-boot-2023", authority_2023),
];

/// Kernels that bootc keeps at once: the running one, the one before, and the one that is staged.
const KERNELS: u64 = 3;

/// How Microsoft calls its authorities for programs of others, and what is in the name of each from 2023.
const AUTHORITY: &str = "Microsoft";
const YEAR: &str = "2023";

/// Unlabelled files that are told one by one.
const MOST: usize = 10;

fn with(facts: &Facts, judge: impl FnOnce(&DiskHealth) -> Outcome) -> Outcome {
    facts.disk.as_ref().map_or_else(|| Outcome::skipped("there is no disk"), judge)
}

fn table(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        if disk.table.is_empty() && disk.facts.table == "dos" {
            return Outcome::skipped("an MBR has no backup and no checksum");
        }
        Outcome::of(disk.table.iter().map(Violation::new).collect())
    })
}

fn esp(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        Outcome::of(disk.esp.iter().map(|what| Violation::at("ESP", what.clone())).collect())
    })
}

fn room(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        if disk.rooms.is_empty() {
            return Outcome::skipped("no boot entry leads to a kernel that can be read");
        }
        let short = disk.rooms.iter().filter_map(|room| {
            let there = room.kernels.min(KERNELS);
            let needed = room.kernel_size.saturating_mul(KERNELS - there);
            (needed > room.free).then(|| {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                Violation::at(
                    room.place.clone(),
                    format!(
                        "{} has {} MiB free and {} of {KERNELS} kernels of {} MiB: {} MiB are missing",
                        room.place,
                        room.free >> 20,
                        there,
                        mib(room.kernel_size),
                        mib(needed - room.free)
                    ),
                )
            })
        });
        Outcome::of(short.collect())
    })
}

fn boot_entries(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        if disk.facts.boot_entries.is_empty() && disk.unified == 0 {
            return Outcome::of(vec![Violation::new(
                "the disk has no boot entry and no unified kernel image",
            )]);
        }
        let problems = disk.entries.iter();
        Outcome::of(
            problems
                .map(|(path, what)| Violation::at(path.clone(), format!("{path}: {what}")))
                .collect(),
        )
    })
}

fn filesystems(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        let dirty = disk.unclean.iter();
        Outcome::of(
            dirty
                .map(|(number, what)| {
                    Violation::at(
                        format!("partition {number}"),
                        format!("partition {number}: {what}"),
                    )
                })
                .collect(),
        )
    })
}

fn labels(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| match &disk.labels {
        Labels::Disabled => Outcome::skipped("the system enables no SELinux policy"),
        Labels::Unread(why) => Outcome::skipped(why.clone()),
        Labels::Read { missing, .. } if missing.is_empty() => Outcome::Passed,
        Labels::Read { missing, files } => {
            let mut found: Vec<_> = missing
                .iter()
                .take(MOST)
                .map(|path| Violation::at(path.clone(), format!("{path} has no label")))
                .collect();
            found.push(Violation::new(format!("{} of {files} files have no label", missing.len())));
            Outcome::of(found)
        }
    })
}

fn secure_boot(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        if disk.facts.programs.is_empty() {
            return Outcome::skipped("the ESP has no EFI programs");
        }
        let found = disk.facts.programs.iter().filter_map(|program| {
            let altered = program.signatures.iter().any(|one| one.intact == Some(false));
            let what = match (program.signatures.is_empty(), altered) {
                (true, _) => "is not signed",
                (_, true) => "is not what was signed",
                _ => return None,
            };
            Some(Violation::at(program.path.clone(), format!("{} {what}", program.path)))
        });
        Outcome::of(found.collect())
    })
}

fn authority_2023(facts: &Facts, _: &Policy) -> Outcome {
    with(facts, |disk| {
        // Others are started by what Microsoft signed: they are signed by distributions.
        let by_microsoft: Vec<_> = disk
            .facts
            .programs
            .iter()
            .filter(|program| program.signatures.iter().any(|one| one.issuer.contains(AUTHORITY)))
            .collect();
        if by_microsoft.is_empty() {
            return Outcome::skipped("no program is signed by Microsoft");
        }
        let old = by_microsoft.iter().filter(|program| {
            !program
                .signatures
                .iter()
                .any(|one| one.issuer.contains(AUTHORITY) && one.issuer.contains(YEAR))
        });
        Outcome::of(
            old.map(|program| {
                let issuers: Vec<&str> =
                    program.signatures.iter().map(|one| one.issuer.as_str()).collect();
                Violation::at(
                    program.path.clone(),
                    format!("{} is vouched for by {} only", program.path, issuers.join(", ")),
                )
            })
            .collect(),
        )
    })
}
