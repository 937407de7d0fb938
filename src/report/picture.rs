//! A disk as a person sees it: a table of its partitions, and a bar of them.
//!
//! ```text
//!  #  role  type         start      size     used  file system  label       uuid
//!  1  esp   EFI system   1 MiB   512 MiB  9.1 MiB  vfat         EFI-SYSTEM  7B77-95E7
//!
//! [esp       |root                                      ]
//! ```

use crate::disk::PartitionReport;

/// Columns of a bar below which there is nothing to see.
const NARROWEST_BAR: usize = 20;

/// What is shown of a partition; `-` stands where there is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// From 1 on.
    pub number: u32,
    /// What it is for, as one word.
    pub role: &'a str,
    /// What people call its type.
    pub type_name: &'a str,
    /// Offset of its first byte.
    pub start: u64,
    /// Bytes of it.
    pub size: u64,
    /// Bytes of its file system that are in use.
    pub used: Option<u64>,
    /// Kind, label and UUID of its file system.
    pub filesystem: [Option<&'a str>; 3],
}

impl<'a> From<&'a PartitionReport> for Row<'a> {
    fn from(partition: &'a PartitionReport) -> Self {
        let filesystem = partition.filesystem.as_ref();
        Self {
            number: partition.number,
            role: partition.role.name(),
            type_name: partition.type_name,
            start: partition.start,
            size: partition.size,
            used: filesystem.map(|filesystem| filesystem.used),
            filesystem: [
                filesystem.map(|filesystem| filesystem.kind),
                filesystem.map(|filesystem| filesystem.label.as_str()),
                filesystem.map(|filesystem| filesystem.uuid.as_str()),
            ],
        }
    }
}

/// Table and bar of a disk of `size` bytes, each line at most `width` columns where the table allows it; ends with a newline.
pub fn picture<'a>(
    partitions: impl IntoIterator<Item = impl Into<Row<'a>>>,
    size: u64,
    width: usize,
) -> String {
    let rows: Vec<Row<'_>> = partitions.into_iter().map(Into::into).collect();
    format!("{}\n{}\n", table(&rows, width), bar(&rows, size, width))
}

/// Bytes as a person says them: exact in MiB or GiB where that is short, else with one decimal.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // The unit in which fewer than four digits stand before the point.
    let power = (bytes.ilog2() / 10) as usize;
    let unit = 1_u64 << (10 * power);
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if bytes.is_multiple_of(unit) {
        format!("{} {}", bytes / unit, UNITS[power - 1])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power - 1])
    }
}

/// One row for each partition; columns on the right that `width` has no room for are left out.
fn table(partitions: &[Row<'_>], width: usize) -> String {
    let mut rows: Vec<[String; 9]> = vec![
        ["#", "role", "type", "start", "size", "used", "file system", "label", "uuid"]
            .map(str::to_owned),
    ];
    for partition in partitions {
        let [kind, label, uuid] = partition
            .filesystem
            .map(|text| text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned());
        rows.push([
            partition.number.to_string(),
            partition.role.to_owned(),
            partition.type_name.to_owned(),
            human(partition.start),
            human(partition.size),
            partition.used.map_or("-".to_owned(), human),
            kind,
            label,
            uuid,
        ]);
    }
    let widths: [usize; 9] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    // The first five say where everything is; they stay, however narrow the terminal.
    let needed =
        |columns: usize| 1 + widths[..columns].iter().map(|width| width + 2).sum::<usize>() - 2;
    let columns = (5..=9).rev().find(|&columns| needed(columns) <= width).unwrap_or(5);
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate().take(columns) {
            let width = widths[column];
            line += match column {
                0 => " ",
                _ => "  ",
            };
            // Numbers and sizes stand right.
            line += &match column {
                0 | 3..=5 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            };
        }
        table += line.trim_end();
        table.push('\n');
    }
    table
}

/// Partitions in proportion, but each wide enough for its role; the MiB around them are left out.
fn bar(partitions: &[Row<'_>], size: u64, width: usize) -> String {
    let names: Vec<&str> = partitions.iter().map(|partition| partition.role).collect();
    let inside = width.max(NARROWEST_BAR).saturating_sub(partitions.len() + 1);
    let least: usize = names.iter().map(|name| name.len()).sum();
    let spare = inside.saturating_sub(least) as u128;
    let mut bar = String::from("[");
    for (index, (partition, name)) in partitions.iter().zip(&names).enumerate() {
        let share = spare * u128::from(partition.size) / u128::from(size.max(1));
        let cells = name.len() + usize::try_from(share).unwrap_or_default();
        if index > 0 {
            bar.push('|');
        }
        bar += &format!("{name:<cells$}");
    }
    bar.push(']');
    bar
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::disk::{FilesystemReport, Role};

    fn partition(number: u32, role: Role, start: u64, size: u64) -> PartitionReport {
        let type_name = match role {
            Role::BiosBoot => "BIOS boot",
            Role::Esp => "EFI system",
            Role::Boot => "Linux extended boot",
            Role::Root => "Linux root (x86-64)",
            Role::Data => "Linux data",
            Role::Swap => "Linux swap",
        };
        let filesystem = (role != Role::BiosBoot).then(|| FilesystemReport {
            kind: if role == Role::Esp { "vfat" } else { "ext4" },
            label: if role == Role::Esp { "EFI-SYSTEM" } else { role.name() }.to_owned(),
            uuid: if role == Role::Esp {
                "7B77-95E7"
            } else {
                "0f1e2d3c-4b5a-4978-8796-a5b4c3d2e100"
            }
            .to_owned(),
            used: size / 3,
        });
        let (type_guid, guid, name) = (String::new(), String::new(), String::new());
        PartitionReport { number, role, type_name, type_guid, guid, name, start, size, filesystem }
    }

    fn disk() -> Vec<PartitionReport> {
        vec![
            partition(1, Role::BiosBoot, 1 << 20, 1 << 20),
            partition(2, Role::Esp, 2 << 20, 512 << 20),
            partition(3, Role::Root, 514 << 20, 9725 << 20),
        ]
    }

    #[test]
    fn a_wide_terminal() {
        expect![[r#"
             #  role       type                   start     size       used  file system  label       uuid
             1  bios-boot  BIOS boot              1 MiB    1 MiB          -  -            -           -
             2  esp        EFI system             2 MiB  512 MiB  170.6 MiB  vfat         EFI-SYSTEM  7B77-95E7
             3  root       Linux root (x86-64)  514 MiB  9.4 GiB    3.1 GiB  ext4         root        0f1e2d3c-4b5a-4978-8796-a5b4c3d2e100

            [bios-boot|esp     |root                                                                                                          ]
        "#]].assert_eq(&picture(&disk(), 10 << 30, 132));
    }

    #[test]
    fn a_narrow_terminal() {
        expect![[r#"
             #  role       type                   start     size
             1  bios-boot  BIOS boot              1 MiB    1 MiB
             2  esp        EFI system             2 MiB  512 MiB
             3  root       Linux root (x86-64)  514 MiB  9.4 GiB

            [bios-boot|esp  |root                                     ]
        "#]]
        .assert_eq(&picture(&disk(), 10 << 30, 60));
        for width in 0..200 {
            let picture = picture(&disk(), 10 << 30, width);
            let widest = picture.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.max(52), "{width}: {widest}\n{picture}");
        }
        assert_eq!(picture(&[], 0, 0), " #  role  type  start  size\n\n[]\n");
    }

    #[test]
    fn sizes_as_people_say_them() {
        for (bytes, said) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 20, "1 MiB"),
            (512 << 20, "512 MiB"),
            ((514 << 20) + 1, "514.0 MiB"),
            (10 << 30, "10 GiB"),
            (9725 << 20, "9.4 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(human(bytes), said);
        }
    }
}
