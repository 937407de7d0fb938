//! Trees that nobody thought of.

use proptest::prelude::*;

use super::{MIB, check, press, variants};
use crate::ext4::random::{Limits, grow, steps};
use crate::ext4::store;
use crate::mounted::{Mount, XFS, compare};

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_reads_back(steps in steps(), variant in 0..3_usize) {
        let contents = store();
        let limits = Limits { target: 1023, device: (0x1ff, 0x3_ffff), names: 2000 };
        let tree = grow(steps, &contents, &limits);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xfs");
        press(&tree, &contents, &variants(320 * MIB)[variant]).write(&path);
        check(&path);
        let on = directory.path().join("mnt");
        if let Some(mount) = Mount::new("xfs", &path, &on, "ro,norecovery,loop,nouuid") {
            compare(&mount.on, &tree, &contents, &XFS);
        }
    }
}
