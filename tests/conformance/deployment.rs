//! Installed systems, as ostree's own tools see them. Needs root: owners and attributes are what is checked.

use std::path::{Path, PathBuf};
use std::process::Command;

use bootpress::architecture::Architecture;
use bootpress::bootc::{self, BackendChoice, Mounts, Settings};
use bootpress::content::{Content, ContentStore};
use bootpress::filesystem::erofs;
use bootpress::image::{Image, LayerRecord};
use bootpress::installed::Installed;
use bootpress::layer::{Entry, EntryKind, Layer};
use bootpress::name::StaterootName;
use bootpress::ostree::{
    DeployOptions, KernelSource, Labels, RootSshKeys, SignaturePolicy, deploy, unite,
};
use bootpress::progress::Progress;
use bootpress::tree::{Kind, Metadata, Tree};
use serde_json::json;
use support::tool::{is_root, run, tool};

use crate::extract::extract;

const KERNEL: &str = "usr/lib/modules/6.1.0-test";

/// An image of two layers with what deployments treat differently: empty files, links, owners, attributes, `/etc`, `/var`.
struct Fixture {
    contents: ContentStore,
    image: Image,
    layers: Vec<Layer>,
}

impl Fixture {
    fn new() -> Self {
        let contents = ContentStore::create_in(&std::env::temp_dir()).unwrap();
        let text = |text: &str| EntryKind::File(contents.insert_bytes(text.as_bytes()).unwrap());
        let directory = || EntryKind::Directory;
        let link = |target: &str| EntryKind::Symlink(target.as_bytes().into());
        let base = vec![
            entry("./", 0o755, directory()),
            entry("usr/bin/tool", 0o4755, text("tool")),
            entry("usr/bin/again", 0o755, EntryKind::HardLink(b"usr/bin/tool"[..].into())),
            entry("usr/share/empty1", 0o644, EntryKind::File(Content::EMPTY)),
            entry("usr/share/empty2", 0o644, EntryKind::File(Content::EMPTY)),
            entry(&format!("{KERNEL}/vmlinuz"), 0o755, text("kernel")),
            entry(&format!("{KERNEL}/initramfs.img"), 0o600, text("initramfs")),
            entry("usr/lib/ostree/prepare-root.conf", 0o644, text("[composefs]\nenabled = yes\n")),
            entry("usr/lib/os-release", 0o644, text("PRETTY_NAME=\"Tiny Linux\"\nID=tiny\n")),
            entry("usr/lib/tmpfiles.d/tiny.conf", 0o644, text("d /var/log\n")),
            entry(
                "usr/lib/bootc/kargs.d/10-tiny.toml",
                0o644,
                text("kargs = [\"console=ttyS0\"]\n"),
            ),
            entry("bin", 0o777, link("usr/bin")),
            entry("sysroot", 0o755, directory()),
            entry("boot", 0o755, directory()),
            entry("root", 0o777, link("var/roothome")),
        ];
        let mut secret = entry("etc/secret", 0o640, text("secret"));
        (secret.metadata.uid, secret.metadata.gid) = (17, 23);
        secret.metadata.xattrs.set(b"user.note", b"\0binary\xff");
        let above = vec![
            entry("etc/", 0o755, directory()),
            secret,
            entry("etc/os-release", 0o777, link("../usr/lib/os-release")),
            entry("etc/fstab", 0o644, text("old\n")),
            entry("var/lib/state/", 0o750, directory()),
            entry("var/lib/state/data", 0o600, text("data")),
        ];
        let layers = vec![layer(1, base), layer(2, above)];
        Self { image: image(&layers), layers, contents }
    }

    fn deploy(&self, labels: Option<&Labels<'_>>, separate_boot: bool) -> Installed {
        let union = unite(&self.image, self.layers.clone(), &self.contents).unwrap();
        bootc::check(&self.image, &union.root, &BackendChoice::default()).unwrap();
        let settings = Settings::load(
            &union.root,
            &self.contents,
            Architecture::X86_64,
            BackendChoice::default(),
            &Progress::default(),
        )
        .unwrap();
        let mounts = Mounts::of(&settings, "1111-2222", separate_boot.then_some("3333-4444"));
        let target = "docker://registry.example/tiny:1";
        let (repository, committed) = union
            .commit(&self.image, target, labels, &self.contents, &Progress::default())
            .unwrap();
        let options = DeployOptions {
            stateroot: &StaterootName::default(),
            target,
            signature_policy: &SignaturePolicy::Unverified,
            title: &settings.title,
            kernel: KernelSource {
                version: &settings.kernel.version,
                initramfs: settings.kernel.initramfs,
            },
            kernel_arguments: &bootc::command_line(&settings, &mounts, &[], &[]),
            separate_boot,
            boot_mount: mounts.boot.as_deref(),
            boot_files: &Tree::new(Metadata::root(0o755)),
            root_ssh_keys: None::<RootSshKeys<'_>>,
            customize: None,
            installer: "tests",
            repository_config: &[],
            composefs: &erofs::ostree_image,
            fs_verity: None,
        };
        deploy(repository, &committed, &self.image, labels, &options, &self.contents).unwrap()
    }
}

fn entry(path: &str, mode: u16, kind: EntryKind) -> Entry {
    Entry { path: path.as_bytes().into(), metadata: Metadata::root(mode), nanoseconds: 0, kind }
}

fn layer(number: u8, entries: Vec<Entry>) -> Layer {
    let digest = format!("sha256:{}", format!("{number:02x}").repeat(32));
    Layer { diff_id: digest.clone(), digest, size: 1, entries }
}

fn image(layers: &[Layer]) -> Image {
    let record = |layer: &Layer| LayerRecord {
        digest: layer.digest.clone(),
        size: layer.size,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        diff_id: layer.diff_id.clone(),
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    Image {
        reference: "oci:tiny".to_owned(),
        name: None,
        architecture: Architecture::X86_64,
        manifest_digest: format!("sha256:{}", "0f".repeat(32)),
        manifest: json!({ "schemaVersion": 2, "layers": [] }),
        config: json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": { "Labels": { "containers.bootc": "1" } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created": "2026-01-02T03:04:05Z" }, { "created": "2026-01-02T03:04:05Z" }],
        }),
        layers: layers.iter().map(record).collect(),
    }
}

/// An installed system in a directory; `None` where that cannot be.
fn installed(sysroot: &Installed, contents: &ContentStore) -> Option<(tempfile::TempDir, PathBuf)> {
    if !is_root() {
        assert!(
            std::env::var_os("REQUIRE_TOOLS").is_none(),
            "REQUIRE_TOOLS is set, and this is not root"
        );
        eprintln!("skipped: needs root");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    extract(&sysroot.root, contents, directory.path())?;
    if let Some(boot) = &sysroot.boot {
        extract(boot, contents, &directory.path().join("boot"))?;
    }
    let path = directory.path().to_owned();
    Some((directory, path))
}

fn admin(command: &str, root: &Path) -> Option<Command> {
    let mut ostree = tool("ostree")?;
    ostree.args(["admin", command]).arg(format!("--sysroot={}", root.display()));
    Some(ostree)
}

/// What `ostree` makes of it: no broken object, one deployment, an `/etc` that nobody has changed.
fn accepted_by_ostree(sysroot: &Installed, root: &Path) -> Option<()> {
    let repository = format!("--repo={}", root.join("ostree/repo").display());
    let fsck = run(tool("ostree")?.args(["fsck", &repository]));
    assert!(fsck.contains("no errors found"), "{fsck}");
    let status = run(&mut admin("status", root)?);
    assert!(status.contains(&format!("default {}.0", sysroot.version)), "{status}");
    assert_eq!(run(admin("config-diff", root)?.arg("--os=default")), sysroot_changes(sysroot));
    Some(())
}

/// Only the line for `/boot` makes a difference to the image's own `/etc`.
fn sysroot_changes(sysroot: &Installed) -> &'static str {
    if sysroot.boot.is_some() { "M    fstab\n" } else { "" }
}

#[test]
fn ostree_knows_what_is_deployed() {
    let fixture = Fixture::new();
    let sysroot = fixture.deploy(None, false);
    let Some((_directory, root)) = installed(&sysroot, &fixture.contents) else { return };
    let Some(()) = accepted_by_ostree(&sysroot, &root) else { return };

    // ostree can take the system further: a second deployment of the same commit, then no boot links that lead nowhere.
    let Some(mut deploy) = admin("deploy", &root) else { return };
    run(deploy.args(["--os=default", "ostree/1/1/0"]));
    let status = run(&mut admin("status", &root).unwrap());
    assert!(status.contains(&format!("default {}.1", sysroot.version)), "{status}");
    let entries: Vec<_> = std::fs::read_dir(root.join("boot/loader/entries")).unwrap().collect();
    assert!(!entries.is_empty());
}

#[test]
fn a_separate_boot_is_known_too() {
    let fixture = Fixture::new();
    let sysroot = fixture.deploy(None, true);
    assert!(
        sysroot
            .command_line
            .starts_with("root=UUID=1111-2222 rw boot=UUID=3333-4444 console=ttyS0 ostree=")
    );
    let Some((_directory, root)) = installed(&sysroot, &fixture.contents) else { return };
    accepted_by_ostree(&sysroot, &root);
}

#[test]
fn labels_do_not_break_objects() {
    let labels = |path: &str, mode: u32| {
        let label = format!("system_u:object_r:t{mode:o}{}:s0", path.len());
        Ok((!path.ends_with("/tool")).then(|| label.into_bytes().into()))
    };
    let fixture = Fixture::new();
    let sysroot = fixture.deploy(Some(&labels), false);
    let unlabelled: Vec<_> = sysroot
        .root
        .walk()
        .filter(|(_, id)| {
            sysroot.root.inode(*id).metadata.xattrs.get(b"security.selinux").is_none()
        })
        .map(|(path, _)| String::from_utf8(path).unwrap())
        .collect();
    assert!(
        unlabelled.iter().all(|path| path.contains("/usr/bin/") || path.ends_with(".file")),
        "{unlabelled:?}"
    );
    let Some((_directory, root)) = installed(&sysroot, &fixture.contents) else { return };
    accepted_by_ostree(&sysroot, &root);
}

#[test]
fn two_builds_are_the_same() {
    let listing = || {
        let fixture = Fixture::new();
        let sysroot = fixture.deploy(None, true);
        let bytes = |tree: &Tree| -> Vec<_> {
            tree.walk()
                .map(|(path, id)| {
                    let inode = tree.inode(id).clone();
                    let content = match &inode.kind {
                        Kind::File(content) => fixture.contents.bytes(content).unwrap(),
                        _ => Vec::new(),
                    };
                    (path, id, inode.metadata, content)
                })
                .collect()
        };
        (bytes(&sysroot.root), bytes(&sysroot.boot.unwrap()))
    };
    assert_eq!(listing(), listing());
}
