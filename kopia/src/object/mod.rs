//! Objects: contents, or seek tables over contents.

mod id;
pub mod read;
pub mod seek_table;

pub use id::ObjectId;
