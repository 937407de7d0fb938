//! bootpress: a bootc container image goes in, disks that boot come out.
//!
//! Start reading at [`pipeline`]: it is the whole program on one screen. The nouns it works on are [`tree`], [`content`] and
//! [`sparse`]; the rules about who may use whom are in `tests/architecture.rs`, and the map is in the README.

pub mod load;
pub mod make;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod request;
pub mod update;
pub mod written;

// Vocabulary: used by all, uses nothing but itself.
pub mod architecture;
pub mod command_line;
pub mod content;
pub mod error;
pub mod files;
pub mod filesystem_kind;
pub mod identity;
pub mod image;
pub mod installed;
pub mod layer;
pub mod limits;
pub mod name;
pub mod progress;
pub mod sha256;
pub mod signature;
pub mod sparse;
pub mod tree;
pub mod yaml;

// Stages: each uses the vocabulary, none uses another.
pub mod bootc;
pub mod bootloader;
pub mod composefs;
pub mod config;
pub mod filesystem;
pub mod oci;
pub mod ostree;
pub mod output;
pub mod packages;
pub mod provenance;
pub mod sbom;
pub mod selinux;
pub mod storage;
pub mod trust;

// Joining.
pub mod attest;
pub mod bound;
pub mod disk;
pub mod iso;
pub mod naming;

// What goes along with the files of a build when it is released.
pub mod release;

// A gate over facts.
pub mod check;

// Disks to and from a registry.
pub mod publish;

// A disk that is there, or an image, looked at.
pub mod inspect;
pub mod survey;
