//! Object IDs.
use crate::content::ContentId;

/// `I`* `Z`? `D`? content ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Levels of indirection.
    pub indirection: u8,
    /// Object-level compression of index-v1 repositories.
    pub compressed: bool,
    /// The content behind the prefixes.
    pub content: ContentId,
}

impl std::str::FromStr for ObjectId {
    type Err = crate::error::Error;
    fn from_str(text: &str) -> crate::error::Result<Self> {
        let _ = text;
        unreachable!("stub")
    }
}
impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = f;
        unreachable!("stub")
    }
}
