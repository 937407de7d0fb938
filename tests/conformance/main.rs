//! Independent readers and the real tools as witnesses of every format that bootpress writes. One module a format.

mod oci;
#[path = "../support/tiny_image.rs"]
mod tiny_image;
#[path = "../support/tool.rs"]
mod tool;
