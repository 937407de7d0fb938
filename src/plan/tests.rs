//! Plans made from values: no image is opened, and nothing is laid out.

use serde_json::json;

use super::*;
use crate::architecture::Architecture;
use crate::bootc::{BackendChoice, InstallConfig, Kernel, PrepareRoot};
use crate::config::{Config, Filesystem, Partition, Payload, Reading, Subvolume};
use crate::disk::Preset;
use crate::error::Unsupported;
use crate::ostree::SignaturePolicy;
use crate::tree::Metadata;

fn request() -> Request {
    Request::new("oci:image".parse().unwrap(), Architecture::X86_64, std::path::Path::new("."))
}

fn settings() -> Settings {
    Settings {
        backend: BackendChoice::default(),
        reads_new_digest: false,
        os_release: String::new(),
        install: InstallConfig::default(),
        kernel_arguments: vec!["quiet".to_owned()],
        prepare_root: PrepareRoot {
            composefs: Composefs::On,
            readonly: true,
            transient_root: false,
            transient_etc: false,
        },
        lost: Vec::new(),
        systemd: None,
        boot_idles: false,
        kernel: Kernel { version: "6.1".to_owned(), initramfs: None },
        grub: None,
        title: "Tiny".to_owned(),
        product: ("Tiny".to_owned(), "1".to_owned()),
        root_home: "root".to_owned(),
        bound_images: Vec::new(),
    }
}

fn image() -> Image {
    Image {
        reference: "oci:image".to_owned(),
        name: None,
        architecture: Architecture::X86_64,
        manifest_digest: format!("sha256:{}", "0f".repeat(32)),
        manifest: json!({}),
        config: json!({}),
        layers: Vec::new(),
    }
}

fn plan_with(request: &Request, settings: &Settings, layout: Option<&Layout>) -> Result<Plan> {
    let (image, root) = (image(), Tree::new(Metadata::root(0o755)));
    Plan::of(request, Known { image: &image, settings, layout, root: &root, unified: None })
}

fn plan(request: &Request) -> Plan {
    plan_with(request, &settings(), None).unwrap()
}

fn mounted(path: &str, kind: Option<FileSystem>) -> Partition {
    let mountpoint = Some(path.to_owned());
    let filesystem = Filesystem { kind, mountpoint, ..Filesystem::default() };
    Partition { payload: Payload::Filesystem(filesystem), ..Partition::default() }
}

#[test]
fn root_is_ext4_unless_somebody_says_otherwise() {
    let choice = |request: &Request, settings: &Settings, layout: Option<&Layout>| {
        RootChoice::of(&request.disk, settings, layout).unwrap()
    };
    let mut request = request();
    let mut settings = settings();
    let chosen = choice(&request, &settings, None);
    assert_eq!(chosen.filesystem, FileSystem::Ext4);
    assert!(chosen.because.starts_with("by default"));
    settings.install.root_filesystem = Some(FileSystem::Xfs);
    assert_eq!(choice(&request, &settings, None).filesystem, FileSystem::Xfs);
    let partitions = vec![mounted("/", Some(FileSystem::Ext4))];
    let layout = Layout { partitions, ..Layout::default() };
    let chosen = choice(&request, &settings, Some(&layout));
    assert_eq!((chosen.filesystem, chosen.because), (FileSystem::Ext4, "as the layout says"));
    request.disk.root = Some(FileSystem::Btrfs);
    let chosen = choice(&request, &settings, Some(&layout));
    assert_eq!((chosen.filesystem, chosen.because), (FileSystem::Btrfs, "as asked for"));
}

#[test]
fn flags_for_btrfs_are_refused_on_another_root_before_the_image_is_known() {
    let mut request = request();
    request.disk.btrfs_compression = Some("zstd".parse().unwrap());
    // The image may still say btrfs.
    request.check().unwrap();
    request.disk.root = Some(FileSystem::Ext4);
    let error = request.check().unwrap_err();
    assert!(error.is::<Unsupported>() && error.to_string().contains("--btrfs-compress"), "{error}");
    request.disk.root = None;
    assert!(plan_with(&request, &settings(), None).unwrap_err().is::<Unsupported>());
}

#[test]
fn layout_and_flags_that_contradict_each_other_are_refused() {
    let subvolume = Subvolume { name: "root".to_owned(), ..Subvolume::default() };
    let btrfs = |mountpoint: &str| {
        let mountpoint = Some(mountpoint.to_owned());
        let subvolumes = vec![Subvolume { mountpoint, ..subvolume.clone() }];
        let payload = Payload::Btrfs { label: String::new(), uuid: None, subvolumes };
        let partitions = vec![Partition { payload, ..Partition::default() }];
        Layout { partitions, origin: "c.toml".to_owned(), ..Layout::default() }
    };
    let mut request = request();
    assert_eq!(request.disk.root_in(&btrfs("/")).unwrap(), Some(FileSystem::Btrfs));
    let refused = |request: &Request, layout: &Layout, words: &str| {
        let error = request.disk.root_in(layout).unwrap_err().to_string();
        assert!(error.starts_with("c.toml") && error.contains(words), "{error}");
    };
    // A btrfs that does not hold the root says nothing about it.
    assert_eq!(request.disk.root_in(&btrfs("/home")).unwrap(), None);
    request.disk.btrfs_subvolume = Some("other".parse().unwrap());
    refused(&request, &btrfs("/"), "--btrfs-subvolume asks for another");
    request.disk.root = Some(FileSystem::Xfs);
    refused(&request, &btrfs("/"), "--filesystem asks for xfs");
}

#[test]
fn kernel_arguments_come_from_image_preset_configuration_and_flags_in_this_order() {
    let mut request = request();
    let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let toml = "[customizations.kernel]\nappend = \"configured\"";
    request.config = Config::read(toml, "c.toml", Reading::default(), &nothing).unwrap();
    request.system.kernel_arguments = vec!["flag=1".to_owned()];
    request.disk.preset = Preset::Osbuild;
    let line = plan(&request).system.kernel_arguments.join(" ");
    let root = plan(&request).system.mounts.root.unwrap();
    let expected = "quiet console=tty0 console=ttyS0 configured flag=1";
    assert!(line.contains(&format!("root={root} ")) && line.contains("boot="), "{line}");
    let mut places = expected.split(' ').map(|word| line.find(word).expect(word));
    assert!(places.try_fold(0, |last, at| (at >= last).then_some(at)).is_some(), "{line}");
    request.system.preset_arguments = false;
    assert!(!plan(&request).system.kernel_arguments.contains(&"console=tty0".to_owned()));
    request.system.kernel_argument_deletes = vec!["quiet".to_owned()];
    assert!(!plan(&request).system.kernel_arguments.contains(&"quiet".to_owned()));
}

#[test]
fn mount_specs_of_flags_win_and_empty_ones_mean_none() {
    let mut request = request();
    assert_eq!(plan(&request).system.mounts.boot, None);
    request.system.root_mount_spec = Some("LABEL=root".to_owned());
    assert_eq!(plan(&request).system.mounts.root.as_deref(), Some("LABEL=root"));
    request.system.root_mount_spec = Some(String::new());
    assert_eq!(plan(&request).system.mounts.root, None);
}

#[test]
fn boot_loader_knows_where_boot_is() {
    let mut request = request();
    let bootc = plan(&request);
    let options = bootc.bootloader.unwrap();
    assert_eq!((options.boot_uuid, options.boot_partition), (bootc.identity.root_filesystem, 3));
    assert!(options.bios && !options.separate_boot && !options.dos);
    request.disk.preset = Preset::Osbuild;
    request.disk.sector_size = SectorSize::S4096;
    let osbuild = plan(&request);
    let options = osbuild.bootloader.unwrap();
    assert_eq!((options.boot_uuid, options.boot_partition), (osbuild.identity.boot_filesystem, 3));
    assert!(!options.bios && options.separate_boot);
    request.disk.install_bootloader = false;
    assert!(plan(&request).bootloader.is_none());
}

#[test]
fn stateroot_of_the_image_is_judged_like_the_flag() {
    let mut settings = settings();
    assert_eq!(plan(&request()).system.stateroot.as_str(), "default");
    settings.install.stateroot = Some("fedora".to_owned());
    let planned = plan_with(&request(), &settings, None).unwrap();
    assert_eq!(planned.system.stateroot.as_str(), "fedora");
    settings.install.stateroot = Some("../x".to_owned());
    let error = plan_with(&request(), &settings, None).unwrap_err();
    assert!(error.is::<Unsupported>(), "{error:#}");
    assert!(format!("{error:#}").contains("../x"), "{error:#}");
}

#[test]
fn what_an_image_demands_and_nobody_can_give_is_refused() {
    let mut signed = settings();
    signed.prepare_root.composefs = Composefs::Signed;
    assert!(plan_with(&request(), &signed, None).unwrap_err().is::<Unsupported>());
    let mut systemd = settings();
    systemd.install.bootloader = Some(Bootloader::Systemd);
    assert!(plan_with(&request(), &systemd, None).unwrap_err().is::<Unsupported>());
    let mut without = request();
    without.disk.install_bootloader = false;
    assert!(plan_with(&without, &systemd, None).unwrap().bootloader.is_none());
}

#[test]
fn warnings_tell_what_the_machine_will_have_to_find_itself() {
    let mut bound = settings();
    bound.bound_images = vec!["quay.io/x/app:1".to_owned()];
    let mut request = request();
    let warnings = plan_with(&request, &bound, None).unwrap().warnings;
    assert!(warnings[0].message.contains("quay.io/x/app:1"));
    assert!(warnings[1].message.contains("localhost/image"));
    let codes: Vec<Code> = warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, [Code::BoundImage, Code::UpdateSource]);
    request.system.target_image = Some("quay.io/x/y:1".to_owned());
    request.applications.bound = BoundImages::Pull;
    let planned = plan_with(&request, &bound, None).unwrap();
    assert_eq!(planned.warnings, []);
    assert_eq!(planned.system.target, "docker://quay.io/x/y:1");
}

#[test]
fn fs_verity_is_configured_where_the_image_wants_it() {
    let mut verity = settings();
    verity.prepare_root.composefs = Composefs::Verity;
    let planned = plan_with(&request(), &verity, None).unwrap();
    assert!(planned.system.fs_verity);
    assert_eq!(planned.system.repository_config[0].key, "fsverity");
    assert!(!plan(&request()).system.fs_verity);
}

#[test]
fn decisions_are_printed_for_a_dry_run() {
    let mut request = request();
    request.system.enforce_container_sigpolicy = true;
    let planned = plan(&request);
    assert_eq!(planned.system.signature_policy, SignaturePolicy::ContainerPolicy);
    let printed: Vec<String> = planned
        .decisions()
        .iter()
        .map(|decision| format!("{}: {}", decision.about, decision.chosen))
        .collect();
    for line in [
        "sector size: 512 bytes",
        "stateroot: default",
        "updates from: docker://localhost/image:latest",
        "updates vouched for by: the machine's container policy",
        "mounted on /boot: nothing",
    ] {
        assert!(printed.iter().any(|printed| printed == line), "{line}: {printed:?}");
    }
}
