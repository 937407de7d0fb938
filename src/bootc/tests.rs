//! Settings of small hand-made trees.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::error::{Corrupt, Unsupported};
use crate::filesystem_kind::FileSystem;
use crate::progress::Event;
use crate::tree::Metadata;

struct Rootfs {
    tree: Tree,
    contents: ContentStore,
}

impl Rootfs {
    fn empty() -> Self {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        Self { tree: Tree::new(Metadata::root(0o755)), contents }
    }

    /// The least that bootc accepts.
    fn bootable() -> Self {
        let mut root = Self::empty()
            .file("usr/lib/modules/6.1/vmlinuz", "kernel")
            .file("usr/lib/modules/6.1/initramfs.img", "initramfs")
            .file("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n")
            .file("usr/lib/os-release", "PRETTY_NAME=\"Tiny\"\n");
        root.tree.make_directories("sysroot", &Metadata::root(0o755));
        root
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        let content = self.contents.insert_bytes(text.as_bytes()).unwrap();
        self.add(path, Kind::File(content));
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        self.add(path, Kind::Symlink(target.as_bytes().into()));
        self
    }

    fn add(&mut self, path: &str, kind: Kind) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.tree.make_directories(directory, &Metadata::root(0o755));
        self.tree.create(directory, name.as_bytes(), Metadata::root(0o644), kind);
    }

    fn load(&self) -> Result<Settings> {
        self.load_for(Architecture::X86_64, &Progress::default())
    }

    fn load_for(&self, architecture: Architecture, progress: &Progress) -> Result<Settings> {
        Settings::load(&self.tree, &self.contents, architecture, BackendChoice::default(), progress)
    }
}

fn image(labels: &serde_json::Value) -> Image {
    Image {
        reference: "oci:x".to_owned(),
        name: None,
        architecture: Architecture::X86_64,
        manifest_digest: "sha256:00".to_owned(),
        manifest: json!({}),
        config: json!({ "config": { "Labels": labels } }),
        layers: Vec::new(),
    }
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let error =
        check(&image(&json!({})), &Rootfs::empty().tree, &BackendChoice::default()).unwrap_err();
    assert!(error.is::<Unsupported>());
    for what in ["containers.bootc", "vmlinuz", "/sysroot", "os-release"] {
        assert!(error.to_string().contains(what), "{error} does not name {what}");
    }
    check(
        &image(&json!({ "ostree.bootable": "0" })),
        &Rootfs::bootable().tree,
        &BackendChoice::default(),
    )
    .unwrap();
    let two = Rootfs::bootable().file("usr/lib/modules/6.2/vmlinuz", "");
    let error =
        check(&image(&json!({ "containers.bootc": "1" })), &two.tree, &BackendChoice::default())
            .unwrap_err();
    assert!(
        error.to_string().ends_with(
            "it lacks a single kernel (2 directories in usr/lib/modules have a vmlinuz)"
        )
    );
}

#[test]
fn a_plain_image_has_plain_settings() {
    let settings = Rootfs::bootable().load().unwrap();
    assert_eq!(
        settings.kernel,
        Kernel { version: "6.1".to_owned(), initramfs: Some("initramfs.img") }
    );
    assert_eq!(settings.title, "Tiny");
    assert_eq!(settings.root_home, "root");
    assert_eq!(settings.install, InstallConfig::default());
    assert_eq!(settings.prepare_root.composefs, Composefs::On);
    assert_eq!(
        Rootfs::bootable().link("root", "/var/roothome").load().unwrap().root_home,
        "var/roothome"
    );
}

/// bootc installs it without composefs.
#[test]
fn image_without_prepare_root_conf_goes_without_composefs() {
    let mut root = Rootfs::empty()
        .file("usr/lib/modules/6.1/vmlinuz", "kernel")
        .file("usr/lib/os-release", "PRETTY_NAME=\"Tiny\"\n");
    root.tree.make_directories("sysroot", &Metadata::root(0o755));
    let image = image(&json!({ "containers.bootc": "1" }));
    check(&image, &root.tree, &BackendChoice::default()).unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let progress = Progress::to(move |event| {
        if let Event::Warning { message, .. } = event {
            heard.lock().unwrap().push(message);
        }
    });
    let settings = root.load_for(Architecture::X86_64, &progress).unwrap().prepare_root;
    assert_eq!((settings.composefs, settings.readonly), (Composefs::Off, false));
    assert!(said.lock().unwrap()[0].contains("without composefs"), "{said:?}");
}

#[test]
fn image_of_the_composefs_backend_is_read_with_what_it_says_about_its_root() {
    let config = "[etc]\nmount = \"transient\"\n";
    let mut root = Rootfs::empty()
        .file("boot/EFI/Linux/6.1.efi", "MZ")
        .file("usr/lib/composefs/setup-root-conf.toml", config)
        .file(
            "usr/lib/systemd/system/bootc-root-setup.service",
            "[Unit]\nConditionKernelCommandLine=|composefs.digest\n",
        )
        .file("usr/lib/os-release", "PRETTY_NAME=\"Tiny\"\n");
    root.tree.make_directories("sysroot", &Metadata::root(0o755));
    let backend = BackendChoice {
        backend: Backend::Composefs,
        because: String::new(),
        unified: vec!["boot/EFI/Linux/6.1.efi".to_owned()],
    };
    let image = image(&json!({ "containers.bootc": "1" }));
    check(&image, &root.tree, &backend).unwrap();
    assert!(check(&image, &root.tree, &BackendChoice::default()).is_err());
    let settings = Settings::load(
        &root.tree,
        &root.contents,
        Architecture::X86_64,
        backend,
        &Progress::default(),
    )
    .unwrap();
    assert_eq!((settings.kernel.version.as_str(), settings.reads_new_digest), ("6.1", true));
    assert_eq!(settings.lost[0].path, "/etc");
    let mounts = Mounts::of(&settings, "1111", None);
    let line = composefs_command_line(&settings, &mounts, &["quiet".to_owned()], &[]);
    assert_eq!(line, ["root=UUID=1111", "rw", "quiet", "composefs="]);
}

#[test]
fn a_directory_without_a_kernel_is_no_kernel() {
    let root = Rootfs::bootable().file("usr/lib/modules/5.9/modules.dep", "");
    assert_eq!(root.load().unwrap().kernel.version, "6.1");
    let root = Rootfs::bootable().link("usr/lib/modules/5.9/vmlinuz", "../6.1/vmlinuz");
    assert_eq!(root.load().unwrap().kernel.version, "6.1");
}

#[test]
fn install_files_hide_and_override_each_other() {
    let root = Rootfs::bootable()
        .file(
            "usr/lib/bootc/install/00-a.toml",
            "[install]\nkargs = [\"a\"]\nroot-fs-type = \"xfs\"\nstateroot = \"one\"\n",
        )
        .file("usr/lib/bootc/install/10-b.toml", "[install]\nkargs = [\"hidden\"]\n")
        .file(
            "usr/etc/bootc/install/10-b.toml",
            "[install]\nkargs = [\"b c\"]\n[install.filesystem.root]\ntype = \"ext4\"\n",
        )
        .file(
            "usr/lib/bootc/install/20-c.toml",
            "[install]\nkargs = [\"arm\"]\nmatch-architectures = [\"aarch64\"]\n",
        )
        .file(
            "usr/lib/bootc/install/30-d.toml",
            "[install]\nstateroot = \"two\"\nkarg-deletes = [\"a\"]\n[other]\nx = 1\n",
        )
        .file("usr/lib/bootc/install/40-e.toml", "[install]\nkargs = [\"masked\"]\n")
        .link("usr/etc/bootc/install/40-e.toml", "/dev/null")
        .file("usr/lib/bootc/install/README", "not toml")
        .file("usr/lib/bootc/install/.hidden.toml", "not toml");
    let install = root.load().unwrap().install;
    assert_eq!(install.kernel_arguments, ["a", "b c"]);
    assert_eq!(install.kernel_argument_deletes, ["a"]);
    assert_eq!(install.root_filesystem, Some(FileSystem::Ext4));
    assert_eq!(install.stateroot.as_deref(), Some("two"));
    let arm = root.load_for(Architecture::Aarch64, &Progress::default()).unwrap().install;
    assert_eq!(arm.kernel_arguments, ["a", "b c", "arm"]);
}

#[test]
fn unknown_install_keys_are_warnings() {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&warnings);
    let progress = Progress::to(move |event| {
        if let Event::Warning { message, .. } = event {
            seen.lock().unwrap().push(message);
        }
    });
    let root = Rootfs::bootable().file(
        "usr/lib/bootc/install/a.toml",
        "[install]\nnew = 1\nbootloader = \"grub-cc\"\n[install.bootupd]\nskip-boot-uuid = true\nmore = 2\n",
    );
    let install = root.load_for(Architecture::X86_64, &progress).unwrap().install;
    assert_eq!(
        (install.bootloader, install.skip_boot_uuid),
        (Some(Bootloader::GrubCc), Some(true))
    );
    assert_eq!(
        *warnings.lock().unwrap(),
        [
            "usr/lib/bootc/install/a.toml: unknown key install.new",
            "usr/lib/bootc/install/a.toml: unknown key install.bootupd.more"
        ]
    );
}

/// The two directories have files that look alike.
#[test]
fn arguments_in_the_wrong_table_are_told_where_they_belong() {
    let wrong =
        Rootfs::bootable().file("usr/lib/bootc/kargs.d/1.toml", "[install]\nkargs = [\"quiet\"]\n");
    let error = wrong.load().unwrap_err();
    assert!(
        error.is::<Corrupt>() && error.to_string().contains("usr/lib/bootc/install"),
        "{error}"
    );
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let progress = Progress::to(move |event| {
        if let Event::Warning { message, .. } = event {
            heard.lock().unwrap().push(message);
        }
    });
    let bare = Rootfs::bootable().file("usr/lib/bootc/install/1.toml", "kargs = [\"quiet\"]\n");
    let settings = bare.load_for(Architecture::X86_64, &progress).unwrap();
    assert!(settings.install.kernel_arguments.is_empty());
    assert!(said.lock().unwrap()[0].contains("kargs has no effect outside"), "{said:?}");
}

#[test]
fn configuration_that_cannot_be_read_names_its_file() {
    for (path, text) in [
        ("usr/lib/bootc/install/a.toml", "[install]\nkargs = 1\n"),
        ("usr/lib/bootc/install/a.toml", "[install]\nroot-fs-type = \"zfs\"\n"),
        ("usr/lib/bootc/kargs.d/a.toml", "kargs = [\"a\"]\nunknown = 1\n"),
        ("usr/lib/bootc/kargs.d/a.toml", "match-architectures = []\n"),
        ("usr/lib/ostree/prepare-root.conf", "nonsense\n"),
    ] {
        let error = Rootfs::bootable().file(path, text).load().unwrap_err();
        assert!(error.is::<Corrupt>(), "{path}: {error}");
        assert!(error.to_string().starts_with(path), "{error}");
    }
    let encrypted = Rootfs::bootable()
        .file("usr/lib/bootc/install/a.toml", "[install]\nblock = [\"tpm2-luks\"]\n");
    assert!(encrypted.load().unwrap_err().is::<Unsupported>());
}

#[test]
fn the_command_line_has_its_order() {
    let root = Rootfs::bootable()
        .file(
            "usr/lib/bootc/install/a.toml",
            "[install]\nkargs = [\"i1\", \"gone=1\"]\nkarg-deletes = [\"gone\"]\n",
        )
        .file("usr/lib/bootc/kargs.d/20.toml", "kargs = [\"k2=\\\"a b\\\"\", \"also-gone=2\"]\n")
        .file("usr/lib/bootc/kargs.d/10.toml", "kargs = [\"k1\", \"console=tty0\"]\n")
        .file(
            "usr/lib/bootc/kargs.d/05.toml",
            "kargs = [\"arm\"]\nmatch-architectures = [\"aarch64\"]\n",
        )
        .file("usr/lib/bootc/kargs.d/README", "no");
    let settings = root.load().unwrap();
    assert_eq!(settings.kernel_arguments, ["k1", "console=tty0", "k2=\"a b\"", "also-gone=2"]);
    let mounts = Mounts::of(&settings, "1-2", Some("3-4"));
    let line = command_line(
        &settings,
        &mounts,
        &["console=tty0".to_owned(), "x y".to_owned()],
        &["also_gone=2".to_owned(), "k1=other".to_owned()],
    );
    assert_eq!(
        line,
        [
            "root=UUID=1-2",
            "rw",
            "boot=UUID=3-4",
            "i1",
            "k1",
            "console=tty0",
            "k2=\"a b\"",
            "console=tty0",
            "x",
            "y"
        ]
    );
}

#[test]
fn an_image_may_name_its_mounts() {
    let with = |text: &str| {
        Rootfs::bootable()
            .file("usr/lib/bootc/install/a.toml", &format!("[install]\n{text}\n"))
            .load()
            .unwrap()
    };
    let named = with("root-mount-spec = \"LABEL=r\"\nboot-mount-spec = \"\"");
    assert_eq!(
        Mounts::of(&named, "1", Some("2")),
        Mounts { root: Some("LABEL=r".to_owned()), root_flags: None, boot: None }
    );
    let discovered = with("discoverable-partitions = true");
    let mounts = Mounts::of(&discovered, "1", None);
    assert_eq!(mounts.root, None);
    assert_eq!(command_line(&discovered, &mounts, &[], &[]), ["rw"]);
}

const BOUND: &str = "usr/lib/bootc/bound-images.d";

#[test]
fn bound_images_are_listed() {
    let root = Rootfs::bootable()
        .file("usr/share/app.image", "[Image]\nImage=example.com/app:1%%\n")
        .file("usr/share/db.container", "[Container]\nImage=example.com/db\nGlobalArgs=--x\n")
        .link(&format!("{BOUND}/2.image"), "/usr/share/app.image")
        .link(&format!("{BOUND}/1.container"), "../../../share/db.container");
    assert_eq!(root.load().unwrap().bound_images, ["example.com/db", "example.com/app:1%"]);
    for text in ["[Image]\nImage=a%b\n", "[Image]\n", "[Image]\nImage=a\nAuthFile=/x\n"] {
        let root =
            Rootfs::bootable().file("a.image", text).link(&format!("{BOUND}/a.image"), "/a.image");
        assert!(root.load().is_err(), "{text:?} was accepted");
    }
}

#[test]
fn directories_that_are_others_at_boot_are_found() {
    let lost = |root: &Rootfs| {
        let lost = root.load().unwrap().lost;
        lost.into_iter().map(|lost| (lost.path, lost.because)).collect::<Vec<_>>()
    };
    assert!(lost(&Rootfs::bootable()).is_empty());
    let root = Rootfs::bootable()
        .file("etc/ostree/prepare-root.conf", "[etc]\ntransient = true\n")
        .file("usr/lib/systemd/system/var.mount", "[Mount]\nWhat=tmpfs\nWhere=/var\n")
        .file("usr/lib/systemd/system/tmp.mount", "[Mount]\nWhere=/tmp\n")
        .file("usr/lib/systemd/system/var-lib-machines.mount", "Where=/var/lib/machines\n")
        .file(
            "usr/etc/fstab",
            "# LABEL=x /etc x\nLABEL=home /var/home/ btrfs defaults 0 0\nLABEL=y /var/y xfs noauto 0 0\n",
        );
    let found = lost(&root);
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/etc", "/var", "/var/home"]);
    assert!(found[0].1.contains("[etc] transient = true"), "{found:?}");
    assert!(found[1].1.contains("usr/lib/systemd/system/var.mount"), "{found:?}");
    assert!(found[2].1.contains("etc/fstab"), "{found:?}");
}

/// Images whose prepare-root tells systemd the device of the root, without `/efi`.
#[test]
fn boot_that_idles_out_is_foreseen() {
    let image = || {
        Rootfs::bootable()
            .file("usr/lib/systemd/system-generators/systemd-gpt-auto-generator", "ELF")
            .file("usr/lib/ostree/ostree-prepare-root", "\0/run/systemd/volatile-root\0")
            .file("usr/lib64/systemd/libsystemd-shared-260.2-1.fc44.so", "ELF")
    };
    let settings = image().load().unwrap();
    assert!(settings.boot_idles);
    assert_eq!(settings.systemd, Some(260));
    let debian =
        Rootfs::bootable().file("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", "");
    assert_eq!(debian.load().unwrap().systemd, Some(257));
    let mut with_efi = image();
    with_efi.tree.make_directories("efi", &Metadata::root(0o755));
    for safe in [
        Rootfs::bootable(),
        with_efi,
        image().file("usr/lib/ostree/ostree-prepare-root", "an older one"),
        image().file("etc/ostree/prepare-root.conf", "[composefs]\nenabled = no\n"),
        image().file("usr/etc/fstab", "LABEL=boot /boot ext4 ro 0 0\n"),
        image().link("usr/etc/systemd/system/boot.automount", "/dev/null"),
    ] {
        assert!(!safe.load().unwrap().boot_idles);
    }
}

/// What GRUB would stop at is refused with the file that has it.
#[test]
fn unbalanced_quotes_name_their_file() {
    let kargs =
        Rootfs::bootable().file("usr/lib/bootc/kargs.d/5.toml", "kargs = ['quiet', 'a=\"b']\n");
    let install =
        Rootfs::bootable().file("usr/lib/bootc/install/5.toml", "[install]\nkargs = [\"a='b\"]\n");
    for (root, file) in [(kargs, "kargs.d/5.toml"), (install, "install/5.toml")] {
        let error = root.load().unwrap_err();
        assert!(error.is::<Corrupt>(), "{error:#}");
        let told = format!("{error:#}");
        assert!(told.contains(file) && told.contains("quote is not closed"), "{told}");
    }
    let fine =
        Rootfs::bootable().file("usr/lib/bootc/kargs.d/5.toml", "kargs = ['a=\"b c\" $x']\n");
    assert_eq!(fine.load().unwrap().kernel_arguments, ["a=\"b c\"", "$x"]);
}

/// Containerfiles put quadlets into /etc, which is /usr/etc in a commit.
#[test]
fn links_to_etc_lead_to_usr_etc() {
    let quadlet = "[Container]\nImage=example.com/db\n";
    for target in
        ["/etc/containers/systemd/db.container", "../../../../etc/containers/systemd/db.container"]
    {
        let root = Rootfs::bootable()
            .file("usr/etc/containers/systemd/db.container", quadlet)
            .link(&format!("{BOUND}/db.container"), target);
        assert_eq!(root.load().unwrap().bound_images, ["example.com/db"], "{target}");
    }
    // Every reader follows links in this way.
    let root = Rootfs::bootable()
        .file("usr/etc/my-args.toml", "kargs = [\"quiet\"]\n")
        .link("usr/lib/bootc/kargs.d/1.toml", "/etc/my-args.toml");
    assert_eq!(root.load().unwrap().kernel_arguments, ["quiet"]);
}

#[test]
fn quadlets_are_read_as_bootc_reads_them() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let progress = Progress::to(move |event| {
        if let Event::Warning { message, .. } = event {
            heard.lock().unwrap().push(message);
        }
    });
    let load = |text: &str| {
        said.lock().unwrap().clear();
        let root = Rootfs::bootable()
            .file("usr/share/a", text)
            .link(&format!("{BOUND}/a.container"), "/usr/share/a");
        root.load_for(Architecture::X86_64, &progress)
            .map(|settings| settings.bound_images[0].clone())
    };
    assert_eq!(load("[Container]\nImage=x # note\n").unwrap(), "x");
    assert_eq!(load("[Container]\nImage = x;y\nImage=z\n").unwrap(), "z");
    // A container may log in for itself; only an .image file is refused for that.
    assert_eq!(load("[Container]\nImage=x\nAuthFile=/y\n").unwrap(), "x");
    let options =
        "[Container]\nImage=x\nPodmanArgs=--a=1 \\\n  --b=2\nExec=run \\\n# why\n  --fast=1\n";
    assert_eq!(load(options).unwrap(), "x");
    assert!(said.lock().unwrap().is_empty(), "{said:?}");
    assert_eq!(load("[Container]\nExec=run \\\n  fast\nImage=x").unwrap(), "x");
    assert!(said.lock().unwrap()[0].contains("continuation in line 3"), "{said:?}");
    for bad in ["[Container\nImage=x\n", "[Container]\nImage\n", "[Image]\nImage=x\n"] {
        let error = load(bad).unwrap_err();
        assert!(error.is::<Corrupt>(), "{bad:?}: {error}");
    }
    // What bootc stops at stops us.
    let plain = Rootfs::bootable().file(&format!("{BOUND}/a.image"), "[Image]\nImage=x\n");
    assert!(plain.load().unwrap_err().is::<Corrupt>());
    let unnamed = Rootfs::bootable()
        .file("a.image", "[Image]\nImage=x\n")
        .link(&format!("{BOUND}/a"), "/a.image");
    assert!(unnamed.load().unwrap_err().is::<Corrupt>());
}
