//! Compaction of manifests.
