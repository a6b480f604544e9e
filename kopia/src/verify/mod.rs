//! The independent check.
