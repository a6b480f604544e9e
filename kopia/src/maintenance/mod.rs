//! Kopia's maintenance: parameters, schedule, history, ownership, margins, and the rules that decide.

pub mod go_json;
pub mod history;
pub mod margins;
pub mod owner;
pub mod params;
pub mod rules;
pub mod schedule;

pub use margins::Margins;
pub use params::Params;
pub use schedule::Schedule;
