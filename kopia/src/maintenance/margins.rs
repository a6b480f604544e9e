//! margins
