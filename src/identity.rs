//! Every UUID of a build, derived from the image's digest and the seed before anything is laid out.
//!
//! GRUB's search, `root=UUID=`, boot entries and file systems must agree; deciding first is what lets each stage run once.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The identifiers of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// GUID of the partition table.
    pub disk: Uuid,
    /// GUID of the BIOS boot partition.
    pub bios_partition: Uuid,
    /// GUID of the ESP's partition.
    pub esp_partition: Uuid,
    /// GUID of the partition of a separate `/boot`.
    pub boot_partition: Uuid,
    /// GUID of the root partition.
    pub root_partition: Uuid,
    /// Volume id of the ESP's FAT.
    pub esp_volume: u32,
    /// UUID of the file system of a separate `/boot`.
    pub boot_filesystem: Uuid,
    /// UUID of the root file system.
    pub root_filesystem: Uuid,
    /// Seed of the hashed directories of `/boot`'s ext4.
    pub boot_hash_seed: Uuid,
    /// Seed of the hashed directories of the root's ext4.
    pub root_hash_seed: Uuid,
    /// What identifiers in disk files derive from: those of vhd, vhdx, vdi and vmdk.
    pub files: Uuid,
}

impl Identity {
    /// Derives all UUIDs. They depend on the digest and the seed only, not on the machine or the time.
    pub fn derive(manifest_digest: &str, seed: &str) -> Self {
        let bytes = |role: &str| -> [u8; 16] {
            let mut hash = Sha256::new();
            for part in ["bootpress identity v1", manifest_digest, seed, role] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            let hash = hash.finalize();
            std::array::from_fn(|i| hash[i])
        };
        // Version 8 is RFC 9562's for values made by a rule of one's own; version 4 is what every reader has seen.
        let uuid = |role: &str| uuid::Builder::from_random_bytes(bytes(role)).into_uuid();
        let volume = bytes("esp volume");
        Self {
            disk: uuid("disk"),
            bios_partition: uuid("bios partition"),
            esp_partition: uuid("esp partition"),
            boot_partition: uuid("boot partition"),
            root_partition: uuid("root partition"),
            esp_volume: u32::from_le_bytes([volume[0], volume[1], volume[2], volume[3]]),
            boot_filesystem: uuid("boot filesystem"),
            root_filesystem: uuid("root filesystem"),
            boot_hash_seed: uuid("boot hash seed"),
            root_hash_seed: uuid("root hash seed"),
            files: uuid("files"),
        }
    }

    /// The UUID of something that not every disk has.
    pub fn further(&self, role: &str) -> Uuid {
        let hash = Sha256::new()
            .chain_update("bootpress identity v1, further")
            .chain_update(self.disk.as_bytes())
            .chain_update(role)
            .finalize();
        uuid::Builder::from_random_bytes(std::array::from_fn(|i| hash[i])).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_gives_the_same_identity_and_another_seed_another() {
        let one = Identity::derive("sha256:00", "");
        assert_eq!(one, Identity::derive("sha256:00", ""));
        assert_ne!(one, Identity::derive("sha256:00", "x"));
        assert_ne!(one.disk, one.root_partition);
        assert_eq!(one.disk.get_version_num(), 4);
    }
}
