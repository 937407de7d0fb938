//! Independent readers and the real tools as witnesses of every format that bootpress writes. One module a format.

#[path = "../support/directory.rs"]
mod directory;
#[path = "../support/tool.rs"]
mod tool;

mod ostree_repo;
