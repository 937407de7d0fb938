//! An image becomes a system that boots: repository, state and boot entries on the physical root, and what goes onto the ESP.
//!
//! ```text
//! composefs/                 0700: meta.json, objects/XX/…, images/ID, streams/…, bootc/
//! ostree/bootc               -> ../composefs/bootc
//! state/deploy/ID/           etc/, var -> ../../os/default/var, ID.origin
//! state/os/default/var/
//! boot/                      efi/; with GRUB bootc_composefs-ID/{vmlinuz,initrd}, loader/entries/…
//! ```
//!
//! Source: records of disks that bootc 1.16.9 made; bootc 1.17, `bootc_composefs/{boot,state}.rs`.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::entry::{self, Os};
use super::images::{Imaging, choose_images, large_files};
use super::objects::Objects;
use super::state::{self, RootSshKeys};
use super::stream::{Stream, StreamKind};
use super::transform::SELINUX;
use super::uki::Uki;
use super::{Format, LabelOf, ObjectId, Union};
use crate::content::ContentStore;
use crate::error::{corrupt, unsupported};
use crate::installed::{Installed, KernelFiles};
use crate::layer::{Layer, Piece};
use crate::tree::{InodeId, Kind, Metadata, Tree};

/// What a repository says about itself: SHA-512, blocks of 4096 bytes, images of format 1.
const META: &str = "{
  \"version\": 1,
  \"algorithm\": \"fsverity-sha512-12\",
  \"features\": {
    \"compatible\": [],
    \"read-only-compatible\": [
      \"v1_erofs\"
    ],
    \"incompatible\": []
  },
  \"erofs_formats\": {
    \"default\": 1
  }
}
";

/// An image, as far as its repository holds it.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    /// Its layers.
    pub layers: &'a [Layer],
    /// The archive of each.
    pub pieces: &'a [Vec<Piece>],
    /// The manifest, byte for byte.
    pub manifest: &'a [u8],
    /// Digest of the manifest: `sha256:…`.
    pub manifest_digest: &'a str,
    /// The config, byte for byte.
    pub config: &'a [u8],
    /// Digest of the config: `sha256:…`.
    pub config_digest: &'a str,
}

/// What starts the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// GRUB, which reads entries in `/boot`.
    Grub,
    /// A boot loader that reads entries on the ESP. `uki_key`: whether it knows the key `uki` (systemd 258), or only `efi`.
    OnEsp {
        /// Whether it knows the key `uki`.
        uki_key: bool,
    },
}

/// What is booted.
#[derive(Clone, Debug)]
pub enum BootFiles {
    /// A kernel and its initramfs.
    Separate(KernelFiles),
    /// A unified kernel image.
    Unified(Box<Uki>),
}

/// Everything that a deployment depends on besides the image.
pub struct DeployOptions<'a> {
    /// What the origin file calls the image: `ostree-unverified-image:docker://quay.io/x/y:z`.
    pub reference: &'a str,
    /// os-release of the image.
    pub os_release: &'a str,
    /// What is booted.
    pub boot: BootFiles,
    /// What starts it.
    pub starter: Starter,
    /// Kernel arguments; the element `composefs=` becomes the argument that names the image. Not for unified kernel images.
    pub kernel_arguments: &'a [String],
    /// Whether the argument that names the image is spelled `composefs.digest=`, as newer initramfs read it.
    pub new_spelling: bool,
    /// Whether the machine verifies every object, so that each has fs-verity. Unified kernel images say it themselves.
    pub enforce: bool,
    /// Whether `/boot` is a file system of its own.
    pub separate_boot: bool,
    /// What a boot loader wants under `/boot`.
    pub boot_files: &'a Tree,
    /// Serial number of the ESP's file system.
    pub esp_volume: u32,
    /// Keys for root.
    pub root_ssh_keys: Option<RootSshKeys<'a>>,
    /// A record of what the disk was made from, for the physical root.
    pub aleph: &'a [u8],
    /// Writes what the machine's configuration asks for; labels what it wrote by its path.
    pub customize: Option<&'a Customize<'a>>,
    /// Labels of the physical root, if the image has a policy.
    pub labels: Option<&'a LabelOf<'a>>,
    /// What images are made with.
    pub imaging: Imaging<'a>,
}

/// Changes a system before it gets its last labels; what was written comes back, by path in the running system.
pub type Customize<'a> = dyn Fn(&mut Tree, SystemParts) -> Result<Vec<(String, InodeId)>> + 'a;

/// The parts of a new system, in the tree of its physical root.
#[derive(Clone, Copy, Debug)]
pub struct SystemParts {
    /// The root of the image: a copy to be read, in no directory.
    pub deployment: InodeId,
    /// Its `/etc`.
    pub etc: InodeId,
    /// Its `/var`.
    pub var: InodeId,
}

/// A deployment.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The system.
    pub installed: Installed,
    /// The digest of the image that it boots, 128 hexadecimal digits.
    pub id: String,
    /// Whether every object is verified.
    pub enforced: bool,
    /// Bytes of what one deployment puts beside the boot loader: kernel and initramfs, or the unified kernel image.
    pub artifacts: u64,
}

/// Makes the physical root and what goes onto the ESP.
///
/// `Unsupported`: the image cannot be deployed by this backend, or a unified kernel image names an image that is not this one.
pub fn deploy(
    union: &Union,
    import: &Import<'_>,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<Deployed> {
    let mut objects = Objects::new(options.imaging.fs_verity, contents);
    objects.add_all(&large_files(import.layers)).context("hashing files")?;
    let unified = match &options.boot {
        BootFiles::Separate(_) => None,
        BootFiles::Unified(uki) => Some(&**uki),
    };
    let chosen = choose_images(union, &options.imaging, unified, &objects, contents)?;
    let mut streams = Vec::new();
    for (layer, pieces) in import.layers.iter().zip(import.pieces) {
        let bytes = Stream::of_layer(pieces, &objects, contents)?;
        streams.push((format!("oci-layer-{}", layer.diff_id), objects.add_bytes(&bytes)?));
    }
    let mut images = Vec::new();
    for image in &chosen.images {
        images.push((image.format, objects.add_bytes(&image.bytes)?));
    }
    let id = images[0].1;
    add_documents(import, &mut streams, &images, &mut objects)?;

    let (enforced, boot_type, digest) = match &options.boot {
        BootFiles::Separate(kernel) => (options.enforce, "bls", boot_digest(kernel, contents)?),
        BootFiles::Unified(uki) => (!uki.is_optional(), "uki", uki.digest.clone()),
    };
    let mut root = Tree::new(Metadata::root(0o755));
    repository(&mut root, &streams, &images, import, contents)?;
    place_objects(&mut root, objects, enforced);
    if enforced {
        // What mounts the image asks this file whether the repository may be trusted at all.
        let meta = root.find("composefs/meta.json").context("there is no meta.json")?;
        if let Kind::File(content) = root.inode(meta).kind.clone() {
            root.set_verity(meta, (options.imaging.fs_verity)(&content, contents)?);
        }
    }
    let origin = state::origin(options.reference, boot_type, &digest, import.manifest_digest);
    let parts = lay_out_state(&mut root, id, &chosen.tree, &origin, contents)?;
    let written = configure(&mut root, parts, &chosen.tree, options, contents)?;
    state::write(&mut root, Tree::ROOT, b".bootc-aleph.json", options.aleph, contents)?;
    let boot = place_boot(&mut root, id, enforced, options, contents)?;
    label(&mut root, options.labels)?;
    let mut own_boot = boot.own;
    if let (Some(own), Some(labels)) = (&mut own_boot, options.labels) {
        own.create(Tree::ROOT, b"lost+found", Metadata::root(0o700), Kind::directory());
        complete(own, "/boot", labels)?;
    }
    Ok(Deployed {
        installed: Installed {
            root,
            boot: own_boot,
            esp: boot.esp,
            esp_least: esp_least(boot.artifacts),
            volumes: Vec::new(),
            written,
            version: id.to_string(),
            kernel: boot.kernel,
            command_line: boot.command_line,
            deployment: format!("state/deploy/{id}"),
            var: "state/os/default/var".to_owned(),
        },
        id: id.to_string(),
        enforced,
        artifacts: boot.artifacts,
    })
}

/// Bytes of an ESP that has room for three deployments, and at least what bootc makes: 1 GiB.
fn esp_least(artifacts: u64) -> u64 {
    const SLACK: u64 = 64 << 20;
    (3 * artifacts + SLACK).next_multiple_of(1 << 20).max(1 << 30)
}

/// Adds the config and the manifest, and their streams.
fn add_documents(
    import: &Import<'_>,
    streams: &mut Vec<(String, ObjectId)>,
    images: &[(Format, ObjectId)],
    objects: &mut Objects<'_>,
) -> Result<()> {
    let layers = streams.clone();
    let name_layers = |stream: &mut Stream| {
        for ((_, id), layer) in layers.iter().zip(import.layers) {
            stream.name(layer.diff_id.clone(), *id);
        }
    };
    let mut config = Stream::new(StreamKind::Config)?;
    name_layers(&mut config);
    for (format, id) in images {
        let name = match format {
            Format::V1 => "composefs.image.boot.v1",
            Format::V2 => "composefs.image.boot",
        };
        config.name(name, *id);
    }
    config.object(objects.add_bytes(import.config)?, import.config.len() as u64)?;
    let config = objects.add_bytes(&config.finish()?)?;
    let mut manifest = Stream::new(StreamKind::Manifest)?;
    manifest.name(format!("config:{}", import.config_digest), config);
    name_layers(&mut manifest);
    manifest.object(objects.add_bytes(import.manifest)?, import.manifest.len() as u64)?;
    let manifest = objects.add_bytes(&manifest.finish()?)?;
    streams.push((format!("oci-config-{}", import.config_digest), config));
    streams.push((format!("oci-manifest-{}", import.manifest_digest), manifest));
    Ok(())
}

/// Everything of the repository but its objects.
fn repository(
    root: &mut Tree,
    streams: &[(String, ObjectId)],
    images: &[(Format, ObjectId)],
    import: &Import<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let plain = Metadata::root(0o755);
    let composefs = root.create(Tree::ROOT, b"composefs", Metadata::root(0o700), Kind::directory());
    state::write(root, composefs, b"meta.json", META.as_bytes(), contents)?;
    for name in ["bootc", "objects", "images", "streams/refs/oci"] {
        root.make_directories(&format!("composefs/{name}"), &plain);
    }
    for (directory, name, id) in streams
        .iter()
        .map(|(name, id)| ("composefs/streams", name.clone(), id))
        .chain(images.iter().map(|(_, id)| ("composefs/images", id.to_string(), id)))
    {
        let directory = root.make_directories(directory, &plain);
        link(root, directory, name.as_bytes(), &format!("../objects/{}", id.path()));
    }
    // `localhost/bootc-DIGEST`, the reference that keeps the image.
    let refs = root.make_directories("composefs/streams/refs/oci", &plain);
    let digest = import.manifest_digest;
    let name = format!("localhost%2Fbootc-{digest}");
    link(root, refs, name.as_bytes(), &format!("../../oci-manifest-{digest}"));
    let ostree = root.create(Tree::ROOT, b"ostree", plain, Kind::directory());
    link(root, ostree, b"bootc", "../composefs/bootc");
    Ok(())
}

fn place_objects(root: &mut Tree, objects: Objects<'_>, with_verity: bool) {
    let plain = Metadata::root(0o755);
    let directories: Vec<InodeId> = (0..=255)
        .map(|byte| root.make_directories(&format!("composefs/objects/{byte:02x}"), &plain))
        .collect();
    for (id, content, verity) in objects.into_iter() {
        let directory = directories[usize::from(id.0[0])];
        let name = &id.to_string()[2..];
        let metadata = Metadata::root(0o644);
        let file = root.create(directory, name.as_bytes(), metadata, Kind::File(content));
        if with_verity {
            root.set_verity(file, verity);
        }
    }
}

fn link(tree: &mut Tree, directory: InodeId, name: &[u8], target: &str) {
    tree.create(directory, name, Metadata::root(0o777), Kind::Symlink(target.as_bytes().into()));
}

/// `/etc` and `/var` of the deployment, copied from the tree of its image; their inodes come back.
fn lay_out_state(
    root: &mut Tree,
    id: ObjectId,
    tree: &Tree,
    origin: &str,
    contents: &ContentStore,
) -> Result<(InodeId, InodeId)> {
    let plain = Metadata::root(0o755);
    let deploy = root.make_directories(&format!("state/deploy/{id}"), &plain);
    let os = root.make_directories("state/os/default", &plain);
    let directory = |name: &str| {
        let found = tree.find(name).filter(|id| tree.inode(*id).is_directory());
        found.ok_or_else(|| unsupported(format!("the image has no directory /{name}"), None))
    };
    let etc = state::copy(tree, directory("etc")?, root, deploy, b"etc");
    root.unlink(etc, b".updated");
    let var = state::copy(tree, directory("var")?, root, os, b"var");
    link(root, deploy, b"var", "../../os/default/var");
    state::write(root, deploy, format!("{id}.origin").as_bytes(), origin.as_bytes(), contents)?;
    Ok((etc, var))
}

/// Writes the configuration into `/etc` and `/var`; the paths of what was written come back.
fn configure(
    root: &mut Tree,
    (etc, var): (InodeId, InodeId),
    tree: &Tree,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<Vec<String>> {
    let mut written = Vec::new();
    if let Some(keys) = &options.root_ssh_keys {
        written.extend(state::write_root_ssh_keys(root, etc, keys, contents)?);
    }
    if let Some(customize) = options.customize {
        // The image is on the disk as an image only; whoever configures it reads it here.
        let above = root.make_directories("composefs/deployment", &Metadata::root(0o755));
        let deployment = state::copy(tree, Tree::ROOT, root, above, b"root");
        root.link(deployment, b"etc", etc);
        root.link(deployment, b"var", var);
        let parts = SystemParts { deployment, etc, var };
        let changed = customize(root, parts).context("applying the configuration")?;
        let composefs = root.find("composefs").context("there is no repository")?;
        root.unlink(composefs, b"deployment");
        written.extend(changed);
    }
    if let Some(labels) = options.labels {
        for (path, id) in &written {
            set_label(root, *id, path, labels)?;
        }
    }
    Ok(written.into_iter().map(|(path, _)| path).collect())
}

/// What makes a deployment boot.
struct Booting {
    own: Option<Tree>,
    esp: Tree,
    kernel: KernelFiles,
    command_line: String,
    artifacts: u64,
}

fn place_boot(
    root: &mut Tree,
    id: ObjectId,
    enforced: bool,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<Booting> {
    let plain = Metadata::root(0o755);
    let mut boot = options.boot_files.clone();
    let mut esp = Tree::new(plain.clone());
    let name = format!("bootc_composefs-{id}");
    let booting = match &options.boot {
        BootFiles::Separate(kernel) => {
            let command_line = command_line(id, enforced, options)?;
            let os = Os::parse(options.os_release);
            let (tree, directory, prefix, entries) = match options.starter {
                Starter::Grub => {
                    let prefix = if options.separate_boot { "" } else { "/boot" };
                    (&mut boot, name.clone(), format!("{prefix}/{name}"), "loader/entries")
                }
                Starter::OnEsp { .. } => {
                    let directory = format!("EFI/Linux/{name}");
                    (&mut esp, directory.clone(), format!("/{directory}"), "loader/entries")
                }
            };
            let initramfs = kernel.initramfs.as_ref().ok_or_else(|| {
                unsupported("the image has no initramfs, which mounts a composefs root", None)
            })?;
            let directory = tree.make_directories(&directory, &plain);
            for (name, content) in [(&b"vmlinuz"[..], &kernel.linux), (b"initrd", initramfs)] {
                let file = Kind::File(content.clone());
                tree.create(directory, name, Metadata::root(0o644), file);
            }
            let text = os.entry(
                &id.to_string(),
                &[
                    ("linux", format!("{prefix}/vmlinuz")),
                    ("initrd", format!("{prefix}/initrd")),
                    ("options", command_line.clone()),
                ],
            )?;
            let entries = tree.make_directories(entries, &plain);
            let file = os.file_name(&id.to_string())?;
            state::write(tree, entries, file.as_bytes(), text.as_bytes(), contents)?;
            let artifacts = kernel.linux.size + initramfs.size;
            (kernel.clone(), command_line, artifacts)
        }
        BootFiles::Unified(uki) => {
            let directory = esp.make_directories("EFI/Linux/bootc", &plain);
            let file = format!("{name}.efi");
            let kind = Kind::File(uki.content.clone());
            esp.create(directory, file.as_bytes(), Metadata::root(0o644), kind);
            place_uki_entry(&mut boot, &mut esp, id, uki, options, contents)?;
            let kernel = KernelFiles {
                version: uki.version.clone(),
                linux: uki.content.clone(),
                initramfs: None,
            };
            (kernel, uki.command_line.clone(), uki.content.size)
        }
    };
    boot.make_directories("efi", &plain);
    let (kernel, command_line, artifacts) = booting;
    let mount_point = root.make_directories("boot", &plain);
    let own = if options.separate_boot {
        Some(boot)
    } else {
        root.merge(&boot, mount_point);
        None
    };
    Ok(Booting { own, esp, kernel, command_line, artifacts })
}

fn place_uki_entry(
    boot: &mut Tree,
    esp: &mut Tree,
    id: ObjectId,
    uki: &Uki,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let plain = Metadata::root(0o755);
    let text = if uki.os_release.is_empty() { options.os_release } else { &uki.os_release };
    let os = Os::parse(text);
    match options.starter {
        Starter::Grub => {
            let directory = boot.make_directories("grub2", &plain);
            let label = os.title.clone().unwrap_or_else(|| os.id.clone());
            let menu = entry::grub_menu(&label, &id.to_string())?;
            state::write(boot, directory, b"user.cfg", menu.as_bytes(), contents)?;
            let uuid = entry::grub_esp(options.esp_volume);
            state::write(boot, directory, b"efiuuid.cfg", uuid.as_bytes(), contents)?;
        }
        Starter::OnEsp { uki_key } => {
            let key = if uki_key { "uki" } else { "efi" };
            let path = format!("/EFI/Linux/bootc/bootc_composefs-{id}.efi");
            let text = os.entry(&id.to_string(), &[(key, path)])?;
            let entries = esp.make_directories("loader/entries", &plain);
            let file = os.file_name(&id.to_string())?;
            state::write(esp, entries, file.as_bytes(), text.as_bytes(), contents)?;
        }
    }
    Ok(())
}

fn command_line(id: ObjectId, enforced: bool, options: &DeployOptions<'_>) -> Result<String> {
    let optional = if enforced { "" } else { "?" };
    let own = if options.new_spelling {
        format!("composefs.digest={optional}v1-sha512-12:{id}")
    } else {
        format!("composefs={optional}{id}")
    };
    let mut words = Vec::new();
    for argument in options.kernel_arguments {
        if argument.contains(['\n', '\r', '\0']) {
            let subject = format!("kernel argument {argument:?}");
            return Err(corrupt(subject, "it is not of one line"));
        }
        words.push(if argument == "composefs=" { own.as_str() } else { argument.as_str() });
    }
    Ok(words.join(" "))
}

/// Hexadecimal SHA-256 of kernel and initramfs: deployments with the same ones share them.
fn boot_digest(kernel: &KernelFiles, contents: &ContentStore) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    for content in std::iter::once(&kernel.linux).chain(&kernel.initramfs) {
        let mut reader = contents.reader(content);
        loop {
            match std::io::Read::read(&mut reader, &mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Labels the physical root: the repository as if it were `/usr`, and then whatever has no label by its own path.
fn label(root: &mut Tree, labels: Option<&LabelOf<'_>>) -> Result<()> {
    let Some(labels) = labels else { return Ok(()) };
    root.create(Tree::ROOT, b"lost+found", Metadata::root(0o700), Kind::directory());
    let composefs = root.find("composefs").context("there is no repository")?;
    let below: Vec<(Vec<u8>, InodeId)> = root.walk_from(composefs).collect();
    for (path, id) in below {
        let path = String::from_utf8_lossy(&path).into_owned();
        let path = if path.is_empty() { "/usr".to_owned() } else { format!("/usr/{path}") };
        set_label(root, id, &path, labels)?;
    }
    complete(root, "/", labels)
}

/// Labels what has no label, by its path; the tree is mounted at `at`.
fn complete(tree: &mut Tree, at: &str, labels: &LabelOf<'_>) -> Result<()> {
    let bare: Vec<(Vec<u8>, InodeId)> = tree
        .walk()
        .filter(|(_, id)| tree.inode(*id).metadata.xattrs.get(SELINUX).is_none())
        .collect();
    for (path, id) in bare {
        let path = String::from_utf8(path)
            .map_err(|_| corrupt("a file of the physical root", "its name is not UTF-8"))?;
        let path = match path.as_str() {
            "" => at.to_owned(),
            path => format!("{}/{path}", at.trim_end_matches('/')),
        };
        set_label(tree, id, &path, labels)?;
    }
    Ok(())
}

fn set_label(tree: &mut Tree, id: InodeId, path: &str, labels: &LabelOf<'_>) -> Result<()> {
    // Policies leave /proc without a label; on one without a label nothing may be mounted.
    let asked = if path == "/proc" { "/mnt" } else { path };
    let st_mode = tree.inode(id).st_mode();
    if let Some(label) = labels(asked, st_mode).with_context(|| format!("labelling {path}"))? {
        tree.inode_mut(id).metadata.xattrs.set(SELINUX, &label);
    }
    Ok(())
}
