//! The upgrade lock.

/// An upgrade lock as the format blob records it.
#[derive(Debug, Clone)]
pub struct UpgradeLock {
    /// Who upgrades.
    pub owner_id: String,
    /// Message for people.
    pub message: String,
}
