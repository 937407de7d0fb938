//! Makes an ext4 file system of a few files, without a disk around it, and writes it to a file. No mount, no mkfs, no root.
//!
//! ```text
//! cargo run --example ext4_volume -- volume.ext4
//! e2fsck -fn volume.ext4
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bootpress::architecture::Architecture;
use bootpress::content::ContentStore;
use bootpress::filesystem::{Filling, Room, VolumeOptions};
use bootpress::filesystem_kind::{FileSystem, XfsProfile};
use bootpress::output::{self, Format, Options, Target};
use bootpress::progress::Progress;
use bootpress::tree::{Metadata, Tree};
use uuid::Uuid;

fn main() -> Result<()> {
    let file = PathBuf::from(std::env::args().nth(1).context("usage: ext4_volume FILE")?);

    // Contents of files are kept apart from their names, in an unnamed file in this directory.
    let contents = ContentStore::create_in(Path::new("."))?;
    let mut tree = Tree::new(Metadata::root(0o755));
    tree.put("etc/motd", contents.insert_bytes(b"Welcome\n")?);
    tree.put("srv/www/index.html", contents.insert_bytes(b"<p>It works.</p>\n")?);

    // Everything that ends up in the volume is stated, so that the same input gives the same bytes.
    let options = VolumeOptions {
        uuid: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        label: "example",
        hash_seed: Uuid::from_u128(1),
        sector_size: 512,
        grows: false,
        xfs_profile: XfsProfile::Lts61,
    };
    let filling = Filling::of(&tree);
    let room = Room { bytes: 16 << 20, inodes: 1000 };
    let size = FileSystem::Ext4.fit(&filling, room, &options, &contents)?;
    let volume = FileSystem::Ext4.format(&filling, size, &options, &contents)?;

    // A volume is a map of which bytes go where. Only now is it written.
    let options = Options::new(options.uuid, Architecture::X86_64);
    let target = Target::new(Format::Raw, file);
    let written = output::write(&volume.map, &contents, &[target], &options, &Progress::default())?;
    println!("{} bytes, {} used: {}", size, volume.used, written[0].sha256);
    Ok(())
}
