//! Which partitions, where: layouts as values. Knows no file system and does no I/O.
