//! Disk files, read by qemu-img and imago.
