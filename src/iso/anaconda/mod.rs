//! A medium with the image's own Anaconda: the tree that bootc-image-builder makes for its type `bootc-installer`.
//!
//! ```text
//! images/pxeboot/vmlinuz initrd.img   the image's, untouched: dracut has put Anaconda's module into its initramfs
//! images/install.img                  squashfs ─► LiveOS/rootfs.img (ext4): the image's files, made an installer (runtime.rs)
//! container/                          OCI layout of the image that is installed
//! osbuild.ks osbuild-base.ks          kickstart: the second is included by the first
//! EFI/… boot/grub2/grub.cfg           shim and GRUB as the image brings them, and the menu
//! .discinfo                           for Anaconda's tools
//! ```
//!
//! That tool runs dracut and lorax inside the image; nothing of an image is run here. So the image has to bring an initramfs that
//! dracut made with its module `anaconda`, and what lorax' templates change is changed by our own code.

mod runtime;

use anyhow::{Context, Result};

use super::efi::Efi;
use super::{MediumParts, Wishes, assemble, build_id, cpio, menu};
use crate::architecture::Architecture;
use crate::bootloader::MediumCode;
use crate::content::{Content, ContentStore};
use crate::error::unsupported;
use crate::filesystem::{ext4, squashfs};
use crate::image::Image;
use crate::progress::{Progress, Stage};
use crate::sparse::SparseMap;
use crate::tree::{Kind, Tree};

/// The image that Anaconda installs, as it was published.
#[derive(Debug)]
pub struct Payload {
    /// An OCI layout.
    pub layout: Tree,
    /// What it says about itself.
    pub image: Image,
}

/// What a medium with Anaconda holds besides the image that it starts.
#[derive(Clone, Debug)]
pub struct Anaconda {
    /// The image that is installed, as an OCI layout.
    pub payload: Tree,
    /// What Anaconda reads: `osbuild.ks`.
    pub kickstart: String,
    /// What that one includes.
    pub kickstart_base: String,
    /// Anaconda's modules that are started, besides those that it needs for the kickstart.
    pub enabled_modules: Vec<String>,
    /// Anaconda's modules that are not started, whatever else is said.
    pub disabled_modules: Vec<String>,
    /// Further arguments of the installer's kernel, as GRUB passes them on.
    pub arguments: Vec<String>,
    /// Seconds until the menu's first entry starts.
    pub menu_timeout: u32,
    /// The product's name and version, as Anaconda shows them.
    pub product: (String, String),
}

/// The program that makes an image an installer (anaconda-core).
const PROGRAM: &str = "usr/libexec/anaconda/run-anaconda";
/// What dracut's module `anaconda` puts into an initramfs (anaconda, dracut/module-setup.sh); `lib` is a link to `usr/lib` mostly.
const IN_INITRAMFS: [&str; 2] = ["usr/lib/anaconda-lib.sh", "lib/anaconda-lib.sh"];
/// What a Containerfile has to run for that.
const HOW: &str = "RUN dnf install -y anaconda anaconda-install-env-deps anaconda-dracut dracut-config-generic dracut-network dracut-live && \
    kver=$(ls /usr/lib/modules) && dracut --force --no-hostonly --add 'anaconda pollcdrom qemu qemu-net fips' \
    /usr/lib/modules/$kver/initramfs.img $kver";

/// Bytes that the installer's root has free: what is written there is kept in memory, and holes take no room on the medium.
const FREE: u64 = 2 << 30;

/// Lays out the medium. `Unsupported`: there is no Anaconda in the image or in its initramfs.
pub(super) fn lay_out(
    parts: &MediumParts<'_>,
    wishes: &Wishes,
    anaconda: &Anaconda,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<SparseMap> {
    check(parts, contents)?;
    let efi = Efi::of(parts.boot, wishes.architecture)?;
    let bios = match wishes.architecture {
        Architecture::X86_64 => MediumCode::prepare(parts.image, contents)?,
        Architecture::Aarch64 => None,
    };
    let install = install_image(parts, wishes, anaconda, contents, progress)?;
    let _stage = progress.stage(Stage::LayOut, None);
    let kernel = parts.kernel;
    let id = identify(anaconda, wishes, contents)?;
    let text = grub_cfg(&id, parts.title, wishes, anaconda)?;
    let menu = contents.insert_bytes(text.as_bytes())?;

    let mut tree = efi.with_menu(&menu);
    // Where GRUB for BIOS looks; and where people do.
    tree.put("bootpress/grub.cfg", menu.clone());
    tree.put("boot/grub2/grub.cfg", menu.clone());
    tree.put(&format!("bootpress/{id}"), contents.insert_bytes(b"\n")?);
    tree.put("images/pxeboot/vmlinuz", kernel.linux.clone());
    let initrd = kernel.initramfs.as_ref().context("it was looked into")?;
    tree.put("images/pxeboot/initrd.img", initrd.clone());
    tree.put("images/install.img", install);
    for (path, inode) in anaconda.payload.walk() {
        if let Kind::File(content) = &anaconda.payload.inode(inode).kind {
            tree.put(&format!("container/{}", String::from_utf8_lossy(&path)), content.clone());
        }
    }
    let texts = [
        ("osbuild.ks", anaconda.kickstart.clone()),
        ("osbuild-base.ks", anaconda.kickstart_base.clone()),
        (".discinfo", disc_info(anaconda, wishes.architecture)),
    ];
    for (path, text) in texts {
        tree.put(path, contents.insert_bytes(text.as_bytes())?);
    }
    let sums = super::sums(&tree, contents).context("hashing what goes onto the medium")?;
    tree.put("SHA256SUMS", contents.insert_bytes(sums.as_bytes())?);
    assemble(&tree, &efi, bios.as_ref(), &menu, wishes, contents)
}

fn check(parts: &MediumParts<'_>, contents: &ContentStore) -> Result<()> {
    if parts.image.file(PROGRAM).is_none() {
        return Err(unsupported(
            format!("there is no Anaconda in the image: it has no /{PROGRAM}"),
            Some(&format!(
                "--format iso makes a medium that installs, from any image; for one with Anaconda, derive an image with it: {HOW}"
            )),
        ));
    }
    let initramfs = parts.kernel.initramfs.as_ref();
    let has = |path: &&str| {
        initramfs.and_then(|initramfs| cpio::contains(contents.reader(initramfs), path.as_bytes()))
            != Some(false)
    };
    // One that cannot be looked into is believed.
    if initramfs.is_some() && IN_INITRAMFS.iter().any(has) {
        Ok(())
    } else {
        Err(unsupported(
            "the image's initramfs cannot start Anaconda: dracut has made it without its module anaconda",
            Some(&format!("nothing of an image is run here, so its Containerfile has to: {HOW}")),
        ))
    }
}

/// `images/install.img`.
fn install_image(
    parts: &MediumParts<'_>,
    wishes: &Wishes,
    anaconda: &Anaconda,
    contents: &ContentStore,
    progress: &Progress,
) -> Result<Content> {
    let tree = runtime::installer(parts.image, wishes.architecture, anaconda, contents)
        .context("making an installer of the image")?;
    let hash_seed = wishes.identity.root_hash_seed;
    let wanted =
        ext4::Wanted { free_bytes: FREE, free_inodes: 65536, bytes_per_inode: 16384, hash_seed };
    let fitted = ext4::fit(&tree, &wanted).context("sizing the installer's file system")?;
    let options = ext4::Options {
        size: fitted.size,
        uuid: wishes.identity.root_filesystem,
        label: "Anaconda".to_owned(),
        hash_seed,
        inode_count: fitted.inode_count,
        journal_blocks: fitted.journal_blocks,
        reserved_percent: 0,
        time: 0,
    };
    let map = ext4::Layout::of(&tree, &options)?.emit(&tree);
    let stage = progress.stage(Stage::Compress, Some(map.size()));
    squashfs::format(&[("LiveOS/rootfs.img", &map)], contents, &stage)
}

/// Tells this medium from others, also from those of the same installer.
fn identify(anaconda: &Anaconda, wishes: &Wishes, contents: &ContentStore) -> Result<String> {
    let index = anaconda.payload.file("index.json").context("a layout has an index")?;
    let index = String::from_utf8_lossy(&contents.bytes(index)?).into_owned();
    Ok(build_id(&[index.as_str(), &anaconda.kickstart, &anaconda.kickstart_base].concat(), wishes))
}

/// The menu, in that tool's order: install, check and install, what helps when that fails.
fn grub_cfg(id: &str, title: &str, wishes: &Wishes, anaconda: &Anaconda) -> Result<String> {
    let label = wishes.volume_id.as_str();
    let mut arguments = vec![
        format!("inst.stage2=hd:LABEL={label}"),
        format!("inst.ks=hd:LABEL={label}:/osbuild.ks"),
        "console=tty0".to_owned(),
        "inst.text".to_owned(),
    ];
    arguments.extend(anaconda.arguments.iter().cloned());
    let arguments: Vec<String> =
        arguments.iter().map(|argument| menu::quoted(argument)).collect::<Result<_>>()?;
    Ok(include_str!("../guest/anaconda.cfg")
        .replace("@BUILD_ID@", id)
        .replace("@TIMEOUT@", &anaconda.menu_timeout.to_string())
        .replace("@TITLE@", &menu::safe_title(title))
        .replace("@LABEL@", label)
        .replace("@ARGUMENTS@", &arguments.join(" ")))
}

/// Time, version and architecture (pylorax, discinfo.py); the time is that of everything here.
fn disc_info(anaconda: &Anaconda, architecture: Architecture) -> String {
    format!("0.0\n{}\n{}\n", anaconda.product.1, architecture.name())
}
