//! Derivation of every key from the password, the master key and the unique ID.
