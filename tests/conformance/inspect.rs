//! `bootpress inspect` on disks pressed from a tiny image: against what was built, fatfs, fsck.fat, sgdisk, sfdisk and sbverify.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bootpress::architecture::Architecture;
use bootpress::config::{Config, Reading};
use bootpress::disk::{Preset, SectorSize};
use bootpress::error::Unsupported;
use bootpress::inspect::{Facts, inspect};
use bootpress::output::Format;
use bootpress::pipeline;
use bootpress::progress::Progress;
use bootpress::report::Report;
use bootpress::request::{DiskRequest, Request};
use bootpress::trust::Demand;
use proptest::prelude::*;
use support::tiny_image::{TinyImage, tiny_image};
use support::tool::{run, tool};

const METADATA: &[u8] = br#"{"timestamp":"2025-01-01T00:00:00Z","version":"tiny-1"}"#;

/// Bytes of the section of [`program`]: enough for several clusters of an ESP, each with other bytes.
const CODE: u32 = 0x9e00;

/// An EFI program that does nothing: headers and one section.
fn program(architecture: Architecture) -> Vec<u8> {
    let machine: u16 = match architecture {
        Architecture::X86_64 => 0x8664,
        Architecture::Aarch64 => 0xaa64,
    };
    let mut bytes = vec![0; 0x200 + CODE as usize];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, b"MZ");
    put(0x3c, &0x80_u32.to_le_bytes());
    put(0x80, b"PE\0\0");
    put(0x84, &machine.to_le_bytes());
    put(0x86, &1_u16.to_le_bytes()); // sections
    put(0x94, &0xf0_u16.to_le_bytes()); // size of the optional header
    put(0x96, &0x22e_u16.to_le_bytes());
    put(0x98, &0x20b_u16.to_le_bytes()); // PE32+
    put(0x98 + 4, &CODE.to_le_bytes()); // size of code
    put(0x98 + 16, &0x1000_u32.to_le_bytes()); // entry
    put(0x98 + 32, &0x1000_u32.to_le_bytes()); // alignment of sections, then in the file
    put(0x98 + 36, &0x200_u32.to_le_bytes());
    put(0x98 + 56, &0xb000_u32.to_le_bytes()); // size of the image, then of its headers
    put(0x98 + 60, &0x200_u32.to_le_bytes());
    put(0x98 + 68, &10_u16.to_le_bytes()); // an EFI application
    put(0x98 + 108, &16_u32.to_le_bytes()); // data directories
    let section = 0x98 + 0xf0;
    put(section, b".text\0\0\0");
    put(section + 8, &CODE.to_le_bytes()); // size and place, in memory and in the file
    put(section + 12, &0x1000_u32.to_le_bytes());
    put(section + 16, &CODE.to_le_bytes());
    put(section + 20, &0x200_u32.to_le_bytes());
    for at in (0..CODE as usize).step_by(0x200) {
        put(0x200 + at, &[(at / 0x200) as u8; 0x200]);
    }
    bytes
}

/// What bootc and bootupd ask of an image, and no more.
fn image(architecture: Architecture, programs: &BTreeMap<&str, Vec<u8>>) -> TinyImage {
    let suffix = architecture.efi_suffix();
    tiny_image()
        .architecture(architecture.oci())
        .label("containers.bootc", "1")
        .label("org.opencontainers.image.version", "1.2")
        .tag("registry.example/tiny:1")
        .layer(|mut layer| {
            for (path, bytes) in [
                ("etc/hostname", &b"tiny\n"[..]),
                ("usr/lib/os-release", b"PRETTY_NAME=\"Tiny 1\"\n"),
                ("usr/lib/modules/6.1.0/vmlinuz", b"kernel"),
                ("usr/lib/modules/6.1.0/initramfs.img", b"initramfs"),
                ("usr/lib/ostree/prepare-root.conf", b"[composefs]\nenabled = yes\n"),
                ("usr/lib/bootupd/grub2-static/grub-static-pre.cfg", b"pre\nblscfg\n"),
                ("usr/lib/bootupd/grub2-static/grub-static-efi.cfg", b"efi\nconfigfile x\n"),
            ] {
                layer = layer.file(path, bytes);
            }
            if !programs.is_empty() {
                layer = layer.file("usr/lib/bootupd/updates/EFI.json", METADATA);
            }
            for (name, bytes) in programs {
                let path = format!("usr/lib/bootupd/updates/EFI/tiny/{name}{suffix}.efi");
                layer = layer.file(path, bytes);
            }
            layer.directory("sysroot")
        })
}

fn unsigned(architecture: Architecture) -> BTreeMap<&'static str, Vec<u8>> {
    ["shim", "grub"].into_iter().map(|name| (name, program(architecture))).collect()
}

/// A request for both formats of a disk.
fn request(directory: &Path, image: &TinyImage, architecture: Architecture) -> Request {
    image.write_oci_layout(&directory.join("image"));
    let reference = format!("oci:{}", directory.join("image").display()).parse().unwrap();
    let mut request = Request::new(reference, architecture, directory);
    request.image.trust = Demand::Nothing;
    request.output.formats = [Format::Raw, Format::Qcow2].map(Into::into).into();
    request.system.kernel_arguments = vec!["quiet".to_owned()];
    request
}

fn build(request: &Request) -> Report {
    pipeline::build(request, &Progress::default()).unwrap_or_else(|error| panic!("{error:#}"))
}

fn path_of(report: &Report, format: Format) -> PathBuf {
    report.files.iter().find(|file| file.format == format).unwrap().path.clone()
}

#[test]
fn every_disk_is_seen_as_it_was_built() {
    for preset in Preset::ALL {
        for architecture in Architecture::ALL {
            for sector_size in SectorSize::ALL {
                let directory = tempfile::tempdir().unwrap();
                let image = image(architecture, &unsigned(architecture));
                let mut request = request(directory.path(), &image, architecture);
                request.disk = DiskRequest { preset, sector_size, ..request.disk };
                let report = build(&request);
                let raw = path_of(&report, Format::Raw);
                let facts = inspect(&raw).unwrap();
                let qcow2 = inspect(&path_of(&report, Format::Qcow2)).unwrap();
                assert_eq!(Facts { format: "raw", ..qcow2 }, facts);
                compressed(&raw, &facts);
                wrapped(&raw, &path_of(&report, Format::Qcow2), &facts);
                compare(&facts, &report);
                assert_eq!(facts.sector_size, sector_size.bytes());
                assert_eq!(facts.architecture, Some(architecture));
                tools(&raw, &facts);
            }
        }
    }
}

/// The same disk with compressed clusters, as `qemu-img` makes them.
fn compressed(raw: &Path, facts: &Facts) {
    for kind in ["zlib", "zstd"] {
        let path = raw.with_extension(kind);
        let Some(mut qemu_img) = tool("qemu-img") else { return };
        let option = format!("compression_type={kind}");
        run(qemu_img.args(["convert", "-c", "-O", "qcow2", "-o", &option]).arg(raw).arg(&path));
        let seen = inspect(&path).unwrap();
        assert_eq!(Facts { format: "raw", ..seen }, *facts);
    }
}

/// The same disk in files that are compressed as a whole, as the formats' own tools make them.
fn wrapped(raw: &Path, qcow2: &Path, facts: &Facts) {
    for (disk, program, suffix, name) in [
        (raw, "gzip", "gz", "gzip"),
        (raw, "xz", "xz", "xz"),
        (raw, "zstd", "zst", "zstd"),
        (qcow2, "zstd", "zst", "zstd"),
    ] {
        let path = PathBuf::from(format!("{}.{suffix}", disk.display()));
        let Some(mut packer) = tool(program) else { return };
        let output = packer.arg("-1c").arg(disk).output().unwrap();
        assert!(output.status.success(), "{program}");
        fs::write(&path, output.stdout).unwrap();
        let seen = inspect(&path).unwrap();
        assert_eq!(seen.compression, Some(name));
        assert_eq!(Facts { format: "raw", compression: None, ..seen }, *facts);
    }
}

fn compare(facts: &Facts, report: &Report) {
    assert_eq!(facts.size, report.size);
    assert_eq!(facts.partitions.len(), report.partitions.len());
    for (seen, built) in facts.partitions.iter().zip(&report.partitions) {
        assert_eq!((seen.start, seen.size), (built.start, built.size));
        assert_eq!((&seen.guid, &seen.type_guid), (&built.guid, &built.type_guid));
        assert_eq!((&seen.name, seen.role), (&built.name, Some(built.role.name())));
        let Some(built) = &built.filesystem else {
            assert_eq!(seen.filesystem, None);
            continue;
        };
        let seen = seen.filesystem.as_ref().unwrap();
        assert_eq!(seen.kind, built.kind);
        assert_eq!(
            (seen.label.as_ref(), seen.uuid.as_ref()),
            (Some(&built.label), Some(&built.uuid))
        );
        if seen.kind == "ext4" {
            assert_eq!(seen.used, Some(built.used));
        }
    }
    let [entry] = &facts.boot_entries[..] else { panic!("{:?}", facts.boot_entries) };
    let installed = report.system.installed.as_ref().unwrap();
    assert_eq!(entry.options, installed.command_line);
    assert_eq!(entry.title, "Tiny 1 (ostree:0)");
    let [deployment] = &facts.deployments[..] else { panic!("{:?}", facts.deployments) };
    assert_eq!(deployment.commit, installed.commit);
    assert_eq!(deployment.version.as_deref(), Some("1.2"));
    assert_eq!(deployment.image_digest.as_ref(), Some(&report.image.digest));
    let origin = deployment.origin.as_deref().unwrap();
    assert_eq!(origin, "ostree-unverified-registry:registry.example/tiny:1");
    assert_eq!((&*facts.bootupd[0].name, &*facts.bootupd[0].version), ("EFI", "tiny-1"));
    assert!(facts.warnings.iter().all(|line| line.contains("it is not signed")));
    assert_eq!(facts.warnings.len(), 2, "{:?}", facts.warnings);
}

/// The ESP as a file of its own, holes where it is zero.
fn esp(disk: &Path, facts: &Facts) -> tempfile::NamedTempFile {
    let partition =
        facts.partitions.iter().find(|partition| partition.role == Some("esp")).unwrap();
    let (from, to) = (File::open(disk).unwrap(), tempfile::NamedTempFile::new().unwrap());
    to.as_file().set_len(partition.size).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for offset in (0..partition.size).step_by(buffer.len()) {
        from.read_exact_at(&mut buffer, partition.start + offset).unwrap();
        if buffer.iter().any(|&byte| byte != 0) {
            to.as_file().write_all_at(&buffer, offset).unwrap();
        }
    }
    to
}

fn tools(disk: &Path, facts: &Facts) {
    let esp = esp(disk, facts);
    let fatfs = fatfs::FileSystem::new(esp.reopen().unwrap(), fatfs::FsOptions::new()).unwrap();
    let mut listed = Vec::new();
    list(&fatfs.root_dir(), "", &mut listed);
    listed.sort();
    let mut seen: Vec<_> = facts.esp.iter().map(|file| (file.path.clone(), file.size)).collect();
    seen.sort();
    assert_eq!(seen, listed);
    let used = facts.partitions.iter().find(|partition| partition.role == Some("esp")).unwrap();
    let used = used.filesystem.as_ref().unwrap().used.unwrap();
    if let Some(mut fsck) = tool("fsck.fat") {
        let output = run(fsck.arg("-n").arg(esp.path()));
        // `/tmp/x: 5 files, 12/130808 clusters`
        let clusters = output.split_once(" files, ").unwrap().1.split_once('/').unwrap().0;
        let size = u64::from(fatfs.cluster_size());
        assert_eq!(used, clusters.parse::<u64>().unwrap() * size, "{output}");
    }
    if facts.sector_size != 512 {
        // Of a file, they read sectors of 512 bytes; `gpt.rs` gives them a device.
        return;
    }
    if let Some(mut sgdisk) = tool("sgdisk") {
        let output = run(sgdisk.arg("-v").arg(disk));
        assert!(output.contains("No problems found."), "{output}");
    }
    if let Some(mut sfdisk) = tool("sfdisk") {
        let output = run(sfdisk.arg("--verify").arg(disk));
        assert!(output.contains("No errors detected."), "{output}");
    }
}

fn list<T: fatfs::ReadWriteSeek>(
    directory: &fatfs::Dir<'_, T>,
    above: &str,
    found: &mut Vec<(String, u64)>,
) {
    for entry in directory.iter() {
        let entry = entry.unwrap();
        let path = format!("{above}{}", entry.file_name());
        if entry.is_dir() && !entry.file_name().starts_with('.') {
            list(&entry.to_dir(), &format!("{path}/"), found);
            found.push((format!("{path}/"), 0));
        } else if entry.is_file() {
            found.push((path, entry.len()));
        }
    }
}

#[test]
fn signers_are_those_that_sbverify_lists() {
    let (Some(mut openssl), Some(mut sbsign)) = (tool("openssl"), tool("sbsign")) else { return };
    let (Some(mut list), Some(mut verify)) = (tool("sbverify"), tool("sbverify")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    run(openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-sha256"])
        .args(["-subj", "/O=Somebody/CN=Tiny Secure Boot CA", "-keyout"])
        .arg(file("key"))
        .arg("-out")
        .arg(file("certificate")));
    fs::write(file("plain"), program(Architecture::X86_64)).unwrap();
    run(sbsign
        .arg("--key")
        .arg(file("key"))
        .arg("--cert")
        .arg(file("certificate"))
        .arg("--output")
        .arg(file("signed"))
        .arg(file("plain")));
    let theirs = run(list.arg("--list").arg(file("signed"))).replace(" = ", "=");
    assert!(theirs.contains("CN=Tiny Secure Boot CA"), "{theirs}");
    run(verify.arg("--cert").arg(file("certificate")).arg(file("signed")));

    let signed = fs::read(file("signed")).unwrap();
    let mut altered = signed.clone();
    altered[0x210] ^= 1;
    let mut damaged = signed.clone();
    // The first lengths inside of the PKCS #7 document, which begins behind the head of its table.
    let table = 0x200 + CODE as usize;
    damaged[table + 9..table + 13].fill(0xff);
    let plain = program(Architecture::X86_64);
    let programs =
        BTreeMap::from([("shim", signed), ("grub", plain), ("mm", altered), ("fb", damaged)]);
    let image = image(Architecture::X86_64, &programs);
    let report = build(&request(directory.path(), &image, Architecture::X86_64));
    let facts = inspect(&path_of(&report, Format::Qcow2)).unwrap();
    let of = |name: &str| {
        let path = format!("EFI/tiny/{name}x64.efi");
        facts.programs.iter().find(|program| program.path == path).unwrap().signatures.clone()
    };
    let [signature] = &of("shim")[..] else { panic!("{:?}", of("shim")) };
    assert_eq!(signature.signer.as_deref(), Some("Tiny Secure Boot CA"));
    assert_eq!((&*signature.issuer, signature.intact), ("Tiny Secure Boot CA", Some(true)));
    assert_eq!(of("mm")[0].intact, Some(false));
    assert!(of("grub").is_empty() && of("fb").is_empty());
    let warned = |name: &str| facts.warnings.iter().any(|line| line.contains(name));
    assert!(!warned("shimx64") && warned("grubx64") && warned("mmx64") && warned("fbx64"));
}

#[test]
fn what_cannot_be_made_is_refused_with_a_reason() {
    let refusal = |image: &TinyImage, sector_size| {
        let directory = tempfile::tempdir().unwrap();
        let mut request = request(directory.path(), image, Architecture::X86_64);
        request.disk.sector_size = sector_size;
        let error = pipeline::build(&request, &Progress::default()).unwrap_err();
        assert!(error.is::<Unsupported>(), "{error:#}");
        format!("{error:#}")
    };
    for (name, reason) in [("ppc64le", "PReP"), ("s390x", "zipl"), ("riscv64", "not laid out")] {
        let error = refusal(&tiny_image().architecture(name), SectorSize::S512);
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }
    let bios_only = image(Architecture::X86_64, &BTreeMap::new())
        .layer(|layer| layer.file("usr/lib/bootupd/updates/BIOS.json", METADATA));
    let error = refusal(&bios_only, SectorSize::S4096);
    assert!(error.contains("boots by BIOS only"), "{error}");
}

#[test]
fn mounts_and_large_sectors_end_up_where_they_belong() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(Architecture::X86_64, &unsigned(Architecture::X86_64))
        .layer(|layer| layer.file("usr/lib/bootupd/updates/BIOS.json", METADATA));
    let mut request = request(directory.path(), &image, Architecture::X86_64);
    request.disk.preset = Preset::Osbuild;
    request.disk.sector_size = SectorSize::S4096;
    request.system.root_mount_spec = Some("LABEL=root".to_owned());
    request.system.boot_mount_spec = Some("LABEL=boot".to_owned());
    let report = build(&request);
    let command_line = &report.system.installed.as_ref().unwrap().command_line;
    assert!(command_line.starts_with("root=LABEL=root rw boot=LABEL=boot "));
    assert!(report.warnings.iter().any(|line| line.contains("BIOS is left out")));
    let facts = inspect(&path_of(&report, Format::Raw)).unwrap();
    assert_eq!(facts.bootupd.len(), 1);
    assert!(facts.boot_entries[0].options.contains("boot=LABEL=boot"));
}

/// Bytes of a disk that mean something: tables, boot sectors, FATs, directories, super blocks, inodes.
fn places() -> impl Strategy<Value = u64> {
    let (esp, root) = (2_u64 << 20, 514_u64 << 20);
    prop_oneof![
        0..20_000_u64,
        esp..esp + 512,
        esp + 0x4000..esp + 0x4100,
        esp + 0x10_0000..esp + 0x12_0000,
        root + 1024..root + 2048,
        root + 4096..root + 0x40_0000,
    ]
}

#[test]
fn no_damage_panics() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(Architecture::X86_64, &unsigned(Architecture::X86_64));
    let report = build(&request(directory.path(), &image, Architecture::X86_64));
    let raw = path_of(&report, Format::Raw);
    let qcow2 = path_of(&report, Format::Qcow2);
    let change = |path: &Path, changes: &[(u64, u8)]| {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut old = Vec::new();
        for &(at, value) in changes {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            old.push((at, byte));
            file.write_all_at(&[value], at).unwrap();
        }
        // What it says does not matter here, only that it says something.
        let _ = inspect(path);
        for (at, byte) in old.into_iter().rev() {
            file.write_all_at(&byte, at).unwrap();
        }
    };
    let value = prop_oneof![Just(0_u8), Just(0xff), any::<u8>()];
    let bytes = proptest::collection::vec((places(), value.clone()), 1..12);
    proptest!(ProptestConfig::with_cases(96), |(changes in bytes)| change(&raw, &changes));
    let tables = proptest::collection::vec((0..0x5_0000_u64, value), 1..12);
    proptest!(ProptestConfig::with_cases(64), |(changes in tables)| change(&qcow2, &changes));
    // Ever shorter.
    for (path, lengths) in [
        (&raw, [(515 << 20) + 77, 514 << 20, 3 << 20, 2 << 20, 17_000, 1024, 600, 512, 3, 0]),
        (&qcow2, [1 << 20, 500_000, 400_000, 300_000, 200_000, 70_000, 1000, 72, 71, 5]),
    ] {
        let file = File::options().write(true).open(path).unwrap();
        for length in lengths {
            file.set_len(length.min(file.metadata().unwrap().len())).unwrap();
            let _ = inspect(path);
        }
        assert!(inspect(path).is_err());
    }
}

/// The same with a master boot record, whose types say less: `/boot` is told by what is in it.
#[test]
fn a_disk_without_gpt_is_seen_as_it_was_built() {
    const DISK: &str = "[customizations.disk]\ntype = \"dos\"\n\
        [[customizations.disk.partitions]]\nmountpoint = \"/boot\"\nfs_type = \"ext4\"\nlabel = \"booting\"\n\
        [[customizations.disk.partitions]]\nfs_type = \"swap\"\nlabel = \"paging\"\nminsize = \"16 MiB\"\n\
        [[customizations.disk.partitions]]\nmountpoint = \"/\"\nfs_type = \"ext4\"\n";
    let directory = tempfile::tempdir().unwrap();
    let architecture = Architecture::X86_64;
    let image = image(architecture, &unsigned(architecture));
    let mut request = request(directory.path(), &image, architecture);
    let nothing = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    request.config = Config::read(DISK, "c.toml", Reading::default(), &nothing).unwrap();
    let report = build(&request);
    let raw = path_of(&report, Format::Raw);
    let facts = inspect(&raw).unwrap();
    assert_eq!(facts.table, "dos");
    compare(&facts, &report);
    let roles: Vec<_> = facts.partitions.iter().map(|one| one.role.unwrap()).collect();
    assert_eq!(roles, ["esp", "boot", "swap", "root"]);
    assert_eq!(facts.architecture, Some(architecture));
    if let Some(mut blkid) = tool("blkid") {
        let said = run(blkid.args(["-p", "-o", "export"]).arg(&raw));
        assert!(said.contains(&format!("PTUUID={}\nPTTYPE=dos\n", facts.guid)), "{said}");
    }
    if let Some(mut sfdisk) = tool("sfdisk") {
        let said: serde_json::Value =
            serde_json::from_str(&run(sfdisk.arg("--json").arg(&raw))).unwrap();
        let listed = said["partitiontable"]["partitions"].as_array().unwrap();
        for (seen, listed) in facts.partitions.iter().zip(listed) {
            assert_eq!(seen.start, listed["start"].as_u64().unwrap() * 512);
            assert_eq!(seen.size, listed["size"].as_u64().unwrap() * 512);
            let byte = seen.type_guid.trim_start_matches("0x");
            assert_eq!(Some(byte), listed["type"].as_str());
        }
    }
}
