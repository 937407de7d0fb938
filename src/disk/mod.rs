//! The back half of a disk: which partitions there are, how large, and what is in each.
