//! Partition tables, read by sgdisk and sfdisk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use partitioning::{Architecture, Arrangement, MIB, Preset, Role, Scheme, SectorSize, Table};
use support::tool::{is_root, run, tool};
use tempfile::NamedTempFile;
use uuid::Uuid;

fn plan(preset: Preset, architecture: Architecture, sector_size: SectorSize) -> Table {
    let guid = |n: u128| Uuid::from_u128(0x0f1e_2d3c_4b5a_4978_8796_a5b4_c3d2_e100 + n);
    let slot = |(role, n): (Role, u128)| {
        let size = preset.default_size(role).max(2048 * MIB * u64::from(role == Role::Root));
        preset.slot(role, architecture, guid(n), size)
    };
    let slots: Vec<_> = preset.roles(architecture, false).into_iter().zip(1..).map(slot).collect();
    Table::arrange(&Arrangement {
        scheme: Scheme::Gpt,
        guid: guid(0),
        sector_size,
        start: MIB,
        grows: Some(slots.len() - 1),
        slots,
        disk: Some(10 << 30),
    })
    .unwrap()
}

fn every_table() -> impl Iterator<Item = (Preset, Architecture, Table)> {
    Preset::ALL.into_iter().flat_map(|preset| {
        Architecture::ALL.into_iter().map(move |architecture| {
            (preset, architecture, plan(preset, architecture, SectorSize::S512))
        })
    })
}

/// A sparse disk file that holds a table and nothing else.
fn disk(table: &Table) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    write(file.as_file(), table);
    file
}

fn write(file: &File, table: &Table) {
    let bytes = table.bytes();
    file.set_len(table.size()).unwrap();
    file.write_all_at(&bytes.primary, 0).unwrap();
    file.write_all_at(&bytes.backup, bytes.backup_offset).unwrap();
}

#[test]
fn sgdisk_finds_no_problem() {
    for (preset, architecture, table) in every_table() {
        let Some(mut sgdisk) = tool("sgdisk") else { return };
        let output = run(sgdisk.arg("-v").arg(disk(&table).path()));
        assert!(output.contains("No problems found."), "{preset} {architecture:?}: {output}");
    }
}

#[test]
fn sfdisk_reads_what_was_planned() {
    for (preset, architecture, table) in every_table() {
        let Some(mut sfdisk) = tool("sfdisk") else { return };
        let disk = disk(&table);
        let dump = run(sfdisk.arg("--json").arg(disk.path()));
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        let dump = &dump["partitiontable"];
        assert_eq!(dump["label"], "gpt");
        assert_eq!(dump["id"], table.guid.to_string().to_uppercase());
        assert_eq!(
            (&dump["firstlba"], &dump["lastlba"]),
            (&34.into(), &(table.sectors - 34).into())
        );
        let partitions = dump["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), table.partitions.len(), "{preset} {architecture:?}");
        for (read, planned) in partitions.iter().zip(&table.partitions) {
            assert_eq!(read["start"], planned.first.0);
            assert_eq!(read["size"], planned.last.0 - planned.first.0 + 1);
            assert_eq!(read["type"], planned.type_guid.to_string().to_uppercase());
            assert_eq!(read["uuid"], planned.guid.to_string().to_uppercase());
            assert_eq!(read["name"].as_str().unwrap_or_default(), planned.name);
            let bootable = read["attrs"].as_str() == Some("LegacyBIOSBootable");
            assert_eq!(bootable, planned.role == Some(Role::BiosBoot), "{read}");
        }
    }
}

#[test]
fn the_types_are_those_that_sgdisk_knows_by_name() {
    let codes = |preset, architecture| {
        let disk = disk(&plan(preset, architecture, SectorSize::S512));
        let output = run(tool("sgdisk")?.arg("-p").arg(disk.path()));
        let rows = output.lines().skip_while(|line| !line.starts_with("Number")).skip(1);
        Some(rows.map(|row| row.split_whitespace().nth(5).unwrap().to_owned()).collect::<Vec<_>>())
    };
    let Some(bootc) = codes(Preset::Bootc, Architecture::X86_64) else { return };
    assert_eq!(bootc, ["EF02", "EF00", "8304"]);
    assert_eq!(codes(Preset::Bootc, Architecture::Aarch64).unwrap(), ["EF00", "8305"]);
    assert_eq!(
        codes(Preset::Osbuild, Architecture::X86_64).unwrap(),
        ["EF02", "EF00", "EA00", "8300"]
    );
}

/// Sectors of 4096 bytes: sfdisk takes them from a loop device only, so it needs root and one of those.
#[test]
fn sectors_of_4096_bytes_are_read_too() {
    let table = plan(Preset::Bootc, Architecture::Aarch64, SectorSize::S4096);
    let disk = disk(&table);
    let mut file = File::open(disk.path()).unwrap();
    assert_eq!(Table::parse(&mut file).unwrap(), table);
    if !is_root() {
        return;
    }
    let (Some(mut losetup), Some(mut sgdisk)) = (tool("losetup"), tool("sgdisk")) else { return };
    let attached = losetup
        .args(["--find", "--show", "--read-only", "--sector-size", "4096"])
        .arg(disk.path())
        .output()
        .unwrap();
    if !attached.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&attached.stderr));
        return;
    }
    let device = String::from_utf8(attached.stdout).unwrap();
    let output = sgdisk.args(["-v", device.trim()]).output();
    run(Command::new("losetup").args(["--detach", device.trim()]));
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(output.contains("No problems found."), "{output}");
}
