//! ext4, written whole: `Layout::of` decides, `emit` makes bytes.
