//! Disks joined from parts that are easy to recognise.

use std::io::Cursor;

use super::*;
use crate::content::ContentStore;
use crate::error::Unsupported;

fn identity() -> Identity {
    Identity::derive("sha256:00", "")
}

fn options(identity: &Identity) -> Options<'_> {
    Options {
        preset: Preset::Osbuild,
        architecture: Architecture::X86_64,
        identity,
        sector_size: SectorSize::S512,
        esp: 2 * MIB,
        separate_boot: false,
        boot: 3 * MIB,
        size: Size::Root(4 * MIB),
    }
}

fn volume(size: u64, mark: u8) -> Volume {
    let mut map = SparseMap::new(size);
    map.put(0, vec![mark; 4]);
    map.put(size - 4, vec![mark; 4]);
    let uuid = mark.to_string();
    Volume { map, filesystem: "ext4", label: "label".to_owned(), uuid, used: 8 }
}

fn parts<'a>(plan: &Plan) -> Parts<'a> {
    Parts {
        root: volume(plan.root_size(), 3),
        boot: plan.boot_size().map(|size| volume(size, 2)),
        esp: Some(volume(plan.esp_size(), 1)),
        bios: None,
    }
}

fn bytes(disk: &Disk) -> Vec<u8> {
    let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
    let mut bytes = vec![0; disk.map.size() as usize];
    disk.map.read_at(&contents, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn every_part_lies_where_the_table_says() {
    let identity = identity();
    for sector_size in SectorSize::ALL {
        let plan = Plan::new(&Options { sector_size, ..options(&identity) }).unwrap();
        let disk = plan.clone().assemble(parts(&plan)).unwrap();
        let bytes = bytes(&disk);
        let table = Table::parse(&mut Cursor::new(&bytes)).unwrap();
        assert_eq!(table.guid, identity.disk);
        assert_eq!(plan.size(), bytes.len() as u64);
        for (role, mark) in [(Role::Esp, 1), (Role::Boot, 2), (Role::Root, 3)] {
            let partition = table.find(role).unwrap();
            let start = partition.start(sector_size) as usize;
            let end = start + partition.size(sector_size) as usize;
            assert_eq!([&bytes[start..start + 4], &bytes[end - 4..end]], [[mark; 4]; 2], "{role}");
            let report = &disk.partitions[partition.number as usize - 1];
            assert_eq!((report.start, report.size), (start as u64, (end - start) as u64));
            assert_eq!(report.filesystem.as_ref().unwrap().uuid, mark.to_string());
            assert_eq!(report.guid, partition.guid.to_string());
        }
        assert_eq!(plan.number_of(Role::Root), Some(4));
        assert_eq!(disk.partitions[0].filesystem, None);
    }
}

#[test]
fn a_disk_of_a_given_size_leaves_the_rest_to_the_root() {
    let identity = identity();
    let plan = |total, root_needs| {
        Plan::new(&Options { size: Size::Disk { total, root_needs }, ..options(&identity) })
    };
    let fits = plan(20 * MIB - 5, 4 * MIB).unwrap();
    assert_eq!((fits.size(), fits.root_size()), (20 * MIB, 12 * MIB));
    let error = plan(10 * MIB, 4 * MIB).unwrap_err();
    let unsupported = error.downcast_ref::<Unsupported>().unwrap();
    assert_eq!(
        unsupported.what,
        "does not fit: the root needs 4 MiB, the disk of 10 MiB leaves 2 MiB; 12 MiB would do"
    );
    assert!(unsupported.hint.is_some());
}

#[test]
fn boot_code_goes_into_the_mbr_and_its_partition() {
    let identity = identity();
    let embed = |lba: u64, mbr: &[u8; 512]| {
        assert_eq!(lba, 2048);
        let mut mbr = *mbr;
        mbr[..3].copy_from_slice(b"jmp");
        Ok(BiosBytes { mbr, core: b"core".to_vec() })
    };
    let with = |options: Options<'_>, embed: &Embed<'_>| {
        let plan = Plan::new(&options).unwrap();
        let parts = parts(&plan);
        plan.assemble(Parts { bios: Some(embed), ..parts })
    };
    let bytes = bytes(&with(options(&identity), &embed).unwrap());
    assert_eq!((&bytes[..3], &bytes[1 << 20..][..5]), (&b"jmp"[..], &b"core\0"[..]));
    assert!(Table::parse(&mut Cursor::new(&bytes)).is_ok());
    assert_eq!((bytes[450], &bytes[510..512]), (0xee, &[0x55, 0xaa][..]));

    let large = |_: u64, mbr: &[u8; 512]| Ok(BiosBytes { mbr: *mbr, core: vec![1; (1 << 20) + 1] });
    let error = with(options(&identity), &large).unwrap_err();
    assert!(error.to_string().contains("does not fit the BIOS boot partition"), "{error}");
    let wide = Options { sector_size: SectorSize::S4096, ..options(&identity) };
    assert!(with(wide, &embed).unwrap_err().is::<Unsupported>());
    let arm = Options { architecture: Architecture::Aarch64, ..options(&identity) };
    assert!(with(arm, &embed).unwrap_err().is::<Unsupported>());
}

#[test]
#[should_panic(expected = "the root file system fills its partition")]
fn a_volume_of_another_size_is_our_mistake() {
    let identity = identity();
    let plan = Plan::new(&options(&identity)).unwrap();
    let parts = parts(&plan);
    let _ = plan.assemble(Parts { root: volume(MIB, 9), ..parts });
}
