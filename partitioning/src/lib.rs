//! Which partitions, where: tables as values. Knows no file system and does no I/O.
//!
//! [`Table::arrange`] decides, [`Table::bytes`] writes down, [`Table::parse`] reads back.
//!
//! ```
//! use partitioning::{Architecture, Arrangement, MIB, Preset, Role, Scheme, SectorSize, Table};
//! use uuid::Uuid;
//!
//! let (preset, architecture) = (Preset::Bootc, Architecture::Aarch64);
//! let table = Table::arrange(&Arrangement {
//!     scheme: Scheme::Gpt,
//!     guid: Uuid::from_u128(1),
//!     sector_size: SectorSize::S512,
//!     start: MIB,
//!     slots: vec![
//!         preset.slot(Role::Esp, architecture, Uuid::from_u128(3), preset.default_size(Role::Esp)),
//!         preset.slot(Role::Root, architecture, Uuid::from_u128(5), 2048 * MIB),
//!     ],
//!     disk: None,
//!     grows: Some(1),
//! })?;
//! assert_eq!(table.size(), (1 + 512 + 2048 + 1) * MIB);
//! # Ok::<(), partitioning::PlanError>(())
//! ```
#![warn(missing_docs)]

mod arrangement;
mod lba;
mod mbr;
mod parse;
mod preset;
mod table;
mod types;

pub use arrangement::{Arrangement, PlanError, Slot};
pub use lba::{Lba, MIB, SectorSize};
pub use parse::ParseError;
pub use preset::Preset;
pub use table::{Partition, Scheme, Table, TableBytes};
pub use types::{Architecture, Role, type_byte_name, type_name};
