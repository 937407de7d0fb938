//! Independent readers and the real tools as witnesses of every format that bootpress writes. One module a format.

mod anaconda;
mod bib;
#[path = "../support/bootc_image.rs"]
mod bootc_image;
mod bootloader;
mod build;
mod composefs;
mod config;
mod deployment;
#[path = "../support/directory.rs"]
mod directory;
#[path = "../support/encapsulated.rs"]
mod encapsulated;
mod ext4;
#[path = "../support/extract.rs"]
mod extract;
mod fat;
mod gpt;
mod host;
mod importer;
mod inspect;
mod iso;
mod media;
mod oci;
mod ostree_repo;
mod output;
mod registry;
mod selinux;
#[path = "../support/server.rs"]
mod server;
mod storage;
#[path = "../support/tiny_image.rs"]
mod tiny_image;
#[path = "../support/tool.rs"]
mod tool;
mod transports;
mod trust;
#[path = "../support/unwritten.rs"]
mod unwritten;
