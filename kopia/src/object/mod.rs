//! Objects: contents, or seek tables over contents.

mod id;
pub mod read;
pub mod resolve;
pub mod seek_table;

pub use id::{INDIRECTION_MAX, ObjectId};
pub use read::ObjectReader;
pub use resolve::{ContentRole, ContentUse, ObjectParts, resolve};
pub use seek_table::{SeekEntry, SeekTable};
