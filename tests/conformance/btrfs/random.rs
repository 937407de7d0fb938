//! Trees that nobody thought of.

use bootpress::filesystem::btrfs::{Compression, Volumes};
use proptest::prelude::*;

use super::kernel::{compare, mounted_in};
use super::{GIB, MIB, check, options, press, store};
use crate::ext4::random::{Limits, grow, steps};

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_clean_and_reads_back(steps in steps(), how in 0..4_usize, large in any::<bool>()) {
        let contents = store();
        let limits = Limits { target: 4095, device: (0xfff, 0xf_ffff), names: 2000 };
        let tree = grow(steps, &contents, &limits);
        let compression = [None, Some(Compression::Zstd(1)), Some(Compression::Zlib(1)), Some(Compression::Lzo)][how];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("btrfs");
        let size = if large { 3 * GIB } else { 128 * MIB };
        press(&Volumes::of(&tree, compression), &contents, &options(size)).write(&path);
        check(&path);
        if let Some(mount) = mounted_in(&path, directory.path(), "ro,loop") {
            compare(&tree, &contents, &mount.on);
        }
    }
}
