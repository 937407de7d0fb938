//! Everything a build depends on besides the image's bytes.
