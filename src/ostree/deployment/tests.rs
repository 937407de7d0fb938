//! Deployments of small hand-made commits.

use std::fmt::Write;
use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::architecture::Architecture;
use crate::error::{Corrupt, Unsupported};
use crate::tree::Name;

/// A commit whose objects are named by their paths, and the root that holds them.
struct Fixture {
    tree: Tree,
    contents: ContentStore,
    boot_files: Tree,
    separate_boot: bool,
    boot_mount: Option<&'static str>,
    keys: Option<RootSshKeys<'static>>,
    initramfs: Option<&'static str>,
    arguments: Vec<String>,
    fs_verity: Option<&'static FsVerity<'static>>,
}

impl Fixture {
    fn empty() -> Self {
        Self {
            tree: Tree::new(Metadata::root(0o755)),
            contents: ContentStore::create_in(&std::env::temp_dir()).unwrap(),
            boot_files: Tree::new(Metadata::root(0o755)),
            separate_boot: false,
            boot_mount: None,
            keys: None,
            initramfs: Some("initramfs.img"),
            arguments: vec!["root=UUID=1".to_owned(), "ostree=/old".to_owned(), "rw".to_owned()],
            fs_verity: None,
        }
    }

    /// The least that deploys.
    fn tiny() -> Self {
        Self::empty()
            .file("usr/lib/modules/6.1/vmlinuz", "kernel")
            .file("usr/lib/modules/6.1/initramfs.img", "initramfs")
            .file("usr/lib/tmpfiles.d/x.conf", "x")
            .file("usr/etc/hostname", "tiny\n")
    }

    fn file(self, path: &str, text: &str) -> Self {
        let content = self.contents.insert_bytes(text.as_bytes()).unwrap();
        self.add(path, Kind::File(content))
    }

    fn add(mut self, path: &str, kind: Kind) -> Self {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.tree.make_directories(directory, &Metadata::root(0o755));
        let metadata = Metadata { mtime: 7, ..Metadata::root(0o644) };
        self.tree.create(directory, name.as_bytes(), metadata, kind);
        self
    }

    fn committed(&self) -> Committed {
        let mut objects = vec![None; self.tree.inode_count()];
        for (path, id) in self.tree.walk() {
            if !self.tree.inode(id).is_directory() {
                objects[id.index()] = Some(Checksum(Sha256::digest(&path).into()));
            }
        }
        Committed { checksum: Checksum([0xc0; 32]), tree: self.tree.clone(), objects }
    }

    fn deploy(&self) -> Result<Installed> {
        self.deploy_with(None, &|_, _| Ok(b"composefs".to_vec()))
    }

    fn deploy_with(
        &self,
        labels: Option<&Labels<'_>>,
        composefs: &ComposefsWriter<'_>,
    ) -> Result<Installed> {
        let committed = self.committed();
        let mut root = Tree::new(Metadata::root(0o755));
        let directory = root.make_directories("ostree/repo/objects", &Metadata::root(0o755));
        let mut objects = ObjectInodes::new();
        for (_, id) in self.tree.walk() {
            let Some(checksum) = committed.objects[id.index()] else { continue };
            let inode = self.tree.inode(id);
            let name = format!("{}.file", &checksum.to_string()[..4]);
            let metadata = without_time(&inode.metadata);
            let object = root.create(directory, name.as_bytes(), metadata, inode.kind.clone());
            objects.insert(checksum, object);
        }
        let stateroot = StaterootName::default();
        let options = DeployOptions {
            stateroot: &stateroot,
            target: "docker://registry.example/os:1",
            signature_policy: &SignaturePolicy::Unverified,
            title: "Tiny",
            kernel: KernelSource { version: "6.1", initramfs: self.initramfs },
            kernel_arguments: &self.arguments,
            separate_boot: self.separate_boot,
            boot_mount: self.boot_mount,
            boot_files: &self.boot_files,
            root_ssh_keys: self.keys,
            customize: None,
            installer: "tests",
            repository_config: &[],
            composefs,
            fs_verity: self.fs_verity,
        };
        deploy_onto(root, &objects, &committed, &image(), labels, &options, &self.contents)
    }

    /// What the boot entry says for a key.
    fn entry_value(&self, tree: &Tree, key: &str) -> String {
        let entry = self.text(tree, "boot/loader/entries/ostree-1.conf");
        let value = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {key} in {entry}")).to_owned()
    }

    fn text(&self, tree: &Tree, path: &str) -> String {
        let content = tree.file(path).unwrap_or_else(|| panic!("no {path}"));
        String::from_utf8(self.contents.bytes(content).unwrap()).unwrap()
    }
}

fn image() -> Image {
    Image {
        reference: "oci:x".to_owned(),
        name: None,
        architecture: Architecture::X86_64,
        manifest_digest: "sha256:00".to_owned(),
        manifest: json!({}),
        config: json!({}),
        layers: Vec::new(),
    }
}

fn deployed(path: &str) -> String {
    format!("ostree/deploy/default/deploy/{}.0/{path}", Checksum([0xc0; 32]))
}

/// A line a name: mode, link count of what has several names, path; long checksums are shortened.
fn listing(tree: &Tree) -> String {
    let counts = tree.link_counts();
    let mut text = String::new();
    for (path, id) in tree.walk() {
        let inode = tree.inode(id);
        let links = if inode.is_directory() { 1 } else { counts[id.index()] };
        let flag = if inode.metadata.immutable { " immutable" } else { "" };
        let target = match &inode.kind {
            Kind::Symlink(target) => format!(" -> {}", target.escape_ascii()),
            _ => String::new(),
        };
        let time = i64::from(path == b"ostree/deploy");
        assert_eq!(inode.metadata.mtime, time, "{}", path.escape_ascii());
        writeln!(text, "{:06o} {links} /{}{target}{flag}", inode.st_mode(), path.escape_ascii())
            .unwrap();
    }
    text.replace(&"c0".repeat(32), "COMMIT").replace(BOOTCSUM, "BOOTCSUM")
}

/// `printf kernelinitramfs | sha256sum`
const BOOTCSUM: &str = "2bc969738d2fe613925042519dbc8fad37fdbdd7ef87fcbaf99ed2c4847ffc92";

fn check(actual: &str, expected: &Expect) {
    expected.assert_eq(actual);
}

#[test]
fn a_whole_root() {
    let fixture = Fixture::tiny()
        .file("usr/bin/true", "true")
        .file("usr/empty", "")
        .file("var/lib/state", "s")
        .file("var/.updated", "")
        .file("usr/etc/.updated", "")
        .add("bin", Kind::Symlink(b"usr/bin"[..].into()));
    let sysroot = fixture.deploy().unwrap();
    check(
        &listing(&sysroot.root),
        &expect![[r#"
        040755 1 /
        100644 1 /.bootc-aleph.json
        040755 1 /boot
        120777 1 /boot/boot -> .
        120777 1 /boot/loader -> loader.1
        040755 1 /boot/loader.1
        040755 1 /boot/loader.1/entries
        100644 1 /boot/loader.1/entries/ostree-1.conf
        040755 1 /boot/ostree
        040755 1 /boot/ostree/default-BOOTCSUM
        100644 3 /boot/ostree/default-BOOTCSUM/initramfs-6.1.img
        100644 3 /boot/ostree/default-BOOTCSUM/vmlinuz-6.1
        040755 1 /ostree
        120777 1 /ostree/boot.1 -> boot.1.1
        040755 1 /ostree/boot.1.1
        040755 1 /ostree/boot.1.1/default
        040755 1 /ostree/boot.1.1/default/BOOTCSUM
        120777 1 /ostree/boot.1.1/default/BOOTCSUM/0 -> ../../../deploy/default/deploy/COMMIT.0
        040755 1 /ostree/bootc
        040755 1 /ostree/deploy
        040755 1 /ostree/deploy/default
        040700 1 /ostree/deploy/default/backing
        040700 1 /ostree/deploy/default/backing/COMMIT.0
        040700 1 /ostree/deploy/default/backing/COMMIT.0/root-transient
        040755 1 /ostree/deploy/default/backing/COMMIT.0/root-transient/upper
        040700 1 /ostree/deploy/default/backing/COMMIT.0/root-transient/work
        040755 1 /ostree/deploy/default/deploy
        040755 1 /ostree/deploy/default/deploy/COMMIT.0 immutable
        100644 1 /ostree/deploy/default/deploy/COMMIT.0/.ostree.cfs
        120644 2 /ostree/deploy/default/deploy/COMMIT.0/bin -> usr/bin
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/etc
        100644 1 /ostree/deploy/default/deploy/COMMIT.0/etc/hostname
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr/bin
        100644 2 /ostree/deploy/default/deploy/COMMIT.0/usr/bin/true
        100644 1 /ostree/deploy/default/deploy/COMMIT.0/usr/empty
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr/etc
        100644 1 /ostree/deploy/default/deploy/COMMIT.0/usr/etc/.updated
        100644 2 /ostree/deploy/default/deploy/COMMIT.0/usr/etc/hostname
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr/lib
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr/lib/modules
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr/lib/modules/6.1
        100644 3 /ostree/deploy/default/deploy/COMMIT.0/usr/lib/modules/6.1/initramfs.img
        100644 3 /ostree/deploy/default/deploy/COMMIT.0/usr/lib/modules/6.1/vmlinuz
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/usr/lib/tmpfiles.d
        100644 2 /ostree/deploy/default/deploy/COMMIT.0/usr/lib/tmpfiles.d/x.conf
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/var
        100644 1 /ostree/deploy/default/deploy/COMMIT.0/var/.updated
        040755 1 /ostree/deploy/default/deploy/COMMIT.0/var/lib
        100644 2 /ostree/deploy/default/deploy/COMMIT.0/var/lib/state
        100644 1 /ostree/deploy/default/deploy/COMMIT.0.origin
        040755 1 /ostree/deploy/default/var
        100644 1 /ostree/deploy/default/var/.ostree-selabeled
        040755 1 /ostree/deploy/default/var/lib
        100644 1 /ostree/deploy/default/var/lib/state
        040755 1 /ostree/repo
        040755 1 /ostree/repo/objects
        100644 1 /ostree/repo/objects/1376.file
        100644 2 /ostree/repo/objects/1a6a.file
        100644 2 /ostree/repo/objects/41f7.file
        100644 2 /ostree/repo/objects/470d.file
        120644 2 /ostree/repo/objects/51a1.file -> usr/bin
        100644 1 /ostree/repo/objects/63bc.file
        100644 3 /ostree/repo/objects/6a0f.file
        100644 2 /ostree/repo/objects/7ea8.file
        100644 3 /ostree/repo/objects/cb2f.file
        100644 1 /ostree/repo/objects/f2dc.file
    "#]],
    );
    assert_eq!(sysroot.deployment, deployed("").trim_end_matches('/'));
}

#[test]
fn the_boot_entry() {
    let sysroot = Fixture::tiny().deploy().unwrap();
    let fixture = Fixture::tiny();
    let sysroot_again = fixture.deploy().unwrap();
    assert_eq!(sysroot.command_line, sysroot_again.command_line);
    check(
        &fixture
            .text(&sysroot_again.root, "boot/loader.1/entries/ostree-1.conf")
            .replace(BOOTCSUM, "BOOTCSUM"),
        &expect![[r#"
            title Tiny (ostree:0)
            version 1
            options root=UUID=1 rw ostree=/ostree/boot.1/default/BOOTCSUM/0
            linux /boot/ostree/default-BOOTCSUM/vmlinuz-6.1
            initrd /boot/ostree/default-BOOTCSUM/initramfs-6.1.img
        "#]],
    );
    // The paths lead somewhere, also through boot -> . and the command line's link.
    let named = |key| fixture.entry_value(&sysroot_again.root, key);
    assert!(sysroot.root.file(&named("linux")).is_some());
    assert!(sysroot.root.file(&format!("boot{}", named("initrd"))).is_some());
    let target = sysroot.command_line.rsplit_once("ostree=").unwrap().1;
    assert_eq!(sysroot.root.resolve(target), sysroot.root.find(&sysroot.deployment));
}

#[test]
fn without_an_initramfs_the_kernel_starts_prepare_root() {
    let fixture = Fixture { initramfs: None, ..Fixture::tiny() };
    let line = fixture.deploy().unwrap().command_line;
    let own = line.rsplit_once("ostree=").unwrap().1;
    assert_eq!(
        line,
        format!("root=UUID=1 rw init={own}/usr/lib/ostree/ostree-prepare-root ostree={own}")
    );
}

#[test]
fn device_trees_are_part_of_the_kernel() {
    let plain = Fixture::tiny().deploy().unwrap();
    let fixture = Fixture::tiny()
        .file("usr/lib/modules/6.1/dtb/b/1.dtb", "B")
        .file("usr/lib/modules/6.1/dtb/a.dtb", "A");
    let many = fixture.deploy().unwrap();
    assert_ne!(plain.command_line, many.command_line);
    let sum = Checksum(Sha256::digest("kernelinitramfsAB").into()).to_string();
    let linux = fixture.entry_value(&many.root, "linux");
    assert_eq!(linux, format!("/boot/ostree/default-{sum}/vmlinuz-6.1"));
    assert!(many.root.file(&format!("boot/ostree/default-{sum}/dtb/b/1.dtb")).is_some());
    let entry = fixture.text(&many.root, "boot/loader/entries/ostree-1.conf");
    assert!(entry.ends_with(&format!("\nfdtdir /boot/ostree/default-{sum}/dtb\n")), "{entry}");

    let fixture = fixture.file("usr/lib/modules/6.1/devicetree", "C");
    let one = fixture.deploy().unwrap();
    let sum = Checksum(Sha256::digest("kernelinitramfsC").into()).to_string();
    let entry = fixture.text(&one.root, "boot/loader/entries/ostree-1.conf");
    assert!(
        entry.contains(&format!("\ndevicetree /boot/ostree/default-{sum}/devicetree-6.1\nlinux ")),
        "{entry}"
    );
}

#[test]
fn what_lies_beside_a_kernel_goes_with_it() {
    for separate_boot in [false, true] {
        let fixture = Fixture { separate_boot, ..Fixture::tiny() }
            .file("usr/lib/modules/6.1/.vmlinuz.hmac", "hmac")
            .file("usr/lib/modules/6.1/dtb/vendor/a.dtb", "A");
        let sysroot = fixture.deploy().unwrap();
        // The checksum of the kernel is not part of the kernel's checksum.
        let sum = Checksum(Sha256::digest("kernelinitramfsA").into());
        let (tree, boot) = match &sysroot.boot {
            Some(tree) => (tree, ""),
            None => (&sysroot.root, "boot/"),
        };
        let text = |name: &str| fixture.text(tree, &format!("{boot}ostree/default-{sum}/{name}"));
        assert_eq!(text(".vmlinuz-6.1.hmac"), "hmac");
        assert_eq!(text("dtb/vendor/a.dtb"), "A");
        assert!(tree.lookup(Tree::ROOT, b"lost+found").is_none());
    }
    let error = Fixture::tiny().file("usr/lib/modules/6.1/aboot.img", "x").deploy().unwrap_err();
    assert!(error.is::<Unsupported>() && format!("{error:#}").contains("/aboot.img"), "{error:#}");
    let link = Kind::Symlink(b"../a.dtb"[..].into());
    let error = Fixture::tiny().add("usr/lib/modules/6.1/dtb/a.dtb", link).deploy().unwrap_err();
    assert!(error.is::<Unsupported>(), "{error:#}");
}

#[test]
fn with_a_policy_no_inode_goes_without_a_label() {
    for separate_boot in [false, true] {
        let mut fixture = Fixture { separate_boot, ..Fixture::tiny() }
            .file("var/lib/state", "s")
            .file("usr/etc/empty", "");
        for (path, id) in fixture.tree.clone().walk() {
            let label = [b"/", &path[..], b"\0"].concat();
            fixture.tree.inode_mut(id).metadata.xattrs.set(b"security.selinux", &label);
        }
        let sysroot = fixture.deploy_with(Some(&by_path), &|_, _| Ok(Vec::new())).unwrap();
        for (at, tree) in [("/", Some(&sysroot.root)), ("/boot/", sysroot.boot.as_ref())] {
            let Some(tree) = tree else { continue };
            for (path, id) in tree.walk() {
                let xattrs = &tree.inode(id).metadata.xattrs;
                assert!(
                    xattrs.get(b"security.selinux").is_some(),
                    "no label: {at}{}",
                    path.escape_ascii()
                );
            }
            let found = tree.inode(tree.find("lost+found").unwrap());
            let label = format!("{at}lost+found");
            assert_eq!(found.metadata.xattrs.get(b"security.selinux"), Some(label.as_bytes()));
            assert_eq!(found.metadata.mode, 0o700);
        }
        assert_eq!(sysroot.boot.is_some(), separate_boot);
    }
}

#[test]
fn a_boot_of_its_own_gets_copies() {
    let mut fixture =
        Fixture { separate_boot: true, boot_mount: Some("UUID=2"), ..Fixture::tiny() }
            .file("usr/etc/fstab", "old\n");
    let grub = fixture.boot_files.make_directories("grub2", &Metadata::root(0o700));
    fixture.boot_files.create(grub, b"grub.cfg", Metadata::root(0o600), Kind::File(Content::EMPTY));
    let sysroot = fixture.deploy().unwrap();
    assert_eq!(sysroot.root.inode(sysroot.root.find("boot").unwrap()).children().count(), 0);
    assert_eq!(fixture.text(&sysroot.root, &deployed("etc/fstab")), "UUID=2 /boot auto ro 0 0\n");
    assert_eq!(fixture.text(&sysroot.root, &deployed("usr/etc/fstab")), "old\n");
    check(
        &listing(&sysroot.boot.unwrap()),
        &expect![[r#"
        040755 1 /
        120777 1 /boot -> .
        040700 1 /grub2
        100600 1 /grub2/grub.cfg
        120777 1 /loader -> loader.1
        040755 1 /loader.1
        040755 1 /loader.1/entries
        100644 1 /loader.1/entries/ostree-1.conf
        040755 1 /ostree
        040755 1 /ostree/default-BOOTCSUM
        100644 1 /ostree/default-BOOTCSUM/initramfs-6.1.img
        100644 1 /ostree/default-BOOTCSUM/vmlinuz-6.1
    "#]],
    );
}

#[test]
fn root_keys_are_a_tmpfiles_line() {
    let keys = RootSshKeys { home: "var/roothome", keys: b"ssh-ed25519 AAAA me\n" };
    let fixture = Fixture { keys: Some(keys), ..Fixture::tiny() };
    let sysroot = fixture.deploy().unwrap();
    assert_eq!(
        fixture.text(&sysroot.root, &deployed("etc/tmpfiles.d/bootc-root-ssh.conf")),
        "f~ /var/roothome/.ssh/authorized_keys 600 root root - c3NoLWVkMjU1MTkgQUFBQSBtZQo=\n"
    );
    let keys = RootSshKeys { home: "a b", ..keys };
    assert!(
        Fixture { keys: Some(keys), ..Fixture::tiny() }.deploy().unwrap_err().is::<Unsupported>()
    );
}

#[test]
fn etc_is_a_copy_that_shares_nothing() {
    let mut fixture = Fixture::tiny().file("usr/etc/a", "same");
    let (etc, a) = (fixture.tree.find("usr/etc").unwrap(), fixture.tree.find("usr/etc/a").unwrap());
    fixture.tree.link(etc, b"b", a);
    let metadata = &mut fixture.tree.inode_mut(a).metadata;
    (metadata.mode, metadata.uid) = (0o4711, 7);
    metadata.xattrs.set(b"user.x", b"1");
    let root = fixture.deploy().unwrap().root;
    let find = |path: &str| root.find(&deployed(path)).unwrap();
    assert_eq!(find("usr/etc/a"), find("usr/etc/b"));
    assert_ne!(find("etc/a"), find("etc/b"));
    assert_ne!(find("etc/a"), find("usr/etc/a"));
    assert_eq!(root.inode(find("etc/a")), root.inode(find("usr/etc/a")));
}

#[test]
fn an_etc_of_the_commit_s_own_moves() {
    let only_etc = Fixture::empty()
        .file("usr/lib/modules/6.1/vmlinuz", "kernel")
        .file("usr/lib/modules/6.1/initramfs.img", "initramfs")
        .file("etc/passwd", "root");
    let root = only_etc.deploy().unwrap().root;
    assert_ne!(root.find(&deployed("etc/passwd")), root.find(&deployed("usr/etc/passwd")));
    assert!(root.find(&deployed("etc/passwd")).is_some());
    assert!(Fixture::tiny().add("etc", Kind::directory()).deploy().is_ok());
    let both = Fixture::tiny().file("etc/passwd", "root").deploy().unwrap_err();
    assert!(both.is::<Unsupported>() && format!("{both:#}").contains("/usr/etc"), "{both:#}");
}

#[test]
fn var_without_tmpfiles_gets_the_old_skeleton() {
    let mut fixture = Fixture::tiny().file("var/lib/x", "x");
    let lib = fixture.tree.find("usr/lib").unwrap();
    fixture.tree.unlink(lib, b"tmpfiles.d");
    let root = fixture.deploy().unwrap().root;
    let var = root.find("ostree/deploy/default/var").unwrap();
    let names: Vec<&Name> = root.inode(var).children().map(|(name, _)| name).collect();
    let expected = [&b".ostree-selabeled"[..], b"lib", b"lock", b"log", b"run", b"tmp"];
    assert_eq!(names, expected.map(Name::from).iter().collect::<Vec<_>>());
    assert!(root.find("ostree/deploy/default/var/lib/x").is_some());
}

#[test]
fn an_object_has_as_many_names_as_ext4_allows() {
    let mut fixture = Fixture::tiny().file("usr/lots/0", "x");
    let (lots, id) =
        (fixture.tree.find("usr/lots").unwrap(), fixture.tree.find("usr/lots/0").unwrap());
    for number in 1..LINK_LIMIT + 2 {
        fixture.tree.link(lots, number.to_string().as_bytes(), id);
    }
    let root = fixture.deploy().unwrap().root;
    let counts = root.link_counts();
    assert_eq!(counts[root.find(&deployed("usr/lots/0")).unwrap().index()], LINK_LIMIT);
    let copies = root
        .inode(root.find(&deployed("usr/lots")).unwrap())
        .children()
        .filter(|(_, id)| counts[id.index()] == 1);
    // 65,002 names, of which 64,999 fit beside the object's own.
    assert_eq!(copies.count(), 3);
}

#[test]
fn whiteouts_in_a_commit_become_devices() {
    let fixture =
        Fixture::tiny().file("usr/store/.ostree-wh.gone", "").file("usr/store/.ostree-wh.", "");
    let root = fixture
        .deploy_with(None, &|tree, payload| {
            let gone = tree.find("usr/store/gone").unwrap();
            assert_eq!(tree.inode(gone).kind, Kind::CharacterDevice(0, 0));
            assert_eq!(tree.find("usr/store/.ostree-wh.gone"), None);
            assert_eq!(payload(gone), None);
            Ok(Vec::new())
        })
        .unwrap()
        .root;
    let store = root.find(&deployed("usr/store")).unwrap();
    let gone = root.lookup(store, b"gone").unwrap();
    assert_eq!(root.inode(gone).kind, Kind::CharacterDevice(0, 0));
    assert!(root.lookup(store, b".ostree-wh.").is_some());
}

#[test]
fn composefs_learns_where_contents_are() {
    let fixture = Fixture::tiny();
    fixture
        .deploy_with(None, &|tree, payload| {
            let id = tree.find("usr/etc/hostname").unwrap();
            let name = Checksum(Sha256::digest("usr/etc/hostname").into()).to_string();
            let redirect = format!("{}/{}.file", &name[..2], &name[2..]);
            assert_eq!(payload(id), Some(Payload { redirect, digest: None }));
            assert_eq!(payload(tree.find("usr/etc").unwrap()), None);
            Ok(Vec::new())
        })
        .unwrap();
}

#[test]
fn composefs_learns_digests_when_prepare_root_wants_them() {
    let size_as_digest = |content: &Content, _: &ContentStore| {
        let digest = [content.size as u8; 32];
        Ok(Verity { digest: digest.into(), root_hash: [0; 32].into(), levels: Box::default() })
    };
    let fixture =
        Fixture { fs_verity: Some(Box::leak(Box::new(size_as_digest))), ..Fixture::tiny() };
    let digests = |tree: &Tree, payload: &dyn Fn(InodeId) -> Option<Payload>| {
        let digest = |path: &str| payload(tree.find(path).unwrap()).unwrap().digest;
        assert_eq!(digest("usr/etc/hostname"), Some([5; 32].into()));
        assert_eq!(digest("usr/lib/modules/6.1/vmlinuz"), Some([6; 32].into()));
        Ok(Vec::new())
    };
    let sysroot = fixture.deploy_with(None, &digests).unwrap();
    let size = |path: &str| {
        let id = sysroot.root.find(path).unwrap_or_else(|| panic!("no {path}"));
        sysroot.root.verity(id).map(|verity| verity.digest[0])
    };
    assert_eq!(size(&deployed(".ostree.cfs")), Some(0));
    assert_eq!(size(&deployed("usr/etc/hostname")), Some(5));
    // A hard link to the object.
    assert_eq!(size(&fixture.entry_value(&sysroot.root, "linux")[1..]), Some(6));
    // Copies are for writing.
    assert_eq!(size(&deployed("etc/hostname")), None);
    let broken = |_: &Content, _: &ContentStore| anyhow::bail!("no bytes");
    let fixture = Fixture { fs_verity: Some(Box::leak(Box::new(broken))), ..Fixture::tiny() };
    assert!(format!("{:#}", fixture.deploy().unwrap_err()).contains("no bytes"));
}

/// As in real policies, the rule for `/usr` is for directories.
fn by_path(path: &str, mode: u32) -> Result<Option<Arc<[u8]>>> {
    if path == "/usr" && mode & 0o170_000 != 0o040_000 {
        return Ok(Some((*b"default").into()));
    }
    Ok((!path.contains("none")).then(|| path.as_bytes().into()))
}

#[test]
fn labels_are_of_who_would_have_written_them() {
    let mut fixture = Fixture::tiny().file("usr/lib/none", "x").file("var/lib/state", "s");
    for (path, id) in fixture.tree.clone().walk() {
        if !path.ends_with(b"none") {
            fixture
                .tree
                .inode_mut(id)
                .metadata
                .xattrs
                .set(b"security.selinux", &[b"/", &path[..], b"\0"].concat());
        }
    }
    let root = fixture.deploy_with(Some(&by_path), &|_, _| Ok(Vec::new())).unwrap().root;
    let label = |path: &str| {
        let id = root.find(path).unwrap_or_else(|| panic!("no {path}"));
        let value = root.inode(id).metadata.xattrs.get(b"security.selinux");
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    for (path, expected) in [
        ("".to_owned(), "/"),
        ("ostree".to_owned(), "/usr"),
        ("ostree/repo".to_owned(), "/ostree/repo"),
        ("boot/loader.1/entries/ostree-1.conf".to_owned(), "/boot/loader.1/entries/ostree-1.conf"),
        (deployed("usr/etc/hostname"), "/usr/etc/hostname\0"),
        // An installation from a host without SELinux leaves the labels of /usr/etc here, since libostree labels the copy only
        // where the kernel does. The machine looks for those of /etc, and so would an installation from a host with SELinux.
        (deployed("etc/hostname"), "/etc/hostname\0"),
        (deployed(".ostree.cfs"), "/usr"),
        ("ostree/deploy/default/var".to_owned(), "/var\0"),
        ("ostree/deploy/default/var/lib/state".to_owned(), "/var/lib/state\0"),
        // From a host without SELinux it has the label of its place in the physical root, which `restorecon` would change.
        ("ostree/deploy/default/var/.ostree-selabeled".to_owned(), "/var/.ostree-selabeled\0"),
    ] {
        assert_eq!(label(&path).as_deref(), Some(expected), "{path}");
    }
    // An attribute more would break the object's checksum.
    assert_eq!(label(&deployed("usr/lib/none")), None);
    let kernel = root.inode(root.find("boot/ostree").unwrap()).children().next().unwrap().1;
    let linux = root.inode(root.lookup(kernel, b"vmlinuz-6.1").unwrap());
    assert_eq!(
        linux.metadata.xattrs.get(b"security.selinux"),
        Some(&b"/usr/lib/modules/6.1/vmlinuz\0"[..])
    );
}

#[test]
fn origins_are_spelled_by_policy() {
    let remote = SignaturePolicy::Remote("fedora".to_owned());
    for (policy, target, expected) in [
        (&SignaturePolicy::Unverified, "docker://a/b:1", "ostree-unverified-registry:a/b:1"),
        (&SignaturePolicy::Unverified, "oci:/x:1", "ostree-unverified-image:oci:/x:1"),
        (&SignaturePolicy::ContainerPolicy, "docker://a/b:1", "ostree-image-signed:docker://a/b:1"),
        (&remote, "docker://a/b:1", "ostree-remote-image:fedora:docker://a/b:1"),
    ] {
        assert_eq!(policy.origin(target), expected);
    }
    let fixture = Fixture::tiny();
    let root = fixture.deploy().unwrap().root;
    assert_eq!(
        fixture.text(&root, &format!("{}.origin", deployed("").trim_end_matches('/'))),
        "[origin]\ncontainer-image-reference=ostree-unverified-registry:registry.example/os:1\n"
    );
    assert!(
        fixture
            .text(&root, ".bootc-aleph.json")
            .contains(r#""target-image":"registry.example/os:1""#)
    );
}

#[test]
fn what_would_end_in_the_wrong_place_is_refused() {
    let two_lines = Fixture { arguments: vec!["a=\"x\ny\"".to_owned()], ..Fixture::tiny() };
    assert!(two_lines.deploy().unwrap_err().is::<Corrupt>());
    let words = Fixture { boot_mount: Some("UUID=1 /"), ..Fixture::tiny() };
    assert!(words.deploy().unwrap_err().is::<Corrupt>());
}
