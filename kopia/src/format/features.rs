//! Required features.

/// A feature a client must know.
#[derive(Debug, Clone)]
pub struct RequiredFeature {
    /// Name.
    pub feature: String,
    /// Opening may go on with a warning.
    pub warn: bool,
    /// Message for people.
    pub message: String,
}
