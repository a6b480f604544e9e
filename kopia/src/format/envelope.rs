//! The plain JSON envelope of `kopia.repository`.
