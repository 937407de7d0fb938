//! Virtual machines: disks that bootpress made, booted unmodified.
