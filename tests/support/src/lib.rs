//! What the tests share: small images made in code, real servers and tools, and one way to run the program.
//!
//! | module | gives |
//! |---|---|
//! | [`program`] | `bootpress`, `Build`: runs the program, checks how it ended, reads its report |
//! | [`tiny_image`] | OCI images of any content, however strange |
//! | [`bootc_image`] | a small image that bootpress accepts |
//! | [`server`] | registries, nginx, certificates |
//! | [`boot_sector`] | an operating system of one sector |
//! | [`tool`] | the real tools that serve as witnesses |
//!
//! Everything here panics on errors, because its callers are tests.

pub mod boot_sector;
pub mod bootc_image;
pub mod program;
pub mod server;
pub mod tiny_image;
pub mod tool;

pub use program::{Build, Built, bootpress};
