//! Which index blobs are active: the legacy manager (`n m l`) and the epoch manager (`x…`).

pub mod epoch;
pub mod legacy;
pub mod names;
pub mod view;
pub mod watermark;

pub use view::{IndexView, load_view};
