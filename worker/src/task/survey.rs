//! stub
use super::summary::Role;
use crate::limit::Estimate;
use verger_kopia::index_set::IndexView;
use verger_kopia::object::ObjectId;
/// r
pub struct Root {
    /// s
    pub snapshot: String,
    /// r
    pub role: Role,
    /// o
    pub object: ObjectId,
}
/// s
pub struct Survey {
    /// v
    pub view: IndexView,
    /// e
    pub estimate: Estimate,
    /// r
    pub roots: Vec<Root>,
}
