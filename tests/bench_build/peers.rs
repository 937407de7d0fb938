//! Other tools with the same bytes: what a part of a build costs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::tool::{run, tool};

use crate::shape::Shape;

/// What `qemu-img` is asked for.
pub(crate) const CONVERT: &str = "qemu-img convert -c, zstd";

/// What they work on, made once.
pub(crate) struct Peers {
    place: PathBuf,
    layout: PathBuf,
    /// The archives, not compressed any more, lowest first.
    archives: Vec<PathBuf>,
    /// All layers in one directory.
    tree: PathBuf,
    /// Bytes of a file system that has room for it.
    size: u64,
}

impl Peers {
    pub(crate) fn prepare(shape: &Shape, place: &Path) -> Self {
        let tree = place.join("tree");
        let mut archives = Vec::new();
        let ready = tree.is_dir();
        fs::create_dir_all(&tree).unwrap();
        for (number, blob) in shape.layers().iter().enumerate() {
            let archive = place.join(format!("layer-{number}.tar"));
            if !ready {
                let script = "if zstd -tq \"$0\" 2>/dev/null; then zstd -dcq \"$0\"; else gzip -dc \"$0\"; fi > \"$1\"";
                run(Command::new("sh").args(["-c", script]).arg(blob).arg(&archive));
                run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree));
            }
            archives.push(archive);
        }
        let size: u64 = archives.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let layout = shape.layout.clone();
        Self { place: place.to_owned(), layout, archives, tree, size: size * 3 / 2 + (256 << 20) }
    }

    /// Their commands, each with what it writes, which has to be removed afterwards.
    pub(crate) fn commands(&self, raw: &Path) -> Vec<(&'static str, Command, PathBuf)> {
        let at = |name: &str| self.place.join(name);
        let mut commands = Vec::new();
        let output = at("theirs.qcow2");
        if let Some(mut qemu_img) = tool("qemu-img") {
            qemu_img.args(["convert", "-c", "-m", "2", "-f", "raw", "-O", "qcow2"]);
            qemu_img.args(["-o", "compression_type=zstd"]).args([raw, &output]);
            commands.push((CONVERT, qemu_img, output.clone()));
        }
        if let Some(mut qemu_img) = tool("qemu-img") {
            qemu_img.args(["convert", "-f", "raw", "-O", "qcow2"]).args([raw, &output]);
            commands.push(("qemu-img convert", qemu_img, output));
        }
        if let Some(mut skopeo) = tool("skopeo") {
            let output = at("copied");
            skopeo.args(["--insecure-policy", "copy", "--quiet"]);
            skopeo.arg(format!("oci:{}", self.layout.display()));
            skopeo.arg(format!("dir:{}", output.display()));
            commands.push(("skopeo copy oci: dir:", skopeo, output));
        }
        if let Some(mut mke2fs) = tool("mke2fs") {
            let output = at("theirs.ext4");
            mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&self.tree).arg(&output);
            mke2fs.arg(format!("{}k", self.size / 1024));
            commands.push(("mke2fs -d", mke2fs, output));
        }
        if let Some(mut mksquashfs) = tool("mksquashfs") {
            let output = at("theirs.squashfs");
            mksquashfs.arg(&self.tree).arg(&output);
            mksquashfs.args(["-comp", "zstd", "-noappend", "-quiet", "-no-progress"]);
            commands.push(("mksquashfs -comp zstd", mksquashfs, output));
        }
        if tool("ostree").is_some() {
            let output = at("repository");
            // Into a repository of whole files, as on a disk.
            let script = "repo=$0; mkdir \"$repo\"; ostree --repo=\"$repo\" init --mode=bare-user-only; \
                          for tar; do set -- \"$@\" --tree=tar=\"$tar\"; shift; done; \
                          exec ostree --repo=\"$repo\" commit --branch=x --tar-autocreate-parents --canonical-permissions \"$@\"";
            let mut ostree = Command::new("sh");
            ostree.args(["-c", script]).arg(&output).args(&self.archives);
            commands.push(("ostree commit --tree=tar", ostree, output));
        }
        commands
    }
}

/// Removes what a command wrote.
pub(crate) fn remove(output: &Path) {
    if output.is_dir() {
        fs::remove_dir_all(output).unwrap();
    } else {
        fs::remove_file(output).unwrap();
    }
}
