//! Which index blobs are active: the legacy manager (`n m l`) and the epoch manager (`x…`).

mod chain;
pub mod compact;
pub mod epoch;
mod fetch;
pub mod legacy;
pub mod names;
pub mod put;
mod sealed;
mod spool;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
pub mod watermark;
pub mod write;

pub use fetch::fetch_indexes;
pub use put::put_index_blob;
pub use view::{ActiveSet, Aside, Delta, IndexView, list_active, load_view, load_view_aside};
