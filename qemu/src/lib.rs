//! Boots unmodified disks in QEMU and says how far they got. Knows nothing of how they were made.
