//! Which partitions, where: layouts as values. Knows no file system and does no I/O.
//!
//! [`Table::plan`] decides, [`Table::bytes`] writes down, [`Table::parse`] reads back.
//!
//! ```
//! use partitioning::{Architecture, Guids, Layout, MIB, Preset, Root, SectorSize, Table};
//! use uuid::Uuid;
//!
//! let table = Table::plan(&Layout {
//!     preset: Preset::Bootc,
//!     architecture: Architecture::Aarch64,
//!     sector_size: SectorSize::S512,
//!     guids: Guids { disk: Uuid::from_u128(1), bios_boot: Uuid::from_u128(2), esp: Uuid::from_u128(3), boot: Uuid::from_u128(4), root: Uuid::from_u128(5) },
//!     esp: 512 * MIB,
//!     separate_boot: false,
//!     boot: 0,
//!     root: Root::Exactly(2048 * MIB),
//! })?;
//! assert_eq!(table.size(), (1 + 512 + 2048 + 1) * MIB);
//! # Ok::<(), partitioning::PlanError>(())
//! ```
#![warn(missing_docs)]

mod arrangement;
mod layout;
mod lba;
mod mbr;
mod parse;
mod table;
mod types;

pub use arrangement::{Arrangement, Slot};
pub use layout::{Guids, Layout, PlanError, Preset, Root};
pub use lba::{Lba, MIB, SectorSize};
pub use parse::ParseError;
pub use table::{Partition, Scheme, Table, TableBytes};
pub use types::{Architecture, Role, type_byte_name, type_name};
