//! A commit becomes a system that boots: checkout, `/etc`, `/var`, kernel, boot entry, labels.
//!
//! The order of the calls is that of a real installation. Nothing here reads a clock: times are 0, but for one.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::boot_entry::{Kernel, KernelSource};
use super::etc::RootSshKeys;
use super::labels::{Labeller, Style};
use super::sysroot::{self, Names, Skeleton, make_link, without_time, write_file};
use super::{
    Checksum, Committed, Labels, ObjectInodes, Repository, aleph, etc, refname, var, verity,
    volumes,
};
use crate::content::{Content, ContentStore};
use crate::error::unsupported;
use crate::image::Image;
use crate::installed::Installed;
use crate::name::StaterootName;
use crate::tree::{InodeId, Kind, Metadata, Payload, Tree, Verity, Xattrs};

/// Links that an inode may have on the file system that has the fewest (`EXT4_LINK_MAX`); what needs more is copied.
const LINK_LIMIT: u32 = 65_000;

/// A file whose name begins with this is checked out as an overlay whiteout, so that container stores fit into a commit.
const WHITEOUT_PREFIX: &[u8] = b".ostree-wh.";

/// Writes a composefs image of a tree: given the tree and, for each regular file that is not inside the image, where its content
/// is found. The image's bytes come back.
pub type ComposefsWriter<'a> =
    dyn Fn(&Tree, &dyn Fn(InodeId) -> Option<Payload>) -> Result<Vec<u8>> + 'a;

/// Computes the fs-verity of a content, which is in this store; what has to be stored of it goes there, too.
pub type FsVerity<'a> = dyn Fn(&Content, &ContentStore) -> Result<Verity> + Sync + 'a;

/// Changes a system before it gets its last labels.
pub type Customize<'a> = dyn Fn(&mut Tree, System) -> Result<Changed> + 'a;

/// The parts of a new system, in the tree of its physical root.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// The checkout.
    pub deployment: InodeId,
    /// Its `/etc`.
    pub etc: InodeId,
    /// The stateroot's `/var`.
    pub var: InodeId,
}

/// What somebody changed in a system.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// What was written: its path in the running system, and its inode, whose label is to be set.
    pub written: Vec<(String, InodeId)>,
    /// Directories whose content goes onto volumes of their own, by their paths in the running system, without links in them.
    pub volumes: Vec<String>,
}

/// Who vouches for an update's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// Nobody: what bootc installs unless told otherwise.
    Unverified,
    /// The machine's container policy.
    ContainerPolicy,
    /// An ostree remote's key.
    Remote(String),
}

impl SignaturePolicy {
    /// The image reference of an `.origin` file. `target` is spelled with its transport: `docker://NAME`, `oci:PATH`.
    fn origin(&self, target: &str) -> String {
        match self {
            Self::Unverified => refname::unverified_reference(target),
            Self::ContainerPolicy => refname::signed_reference(target),
            Self::Remote(remote) => format!("ostree-remote-image:{remote}:{target}"),
        }
    }
}

/// Everything that a deployment depends on besides the commit and the image.
pub struct DeployOptions<'a> {
    /// Name of the stateroot.
    pub stateroot: &'a StaterootName,
    /// The image that the machine will update from, with its transport: `docker://quay.io/fedora/fedora-bootc:44`.
    pub target: &'a str,
    /// Who vouches for it.
    pub signature_policy: &'a SignaturePolicy,
    /// What boot entries call the system.
    pub title: &'a str,
    /// The kernel.
    pub kernel: KernelSource<'a>,
    /// Kernel arguments without `ostree=`, one element an argument.
    pub kernel_arguments: &'a [String],
    /// Whether `/boot` is a file system of its own.
    pub separate_boot: bool,
    /// What the deployment's fstab mounts on `/boot`: `UUID=…`. `None`: its fstab stays the image's.
    pub boot_mount: Option<&'a str>,
    /// What a boot loader wants under `/boot`.
    pub boot_files: &'a Tree,
    /// Keys for root.
    pub root_ssh_keys: Option<RootSshKeys<'a>>,
    /// Writes what the machine's configuration asks for.
    pub customize: Option<&'a Customize<'a>>,
    /// Who installs: where bootc records the version of the kernel that it ran on.
    pub installer: &'a str,
    /// Repository configuration beyond what every bootc system has: group, key, value.
    pub repository_config: &'a [(&'a str, &'a str, &'a str)],
    /// Writes `.ostree.cfs`.
    pub composefs: &'a ComposefsWriter<'a>,
    /// Gives fs-verity to objects and `.ostree.cfs`, and digests into the latter, when prepare-root will ask for them.
    pub fs_verity: Option<&'a FsVerity<'a>>,
}

/// What the configuration of every bootc system's repository says besides version and mode.
const REPOSITORY_CONFIG: [(&str, &str, &str); 3] = [
    // Boot loaders read the entries themselves; nobody regenerates a configuration.
    ("sysroot", "bootloader", "none"),
    ("sysroot", "bootprefix", "true"),
    ("sysroot", "readonly", "true"),
];

/// Makes the physical root: the repository, and the commit deployed from it.
///
/// `labels` comes from the image's policy, if it has one. Fails if the image has no kernel, no `/etc`, or says something that a
/// boot entry or a configuration file cannot.
pub fn deploy(
    repository: Repository,
    committed: &Committed,
    image: &Image,
    labels: Option<&Labels<'_>>,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<Installed> {
    let mut root = Tree::new(Metadata::root(0o755));
    let config = [&REPOSITORY_CONFIG, options.repository_config].concat();
    let objects =
        repository.place(&mut root, &config, contents).context("laying out the repository")?;
    // The objects are in the tree now; their bytes need not be in memory twice.
    drop(repository);
    deploy_onto(root, &objects, committed, image, labels, options, contents)
}

/// Deploys a commit onto the physical root that holds its objects.
fn deploy_onto(
    mut root: Tree,
    objects: &ObjectInodes,
    committed: &Committed,
    image: &Image,
    labels: Option<&Labels<'_>>,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<Installed> {
    let labeller = Labeller(labels);
    let names = Names {
        stateroot: options.stateroot.as_str(),
        deployment: format!("{}.0", committed.checksum),
    };
    if let Some(fs_verity) = options.fs_verity {
        verity::seal(&mut root, objects, fs_verity, contents)?;
    }
    let skeleton = Skeleton::make(&mut root, names.stateroot);
    labeller.set(&mut root, skeleton.ostree, b"/usr", Style::Bootc)?;

    let mut links = Links::new(committed, objects);
    let deployment = checkout(&mut root, skeleton.deploy, &names, &mut links);
    let etc = etc::prepare(&mut root, deployment, labeller).context("preparing /etc")?;
    var::prepare(&mut root, skeleton.var, deployment, labeller).context("preparing /var")?;
    if let Some(source) = options.boot_mount {
        etc::write_fstab(&mut root, etc, source, labeller, contents)?;
    }
    if let Some(keys) = &options.root_ssh_keys {
        etc::write_root_ssh_keys(&mut root, etc, keys, labeller, contents)?;
    }
    let parts = System { deployment, etc, var: skeleton.var };
    let changed = customize(&mut root, parts, labeller, options)?;
    write_composefs(&mut root, deployment, committed, objects, options, labeller, contents)
        .context("writing .ostree.cfs")?;
    write_origin(&mut root, skeleton.deploy, &names, options, contents)?;
    let deployment_mode = root.inode(deployment).metadata.mode;
    sysroot::make_backing(&mut root, skeleton.backing, &names, deployment_mode);

    let kernel = Kernel::find(&committed.tree, options.kernel, contents)?;
    sysroot::make_boot_links(&mut root, skeleton.ostree, &names, &kernel.bootcsum);
    let command_line = kernel.command_line(options.kernel_arguments, names.stateroot)?;
    let files = BootFiles {
        kernel: &kernel,
        commit: &committed.tree,
        command_line: &command_line,
        options,
        contents,
    };
    let boot = if options.separate_boot {
        let mut boot = Tree::new(Metadata::root(0o755));
        files.write(&mut boot, Tree::ROOT, |tree, directory, name, id| {
            copy_to_boot(&committed.tree, id, tree, directory, name);
        })?;
        make_lost_and_found(&mut boot, labeller);
        labeller.complete(&mut boot, "/boot", |_| false)?;
        Some(boot)
    } else {
        files.write(&mut root, skeleton.boot, |tree, directory, name, id| {
            links.place(tree, directory, name.as_bytes(), id);
        })?;
        None
    };
    let target_name = without_transport(options.target);
    let aleph = aleph::bytes(image, target_name, options.installer, labeller.is_enabled())?;
    write_file(&mut root, Tree::ROOT, aleph::NAME, &aleph, contents)?;

    make_lost_and_found(&mut root, labeller);
    let is_object = objects_of(&root, objects);
    labeller.complete(&mut root, "/", |id| is_object[id.index()])?;
    let volumes = volumes::take(&mut root, parts, &changed.volumes, labeller)?;
    root.inode_mut(deployment).metadata.immutable = true;
    Ok(Installed {
        root,
        boot,
        // GRUB reads boot entries from /boot.
        esp: Tree::new(Metadata::root(0o755)),
        esp_least: 0,
        volumes,
        written: changed.written.into_iter().map(|(path, _)| path).collect(),
        version: committed.checksum.to_string(),
        kernel: kernel.files(&committed.tree),
        command_line,
        deployment: format!("ostree/deploy/{}/deploy/{}", names.stateroot, names.deployment),
        var: format!("ostree/deploy/{}/var", names.stateroot),
    })
}

/// Lets the configuration be written, and labels what was.
fn customize(
    root: &mut Tree,
    parts: System,
    labeller: Labeller<'_>,
    options: &DeployOptions<'_>,
) -> Result<Changed> {
    let Some(customize) = options.customize else { return Ok(Changed::default()) };
    let changed = customize(root, parts).context("applying the configuration")?;
    for (path, id) in &changed.written {
        labeller.set(root, *id, path.as_bytes(), Style::Bootc)?;
    }
    Ok(changed)
}

/// Gives a file system the directory into which fsck puts what it finds. Its writer makes one where there is none, but cannot
/// know the label, and with a policy nothing shall be without.
fn make_lost_and_found(tree: &mut Tree, labeller: Labeller<'_>) {
    if labeller.is_enabled() {
        tree.create(Tree::ROOT, b"lost+found", Metadata::root(0o700), Kind::directory());
    }
}

/// The name in an image reference: `docker://NAME`, `oci:NAME`.
pub(super) fn without_transport(reference: &str) -> &str {
    match reference.strip_prefix("docker://") {
        Some(name) => name,
        None => reference.split_once(':').map_or(reference, |(_, name)| name),
    }
}

/// The objects of a repository, and how many names each has.
struct Links<'a> {
    committed: &'a Committed,
    objects: &'a ObjectInodes,
    /// By checksum of the object; its name in the repository counts.
    counts: HashMap<Checksum, u32>,
}

impl<'a> Links<'a> {
    fn new(committed: &'a Committed, objects: &'a ObjectInodes) -> Self {
        Self { committed, objects, counts: HashMap::new() }
    }

    /// Names a file or link of the commit: as a hard link to its object, unless it has no bytes (a write to one empty file must
    /// not change all of them) or the object has as many names as it may.
    fn place(&mut self, tree: &mut Tree, directory: InodeId, name: &[u8], id: InodeId) {
        let inode = self.committed.tree.inode(id);
        let empty = matches!(&inode.kind, Kind::File(content) if content.size == 0);
        if !empty {
            let checksum =
                self.committed.objects[id.index()].expect("files and links have objects");
            let count = self.counts.entry(checksum).or_insert(1);
            if *count < LINK_LIMIT {
                *count += 1;
                let object = self.objects[&checksum];
                tree.link(directory, name, object);
                return;
            }
        }
        tree.create(directory, name, without_time(&inode.metadata), inode.kind.clone());
    }
}

/// Checks the commit out into a new deployment.
fn checkout(root: &mut Tree, deploy: InodeId, names: &Names<'_>, links: &mut Links<'_>) -> InodeId {
    let commit = &links.committed.tree;
    let metadata = without_time(&commit.inode(Tree::ROOT).metadata);
    let deployment = root.create(deploy, names.deployment.as_bytes(), metadata, Kind::directory());
    let mut stack = vec![(Tree::ROOT, deployment)];
    while let Some((from, into)) = stack.pop() {
        for (name, id) in commit.inode(from).children() {
            let inode = commit.inode(id);
            if inode.is_directory() {
                let metadata = without_time(&inode.metadata);
                stack.push((id, root.create(into, name, metadata, Kind::directory())));
            } else if let Some(hidden) = whiteout(name, &inode.kind) {
                root.create(
                    into,
                    hidden,
                    without_time(&inode.metadata),
                    Kind::CharacterDevice(0, 0),
                );
            } else {
                links.place(root, into, name, id);
            }
        }
    }
    deployment
}

/// The name that a whiteout in a commit hides.
fn whiteout<'a>(name: &'a [u8], kind: &Kind) -> Option<&'a [u8]> {
    matches!(kind, Kind::File(_))
        .then(|| name.strip_prefix(WHITEOUT_PREFIX))
        .flatten()
        .filter(|rest| !rest.is_empty())
}

/// Writes `.ostree.cfs`: the commit's tree, whose contents are the repository's objects.
fn write_composefs(
    root: &mut Tree,
    deployment: InodeId,
    committed: &Committed,
    objects: &ObjectInodes,
    options: &DeployOptions<'_>,
    labeller: Labeller<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let payload = |id: InodeId| {
        let checksum = (*committed.objects.get(id.index())?)?;
        let name = checksum.to_string();
        let (directory, rest) = name.split_at(2);
        let redirect = format!("{directory}/{rest}.file");
        let verity = objects.get(&checksum).and_then(|object| root.verity(*object));
        Some(Payload { redirect, digest: verity.map(|verity| verity.digest.clone()) })
    };
    let bytes = match with_whiteouts(&committed.tree) {
        Some(tree) => (options.composefs)(&tree, &payload)?,
        None => (options.composefs)(&committed.tree, &payload)?,
    };
    let image = write_file(root, deployment, b".ostree.cfs", &bytes, contents)?;
    if let (Some(fs_verity), Kind::File(content)) = (options.fs_verity, &root.inode(image).kind) {
        let verity = fs_verity(content, contents)?;
        root.set_verity(image, verity);
    }
    // A policy's rule for /usr may be for directories only; as a file the image would get the default label, which the real one
    // has not.
    labeller.set_as(root, image, b"/usr", 0o040_755, Style::Bootc)
}

/// The tree as the running system shall see it, if it has whiteouts; other inodes keep their ids.
fn with_whiteouts(commit: &Tree) -> Option<Tree> {
    let directories = commit.walk().filter(|(_, id)| commit.inode(*id).is_directory());
    let whiteouts: Vec<_> = directories
        .flat_map(|(_, directory)| {
            let children = commit.inode(directory).children();
            children.filter_map(move |(name, id)| {
                let hidden = whiteout(name, &commit.inode(id).kind)?;
                Some((directory, name.clone(), hidden.to_vec(), id))
            })
        })
        .collect();
    if whiteouts.is_empty() {
        return None;
    }
    let mut tree = commit.clone();
    for (directory, name, hidden, id) in whiteouts {
        tree.unlink(directory, &name);
        let metadata = commit.inode(id).metadata.clone();
        tree.create(directory, &hidden, metadata, Kind::CharacterDevice(0, 0));
    }
    Some(tree)
}

/// Says where updates come from.
fn write_origin(
    root: &mut Tree,
    deploy: InodeId,
    names: &Names<'_>,
    options: &DeployOptions<'_>,
    contents: &ContentStore,
) -> Result<()> {
    let reference = options.signature_policy.origin(options.target);
    if reference.contains(char::is_whitespace) {
        return Err(unsupported(format!("the target image {:?}", options.target), None));
    }
    let text = format!("[origin]\ncontainer-image-reference={reference}\n");
    let name = format!("{}.origin", names.deployment);
    write_file(root, deploy, name.as_bytes(), text.as_bytes(), contents)?;
    Ok(())
}

/// Fills `/boot`, which is `directory` of `boot`.
struct BootFiles<'a> {
    kernel: &'a Kernel,
    commit: &'a Tree,
    command_line: &'a str,
    options: &'a DeployOptions<'a>,
    contents: &'a ContentStore,
}

impl BootFiles<'_> {
    fn write(
        &self,
        boot: &mut Tree,
        directory: InodeId,
        place: impl FnMut(&mut Tree, InodeId, &str, InodeId),
    ) -> Result<()> {
        let (stateroot, plain) = (self.options.stateroot.as_str(), Metadata::root(0o755));
        // Paths in boot entries begin with /boot, also where /boot is the file system's root.
        make_link(boot, directory, b"boot", ".");
        make_link(boot, directory, b"loader", "loader.1");
        let loader = boot.create(directory, b"loader.1", plain.clone(), Kind::directory());
        let entries = boot.create(loader, b"entries", plain.clone(), Kind::directory());
        let entry = self.kernel.entry(self.options.title, self.command_line, stateroot)?;
        write_file(boot, entries, b"ostree-1.conf", entry.as_bytes(), self.contents)?;
        let kernels = boot.create(directory, b"ostree", plain.clone(), Kind::directory());
        let name = format!("{stateroot}-{}", self.kernel.bootcsum);
        let own = boot.create(kernels, name.as_bytes(), plain, Kind::directory());
        self.kernel.install(self.commit, boot, own, place);
        boot.merge(self.options.boot_files, directory);
        Ok(())
    }
}

/// A kernel's file on a file system that cannot have a hard link to the object.
fn copy_to_boot(commit: &Tree, id: InodeId, boot: &mut Tree, directory: InodeId, name: &str) {
    let inode = commit.inode(id);
    let metadata = Metadata { xattrs: Xattrs::NONE, ..without_time(&inode.metadata) };
    boot.create(directory, name.as_bytes(), metadata, inode.kind.clone());
}

/// Which inodes are objects, by index.
fn objects_of(root: &Tree, objects: &ObjectInodes) -> Vec<bool> {
    let mut is_object = vec![false; root.inode_count()];
    for id in objects.values() {
        is_object[id.index()] = true;
    }
    is_object
}

#[cfg(test)]
mod tests;
